#!/usr/bin/env python3
"""Serving while training: what a fine-tuning job does to streams, and streams to the job, on a running server.

A round has three phases, in the next round in the opposite order, so that a drift of the machine falls on all of them:
  idle  --clients streamed chats in a closed loop while no job runs: the gaps between two pieces of content of one stream
  solo  a supervised job alone: its tokens per second
  both  the job and the clients together: the gaps, and the job's tokens per second
A window opens when every client has had a whole answer and the job its first step, and closes after --seconds; with a job at the first end of a step
after that. So a job's window holds whole steps only, and gaps are counted only while steps are computed. Then the job is cancelled.

The job's tokens per second are the tokens of the window's steps over the time between the arrivals of its first and its last step event (the event
that opens the window gives the time and not its tokens). The member `tokens_per_second` of an event is not used: it is the mean since the job was
taken up, which the steps before the window keep biased, it leaves out the time between steps, and its median would be a median of means.
Arrivals are taken from the stream of events on this machine, because `created_at` has whole seconds.

Prompts are distinct in all phases, so that the prefix cache gives nobody an advantage. Answers are greedy and may end early: beyond their end a model
writes control tokens, which no chunk shows, and the gaps would be longer than the server's. Ratios are medians of the rounds' own ratios.

usage: tuning_load.py --base-url http://127.0.0.1:8080 [--pid PID] [--clients 8] [--seconds 30] [--rounds 3] [--max-tokens 96] [--batch 8]
                      [--examples 3000] [--rank 16] [--seed N]
With --pid (of the server, on this machine, of the same user) also its peak memory in each phase; the prefix cache keeps what it has met until it has
its full size, so a long test takes more than a short one, and what training takes is told by what a solo job adds. JSON to standard output, the
rounds as they come and a table to standard error. Needs httpx; nothing else should use the machine.
"""

import argparse
import asyncio
import contextlib
import datetime
import json
import os
import random
import statistics
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx

import load
from load import percentile
from peers import Failed, machine, summary

GAP_RATIO, KEPT_SHARE = 2, 0.25
# A job's window has at least so many steps, however short it was asked to be.
STEPS = 3
PLACES = "by the sea|under the old bridge|behind the market|in a quiet street|on the northern slope|near the station|in the village".split("|")
DEEDS = "was found|was repaired twice|stood for forty years|was sold for little|served the whole town|is still remembered|was stolen".split("|")


def sentences(words, count):
    """Plain sentences about things, of 12 words or so."""
    text = []
    for _ in range(count):
        first, second = words.sample(load.NOUNS, 2)
        text.append(f"The {first} {words.choice(PLACES)} {words.choice(DEEDS)} because somebody had mistaken it for a {second}.")
    return " ".join(text)


