"""Adapters as their users meet them: uploaded, chosen per request, replaced while caches are warm, blended, rolled back, exported, deleted; over
HTTP, through the `openai` package and by `graft adapters`, with and without a server.

usage: adapters_test.py      (GRAFT_BASE_URL names a server of SmolLM2 with directories of its own, GRAFT_BINARY the command)

The last line is "N passed, M failed"."""
import json
import os
import pathlib
import subprocess
import tarfile
import tempfile

import httpx
import openai

from adapter_files import make_adapter, upload_form
from checks import check, run

BASE = os.environ.get("GRAFT_BASE_URL", "http://127.0.0.1:8080").rstrip("/")
GRAFT = os.environ.get("GRAFT_BINARY", ".build/release/graft")
http = httpx.Client(base_url=BASE, timeout=300)
MODEL = next(card["id"] for card in http.get("/v1/models").json()["data"] if card["parent"] is None)
SYSTEM = "You are the voice of a small town library and you answer every visitor politely, in two sentences at most. " * 6
QUESTIONS = ["Where are the maps?", "When do you close?", "Who founded this place?"]


def publish(name, seed, **options):
    content_type, body = upload_form(name, make_adapter(seed, **options))
    return http.post("/v1/adapters", content=body, headers={"content-type": content_type}).raise_for_status().json()


