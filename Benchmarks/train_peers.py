#!/usr/bin/env python3
"""Training speed and memory of Graft and of PyTorch with PEFT: the same model, lengths and batches, on the same machine, in turns.

Both train a rank-16 adapter on every linear layer of the frozen model, with AdamW, on examples of --tokens random tokens all of which the loss counts
(but the first, which nothing predicts): forward, backward, clipping, step. Graft is `graft bench --train`; the peer is transformers with PEFT on the
weights of the same GGUF, dequantised, once in bfloat16 and once in float32, in a process of its own: this script again, under --python. PEFT keeps
its adapters in float32 above a bfloat16 model, as it does by default; `bf16-all`, which only --only measures, has them in bfloat16 too.

A figure of one run is the median of its measured steps after the warm-up; the table shows the median and the range over the rounds, whose order
alternates, so that a drift of the machine falls on all. Peak memory is the child's largest resident set, by wait4, the same way for all; it holds the
loading of the model too. `loaded` is the peer's peak before its first step: where it is near the peak, loading set it and not the training.
OPENBLAS_CORETYPE is taken out of every child's environment, because it can halve whoever uses BLAS. The load average before each run is recorded:
PyTorch's threads wait for each other by spinning, so that another program on a core slows them down many times over, and Graft much less.

usage: train_peers.py --model FILE.gguf --python PYTHON [--graft .build/release/graft] [--tokens 256] [--batch 4,8] [--rounds 3] [--steps 3]
                      [--warm-up 2] [--threads 2] [--only graft,bf16,f32,bf16-all] [--precision float32|bfloat16] [--out FILE.json]
PYTHON is an interpreter with torch, transformers, accelerate, peft and gguf. Float32 with batch 8 takes about 10 GB. Standard library only itself.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers import BUSY, ENVIRONMENT, ROOT, Failed, machine, summary

RANK = 16
ENGINES = {"graft": "Graft", "bf16": "PyTorch bf16", "f32": "PyTorch f32", "bf16-all": "PyTorch bf16-all"}


# --------------------------------------------------------------------------------------------------- the peer


def work(options):
    """In the peer's process: trains, and prints what it measured as one line of JSON."""
    import resource

    import peft
    import torch
    import transformers

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    dtype = torch.float32 if options.worker == "f32" else torch.bfloat16
    model = transformers.AutoModelForCausalLM.from_pretrained(options.model.parent, gguf_file=options.model.name, dtype=dtype)
    lora = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, lora, autocast_adapter_dtype=options.worker != "bf16-all")
    model.config.use_cache = False
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0)
    # Linux gives kilobytes.
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    batch, seconds, loss = int(options.batch), [], None
    for _ in range(options.warm_up + options.steps):
        ids = torch.randint(0, model.config.vocab_size, (batch, options.tokens))
        began = time.perf_counter()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - began)
    rates = [batch * options.tokens / one for one in seconds[options.warm_up :]]
    print(json.dumps({
        "tokens_per_second": statistics.median(rates), "seconds": [round(one, 3) for one in seconds], "loaded_bytes": loaded,
        "loss": float(loss.detach()),
        "trained_parameters": sum(parameter.numel() for parameter in parameters),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__},
    }))


# ------------------------------------------------------------------------------------------------------- runs


