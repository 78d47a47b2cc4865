"""Every operation of /openapi.json, carried out once: with its own examples where it has some, and with the answer that it promises.

usage: contract_test.py      (GRAFT_BASE_URL names a server of SmolLM2 with directories of its own, as Scripts/with-server starts one)

The ids that examples name stand for things that are made first. The last line is "N operations answered as described"."""
import json
import os
import pathlib
import re
import sys
import time

import httpx

from adapter_files import make_adapter, multipart, upload_form

http = httpx.Client(base_url=os.environ.get("GRAFT_BASE_URL", "http://127.0.0.1:8080"), timeout=300)
document = http.get("/openapi.json").json()
OPERATIONS = {operation["operationId"]: (method, path, operation) for path, methods in document["paths"].items() for method, operation in methods.items()}
answered = set()
# What ids of examples stand for.
ids = {}


def resolved(value):
    while "$ref" in value:
        target = document
        for step in value["$ref"].split("/")[1:]:
            target = target[step]
        value = target
    return value


def wrong(value, schema, place="answer"):
    """How a value differs from its schema; a member that is not described counts. Knows the words that the description uses in answers."""
    schema = resolved(schema)
    if "anyOf" in schema:
        found = [wrong(value, choice, place) for choice in schema["anyOf"]]
        return [] if [] in found else found[0]
    if "const" in schema:
        return [] if value == schema["const"] else [f"{place} is {value!r}, expected {schema['const']!r}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{place} is {value!r}, expected one of {schema['enum']}"]
    kinds = {"null": type(None), "boolean": bool, "string": str, "array": list, "object": dict, "integer": int, "number": (int, float)}
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    if types and not any(isinstance(value, kinds[kind]) and (kind == "boolean" or not isinstance(value, bool)) for kind in types):
        return [f"{place} is {type(value).__name__}, expected {types}"]
    differences = []
    if isinstance(value, dict) and "properties" in schema:
        differences += [f"{place}.{name} is missing" for name in schema.get("required", []) if name not in value]
        differences += [f"{place}.{name} is not described" for name in value if name not in schema["properties"]]
        for name in value.keys() & schema["properties"].keys():
            differences += wrong(value[name], schema["properties"][name], f"{place}.{name}")
    elif isinstance(value, dict) and "additionalProperties" in schema:
        for name, member in value.items():
            differences += wrong(member, schema["additionalProperties"], f"{place}.{name}")
    if isinstance(value, list) and "items" in schema:
        for index, element in enumerate(value):
            differences += wrong(element, schema["items"], f"{place}[{index}]")
    return differences


def events(text, schema):
    """The data of server-sent events, each held against its schema."""
    found = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    assert found and found[-1] == "[DONE]", text[-200:]
    content = next(choice["contentSchema"] for choice in schema["properties"]["data"]["anyOf"] if "contentSchema" in choice)
    for data in found[:-1]:
        differences = wrong(json.loads(data), content, "event")
        assert not differences, differences
    return [json.loads(data) for data in found[:-1]]


def call(name, id=None, example=None, status=200, **options):
    """Carries an operation out. With the name of an example, that is its body."""
    method, path, operation = OPERATIONS[name]
    if example:
        text = json.dumps(operation["requestBody"]["content"]["application/json"]["examples"][example]["value"])
        for sample, real in ids.items():
            text = text.replace(sample, real)
        options["json"] = json.loads(text)
    response = http.request(method.upper(), path.replace("{id}", id or ""), **options)
    assert response.status_code == status, f"{name} {example or ''}: {response.status_code}, {response.text[:500]}"
    description = resolved(operation["responses"][str(status)])
    kind = response.headers["content-type"].split(";")[0]
    assert kind in description["content"], f"{name} answered {kind}, described are {list(description['content'])}"
    schema = description["content"][kind]["schema"]
    if status == 200:
        answered.add(name)
    if kind == "text/event-stream":
        return events(response.text, schema)
    if kind == "application/json":
        differences = wrong(response.json(), schema)
        assert not differences, f"{name}: {differences[:5]}"
        return response.json()
    return response


def server():
    for name in ("getLivez", "getReadyz", "getHealth", "getVersion", "getMetrics", "getOpenAPI", "listModels"):
        call(name)
    call("retrieveModel", "default")
    call("retrieveModel", "nobody", status=404)
    for example in ("text", "conversation"):
        call("tokenize", example=example)
    call("detokenize", example="tokens")