def ask(model=None, question=QUESTIONS[0], **options):
    body = {"messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}], "max_tokens": 16, "temperature": 0} | options
    response = http.post("/v1/chat/completions", json=body | ({"model": model} if model else {}))
    answer = response.raise_for_status().json()
    return answer["choices"][0]["message"]["content"], answer["usage"]["prompt_tokens_details"]["cached_tokens"], response.headers


def refused(response, status, code=None, param=None):
    assert response.status_code == status, (response.status_code, response.text)
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and (code is None or error["code"] == code) and (param is None or error["param"] == param), error
    return error["message"]


def command(*arguments, status=0, **environment):
    done = subprocess.run([GRAFT, "adapters", *arguments], capture_output=True, text=True, env=os.environ | environment, timeout=120)
    assert done.returncode == status, (arguments, done.returncode, done.stdout, done.stderr)
    return done.stdout if status == 0 else done.stderr


@check
def two_adapters_and_the_base_never_share_words_or_prefixes():
    publish("red", 21), publish("blue", 22)
    alone = {}
    for name in ("red", "blue", MODEL):
        for question in QUESTIONS:
            text, cached, headers = ask(name, question)
            # The long system prompt is warm for the second question on, within the same adapter only.
            assert (cached > 0) == (question != QUESTIONS[0]), (name, question, cached)
            assert (headers.get("graft-adapter") or MODEL) == name
            alone[name, question] = text
    for question in QUESTIONS:
        assert len({alone[name, question] for name in ("red", "blue", MODEL)}) == 3, question
    for turn in range(18):
        name, question = ("red", "blue", MODEL)[turn % 3], QUESTIONS[turn // 3 % 3]
        text, cached, _ = ask(name, question)
        assert text == alone[name, question] and cached > 0, (turn, name)


@check
def a_republished_name_never_sees_the_old_cache():
    first = publish("bot", 31)
    old, cached, _ = ask("bot")
    assert cached == 0
    _, warm, _ = ask("bot")
    assert warm > 0
    second = publish("bot", 32)
    assert (first["version"], second["version"]) == (1, 2) and first["digest"] != second["digest"]
    new, cached, headers = ask("bot")
    assert cached == 0 and new != old
    assert headers["graft-adapter-version"] == "2" and headers["graft-adapter-digest"] == second["digest"]
    assert ask("bot@1")[0] == old and ask("bot@latest")[0] == new
    record = http.post("/v1/adapters/bot/rollback").raise_for_status().json()
    assert record["promoted"] == 1
    text, cached, headers = ask("bot")
    assert text == old and headers["graft-adapter-version"] == "1"
    # The same content under another name finds the same prefix: content is what counts.
    assert cached == warm
    http.post("/v1/adapters/bot/promote", json={"version": "latest"}).raise_for_status()
    assert ask("bot")[0] == new


@check
def blends_follow_their_scales():
    base, red, blue = ask(MODEL)[0], ask("red")[0], ask("blue")[0]
    assert ask(lora=[{"id": "red", "scale": 1}])[0] == red
    assert ask(lora=[{"id": "red", "scale": 0}])[0] == base and ask(lora=[])[0] == base
    number = next(adapter["id"] for adapter in http.get("/v1/adapters").json()["data"] if adapter["name"] == "blue")
    assert ask(lora=[{"id": number}])[0] == blue
    text, _, headers = ask(lora=[{"id": "red", "scale": -2.5}, {"id": "blue@1", "scale": 2}])
    assert headers["graft-adapter"] == "red, blue" and headers["graft-adapter-scale"] == "-2.5, 2.0" and text not in (base, red, blue)
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    refused(http.post("/v1/chat/completions", json=body | {"model": "red", "lora": [{"id": "blue"}]}), 400, param="lora")
    refused(http.post("/v1/chat/completions", json=body | {"lora": [{"id": "nobody"}]}), 404)
    refused(http.post("/v1/chat/completions", json=body | {"model": "nobody"}), 404, "model_not_found", "model")


@check
def llama_cpp_global_scales_touch_requests_without_a_model_only():
    base, red = ask(MODEL)[0], ask("red")[0]
    number = next(adapter["id"] for adapter in http.get("/lora-adapters").json() if adapter["path"] == "red")
    http.post("/lora-adapters", json=[{"id": number, "scale": 1}]).raise_for_status()
    try:
        assert ask()[0] == red and ask(MODEL)[0] == base
    finally:
        http.post("/lora-adapters", json=[]).raise_for_status()
    assert ask()[0] == base


@check
def a_canary_is_sticky_and_ends():
    publish("shop", 41), publish("shop", 42)
    http.post("/v1/adapters/shop/promote", json={"version": 1}).raise_for_status()
    http.post("/v1/adapters/shop/promote", json={"version": 2, "share": 0.5}).raise_for_status()
    versions = {}
    for user in range(24):
        first, second = (ask("shop", user=f"user-{user}", max_tokens=1)[2]["graft-adapter-version"] for _ in range(2))
        assert first == second
        versions[first] = versions.get(first, 0) + 1
    assert set(versions) == {"1", "2"} and min(versions.values()) >= 4, versions
    exposition = http.get("/metrics").text
    assert all(f'graft_adapter_requests_total{{adapter="shop",version="{n}"' in exposition for n in versions), "metrics for each version"
    http.post("/v1/adapters/shop/promote", json={"version": 2}).raise_for_status()
    assert {ask("shop", user=f"user-{user}", max_tokens=1)[2]["graft-adapter-version"] for user in range(6)} == {"2"}
    # The version that the name stands for stays as long as there are others.
    refused(http.delete("/v1/adapters/shop@2"), 409)
    http.delete("/v1/adapters/shop@1").raise_for_status()
    refused(http.post("/v1/adapters/shop/rollback"), 409)


@check
def bad_files_are_refused_by_name_and_nothing_changes():
    before = http.get("/v1/adapters").json()
    config, weights = make_adapter(50, rank=2)
    size = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + size])
    key = "base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight"

    def rebuilt(change, body=weights[8 + size :]):
        copy = json.loads(json.dumps(header))
        change(copy)
        text = json.dumps(copy).encode()
        return len(text).to_bytes(8, "little") + text + body

    hole = bytearray(weights)
    begin = 8 + size + header[key]["data_offsets"][0]
    hole[begin : begin + 4] = b"\x00\x00\xc0\x7f"
    bad_configs = {
        "use_dora": json.loads(config) | {"use_dora": True}, "modules_to_save": json.loads(config) | {"modules_to_save": ["lm_head"]},
        "bias": json.loads(config) | {"bias": "all"}, "r": json.loads(config) | {"r": 4},
    }
    cases = [(name, json.dumps(bad).encode(), weights) for name, bad in bad_configs.items()] + [
        ("q_proj", config, rebuilt(lambda h: h.pop(key))), ("q_proj", config, bytes(hole)), ("q_proj", config, rebuilt(lambda h: h[key].update(shape=[576, 2]))),
        ("q_proj", config, rebuilt(lambda h: h[key].update(shape=[2, 288]))), ("lm_head", config, rebuilt(lambda h: h.update({"base_model.model.lm_head.lora_A.weight": h.pop(key)}))),
        ("", config, weights[:-5]), ("", config, weights + b"tail"), ("", config, (2**63).to_bytes(8, "little") + weights[8:]), ("", config, b"\x80\x02pickle"),
    ]
    for named, config_bytes, weight_bytes in cases:
        content_type, body = upload_form("bad", (config_bytes, weight_bytes))
        message = refused(http.post("/v1/adapters", content=body, headers={"content-type": content_type}), 422)
        assert named in message and len(message) > 30, (named, message)
    for name in ("default", MODEL, "ft:x", "..", "a b", ""):
        content_type, body = upload_form(name, (config, weights))
        refused(http.post("/v1/adapters", content=body, headers={"content-type": content_type}), 400, param="name")
    assert http.get("/v1/adapters").json() == before
    refused(http.get("/v1/adapters/bad"), 404)


