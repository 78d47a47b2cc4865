"""API keys, scopes, tenants, limits and the audit trail, as the users and the operator of a server that others can reach meet them.

usage: access_test.py      (GRAFT_BINARY, or .build/release/graft; needs SmolLM2-135M-Instruct in Models/)

Starts a server of its own with directories of its own, logs in JSON and an audit file. The last line is "N passed, M failed"."""
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

import httpx
import openai

from adapter_files import make_adapter, upload_form
from checks import carry_out, check
from wire import Server

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("GRAFT_BINARY", ".build/release/graft")
SCRATCH = pathlib.Path(tempfile.mkdtemp(prefix="graft-access-"))
LOG, AUDIT = SCRATCH / "log", SCRATCH / "audit.jsonl"
ORIGIN = "https://app.example.com"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("GRAFT_")} | {
    "GRAFT_DATA_DIRECTORY": str(SCRATCH / "Data"), "GRAFT_ADAPTERS_DIRECTORY": str(SCRATCH / "Adapters"), "GRAFT_LOG_FORMAT": "json",
    "GRAFT_AUDIT_FILE": str(AUDIT), "GRAFT_SERVER_CORS_ORIGINS": ORIGIN, "GRAFT_ADAPTERS_ALLOW_GLOBAL_LORA": "true",
    "GRAFT_ENGINE_CONTEXT_LENGTH": "2048",
}
KEY = re.compile(r"sk-graft-[0-9a-f]{16}-[A-Za-z0-9_-]{43}")
CANARIES = ["canary-prompt-81f3", "canary-file-5b2c", "canary-user-77aa"]
base = ""
keys = {}


