#!/usr/bin/env python3
"""Graft and llama.cpp on the same machine, the same files and in turns; medians as a table and as JSON.

Nine measurements, chosen with --only:
  bench    prefill and decode of one sequence: `graft bench` against `llama-bench`; beside them how fast two threads read memory and multiply 8-bit numbers in
           the same minute, and which share of what that allows Graft has
  long     prefill of 2,048 and 8,000 tokens, and decode after as many: `graft bench` against `llama-bench -d`, with flash attention and without
  batch    decode of several sequences at once, after 128 tokens each: `graft bench --sequences` against `llama-batched-bench`, without a server
  load     streamed chats of 1, 8, 16 clients: `graft serve` against `llama-server -np 16 -c 16384`, asked by load.py
  open     chats that come at random moments, one, two and four a second on average, answered or not: the same servers, asked by load.py --rates
  adapters 16 clients over eight rank-16 adapters on every linear layer, chosen per request, beside the base alone: `graft serve` against
           `llama-server --lora …` with the same adapters (SmolLM2 only; only when asked for)
  start    from the start of the server's process to the first token of a chat, with the files in the page cache
  chat     a conversation's fourth turn: time to the first token, and its share of what the same text takes that the server has not seen before
  memory   largest resident set of the server after 16 streams at once of 448 prompt and 64 answer tokens, about (the peer without mmap)
Rounds alternate the order (A B, B A, …), so that a drift of the machine falls on both; the table shows the median
and the range over the rounds. The load average before each run is recorded: on a busy machine the figures say little.

The peer is the copy of llama.cpp in the source package llama-cpp-python, built natively with the system's compiler
into .build-peer/ the first time (about 12 minutes); later runs find it there. --peer-bin takes a build made elsewhere.
OPENBLAS_CORETYPE is taken out of every child's environment, because it can halve a BLAS-using peer.

usage: peers.py --model FILE.gguf [--model …] [--graft .build/release/graft] [--rounds 3] [--only bench,load]
                [--threads 2] [--prefill 512] [--decode 128] [--contexts 2048,8000] [--clients 1,8,16] [--requests 10] [--rates 1,2,4] [--out FILE.json]
       peers.py --build-only
Without --graft (or with a path that is not there) only the peer is measured. Python 3.11, standard library only.
"""

import argparse
import asyncio
import concurrent.futures
import contextlib
import datetime
import json
import os
import platform
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import load

