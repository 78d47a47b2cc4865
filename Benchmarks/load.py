#!/usr/bin/env python3
"""Load on an OpenAI-style chat endpoint, closed or open, and what its users would feel.

Closed loop (--clients): each client keeps one connection open, sends a streamed request, reads the answer to its end and sends the next. So the load is
the number of clients, and a slow server is asked less often. Every client's first request warms the server up and is not counted.
Open loop (--rates): requests come at random moments, so many a second on average (a Poisson process, the same for the same seed), whether or not the
server has answered those before; the first tenth is not counted. Requests carry `ignore_eos`, so that each answer has exactly --max-tokens tokens; an answer
counts only when it was complete: status 200, no error event, content, a finish reason, the right `usage` and [DONE].

usage: load.py [--url http://127.0.0.1:8080] [--clients 1,8,16] [--requests 10] [--rates 0.5,2 --arrivals 60] [--max-tokens 64] [--prompt-words 60]
               [--model NAME[,NAME…]] [--lora-ids 0,1,…] [--seed N] [--key KEY] [--ca FILE] [--json]
Models, or llama.cpp's adapter ids, are dealt out in turn. Times are seconds; `client_cpu` is what this program used itself, because it shares the
machine with the server. Python 3.11 and its standard library only.
"""

import argparse
import asyncio
import json
import random
import ssl
import statistics
import sys
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

NOUNS = (
    "anchor bakery compass dragonfly elevator ferry glacier harvest island juniper kettle ladder meadow notebook "
    "orchard pigeon quarry railway saddle teapot umbrella valley workshop yarn zeppelin blanket cinema dolphin "
    "engine feather"
).split()


class Malformed(Exception):
    """The answer broke HTTP, event-stream or API rules; the text says how."""


