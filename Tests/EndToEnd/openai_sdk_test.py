"""The official `openai` package against a running server.

usage: openai_sdk_test.py [BASE_URL]        (or GRAFT_BASE_URL; default http://127.0.0.1:8080)

Asks for nothing that depends on what the model says, so that any instruction-tuned model will do. Each check prints a line; the last line
is "N passed, M failed". Needs the packages openai and httpx."""
import json
import os
import sys
import threading
import time

import httpx
import openai
from openai import OpenAI

from checks import check, run

BASE = (sys.argv[1] if len(sys.argv) > 1 else os.environ.get("GRAFT_BASE_URL", "http://127.0.0.1:8080")).rstrip("/")
client = OpenAI(base_url=BASE + "/v1", api_key="unused", max_retries=0, timeout=300)
http = httpx.Client(base_url=BASE, timeout=300)
MESSAGES = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "Count from one to ten in words."}]


def model():
    return client.models.list().data[0].id


def chat(**options):
    return client.chat.completions.create(**{"model": model(), "messages": MESSAGES, "max_tokens": 24, "temperature": 0} | options)


def expect_error(kind, call, param=None, code=None):
    try:
        call()
    except kind as error:
        assert error.body and set(error.body) == {"message", "type", "param", "code"}, error.body
        assert param is None or error.param == param, (error.param, error.message)
        assert code is None or error.code == code, (error.code, error.message)
        assert error.response.headers["x-request-id"]
        return error
    raise AssertionError(f"expected {kind.__name__}")


@check
def models_are_listed():
    page = client.models.list()
    assert page.object == "list" and page.data
    card = client.models.retrieve(page.data[0].id)
    assert card.id == page.data[0].id and card.object == "model" and card.created > 0 and card.owned_by
    expect_error(openai.NotFoundError, lambda: client.models.retrieve("no-such-model"), "model", "model_not_found")


@check
def whole_answer():
    answer = chat()
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-") and answer.model == model()
    assert answer.created > 1_700_000_000 and answer.system_fingerprint
    (choice,) = answer.choices
    assert choice.index == 0 and choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason in ("stop", "length") and choice.logprobs is None
    usage = answer.usage
    assert usage.prompt_tokens > 0 and 0 < usage.completion_tokens <= 24
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens >= 0 and usage.completion_tokens_details.reasoning_tokens == 0


@check
def streamed_answer_equals_whole_answer():
    whole = chat().choices[0]
    chunks = list(chat(stream=True))
    assert len({(c.id, c.created, c.model, c.object) for c in chunks}) == 1
    assert chunks[0].object == "chat.completion.chunk" and chunks[0].choices[0].delta.role == "assistant"
    assert all(c.choices[0].delta.role is None for c in chunks[1:])
    assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices[0].finish_reason == whole.finish_reason and chunks[-1].choices[0].delta.content is None
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole.message.content
    assert all(c.usage is None for c in chunks)


@check
def usage_in_a_stream():
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    assert all(c.usage is None and len(c.choices) == 1 for c in chunks[:-1])
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0 and chunks[-1].usage.prompt_tokens == chat().usage.prompt_tokens


@check
def raw_event_stream():
    body = {"messages": MESSAGES, "max_tokens": 4, "stream": True, "stream_options": {"include_usage": True}}
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200 and response.headers["content-type"].startswith("text/event-stream")
        text = "".join(response.iter_text())
    events = [e for e in text.split("\n\n") if e and not e.startswith(":")]
    assert text.endswith("\n\n") and all(e.startswith("data: ") and "\n" not in e for e in events)
    assert events[-1] == "data: [DONE]"
    parsed = [json.loads(e[6:]) for e in events[:-1]]
    assert all(p["usage"] is None and "usage" in p for p in parsed[:-1]) and parsed[-1]["usage"]
    assert all(p["choices"][0]["finish_reason"] is None for p in parsed[:-2])


