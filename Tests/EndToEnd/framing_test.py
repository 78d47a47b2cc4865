"""HTTP/1.1 framing over raw sockets, RELIABILITY R01 to R09, and agreement with h11 as a client and as a reader of requests.

usage: framing_test.py [BASE_URL]        (or GRAFT_BASE_URL)

Works on a running server; needs h11, which comes with httpx. Each check prints a line; the last line is "N passed, M failed"."""
import email.utils
import json
import os
import sys
import time

import h11
import httpx

from checks import check, run
from request_table import CHUNKED, HIDDEN, JSON, TABLE, WHOLE, get, length, post
from wire import Wire, eventually, figures, requests_counted

BASE = (sys.argv[1] if len(sys.argv) > 1 else os.environ["GRAFT_BASE_URL"]).rstrip("/")
CHAT = {"messages": [{"role": "user", "content": "Hello."}], "max_tokens": 5, "temperature": 0}


def chat(**options):
    body = json.dumps(CHAT | options).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + length(b"%d" % len(body)) + b"\r\n" + body


def exchange(raw):
    """All responses to these bytes, until the server closes; what the client still wants to say is said first."""
    with Wire(BASE) as wire:
        wire.send(raw)
        return wire.responses()


@check
def r01_to_r05_every_entry_of_the_table():
    """One reply, with the status of the table; a refused request ends its connection and nothing behind it is run."""
    refused = 0
    for entry in TABLE:
        before = requests_counted(BASE)
        if entry.status == 200:
            with Wire(BASE) as wire:
                first = wire.send(entry.raw).response()
                assert first.status == 200 and not first.closes, (entry.name, first)
                # The connection goes on where the request ended.
                second = wire.send(get()).response()
                assert second.status == 200, (entry.name, second)
            continue
        replies = exchange(entry.raw + HIDDEN)
        assert [r.status for r in replies] == [entry.status], (entry.name, replies)
        assert replies[0].closes and json.loads(replies[0].body)["error"]["message"], entry.name
        after = requests_counted(BASE)
        assert after.get("/health", 0) == before.get("/health", 0), f"{entry.name}: the hidden request was run"
        assert sum(after.values()) == sum(before.values()) + 1, (entry.name, before, after)
        refused += 1
    return f"{len(TABLE)} requests, {refused} refused, 0 ambiguous ones taken"


@check
def r06_a_request_split_at_every_byte():
    requests = [post(length(b"15"), JSON), post(CHUNKED, b"f;a=b\r\n" + JSON + b"\r\n0\r\nX-Sum: 1\r\n\r\n")]
    splits = 0
    with Wire(BASE) as wire:
        expected = wire.send(requests[0]).response().body
        for raw in requests:
            for i in range(1, len(raw)):
                wire.send(raw[:i])
                # Long enough that the server has usually read the first part before the second comes; the reply must be the same if not.
                time.sleep(0.002)
                reply = wire.send(raw[i:]).response()
                assert (reply.status, reply.body) == (200, expected), (i, reply)
                splits += 1
        for raw in requests:
            for i in range(len(raw)):
                wire.send(raw[i:i + 1])
            assert wire.response().body == expected
    # Refusals do not depend on the pieces either.
    for entry in TABLE:
        if entry.status != 200 and entry.rule in ("R01", "R02"):
            with Wire(BASE) as wire:
                for i in range(len(entry.raw)):
                    wire.send(entry.raw[i:i + 1])
                assert [r.status for r in wire.responses()] == [entry.status], entry.name
    return f"{splits} splits"


@check
def r06_twenty_pipelined_requests():
    texts = ["word " * (i + 1) for i in range(20)]
    alone = [httpx.post(BASE + "/tokenize", json={"content": text}).json() for text in texts]
    raw = b""
    for i, text in enumerate(texts):
        body = json.dumps({"content": text}).encode()
        raw += post(length(b"%d" % len(body)) + b"X-Request-Id: number-%d\r\n" % i, body)
    with Wire(BASE) as wire:
        wire.send(raw)
        replies = [wire.response() for _ in texts]
    assert [r.fields["x-request-id"] for r in replies] == [f"number-{i}" for i in range(20)]
    assert [json.loads(r.body) for r in replies] == alone and len({len(a["tokens"]) for a in alone}) == 20
    # Slow and quick ones, streamed and whole: still in order.
    with Wire(BASE) as wire:
        wire.send(chat(stream=True) + get() + chat() + get(b"Connection: close\r\n"))
        kinds = [r.fields["content-type"].split(";")[0] for r in wire.responses()]
    assert kinds == ["text/event-stream", "application/json", "application/json", "application/json"], kinds


