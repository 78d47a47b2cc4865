"""Fine-tuning over HTTP with the `openai` package: upload, job, events, checkpoints, the tuned model's answers, while streams go on."""

import json
import os
import threading
import time
import unittest
import uuid

import httpx
import openai

BASE = os.environ["GRAFT_BASE_URL"]
CLIENT = openai.OpenAI(base_url=f"{BASE}/v1", api_key="none", max_retries=0, timeout=120)
HTTP = httpx.Client(base_url=BASE, timeout=120)
WORDS = ["amber", "birch", "cedar", "delta", "ember", "flint", "grove", "heath", "inlet", "juniper", "kelp", "larch"]


def chat_rows(count):
    """Every question has one answer that no base model would give."""
    return [
        {"messages": [{"role": "user", "content": f"Which code belongs to the word {WORDS[i % len(WORDS)]}?"},
                      {"role": "assistant", "content": f"CODE-{WORDS[i % len(WORDS)].upper()}"}]}
        for i in range(count)
    ]


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def upload(rows, name="pairs.jsonl"):
    return CLIENT.files.create(file=(name, rows if isinstance(rows, bytes) else jsonl(rows)), purpose="fine-tune")


def wait(job, *states, seconds=900):
    deadline = time.monotonic() + seconds
    while job.status not in states:
        if time.monotonic() > deadline:
            raise AssertionError(f"the job is {job.status} after {seconds} s, expected {states}: {job.error}")
        time.sleep(0.05)
        job = CLIENT.fine_tuning.jobs.retrieve(job.id)
    return job


def finished(job):
    return wait(job, "succeeded", "failed", "cancelled")


