#!/usr/bin/env python3
"""The command line end to end: the built program, the default model, and a pseudo-terminal in the user's place.

usage: cli_test.py [GRAFT]   (default: .build/release/graft; runs in the repository, whose Models/ holds the default model)
"""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
GRAFT = str(Path(sys.argv.pop(1) if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else ROOT / ".build/release/graft").resolve())
MODEL = "smollm2-135m-instruct"
# Long enough for any machine: a test that reaches it has failed.
PATIENCE = 120
GREEDY = ["--temperature", "0"]
# Where a test looks for a word in the answer: float32 throughout, so that it does not depend on the machine's kernels.
EXACT = ["--exact", *GREEDY]
STORY = "Write a very long story about a dog."


def run(*arguments, stdin="", cwd=ROOT):
    """Exit code, standard output, standard error."""
    done = subprocess.run([GRAFT, *arguments], input=stdin, capture_output=True, text=True, timeout=PATIENCE, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


class Terminal:
    """A program on a pseudo-terminal of 100 by 40."""

    def __init__(self, *arguments):
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (40, 100)) if hasattr(termios, "tcsetwinsize") else self.resize(slave)
        self.modes = termios.tcgetattr(self.master)
        environment = dict(os.environ, TERM="xterm-256color")
        self.process = subprocess.Popen(
            [GRAFT, *arguments], stdin=slave, stdout=slave, stderr=slave, start_new_session=True, cwd=ROOT, env=environment)
        os.close(slave)
        self.raw = ""
        self.pending = b""

    @staticmethod
    def resize(descriptor):
        import fcntl
        import struct

        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)

    def send(self, text):
        os.write(self.master, text.encode())

    def read(self, wait):
        """What the program has written; False at its end."""
        if not select.select([self.master], [], [], wait)[0]:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        data = self.pending + data
        text = data.decode(errors="ignore")
        self.pending = b"" if text.encode() == data else data[len(text.encode()):]
        self.raw += text
        return bool(data)

    @property
    def text(self):
        """Without control sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]", "", self.raw).replace("\r", "")

    def expect(self, pattern):
        """Reads until the pattern appears in what came since the last match, and returns what came up to its end."""
        deadline = time.monotonic() + PATIENCE
        while True:
            match = re.search(pattern, self.text)
            if match:
                found = self.text[: match.end()]
                self.raw = self.text[match.end():]
                return found
            if time.monotonic() > deadline or not self.read(1):
                raise AssertionError(f"expected {pattern!r}, the terminal shows {self.text!r}")

    def wait(self):
        """Reads to the end and gives the exit code."""
        while self.read(PATIENCE):
            pass
        return self.process.wait(PATIENCE)


class Generate(unittest.TestCase):
    def test_greedy_answer_is_reproducible(self):
        arguments = ["generate", *GREEDY, "--max-tokens", "24", "Name three rivers."]
        first, second = run(*arguments), run(*arguments)
        self.assertEqual((first[0], first[2]), (0, ""))
        self.assertTrue(first[1].strip() and first[1].endswith("\n"))
        self.assertEqual(first, second)

    def test_exact_answer(self):
        self.assertEqual(run("generate", *EXACT, "What is the capital of France?"), (0, "The capital of France is Paris.\n", ""))

    def test_a_seed_makes_sampling_reproducible(self):
        arguments = ["generate", "--temperature", "1.5", "--max-tokens", "16", "Invent a word."]
        self.assertEqual(run(*arguments, "--seed", "7"), run(*arguments, "--seed", "7"))
        self.assertNotEqual(run(*arguments, "--seed", "7"), run(*arguments, "--seed", "8"))

    def test_prompt_from_standard_input(self):
        question = "What is the capital of France?"
        options = ["generate", *GREEDY, "--max-tokens", "12"]
        expected = run(*options, question)
        self.assertEqual(run(*options, stdin=question + "\n"), expected)
        self.assertEqual(run(*options, "-", stdin=question), expected)

    def test_json(self):
        code, out, _ = run("generate", "--json", "--raw", *GREEDY, "--max-tokens", "5", "Once upon a time")
        self.assertEqual(code, 0)
        answer = json.loads(out)
        self.assertEqual((answer["model"], answer["finish_reason"], answer["completion_tokens"]), (MODEL, "length", 5))
        self.assertTrue(answer["text"])

    def test_stop(self):
        stops = ["--stop", "xyzzy", "--stop", " Paris"]
        self.assertEqual(run("generate", *EXACT, *stops, "What is the capital of France?"), (0, "The capital of France is\n", ""))

    def test_a_prompt_that_does_not_fit(self):
        code, out, err = run("generate", "--context", "32", "word " * 100)
        self.assertEqual((code, out), (1, ""))
        self.assertRegex(err, r"^graft: the prompt has \d+ tokens, and the context holds 32")

    def test_empty_standard_input(self):
        code, _, err = run("generate")
        self.assertEqual((code, err), (1, "graft: standard input is empty, expected a prompt\n"))


class Failures(unittest.TestCase):
    def check(self, code, message, *arguments, **options):
        found, out, err = run(*arguments, **options)
        self.assertEqual(found, code, err)
        self.assertEqual(out, "")
        self.assertTrue(err.startswith("graft: "), err)
        self.assertIn(message, err)

    def test_failures_end_with_1(self):
        self.check(1, f"did you mean {MODEL}?", "generate", "--model", "smollm2-135m-instrct", "hi")
        self.check(1, "is neither a file nor a model of the catalogue", "chat", "--model", "nonsense")
        self.check(1, "Models is a directory, expected a .gguf file", "generate", "--model", "Models", "hi")
        self.check(1, "not a GGUF file", "generate", "--model", "Package.swift", "hi")
        self.check(1, "not a GGUF file", "inspect", "Package.swift")
        self.check(1, f"did you mean {MODEL}?", "pull", "smollm2")
        self.check(1, "is not a model of the catalogue: expected one of", "pull", "nonsense")
        self.check(1, "expected an address that begins with https://", "pull", "http://localhost/x.gguf")
        with tempfile.TemporaryDirectory() as elsewhere:
            self.check(1, "the model catalogue Models/catalog.json is not there", "generate", "hi", cwd=elsewhere)

    def test_wrong_usage_ends_with_2(self):
        self.check(2, "unknown option '--bogus'", "generate", "--bogus", "hi")
        self.check(2, "--top-p is 3.0; it must be between 0 and 1", "generate", "--top-p", "3", "hi")
        self.check(2, "--max-tokens takes a number from 1 up, not 0", "chat", "--max-tokens", "0")
        self.check(2, "there is no command 'generat', did you mean generate?", "generat")
        self.check(2, "missing expected argument", "inspect")
        self.check(2, "there is no model to fetch", "pull")
        self.check(2, "See 'graft bench --help'", "bench", "--prefill", "x")
        self.check(2, "--cache: found 'q4', expected f32, f16, q8", "perplexity", "text", "--cache", "f16,q4")
        self.check(1, "no-such-text is not there; expected a text", "perplexity", "no-such-text", "-m", MODEL)

    def test_a_path_needs_no_catalogue(self):
        with tempfile.TemporaryDirectory() as elsewhere:
            file = json.loads(run("inspect", MODEL, "--json")[1])["file"]
            self.assertEqual(run("inspect", file, cwd=elsewhere)[0], 0)

    def test_help(self):
        for arguments in [[], ["--help"], ["help", "pull"], *[[name, "--help"] for name in "serve chat generate pull adapters inspect bench perplexity".split()]]:
            code, out, err = run(*arguments)
            self.assertEqual((code, err), (0, ""))
            self.assertIn("USAGE: graft", out)
        self.assertRegex(run("--version")[1], r"^graft \d+\.\d+\.\d+\n$")


class Perplexity(unittest.TestCase):
    def test_caches_are_compared_on_the_same_tokens(self):
        with tempfile.NamedTemporaryFile(suffix=".txt") as file:
            file.write((ROOT / "Tests/Golden/text/evaluation.txt").read_bytes()[:6000])
            file.flush()
            code, out, err = run("perplexity", file.name, "-m", MODEL, "--window", "128", "--cache", "f16,f16,q8", "--json")
            # Rows of a window that foretell nothing fill a whole step.
            table = run("perplexity", file.name, "-m", MODEL, "--window", "1100")[1]
        self.assertEqual((code, err), (0, ""))
        report = json.loads(out)
        first, same, smaller = report["caches"]
        # 64 tokens of each whole window.
        self.assertEqual(report["tokens"] % 64, 0)
        self.assertGreater(report["tokens"], 500)
        self.assertEqual((first["cache"], smaller["cache"], first["change"], same["change"]), ("f16", "q8", 0, 0))
        # Neither nonsense (the vocabulary has 49,152 tokens) nor a text that is known by heart.
        self.assertTrue(5 < first["perplexity"] < 100, first)
        self.assertEqual(first["perplexity"], same["perplexity"])
        self.assertTrue(0 < abs(smaller["change"]) < 0.05, smaller)
        self.assertRegex(table, r"tokens foretold +550, in windows of 1100\n")
        self.assertRegex(table, r"\nf16 +\d+\.\d+ +\d+\.\d+\n")

    def test_what_is_wrong_is_named(self):
        code, _, err = run("perplexity", "README.md", "-m", MODEL, "--window", "10000")
        self.assertEqual(code, 1)
        self.assertIn("--window: found 10000, expected at most the 8192 positions", err)
        with tempfile.NamedTemporaryFile(suffix=".txt") as file:
            self.assertIn("expected a text of at least one window of 512 tokens", run("perplexity", file.name, "-m", MODEL)[2])
            file.write(b"\xff\xfe")
            file.flush()
            self.assertIn("found bytes that are not UTF-8", run("perplexity", file.name, "-m", MODEL)[2])


class Inspect(unittest.TestCase):
    def test_text(self):
        code, out, _ = run("inspect", MODEL)
        self.assertEqual(code, 0)
        for fact in ["llama", "apache-2.0", "Q4_1", "8192 tokens", "134.5 million", "2 <|im_end|>", "gpt2/smollm"]:
            self.assertIn(fact, out)
        self.assertNotIn("blk.0.attn_q.weight", out)
        self.assertIn("blk.0.attn_q.weight", run("inspect", MODEL, "--tensors")[1])

    def test_json_and_template(self):
        template = run("inspect", MODEL, "--template")[1]
        self.assertIn("<|im_start|>", template)
        report = json.loads(run("inspect", MODEL, "--json", "--template", "--tensors")[1])
        self.assertEqual(report["template"], template)
        self.assertEqual(len(report["tensors"]), sum(share["tensors"] for share in report["types"]))
        self.assertTrue(report["supported"])


class Pull(unittest.TestCase):
    def test_list(self):
        code, out, _ = run("pull", "--list")
        self.assertEqual(code, 0)
        self.assertRegex(out, rf"(?m)^{re.escape(MODEL)} \(default\) .*98.3 MB .*yes")

    def test_what_is_there_is_not_fetched(self):
        code, out, err = run("pull", MODEL)
        self.assertEqual((code, err), (0, ""))
        self.assertIn("was here already", out)


class Script(unittest.TestCase):
    def test_lines_are_answered_in_turn(self):
        code, out, err = run("chat", *EXACT, stdin="What is the capital of France?\n/stats\n/reset\nWhat is the capital of France?")
        self.assertEqual((code, out), (0, "The capital of France is Paris.\n" * 2))
        self.assertIn("context", err)

    def test_a_line_that_cannot_be_done_ends_the_script(self):
        code, out, err = run("chat", stdin="/nope\nhello\n")
        self.assertEqual((code, out), (1, ""))
        self.assertTrue(err.startswith("graft: There is no command /nope"))


class Chat(unittest.TestCase):
    def test_a_conversation(self):
        with Terminal("chat", *EXACT) as terminal:
            terminal.expect(rf"{MODEL}.*/help\n> ")
            self.assertNotEqual(termios.tcgetattr(terminal.master)[3] & termios.ICANON, termios.ICANON)

            # An answer, and one that Ctrl-C stops; the program goes on.
            terminal.send("What is the capital of France?\r")
            self.assertIn("Paris", terminal.expect(r"France\?\n(.|\n)+\n\n> "))
            terminal.send(STORY + "\r")
            terminal.expect(r"dog\.\n(.|\n){20}")
            terminal.send("\x03")
            terminal.expect(r"\[stopped\]\n> ")
            terminal.send("/stats\r")
            terminal.expect(r"answer \d+ tokens.*context \d+ of 8192\n> ")

            # History: the line before /stats, changed at both ends.
            terminal.send("\x1b[A\x1b[A")
            terminal.expect(re.escape(STORY))
            terminal.send("\x01/system \x05 Briefly.\r")
            terminal.expect(r"The system message is set, and a new conversation begins\.\n> ")
            terminal.send("/system\r")
            terminal.expect(re.escape(STORY + " Briefly."))

            # Wide characters, a paste of two lines, and what Ctrl-C clears.
            terminal.send("日本🙂é\x1b[D\x7f")
            terminal.expect("日本é")
            terminal.send("\x03/system -\r")
            terminal.expect("No system message")
            terminal.send("\x1b[200~/system one\r\ntwo\x1b[201~\r")
            terminal.expect("set, and a new conversation begins")
            terminal.send("/system\r")
            terminal.expect(r"/system\none\ntwo\n> ")
            terminal.send("/nope\r")
            terminal.expect("There is no command /nope")
            terminal.send("/reset\r")
            terminal.expect(r"A new conversation\.\n> ")

            terminal.send("\x04")
            self.assertEqual(terminal.wait(), 0)
            self.assertEqual(termios.tcgetattr(terminal.master), terminal.modes)

    def test_typing_ahead(self):
        with Terminal("chat", *GREEDY, "--max-tokens", "8") as terminal:
            terminal.send("hello\r/stats\r/quit\r")
            text = terminal.expect(r"answer \d+ tokens")
            self.assertIn("> /stats", text)
            self.assertEqual(terminal.wait(), 0)

    def test_ctrl_c_twice_on_an_empty_line_leaves(self):
        with Terminal("chat") as terminal:
            terminal.expect("> ")
            terminal.send("\x03")
            terminal.expect("Ctrl-C again or Ctrl-D leaves.*\n> ")
            terminal.send("\x03")
            self.assertEqual(terminal.wait(), 0)

    def test_a_full_context_has_a_way_out(self):
        with Terminal("chat", *GREEDY, "--context", "64") as terminal:
            terminal.expect("> ")
            terminal.send(STORY + "\r")
            terminal.expect(r"the context of 64 tokens is full: /reset starts a new conversation")
            terminal.send(STORY + "\r")
            terminal.expect(r"/reset starts a new one, and the message has not been added\.\n> ")
            terminal.send("/reset\rword word word\r")
            terminal.expect(r"A new conversation\.\n> word word word\n.+")
            terminal.send("\x03\x04")
            self.assertEqual(terminal.wait(), 0)

    def test_the_terminal_is_given_back_to_whoever_kills_the_program(self):
        for number in [signal.SIGTERM, signal.SIGHUP]:
            with Terminal("chat", *GREEDY) as terminal:
                terminal.expect("> ")
                terminal.send(STORY + "\r")
                terminal.expect(r"dog\.\n(.|\n){20}")
                terminal.process.send_signal(number)
                self.assertEqual(terminal.wait(), -number)
                self.assertEqual(termios.tcgetattr(terminal.master), terminal.modes)

    def test_a_signal_stops_an_answer_as_ctrl_c_does(self):
        with Terminal("chat", *GREEDY) as terminal:
            terminal.expect("> ")
            terminal.send(STORY + "\r")
            terminal.expect(r"dog\.\n(.|\n){20}")
            terminal.process.send_signal(signal.SIGINT)
            terminal.expect(r"\[stopped\]\n> ")
            terminal.send("\x04")
            self.assertEqual(terminal.wait(), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
