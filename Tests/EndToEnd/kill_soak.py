"""The server is killed with SIGKILL again and again while it tunes adapters, takes uploads and publishes, and loses nothing that it has acknowledged.

usage: kill_soak.py [--kills 20] [--jobs 4] [--epochs 5] [--seed N] [--ready-seconds 30] [--limit-seconds 1800]

Starts the server of GRAFT_BINARY (.build/release/graft) itself, with directories of its own. First the jobs run undisturbed, which gives the expected
adapters and the pace of every step; then the same jobs run in a new data directory, and the process dies at moments drawn over that pace. Some of the
kills wait for something that is short: the making of a job, an upload, a publication, a checkpoint, the end of a job, the start after the last kill.
After each kill the database must be sound; after each restart everything acknowledged must be there, byte for byte, and every listed adapter must be
what its digest says. At the end each job must have come to the bytes of the undisturbed one. The jobs begin anew as long as kills are left.

Prints one line for each kill to stderr and one JSON line with the counts; needs SmolLM2-135M-Instruct in Models/."""
import argparse
import atexit
import bisect
import contextlib
import csv
import hashlib
import io
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from urllib.parse import quote

import httpx

from adapter_files import PROJECTIONS, make_adapter, multipart, upload_form

ROOT = pathlib.Path(__file__).resolve().parents[2]
SNAPSHOT_STEPS = 3
WORDS = ["amber", "birch", "cedar", "delta", "ember", "flint", "grove", "heath", "inlet", "juniper", "kelp", "larch"]
FINAL = ("succeeded", "failed", "cancelled")
# The step of a job that does not run yet, and the one of a job that has ended.
MADE, ENDED = -1, 1 << 30
# What kills wait for, in turn; the first ones make the short form.
KINDS = ["moment", "end", "upload", "checkpoint", "moment", "publish", "create", "moment", "start", "moment"]
UPLOAD_BYTES, UPLOAD_PAUSE = 3 << 20, 0.006
NAMES, KEPT_VERSIONS, KEPT_FILES = ["north", "south", "east"], 2, 5


class Failure(Exception):
    """What the test is there to find."""


class Killed(Exception):
    """The server is gone because this test killed it."""


# MARK: What jobs are made of

def said(role, content):
    return {"role": role, "content": content}


# Short, because a step costs a little more than its tokens, and many steps make many moments.
CODES = [{"messages": [said("system", "Codes."), said("user", f"{word}?"), said("assistant", f"CODE-{word.upper()}")]} for word in WORDS]
GREETINGS = [
    {"input": {"messages": [said("system", "Greetings."), said("user", f"Greet {word}.")]},
     "preferred_output": [said("assistant", f"Good day, {word}!")], "non_preferred_output": [said("assistant", f"go away {word}")]}
    for word in WORDS[:6]
]
FILES = {name: "".join(json.dumps(row) + "\n" for row in rows).encode() for name, rows in (("codes.jsonl", CODES), ("greetings.jsonl", GREETINGS))}


def job_name(which):
    return ("split", "noisy", "pairs", "more")[which % 4] + (f"-{which // 4 + 1}" if which >= 4 else "")


def job_body(which, number, epochs, files, models):
    """The request for one of the jobs: the same, whatever ids its files have. Numbers go on from round to round; `models`: of the jobs before."""
    def method(kind, **hyperparameters):
        return {"method": {"type": kind, kind: {"hyperparameters": {"n_epochs": epochs, "batch_size": 2, **hyperparameters}}}}

    body = {"model": "default", "training_file": files["codes.jsonl"], "suffix": job_name(which), "seed": 7 + which}
    body["metadata"] = {"soak": str(number)}
    match which % 4:
        case 0: body |= method("supervised") | {"lora": {"rank": 4, "validation_split": 0.25}}
        case 1: body |= method("supervised") | {"lora": {"rank": 4, "validation_split": 0, "dropout": 0.1, "neftune_alpha": 5}}
        case 2: body |= method("dpo", beta=0.1) | {"lora": {"rank": 4, "validation_split": 0}, "training_file": files["greetings.jsonl"]}
        case 3: body |= method("supervised") | {"model": models[number - 3]}
    return body