ROOT = Path(__file__).resolve().parent.parent
PACKAGE, VERSION = "llama-cpp-python", "0.3.36"
TARGETS = ["llama-server", "llama-bench", "llama-batched-bench"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
BUSY = "load average before"


class Failed(Exception):
    """A step could not be done; the text names it and the way out."""


def run(command, log=None, **more):
    """Standard output of a command that must succeed."""
    command = [str(part) for part in command]
    try:
        if log is not None:
            with open(log, "a") as sink:
                subprocess.run(command, check=True, stdout=sink, stderr=subprocess.STDOUT, env=ENVIRONMENT, **more)
            return ""
        return subprocess.run(command, check=True, capture_output=True, text=True, env=ENVIRONMENT, **more).stdout
    except FileNotFoundError as error:
        raise Failed(f"{command[0]} is not installed (apt-get install cmake g++ gives cmake and the compiler)") from error
    except subprocess.CalledProcessError as error:
        tail = f"see {log}" if log else (error.stderr or error.stdout or "")[-800:].strip()
        raise Failed(f"`{' '.join(command)}` ended with {error.returncode}: {tail}") from error


# ----------------------------------------------------------------------------------------------------- the peer


def build_peer(cache):
    """The folder with the peer's programs; downloads, unpacks and builds what is not there yet."""
    source = cache / f"{PACKAGE.replace('-', '_')}-{VERSION}"
    tree = source / "vendor" / "llama.cpp"
    programs, stamp, log = tree / "build" / "bin", cache / f"built-{VERSION}", cache / "build.log"
    if stamp.exists() and all((programs / name).exists() for name in TARGETS):
        return programs
    cache.mkdir(parents=True, exist_ok=True)
    if not (tree / "CMakeLists.txt").exists():
        archive = cache / f"{source.name}.tar.gz"
        if not archive.exists():
            print(f"downloading {PACKAGE} {VERSION}", file=sys.stderr)
            run([sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", PACKAGE, "--dest", cache, f"{PACKAGE}=={VERSION}"], log=log)
        shutil.rmtree(source, ignore_errors=True)
        with tarfile.open(archive) as tar:
            tar.extractall(cache, filter="data")
    print(f"building {', '.join(TARGETS)}; about 12 minutes on two cores, output in {log}", file=sys.stderr)
    # gcc 12 takes the stores to AMX's tile configuration for dead, and the peer dies of the first tile it loads.
    run(["cmake", "-S", tree, "-B", tree / "build", "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_C_COMPILER=gcc", "-DCMAKE_CXX_COMPILER=g++",
         "-DCMAKE_CXX_FLAGS=-fno-tree-dse -fno-dse", "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF"], log=log)
    run(["cmake", "--build", tree / "build", "--parallel", os.cpu_count() or 2, "--target", *TARGETS], log=log)
    stamp.touch()
    return programs


# ------------------------------------------------------------------------------------------------- measurements


def graft_bench(options, model, prefill, decode):
    return json.loads(run([options.graft, "bench", "--model", model, "--prefill", prefill, "--decode", decode, "--threads", options.threads, "--repeat", 1, "--json"]))


def llama_bench(options, model, prefill, decode, *more):
    """Tokens a second of prefill and of decode, whichever is asked for."""
    out = run([options.programs / "llama-bench", "-m", model, "-t", options.threads, "-p", prefill, "-n", decode, "-r", 1, "-o", "json", *more])
    return {"prefill" if row["n_prompt"] else "decode": row["avg_ts"] for row in json.loads(out)}


def bench_graft(options, model):
    # As the peer takes them: decoding starts with an empty context.
    prefill, decode = graft_bench(options, model, options.prefill, 1), graft_bench(options, model, 1, options.decode)
    return {
        "prefill": prefill["prefill_tokens_per_second"], "decode": decode["decode_tokens_per_second"],
        "products, billion/s": prefill["products_per_second"] / 1e9,
        "prefill, share of the products' limit": prefill["prefill_tokens_per_second"] / prefill["prefill_product_limit_tokens_per_second"],
        "memory reads, GB/s": decode["memory_bytes_per_second"] / 1e9,
        "decode, share of the memory's limit": decode["decode_tokens_per_second"] / decode["decode_memory_limit_tokens_per_second"],
    }


def bench_peer(options, model):
    return llama_bench(options, model, options.prefill, options.decode)


LONG_ANSWER = 32


def long_graft(options, model):
    figures = {}
    for context in options.contexts.split(","):
        found = graft_bench(options, model, context, LONG_ANSWER)
        figures |= {f"prefill {context}": found["prefill_tokens_per_second"], f"decode after {context}": found["decode_tokens_per_second"]}
    return figures


def long_peer(options, model):
    """With flash attention and without, whichever is faster: on processors it helps prompts and hinders answers."""
    figures = {}
    for context in options.contexts.split(","):
        for flash in ("on", "off"):
            prefill = llama_bench(options, model, context, 0, "-fa", flash)["prefill"]
            decode = llama_bench(options, model, 0, LONG_ANSWER, "-d", context, "-fa", flash)["decode"]
            for figure, found in ((f"prefill {context}", prefill), (f"decode after {context}", decode)):
                figures[figure] = max(found, figures.get(figure, 0))
    return figures


def batch_graft(options, model):
    figures = {}
    for count in options.sequences.split(","):
        out = run([options.graft, "bench", "--model", model, "--prefill", 128, "--decode", 64, "--sequences", count, "--threads", options.threads, "--repeat", 1, "--json"])
        figures[f"decode {count} sequences"] = json.loads(out)["decode_tokens_per_second"]
    return figures


def batch_peer(options, model):
    out = run([options.programs / "llama-batched-bench", "-m", model, "-t", options.threads, "-c", 16384, "-b", 2048, "-ub", 512,
               "-npp", 128, "-ntg", 64, "-npl", options.sequences, "--output-format", "jsonl"])
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return {f"decode {row['pl']} sequences": row["speed_tg"] for row in rows}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def launched(command, log):
    """The process of a server and its port; it is stopped again whatever happens."""
    port = free_port()
    scratch = tempfile.mkdtemp()
    directories = {"GRAFT_DATA_DIRECTORY": scratch + "/Data", "GRAFT_ADAPTERS_DIRECTORY": scratch + "/Adapters"}
    with open(log, "w") as sink:
        process = subprocess.Popen([str(part) for part in [*command, "--port", port]], stdout=sink, stderr=subprocess.STDOUT, env=ENVIRONMENT | directories)
    try:
        yield process, port
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(scratch, ignore_errors=True)


def until_answered(process, log, ask, pause):
    """Calls `ask` until it does not fail."""
    deadline = time.monotonic() + 180
    while True:
        if process.poll() is not None:
            raise Failed(f"{process.args[0]} ended with {process.returncode} before it was ready: see {log}")
        try:
            return ask()
        except (urllib.error.URLError, OSError):
            pass
        if time.monotonic() > deadline:
            raise Failed(f"{process.args[0]} did not answer within 180 s: see {log}")
        time.sleep(pause)


@contextlib.contextmanager
def server(command, ready_path, log, tls=None):
    """The address of a running server, ready to answer; `tls`: what the client trusts, if it speaks TLS."""
    with launched(command, log) as (process, port):
        url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        until_answered(process, log, lambda: urllib.request.urlopen(url + ready_path, timeout=5, context=tls).close(), 0.1)
        yield url


def serve_command(options, model, engine):
    if engine == "graft":
        return [options.graft, "serve", "--model", model, "--threads", options.threads]
    return [options.programs / "llama-server", "-m", model, "-t", options.threads, "-np", 16, "-c", 16384, "--host", "127.0.0.1"]


def first_token(url, messages, tokens=1):
    """Seconds until a streamed chat shows text, and the whole text."""
    body = json.dumps({"messages": messages, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True}).encode()
    start, first, text = time.monotonic(), None, ""
    with urllib.request.urlopen(urllib.request.Request(url + "/v1/chat/completions", data=body, headers={"content-type": "application/json"}), timeout=300) as stream:
        for line in stream:
            if not line.startswith(b"data: {"):
                continue
            choices = json.loads(line[6:])["choices"]
            piece = choices[0]["delta"].get("content") if choices else None
            if piece:
                first = first or time.monotonic() - start
                text += piece
    return first, text


def start_of(engine):
    def measured(options, model):
        log = options.cache / f"{engine}-start.log"
        start = time.monotonic()
        with launched(serve_command(options, model, engine), log) as (process, port):
            until_answered(process, log, lambda: first_token(f"http://127.0.0.1:{port}", [{"role": "user", "content": "Hello"}]), 0.005)
            return {"process to first token, s": time.monotonic() - start}
    return measured


def some_words(source, count):
    return " ".join(source.choices(load.NOUNS, k=count))


def chat_of(engine):
    def measured(options, model):
        ready = {"graft": "/readyz"}.get(engine, "/health")
        source, warm, cold = random.Random(4), [], []
        with server(serve_command(options, model, engine), ready, options.cache / f"{engine}-chat.log") as url:
            for number in range(5):
                messages = [{"role": "system", "content": f"You are helper {number}. " + some_words(source, 40)}]
                for _ in range(4):
                    messages.append({"role": "user", "content": "Tell me about " + some_words(source, 60)})
                    seconds, text = first_token(url, messages, 48)
                    messages.append({"role": "assistant", "content": text})
                warm.append(seconds)
                unseen = [{"role": "system", "content": f"I am helper {number}. " + some_words(source, 40)}, *messages[1:-1]]
                cold.append(first_token(url, unseen)[0])
        figures = statistics.median(warm), statistics.median(cold)
        return {"4th turn, first token, s": figures[0], "the same unseen, s": figures[1], "4th turn, share of unseen": figures[0] / figures[1]}
    return measured


def memory_of(engine):
    def measured(options, model):
        command = serve_command(options, model, engine) + ([] if engine == "graft" else ["--load-mode", "none"])
        source, log = random.Random(5), options.cache / f"{engine}-memory.log"
        with launched(command, log) as (process, port):
            url = f"http://127.0.0.1:{port}"
            until_answered(process, log, lambda: first_token(url, [{"role": "user", "content": "Hello"}]), 0.1)
            stories = [[{"role": "user", "content": some_words(source, 230)}] for _ in range(16)]
            with concurrent.futures.ThreadPoolExecutor(16) as pool:
                list(pool.map(lambda messages: first_token(url, messages, 64), stories))
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
            return {"peak resident, MB": peak * 1024 / 1e6, "of which is the file, MB": model.stat().st_size / 1e6}
    return measured


def load_on(options, command, ready_path, log):
    figures = {}
    with server(command, ready_path, log) as url:
        for clients in options.clients.split(","):
            row = closed_loop(options, url, int(clients))
            figures[f"{clients} clients, tokens/s"] = row["completion_tokens_per_second"]
            figures[f"{clients} clients, TTFT p50 s"] = row["ttft_p50"]
            figures[f"{clients} clients, TTFT p95 s"] = row["ttft_p95"]
            figures[f"{clients} clients, gap p95 s"] = row["itl_p95"]
    return figures


def load_graft(options, model):
    return load_on(options, serve_command(options, model, "graft"), "/readyz", options.cache / "graft-serve.log")


def load_peer(options, model):
    return load_on(options, serve_command(options, model, "llama.cpp"), "/health", options.cache / "llama-server.log")


# Runs on the base and over adapters, in turns on one server.
ADAPTERS, RANK, TURNS = 8, 16, 3


def asked_by(function, options, url, amount, **choice):
    """A run of load.py's that must not have failed requests."""
    choice = {"max_tokens": options.max_tokens, "prompt_words": options.prompt_words} | choice
    asked = load.parser().parse_args(["--url", url, *(f"--{name.replace('_', '-')}={value}" for name, value in choice.items())])
    row = asyncio.run(function(asked, amount))
    if row["errors"]:
        raise Failed(f"{url} with {load.load_of(row)}: {row['errors']} failed requests {row['error_kinds']}; the server's log is in {options.cache}")
    return row


def closed_loop(options, url, clients, **choice):
    return asked_by(load.measure, options, url, clients, **({"requests": options.requests} | choice))


def open_of(engine):
    def measured(options, model):
        ready, figures = {"graft": "/readyz"}.get(engine, "/health"), {}
        with server(serve_command(options, model, engine), ready, options.cache / f"{engine}-open.log") as url:
            for number, rate in enumerate(options.rates):
                row = asked_by(load.measure_open, options, url, rate, arrivals=options.arrivals, seed=number)
                figures |= {
                    f"{rate:g}/s, first token p50, s": row["ttft_p50"], f"{rate:g}/s, first token p95, s": row["ttft_p95"], f"{rate:g}/s, gap p95, s": row["itl_p95"],
                    f"{rate:g}/s, whole answer p95, s": row["answer_p95"],
                }
        return figures
    return measured


def publish_adapters(url, folder):
    """Eight random adapters in the running Graft, and as GGUF files for the peer."""
    sys.path.insert(0, str(ROOT / "Tests/EndToEnd"))
    from adapter_files import make_adapter, upload_form

    for number in range(ADAPTERS):
        content_type, body = upload_form(f"a{number}", make_adapter(number, rank=RANK, strength=0.02))
        urllib.request.urlopen(urllib.request.Request(url + "/v1/adapters", data=body, headers={"content-type": content_type})).read()
        with urllib.request.urlopen(f"{url}/v1/adapters/a{number}/export?format=gguf") as export:
            (folder / f"a{number}.gguf").write_bytes(export.read())


def adapters_graft(options, model):
    folder = options.cache / "adapters"
    folder.mkdir(exist_ok=True)
    figures = {}
    with server(serve_command(options, model, "graft"), "/readyz", options.cache / "graft-adapters.log") as url:
        publish_adapters(url, folder)
        names = ",".join(f"a{number}" for number in range(ADAPTERS))
        for clients, requests in ((16, options.requests), (1, 4 * options.requests)):
            base, mixed, first = [], [], []
            for turn in range(TURNS):
                for adapted in (False, True) if turn % 2 == 0 else (True, False):
                    # Prompts of their own for each run: what was asked before is in the cache.
                    found = closed_loop(options, url, clients, requests=requests, seed=100 * clients + 2 * turn + adapted, **({"model": names} if adapted else {}))
                    (mixed if adapted else base).append(found["completion_tokens_per_second"])
                    first += [found["ttft_p95"]] * adapted
            figures |= {
                f"{clients} clients on the base, tokens/s": statistics.median(base), f"{clients} clients over {ADAPTERS} adapters, tokens/s": statistics.median(mixed),
                f"{clients} clients, share of the base": statistics.median(one / other for one, other in zip(mixed, base)),
                f"{clients} clients over {ADAPTERS} adapters, TTFT p95 s": statistics.median(first),
            }
    return figures


def adapters_peer(options, model):
    folder = options.cache / "adapters"
    if not (folder / "a0.gguf").exists():
        adapters_graft(options, model)
    loras = [part for number in range(ADAPTERS) for part in ("--lora", folder / f"a{number}.gguf")]
    command = [*serve_command(options, model, "llama.cpp"), *loras, "--lora-init-without-apply"]
    with server(command, "/health", options.cache / "llama-adapters.log") as url:
        mixed = closed_loop(options, url, 16, lora_ids=",".join(str(number) for number in range(ADAPTERS)))
    return {f"16 clients over {ADAPTERS} adapters, tokens/s": mixed["completion_tokens_per_second"], f"16 clients over {ADAPTERS} adapters, TTFT p95 s": mixed["ttft_p95"]}


MEASUREMENTS = {
    "bench": {"graft": bench_graft, "llama.cpp": bench_peer},
    "long": {"graft": long_graft, "llama.cpp": long_peer},
    "batch": {"graft": batch_graft, "llama.cpp": batch_peer},
    "load": {"graft": load_graft, "llama.cpp": load_peer},
    "open": {engine: open_of(engine) for engine in ("graft", "llama.cpp")},
    "adapters": {"graft": adapters_graft, "llama.cpp": adapters_peer},
    "start": {engine: start_of(engine) for engine in ("graft", "llama.cpp")},
    "chat": {engine: chat_of(engine) for engine in ("graft", "llama.cpp")},
    "memory": {engine: memory_of(engine) for engine in ("graft", "llama.cpp")},
}


# ------------------------------------------------------------------------------------------------------- results


def machine():
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), platform.machine())
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "").split()
    with contextlib.suppress(Failed):
        commit = run(["git", "-C", ROOT, "describe", "--always", "--dirty"]).strip()
        return {"cpu": cpu, "cores": os.cpu_count(), "avx512_vnni": "avx512_vnni" in flags, "commit": commit}
    return {"cpu": cpu, "cores": os.cpu_count(), "avx512_vnni": "avx512_vnni" in flags, "commit": None}