@check
def greedy_answers_repeat():
    assert chat().choices[0].message.content == chat().choices[0].message.content


@check
def seeded_answers_repeat():
    first, second = (chat(temperature=1, seed=7).choices[0].message.content for _ in range(2))
    assert first == second


@check
def several_choices():
    answer = chat(n=2, temperature=1, seed=3)
    assert sorted(c.index for c in answer.choices) == [0, 1] and all(c.message.content is not None for c in answer.choices)
    assert answer.usage.prompt_tokens == chat().usage.prompt_tokens
    texts, ends = {0: "", 1: ""}, {}
    for chunk in chat(n=2, temperature=1, seed=3, stream=True):
        (choice,) = chunk.choices
        assert choice.index not in ends
        texts[choice.index] += choice.delta.content or ""
        if choice.finish_reason:
            ends[choice.index] = choice.finish_reason
    assert set(ends) == {0, 1} and texts == {c.index: c.message.content for c in answer.choices}


@check
def log_probabilities():
    answer = chat(logprobs=True, top_logprobs=3)
    entries = answer.choices[0].logprobs.content
    assert len(entries) >= 1 and len(entries) <= answer.usage.completion_tokens
    for entry in entries:
        assert entry.logprob <= 0 and len(entry.top_logprobs) == 3
        assert [t.logprob for t in entry.top_logprobs] == sorted((t.logprob for t in entry.top_logprobs), reverse=True)
    shown = b"".join(bytes(e.bytes) for e in entries)
    assert shown.startswith(answer.choices[0].message.content.encode())
    streamed = [e for c in chat(logprobs=True, top_logprobs=3, stream=True) if c.choices[0].logprobs for e in c.choices[0].logprobs.content]
    assert [(e.token, e.bytes) for e in streamed] == [(e.token, e.bytes) for e in entries]
    assert all(abs(a.logprob - b.logprob) < 1e-4 for a, b in zip(streamed, entries))


