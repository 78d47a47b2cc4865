"""Adapters come and go while sixteen streams run: publishes and deletes of rank-4 adapters over four names.

usage: swap_soak.py BASE_URL --pid PID [--publishes 1000] [--quiet-seconds 20] [--strict]

Greedy answers are known beforehand for every content and prompt, so an answer that belongs wholly to one version equals the known answer of the
version that its header names; anything else is an error. Prints one JSON line. Always fails on an error, a mixed answer or a wrong header; with
--strict also when the p99.9 gap between two tokens rises by more than 50 ms over the quiet one, or resident memory by more than 5%."""
import argparse
import asyncio
import json
import sys
import time
import urllib.request
from urllib.parse import urlsplit

from adapter_files import make_adapter, upload_form

PROMPTS = ["Tell a story about a river.", "Describe a lighthouse.", "Invent a holiday.", "Write about winter."]
NAMES = ["north", "south", "east", "west"]
CONTENTS, STREAMS, TOKENS = 12, 16, 48


def call(base, method, path, body=None, content_type="application/json"):
    request = urllib.request.Request(base + path, data=body, method=method, headers={"content-type": content_type} if body else {})
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.loads(response.read() or b"{}")


def publish(base, name, adapter):
    content_type, body = upload_form(name, adapter)
    return call(base, "POST", "/v1/adapters", body, content_type)


def chat_body(model, prompt, stream):
    return json.dumps({
        "model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "stream": stream,
    }).encode()