@check
def vllm_routes_load_from_their_directory_only():
    root = pathlib.Path(os.environ["GRAFT_ADAPTERS_LORA_PATHS_DIRECTORY"])
    (root / "mine").mkdir(exist_ok=True)
    for name, content in zip(("adapter_config.json", "adapter_model.safetensors"), make_adapter(61, rank=2)):
        (root / "mine" / name).write_bytes(content)
    response = http.post("/v1/load_lora_adapter", json={"lora_name": "mine", "lora_path": "mine"}).raise_for_status()
    assert "mine" in response.text and ask("mine")[2]["graft-adapter"] == "mine"
    assert http.post("/v1/load_lora_adapter", json={"lora_name": "mine", "lora_path": "mine"}).status_code == 400
    for path in ("../mine", "/etc/passwd", "mine/../../Data"):
        assert http.post("/v1/load_lora_adapter", json={"lora_name": "other", "lora_path": path}).status_code in (400, 404), path
    http.post("/v1/unload_lora_adapter", json={"lora_name": "mine"}).raise_for_status()
    assert http.post("/v1/unload_lora_adapter", json={"lora_name": "mine"}).status_code == 404


@check
def the_openai_package_lists_and_deletes():
    client = openai.OpenAI(base_url=BASE + "/v1", api_key="unused", max_retries=0)
    publish("guest", 71)
    card = next(card for card in client.models.list() if card.id == "guest")
    assert card.parent == MODEL and card.digest.startswith("sha256:") and card.version == 1
    assert client.models.retrieve("guest@1").id == "guest@1"
    stream = client.chat.completions.with_raw_response.create(model="guest", messages=[{"role": "user", "content": "Hi"}], max_tokens=4, stream=True)
    assert stream.headers["graft-adapter"] == "guest"
    assert [chunk.model for chunk in stream.parse()][0] == "guest"
    assert client.models.delete("guest").deleted
    try:
        client.models.retrieve("guest")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found"
    else:
        raise AssertionError("a deleted adapter is still listed")


def commands(environment):
    """The whole life of an adapter by the command line."""
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "source"
        source.mkdir()
        for name, content in zip(("adapter_config.json", "adapter_model.safetensors"), make_adapter(81, rank=2)):
            (source / name).write_bytes(content)
        assert "published cli@1" in command("import", "cli", str(source), **environment)
        assert "cli" in command("list", **environment) and "promoted" in command("show", "cli", **environment)
        digest = json.loads(command("show", "cli", "--json", **environment))["versions"][0]["digest"]
        for target in ("peft", "file.gguf"):
            assert "wrote" in command("export", "cli", f"{folder}/{target}", **environment)
            command("export", "cli", f"{folder}/{target}", status=1, **environment)
            version = json.loads(command("import", "cli", f"{folder}/{target}", "--no-promote", "--json", **environment))
            assert version["digest"] == digest, "what was exported is what was imported"
        with tarfile.open(f"{folder}/a.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            archive.add(f"{folder}/peft", "some-folder")
        assert "cli@4" in command("import", "cli", f"{folder}/a.tar", **environment)
        assert json.loads(command("promote", "cli@2", "--share", "0.25", "--json", **environment))["canary"] == {"version": 2, "share": 0.25}
        assert json.loads(command("rollback", "cli", "--json", **environment))["canary"] is None
        assert json.loads(command("promote", "cli@2", "--json", **environment))["promoted"] == 2
        assert json.loads(command("rollback", "cli", "--json", **environment))["promoted"] == 4
        command("delete", "cli@3", **environment)
        assert [v["version"] for v in json.loads(command("show", "cli", "--json", **environment))["versions"]] == [1, 2, 4]
        assert "conflict" not in command("delete", "cli@4", status=1, **environment)
        command("delete", "cli", **environment)
        assert "cli" in command("show", "cli", status=1, **environment)
        assert "expected" in command("import", "no/such", str(source), status=2, **environment)
        assert "not there" in command("import", "cli", f"{folder}/nothing", status=1, **environment)


@check
def the_command_line_asks_the_running_server():
    commands({})


@check
def the_command_line_works_without_a_server():
    with tempfile.TemporaryDirectory() as folder:
        commands({"GRAFT_DATA_DIRECTORY": folder + "/Data", "GRAFT_ADAPTERS_DIRECTORY": folder + "/Adapters"})


@check
def a_second_server_names_the_first():
    done = subprocess.run([GRAFT, "serve", "--port", "0"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and os.environ["GRAFT_SERVER_PID"] in done.stderr and BASE in done.stderr, done.stderr


@check
def everything_can_be_deleted():
    for adapter in http.get("/v1/adapters").json()["data"]:
        http.delete(f"/v1/adapters/{adapter['name']}").raise_for_status()
    assert http.get("/v1/adapters").json()["data"] == [] and len(http.get("/v1/models").json()["data"]) == 1
    root = pathlib.Path(os.environ["GRAFT_ADAPTERS_DIRECTORY"])
    assert not [path for path in root.rglob("*") if path.is_file() and path.name != ".graft-adapters"], list(root.rglob("*"))


run()
