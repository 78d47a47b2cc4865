"""A server in exact mode against the reference answers of transformers, over HTTP: prompts token by token, first-token probabilities,
whole greedy answers. SmolLM2 always; the other models of Tests/Golden/logits if their files are in Models/.

usage: golden_test.py        (GRAFT_BINARY names the command)

The last line is "N passed, M failed"."""
import json
import math
import os
import pathlib
import re
import subprocess
import sys

import httpx

ROOT = pathlib.Path(__file__).resolve().parents[2]
GRAFT = os.environ.get("GRAFT_BINARY", ".build/release/graft")
MODELS = {
    "SmolLM2-135M-Instruct.Q4_1": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "Qwen2.5-Coder-0.5B-Instruct.Q4_K_M": "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    "Qwen2.5-Coder-1.5B-Instruct.Q4_K_M": "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
    "gemma-3-270m.Q4_K_M": "gemma-3-270m-q4_k_m.gguf",
}
# A base model has no template: its prompts go in as token ids only.
BASE_MODELS = {"gemma-3-270m.Q4_K_M"}


def serve(path):
    process = subprocess.Popen([GRAFT, "serve", "--exact", "--port", "0", "--context", "1024", "--model", path], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if address := re.search(r"address=(\S+)", line):
            return process, address[1]
    raise SystemExit(f"{path}: the server ended before it was ready")


def distance(golden, found):
    """D = sum over the golden's 20 best of p |ln p - ln q|; a token that is not among the 100 returned counts as at most the last of them."""
    found = {int(token): logprob for token, logprob in found}
    least = min(found.values())
    return sum(math.exp(p) * abs(p - found.get(token, least)) for token, p in golden)


def check(http, name, number, chat):
    ids = chat["prompt_ids"]
    if name not in BASE_MODELS:
        body = {"messages": chat["messages"], "temperature": 0, "max_tokens": 1, "return_token_ids": True}
        found = http.post("/v1/chat/completions", json=body).raise_for_status().json()
        assert found["prompt_token_ids"] == ids, f"the prompt is {found['prompt_token_ids']}, expected {ids}"
    body = {"prompt": ids, "temperature": 0, "max_tokens": len(chat["greedy_ids"]), "logprobs": 100, "return_token_ids": True}
    choice = http.post("/v1/completions", json=body).raise_for_status().json()["choices"][0]
    top = choice["logprobs"]["top_token_ids"]
    d = distance(chat["last_top20"], top[0])
    assert d < 0.002, f"D is {d}"
    for i, (a, b) in enumerate(zip(choice["token_ids"], chat["greedy_ids"], strict=False)):
        if a != b:
            logprobs = dict(map(tuple, top[i]))
            assert abs(logprobs[a] - logprobs.get(b, -math.inf)) < 1e-3, f"token {i} is {a}, expected {b}"
            break
    else:
        assert choice["token_ids"] == chat["greedy_ids"], f"the answer is {choice['token_ids']}, expected {chat['greedy_ids']}"
    return d


passed = failed = 0
for name, file in MODELS.items():
    if not (ROOT / "Models" / file).exists():
        print(f"skipped: {file} is not in Models/ (graft pull fetches it)")
        continue
    golden = json.loads((ROOT / f"Tests/Golden/logits/{name}.json").read_text())
    process, address = serve(f"Models/{file}")
    try:
        with httpx.Client(base_url=address, timeout=300) as http:
            for number, chat in enumerate(golden["chats"]):
                try:
                    print(f"ok   {name}, chat {number}: D = {check(http, name, number, chat):.5f}")
                    passed += 1
                except Exception as error:
                    print(f"FAIL {name}, chat {number}: {error}")
                    failed += 1
    finally:
        process.terminate()
        process.wait()
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed else 0)