def resident_bytes(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


class Stream:
    """One client that asks again and again over one connection."""

    def __init__(self, base):
        self.address = urlsplit(base)
        self.reader = self.writer = None

    async def answer(self, model, prompt):
        """(status, headers, text, gaps) of one streamed chat."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(self.address.hostname, self.address.port)
        body = chat_body(model, prompt, True)
        self.writer.write(f"POST /v1/chat/completions HTTP/1.1\r\nhost: {self.address.netloc}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split()[1])
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if ":" in line)}
        if fields.get("transfer-encoding") != "chunked":
            text = (await self.reader.readexactly(int(fields["content-length"]))).decode()
            return status, fields, text, []
        text, gaps, last, done, rest = "", [], None, False, b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            rest += (await self.reader.readexactly(size + 2))[:-2]
            *lines, rest = rest.split(b"\n")
            now = time.perf_counter()
            for line in lines:
                if line == b"data: [DONE]":
                    done = True
                elif line.startswith(b"data: "):
                    event = json.loads(line[6:])
                    if "error" in event:
                        return 0, fields, json.dumps(event), gaps
                    for choice in event["choices"]:
                        if content := choice["delta"].get("content"):
                            text += content
                            if last is not None:
                                gaps.append(now - last)
                            last = now
        await self.reader.readuntil(b"\r\n")
        return (status if done else 0), fields, text, gaps


class Load:
    """Sixteen streams over the four names and the base, checked against the known answers."""

    def __init__(self, base, base_model, known, versions):
        self.base, self.base_model, self.known, self.versions = base, base_model, known, versions
        self.gaps, self.answers, self.errors, self.wrong, self.running = [], 0, [], [], True

    async def stream(self, number):
        client, turn = Stream(self.base), number
        while self.running:
            model = (NAMES + [self.base_model])[turn % 5]
            prompt = PROMPTS[(turn // 5) % len(PROMPTS)]
            turn += 1
            status, fields, text, gaps = await client.answer(model, prompt)
            self.answers += 1
            self.gaps += gaps
            if status != 200:
                self.errors.append(f"{status}: {text[:200]}")
                continue
            digest = fields.get("graft-adapter-digest", "base")
            if (digest == "base") != (model == self.base_model) or (digest != "base" and fields.get("graft-adapter") != model):
                self.wrong.append(f"{model}: header {fields.get('graft-adapter')} {digest}")
            elif digest != "base" and self.versions.get((model, fields.get("graft-adapter-version"))) != digest:
                self.wrong.append(f"{model}: header says version {fields.get('graft-adapter-version')} and {digest}")
            elif self.known.get((digest, prompt)) != text:
                self.wrong.append(f"{model} {digest[:16]}: not that version's answer")

    async def run(self, work):
        tasks = [asyncio.create_task(self.stream(i)) for i in range(STREAMS)]
        result = await work
        self.running = False
        await asyncio.gather(*tasks)
        return result


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0


async def swaps(base, adapters, digests, versions, count):
    """Each publish replaces the version before it under the same name, which is then deleted."""
    loop = asyncio.get_running_loop()
    seconds, current = [], {name: max(int(number) for owner, number in versions if owner == name) for name in NAMES}
    for turn in range(count):
        name, content = NAMES[turn % len(NAMES)], turn * 7 % CONTENTS
        # Numbers follow one another, so what the version will be is known before the first answer of it comes.
        versions[name, str(current[name] + 1)] = digests[content]
        began = time.perf_counter()
        version = (await loop.run_in_executor(None, publish, base, name, adapters[content]))["version"]
        seconds.append(time.perf_counter() - began)
        listed = await loop.run_in_executor(None, call, base, "GET", f"/v1/adapters/{name}")
        for older in [v["version"] for v in listed["versions"] if v["version"] != version]:
            await loop.run_in_executor(None, call, base, "DELETE", f"/v1/adapters/{name}%40{older}")
        current[name] = version
    return seconds


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("--pid", type=int, required=True, help="the server's process, for its memory")
    parser.add_argument("--publishes", type=int, default=1000)
    parser.add_argument("--quiet-seconds", type=float, default=20)
    parser.add_argument("--strict", action="store_true")
    options = parser.parse_args()
    base = options.base.rstrip("/")
    base_model = next(card["id"] for card in call(base, "GET", "/v1/models")["data"] if card["parent"] is None)
    adapters = [make_adapter(seed, rank=4) for seed in range(CONTENTS)]
    # (digest, prompt) to answer; (name, version) to digest.
    known, versions, digests = {}, {}, []

    def ask(model, digest):
        for prompt in PROMPTS:
            answer = call(base, "POST", "/v1/chat/completions", chat_body(model, prompt, False))
            known[digest, prompt] = answer["choices"][0]["message"]["content"]

    ask(base_model, "base")
    for adapter in adapters:
        digests.append(publish(base, "sample", adapter)["digest"])
        ask("sample", digests[-1])
    assert len(set(known.values())) == len(known), "two contents give the same answer: a mix-up could go unseen"
    call(base, "DELETE", "/v1/adapters/sample")
    for number, name in enumerate(NAMES):
        first = publish(base, name, adapters[number])
        versions[name, str(first["version"])] = first["digest"]

    quiet = Load(base, base_model, known, versions)
    await quiet.run(asyncio.sleep(options.quiet_seconds))
    before = resident_bytes(options.pid)
    busy = Load(base, base_model, known, versions)
    began = time.perf_counter()
    publishing = await busy.run(swaps(base, adapters, digests, versions, options.publishes))
    seconds = time.perf_counter() - began
    after = resident_bytes(options.pid)
    for name in NAMES:
        call(base, "DELETE", f"/v1/adapters/{name}")
    result = {
        "publishes": options.publishes, "seconds": round(seconds, 1), "publish_p50_ms": round(1e3 * percentile(publishing, 0.5), 1),
        "publish_p99_ms": round(1e3 * percentile(publishing, 0.99), 1), "answers": quiet.answers + busy.answers, "errors": len(quiet.errors + busy.errors),
        "wrong_version": len(quiet.wrong + busy.wrong), "gap_p999_quiet_ms": round(1e3 * percentile(quiet.gaps, 0.999), 1),
        "gap_p999_busy_ms": round(1e3 * percentile(busy.gaps, 0.999), 1), "gap_p50_quiet_ms": round(1e3 * percentile(quiet.gaps, 0.5), 1),
        "gap_p50_busy_ms": round(1e3 * percentile(busy.gaps, 0.5), 1), "resident_before_mb": round(before / 1e6, 1), "resident_after_mb": round(after / 1e6, 1),
    }
    print(json.dumps(result))
    for problem in (quiet.errors + busy.errors + quiet.wrong + busy.wrong)[:10]:
        print("  " + problem, file=sys.stderr)
    failures = []
    if quiet.errors or busy.errors or quiet.wrong or busy.wrong:
        failures.append("errors or answers of the wrong version")
    if options.strict and result["gap_p999_busy_ms"] > result["gap_p999_quiet_ms"] + 50:
        failures.append("the p99.9 gap rose by more than 50 ms")
    if options.strict and after > 1.05 * before:
        failures.append("resident memory rose by more than 5%")
    if failures:
        sys.exit("swap_soak: " + "; ".join(failures))


asyncio.run(main())