def training_rows(count, seed):
    """Conversations of about 100 to 250 tokens, no two alike."""
    words = random.Random(seed)
    for number in range(count):
        question = f"Record {number}. {sentences(words, words.randint(1, 4))} What does the archive say about the {words.choice(load.NOUNS)}?"
        yield {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": sentences(words, words.randint(2, 6))}]}


class Memory:
    """What the server has resident at the start of a phase, and its peak in it."""

    def __init__(self, pid):
        self.place = Path(f"/proc/{pid}") if pid else None
        if self.place:
            # Sets the peak back to what is resident now.
            (self.place / "clear_refs").write_text("5")
            self.before = self.megabytes("VmRSS")

    def megabytes(self, name):
        line = next(line for line in (self.place / "status").read_text().splitlines() if line.startswith(name + ":"))
        return round(int(line.split()[1]) / 1024, 1)

    def figures(self):
        return {"resident_megabytes_before": self.before, "peak_megabytes": self.megabytes("VmHWM")} if self.place else {}


# ------------------------------------------------------------------------------------------------------ clients


class Clients:
    """Streamed chats in a closed loop from entering the context to leaving it; every gap is kept with its two ends."""

    def __init__(self, options, phase):
        self.options, self.phase = options, phase
        self.gaps, self.tokens, self.chunks = [], 0, 0
        self.connections, self.tasks, self.warm = [], [], []

    async def __aenter__(self):
        address = urlsplit(self.options.base_url)
        for number in range(self.options.clients):
            self.connections.append(load.Connection(address.hostname, address.port or 80))
            self.warm.append(asyncio.Event())
            self.tasks.append(asyncio.create_task(self.client(number)))
        try:
            for event in self.warm:
                while not event.is_set():
                    # A client that failed is never warm.
                    self.check()
                    await asyncio.sleep(0.1)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for connection in self.connections:
            connection.close()

    def check(self):
        for task in self.tasks:
            if task.done():
                raise Failed(f"a client failed: {task.exception()!r}")

    async def client(self, number):
        words = random.Random(f"{self.options.seed} {self.phase} {number}")
        while True:
            await self.answer(self.connections[number], words)
            self.warm[number].set()

    async def answer(self, connection, words):
        prompt = "Tell a long tale in which these things appear: " + ", ".join(words.choice(load.NOUNS) for _ in range(30))
        body = {"messages": [{"role": "user", "content": prompt}], "stream": True, "stream_options": {"include_usage": True}, "temperature": 0,
                "max_tokens": self.options.max_tokens}
        status, pieces = await connection.post(self.options.path + "/v1/chat/completions", json.dumps(body).encode(), {})
        previous, usage, done, chunks = None, None, False, 0
        async for data in load.events(pieces):
            now = time.perf_counter()
            if data == b"[DONE]":
                done = True
                continue
            event = json.loads(data)
            if "error" in event:
                raise load.Malformed(f"error event {event['error']}")
            usage = event.get("usage") or usage
            if any((choice.get("delta") or {}).get("content") for choice in event.get("choices") or ()):
                if previous is not None:
                    self.gaps.append((previous, now))
                previous = now
                chunks += 1
        if status != 200 or not done or not usage:
            raise load.Malformed(f"status {status}, {'' if done else 'no '}[DONE], usage {usage}")
        self.chunks += chunks
        self.tokens += usage["completion_tokens"]

    def figures(self, opened, closed):
        """What the users of the window felt, in milliseconds."""
        gaps = [1000 * (later - earlier) for earlier, later in self.gaps if opened <= earlier and later <= closed]
        if not gaps:
            raise Failed("no client got two pieces of content in the window")
        return {
            "gap_p50_ms": percentile(gaps, 0.5), "gap_p95_ms": percentile(gaps, 0.95), "gap_p99_ms": percentile(gaps, 0.99),
            "gap_max_ms": round(max(gaps), 2), "gaps": len(gaps), "served_chunks_per_second": round(len(gaps) / (closed - opened), 1),
            # Of whole answers. Close to 1, or the chunks' gaps would not be the tokens'.
            "tokens_per_chunk": round(self.tokens / self.chunks, 3),
        }


# ---------------------------------------------------------------------------------------------------------- job


async def api(http, method, path, **more):
    answer = await http.request(method, path, **more)
    if answer.status_code >= 400:
        raise Failed(f"{method} {path}: {answer.status_code} {answer.text[:400]}")
    return answer.json()


@contextlib.asynccontextmanager
async def running_job(http, options):
    """A job that would go on for long; cancelled at the end."""
    body = {
        "model": options.model, "training_file": options.file, "suffix": "tuning-load", "seed": options.seed,
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3, "batch_size": options.batch}}},
        "lora": {"rank": options.rank, "validation_split": 0, "promote": False},
    }
    job = await api(http, "POST", "/v1/fine_tuning/jobs", json=body)
    try:
        yield job["id"]
    finally:
        # It may have failed by itself: what is to be told then is the error that brought us here.
        await http.post(f"/v1/fine_tuning/jobs/{job['id']}/cancel")
        while (job := await api(http, "GET", f"/v1/fine_tuning/jobs/{job['id']}"))["status"] not in ("succeeded", "failed", "cancelled"):
            await asyncio.sleep(0.1)