class Connection:
    """One kept-alive HTTP/1.1 connection that can stream the body of a response."""

    def __init__(self, host, port, tls=None):
        self.host, self.port, self.tls = host, port, tls
        self.reader = self.writer = None
        self.reopened = 0

    async def open(self):
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port, limit=1 << 20, ssl=self.tls)

    def close(self):
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None

    async def post(self, path, body, headers):
        """(status, asynchronous iterator over the body's pieces). The iterator must be read to its end.

        A server may close a connection between two requests without a word (llama.cpp's does after some streams). A
        request on a reused connection that ends before the first byte of an answer is therefore sent again on a new
        one, and counted in `reopened`.
        """
        reused = self.writer is not None and not self.reader.at_eof()
        if self.writer is not None and not reused:
            self.reopened += 1
            self.close()
        try:
            head = await self.ask(path, body, headers)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            self.close()
            if not reused or getattr(error, "partial", b""):
                raise
            self.reopened += 1
            head = await self.ask(path, body, headers)
        status = int(head[0].split(" ")[1])
        fields = dict(line.lower().split(":", 1) for line in head[1:] if ":" in line)
        return status, self.body({name: value.strip() for name, value in fields.items()})

    async def ask(self, path, body, headers):
        """Sends a request; the lines of the response's head."""
        await self.open()
        lines = [f"POST {path} HTTP/1.1", f"host: {self.host}:{self.port}", "content-type: application/json",
                 f"content-length: {len(body)}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        self.writer.write("\r\n".join(lines).encode() + body)
        await self.writer.drain()
        return (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")

    async def body(self, fields):
        if fields.get("transfer-encoding") == "chunked":
            while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
                yield (await self.reader.readexactly(size + 2))[:-2]
            while await self.reader.readuntil(b"\r\n") != b"\r\n":
                pass  # trailers
        elif "content-length" in fields:
            yield await self.reader.readexactly(int(fields["content-length"]))
        else:
            while piece := await self.reader.read(1 << 16):
                yield piece
            fields["connection"] = "close"
        if fields.get("connection") == "close":
            self.close()


async def events(pieces):
    """The `data` of each server-sent event."""
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()


@dataclass
class Tally:
    """What the counted requests of all clients add up to."""

    answers: int = 0
    completion_tokens: int = 0
    prompt_tokens: int = 0
    first: list = field(default_factory=list)  # request sent -> first content
    gaps: list = field(default_factory=list)  # content -> next content
    whole: list = field(default_factory=list)  # request sent -> [DONE]
    errors: dict = field(default_factory=dict)

    def failed(self, kind):
        self.errors[kind] = self.errors.get(kind, 0) + 1


def request_body(options, client, turn):
    words = random.Random(options.seed * 1_000_003 + client * 100_003 + turn)
    prompt = "Tell a short tale in which these things appear: " + ", ".join(words.choice(NOUNS) for _ in range(options.prompt_words))
    body = {
        "messages": [{"role": "user", "content": prompt}], "stream": True, "stream_options": {"include_usage": True},
        "max_tokens": options.max_tokens, "ignore_eos": True, "temperature": 0.8, "seed": client * 1000 + turn,
    }
    if options.model:
        names = options.model.split(",")
        body["model"] = names[(client + turn) % len(names)]
    if options.lora_ids:
        ids = options.lora_ids.split(",")
        body["lora"] = [{"id": int(ids[(client + turn) % len(ids)]), "scale": 1.0}]
    return json.dumps(body).encode()


async def exchange(connection, options, client, turn, tally):
    """One request and its answer, entered into the tally."""
    headers = {"authorization": f"Bearer {options.key}"} if options.key else {}
    sent = time.perf_counter()
    arrivals, usage, finish, done = [], None, None, False
    try:
        status, pieces = await connection.post(options.prefix + "/v1/chat/completions", request_body(options, client, turn), headers)
        if status != 200:
            async for _ in pieces:
                pass
            raise Malformed(f"status {status}")
        async for data in events(pieces):
            if data == b"[DONE]":
                done = True
                continue
            event = json.loads(data)
            if "error" in event:
                raise Malformed("error event")
            usage = event.get("usage") or usage
            for choice in event.get("choices") or ():
                finish = choice.get("finish_reason") or finish
                if (choice.get("delta") or {}).get("content"):
                    arrivals.append(time.perf_counter())
        ended = time.perf_counter()
        if not done:
            raise Malformed("no [DONE]")
        if not finish:
            raise Malformed("no finish_reason")
        if not arrivals:
            raise Malformed("no content")
        if not usage or usage["completion_tokens"] != options.max_tokens:
            raise Malformed(f"usage says {usage and usage['completion_tokens']} tokens")
    except (Malformed, OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
        connection.close()
        tally.failed(str(error) if isinstance(error, Malformed) else type(error).__name__)
        return
    tally.answers += 1
    tally.completion_tokens += usage["completion_tokens"]
    tally.prompt_tokens += usage["prompt_tokens"]
    tally.first.append(arrivals[0] - sent)
    tally.gaps += [later - earlier for earlier, later in zip(arrivals, arrivals[1:])]
    tally.whole.append(ended - sent)


def percentile(values, share):
    """Linear interpolation between the closest ranks; None of nothing."""
    if not values:
        return None
    values = sorted(values)
    if len(values) == 1:
        return round(values[0], 5)
    return round(statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1], 5)


def target(options):
    """Sets the path's prefix and returns a function that makes a connection."""
    address = urlsplit(options.url)
    options.prefix = address.path.rstrip("/").removesuffix("/v1")
    tls = ssl.create_default_context(cafile=options.ca or None) if address.scheme == "https" else None
    return lambda: Connection(address.hostname, address.port or (443 if tls else 80), tls)


def figures(tally, warm, seconds, processor, connections):
    for connection in connections:
        connection.close()
    return {
        "answers": tally.answers, "errors": sum(tally.errors.values()), "error_kinds": tally.errors,
        "warm_up_errors": sum(warm.errors.values()), "reopened_connections": sum(connection.reopened for connection in connections),
        "seconds": round(seconds, 2), "completion_tokens_per_second": round(tally.completion_tokens / seconds, 1),
        "prompt_tokens": tally.prompt_tokens, "completion_tokens": tally.completion_tokens,
        "ttft_p50": percentile(tally.first, 0.5), "ttft_p95": percentile(tally.first, 0.95),
        "itl_p50": percentile(tally.gaps, 0.5), "itl_p95": percentile(tally.gaps, 0.95),
        "answer_p50": percentile(tally.whole, 0.5), "answer_p95": percentile(tally.whole, 0.95),
        "client_cpu": round(time.process_time() - processor, 2),
    }


async def measure(options, clients):
    """One closed-loop run; a dictionary of figures."""
    connect = target(options)
    connections = [connect() for _ in range(clients)]
    warm, tally = Tally(), Tally()
    await asyncio.gather(*(exchange(c, options, 1_000 + i, 0, warm) for i, c in enumerate(connections)))

    async def client(number, connection):
        for turn in range(options.requests):
            await exchange(connection, options, number, turn, tally)

    processor, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(client(i, c) for i, c in enumerate(connections)))
    seconds = time.perf_counter() - began
    return {"clients": clients} | figures(tally, warm, seconds, processor, connections)


async def measure_open(options, rate):
    """One open-loop run at `rate` requests a second; a dictionary of figures. `most_at_once`: requests that were under way together."""
    connect, moments = target(options), random.Random(options.seed * 7919 + 1)
    idle, connections, warm, tally = [], [], Tally(), Tally()
    under_way = most = 0
    uncounted = (options.arrivals + 9) // 10

    async def arrive(number):
        nonlocal under_way, most
        if idle:
            connection = idle.pop()
        else:
            connections.append(connection := connect())
        under_way += 1
        most = max(most, under_way)
        await exchange(connection, options, number, 0, warm if number < uncounted else tally)
        under_way -= 1
        idle.append(connection)

    async def arrivals(numbers):
        tasks = []
        for number in numbers:
            await asyncio.sleep(moments.expovariate(rate))
            tasks.append(asyncio.create_task(arrive(number)))
        return tasks

    first = await arrivals(range(uncounted))
    processor, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*first, *await arrivals(range(uncounted, options.arrivals)))
    seconds = time.perf_counter() - began
    return {"rate": rate, "most_at_once": most} | figures(tally, warm, seconds, processor, connections)