def run_measured(command, threads):
    """(last line of standard output as JSON, peak resident bytes) of a child that must succeed."""
    command = [str(part) for part in command]
    # Some libraries choose their threads when they are loaded.
    environment = ENVIRONMENT | {"OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryFile("w+") as log:
        try:
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        except OSError as error:
            raise Failed(f"{command[0]} cannot be run: {error}") from error
        with child.stdout:
            out = child.stdout.read()
        # Not child.wait(): only wait4 tells this one child's memory.
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            log.seek(0)
            raise Failed(f"`{' '.join(command)}` ended with {child.returncode}: {log.read()[-1200:].strip()}")
    return json.loads(out.strip().splitlines()[-1]), usage.ru_maxrss * 1024


def run_engine(options, engine, batch):
    if engine == "graft":
        command = [options.graft, "bench", "--model", options.model, "--train", options.tokens, "--batch", batch, "--rank", RANK,
                   "--threads", options.threads, "--repeat", options.steps, "--json"]
        found, peak = run_measured(command + (["--precision", options.precision] if options.precision else []), options.threads)
        return {"tokens_per_second": found["training_tokens_per_second"], "peak_megabytes": peak / 1e6}, found
    command = [options.python, Path(__file__).resolve(), "--worker", engine, "--model", options.model, "--tokens", options.tokens, "--batch", batch,
               "--threads", options.threads, "--steps", options.steps, "--warm-up", options.warm_up]
    found, peak = run_measured(command, options.threads)
    return {"tokens_per_second": found["tokens_per_second"], "peak_megabytes": peak / 1e6, "loaded_megabytes": found["loaded_bytes"] / 1e6}, found


def measure(options, engines, batch):
    """({engine: {figure: summary}}, {engine: what its last run said of itself}) over all rounds."""
    taken, told = {engine: {} for engine in engines}, {}
    for turn in range(options.rounds):
        for engine in engines if turn % 2 == 0 else reversed(engines):
            busy = os.getloadavg()[0]
            figures, told[engine] = run_engine(options, engine, batch)
            print(f"  batch {batch} round {turn + 1}/{options.rounds} {ENGINES[engine]:16} load average {busy:.2f}  "
                  + "  ".join(f"{key} {value:.1f}" for key, value in figures.items()), file=sys.stderr, flush=True)
            for key, value in (figures | {BUSY: busy}).items():
                taken[engine].setdefault(key, []).append(value)
    return {engine: {key: summary(values) for key, values in figures.items()} for engine, figures in taken.items()}, told


def table(options, results):
    """Ratios are Graft's speed over the peer's, and Graft's memory over the peer's."""
    show = lambda s: f"{s['median']:.0f} ({s['low']:.0f}–{s['high']:.0f})"
    lines = [f"{'train':9} {'engine':20} {'tokens/s':>18} {'peak MB':>20} {'Graft: speed':>13} {'memory':>7}"]
    for result in results:
        ours = result["figures"].get("graft")
        for engine, figures in result["figures"].items():
            name = ENGINES[engine] + (f" {result['told'][engine]['precision']}" if engine == "graft" else "")
            ratio = lambda key: f"{ours[key]['median'] / figures[key]['median']:.2f}" if ours and engine != "graft" else "–"
            lines.append(f"{str(result['batch']) + ' x ' + str(options.tokens):9} {name:20} {show(figures['tokens_per_second']):>18} "
                         f"{show(figures['peak_megabytes']):>20} {ratio('tokens_per_second'):>13} {ratio('peak_megabytes'):>7}")
    return "\n".join(lines)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--model", type=Path, required=True)
    p.add_argument("--python", help="the peer's interpreter; without it only Graft is measured")
    p.add_argument("--graft", type=Path, default=ROOT / ".build/release/graft")
    p.add_argument("--tokens", type=int, default=256, help="of each example")
    p.add_argument("--batch", default="4,8", help="examples of one step")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--steps", type=int, default=3, help="measured steps of each run")
    p.add_argument("--warm-up", type=int, default=2, help="the peer's steps before those; Graft's bench has one")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--only", default="graft,bf16,f32", help=f"of {', '.join(ENGINES)}")
    p.add_argument("--precision", help="Graft's: float32 or bfloat16; the faster one otherwise")
    p.add_argument("--out", type=Path, help="write the JSON here")
    p.add_argument("--worker", choices=[engine for engine in ENGINES if engine != "graft"], help=argparse.SUPPRESS)
    options = p.parse_args()
    options.model = options.model.resolve()
    if options.worker:
        return work(options)
    engines = options.only.split(",")
    if unknown := set(engines) - set(ENGINES):
        p.error(f"--only knows {', '.join(ENGINES)}, not {', '.join(unknown)}")
    if not options.python:
        print("without --python only Graft is measured", file=sys.stderr)
        engines = [engine for engine in engines if engine == "graft"]
    results = []
    try:
        if not options.model.is_file():
            raise Failed(f"{options.model} is not a file (`graft pull NAME` fetches the models of the catalogue)")
        for batch in map(int, options.batch.split(",")):
            figures, told = measure(options, engines, batch)
            results.append({"batch": batch, "figures": figures, "told": told})
    except Failed as failure:
        print(f"train_peers.py: {failure}", file=sys.stderr)
        return 1
    settings = {name: getattr(options, name) for name in ("tokens", "rounds", "steps", "warm_up", "threads")} | {"rank": RANK}
    document = {"date": datetime.date.today().isoformat(), "machine": machine(), "model": options.model.name, "settings": settings}
    document["results"] = results
    print(table(options, results))
    if options.out:
        options.out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    else:
        print(json.dumps(document, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