def graft(*arguments, key=None, code=0):
    environment = ENVIRONMENT | ({"GRAFT_API_KEY": key} if key else {})
    result = subprocess.run([BINARY, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == code, (arguments[:2], result.returncode, result.stderr)
    return result


def create(name, *options, key=None):
    text = graft("keys", "create", name, *options, key=key).stdout.strip()
    assert KEY.fullmatch(text), "the key alone goes to standard output"
    return text


def id_of(key):
    return "key_" + key.split("-")[2]


def http(key=None, **options):
    headers = {"authorization": f"Bearer {key}"} if key else {}
    # There is no TLS here, and reading the system's certificates for each of hundreds of clients would take minutes.
    return httpx.Client(base_url=base, timeout=120, headers=headers, verify=False, trust_env=False, **options)


def call(key, method, path, **options):
    with http(key) as client:
        return client.request(method, path, **options)


def chat(key, text, **options):
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 8, "temperature": 0} | options
    return call(key, "POST", "/v1/chat/completions", json=body)


def routes():
    for line in (ROOT / "Tests/EndToEnd/routes.txt").read_text().splitlines():
        if not line.startswith("#"):
            yield line.split(" ")


def refused(response, status, code):
    error = response.json()["error"]
    assert response.status_code == status and error["code"] == code, (response.status_code, response.text)
    assert set(error) == {"message", "type", "param", "code"}
    return error


# MARK: Keys

@check
def an_address_that_others_reach_wants_a_key_first():
    environment = ENVIRONMENT | {"GRAFT_DATA_DIRECTORY": str(SCRATCH / "Other")}
    result = subprocess.run([BINARY, "serve", "--host", "0.0.0.0", "--port", "0", "--insecure-listen"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1 and "graft keys create" in result.stderr, result.stderr


@check
def routes_without_a_key():
    for method, path, access in routes():
        for key in (None, "sk-graft-0123456789abcdef-" + "A" * 43, "unused"):
            response = call(key, method, path.replace("{id}", "x"))
            if access == "open":
                assert response.status_code == 200, (method, path, response.status_code)
                continue
            error = refused(response, 401, "invalid_api_key")
            assert error["type"] == "authentication_error" and error["param"] is None
            assert response.headers["www-authenticate"].startswith('Bearer realm="graft"'), response.headers
    refused(call(None, "GET", "/v1/nothing"), 401, "invalid_api_key")
    refused(call(None, "PUT", "/v1/models"), 401, "invalid_api_key")
    try:
        openai.OpenAI(base_url=base + "/v1", api_key="sk-wrong", max_retries=0).models.list()
        raise AssertionError("expected a refusal")
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key"


@check
def routes_with_a_key_of_one_scope():
    for scope in ("infer", "files", "train", "admin"):
        with http(keys[scope]) as client:
            for method, path, access in routes():
                # An upload wants a form; what else is wrong with the requests does not matter here.
                response = client.request(method, path.replace("{id}", "x"), content=b"[]", headers={"content-type": "application/json"})
                if access in ("open", "any", scope):
                    assert response.status_code not in (401, 403), (scope, method, path, response.text)
                else:
                    error = refused(response, 403, "missing_scope")
                    assert error["type"] == "permission_error" and f"'{access}'" in error["message"], error
                    assert f'scope="{access}"' in response.headers["www-authenticate"]


@check
def an_upload_without_a_key_is_refused_before_its_body():
    host, port = base.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(
            b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=x\r\n"
            b"content-length: 100000000\r\nexpect: 100-continue\r\n\r\n")
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 401 ") and answer.count(b"HTTP/1.1") == 1, answer[:200]


@check
def the_command_line_brings_its_key():
    result = graft("adapters", "list", code=1)
    assert "GRAFT_API_KEY" in result.stderr and "--api-key-file" in result.stderr, result.stderr
    assert "no adapters yet" in graft("adapters", "list", key=keys["alice"]).stdout
    file = SCRATCH / "key.txt"
    file.write_text(keys["alice"] + "\n")
    assert "no adapters yet" in graft("adapters", "list", "--api-key-file", str(file)).stdout
    assert "'admin'" in graft("keys", "list", key=keys["alice"], code=1).stderr
    listing = graft("keys", "list", key=keys["admin"]).stdout
    assert id_of(keys["alice"]) in listing and not KEY.search(listing), listing
    shown = json.loads(graft("keys", "list", "--json", key=keys["admin"]).stdout)
    assert {key["owner"]["id"] for key in shown} >= {"alice", "bob", "local"} and not any("value" in key for key in shown)
    assert graft("keys", "revoke", keys["alice"], key=keys["admin"], code=2).stderr.count(keys["alice"]) == 0


@check
def keys_expire_and_are_revoked_on_open_connections():
    revoked = create("revoked", "--owner", "alice", key=keys["admin"])
    ending = create("ending", "--expires-in", "10s", key=keys["admin"])
    with http(ending) as first, http(revoked) as second:
        assert first.get("/v1/models").status_code == 200 and second.get("/v1/models").status_code == 200
        graft("keys", "revoke", id_of(revoked), key=keys["admin"])
        error = refused(second.get("/v1/models"), 401, "invalid_api_key")
        assert "revoked" in error["message"]
        deadline = time.monotonic() + 30
        while (response := first.get("/v1/models")).status_code == 200:
            assert time.monotonic() < deadline, "the key does not expire"
            time.sleep(0.1)
        assert "expired" in refused(response, 401, "invalid_api_key")["message"]


@check
def a_stream_ends_when_its_key_does():
    key = create("streaming", "--scope", "infer", key=keys["admin"])
    body = {"messages": [{"role": "user", "content": "Count."}], "stream": True, "max_tokens": 1500, "ignore_eos": True}
    lines, revoked = [], threading.Event()
    with http(key) as client, client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line:
                lines.append(line)
            if len(lines) == 5 and not revoked.is_set():
                revoked.set()
                assert call(keys["admin"], "DELETE", "/v1/organization/admin_api_keys/" + id_of(key)).status_code == 200
    assert revoked.is_set() and "data: [DONE]" not in lines, lines[-1]
    assert json.loads(lines[-1].removeprefix("data: "))["error"]["code"] == "invalid_api_key", lines[-1]
    assert len(lines) < 1400, "the answer went on to its end"
    deadline = time.monotonic() + 30
    while "graft_sequences_running 0" not in call(keys["admin"], "GET", "/metrics").text:
        assert time.monotonic() < deadline, "the sequence goes on"
        time.sleep(0.1)


# MARK: Tenants

def without_ids(response, name):
    # Messages put what the client wrote into quotes.
    return response.status_code, response.text.replace(f"'{name}'", "'ID'"), {
        key: value for key, value in response.headers.items() if key not in ("x-request-id", "date", "content-length", "openai-processing-ms")}


@check
def another_owners_objects_look_like_none():
    rows = "".join(json.dumps({"messages": [{"role": "user", "content": f"{CANARIES[1]} {n}"}, {"role": "assistant", "content": str(n)}]}) + "\n" for n in range(12))
    alice, bob = keys["alice"], keys["bob"]
    file = call(alice, "POST", "/v1/files", files={"file": ("a.jsonl", rows)}, data={"purpose": "fine-tune"}).json()["id"]
    kept = chat(alice, "Hello", store=True, user=CANARIES[2]).json()["id"]
    kind, form = upload_form("alices", make_adapter(1))
    assert call(alice, "POST", "/v1/adapters", content=form, headers={"content-type": kind}).status_code == 200
    job = call(alice, "POST", "/v1/fine_tuning/jobs", json={"model": "default", "training_file": file, "suffix": "tuned"}).json()["id"]
    number = call(alice, "GET", "/v1/adapters/alices").json()["id"]
    zeros = "0" * 32
    absent = {file: "file-" + zeros, kept: "chatcmpl-" + zeros, "alices": "absent", "alices@1": "absent@1", job: "ftjob-" + zeros, number: number + 5000}
    hello = [{"role": "user", "content": "Hi"}]
    questions = [
        ("GET", "/v1/files/{}", file, None), ("GET", "/v1/files/{}/content", file, None), ("DELETE", "/v1/files/{}", file, None),
        ("GET", "/v1/chat/completions/{}", kept, None), ("GET", "/v1/chat/completions/{}/messages", kept, None),
        ("POST", "/v1/chat/completions/{}", kept, lambda id: {"metadata": {}}), ("DELETE", "/v1/chat/completions/{}", kept, None),
        ("POST", "/v1/feedback", kept, lambda id: {"inference_id": id, "metric_name": "good", "value": True}),
        ("GET", "/v1/adapters/{}", "alices", None), ("GET", "/v1/adapters/{}", "alices@1", None), ("GET", "/v1/adapters/{}/versions", "alices", None),
        ("GET", "/v1/adapters/{}/export", "alices", None), ("POST", "/v1/adapters/{}/promote", "alices", lambda id: {}),
        ("POST", "/v1/adapters/{}/rollback", "alices", lambda id: {}), ("DELETE", "/v1/adapters/{}", "alices", None),
        ("GET", "/v1/models/{}", "alices", None), ("DELETE", "/v1/models/{}", "alices", None),
        ("POST", "/v1/chat/completions", "alices", lambda id: {"model": id, "messages": hello}),
        ("POST", "/v1/chat/completions", "alices", lambda id: {"lora": [{"id": id}], "messages": hello}),
        ("POST", "/v1/chat/completions", number, lambda id: {"lora": [{"id": id}], "messages": hello}),
        ("POST", "/tokenize", "alices", lambda id: {"model": id, "content": "Hi"}),
        ("GET", "/v1/fine_tuning/jobs/{}", job, None), ("GET", "/v1/fine_tuning/jobs/{}/events", job, None),
        ("GET", "/v1/fine_tuning/jobs/{}/events?stream=true", job, None), ("GET", "/v1/fine_tuning/jobs/{}/checkpoints", job, None),
        ("POST", "/v1/fine_tuning/jobs/{}/cancel", job, lambda id: {}), ("POST", "/v1/fine_tuning/jobs/{}/pause", job, lambda id: {}),
        ("POST", "/v1/fine_tuning/jobs/{}/resume", job, lambda id: {}),
    ]
    for method, path, id, body in questions:
        answers = []
        for name in (id, absent[id]):
            options = {"json": body(name)} if body else {}
            answers.append(without_ids(call(bob, method, path.format(name), **options), str(name)))
        assert answers[0] == answers[1], (method, path, answers)
        assert answers[0][0] == 404, (method, path, answers[0])
    # The files of a job and the places in lists are named elsewhere than in the path.
    own = call(bob, "POST", "/v1/files", files={"file": ("b.jsonl", rows)}, data={"purpose": "fine-tune"}).json()["id"]
    for body in (lambda id: {"model": "default", "training_file": id}, lambda id: {"model": "default", "training_file": own, "validation_file": id}):
        answers = [without_ids(call(bob, "POST", "/v1/fine_tuning/jobs", json=body(id)), id) for id in (file, absent[file])]
        assert answers[0] == answers[1] and answers[0][0] in (400, 404), answers
    assert call(bob, "DELETE", "/v1/files/" + own).status_code == 200
    for path, id in (("/v1/files", file), ("/v1/chat/completions", kept), ("/v1/fine_tuning/jobs", job)):
        answers = [without_ids(call(bob, "GET", path, params={"after": name}), name) for name in (id, absent[id])]
        assert answers[0] == answers[1], (path, answers)
    operator = create("bobs", "--owner", "bob", "--scope", "admin", key=keys["admin"])
    answers = [without_ids(call(operator, "POST", "/v1/unload_lora_adapter", json={"lora_name": name}), name) for name in ("alices", "absent")]
    assert answers[0] == answers[1] and answers[0][0] in (400, 403, 404), answers
    assert call(bob, "POST", "/v1/fine_tuning/jobs", json={"model": "alices", "training_file": file}).status_code == 404
    # The job may have come to its end meanwhile, and left an adapter and a file of its own.
    for path, mine in (("/v1/files", file), ("/v1/chat/completions", kept), ("/v1/adapters", "alices"), ("/v1/fine_tuning/jobs", job)):
        assert mine not in call(bob, "GET", path).text, path
        assert mine in [entry.get("name") if path == "/v1/adapters" else entry["id"] for entry in call(alice, "GET", path).json()["data"]], path
    for path in ("/v1/files", "/v1/chat/completions", "/v1/adapters"):
        assert call(bob, "GET", path).json()["data"] == [], path
    assert [card["id"] for card in call(bob, "GET", "/v1/models").json()["data"] if card["parent"]] == []
    # Another key of the same owner opens all of it.
    second = create("second", "--owner", "alice", key=keys["admin"])
    assert call(second, "GET", f"/v1/files/{file}/content").text == rows and call(second, "GET", f"/v1/chat/completions/{kept}").status_code == 200
    assert call(second, "GET", "/v1/adapters/alices").status_code == 200 and call(second, "GET", f"/v1/fine_tuning/jobs/{job}").status_code == 200
    status = call(second, "POST", f"/v1/fine_tuning/jobs/{job}/cancel").json().get("status")
    assert status == "cancelled" or call(second, "GET", f"/v1/fine_tuning/jobs/{job}").json()["status"] in ("succeeded", "failed"), status


@check
def cached_prompts_are_their_owners_own():
    prompt = " ".join(f"{CANARIES[0]} {n}" for n in range(40))

    def cached(key):
        return chat(key, prompt, max_tokens=1).json()["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert cached(keys["alice"]) == 0 and cached(keys["alice"]) > 0
    assert cached(keys["bob"]) == 0, "whoever guesses another owner's prompt must not learn that it was one"
    assert cached(keys["bob"]) > 0


# MARK: Limits

@check
def limits_of_requests_and_tokens():
    key = create("few", "--requests-per-minute", "2", key=keys["admin"])
    for remaining in ("1", "0"):
        response = chat(key, "Hi", max_tokens=1)
        assert response.status_code == 200 and response.headers["x-ratelimit-limit-requests"] == "2", response.headers
        assert response.headers["x-ratelimit-remaining-requests"] == remaining and re.fullmatch(r"[0-9.ms]+", response.headers["x-ratelimit-reset-requests"])
        assert "x-ratelimit-limit-tokens" not in response.headers
    response = chat(key, "Hi", max_tokens=1)
    error = refused(response, 429, "rate_limit_exceeded")
    assert error["type"] == "requests" and 1 <= int(response.headers["retry-after"]) <= 30 and response.headers["x-ratelimit-remaining-requests"] == "0"
    assert call(key, "GET", "/v1/models").status_code == 200
    try:
        openai.OpenAI(base_url=base + "/v1", api_key=key, max_retries=0).completions.create(model="default", prompt="Hi")
        raise AssertionError("expected a refusal")
    except openai.RateLimitError as error:
        assert error.code == "rate_limit_exceeded"
    key = create("short", "--tokens-per-minute", "400", key=keys["admin"])
    response = chat(key, "Hi", max_tokens=300, stop=["!", ".", "?", ","])
    used = response.json()["usage"]["total_tokens"]
    assert response.status_code == 200 and response.headers["x-ratelimit-limit-tokens"] == "400" and int(response.headers["x-ratelimit-remaining-tokens"]) < 100
    assert used < 300
    with http(key).stream("POST", "/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, "stream": True}) as stream:
        # What the first answer did not use came back.
        assert stream.status_code == 200 and int(stream.headers["x-ratelimit-remaining-tokens"]) > 400 - used - 60, (used, stream.headers)
        stream.read()
    response = chat(key, "Hi", max_tokens=500)
    assert refused(response, 429, "rate_limit_exceeded")["type"] == "tokens" and response.headers["x-should-retry"] == "false"


# MARK: Web pages

@check
def web_pages_and_hosts():
    asked = {"origin": ORIGIN, "access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    answer = call(None, "OPTIONS", "/v1/chat/completions", headers=asked)
    assert answer.status_code == 204 and answer.headers["access-control-allow-origin"] == ORIGIN, answer.headers
    assert "POST" in answer.headers["access-control-allow-methods"] and answer.headers["access-control-allow-headers"] == "authorization,content-type"
    for origin in ("https://evil.example", "null", ORIGIN + ".evil.example", "http://app.example.com"):
        answer = call(None, "OPTIONS", "/v1/chat/completions", headers=asked | {"origin": origin})
        assert answer.status_code == 401 and not [name for name in answer.headers if name.startswith("access-control")], answer.headers
        assert "access-control-allow-origin" not in call(keys["alice"], "GET", "/v1/models", headers={"origin": origin}).headers
    for key, status in ((keys["alice"], 200), (None, 401)):
        answer = call(key, "GET", "/v1/models", headers={"origin": ORIGIN})
        assert answer.status_code == status and answer.headers["access-control-allow-origin"] == ORIGIN and answer.headers["vary"] == "origin"
        assert "access-control-allow-credentials" not in answer.headers
    with http(keys["alice"]).stream(
        "POST", "/v1/chat/completions", headers={"origin": ORIGIN}, json={"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, "stream": True}
    ) as stream:
        assert stream.headers["access-control-allow-origin"] == ORIGIN
        stream.read()
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80"):
        refused(call(keys["alice"], "GET", "/v1/models", headers={"host": host}), 421, "misdirected_request")
    assert call(keys["alice"], "GET", "/v1/models", headers={"host": "localhost:1"}).status_code == 200


@check
def web_pages_get_nothing_unless_they_are_named():
    with Server() as server:
        for method, headers in (("OPTIONS", {"access-control-request-method": "POST"}), ("GET", {})):
            answer = httpx.request(method, server.base + "/v1/models", headers={"origin": ORIGIN} | headers)
            assert not [name for name in answer.headers if name.startswith("access-control")], answer.headers


# MARK: Audit and privacy

@check
def one_audit_line_for_each_change():
    def lines():
        return [json.loads(line) for line in AUDIT.read_text().splitlines()]

    before = len(lines())
    alice, admin = keys["alice"], keys["admin"]
    rows = "".join(json.dumps({"messages": [{"role": "user", "content": f"Word {n}?"}, {"role": "assistant", "content": str(n)}]}) + "\n" for n in range(12))
    expected = []

    def did(action, object, actor=id_of(alice), tenant="alice", result="ok"):
        expected.append((action, object, actor, tenant, result))

    made = call(admin, "POST", "/v1/organization/admin_api_keys", json={"name": "audited"}).json()["id"]
    did("key.create", made, id_of(admin), "local")
    call(admin, "DELETE", "/v1/organization/admin_api_keys/" + made)
    did("key.revoke", made, id_of(admin), "local")
    file = call(alice, "POST", "/v1/files", files={"file": ("a.jsonl", rows)}, data={"purpose": "fine-tune"}, headers={"x-request-id": "audited-1"}).json()["id"]
    did("file.upload", file)
    kept = chat(alice, "Hello", store=True, max_tokens=200, stop=["."]).json()["id"]
    feedback = call(alice, "POST", "/v1/feedback", json={"inference_id": kept, "metric_name": "good", "value": True}).json()["id"]
    did("feedback.create", feedback)
    assert call(alice, "POST", "/v1/chat/completions/" + kept, json={"metadata": {"run": "audited"}}).status_code == 200
    did("exchange.change", kept)
    made_of_logs = call(alice, "POST", "/v1/datasets/from_logs", json={"filter": {"metadata": {"run": "audited"}}}).json()
    assert "id" in made_of_logs, made_of_logs
    did("file.create_from_logs", made_of_logs["id"])
    call(alice, "DELETE", "/v1/chat/completions/" + kept)
    did("exchange.delete", kept)
    for seed in (2, 3):
        kind, form = upload_form("audited", make_adapter(seed))
        assert call(alice, "POST", "/v1/adapters", content=form, headers={"content-type": kind}).status_code == 200
        did("adapter.publish", f"audited@{seed - 1}")
    call(alice, "POST", "/v1/adapters/audited/promote", json={"version": 1})
    did("adapter.promote", "audited@1")
    call(alice, "POST", "/v1/adapters/audited/rollback", json={})
    did("adapter.rollback", "audited@2")
    assert call(alice, "POST", "/v1/adapters/audited/promote", json={"version": 1, "share": 0.25}).status_code == 200
    did("adapter.canary", "audited@1")
    operator = create("operator", "--owner", "alice", "--scope", "admin", key=admin)
    did("key.create", id_of(operator), id_of(admin), "local")
    number = call(alice, "GET", "/v1/adapters/audited").json()["id"]
    for blend, object in (([{"id": number, "scale": 0.5}], "audited*0.5"), ([], "-")):
        assert call(operator, "POST", "/lora-adapters", json=blend).status_code == 200
        did("adapter.set_global", object, id_of(operator))
    chat(alice, "Hello", store=True, user="audited-user", max_tokens=2)
    assert call(alice, "DELETE", "/v1/chat/completions", params={"user": "audited-user"}).json()["count"] == 1
    did("exchange.delete_of_user", "-")
    for pinned in (True, False):
        assert call(operator, "POST", "/v1/adapters/audited/pin", json={"pinned": pinned}).status_code == 200
        did("adapter.pin" if pinned else "adapter.unpin", "audited", id_of(operator))
    call(alice, "DELETE", "/v1/adapters/audited")
    did("adapter.delete", "audited")
    job = call(alice, "POST", "/v1/fine_tuning/jobs", json={"model": "default", "training_file": file, "method": {
        "type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 50}}}}).json()["id"]
    did("job.create", job)
    for command in ("pause", "resume"):
        assert call(alice, "POST", f"/v1/fine_tuning/jobs/{job}/{command}").status_code == 200
        did("job." + command, job)
    assert call(alice, "POST", f"/v1/fine_tuning/jobs/{job}/cancel").status_code == 200
    # The end is on the disk before the command is answered.
    did("job.end", job, "system", result="cancelled")
    did("job.cancel", job)
    call(alice, "POST", f"/v1/fine_tuning/jobs/{job}/cancel")
    did("job.cancel", job, result="job_conflict")
    call(alice, "DELETE", "/v1/files/" + file)
    did("file.delete", file)
    call(alice, "DELETE", "/v1/files/" + file)
    did("file.delete", file, result="file_not_found")
    found = lines()[before:]
    assert [tuple(line[name] for name in ("action", "object", "actor", "tenant", "result")) for line in found] == expected, found
    assert [line["request_id"] for line in found if line["action"] == "file.upload"] == ["audited-1"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) and len(line["server"]) == 32 for line in found)
    logged = [json.loads(line) for line in LOG.read_text().splitlines() if '"message":"audit"' in line]
    assert [line["object"] for line in logged[-len(found):]] == [line["object"] for line in found]


@check
def nothing_secret_is_in_the_logs():
    key = keys["alice"]
    # Where keys do not belong.
    call(None, "GET", f"/v1/models?api_key={key}")
    call(key, "GET", f"/v1/files/{key}")
    call(key, "DELETE", f"/v1/files/{key}")
    call(key, "POST", f"/v1/fine_tuning/jobs/{key}/cancel")
    call(keys["admin"], "DELETE", f"/v1/organization/admin_api_keys/{key}")
    call(key, "GET", "/version", headers={"x-request-id": key})
    call(key, "GET", "/v1/models", headers={"authorization": f"Basic {key}"})
    chat(key, CANARIES[0], model=key)
    with http(key).stream("POST", "/v1/chat/completions", json={"messages": [{"role": "user", "content": CANARIES[0]}], "stream": True, "max_tokens": 4}) as stream:
        stream.read()
    # What one owner says is in no answer to another one.
    chat(key, CANARIES[0], store=True, user=CANARIES[2], metadata={"about": CANARIES[0]})
    lists = ("/v1/models", "/v1/files", "/v1/fine_tuning/jobs", "/v1/chat/completions", "/v1/adapters")
    assert any(CANARIES[0] in call(key, "GET", path).text for path in lists)
    for other in ("bob", "admin"):
        assert not [word for path in lists for word in CANARIES if word in call(keys[other], "GET", path).text], other
    metrics = call(keys["admin"], "GET", "/metrics").text
    for text in (LOG.read_text(), AUDIT.read_text(), metrics):
        assert text and not KEY.search(text) and not [key for key in keys.values() if key[-43:] in text]
        assert not [word for word in CANARIES if word in text]
    database = b"".join(path.read_bytes() for path in (SCRATCH / "Data").iterdir() if path.is_file())
    assert not [key for key in keys.values() if key[-43:].encode() in database], "a key is in the database"


def main():
    global base
    # Without a server the command works on the data directory.
    for scope in ("infer", "files", "train", "admin"):
        keys[scope] = create(scope, "--scope", scope)
    for owner in ("alice", "bob"):
        keys[owner] = create(owner, "--owner", owner)
    with open(LOG, "wb") as log:
        server = subprocess.Popen([BINARY, "serve", "--port", "0"], cwd=ROOT, env=ENVIRONMENT, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while not (address := re.search(r'"address":"([^"]+)"', LOG.read_text())):
            assert server.poll() is None and time.monotonic() < deadline, LOG.read_text()
            time.sleep(0.05)
        base = address[1]
        failed = carry_out()
        server.terminate()
        assert server.wait(60) == 0, "the server did not end cleanly"
    finally:
        server.kill()
        shutil.rmtree(SCRATCH, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
