"""Files and kept exchanges as their users meet them: the `openai` package against a running server, and what it has no call for by HTTP.

usage: files_test.py      (GRAFT_BASE_URL names a server of SmolLM2 with directories of its own)

The last line is "N passed, M failed"."""
import json
import os

import httpx
import openai

from checks import check, run

BASE = os.environ.get("GRAFT_BASE_URL", "http://127.0.0.1:8080").rstrip("/")
client = openai.OpenAI(base_url=BASE + "/v1", api_key="unused", max_retries=0, timeout=300)
http = httpx.Client(base_url=BASE, timeout=300)
MODEL = next(card["id"] for card in http.get("/v1/models").json()["data"] if card["parent"] is None)
ROWS = [{"messages": [{"role": "user", "content": f"What is {n} plus one?"}, {"role": "assistant", "content": f"It is {n + 1}."}]} for n in range(20)]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def chat(question, **options):
    return client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": question}], max_tokens=12, temperature=0, **options)


def refused(kind, call, code=None, param=None):
    try:
        call()
    except kind as error:
        assert set(error.body) == {"message", "type", "param", "code"}, error.body
        assert (code is None or error.code == code) and (param is None or error.param == param), (error.code, error.param, error.message)
        return error
    raise AssertionError(f"expected {kind.__name__}")


@check
def a_training_file_is_kept_looked_into_and_given_back():
    file = client.files.create(file=("train.jsonl", JSONL), purpose="fine-tune")
    assert file.id.startswith("file-") and file.object == "file" and file.bytes == len(JSONL) and file.filename == "train.jsonl"
    file = client.files.wait_for_processing(file.id, poll_interval=0.1, max_wait_seconds=60)
    assert file.status == "processed" and not file.status_details, file
    report = file.model_extra["graft_report"]
    assert report["examples"] == len(ROWS) and report["bad_lines"] == 0, report
    assert client.files.retrieve(file.id) == file
    content = client.files.content(file.id)
    assert content.read() == JSONL and content.response.headers["content-disposition"] == 'attachment; filename="train.jsonl"'
    deleted = client.files.delete(file.id)
    assert deleted.id == file.id and deleted.deleted and deleted.object == "file"
    refused(openai.NotFoundError, lambda: client.files.retrieve(file.id), "file_not_found")
    refused(openai.NotFoundError, lambda: client.files.content(file.id), "file_not_found")
    refused(openai.NotFoundError, lambda: client.files.delete(file.id), "file_not_found")


@check
def bad_lines_are_told_and_other_things_refused():
    file = client.files.create(file=("bad.jsonl", JSONL + b"{not json\n"), purpose="fine-tune")
    assert file.status == "error" and file.status_details, file
    report = file.model_extra["graft_report"]
    assert report["bad_lines"] == 1 and report["problems"][0]["line"] == len(ROWS) + 1, report
    client.files.delete(file.id)
    refused(openai.BadRequestError, lambda: client.files.create(file=("x.jsonl", b"\x7fELF\x02\x01"), purpose="fine-tune"), param="file")
    refused(openai.BadRequestError, lambda: client.files.create(file=("x.jsonl", b""), purpose="fine-tune"), param="file")
    refused(openai.BadRequestError, lambda: client.files.create(file=("x.jsonl", JSONL), purpose="fun"), param="purpose")
    refused(openai.BadRequestError, lambda: client.files.create(file=("x.jsonl", JSONL), purpose="batch", expires_after={"anchor": "created_at", "seconds": 5}),
            param="expires_after[seconds]")
    response = http.post("/v1/files", json={"purpose": "fine-tune"})
    assert response.status_code == 415, response.text


@check
def lists_page_and_survive_deletion_on_the_way():
    made = [client.files.create(file=(f"{n}.bin", b"%d" % n), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}) for n in range(5)]
    assert all(file.status == "uploaded" and file.expires_at == file.created_at + 3600 for file in made)
    assert [file.id for file in client.files.list(purpose="user_data", order="asc", limit=2)] == [file.id for file in made]
    assert client.files.list(purpose="user_data").data[0].id == made[-1].id
    for file in client.files.list(purpose="user_data", limit=2):
        client.files.delete(file.id)
    assert not client.files.list(purpose="user_data").data


