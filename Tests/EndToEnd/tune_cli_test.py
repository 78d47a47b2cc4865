#!/usr/bin/env python3
"""`graft tune` and `graft jobs`: without a server on a data directory of their own, and through the server that Scripts/with-server started."""

import hashlib
import json
import os
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
GRAFT = str((ROOT / os.environ.get("GRAFT_BINARY", ".build/release/graft")).resolve())
PATIENCE = 600
WORDS = ["amber", "birch", "cedar", "delta", "ember", "flint", "grove", "heath"]


def rows(count):
    return [
        {"messages": [{"role": "user", "content": f"Which code belongs to {WORDS[i % 8]}?"}, {"role": "assistant", "content": f"CODE-{WORDS[i % 8].upper()}"}]}
        for i in range(count)
    ]


class TuneCommand(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = Path(self.folder.name)
        # Not the directories of the server that the other tests use.
        self.own = dict(os.environ, GRAFT_DATA_DIRECTORY=f"{self.path}/Data", GRAFT_ADAPTERS_DIRECTORY=f"{self.path}/Adapters", GRAFT_TUNING_SNAPSHOT_STEPS="2")

    def write(self, lines, name="pairs.jsonl"):
        path = self.path / name
        path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
        return str(path)

    def graft(self, *arguments, environment=None, code=0):
        done = subprocess.run([GRAFT, *arguments], capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT, env=environment or self.own)
        self.assertEqual(done.returncode, code, f"{arguments}: {done.stdout}\n{done.stderr}")
        return done

    def jobs(self, environment=None):
        return json.loads(self.graft("jobs", "list", "--json", environment=environment).stdout)

    def digest(self, name, environment=None):
        shown = json.loads(self.graft("adapters", "show", name, "--json", environment=environment).stdout)
        return [version["digest"] for version in shown["versions"]]

    def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(self):
        data = self.write(rows(16))
        command = ["tune", "--data", data, "--epochs", "4", "--batch-size", "4", "--rank", "4", "--seed", "5", "--name"]
        whole = self.graft(*command, "whole")
        self.assertIn("whole@1 is published", whole.stdout)
        self.assertIn("100%  step 16/16", whole.stderr)

        running = subprocess.Popen([GRAFT, *command, "halves"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=self.own)
        seen = ""
        for line in running.stderr:
            seen += line
            if "step" in line and "loss" in line:
                running.send_signal(signal.SIGINT)
                break
        out, err = running.communicate(timeout=PATIENCE)
        self.assertEqual(running.returncode, 1, seen + err)
        self.assertIn("stopped after step", err)
        job = next(job for job in self.jobs() if job["user_provided_suffix"] == "halves")
        self.assertEqual(job["status"], "running")
        waiting = self.graft("jobs", "watch", job["id"])
        self.assertIn("nobody works on it", waiting.stderr)

        again = self.graft(*command, "halves")
        self.assertIn(f"going on with {job['id']}", again.stderr)
        self.assertEqual(self.digest("halves"), self.digest("whole"))
        self.assertEqual({job["status"] for job in self.jobs()}, {"succeeded"})
        # The copies of the data are gone: what is left are the tables of metrics of two equal runs, which are one file or two.
        self.assertLessEqual(len(self.kept_files()), 2)
        self.assertNotIn(hashlib.sha256(Path(data).read_bytes()).hexdigest(), self.kept_files())
        answer = self.graft("generate", "--adapter", "halves", "--temperature", "0", "--max-tokens", "12", "Which code belongs to amber?").stdout
        self.assertIn("CODE", answer)
        exported = str(self.path / "exported")
        self.graft("adapters", "export", "halves", exported)
        same = self.graft("generate", "--adapter", exported, "--temperature", "0", "--max-tokens", "12", "Which code belongs to amber?").stdout
        self.assertEqual(same, answer)
        shown = self.graft("jobs", "show", job["id"]).stdout
        for word in ("succeeded", "halves@1", "4 epochs, batch 4, rank 4", "best"):
            self.assertIn(word, shown)

    def kept_files(self):
        return sorted(name for name in os.listdir(f"{self.path}/Data/files") if name != "incoming")

    def test_pairs_of_answers_are_trained_by_preference(self):
        pairs = [
            {"prompt": [{"role": "user", "content": f"Greet {word}."}], "chosen": [{"role": "assistant", "content": f"Good day, {word}!"}],
             "rejected": [{"role": "assistant", "content": "go away"}]}
            for word in WORDS
        ]
        done = self.graft("tune", "--data", self.write(pairs), "--name", "polite", "--epochs", "1", "--batch-size", "4", "--rank", "4", "--json")
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(lines[-1]["method"]["type"], "dpo")
        first = next(line["data"] for line in lines if line.get("type") == "metrics")
        self.assertAlmostEqual(first["train_loss"], 0.6931, places=3)

    def test_what_cannot_be_done(self):
        good = self.write(rows(4))
        bad = self.write(rows(2) + ["{", {"messages": []}], "bad.jsonl")
        done = self.graft("tune", "--data", bad, "--name", "x", code=1)
        self.assertIn("2 of 4 rows cannot be used", done.stderr)
        self.assertIn("line 3:", done.stderr)
        self.assertIn("line 4:", done.stderr)
        for arguments, code, words in [
            (["tune", "--data", "no-such-file", "--name", "x"], 1, "no-such-file is not there"),
            (["tune", "--data", good, "--name", "no spaces"], 2, "--name"),
            (["tune", "--data", good, "--name", "x", "--epochs", "0"], 2, "n_epochs"),
            (["tune", "--data", good, "--name", "x", "--target-modules", "q_proj,nose"], 2, "nose"),
            (["tune", "--data", good, "--name", "x", "--from", "nobody"], 1, "initial_adapter"),
            (["tune", "--data", good, "--name", "x", "--max-length", "1"], 2, "max_length"),
            (["tune", "--data", good], 2, "--name"),
            (["jobs", "list", "--server", "http://127.0.0.1:9"], 1, "cannot be reached"),
            (["jobs", "show", "ftjob-none"], 1, "no fine-tuning job"),
            (["generate", "--adapter", "nobody", "Hello"], 1, "there is no adapter 'nobody'"),
        ]:
            done = self.graft(*arguments, code=code)
            self.assertIn(words, done.stderr, arguments)
        self.assertEqual(self.jobs(), [])
        self.assertEqual(self.kept_files(), [])

    def test_a_running_server_trains(self):
        environment = dict(os.environ)
        name = f"cli-{os.getpid()}"
        done = self.graft(
            "tune", "--data", self.write(rows(8)), "--name", name, "--epochs", "1", "--batch-size", "4", "--rank", "4", environment=environment)
        self.assertIn("trains", done.stderr)
        self.assertIn(f"{name}@1 is published", done.stdout)
        self.assertEqual(len(self.digest(name, environment)), 1)
        answer = self.graft("generate", "--adapter", name, "--max-tokens", "4", "Hello", environment=environment).stdout
        self.assertTrue(answer.strip())

        long = subprocess.Popen(
            [GRAFT, "tune", "--data", self.write(rows(32)), "--name", name, "--epochs", "50", "--rank", "4"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
        job = None
        deadline = time.monotonic() + PATIENCE
        while not job and time.monotonic() < deadline:
            job = next((job for job in self.jobs(environment) if job["user_provided_suffix"] == name and job["status"] == "running"), None)
        self.assertIn("paused", self.graft("jobs", "pause", job["id"], environment=environment).stdout)
        self.graft("jobs", "resume", job["id"], environment=environment)
        long.send_signal(signal.SIGINT)
        _, err = long.communicate(timeout=PATIENCE)
        self.assertIn("the job goes on in the server", err)
        self.assertIn("cancelled", self.graft("jobs", "cancel", job["id"], environment=environment).stdout)
        self.graft("jobs", "watch", job["id"], environment=environment)
        bad = self.graft("tune", "--data", self.write(["{"]), "--name", name, environment=environment, code=1)
        self.assertIn("line 1:", bad.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
