#!/usr/bin/env python3
"""Tunes adapters over HTTP with the `openai` package on task folders, scores them on held-out rows, and prints a table.

A task folder has task.json ({"name", "kind": "sft" | "dpo", …}), train.jsonl and heldout.jsonl with {"messages": […]} or, for DPO,
{"prompt", "chosen", "rejected"}. For each task and seed: upload, job, wait, then with the tuned model's name on the same server
  score      what the scorer prints for the greedy answers (score.py TASK --base-url … --model …)
  loss       mean -log p of the held-out answers' tokens, end of turn included, from /v1/completions with echo and logprobs
  preference the share of held-out pairs whose chosen answer gained more than the rejected one against the base (DPO)
and the seconds of the job, the tokens per second of its metrics, and the server's peak memory (VmHWM).
The server must run SmolLM2 or another model whose conversations are written as ChatML.

usage: tune_tasks.py --base-url http://127.0.0.1:8080/v1 --tasks DIRECTORY --scorer score.py [--seeds 0,1,2] [--only NAME=EPOCHS,…] [--pid PID]
                     [--limit N] [--tuned-only] [--out FILE.json]
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import httpx
import openai

EPOCHS = {"banking77_intent": 3, "sms_spam_flag": 2, "wikisql": 2, "identity": 6, "yelp_polite_dpo": 2}


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def peak_megabytes(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return round(int(line.split()[1]) / 1024)


class Scorer:
    def __init__(self, options):
        self.options = options
        self.http = httpx.Client(base_url=options.base_url, timeout=300)

    def answer_logprobs(self, model, prompt, answer):
        """log p of each token of an answer, with the token that ends its turn."""
        text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in prompt)
        if prompt[0]["role"] != "system":
            text = self.default_system + text
        text += "<|im_start|>assistant\n"
        whole = text + answer + "<|im_end|>"
        reply = self.http.post("/completions", json={"model": model, "prompt": whole, "echo": True, "logprobs": 0, "max_tokens": 0})
        reply.raise_for_status()
        found = reply.json()["choices"][0]["logprobs"]
        return [p for p, offset in zip(found["token_logprobs"], found["text_offset"]) if offset >= len(text)]

    # SmolLM2's template writes this where a conversation has no system message.
    default_system = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"

    def loss(self, model, heldout):
        values = [p for row in heldout for p in self.answer_logprobs(model, row["messages"][:-1], row["messages"][-1]["content"])]
        return -sum(values) / len(values)

    def margins(self, model, heldout):
        return [
            sum(self.answer_logprobs(model, row["prompt"], row["chosen"][0]["content"]))
            - sum(self.answer_logprobs(model, row["prompt"], row["rejected"][0]["content"]))
            for row in heldout
        ]

    def score(self, model, task):
        command = [sys.executable, self.options.scorer, str(task), "--base-url", self.options.base_url, "--model", model]
        if self.options.limit:
            command += ["--limit", str(self.options.limit)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return {key: value for key, value in found.items() if key not in ("task", "n")}


def tune(client, task, description, epochs, seed, options):
    start = time.monotonic()
    file = client.files.create(file=(f"{task.name}.jsonl", (task / "train.jsonl").read_bytes()), purpose="fine-tune")
    kind = "dpo" if description["kind"] == "dpo" else "supervised"
    job = client.fine_tuning.jobs.create(
        model=options.base, training_file=file.id, suffix=f"{task.name}-{seed}", seed=seed,
        method={"type": kind, kind: {"hyperparameters": {"n_epochs": epochs, "batch_size": 8}}},
        extra_body={"lora": {"rank": 16, "alpha": 32, "validation_split": 0}})
    while job.status not in ("succeeded", "failed", "cancelled"):
        time.sleep(0.5)
        job = client.fine_tuning.jobs.retrieve(job.id)
    if job.status != "succeeded":
        sys.exit(f"{task.name}: the job {job.status}: {job.error}")
    seconds = time.monotonic() - start
    speeds = [e.data["tokens_per_second"] for e in client.fine_tuning.jobs.list_events(job.id, limit=100).data if e.type == "metrics" and e.data]
    return job, seconds, sorted(speeds)[len(speeds) // 2] if speeds else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--scorer", required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", default=",".join(f"{k}={v}" for k, v in EPOCHS.items()))
    parser.add_argument("--base", default="smollm2-135m-instruct")
    parser.add_argument("--pid", type=int)
    parser.add_argument("--limit", type=int, help="held-out rows of the scores")
    parser.add_argument("--tuned-only", action="store_true", help="leave out the scores of the base")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    client = openai.OpenAI(base_url=options.base_url, api_key="none", timeout=600)
    scorer = Scorer(options)
    results = []

    def record(**entry):
        results.append(entry)
        print(json.dumps(entry), flush=True)
        if options.out:
            options.out.write_text(json.dumps(results, indent=1) + "\n")

    for pair in options.only.split(","):
        name, _, epochs = pair.partition("=")
        task = options.tasks / name
        description = json.loads((task / "task.json").read_text())
        heldout = rows(task / "heldout.jsonl")[: options.limit]
        is_dpo = description["kind"] == "dpo"
        base_margins = scorer.margins(options.base, heldout) if is_dpo else None
        if not options.tuned_only:
            base = {"score": scorer.score(options.base, task)} | ({} if is_dpo else {"loss": round(scorer.loss(options.base, heldout), 4)})
            record(task=name, model="base", **base)
        for seed in map(int, options.seeds.split(",")):
            job, seconds, speed = tune(client, task, description, int(epochs or EPOCHS[name]), seed, options)
            model = job.fine_tuned_model
            entry = {"score": scorer.score(model, task)}
            if is_dpo:
                gains = [tuned - base for tuned, base in zip(scorer.margins(model, heldout), base_margins)]
                entry["preference"] = round(sum(gain > 0 for gain in gains) / len(gains), 4)
            else:
                entry["loss"] = round(scorer.loss(model, heldout), 4)
            record(task=name, model="tuned", seed=seed, seconds=round(seconds, 1), tokens=job.trained_tokens, tokens_per_second=speed,
                   peak_mb=peak_megabytes(options.pid) if options.pid else None, **entry)


if __name__ == "__main__":
    main()