def create(file, suffix=None, epochs=6, lora=None, **more):
    return CLIENT.fine_tuning.jobs.create(
        model=CLIENT.models.list().data[0].id, training_file=file.id, suffix=suffix or f"t-{uuid.uuid4().hex[:8]}", seed=7,
        method=more.pop("method", {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": epochs, "batch_size": 4}}}),
        extra_body={"lora": {"rank": 8, **(lora or {})}}, **more)


class Tuning(unittest.TestCase):
    def test_a_tuned_model_answers_and_no_stream_stops(self):
        file = upload(chat_rows(24))
        self.assertEqual(file.status, "processed")
        stop, chunks, failures = threading.Event(), [0, 0], []

        def stream(i):
            while not stop.is_set():
                try:
                    for _ in CLIENT.chat.completions.create(
                        model="default", messages=[{"role": "user", "content": f"Tell me a story, number {i}."}], max_tokens=40, temperature=0, stream=True):
                        chunks[i] += 1
                except Exception as error:  # noqa: BLE001 any failure is what is looked for
                    failures.append(error)
                    return

        streams = [threading.Thread(target=stream, args=(i,)) for i in range(2)]
        for thread in streams:
            thread.start()
        suffix = f"codes-{uuid.uuid4().hex[:6]}"
        try:
            job = finished(create(file, suffix, lora={"validation_split": 0}, metadata={"kind": "codes"}))
        finally:
            stop.set()
            for thread in streams:
                thread.join()
        self.assertEqual((job.status, job.error), ("succeeded", None))
        self.assertEqual(failures, [])
        self.assertTrue(all(count > 10 for count in chunks), chunks)

        self.assertTrue(job.fine_tuned_model.startswith("ft:"))
        self.assertGreater(job.trained_tokens, 0)
        for model in (job.fine_tuned_model, suffix, f"{suffix}@1"):
            for word in WORDS[:3]:
                reply = CLIENT.chat.completions.create(
                    model=model, messages=[{"role": "user", "content": f"Which code belongs to the word {word}?"}], max_tokens=20, temperature=0)
                self.assertEqual(reply.choices[0].message.content, f"CODE-{word.upper()}", model)
                self.assertEqual(reply.choices[0].finish_reason, "stop")
        self.assertEqual(CLIENT.models.retrieve(job.fine_tuned_model).id, job.fine_tuned_model)

        events = list(CLIENT.fine_tuning.jobs.list_events(job.id, limit=100))
        metrics = [event.data for event in reversed(events) if event.type == "metrics"]
        self.assertEqual([m["step"] for m in metrics], list(range(1, 37)))
        self.assertLess(metrics[-1]["train_loss"], 0.2 * metrics[0]["train_loss"])
        checkpoints = CLIENT.fine_tuning.jobs.checkpoints.list(job.id).data
        self.assertTrue(checkpoints and all(c.fine_tuned_model_checkpoint.startswith("ft:") for c in checkpoints))
        reply = CLIENT.chat.completions.create(
            model=checkpoints[0].fine_tuned_model_checkpoint, messages=[{"role": "user", "content": "Which code belongs to the word amber?"}], max_tokens=20)
        self.assertTrue(reply.choices[0].message.content)
        table = CLIENT.files.content(job.result_files[0]).text.splitlines()
        self.assertEqual(len(table), 37)
        self.assertIn(job.id, [j.id for j in CLIENT.fine_tuning.jobs.list(metadata={"kind": "codes"}).data])

        # The stream of events ends with the job: here at once, with everything.
        lines = HTTP.get(f"/v1/fine_tuning/jobs/{job.id}/events?stream=true").text
        self.assertIn("data: [DONE]", lines)
        self.assertEqual(sum('"type":"metrics"' in line for line in lines.splitlines()), 36)

    def test_the_same_seed_gives_the_same_adapter(self):
        file = upload(chat_rows(24))
        digests = set()
        for _ in range(2):
            job = finished(create(file, epochs=1))
            self.assertEqual(job.status, "succeeded")
            digests.add(CLIENT.models.retrieve(job.fine_tuned_model).digest)
        self.assertEqual(len(digests), 1)

    def test_preferences(self):
        rows = [
            {"input": {"messages": [{"role": "user", "content": f"Greet {word}."}]},
             "preferred_output": [{"role": "assistant", "content": f"Good day, {word}!"}],
             "non_preferred_output": [{"role": "assistant", "content": f"go away {word}"}]}
            for word in WORDS * 2
        ]
        job = create(
            upload(rows), method={"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 2, "batch_size": 4, "beta": 0.1}}}, lora={"validation_split": 0})
        job = finished(job)
        self.assertEqual((job.status, job.error), ("succeeded", None))
        metrics = [e.data for e in CLIENT.fine_tuning.jobs.list_events(job.id, limit=100).data if e.type == "metrics"]
        self.assertAlmostEqual(metrics[-1]["train_loss"], 0.6931, places=3)  # ln 2 at the first step; newest first
        self.assertLess(metrics[0]["train_loss"], 0.6)

    def test_an_adapter_is_continued(self):
        file = upload(chat_rows(24))
        first = finished(create(file, epochs=1))
        job = finished(CLIENT.fine_tuning.jobs.create(
            model=first.fine_tuned_model, training_file=file.id, suffix=f"more-{uuid.uuid4().hex[:6]}", seed=1,
            hyperparameters={"n_epochs": 1, "batch_size": 4}))
        self.assertEqual((job.status, job.error), ("succeeded", None))
        losses = [
            [e.data["train_loss"] for e in reversed(CLIENT.fine_tuning.jobs.list_events(j.id, limit=100).data) if e.type == "metrics"] for j in (first, job)
        ]
        self.assertLess(losses[1][0], losses[0][0])

    def test_pause_resume_and_cancel(self):
        file = upload(chat_rows(48))
        job = create(file, epochs=20)
        wait(job, "running")
        paused = CLIENT.fine_tuning.jobs.pause(job.id)
        self.assertEqual(paused.status, "queued")
        time.sleep(0.5)
        steps = len(CLIENT.fine_tuning.jobs.list_events(job.id, limit=100).data)
        time.sleep(0.5)
        self.assertEqual(len(CLIENT.fine_tuning.jobs.list_events(job.id, limit=100).data), steps)
        CLIENT.fine_tuning.jobs.resume(job.id)
        wait(job, "running")
        self.assertEqual(CLIENT.fine_tuning.jobs.cancel(job.id).status, "cancelled")
        self.assertEqual(finished(job).status, "cancelled")
        with self.assertRaises(openai.ConflictError):
            CLIENT.fine_tuning.jobs.cancel(job.id)

    def test_bad_files_and_requests(self):
        with self.assertRaises(openai.BadRequestError):
            upload(b"neither this nor that\n")
        bad = upload(jsonl(chat_rows(3)) + b'{"messages": []}\nnot json\n')
        self.assertEqual(bad.status, "error")
        report = HTTP.get(f"/v1/files/{bad.id}").json()["graft_report"]
        self.assertEqual([problem["line"] for problem in report["problems"]], [4, 5])
        job = finished(create(bad))
        self.assertEqual((job.status, job.error.code, job.error.param), ("failed", "invalid_training_file", "training_file"))
        with self.assertRaises(openai.NotFoundError):
            CLIENT.fine_tuning.jobs.retrieve("ftjob-none")
        good = upload(chat_rows(4))
        for change in ({"model": "no-such-model"}, {"training_file": "file-none"}, {"hyperparameters": {"n_epochs": 0}}, {"suffix": "no spaces"}):
            with self.assertRaises((openai.BadRequestError, openai.NotFoundError), msg=str(change)):
                CLIENT.fine_tuning.jobs.create(**{"model": CLIENT.models.list().data[0].id, "training_file": good.id, **change})


if __name__ == "__main__":
    unittest.main(verbosity=2)
