#!/usr/bin/env python3
"""What speculative decoding by prompt lookup gains: the same requests to two servers, with drafts and without, in turns.

Three kinds of work for one client: `copy` repeats a text, `edit` renames a variable in code, both greedy, and `story` (temperature 0.8) finds nothing to
look up. Every answer must be the same on both servers. Only one server works at a time; whoever is first in a round is second in the next, and the
first round, which warms up, is not counted.

usage: drafts.py --model FILE.gguf|NAME [--graft .build/release/graft] [--rounds 8] [--max-tokens 160]
A table to standard output: tokens per second of the whole request, medians. Python 3.11, standard library only.
"""

import argparse
import json
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from peers import ENVIRONMENT, Failed, server, summary

PASSAGE = (
    "The harbour lies on the eastern shore of the lake. In 1856 a lion was carved from stone and set beside a lighthouse at the entrance. Ships from three "
    "countries call here every day, and in summer more than four thousand people walk along the quay. The old customs house, built in 1811, now holds a "
    "library with 23,000 books, most of them about the lake, its fish and its storms."
)
CODE = "\n".join(f"def add_{k}(total, item):\n    total = total + item.price * {k}\n    return total\n" for k in range(6))
HEROES, PLACES = ["dog", "king", "robot", "river"], ["cat", "tower", "garden", "storm"]


def request(kind, turn, options):
    prompt = {
        "copy": f"Repeat this text word for word:\n\n{PASSAGE}",
        "edit": f"Rename the variable `total` to `amount` in this code and print the whole code:\n\n{CODE}",
        "story": f"Tell a short story about a {HEROES[turn % 4]} and a {PLACES[turn // 4 % 4]}.",
    }[kind]
    return {"messages": [{"role": "user", "content": prompt}], "max_tokens": options.max_tokens, "temperature": 0.8 if kind == "story" else 0, "seed": turn}


def ask(url, body):
    """(tokens per second, text) of an answer."""
    began = time.perf_counter()
    call = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(call, timeout=300) as answer:
        found = json.load(answer)
    return found["usage"]["completion_tokens"] / (time.perf_counter() - began), found["choices"][0]["message"]["content"]


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--model", required=True)
    p.add_argument("--graft", default=".build/release/graft")
    p.add_argument("--rounds", type=int, default=8)
    p.add_argument("--max-tokens", type=int, default=160)
    options = p.parse_args()
    command = [options.graft, "serve", "--model", options.model]
    try:
        with tempfile.TemporaryDirectory() as folder:
            # Children get their settings from the environment that `peers` hands on.
            ENVIRONMENT["GRAFT_ENGINE_DRAFT_ROWS"] = "0"
            with server(command, "/readyz", Path(folder) / "plain.log") as plain:
                del ENVIRONMENT["GRAFT_ENGINE_DRAFT_ROWS"]
                with server(command, "/readyz", Path(folder) / "drafts.log") as drafting:
                    for kind in ("copy", "edit", "story"):
                        rates = {"plain": [], "drafts": []}
                        for turn in range(options.rounds):
                            order = [("plain", plain), ("drafts", drafting)]
                            texts = set()
                            for name, url in order if turn % 2 == 0 else reversed(order):
                                rate, text = ask(url, request(kind, turn, options))
                                rates[name].append(rate)
                                texts.add(text)
                            if len(texts) != 1:
                                raise Failed(f"{kind}, turn {turn}: the answers differ")
                        counted = {name: values[1:] for name, values in rates.items()}
                        gain = summary([after / before for before, after in zip(counted["plain"], counted["drafts"])])
                        show = "  ".join(f"{name} {summary(values)['median']:.1f} tokens/s" for name, values in counted.items())
                        print(f"{kind:6} {show}  {gain['median']:.2f} × ({gain['low']:.2f}–{gain['high']:.2f})", flush=True)
    except (Failed, OSError) as failure:
        print(f"drafts.py: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