def summary(values):
    return {"median": round(statistics.median(values), 3), "low": round(min(values), 3), "high": round(max(values), 3), "rounds": [round(v, 3) for v in values]}


def measure(options, model, kind):
    """{figure: {engine: summary}} over all rounds."""
    engines = {name: function for name, function in MEASUREMENTS[kind].items() if name != "graft" or options.graft}
    taken = {name: {} for name in engines}
    for turn in range(options.rounds):
        for name in list(engines) if turn % 2 == 0 else reversed(engines):
            busy = os.getloadavg()[0]
            figures = engines[name](options, model)
            print(f"  {kind} round {turn + 1}/{options.rounds} {name:10} load average {busy:.2f}  "
                  + "  ".join(f"{key} {value:g}" for key, value in figures.items()), file=sys.stderr, flush=True)
            for key, value in figures.items():
                taken[name].setdefault(key, []).append(value)
            taken[name].setdefault(BUSY, []).append(busy)
    keys = dict.fromkeys(key for figures in taken.values() for key in figures)
    return {key: {name: summary(figures[key]) for name, figures in taken.items() if key in figures} for key in keys}


def table(results):
    lines = [f"{'model':34} {'figure':28} {'graft':>24} {'llama.cpp':>24} {'ratio':>6}"]
    show = lambda s: "–" if s is None else f"{s['median']:g} ({s['low']:g}–{s['high']:g})"
    for result in results:
        for figure, engines in result["figures"].items():
            ours, theirs = engines.get("graft"), engines.get("llama.cpp")
            ratio = f"{ours['median'] / theirs['median']:.2f}" if ours and theirs and theirs["median"] and figure != BUSY else "–"
            lines.append(f"{result['model'][:34]:34} {figure:28} {show(ours):>24} {show(theirs):>24} {ratio:>6}")
    return "\n".join(lines)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--model", type=Path, action="append", default=[])
    p.add_argument("--graft", type=Path, default=ROOT / ".build/release/graft")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--only", default="bench,load", help="of " + ", ".join(MEASUREMENTS))
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--prefill", type=int, default=512)
    p.add_argument("--decode", type=int, default=128)
    p.add_argument("--contexts", default="2048,8000", help="of the long measurement")
    p.add_argument("--sequences", default="1,4,8,16,32", help="of the batch measurement")
    p.add_argument("--clients", default="1,8,16", help="of the load measurement")
    p.add_argument("--requests", type=int, default=10, help="of each client")
    p.add_argument("--rates", type=load.rates, default="1,2,4", help="of the open measurement, requests a second")
    p.add_argument("--arrivals", type=int, default=60, help="requests for each of them")
    p.add_argument("--max-tokens", type=int, default=64, help="of each answer")
    p.add_argument("--prompt-words", type=int, default=60)
    p.add_argument("--cache", type=Path, default=ROOT / ".build-peer")
    p.add_argument("--peer-bin", type=Path, help="folder with the peer's programs; nothing is built")
    p.add_argument("--out", type=Path, help="write the JSON here")
    p.add_argument("--build-only", action="store_true")
    options = p.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    results, failed = [], False
    try:
        options.programs = options.peer_bin or build_peer(options.cache)
        if options.build_only:
            print(options.programs)
            return 0
        kinds = options.only.split(",")
        if unknown := set(kinds) - set(MEASUREMENTS):
            p.error(f"--only knows {', '.join(MEASUREMENTS)}, not {', '.join(unknown)}")
        if not options.model:
            p.error("--model is needed")
        if not options.graft.exists():
            print(f"{options.graft} is not there (`make build` makes it): only the peer is measured", file=sys.stderr)
            options.graft = None
        if options.arrivals < 2:
            p.error(f"--arrivals takes 2 and more, not {options.arrivals}")
        for model in options.model:
            if not model.is_file():
                raise Failed(f"{model} is not a file (`graft pull NAME` fetches the models of the catalogue)")
        for model in options.model:
            for kind in kinds:
                results.append({"model": model.name, "measurement": kind, "figures": measure(options, model, kind)})
    except Failed as failure:
        print(f"peers.py: {failure}", file=sys.stderr)
        if not results:
            return 1
        print("peers.py: what was measured before that:", file=sys.stderr)
        failed = True
    settings = {name: getattr(options, name) for name in ("threads", "prefill", "decode", "contexts", "rounds", "clients", "requests", "rates", "arrivals", "max_tokens", "prompt_words", "sequences")}
    document = {"date": datetime.date.today().isoformat(), "machine": machine(), "peer": f"llama.cpp in {PACKAGE} {VERSION}", "settings": settings, "results": results}
    print(table(results))
    if options.out:
        options.out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    else:
        print(json.dumps(document, ensure_ascii=False))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