@check
def stop_strings_end_an_answer():
    text = chat().choices[0].message.content
    # Some characters of the middle, which do not come before.
    start = next(i for i in range(len(text) // 2, 0, -1) if text.index(text[i : i + 4]) == i)
    stop, expected = text[start : start + 4], text[:start]
    answer = chat(stop=stop)
    assert answer.choices[0].message.content == expected and answer.choices[0].finish_reason == "stop"
    streamed = "".join(c.choices[0].delta.content or "" for c in chat(stop=[stop, "never in it"], stream=True))
    assert streamed == expected


@check
def limits_end_an_answer():
    answer = chat(max_tokens=1)
    assert answer.usage.completion_tokens == 1 and answer.choices[0].finish_reason == "length"
    answer = client.chat.completions.create(model=model(), messages=MESSAGES, max_completion_tokens=2, extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 2 and answer.choices[0].finish_reason == "length"


@check
def priorities_change_no_answer():
    expected = chat().choices[0].message.content
    for priority in (-(2**31), 0, 2**31 - 1):
        assert chat(extra_body={"priority": priority}).choices[0].message.content == expected
    expect_error(openai.BadRequestError, lambda: chat(extra_body={"priority": "high"}), "priority", "invalid_type")


@check
def content_parts_are_joined():
    joined = chat(messages=[{"role": "user", "content": "Say hello."}]).usage.prompt_tokens
    parts = [{"type": "text", "text": "Say "}, {"type": "text", "text": "hello."}]
    assert chat(messages=[{"role": "user", "content": parts}]).usage.prompt_tokens == joined


@check
def errors():
    expect_error(openai.NotFoundError, lambda: chat(model="no-such-model"), "model", "model_not_found")
    expect_error(openai.BadRequestError, lambda: chat(temperature=3), "temperature")
    expect_error(openai.BadRequestError, lambda: chat(messages=[]), "messages")
    expect_error(openai.BadRequestError, lambda: chat(messages=[{"role": "king", "content": "x"}]), "messages[0].role")
    expect_error(openai.BadRequestError, lambda: chat(n=10**9), "n")
    expect_error(openai.BadRequestError, lambda: chat(max_tokens=2**63), "max_tokens")
    expect_error(openai.BadRequestError, lambda: chat(stop=["a"] * 10_000), "stop")
    expect_error(openai.BadRequestError, lambda: chat(extra_body={"min_tokens": 9}), "min_tokens", "unsupported_parameter")
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    expect_error(openai.BadRequestError, lambda: chat(tools=[tool]), "tools", "unsupported_parameter")
    expect_error(openai.BadRequestError, lambda: chat(response_format={"type": "json_object"}), "response_format")
    image = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    expect_error(openai.BadRequestError, lambda: chat(messages=[{"role": "user", "content": image}]))
    limit = client.models.list().data[0].max_model_len
    expect_error(openai.BadRequestError, lambda: chat(messages=[{"role": "user", "content": "word " * (limit + 1)}]), "messages", "context_length_exceeded")
    expect_error(openai.BadRequestError, lambda: chat(stream=True, temperature=3), "temperature")


@check
def hostile_bodies():
    post = lambda body: http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    for body in (b"", b"{", b"[" * 100_000, b'{"messages":[{"role":"user","content":"\\ud800"}]}', b'{"messages":"\xff"}', b"[]", b"1"):
        response = post(body)
        assert response.status_code == 400 and set(response.json()["error"]) == {"message", "type", "param", "code"}, response.text
    response = post(b'{"messages":[{"role":"user","content":"x"}],"temperature":1e400}')
    assert response.status_code == 400 and response.json()["error"]["param"] == "temperature", response.text
    assert http.post("/v1/chat/completions", content=b"x", headers={"content-type": "text/plain"}).status_code == 415
    response = http.put("/v1/chat/completions")
    assert response.status_code == 405 and set(response.headers["allow"].split(", ")) == {"POST", "GET", "HEAD", "DELETE"}, response.headers
    assert http.get("/v1/nothing").status_code == 404
    assert chat().choices, "the server lives on"


@check
def ignored_parameters_are_named():
    body = {"messages": MESSAGES, "max_tokens": 1, "user": "u", "metadata": {"a": "b"}, "store": True, "shoe_size": 44}
    response = http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200 and response.headers["graft-ignored-parameters"] == "shoe_size"
    assert int(response.headers["openai-processing-ms"]) >= 0


@check
def completions():
    answer = client.completions.create(model=model(), prompt="One, two,", max_tokens=5, temperature=0)
    assert answer.object == "text_completion" and answer.id.startswith("cmpl-") and answer.choices[0].text
    streamed = client.completions.create(model=model(), prompt="One, two,", max_tokens=5, temperature=0, stream=True)
    assert "".join(c.choices[0].text for c in streamed) == answer.choices[0].text
    several = client.completions.create(model=model(), prompt=["One, two,", "A, B,"], n=2, max_tokens=2, temperature=0)
    assert sorted(c.index for c in several.choices) == [0, 1, 2, 3] and several.choices[0].text == several.choices[1].text
    ids = http.post("/tokenize", json={"prompt": "One, two,"}).json()["tokens"]
    by_ids = client.completions.create(model=model(), prompt=ids, max_tokens=5, temperature=0)
    assert by_ids.choices[0].text == answer.choices[0].text


@check
def echo_and_scores():
    prompt = "The cat sat on the mat."
    scored = client.completions.create(
        model=model(), prompt=prompt, max_tokens=1, temperature=0, echo=True, logprobs=2, extra_body={"return_token_ids": True})
    (choice,) = scored.choices
    logprobs = choice.logprobs
    count = scored.usage.prompt_tokens + scored.usage.completion_tokens
    assert choice.text.startswith(prompt)
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == len(logprobs.text_offset) == count
    assert logprobs.token_logprobs[0] is None and logprobs.top_logprobs[0] is None
    assert all(x <= 0 for x in logprobs.token_logprobs[1:]) and logprobs.text_offset[0] == 0
    for token, logprob, top, offset in zip(logprobs.tokens[1:], logprobs.token_logprobs[1:], logprobs.top_logprobs[1:], logprobs.text_offset[1:]):
        assert top[token] == logprob and 2 <= len(top) <= 3
        assert token.startswith("bytes:") or choice.text[offset : offset + len(token)] == token
    assert len(logprobs.token_ids) == len(logprobs.top_token_ids) == count and logprobs.top_token_ids[0] is None
    assert all(len(pairs) == 2 and pairs[0][1] >= pairs[1][1] for pairs in logprobs.top_token_ids[1:])
    assert choice.token_ids == logprobs.token_ids[scored.usage.prompt_tokens :]
    only = client.completions.create(model=model(), prompt=prompt, max_tokens=0, echo=True, logprobs=1)
    assert only.choices[0].text == prompt and len(only.choices[0].logprobs.tokens) == scored.usage.prompt_tokens
    pairs = zip(only.choices[0].logprobs.token_logprobs[1:], logprobs.token_logprobs[1:])
    assert all(abs(a - b) < 1e-3 for a, b in pairs)


@check
def tokens_there_and_back():
    text = "Héllo, wörld! 你好 🙂"
    tokens = http.post("/tokenize", json={"content": text}).json()["tokens"]
    assert http.post("/detokenize", json={"tokens": tokens}).json()["content"] == text
    pieces = http.post("/tokenize", json={"content": text, "with_pieces": True}).json()["tokens"]
    assert [p["id"] for p in pieces] == tokens
    assert b"".join(p["piece"].encode() if isinstance(p["piece"], str) else bytes(p["piece"]) for p in pieces) == text.encode()


@check
def control_tokens_in_a_message_stay_text():
    count = lambda text: chat(messages=[{"role": "user", "content": text}], max_tokens=1).usage.prompt_tokens
    assert count("a<|im_end|>b<|im_start|>") > count("a b") + 4


@check
def many_clients_at_once():
    results = []

    def ask(seed):
        text = "".join(c.choices[0].delta.content or "" for c in chat(stream=True, temperature=1, seed=seed))
        results.append((seed, text))

    expected = {seed: chat(temperature=1, seed=seed).choices[0].message.content for seed in range(8)}
    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(results) == expected


def metric(name):
    """The sum of all series of a metric."""
    lines = http.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name) and line[len(name)] in " {")


@check
def a_client_that_leaves_frees_its_sequence():
    body = {"messages": MESSAGES, "stream": True, "ignore_eos": True, "max_tokens": 4000}
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        # Kept until the end: httpx closes the connection with the iterator.
        lines = response.iter_lines()
        next(line for line in lines if '"content":"' in line and '"content":""' not in line)
        assert metric("graft_sequences_running") == 1
    deadline = time.monotonic() + 1
    while metric("graft_sequences_running") != 0:
        assert time.monotonic() < deadline, "the sequence still runs a second after its client left"
        time.sleep(0.02)


@check
def health_and_metrics():
    assert http.get("/livez").status_code == 200 and http.get("/readyz").status_code == 200 and http.get("/health").status_code == 200
    assert http.get("/version").json()["version"]
    response = http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    names = {line.split("{")[0].split(" ")[0] for line in response.text.splitlines() if not line.startswith("#")}
    for name in ("graft_requests_total", "graft_prompt_tokens_total", "graft_completion_tokens_total", "graft_sequences_running", "graft_queue_depth",
                 "graft_kv_blocks", "graft_time_to_first_token_seconds_bucket", "graft_inter_token_seconds_bucket"):
        assert name in names, name


if __name__ == "__main__":
    run()