@check
def large_files_go_to_the_disk_and_come_back():
    pid = os.environ.get("GRAFT_SERVER_PID")

    def memory():
        with open(f"/proc/{pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) // 1024

    content = os.urandom(1 << 20) * 96
    before = memory() if pid else 0
    file = client.files.create(file=("large.bin", content), purpose="user_data")
    assert file.bytes == len(content)
    if pid:
        assert memory() < before + 48, f"96 MiB came in and the server grew from {before} to {memory()} MiB"
    assert client.files.content(file.id).read() == content
    client.files.delete(file.id)


@check
def a_broken_upload_leaves_nothing_and_the_server_goes_on():
    def parts():
        yield b'--cut\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        yield b"x" * 300_000
        raise KeyboardInterrupt

    before = {file.id for file in client.files.list()}
    try:
        http.post("/v1/files", content=parts(), headers={"content-type": "multipart/form-data; boundary=cut"})
    except KeyboardInterrupt:
        pass
    assert {file.id for file in client.files.list()} == before
    response = http.post("/v1/files", content=b"--cut\r\n", headers={"content-type": "multipart/form-data; boundary=cut"})
    assert response.status_code == 400 and response.json()["error"]["code"] == "invalid_multipart", response.text


@check
def kept_exchanges_are_listed_changed_and_deleted():
    plain = chat("Name a colour.")
    kept = chat("Name a fruit.", store=True, metadata={"app": "files_test", "kind": "fruit"}, user="ada")
    refused(openai.NotFoundError, lambda: client.chat.completions.retrieve(plain.id), "completion_not_found")
    found = client.chat.completions.retrieve(kept.id)
    assert found.choices[0].message.content == kept.choices[0].message.content and found.usage == kept.usage and found.created == kept.created
    assert found.metadata == {"app": "files_test", "kind": "fruit"}
    messages = client.chat.completions.messages.list(kept.id).data
    assert [(message.role, message.content) for message in messages] == [("user", "Name a fruit.")]
    # A stream is kept when its end is told.
    stream = list(chat("Name a bird.", store=True, metadata={"app": "files_test"}, stream=True, n=2))
    found = client.chat.completions.retrieve(stream[0].id)
    assert len(found.choices) == 2
    for choice in found.choices:
        pieces = [c.delta.content or "" for chunk in stream for c in chunk.choices if c.index == choice.index]
        assert choice.message.content == "".join(pieces)
    ids = [completion.id for completion in client.chat.completions.list(metadata={"app": "files_test"}, limit=1)]
    assert ids == [kept.id, stream[0].id]
    assert [completion.id for completion in client.chat.completions.list(metadata={"kind": "fruit"}, model=MODEL)] == [kept.id]
    changed = client.chat.completions.update(kept.id, metadata={"kind": "berry"})
    assert changed.metadata == {"kind": "berry"}
    deleted = client.chat.completions.delete(stream[0].id)
    assert deleted.deleted and deleted.object == "chat.completion.deleted"
    assert http.delete("/v1/chat/completions", params={"user": "ada"}).json()["count"] == 1
    assert not list(client.chat.completions.list())


@check
def what_people_say_becomes_training_data():
    answers = [chat(f"What is the capital of country {n}?", store=True, metadata={"run": "feedback"}) for n in range(3)]

    def say(answer, metric, value):
        response = http.post("/v1/feedback", json={"inference_id": answer.id, "metric_name": metric, "value": value})
        assert response.status_code == 200, response.text
        return response.json()

    say(answers[0], "thumb", True)
    say(answers[1], "thumb", False)
    say(answers[1], "comment", "too long")
    say(answers[1], "demonstration", "Paris.")
    assert http.post("/v1/feedback", json={"inference_id": "chatcmpl-x", "metric_name": "thumb", "value": True}).status_code == 404

    made = http.post("/v1/datasets/from_logs", json={"filter": {"metadata": {"run": "feedback"}, "metric": {"name": "thumb", "equals": False}}}).json()
    rows = [json.loads(line) for line in client.files.content(made["id"]).text.splitlines()]
    assert [row["messages"][-1] for row in rows] == [{"role": "assistant", "content": "Paris."}]
    assert made["purpose"] == "fine-tune" and made["status"] == "processed", made

    made = http.post("/v1/datasets/from_logs", json={"format": "preference", "filter": {"metadata": {"run": "feedback"}}, "name": "pairs.jsonl"}).json()
    assert made["filename"] == "pairs.jsonl" and made["graft_dataset"]["examples"] == 1 and made["graft_dataset"]["skipped"]["no_demonstration"] == 2, made
    row = json.loads(client.files.content(made["id"]).text)
    assert row["preferred_output"] == [{"role": "assistant", "content": "Paris."}]
    assert row["non_preferred_output"][0]["content"] == answers[1].choices[0].message.content
    assert row["input"]["messages"] == [{"role": "user", "content": "What is the capital of country 1?"}]
    for file in client.files.list(purpose="fine-tune"):
        client.files.delete(file.id)
    for completion in client.chat.completions.list(limit=1):
        client.chat.completions.delete(completion.id)
    assert not client.chat.completions.list().data


if __name__ == "__main__":
    run()