async def steps(http, job):
    """(arrival, data) of each step's event, until the job ends."""
    async with http.stream("GET", f"/v1/fine_tuning/jobs/{job}/events", params={"stream": "true"}) as answer:
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            # An evaluation's event has no tokens.
            if event.get("type") == "metrics" and "tokens" in event["data"]:
                yield time.perf_counter(), event["data"]


async def training_window(http, job, options, clients=None):
    """(opened, closed, figures) of whole steps."""
    opened = closed = None
    taken = []
    async with contextlib.aclosing(steps(http, job)) as events:
        async for arrival, data in events:
            if clients:
                clients.check()
            if opened is None:
                opened = arrival
                continue
            closed = arrival
            taken.append(data["tokens"])
            if closed - opened >= options.seconds and len(taken) >= STEPS:
                seconds = closed - opened
                return opened, closed, {
                    "training_tokens_per_second": round(sum(taken) / seconds, 2), "steps": len(taken),
                    "seconds_a_step": round(seconds / len(taken), 3), "tokens_an_example": round(sum(taken) / len(taken) / options.batch, 1),
                }
    ended = await api(http, "GET", f"/v1/fine_tuning/jobs/{job}")
    raise Failed(f"the job {ended['status']} before its window closed ({ended['error']}): take more --examples or fewer --seconds")


# ------------------------------------------------------------------------------------------------------- phases


async def idle(http, options, phase):
    async with Clients(options, phase) as clients:
        opened, processor = time.perf_counter(), time.process_time()
        await asyncio.sleep(options.seconds)
        clients.check()
        closed = time.perf_counter()
        # What this program takes from the machine that it measures.
        busy = (time.process_time() - processor) / (closed - opened)
        return clients.figures(opened, closed) | {"client_cpu_share": round(busy, 3)}


async def solo(http, options, phase):
    async with running_job(http, options) as job:
        return (await training_window(http, job, options))[2]


async def both(http, options, phase):
    async with Clients(options, phase) as clients, running_job(http, options) as job:
        opened, closed, figures = await training_window(http, job, options, clients)
        return clients.figures(opened, closed) | figures


PHASES = {"idle": idle, "solo": solo, "both": both}


async def measure(options):
    rounds = []
    async with httpx.AsyncClient(base_url=options.base_url, timeout=httpx.Timeout(120, read=600)) as http:
        for job in (await api(http, "GET", "/v1/fine_tuning/jobs"))["data"]:
            if job["status"] not in ("succeeded", "failed", "cancelled"):
                raise Failed(f"the server has a job already: {job['id']} is {job['status']}")
        options.model = (await api(http, "GET", "/v1/models"))["data"][0]["id"]
        content = "".join(json.dumps(row) + "\n" for row in training_rows(options.examples, options.seed)).encode()
        file = await api(http, "POST", "/v1/files", data={"purpose": "fine-tune"}, files={"file": ("tuning-load.jsonl", content)})
        options.file = file["id"]
        try:
            for turn in range(options.rounds):
                figures = {}
                for name in list(PHASES) if turn % 2 == 0 else reversed(PHASES):
                    busy, memory = os.getloadavg()[0], Memory(options.pid)
                    figures[name] = await PHASES[name](http, options, f"{name} {turn}") | {"load_average_before": round(busy, 2)} | memory.figures()
                    told = "  ".join(f"{key} {value}" for key, value in figures[name].items())
                    print(f"round {turn + 1}/{options.rounds} {name:5} {told}", file=sys.stderr, flush=True)
                    # A cancelled job's last unit, and the streams that were left, come to their ends.
                    await asyncio.sleep(1)
                rounds.append(figures)
        finally:
            await http.delete(f"/v1/files/{options.file}")
    return rounds


