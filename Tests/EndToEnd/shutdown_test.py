"""What SIGTERM does: RELIABILITY R36, and what clients are told meanwhile.

usage: shutdown_test.py

Starts servers of its own; needs the model and httpx. Asserts exit statuses, replies and counts; times are only printed, apart from the promised bounds of 25 s
for a drain and 1 s for the second signal. The last line is "N passed, M failed"."""
import json
import re
import shutil
import signal
import tempfile
import time

import httpx

from checks import run
from request_table import get, length
from wire import PATIENCE, Server, Wire, eventually, occupied

WORDS = ["amber", "birch", "cedar", "delta", "ember", "flint", "grove", "heath", "inlet", "juniper", "kelp", "larch"]
DRAIN_LIMIT = 25


def chat(tokens, stream=True, fields=b""):
    body = json.dumps({"messages": [{"role": "user", "content": "Count."}], "max_tokens": tokens, "ignore_eos": True, "temperature": 0, "stream": stream}).encode()
    return (b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + fields + length(b"%d" % len(body)) + b"\r\n" + body)


def events(response):
    """The data of a stream's events, comments left out."""
    return [line[6:] for line in response.body.decode().splitlines() if line.startswith("data: ")]


def start_job(base, epochs):
    rows = "".join(
        json.dumps({"messages": [{"role": "user", "content": f"Which code is {word}?"}, {"role": "assistant", "content": f"CODE-{word.upper()}"}]}) + "\n"
        for word in WORDS)
    http = httpx.Client(base_url=base, timeout=PATIENCE)
    file = http.post("/v1/files", data={"purpose": "fine-tune"}, files={"file": ("codes.jsonl", rows.encode())}).json()
    job = http.post("/v1/fine_tuning/jobs", json={
        "model": "default", "training_file": file["id"], "suffix": "codes", "seed": 7, "lora": {"rank": 4, "validation_split": 0},
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": epochs, "batch_size": 2}}}}).json()
    assert "id" in job, job
    return job["id"]


def messages(base, job):
    """All events of a job, oldest first."""
    found, after = [], None
    while True:
        page = httpx.get(f"{base}/v1/fine_tuning/jobs/{job}/events", params={"limit": 1000} | ({"after": after} if after else {}), timeout=PATIENCE).json()
        found += page["data"]
        if not page["has_more"]:
            return found[::-1]
        after = found[-1]["id"]


def steps(base, job):
    return [event["data"]["step"] for event in messages(base, job) if event["type"] == "metrics" and "train_loss" in event["data"]]


def r36_streams_finish_and_a_job_goes_on_after_the_restart():
    scratch = tempfile.mkdtemp()
    try:
        # Snapshots come with the end only, so that what is there after the restart was secured by the shutdown.
        settings = {"tuning_snapshot_seconds": 3600, "tuning_snapshot_steps": 1_000_000}
        server = Server(scratch, **settings)
        job = start_job(server.base, epochs=50)
        eventually(lambda: len(steps(server.base, job)) >= 3, "the job's first steps")
        streams = [Wire(server.base).send(chat(80)) for _ in range(8)]
        idle = Wire(server.base).send(get())
        assert idle.response().status == 200
        early = [stream.head() for stream in streams]
        assert all(head.status == 200 for head in early)
        eventually(lambda: occupied(server.base)[0] == 8, "eight that run")
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: "stopping" in server.log, "the drain")
        # Who asks now, on an old connection or a new one, is told, and told when to come back.
        refusals = [idle.send(chat(5)).response()]
        probes = {}
        with Wire(server.base) as wire:
            refusals.append(wire.send(chat(5) + get()).response())
            assert wire.response() is None, "nothing follows the last reply"
        for path in (b"/livez", b"/readyz"):
            with Wire(server.base) as wire:
                probes[path] = wire.send(get(line=b"GET " + path + b" HTTP/1.1")).response()
        for refusal in refusals:
            assert refusal.status == 503 and refusal.closes and int(refusal.fields["retry-after"]) >= 1, refusal
            assert json.loads(refusal.body)["error"]["code"] == "shutting_down"
        assert (probes[b"/livez"].status, probes[b"/readyz"].status) == (200, 503)
        assert all(probe.closes for probe in probes.values())
        # Every stream that had begun is whole.
        for stream in streams:
            body = b""
            while size := int(stream.line(), 16):
                body += stream.take(size)
                stream.take(2)
            data = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ")]
            assert data[-1] == "[DONE]" and json.loads(data[-2])["choices"][0]["finish_reason"] == "length", data[-2:]
            assert "error" not in body.decode()
            stream.socket.close()
        assert server.process.wait(PATIENCE) == 0
        took = time.monotonic() - begun
        assert took < DRAIN_LIMIT, took
        assert "stopped" in server.log.splitlines()[-1]

        # The job was secured where it was, and goes on there: no step is computed twice.
        again = Server(scratch, **settings)
        eventually(lambda: any("Going on after step" in event["message"] for event in messages(again.base, job)), "the job to go on")
        at = int(re.search(r"Going on after step (\d+)/", "".join(event["message"] for event in messages(again.base, job)))[1])
        assert at >= 3
        eventually(lambda: len(steps(again.base, job)) >= at + 2, "its next steps")
        found = steps(again.base, job)
        assert found == list(range(1, len(found) + 1)), found
        assert again.stop() == 0
        return f"8 streams whole, exit 0 after {took:.1f} s, the job went on after step {at}"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def streams_that_take_too_long_end_with_an_error_event():
    with Server(server_drain_seconds=1) as server:
        with Wire(server.base) as streamed, Wire(server.base) as whole:
            streamed.send(chat(8000))
            whole.send(chat(8000, stream=False))
            eventually(lambda: occupied(server.base)[0] == 2, "two that run")
            server.process.send_signal(signal.SIGTERM)
            response = streamed.response()
            assert response.status == 200 and json.loads(events(response)[-1])["error"]["code"] == "shutting_down"
            assert "[DONE]" not in events(response) and streamed.response() is None
            refused = whole.response()
            assert refused.status == 503 and json.loads(refused.body)["error"]["code"] == "shutting_down" and refused.closes
            assert server.process.wait(PATIENCE) == 0


def an_idle_server_ends_at_once_whatever_is_connected():
    with Server() as server:
        idle = [Wire(server.base).send(get()) for _ in range(20)]
        assert all(wire.response().status == 200 for wire in idle)
        silent = [Wire(server.base) for _ in range(20)]
        eventually(lambda: httpx.get(server.base + "/livez").status_code == 200, "the server")
        begun = time.monotonic()
        assert server.stop() == 0
        assert all(wire.response() is None for wire in idle + silent)
        return f"exit 0 after {time.monotonic() - begun:.2f} s"


def the_second_signal_ends_at_once():
    with Server() as server, Wire(server.base) as wire:
        wire.send(chat(8000))
        assert wire.head().status == 200
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: "stopping" in server.log, "the drain")
        assert server.process.poll() is None, "a stream runs"
        begun = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(PATIENCE) != 0, "what was cut off is no success"
        took = time.monotonic() - begun
        assert took < 1, took
        return f"after {took * 1000:.0f} ms"


run([
    r36_streams_finish_and_a_job_goes_on_after_the_restart, streams_that_take_too_long_end_with_an_error_event,
    an_idle_server_ends_at_once_whatever_is_connected, the_second_signal_ends_at_once])