@check
def r06_continue():
    with Wire(BASE) as wire:
        wire.send(post(length(b"15") + b"Expect: 100-continue\r\n", b""))
        first = wire.response()
        assert first.status == 100 and not first.fields, first
        assert wire.send(JSON).response().status == 200
        # Whoever does not wait needs no permission, and a request without a body none either.
        assert wire.send(post(length(b"15") + b"Expect: 100-continue\r\n", JSON)).response().status == 200
        assert wire.send(get(b"Expect: 100-continue\r\n")).response().status == 200
        assert wire.send(post(CHUNKED + b"Expect: 100-continue\r\n", b"")).response().status == 100
        assert wire.send(WHOLE).response().status == 200
    assert [r.status for r in exchange(post(length(b"15") + b"Expect: tea\r\n", JSON))] == [417]
    # Too large is said before a byte of the body has come.
    (reply,) = exchange(post(length(b"99999999999") + b"Expect: 100-continue\r\n", b""))
    assert reply.status == 413 and reply.closes


@check
def r08_limits_of_the_head():
    def of_bytes(count):
        # `count` bytes from the end of the request line's text to the end of the header.
        return get(b"X-A: " + b"a" * (count - len(b"\r\nHost: localhost\r\nX-A: \r\n\r\n")) + b"\r\n")

    cases = [
        ("target at the limit", get(line=b"GET /version?" + b"a" * (8192 - 9) + b" HTTP/1.1"), 200),
        ("target above it", get(line=b"GET /version?" + b"a" * (8192 - 8) + b" HTTP/1.1"), 414),
        ("a target without end", b"GET /" + b"a" * 100_000, 414),
        ("100 fields", get(b"".join(b"X-%d: 1\r\n" % i for i in range(99))), 200),
        ("101 fields", get(b"".join(b"X-%d: 1\r\n" % i for i in range(100))), 431),
        ("32 KiB", of_bytes(32768), 200),
        ("one more", of_bytes(32769), 431),
        ("a header without end", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000, 431),
    ]
    for name, raw, status in cases:
        with Wire(BASE) as wire:
            reply = wire.send(raw).response()
            assert reply.status == status and reply.closes == (status != 200), (name, reply)