def conclude(rounds):
    """Medians with their ranges, and the two figures that are asked for."""
    medians = {name: {key: summary([r[name][key] for r in rounds]) for key in rounds[0][name]} for name in PHASES}
    each = lambda key, over, under: [r[over][key] / r[under][key] for r in rounds]
    ratios = {key: summary(each(key, "both", "idle")) for key in ("gap_p50_ms", "gap_p95_ms", "gap_p99_ms", "gap_max_ms", "served_chunks_per_second")}
    ratios["training_tokens_per_second"] = summary(each("training_tokens_per_second", "both", "solo"))
    memory = {"peak_megabytes": None, "training_megabytes": None}
    if "peak_megabytes" in rounds[0]["solo"]:
        memory["peak_megabytes"] = max(phase["peak_megabytes"] for r in rounds for phase in r.values())
        memory["training_megabytes"] = round(max(r["solo"]["peak_megabytes"] - r["solo"]["resident_megabytes_before"] for r in rounds), 1)
    return {
        "medians": medians, "ratios": ratios, **memory,
        "gap_p95_ratio": ratios["gap_p95_ms"]["median"], "gap_p95_ratio_asked": GAP_RATIO,
        "training_share_kept": ratios["training_tokens_per_second"]["median"], "training_share_asked": KEPT_SHARE,
    }


def table(found):
    show = lambda s: f"{s['median']:g} ({s['low']:g}–{s['high']:g})"
    lines = [f"{'':24} {'alone':>24} {'together':>24} {'ratio':>22}"]
    rows = [("gap p50, ms", "idle", "gap_p50_ms"), ("gap p95, ms", "idle", "gap_p95_ms"), ("gap p99, ms", "idle", "gap_p99_ms"),
            ("gap max, ms", "idle", "gap_max_ms"), ("served chunks/s", "idle", "served_chunks_per_second"),
            ("training tokens/s", "solo", "training_tokens_per_second")]
    for label, alone, key in rows:
        medians = found["medians"]
        lines.append(f"{label:24} {show(medians[alone][key]):>24} {show(medians['both'][key]):>24} {show(found['ratios'][key]):>22}")
    met = lambda isMet: "yes" if isMet else "NO"
    lines.append(f"gap p95 at most {GAP_RATIO} times: {met(found['gap_p95_ratio'] <= GAP_RATIO)}; "
                 f"at least {KEPT_SHARE:.0%} of the training's pace kept: {met(found['training_share_kept'] >= KEPT_SHARE)}")
    if found["training_megabytes"] is not None:
        lines.append(f"the server's peak memory: {found['peak_megabytes']:.0f} MB; a job alone takes {found['training_megabytes']:.0f} MB of it")
    return "\n".join(lines)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--base-url", required=True, help="of the server; a trailing /v1 is accepted")
    p.add_argument("--pid", type=int, help="the server's process, for its peak memory")
    p.add_argument("--clients", type=int, default=8)
    p.add_argument("--seconds", type=float, default=30, help="of each window")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--max-tokens", type=int, default=96, help="of each answer")
    p.add_argument("--batch", type=int, default=8, help="examples of one step")
    p.add_argument("--examples", type=int, default=3000, help="of the job's file; a job must outlast its window")
    p.add_argument("--rank", type=int, default=16, help="of the adapter")
    p.add_argument("--seed", type=int, default=0, help="other prompts: a server that was asked the same before has them in its cache")
    options = p.parse_args()
    options.base_url = options.base_url.rstrip("/").removesuffix("/v1")
    options.path = urlsplit(options.base_url).path
    try:
        rounds = asyncio.run(measure(options))
    except (Failed, httpx.HTTPError) as failure:
        print(f"tuning_load.py: {failure!r}" if isinstance(failure, httpx.HTTPError) else f"tuning_load.py: {failure}", file=sys.stderr)
        return 1
    found = conclude(rounds)
    settings = {name: getattr(options, name) for name in ("model", "clients", "seconds", "max_tokens", "batch", "examples", "rank", "seed")}
    document = {"date": datetime.date.today().isoformat(), "machine": machine(), "settings": settings, **found, "rounds": rounds}
    print(json.dumps(document, indent=1, ensure_ascii=False))
    print(table(found), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
