"""Hooks for Schemathesis, which `Scripts/contract` runs: they lead generated requests to where the server works, and keep that work short.

Generated names of models, files and jobs name nothing, and nearly every request would end with 404. So most of them get a name that is there. What is
generated besides stays as it is: mistakes must stay mistakes."""
import random

import schemathesis

GENERATING = ("/v1/chat/completions", "/v1/completions")
TOKENS = 4
dice = random.Random(7)


def is_count(value, most):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == int(value) and 1 <= value <= most


@schemathesis.hook
def before_call(context, case, kwargs):
    path, body = case.operation.path, case.body
    if path == "/v1/models/{id}" and case.method == "GET" and dice.random() < 0.5:
        case.path_parameters["id"] = "default"
    if not isinstance(body, dict):
        return
    if isinstance(body.get("model"), str) and dice.random() < 0.75:
        body["model"] = "default"
    if path in GENERATING and case.method == "POST":
        # Only numbers that are right are changed.
        for name in ("max_tokens", "max_completion_tokens"):
            if is_count(body.get(name), 2**31 - 1):
                body[name] = min(int(body[name]), TOKENS)
        if body.get("max_tokens") is None and body.get("max_completion_tokens") is None and isinstance(body.get("messages", body.get("prompt")), (list, str)):
            body["max_tokens"] = TOKENS
        if is_count(body.get("n"), 16):
            body["n"] = min(int(body["n"]), 2)