@check
def r09_head_date_allow():
    with Wire(BASE) as wire:
        for path in (b"/version", b"/v1/models", b"/nothing"):
            whole = wire.send(get(line=b"GET " + path + b" HTTP/1.1")).response()
            head = wire.send(get(line=b"HEAD " + path + b" HTTP/1.1")).response(to_head=True)
            assert head.status == whole.status and head.fields["content-length"] == str(len(whole.body)), path
            assert head.fields["content-type"] == whole.fields["content-type"]
        for path, allow in ((b"/version", "GET, HEAD"), (b"/tokenize", "POST"), (b"/v1/models/x", "GET, DELETE, HEAD")):
            reply = wire.send(get(line=b"PATCH " + path + b" HTTP/1.1")).response()
            assert reply.status == 405 and sorted(reply.fields["allow"].split(", ")) == sorted(allow.split(", ")), reply
        before = int(time.time())
        date = wire.send(get()).response().fields["date"]
        assert before - 1 <= email.utils.parsedate_to_datetime(date).timestamp() <= time.time() + 1, date
        assert date == email.utils.formatdate(email.utils.parsedate_to_datetime(date).timestamp(), usegmt=True), date
    # HTTP/1.0: the end of the connection is the end of the body, unless the client asks to stay.
    (reply,) = exchange(get(line=b"GET /version HTTP/1.0"))
    assert reply.status == 200 and reply.closes
    (streamed,) = exchange(chat(stream=True).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert "transfer-encoding" not in streamed.fields and "content-length" not in streamed.fields and streamed.body.endswith(b"data: [DONE]\n\n")


# MARK: - h11

def h11_events(raw, method, step):
    """What h11, as the client of a request with this method, makes of a response that comes in pieces of `step` bytes."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "localhost"), ("Connection", "keep-alive")]))
    client.send(h11.EndOfMessage())
    body, head = b"", None
    pieces = [raw[i:i + step] for i in range(0, len(raw), step)]
    for piece in pieces:
        client.receive_data(piece)
        while (event := client.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert not client.trailing_data[0] and client.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED), client.states
                return head, body, client.their_state is h11.DONE
    raise AssertionError(f"h11 waits for more after {len(raw)} bytes")


@check
def h11_as_client_reads_the_same_responses():
    requests = [
        ("GET", get()), ("GET", get(line=b"GET /metrics HTTP/1.1")), ("HEAD", get(line=b"HEAD /version HTTP/1.1")), ("POST", chat()),
        ("POST", chat(stream=True)), ("POST", chat(stream=True, n=3, logprobs=True, top_logprobs=5, stream_options={"include_usage": True})),
        ("POST", post(CHUNKED, WHOLE)), ("GET", get(line=b"GET /nothing HTTP/1.1")), ("DELETE", get(line=b"DELETE /version HTTP/1.1")),
        ("GET", get(b"Connection: close\r\n")), ("POST", chat(stream=True).replace(b"\r\nHost", b"\r\nConnection: close\r\nHost", 1)),
        ("POST", post(length(b"+1"), b"")), ("GET", get(host=b"")),
    ]
    for method, raw in requests:
        with Wire(BASE) as wire:
            ours = wire.send(raw).response(to_head=method == "HEAD")
        for step in (1, 7, len(ours.raw)):
            head, body, stays = h11_events(ours.raw, method, step)
            assert head.status_code == ours.status and body == ours.body and stays == (not ours.closes), (raw[:60], head)
            assert {name.decode(): value.decode() for name, value in head.headers} == ours.fields
    return f"{len(requests)} responses in pieces of 1, 7 and all bytes"


def h11_verdict(raw):
    """Whether h11, as a server, takes these bytes as one whole request."""
    server = h11.Connection(h11.SERVER)
    try:
        server.receive_data(raw)
        while True:
            event = server.next_event()
            if isinstance(event, h11.EndOfMessage):
                return True
            if event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
                return False
    except h11.RemoteProtocolError:
        return False


@check
def h11_agrees_about_requests_or_the_table_says_why():
    stricter = laxer = 0
    for entry in TABLE:
        ours, theirs = entry.status == 200, h11_verdict(entry.raw)
        if entry.h11 is None:
            assert ours == theirs, f"{entry.name}: we say {ours}, h11 says {theirs}"
        else:
            assert ours != theirs, f"{entry.name}: no difference any more"
            stricter, laxer = stricter + theirs, laxer + ours
    return f"{len(TABLE)} requests; stricter than h11 with {stricter}, laxer with {laxer}"


@check
def httpx_reuses_its_connection():
    with httpx.Client(base_url=BASE, timeout=300) as client:
        streams = set()
        for i in range(12):
            if i % 3 == 0:
                with client.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as response:
                    text = "".join(response.iter_text())
                assert text.endswith("data: [DONE]\n\n")
            elif i % 3 == 1:
                response = client.post("/tokenize", content=iter([JSON[:5], JSON[5:]]), headers={"content-type": "application/json"})
            else:
                response = client.get("/nothing")
            assert response.status_code == (404 if i % 3 == 2 else 200) and response.http_version == "HTTP/1.1"
            streams.add(response.extensions["network_stream"].get_extra_info("client_addr"))
    assert len(streams) == 1, streams


@check
def nothing_is_left_behind():
    eventually(lambda: figures(BASE)["graft_sequences_running"] == 0, "the end of all sequences")
    assert httpx.get(BASE + "/readyz").status_code == 200


run()