def generation_and_what_is_kept():
    assert call("createChatCompletion", example="question")["choices"][0]["message"]["content"]
    chunks = call("createChatCompletion", example="stream")
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant" and chunks[-1]["choices"] == [] and chunks[-1]["usage"]
    call("createCompletion", example="text")
    assert len(call("createCompletion", example="scores")["choices"]) == 2
    call("createCompletion", json={"prompt": "One, two,", "max_tokens": 3, "stream": True, "logprobs": 2, "return_token_ids": True})
    call("createChatCompletion", json={"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, "logprobs": True, "top_logprobs": 2, "return_token_ids": True})
    call("createChatCompletion", json={"messages": []}, status=400)
    kept = call("createChatCompletion", example="kept")["id"]
    ids["chatcmpl-0123456789abcdef"] = kept
    for example in ("rating", "better"):
        call("createFeedback", example=example)
    page = call("listChatCompletions", params={"metadata[topic]": "greeting", "order": "desc", "limit": 1})
    assert [completion["id"] for completion in page["data"]] == [kept]
    assert len(call("retrieveChatCompletion", kept)["graft"]["feedback"]) == 2
    assert call("updateChatCompletion", kept, "reviewed")["metadata"] == {"reviewed": "yes"}
    assert call("listChatCompletionMessages", kept)["data"][0]["content"] == "Hello"
    dataset = call("createDatasetFromLogs", example="all")
    assert dataset["graft_dataset"]["examples"] >= 1
    call("deleteFile", dataset["id"])
    call("deleteChatCompletion", kept)
    call("createChatCompletion", example="kept")
    assert call("deleteChatCompletionsOfUser", params={"user": "ada"})["count"] == 1


def adapters():
    for seed in (1, 2):
        content_type, body = upload_form("support-bot", make_adapter(seed))
        assert call("publishAdapter", content=body, headers={"content-type": content_type})["version"] == seed
    content_type, body = upload_form("broken", (b"{}", b"nothing"))
    call("publishAdapter", content=body, headers={"content-type": content_type}, status=422)
    names, page = [], {"has_more": True}
    while page["has_more"]:
        page = call("listAdapters", params={"limit": 1} | ({"after": page["last_id"]} if names else {}))
        names += [adapter["name"] for adapter in page["data"]]
    assert len(page["data"]) == 1 and names[-1] == "support-bot" and len(set(names)) == len(names), names
    assert call("retrieveAdapter", "support-bot")["promoted"] == 2
    assert call("retrieveAdapter", "support-bot@1")["version"] == 1
    assert len(call("listAdapterVersions", "support-bot")["data"]) == 2
    assert call("promoteAdapter", "support-bot", "canary")["canary"] == {"version": 1, "share": 0.1}
    assert call("promoteAdapter", "support-bot", "newest")["promoted"] == 2
    assert call("rollbackAdapter", "support-bot")["promoted"] == 1
    assert call("pinAdapter", "support-bot", "pin")["pinned"] is True
    assert call("exportAdapter", "support-bot@latest").content
    assert call("exportAdapter", "support-bot", params={"format": "gguf"}).content.startswith(b"GGUF")
    assert "support-bot" in [adapter["path"] for adapter in call("listLoRAAdapters")]
    assert call("setLoRAAdapters", example="none") == {"success": True}
    folder = pathlib.Path(os.environ["GRAFT_ADAPTERS_LORA_PATHS_DIRECTORY"]) / "support-bot"
    folder.mkdir(exist_ok=True)
    for name, content in zip(("adapter_config.json", "adapter_model.safetensors"), make_adapter(3)):
        (folder / name).write_bytes(content)
    call("loadLoRAAdapter", example="directory")
    assert call("deleteAdapter", "support-bot@2")["id"] == "support-bot@2"
    call("unloadLoRAAdapter", example="name")
    content_type, body = upload_form("support-bot", make_adapter(4))
    call("publishAdapter", content=body, headers={"content-type": content_type})
    call("deleteModel", "support-bot")
    call("deleteAdapter", "support-bot", status=404)


def files_and_jobs():
    rows = [{"messages": [{"role": "user", "content": f"What is {n} plus one?"}, {"role": "assistant", "content": f"It is {n + 1}."}]} for n in range(400)]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    content_type, body = multipart([("purpose", b"fine-tune"), ("file", ("train.jsonl", content))])
    file = call("createFile", content=body, headers={"content-type": content_type})["id"]
    assert call("listFiles", params={"purpose": "fine-tune", "limit": 1})["data"][0]["id"] == file
    assert call("retrieveFile", file)["status"] == "processed"
    assert call("downloadFile", file).content == content
    ids["file-0123456789abcdef"] = file
    job = call("createFineTuningJob", example="supervised")["id"]
    assert call("listFineTuningJobs", params={"limit": 1})["data"][0]["id"] == job
    call("pauseFineTuningJob", job)
    call("resumeFineTuningJob", job)
    call("resumeFineTuningJob", job, status=409)
    deadline = time.monotonic() + 120
    while call("retrieveFineTuningJob", job)["status"] in ("validating_files", "queued") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert call("retrieveFineTuningJob", job)["graft"]["lora"]["rank"] == 4
    call("cancelFineTuningJob", job)
    assert call("listFineTuningEvents", job)["data"]
    followed = call("listFineTuningEvents", job, params={"stream": "true"})
    assert [event["object"] for event in followed] == ["fine_tuning.job.event"] * len(followed) and followed
    call("listFineTuningCheckpoints", job)
    call("retrieveFineTuningJob", "ftjob-nothing", status=404)
    call("deleteFile", file)


def main():
    for part in (server, generation_and_what_is_kept, adapters, files_and_jobs):
        start = time.monotonic()
        part()
        print(f"ok   {part.__name__} ({time.monotonic() - start:.1f} s)")
    # The first key of a server closes it to everybody without one: OpenAPIDocumentTests looks at their answers, access_test.py at what they do.
    missing = OPERATIONS.keys() - answered - {"createKey", "listKeys", "retrieveKey", "revokeKey"}
    assert not missing, f"no answer of {sorted(missing)} was looked at"
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    print(f"{len(answered)} operations answered as described")


if __name__ == "__main__":
    sys.exit(main())
