#!/usr/bin/env python3
"""What TLS costs streams: the same closed loop of clients on two servers, one plain and one with TLS 1.3, round after round in turns.

Both servers hold the same model, and only one of them works at a time; whoever is first in a round is second in the next. The client of `load.py` shares
the machine and decrypts what the server encrypts, so the figure is the cost of both ends. Prompts differ from round to round and are the same on both.

usage: tls_load.py --model FILE.gguf|NAME [--graft .build/release/graft] [--rounds 5] [--clients 16] [--requests 4] [--max-tokens 64] [--out FILE.json]
Needs `openssl` for the certificate. JSON with --out, a table to standard output. Python 3.11, standard library only.
"""

import argparse
import asyncio
import json
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

import load
from peers import Failed, machine, server, summary

ASKED = 0.95


def certificate(folder):
    """A certificate of this machine that vouches for itself, and its key."""
    files = folder / "server.pem", folder / "server-key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    return files


def measure(options, url, turn, ca=""):
    asked = load.parser().parse_args(["--url", url, "--requests", str(options.requests), "--max-tokens", str(options.max_tokens), "--seed", str(turn), "--ca", ca])
    row = asyncio.run(load.measure(asked, options.clients))
    if row["errors"]:
        raise Failed(f"{url}: {row['errors']} failed requests {row['error_kinds']}")
    return row


def rounds(options):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        public, private = certificate(folder)
        command = [options.graft, "serve", "--model", options.model]
        trust = ssl.create_default_context(cafile=public)
        with (server(command, "/readyz", folder / "plain.log") as plain,
              server([*command, "--tls-certificate", public, "--tls-private-key", private], "/readyz", folder / "tls.log", trust) as secure):
            for turn in range(options.rounds):
                order = [("plain", plain, ""), ("TLS", secure, str(public))]
                found = {kind: measure(options, url, turn, ca) for kind, url, ca in (order if turn % 2 == 0 else reversed(order))}
                print(f"round {turn + 1}/{options.rounds}  " + "  ".join(f"{kind} {row['completion_tokens_per_second']} tokens/s" for kind, row in sorted(found.items())),
                      file=sys.stderr, flush=True)
                yield found


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--model", required=True)
    p.add_argument("--graft", default=".build/release/graft")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--clients", type=int, default=16)
    p.add_argument("--requests", type=int, default=4, help="counted requests of each client in a round")
    p.add_argument("--max-tokens", type=int, default=64)
    p.add_argument("--out", type=Path)
    options = p.parse_args()
    try:
        found = list(rounds(options))
    except (Failed, OSError, subprocess.CalledProcessError) as failure:
        print(f"tls_load.py: {failure}", file=sys.stderr)
        return 1
    keys = {"completion_tokens_per_second": "tokens/s", "ttft_p95": "first token p95, s", "itl_p95": "gap p95, s", "client_cpu": "client CPU, s"}
    medians = {kind: {key: summary([r[kind][key] for r in found]) for key in keys} for kind in ("plain", "TLS")}
    kept = summary([r["TLS"]["completion_tokens_per_second"] / r["plain"]["completion_tokens_per_second"] for r in found])
    for key, label in keys.items():
        print(f"{label:20}" + "".join(f"  {kind} {s['median']:g} ({s['low']:g}–{s['high']:g})" for kind, s in ((kind, medians[kind][key]) for kind in medians)))
    print(f"TLS keeps {kept['median']:.1%} ({kept['low']:.1%}–{kept['high']:.1%}) of the tokens/s; asked: {ASKED:.0%}")
    if options.out:
        document = {"machine": machine(), "clients": options.clients, "requests": options.requests, "medians": medians, "kept": kept, "rounds": found}
        options.out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
