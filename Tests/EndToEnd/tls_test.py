#!/usr/bin/env python3
"""TLS as its users meet it: the built server with certificates of a test's own authority, asked by Python's ssl, httpx, the `openai` package, curl,
`openssl s_client` and `graft` itself; the certificate is replaced while a stream runs, and handshakes are cut short.

usage: tls_test.py      (GRAFT_BINARY names the command; default .build/release/graft; runs in the repository, whose Models/ holds the default model)
"""

import http.server
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

import httpx
import openai

ROOT = Path(__file__).resolve().parent.parent.parent
GRAFT = str((ROOT / os.environ.get("GRAFT_BINARY", ".build/release/graft")).resolve())
# Long enough for any machine: a test that reaches it has failed.
PATIENCE = 120
MESSAGES = [{"role": "user", "content": "Write a very long story about a dog."}]


def run(*arguments, stdin="", environment=None, timeout=PATIENCE):
    done = subprocess.run(
        arguments, input=stdin, capture_output=True, text=True, timeout=timeout, cwd=ROOT, env=dict(os.environ, **(environment or {})))
    return done.returncode, done.stdout, done.stderr


class Certificates:
    """An authority and what it signs, in a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.authority = folder / "ca.pem"
        self.openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca-key.pem", "-out", "ca.pem", "-days", "2",
            "-subj", "/CN=authority")

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=self.folder)

    def make(self, name, serial, days=2):
        """A certificate for this machine: the paths of the certificate and of its key."""
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}-key.pem"
        (self.folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        self.openssl(
            "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key.name, "-out", "request.pem", "-subj",
            "/CN=localhost")
        self.openssl(
            "x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-set_serial", str(serial), "-days", str(days), "-extfile",
            "names", "-out", certificate.name)
        os.chmod(key, 0o600)
        return certificate, key


class Server:
    """`graft serve` on a free port, with directories of its own. Its log is kept."""

    def __init__(self, folder, *arguments, environment=None):
        self.environment = dict(GRAFT_DATA_DIRECTORY=str(folder / "Data"), GRAFT_ADAPTERS_DIRECTORY=str(folder / "Adapters"), **(environment or {}))
        self.lines = []
        self.changed = threading.Condition()
        self.process = subprocess.Popen(
            [GRAFT, "serve", "--port", "0", *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True, env=dict(os.environ, **self.environment))
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        self.address = re.search(r"address=(\S+)", self.wait_for("address=")).group(1)
        self.port = int(self.address.rsplit(":", 1)[1])

    def read(self):
        for line in self.process.stderr:
            with self.changed:
                self.lines.append(line)
                self.changed.notify_all()
        with self.changed:
            self.lines.append("(the end of the log)")
            self.changed.notify_all()

    def wait_for(self, *words, after=0):
        """The first line with all of the words, of those behind the first `after`."""
        deadline = time.monotonic() + PATIENCE
        with self.changed:
            while True:
                for line in self.lines[after:]:
                    if all(word in line for word in words):
                        return line
                left = deadline - time.monotonic()
                if left <= 0 or "(the end of the log)" in self.lines:
                    raise AssertionError(f"the log has no line with {words}:\n{''.join(self.lines)}")
                self.changed.wait(left)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE)
        self.reader.join()
        self.process.stderr.close()
        return code


class TLSTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="graft-tls-"))
        cls.certificates = Certificates(cls.folder)
        first, key = cls.certificates.make("first", 0xA1)
        # What the server reads, and what a test replaces.
        cls.certificate, cls.key = cls.folder / "server.pem", cls.folder / "server-key.pem"
        cls.install(first, key)
        cls.server = Server(cls.folder, "--tls-certificate", str(cls.certificate), "--tls-private-key", str(cls.key))
        cls.ca = str(cls.certificates.authority)
        cls.url = f"https://localhost:{cls.server.port}"

    @classmethod
    def tearDownClass(cls):
        code = cls.server.stop()
        shutil.rmtree(cls.folder)
        assert code == 0, f"the server ended with {code}"

    @classmethod
    def install(cls, certificate, key):
        shutil.copy(key, cls.key)
        shutil.copy(certificate, cls.certificate)

    def context(self, version=None):
        context = ssl.create_default_context(cafile=self.ca)
        if version:
            context.minimum_version = context.maximum_version = version
        return context

    def connect(self, context=None):
        plain = socket.create_connection(("127.0.0.1", self.server.port), timeout=PATIENCE)
        return (context or self.context()).wrap_socket(plain, server_hostname="localhost")

    @staticmethod
    def serial(connection):
        return int(connection.getpeercert()["serialNumber"], 16)

    @staticmethod
    def ask(connection, path="/livez"):
        """One request on a connection that goes on."""
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = connection.recv(65536)
            assert piece, f"the connection ended after {answer}"
            answer += piece
        head, body = answer.split(b"\r\n\r\n", 1)
        length = int(re.search(rb"content-length: (\d+)", head, re.I).group(1))
        while len(body) < length:
            body += connection.recv(65536)
        return int(head.split()[1])

    def s_client(self, *arguments, request="GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"):
        return run("openssl", "s_client", "-connect", f"127.0.0.1:{self.server.port}", "-CAfile", self.ca, "-ign_eof", *arguments, stdin=request)

    # MARK: - Clients

    def test_the_log_says_https(self):
        self.assertTrue(self.server.address.startswith("https://127.0.0.1:"), self.server.address)
        line = self.server.wait_for("TLS certificate", "serial=A1")
        self.assertIn("CN=localhost", line)

    def test_chat_over_both_versions(self):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            with httpx.Client(base_url=self.url, verify=self.context(version), timeout=PATIENCE) as client:
                answer = client.post("/v1/chat/completions", json={"messages": MESSAGES, "max_tokens": 8, "temperature": 0})
                self.assertEqual(answer.status_code, 200, answer.text)
                whole = answer.json()["choices"][0]["message"]["content"]
                with client.stream(
                    "POST", "/v1/chat/completions", json={"messages": MESSAGES, "max_tokens": 8, "temperature": 0, "stream": True}) as stream:
                    lines = [line[6:] for line in stream.iter_lines() if line.startswith("data: ")]
                self.assertEqual(lines[-1], "[DONE]")
                pieces = [json.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines[:-1] if json.loads(line)["choices"]]
                self.assertEqual("".join(pieces), whole)
            with self.connect(self.context(version)) as connection:
                self.assertEqual(connection.version(), {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}[version])
                self.assertEqual(self.ask(connection), 200)

    def test_the_openai_package(self):
        with httpx.Client(verify=self.context(), timeout=PATIENCE) as http_client:
            client = openai.OpenAI(base_url=self.url + "/v1", api_key="unused", max_retries=0, http_client=http_client)
            model = client.models.list().data[0].id
            pieces = [
                chunk for chunk in client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=8, temperature=0, stream=True)]
            self.assertGreater(len(pieces), 2)

    def test_sixteen_streams_at_once(self):
        answers = [None] * 16

        def ask(i):
            with httpx.Client(base_url=self.url, verify=self.context(), timeout=PATIENCE) as client:
                with client.stream(
                    "POST", "/v1/chat/completions",
                    json={"messages": MESSAGES, "max_tokens": 24, "temperature": 0, "stream": True}) as stream:
                    answers[i] = [
                        json.loads(line[6:])["choices"][0]["delta"].get("content")
                        for line in stream.iter_lines() if line.startswith("data: {") and json.loads(line[6:])["choices"]]

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertTrue(all(answer and answer == answers[0] for answer in answers), answers)

    def test_curl(self):
        code, out, err = run(
            "curl", "--http1.1", "--tlsv1.3", "--cacert", self.ca, "--fail", "-sS", "-w", " %{http_version} %{ssl_verify_result}", self.url + "/livez")
        self.assertEqual(code, 0, err)
        self.assertTrue(out.endswith(" 1.1 0"), out)

    def test_an_upload_of_megabytes(self):
        content = "".join(json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b" * 900}]}) + "\n" for _ in range(4000))
        with httpx.Client(base_url=self.url, verify=self.context(), timeout=PATIENCE) as client:
            answer = client.post("/v1/files", files={"file": ("a.jsonl", content)}, data={"purpose": "fine-tune"})
            self.assertEqual(answer.status_code, 200, answer.text)
            self.assertEqual(client.get(f"/v1/files/{answer.json()['id']}/content").text, content)

    # MARK: - What is agreed

    def test_old_versions_are_refused(self):
        for version in ("-tls1_1", "-tls1"):
            code, out, err = self.s_client(version, "-cipher", "ALL:@SECLEVEL=0")
            self.assertNotEqual(code, 0)
            self.assertIn("protocol version", out + err)
        self.server.wait_for("a TLS connection failed", "unsupported protocol")

    def test_sessions_are_resumed(self):
        for version in ("-tls1_2", "-tls1_3"):
            file = str(self.folder / f"session{version}")
            code, out, _ = self.s_client(version, "-sess_out", file)
            self.assertIn("New, TLSv1", out)
            self.assertIn("HTTP/1.1 200", out)
            code, out, _ = self.s_client(version, "-sess_in", file)
            self.assertEqual(code, 0)
            self.assertIn("Reused, TLSv1", out)
            self.assertIn("HTTP/1.1 200", out)

    def test_application_protocols(self):
        code, out, err = self.s_client("-alpn", "h2")
        self.assertNotEqual(code, 0)
        self.assertIn("no application protocol", out + err)
        code, out, _ = self.s_client("-alpn", "h2,http/1.1")
        self.assertIn("ALPN protocol: http/1.1", out)
        self.assertIn("HTTP/1.1 200", out)
        code, out, _ = self.s_client()
        self.assertIn("No ALPN negotiated", out)
        self.assertIn("HTTP/1.1 200", out)
        self.assertIn("Verify return code: 0 (ok)", out)

    def test_the_end_is_said(self):
        with self.connect() as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            # Python raises when a connection ends without close_notify.
            connection.suppress_ragged_eofs = False
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
            self.assertIn(b"200 OK", answer)

    # MARK: - What goes wrong

    def test_plain_http_is_told_so(self):
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=PATIENCE) as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), answer)
        self.assertIn(b"https://", answer)
        self.server.wait_for("a TLS connection failed", "plainText")

    def hello(self):
        outgoing = ssl.MemoryBIO()
        session = self.context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
        try:
            session.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return outgoing.read()

    def test_a_truncated_handshake(self):
        before = len(self.server.lines)
        with socket.create_connection(("127.0.0.1", self.server.port)) as connection:
            connection.sendall(self.hello()[:60])
        self.server.wait_for("a TLS connection failed", "truncated", "received_bytes=60", after=before)

    def test_a_stalled_handshake(self):
        before = len(self.server.lines)
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=PATIENCE) as connection:
            connection.sendall(self.hello()[:61])
            # The server closes it; no byte was answered.
            self.assertEqual(connection.recv(100), b"")
        self.server.wait_for("a TLS connection failed", "stalled", "received_bytes=61", after=before)
        with self.connect() as connection:
            self.assertEqual(self.ask(connection), 200)

    # MARK: - A new certificate

    def test_reading_again(self):
        second, second_key = self.certificates.make("second", 0xB2)
        old = self.connect()
        before = self.serial(old)
        self.assertEqual(self.ask(old), 200)
        lines = len(self.server.lines)
        with httpx.Client(base_url=self.url, verify=self.context(), timeout=PATIENCE) as client:
            with client.stream(
                "POST", "/v1/chat/completions", json={"messages": MESSAGES, "max_tokens": 300, "temperature": 0, "stream": True}) as stream:
                events = stream.iter_lines()
                self.assertTrue(next(events).startswith("data: {"))
                self.install(second, second_key)
                self.server.process.send_signal(signal.SIGHUP)
                self.server.wait_for("read again", "serial=B2", after=lines)
                with self.connect() as new:
                    self.assertEqual(self.serial(new), 0xB2)
                    self.assertEqual(self.ask(new), 200)
                rest = [line for line in events if line]
                self.assertEqual(rest[-1], "data: [DONE]")
                self.assertGreater(len(rest), 10)
        # A connection from before goes on with what it began with.
        self.assertEqual(self.ask(old), 200)
        self.assertEqual(self.serial(old), before)
        # A command of this machine knows the new one.
        code, _, err = run(GRAFT, "jobs", "list", environment=self.server.environment)
        self.assertEqual(code, 0, err)

        # What cannot be used changes nothing.
        for certificate, key, reason in (
            (b"nonsense", second_key.read_bytes(), "found no '-----BEGIN CERTIFICATE-----'"),
            (second.read_bytes(), (self.folder / "first-key.pem").read_bytes(), "is not that of the first certificate"),
        ):
            lines = len(self.server.lines)
            self.certificate.write_bytes(certificate)
            self.key.write_bytes(key)
            self.server.process.send_signal(signal.SIGHUP)
            self.server.wait_for("could not be read again", reason, after=lines)
            with self.connect() as new:
                self.assertEqual(self.serial(new), 0xB2)
        self.assertEqual(self.ask(old), 200)
        old.close()
        self.install(second, second_key)

    # MARK: - graft's own commands

    def test_commands_of_this_machine_know_the_server(self):
        for kind in ("jobs", "adapters", "keys"):
            code, _, err = run(GRAFT, kind, "list", environment=self.server.environment)
            self.assertEqual(code, 0, err)

    def test_commands_verify_other_servers(self):
        for host in ("localhost", "127.0.0.1"):
            for kind in ("jobs", "keys"):
                code, _, err = run(GRAFT, kind, "list", "--server", f"https://{host}:{self.server.port}", "--ca-file", self.ca)
                self.assertEqual(code, 0, err)
        code, _, err = run(GRAFT, "jobs", "list", "--server", self.url, environment={"GRAFT_CA_FILE": self.ca})
        self.assertEqual(code, 0, err)
        code, _, err = run(GRAFT, "jobs", "list", "--server", self.url)
        self.assertEqual(code, 1)
        self.assertIn("is not accepted: unable to get local issuer certificate", err)
        self.assertIn("GRAFT_CA_FILE", err)
        code, _, err = run(GRAFT, "jobs", "list", "--server", f"https://127.0.0.2:{self.server.port}", "--ca-file", self.ca)
        self.assertEqual(code, 1)
        # The server listens on 127.0.0.1 alone.
        self.assertIn("cannot be reached", err)
        code, _, err = run(GRAFT, "jobs", "list", "--server", f"http://localhost:{self.server.port}")
        self.assertEqual(code, 1)
        self.assertIn("this port speaks TLS", err)
        code, _, err = run(GRAFT, "jobs", "list", "--server", self.url, "--ca-file", "missing.pem")
        self.assertEqual(code, 1)
        self.assertIn("missing.pem: cannot be opened: No such file or directory", err)

    def test_a_server_without_tls_is_told_from_one_with(self):
        class Quiet(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

        plain = http.server.HTTPServer(("127.0.0.1", 0), Quiet)
        threading.Thread(target=plain.serve_forever, daemon=True).start()
        try:
            code, _, err = run(GRAFT, "jobs", "list", "--server", f"https://127.0.0.1:{plain.server_port}")
            self.assertEqual(code, 1)
            self.assertIn("no TLS with the server", err)
        finally:
            plain.shutdown()
            plain.server_close()

    # MARK: - Starting

    def refusal(self, *arguments):
        code, _, err = run(GRAFT, "serve", "--port", "0", *arguments, environment=self.server.environment)
        self.assertEqual(code, 1, err)
        return err

    def test_clear_text_stays_on_this_machine(self):
        for host in ("0.0.0.0", "::", "127.example.org"):
            message = self.refusal("--host", host)
            self.assertIn(f"does not listen on {host} without TLS", message)
            self.assertIn("--tls-certificate", message)
            self.assertIn("--insecure-listen", message)

    def test_insecure_listening_is_possible(self):
        folder = Path(tempfile.mkdtemp(prefix="graft-tls-"))
        # What others can reach wants a key.
        code, _, err = run(GRAFT, "keys", "create", "test", environment=dict(GRAFT_DATA_DIRECTORY=str(folder / "Data")))
        self.assertEqual(code, 0, err)
        server = Server(folder, "--host", "0.0.0.0", "--insecure-listen")
        try:
            self.assertTrue(server.address.startswith("http://0.0.0.0:"))
            self.assertEqual(httpx.get(f"http://127.0.0.1:{server.port}/livez", timeout=PATIENCE).status_code, 200)
        finally:
            self.assertEqual(server.stop(), 0)
            shutil.rmtree(folder)

    def test_what_the_files_lack_is_said(self):
        first, first_key = str(self.folder / "first.pem"), str(self.folder / "first-key.pem")
        _, other_key = self.certificates.make("other", 7)
        both = lambda certificate, key: self.refusal("--tls-certificate", str(certificate), "--tls-private-key", str(key))
        self.assertIn("absent.pem: cannot be opened: No such file or directory", both(self.folder / "absent.pem", first_key))
        self.assertIn("absent.pem: cannot be opened: No such file or directory", both(first, self.folder / "absent.pem"))
        self.assertIn("found no '-----BEGIN CERTIFICATE-----'", both(first_key, first_key))
        self.assertIn("found no private key", both(first, first))
        self.assertIn("is not that of the first certificate", both(first, other_key))
        self.assertIn("without its private key", self.refusal("--tls-certificate", first))
        self.assertIn("without its certificate", self.refusal("--tls-private-key", first_key))

    def test_an_expired_certificate_is_used_with_a_warning(self):
        folder = Path(tempfile.mkdtemp(prefix="graft-tls-"))
        expired, key = self.certificates.make("expired", 8, days=-1)
        server = Server(
            folder, environment={"GRAFT_SERVER_TLS_CERTIFICATE": str(expired), "GRAFT_SERVER_TLS_PRIVATE_KEY": str(key)})
        try:
            self.assertIn("warning", server.wait_for("expired on"))
            self.assertTrue(server.address.startswith("https://"))
        finally:
            self.assertEqual(server.stop(), 0)
            shutil.rmtree(folder)


if __name__ == "__main__":
    unittest.main()
