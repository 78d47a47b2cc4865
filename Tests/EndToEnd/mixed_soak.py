"""Mixed requests, a third of which are given up, leave nothing behind: RELIABILITY R15.

usage: mixed_soak.py BASE_URL --pid PID [--requests 10000] [--clients 16] [--seed 1] [--strict]

Asserts that every request that was not given up got the status that it should, that at the end no sequence runs or waits and no block of the key-value cache
is held, and that the process has as many file descriptors as at the beginning. --strict also asserts that memory grows by less than 1 MiB for each thousand
requests (a straight line through the samples of the second half). Prints one JSON line with the figures."""
import argparse
import asyncio
import json
import os
import random
import time
from collections import Counter

import httpx

from wire import eventually, occupied

parser = argparse.ArgumentParser()
parser.add_argument("base")
parser.add_argument("--pid", type=int, required=True)
parser.add_argument("--requests", type=int, default=10_000)
parser.add_argument("--clients", type=int, default=16)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--strict", action="store_true")
options = parser.parse_args()

WORDS = "river stone market engine garden silver window letter signal harbour winter copper planet bridge forest candle".split()


def prompt(source, most):
    return " ".join(source.choices(WORDS, k=source.randint(1, most)))


def request(source):
    """(method, path, JSON or bytes, the status that it must get)"""
    kind = source.choices(
        ["chat", "stream", "completion", "tokenize", "models", "bad json", "bad value", "nowhere", "too long"], [20, 30, 15, 10, 5, 5, 5, 5, 5])[0]
    messages = [{"role": "user", "content": prompt(source, 60)}]
    tokens = source.randint(1, 12)
    match kind:
        case "chat": return "POST", "/v1/chat/completions", {"messages": messages, "max_tokens": tokens, "n": source.choice([1, 1, 2])}, 200
        case "stream":
            logprobs = {"logprobs": True, "top_logprobs": 3} if source.random() < 0.2 else {}
            return "POST", "/v1/chat/completions", {"messages": messages, "max_tokens": tokens, "stream": True} | logprobs, 200
        case "completion": return "POST", "/v1/completions", {"prompt": prompt(source, 100), "max_tokens": tokens, "stream": source.random() < 0.5}, 200
        case "tokenize": return "POST", "/tokenize", {"content": prompt(source, 2000)}, 200
        case "models": return "GET", "/v1/models", None, 200
        case "bad json": return "POST", "/v1/chat/completions", b'{"messages": [', 400
        case "bad value": return "POST", "/v1/chat/completions", {"messages": messages, "max_tokens": -1}, 400
        case "nowhere": return "GET", f"/v1/models/none-{source.randint(0, 10**9)}", None, 404
        case "too long": return "POST", "/v1/completions", {"prompt": "word " * 20_000, "max_tokens": 1}, 400


def memory():
    """Resident bytes of the server."""
    with open(f"/proc/{options.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors():
    return len(os.listdir(f"/proc/{options.pid}/fd"))


counts, samples = Counter(), []


async def client(number):
    source = random.Random(options.seed * 1000 + number)
    while counts["begun"] < options.requests:
        # A new connection now and then, so that connections are part of what is tested.
        async with httpx.AsyncClient(base_url=options.base, timeout=300) as http:
            for _ in range(source.randint(1, 20)):
                if counts["begun"] >= options.requests:
                    return
                counts["begun"] += 1
                if counts["begun"] % 100 == 0:
                    samples.append((counts["begun"], memory()))
                method, path, body, status = request(source)
                given = {"content": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
                gives_up = source.random() < 1 / 3
                call = asyncio.create_task(whole(http, method, path, given))
                if gives_up:
                    await asyncio.sleep(source.random() ** 3 * 0.5)
                    call.cancel()
                    try:
                        await call
                        counts["answered before they were given up"] += 1
                    except asyncio.CancelledError:
                        counts["given up"] += 1
                    break
                found, text = await call
                assert found == status, f"{path}: {found} instead of {status}: {text[:300]}"
                if body and not isinstance(body, bytes) and body.get("stream") and found == 200:
                    assert text.endswith("data: [DONE]\n\n"), text[-200:]
                counts["answered"] += 1


async def whole(http, method, path, given):
    response = await http.request(method, path, **({"headers": {"content-type": "application/json"}} if "content" in given else {}), **given)
    return response.status_code, response.text


async def main():
    await asyncio.gather(*(client(number) for number in range(options.clients)))


def slope(points):
    """Bytes for each request, by least squares."""
    mean_x, mean_y = (sum(p[i] for p in points) / len(points) for i in (0, 1))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def is_idle():
    return occupied(options.base) == (0, 0, 0)


eventually(is_idle, "an idle server")
with httpx.Client(base_url=options.base) as probe:
    assert probe.get("/readyz").status_code == 200
before, begun = descriptors(), time.monotonic()
asyncio.run(main())
eventually(is_idle, "the end of all sequences and every block given back")
eventually(lambda: descriptors() <= before, f"no more than the {before} descriptors of the beginning, found {descriptors()}")
assert httpx.get(options.base + "/readyz").status_code == 200
later = samples[len(samples) // 2:]
figures = {
    "requests": counts["begun"], "answered": counts["answered"], "given_up": counts["given up"],
    "answered_before_given_up": counts["answered before they were given up"], "seconds": round(time.monotonic() - begun, 1),
    "descriptors": [before, descriptors()], "resident_mib": [round(samples[0][1] / 2**20, 1), round(samples[-1][1] / 2**20, 1)],
    "mib_per_thousand": round(slope(later) * 1000 / 2**20, 3) if len(later) > 1 else None,
}
print(json.dumps(figures))
assert counts["answered"] + counts["given up"] + counts["answered before they were given up"] == options.requests
assert counts["given up"] > options.requests / 10, "too few were given up to show anything"
if options.strict:
    assert figures["mib_per_thousand"] < 1, figures