def load_of(row):
    return f"{row['clients']} clients" if "clients" in row else f"{row['rate']:g}/s"


def table(rows):
    head = f"{'load':>10} {'answers':>8} {'errors':>6} {'tokens/s':>9} {'TTFT p50':>9} {'p95':>7} {'gap p50':>8} {'p95':>7} {'answer p50':>11} {'client cpu':>11}"
    lines = [head]
    for r in rows:
        show = lambda key, width: f"{'–' if r[key] is None else format(r[key], '.3f'):>{width}}"
        lines.append(f"{load_of(r):>10} {r['answers']:>8} {r['errors']:>6} {r['completion_tokens_per_second']:>9} {show('ttft_p50', 9)} "
                     f"{show('ttft_p95', 7)} {show('itl_p50', 8)} {show('itl_p95', 7)} {show('answer_p50', 11)} {r['client_cpu']:>11}")
    return "\n".join(lines)


def rates(text):
    """Numbers above 0, separated by commas."""
    found = [float(part) for part in text.split(",")]
    if any(not rate > 0 for rate in found):
        raise ValueError
    return found


def parser():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--url", default="http://127.0.0.1:8080", help="where the server listens; a trailing /v1 is accepted")
    p.add_argument("--clients", default="1,8,16", help="numbers of clients, one run each")
    p.add_argument("--requests", type=int, default=10, help="counted requests of each client")
    p.add_argument("--rates", default=[], type=rates, help="requests a second, one run each, instead of a number of clients")
    p.add_argument("--arrivals", type=int, default=60, help="requests of each run with --rates")
    p.add_argument("--max-tokens", type=int, default=64)
    p.add_argument("--prompt-words", type=int, default=60)
    p.add_argument("--model", default="", help="model names, dealt out in turn")
    p.add_argument("--seed", type=int, default=0, help="other prompts: a server that was asked the same before has them in its cache")
    p.add_argument("--lora-ids", default="", help="llama.cpp's adapter ids, dealt out in turn")
    p.add_argument("--key", default="", help="sent as a bearer token")
    p.add_argument("--ca", default="", help="certificates to trust, for https; the system's unless said")
    p.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return p


def main():
    options = parser().parse_args()
    if options.arrivals < 2:
        parser().error(f"--arrivals takes 2 and more, not {options.arrivals}")
    if options.rates:
        rows = [asyncio.run(measure_open(options, rate)) for rate in options.rates]
    else:
        rows = [asyncio.run(measure(options, int(clients))) for clients in options.clients.split(",")]
    print(json.dumps(rows, indent=1) if options.json else table(rows))
    for row in rows:
        for kind, count in row["error_kinds"].items():
            print(f"{load_of(row)}: {count} x {kind}", file=sys.stderr)
    return 1 if any(row["errors"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