def content_digest(archive):
    """The digest of what an exported archive computes, as Sources/Adapters/Files/AdapterContent+Digest.swift defines it; for float32 and one rank."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {pathlib.PurePosixPath(member.name).name: tar.extractfile(member).read() for member in tar if member.isfile()}
    return files_digest(files["adapter_config.json"], files["adapter_model.safetensors"])


def files_digest(config, weights):
    config = json.loads(config)
    length = struct.unpack_from("<Q", weights)[0]
    header = json.loads(weights[8:8 + length])
    scale = struct.unpack("<I", struct.pack("<f", config["lora_alpha"] / config["r"]))[0]

    def tensor(name):
        assert header[name]["dtype"] == "F32" and not config.get("rank_pattern") and not config.get("alpha_pattern"), name
        begin, end = header[name]["data_offsets"]
        return weights[8 + length + begin:8 + length + end]

    digest = hashlib.sha256(b"graft adapter content 1\n")
    layers = 1 + max(int(name.split(".layers.")[1].split(".")[0]) for name in header if ".layers." in name)
    for layer in range(layers):
        for number, (name, (module, _, _)) in enumerate(PROJECTIONS.items()):
            path = f"base_model.model.model.layers.{layer}.{module}.{name}"
            if f"{path}.lora_A.weight" not in header:
                continue
            a, b = tensor(f"{path}.lora_A.weight"), tensor(f"{path}.lora_B.weight")
            if name in ("q_proj", "k_proj"):
                # Digests are over GGUF's order of rows, in which the two halves of a head alternate.
                width = 4 * config["r"]
                rows = [b[at:at + width] for at in range(0, len(b), width)]
                b = b"".join(rows[head + 32 * half + j] for head in range(0, len(rows), 64) for j in range(32) for half in (0, 1))
            digest.update(struct.pack("<6I", layer, number, config["r"], scale, len(a) // 4, len(b) // 4) + a + b)
    return "sha256:" + digest.hexdigest()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


# MARK: The server

class Server:
    """One data directory and the process that has it, which may be killed at any time."""

    def __init__(self, scratch, name, ready_seconds):
        self.directory, self.ready_seconds = scratch / name, ready_seconds
        self.directory.mkdir()
        self.data = self.directory / "Data"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("GRAFT_")} | {
            "GRAFT_DATA_DIRECTORY": str(self.data), "GRAFT_ADAPTERS_DIRECTORY": str(self.directory / "Adapters"),
            "GRAFT_TUNING_SNAPSHOT_STEPS": str(SNAPSHOT_STEPS), "GRAFT_TUNING_SNAPSHOT_SECONDS": "1",
        }
        # A copy, so that all starts are of one build even when another is made meanwhile.
        self.binary = scratch / "graft"
        if not self.binary.exists():
            shutil.copy(ROOT / os.environ.get("GRAFT_BINARY", ".build/release/graft"), self.binary)
        self.process = self.http = self.timer = None
        self.starts, self.slowest = 0, 0.0
        self.lock, self.is_doomed = threading.Lock(), False
        # What goes on at this moment, and what did when the process was killed.
        self.doing, self.killed_while = Counter(), Counter()
        atexit.register(self.put_away)

    @property
    def log(self):
        return self.directory / f"log-{self.starts}"

    def start(self, kill_after=None):
        """Starts the process and waits until it is ready. `kill_after`: seconds after which it is killed, be it ready or not."""
        self.starts += 1
        self.is_doomed = False
        self.doing.clear()
        began = time.monotonic()
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([self.binary, "serve", "--port", "0"], cwd=ROOT, env=self.environment, stdout=log, stderr=log)
        with self.during("start"):
            if kill_after is not None:
                self.kill_after(kill_after)
            while not (address := re.search(r"\baddress=(\S+)", self.log.read_text(errors="replace"))):
                if self.process.poll() is not None:
                    raise self.gone("while it started")
                if time.monotonic() - began > self.ready_seconds:
                    raise Failure(f"the server is not ready after {self.ready_seconds} s")
                time.sleep(0.01)
            if self.http:
                self.http.close()
            self.http = httpx.Client(base_url=address[1], timeout=60)
            self.call("GET", "/readyz")
            seconds = time.monotonic() - began
            self.slowest = max(self.slowest, seconds)
            if seconds > self.ready_seconds:
                raise Failure(f"the server was ready after {seconds:.1f} s, expected {self.ready_seconds} s")
        return seconds

    def kill_after(self, seconds):
        self.timer = threading.Timer(seconds, self.kill)
        self.timer.daemon = True
        self.timer.start()

    def kill(self):
        with self.lock:
            self.killed_while = Counter(self.doing)
            self.is_doomed = True
        self.process.kill()

    @property
    def is_armed(self):
        return self.timer is not None

    def buried(self):
        """Waits for the end of a killed process."""
        self.timer.join()
        self.timer = None
        if (code := self.process.wait(30)) != -signal.SIGKILL:
            raise Failure(f"the server ended by itself with {code}, just before it was to be killed")

    def stop(self):
        self.process.terminate()
        code = self.process.wait(60)
        if code != 0:
            raise Failure(f"the server ended with {code} after SIGTERM")

    def put_away(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def gone(self, when):
        """Why the server does not answer any more."""
        for _ in range(100):
            if self.is_doomed:
                return Killed()
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        if self.is_doomed:
            return Killed()
        code = self.process.poll()
        return Failure(f"{when}: the server {'does not answer' if code is None else f'ended by itself with {code}'}")

    @contextlib.contextmanager
    def during(self, what):
        with self.lock:
            self.doing[what] += 1
        try:
            yield
        finally:
            with self.lock:
                self.doing[what] -= 1

    def send(self, method, path, **options):
        try:
            return self.http.request(method, path, **options)
        except httpx.TransportError as error:
            raise self.gone(f"{method} {path}: {error!r}") from error

    def call(self, method, path, **options):
        """The JSON of an answer that must be a success."""
        response = self.send(method, path, **options)
        if response.status_code != 200:
            raise Failure(f"{method} {path}: {response.status_code}: {response.text[:500]}")
        return response.json() if "json" in response.headers.get("content-type", "") else response.content

    # MARK: Requests

    def chat(self):
        body = {"model": "default", "messages": [{"role": "user", "content": "Name a colour."}], "max_tokens": 8, "temperature": 0}
        return self.call("POST", "/v1/chat/completions", json=body)["choices"][0]["message"]["content"]

    def upload(self, name, content, purpose, pause=0.0):
        """Sends a file in pieces with a pause after each."""
        kind, body = multipart([("purpose", purpose.encode()), ("file", (name, content))])

        def pieces():
            for at in range(0, len(body), 1 << 16):
                yield body[at:at + (1 << 16)]
                time.sleep(pause)

        with self.during("upload"):
            return self.call("POST", "/v1/files", content=pieces(), headers={"content-type": kind, "content-length": str(len(body))})

    def publish(self, name, adapter):
        kind, body = upload_form(name, adapter)
        with self.during("publish"):
            return self.call("POST", "/v1/adapters", content=body, headers={"content-type": kind})

    def model_digest(self, job):
        return self.call("GET", f"/v1/models/{quote(job['fine_tuned_model'], safe='')}")["digest"]

    def events(self, job):
        events, after = [], None
        while True:
            page = self.call("GET", f"/v1/fine_tuning/jobs/{job}/events", params={"limit": 1000} | ({"after": after} if after else {}))
            events += page["data"]
            if not page["has_more"]:
                return events[::-1]
            after = events[-1]["id"]

    def outcome(self, job):
        """What of a job must not depend on how often it was interrupted."""
        checkpoints = self.call("GET", f"/v1/fine_tuning/jobs/{job['id']}/checkpoints", params={"limit": 1000})["data"]
        steps = [event["data"]["step"] for event in self.events(job["id"]) if event["type"] == "metrics" and "train_loss" in event["data"]]
        return {
            "digest": self.model_digest(job), "trained_tokens": job["trained_tokens"], "steps": steps,
            "checkpoints": [(c["step_number"], c["metrics"], c["graft"]["kept"], c["graft"]["best"]) for c in checkpoints],
            "table": self.call("GET", f"/v1/files/{job['result_files'][0]}/content").decode(),
        }

    # MARK: The database of a process that is dead

    def examine(self):
        """Checks the database and gives the rows of the jobs that have not ended. On a copy, because looking repairs what the server is to find."""
        copy = self.directory / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for file in ("graft.sqlite", "graft.sqlite-wal"):
            if (self.data / file).exists():
                shutil.copy(self.data / file, copy)
        if not (copy / "graft.sqlite").exists():
            return []
        with contextlib.closing(sqlite3.connect(f"file:{copy / 'graft.sqlite'}?mode=ro", uri=True)) as database:
            for pragma, expected in (("integrity_check", [("ok",)]), ("foreign_key_check", [])):
                if (found := database.execute(f"PRAGMA {pragma}").fetchall()) != expected:
                    raise Failure(f"PRAGMA {pragma} after a kill: {found[:5]}")
            database.row_factory = sqlite3.Row
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'fine_tuning_jobs'").fetchone():
                return []
            return [dict(row) for row in database.execute(
                "SELECT id, json_extract(metadata, '$.soak') AS soak, status, step, step_count, starts_without_snapshot, result_file,"
                " EXISTS (SELECT 1 FROM fine_tuning_checkpoints c WHERE c.job = j.number AND c.step = j.step) AS is_looked_at"
                " FROM fine_tuning_jobs j WHERE finished_at IS NULL ORDER BY number")]


# MARK: The undisturbed run

@dataclass
class Pace:
    """How a job went that nothing disturbed."""
    # Seconds from its request on at which a step was first seen, ascending: MADE, 0, 1, …
    marks: list
    seconds: float
    create_seconds: float
    outcome: dict

    def position(self, seconds):
        """(step, seconds since then) after so many seconds."""
        at = bisect.bisect_right([time for time, _ in self.marks], seconds) - 1
        return self.marks[at][1], seconds - self.marks[at][0]

    def length(self, step):
        """How long a step was the last one."""
        times = [time for time, at in self.marks if at == step]
        if not times:
            return self.seconds / len(self.marks)
        return next((time for time, at in self.marks if at > step), self.seconds) - times[0]


def position_of(job):
    """The step that a job shows."""
    if job["status"] in FINAL:
        return ENDED
    return job["graft"]["progress"]["step"] if job["status"] == "running" else MADE


@dataclass
class Reference:
    chat: str
    paces: list
    upload_seconds: float
    publish_seconds: float
    ready_seconds: float


def undisturbed(server, jobs, epochs, contents, adapters):
    ready = server.start()
    chat = server.chat()

    def timed(work):
        began = time.monotonic()
        work()
        return time.monotonic() - began

    publish_seconds = timed(lambda: server.publish("sample", adapters[0]))
    upload_seconds = timed(lambda: server.upload("sample.bin", contents[0], "user_data", UPLOAD_PAUSE))
    files = {name: server.upload(name, content, "fine-tune")["id"] for name, content in FILES.items()}
    paces, models = [], []
    for number in range(jobs):
        began = time.monotonic()
        job = server.call("POST", "/v1/fine_tuning/jobs", json=job_body(number, number, epochs, files, models))
        create_seconds, marks = time.monotonic() - began, [(0.0, MADE)]
        while (step := position_of(job)) != ENDED:
            if step > marks[-1][1]:
                marks.append((time.monotonic() - began, step))
            time.sleep(0.01)
            job = server.call("GET", f"/v1/fine_tuning/jobs/{job['id']}")
        if job["status"] != "succeeded":
            raise Failure(f"undisturbed, the job {job_name(number)} {job['status']}: {job['error']}")
        models.append(job["fine_tuned_model"])
        paces.append(Pace(marks, time.monotonic() - began, create_seconds, server.outcome(job)))
    server.stop()
    return Reference(chat, paces, upload_seconds, publish_seconds, ready)


# MARK: When to kill

@dataclass
class Kill:
    """The process dies `delay` seconds after the jobs have come to a place, and after what `kind` names has begun."""
    place: tuple
    kind: str
    delay: float


class Plan:
    """The kills that are still to come, in the order of their places."""

    def __init__(self, count, reference, random):
        self.reference, self.random = reference, random
        # One kill in each of as many equal parts of the time: chance alone would leave half of it untouched.
        self.part = sum(pace.seconds for pace in reference.paces) / max(1, count)
        self.draw([KINDS[i % len(KINDS)] for i in range(count)], 0)

    def draw(self, kinds, first):
        """Spreads kills over one round of the jobs, whose numbers begin with `first`."""
        self.first = first
        paces = list(enumerate(self.reference.paces, first))
        ends = [(number, pace.outcome["steps"][-1]) for number, pace in paces]
        self.places = {
            "create": [(number, MADE) for number, _ in paces], "end": ends,
            "checkpoint": sorted({(number, c[0]) for number, pace in paces for c in pace.outcome["checkpoints"]} - set(ends)),
        }
        moments = [self.part * (i + self.random.random()) for i in range(len(kinds))]
        self.random.shuffle(moments)
        self.kills = [self.drawn(kind, seconds, paces) for kind, seconds in zip(kinds, moments)]
        self.sort()

    def drawn(self, kind, seconds, paces):
        for number, pace in paces:
            if seconds < pace.seconds:
                break
            seconds -= pace.seconds
        step, rest = pace.position(min(seconds, pace.seconds))
        if places := self.places.get(kind):
            return self.at(kind, next((place for place in places if place >= (number, step)), places[-1]))
        return Kill((number, step), kind, self.delay(kind, None) or rest)

    def sort(self):
        self.kills.sort(key=lambda kill: kill.place)

    def at(self, kind, place):
        return Kill(place, kind, self.delay(kind, place))

    def delay(self, kind, place):
        """When to strike in what a kill has waited for."""
        pace = place and self.reference.paces[place[0] - self.first]
        match kind:
            case "upload": longest = self.reference.upload_seconds
            case "publish": longest = self.reference.publish_seconds
            case "start": longest = 1.5 * self.reference.ready_seconds
            case "create": longest = pace.create_seconds + pace.length(MADE)
            case "checkpoint": longest = pace.length(place[1])
            # What is published last comes last, and everything is slower than it was undisturbed.
            case "end": longest = 1.3 * pace.length(place[1])
            case _: return 0.0
        return self.random.random() * longest

    def next(self, place):
        """The kill that is due at a place of the jobs. One that waits for what is over waits for the next such thing; `start` has its own time."""
        for kill in self.kills:
            if kill.place == place and kill.kind in self.places:
                return kill
        kill = next((kill for kill in self.kills if kill.kind != "start"), None)
        if not kill or kill.place > place:
            return None
        if kill.kind in self.places:
            later = next((other for other in self.places[kill.kind] if other > place), None)
            self.kills[self.kills.index(kill)] = self.at(kill.kind, later) if later else Kill(place, "moment", 0.0)
            self.sort()
            return self.next(place)
        return kill

    def next_start(self, place):
        """The kill that is due while the process starts."""
        are_last = all(kill.kind == "start" for kill in self.kills)
        return next((kill for kill in self.kills if kill.kind == "start" and (are_last or kill.place <= place)), None)


# MARK: What was acknowledged

class Ledger:
    """What the server has acknowledged. Several threads write; what is not acknowledged yet may have happened or not."""

    def __init__(self):
        self.lock = threading.Lock()
        self.files, self.jobs, self.versions = {}, {}, {}
        self.gone, self.unsure = set(), set()
        # Whatever was sent, acknowledged or not: more than this can be in no list.
        self.sent_files, self.sent_versions = set(), set()

    def deleting(self, kind, key):
        with self.lock:
            self.unsure.add((kind, key))

    def deleted(self, kind, key):
        with self.lock:
            self.gone.add((kind, key))
            (self.files if kind == "file" else self.versions).pop(key, None)


class Noise:
    """Uploads and publications without a pause, each in a thread, as long as the server lives."""

    def __init__(self, server, ledger, contents, adapters, seed):
        self.server, self.ledger, self.contents = server, ledger, contents
        self.adapters = [(adapter, files_digest(*adapter)) for adapter in adapters]
        self.random = random.Random(seed)
        self.failures, self.running = [], True
        self.threads = [threading.Thread(target=self.run, args=(work,), daemon=True) for work in (self.upload, self.publish)]
        for thread in self.threads:
            thread.start()

    def run(self, work):
        try:
            while self.running:
                work()
                time.sleep(0.05)
        except Killed:
            pass
        except Exception as error:  # noqa: BLE001 the main thread tells of it
            self.failures.append(error)

    def upload(self):
        content = self.random.choice(self.contents)
        # Equal contents are kept once, which would make most uploads alike.
        content += self.random.randbytes(8)
        digest = sha256(content)
        with self.ledger.lock:
            self.ledger.sent_files.add(digest)
        file = self.server.upload("noise.bin", content, "user_data", UPLOAD_PAUSE)
        with self.ledger.lock:
            self.ledger.files[file["id"]] = digest
            noise = [key for key, value in self.ledger.files.items() if value in self.ledger.sent_files]
        for key in noise[:-KEPT_FILES]:
            self.ledger.deleting("file", key)
            self.server.call("DELETE", f"/v1/files/{key}")
            self.ledger.deleted("file", key)

    def publish(self):
        name, (adapter, digest) = self.random.choice(NAMES), self.random.choice(self.adapters)
        version = self.server.publish(name, adapter)
        if version["digest"] != digest:
            raise Failure(f"{name}@{version['version']} was published as {version['digest']}, expected {digest}")
        with self.ledger.lock:
            self.ledger.versions[f"{name}@{version['version']}"] = version["digest"]
            own = sorted((int(key.split("@")[1]), key) for key in self.ledger.versions if key.split("@")[0] == name)
        for _, key in own[:-KEPT_VERSIONS]:
            self.ledger.deleting("version", key)
            self.server.call("DELETE", f"/v1/adapters/{quote(key, safe='')}")
            self.ledger.deleted("version", key)

    def stop(self):
        self.running = False
        for thread in self.threads:
            thread.join(150)
        self.check()

    def check(self):
        if self.failures:
            raise self.failures[0]


class Soak:
    """The same jobs, with kills."""

    def __init__(self, server, reference, epochs, plan, contents, adapters, seed):
        self.server, self.reference, self.epochs, self.plan = server, reference, epochs, plan
        self.jobs = len(reference.paces)
        self.contents, self.adapters, self.seed = contents, adapters, seed
        self.ledger = Ledger()
        self.ledger.sent_versions = {files_digest(*adapter) for adapter in adapters}
        self.uploaded, self.made = {}, {}
        self.checked, self.lives_checked = Counter(), 0
        self.kills, self.stages, self.steps, self.at_work = 0, Counter(), [], Counter()
        # Jobs that the next death would end, and the step at which they have a new snapshot for certain.
        self.guarded = {}
        self.place = (0, MADE)
        self.noise = None

    def name(self, number):
        return job_name(number % self.jobs) + (f" of round {number // self.jobs + 1}" if number >= self.jobs else "")

    def expected(self, number):
        return self.reference.paces[number % self.jobs].outcome

    def run(self):
        while True:
            try:
                self.live()
                return
            except Killed:
                self.bury()

    def live(self):
        """One life of the process, to the end of all jobs and kills or to its death."""
        early = self.plan.next_start(self.place) if self.kills and not self.guarded else None
        if early:
            self.take(early)
        self.server.start(early.delay if early else None)
        with self.server.during("check"):
            self.check()
        self.lives_checked += 1
        self.noise = Noise(self.server, self.ledger, self.contents, self.adapters, self.seed + self.server.starts)
        for name, content in FILES.items():
            if name not in self.uploaded:
                file = self.server.upload(name, content, "fine-tune")
                with self.ledger.lock:
                    self.ledger.files[file["id"]] = sha256(content)
                self.uploaded[name] = file["id"]
        for number in itertools.count():
            if number not in self.made:
                if number >= self.jobs:
                    self.await_death()
                    if not self.plan.kills:
                        break
                # Kills that found no place in one round of the jobs fall into another.
                if number == self.plan.first + self.jobs:
                    self.plan.draw([kill.kind for kill in self.plan.kills], number)
            self.see_through(number)
        self.noise.stop()
        self.check()
        self.compare()
        self.server.stop()
        self.server.examine()
        if left := [path.name for folder in ("jobs", "files/incoming") for path in (self.server.data / folder).iterdir()]:
            raise Failure(f"left over in the data directory: {left}")

    def await_death(self):
        while self.server.is_armed:
            self.server.call("GET", "/readyz")
            time.sleep(0.01)

    def see_through(self, number):
        """Makes a job if there is none yet, and follows it to its end."""
        job = self.server.call("GET", f"/v1/fine_tuning/jobs/{self.made[number]['id']}") if number in self.made else self.make(number)
        while (step := position_of(job)) != ENDED:
            self.strike((number, step), job)
            time.sleep(0.01)
            job = self.server.call("GET", f"/v1/fine_tuning/jobs/{job['id']}")
        self.guarded.pop(job["id"], None)
        if job["status"] != "succeeded":
            raise Failure(f"the job {self.name(number)} {job['status']}: {job['error']}")
        # What the server has told must stay true.
        self.made[number] = job
        with self.ledger.lock:
            self.ledger.jobs[job["id"]] = job

    def make(self, number):
        """Makes a job, or finds the one that was made when the process died before it could say so."""
        found = self.server.call("GET", "/v1/fine_tuning/jobs", params={"metadata[soak]": str(number)})["data"]
        if len(found) > 1:
            raise Failure(f"{len(found)} jobs were made by one request")
        if found:
            job = found[0]
        else:
            kill = self.plan.next((number, MADE))
            if kill and kill.kind == "create" and not self.guarded and not self.server.is_armed:
                self.arm(kill)
            body = job_body(number % self.jobs, number, self.epochs, self.uploaded, [self.made[n]["fine_tuned_model"] for n in range(number)])
            with self.server.during("create"):
                job = self.server.call("POST", "/v1/fine_tuning/jobs", json=body)
        self.made[number] = job
        with self.ledger.lock:
            self.ledger.jobs[job["id"]] = job
        return job

    def strike(self, place, job):
        """Arms the next kill when its time has come."""
        self.noise.check()
        self.place = place
        if job["id"] in self.guarded and place[1] >= self.guarded[job["id"]]:
            del self.guarded[job["id"]]
        if self.guarded or self.server.is_armed:
            return
        kill = self.plan.next(place)
        if kill and (kill.kind not in ("upload", "publish") or self.server.doing[kill.kind]):
            self.arm(kill)

    def arm(self, kill):
        self.take(kill)
        self.server.kill_after(kill.delay)

    def take(self, kill):
        """Out of the plan, which moves and draws anew only kills that nothing waits for yet."""
        self.plan.kills.remove(kill)
        self.current = kill

    def bury(self):
        """After a death: the database must be sound, and says what the process was at."""
        self.server.buried()
        self.kills += 1
        if self.noise:
            self.noise.stop()
            self.noise = None
        jobs = self.server.examine()
        at_work = sorted(what for what, count in self.server.killed_while.items() if count > 0)
        self.at_work.update(at_work)
        stage, detail = self.stage(jobs)
        self.stages[stage] += 1
        print(f"kill {self.kills} ({self.current.kind}): {detail}; in flight: {', '.join(at_work) or 'nothing'}", file=sys.stderr, flush=True)
        # The third start without a new snapshot is the last one that may die.
        self.guarded = {job["id"]: job["step"] + SNAPSHOT_STEPS + 1 for job in jobs if job["starts_without_snapshot"] >= 2}

    def stage(self, jobs):
        """(word, details) for what the rows of unfinished jobs say."""
        if not jobs:
            return "no_job", "no job is unfinished"
        job = jobs[0]
        name, outcome = self.name(int(job["soak"])), self.expected(int(job["soak"]))
        if job["status"] != "running":
            return job["status"], f"{name} {job['status']}"
        where = f"{name} step {job['step']}/{job['step_count']}"
        self.steps.append(f"{name} {job['step']}/{job['step_count']}")
        if job["step"] in [c[0] for c in outcome["checkpoints"]] and not job["is_looked_at"]:
            return "checkpoint", where + ", checkpoint due"
        if job["step"] != outcome["steps"][-1]:
            return "running", where
        return "publishing", where + (", table stored" if job["result_file"] else ", publishing")

    # MARK: Checks

    def expect(self, condition, what):
        if not condition:
            raise Failure(what)

    def check(self):
        """Everything acknowledged is there as it was, and nothing is listed that is not whole."""
        answer = self.server.chat()
        self.expect(answer == self.reference.chat, f"the chat's answer is {answer!r}, expected {self.reference.chat!r}")
        self.check_jobs()
        self.check_files()
        self.check_versions()

    def check_jobs(self):
        self.checked["jobs"] += len(self.ledger.jobs)
        listed = {job["id"]: job for job in self.server.call("GET", "/v1/fine_tuning/jobs", params={"limit": 1000})["data"]}
        for key, known in self.ledger.jobs.items():
            self.expect(key in listed, f"the job {key} is not listed any more")
            job = self.server.call("GET", f"/v1/fine_tuning/jobs/{key}")
            kept = known.keys() if known["status"] in FINAL else ("created_at", "model", "training_file", "seed", "user_provided_suffix", "metadata")
            for member in kept:
                self.expect(job[member] == known[member], f"the job {key} has {member} {job[member]!r}, acknowledged was {known[member]!r}")
            self.expect(job["status"] not in ("failed", "cancelled"), f"the job {key} {job['status']}: {job['error']}")
            if known["status"] in FINAL:
                expected = self.expected(int(known["metadata"]["soak"]))["digest"]
                found = self.server.model_digest(known)
                self.expect(found == expected, f"the model of {known['user_provided_suffix']} has the digest {found}, undisturbed it was {expected}")
        numbers = Counter(job["metadata"]["soak"] for job in listed.values())
        self.expect(all(count == 1 for count in numbers.values()), f"jobs by number: {dict(numbers)}")

    def settle(self, kind, known, listed):
        """What was acknowledged is listed, unless its deletion was under way; that is known now."""
        for key in list(known):
            if key not in listed:
                self.expect((kind, key) in self.ledger.unsure, f"the {kind} {key} was acknowledged and is not listed any more")
                self.ledger.deleted(kind, key)
        self.ledger.unsure = {(other, key) for other, key in self.ledger.unsure if other != kind}
        self.checked[kind + "s"] += len(known)

    def check_files(self):
        listed = {file["id"]: file for file in self.server.call("GET", "/v1/files")["data"]}
        self.settle("file", self.ledger.files, listed)
        for key, file in listed.items():
            self.expect(("file", key) not in self.ledger.gone, f"the file {key} was deleted and is back")
            content = self.server.call("GET", f"/v1/files/{key}/content")
            digest = sha256(content if isinstance(content, bytes) else b"")
            self.expect(len(content) == file["bytes"], f"the file {key} has {len(content)} bytes, listed are {file['bytes']}")
            if key in self.ledger.files:
                self.expect(digest == self.ledger.files[key], f"the file {key} has changed")
                continue
            # What nobody was told of is kept from now on, if it is whole.
            own = self.ledger.sent_files if file["purpose"] == "user_data" else {sha256(content) for content in FILES.values()}
            self.expect(file["purpose"] == "fine-tune-results" or digest in own, f"the file {key} was never sent so")
            self.ledger.files[key] = digest

    def check_versions(self):
        listed = {}
        for adapter in self.server.call("GET", "/v1/adapters")["data"]:
            versions = {version["version"]: version for version in adapter["versions"]}
            self.expect(adapter["promoted"] == max(versions), f"{adapter['name']}: version {adapter['promoted']} of {list(versions)} is promoted")
            listed |= {f"{adapter['name']}@{number}": version for number, version in versions.items()}
        self.settle("version", self.ledger.versions, listed)
        for key, version in listed.items():
            self.expect(("version", key) not in self.ledger.gone, f"the adapter {key} was deleted and is back")
            self.expect(version["status"] == "available", f"the adapter {key} is {version['status']}: {version['error']}")
            response = self.server.send("GET", f"/v1/adapters/{quote(key, safe='')}/export", params={"format": "peft"})
            if response.status_code == 404 and version["source"].startswith("ftjob-"):
                # A running job removes the checkpoints that it needs no more.
                continue
            self.expect(response.status_code == 200, f"the adapter {key} cannot be exported: {response.status_code}: {response.text[:300]}")
            found = content_digest(response.content)
            self.expect(found == version["digest"], f"the adapter {key} has the digest {found}, listed is {version['digest']}")
            if key in self.ledger.versions:
                known = self.ledger.versions[key]
                self.expect(found == known, f"the adapter {key} has the digest {found}, acknowledged was {known}")
            elif key.split("@")[0] in NAMES:
                self.expect(found in self.ledger.sent_versions, f"the adapter {key} was never sent so")
                self.ledger.versions[key] = found

    def compare(self):
        """All jobs came to what they came to undisturbed."""
        for number, job in self.made.items():
            outcome = self.server.outcome(job)
            for member, expected in self.expected(number).items():
                found = outcome[member]
                if member == "table" and found != expected:
                    pairs = zip(csv.reader(io.StringIO(found)), csv.reader(io.StringIO(expected)))
                    found, expected = next(((a, b) for a, b in pairs if a != b), ("other lines", "as many lines"))
                self.expect(found == expected, f"{self.name(number)}: {member} is {found}, undisturbed it was {expected}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=5, help="of each job, three to six steps each")
    parser.add_argument("--seed", type=int, default=None, help="of the moments; drawn and printed when it is not given")
    parser.add_argument("--ready-seconds", type=float, default=30, help="the longest that a start may take")
    parser.add_argument("--limit-seconds", type=int, default=1800, help="the longest that everything may take")
    options = parser.parse_args()
    seed = random.randrange(1 << 32) if options.seed is None else options.seed

    def stopped(number, _):
        raise Failure(f"not done after {options.limit_seconds} s" if number == signal.SIGALRM else "stopped by SIGTERM")

    signal.signal(signal.SIGALRM, stopped)
    signal.signal(signal.SIGTERM, stopped)
    signal.alarm(options.limit_seconds)
    generator = random.Random(seed)
    contents = [generator.randbytes(UPLOAD_BYTES) for _ in range(2)]
    adapters = [make_adapter(number, rank=2) for number in range(3)]
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="graft-kill-soak-"))
    began, server, soak = time.monotonic(), None, None
    try:
        server = Server(scratch, "undisturbed", options.ready_seconds)
        reference = undisturbed(server, options.jobs, options.epochs, contents, adapters)
        server = Server(scratch, "killed", options.ready_seconds)
        soak = Soak(server, reference, options.epochs, Plan(options.kills, reference, generator), contents, adapters, seed)
        soak.run()
        problem = None
    except (Failure, AssertionError, httpx.HTTPError, sqlite3.Error, subprocess.TimeoutExpired) as error:
        problem = error
    result = {"result": "failed" if problem else "ok", "seed": seed, "seconds": round(time.monotonic() - began, 1)}
    if soak:
        result |= {
            "jobs": len(soak.made), "kills": soak.kills, "killed_at": dict(soak.stages), "steps": soak.steps, "in_flight": dict(soak.at_work),
            "restarts": server.starts - 1, "restarts_checked": soak.lives_checked - 1, "checked": dict(soak.checked),
            "slowest_ready_seconds": round(server.slowest, 2),
            "undisturbed_seconds": round(sum(pace.seconds for pace in reference.paces), 1),
        }
    print(json.dumps(result))
    if problem:
        print("the end of the server's log:\n" + "".join(server.log.read_text(errors="replace").splitlines(keepends=True)[-20:]), file=sys.stderr)
        sys.exit(f"kill_soak: {problem or repr(problem)}\nkill_soak: the directories are left in {scratch}")
    shutil.rmtree(scratch)


main()
