"""What the tests of framing, load and shutdown share: raw sockets, a strict reader of responses, the server's own figures, servers with settings of their own.

The reader is deliberately not a library's: it takes nothing but the framing that RFC 9112 allows a server to send."""
import atexit
import contextlib
import ctypes
import dataclasses
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
# How long anything may take before a test that waits in vain fails.
PATIENCE = 120
TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"


@dataclasses.dataclass
class Response:
    status: int
    fields: dict
    body: bytes
    raw: bytes

    @property
    def closes(self):
        return self.fields.get("connection") == "close"


class Wire:
    """One connection, byte by byte."""

    def __init__(self, base, receive_buffer=None):
        address = urllib.parse.urlsplit(base)
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect((address.hostname, address.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        """Sends all; an error is no failure here, because a server may refuse before it has read everything."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return self

    def fill(self):
        """False at the end. A reset is an error: it can destroy an answer that is on its way."""
        data = self.socket.recv(65536)
        self.buffer += data
        return bool(data)

    def take(self, count):
        while len(self.buffer) < count:
            assert self.fill(), f"the connection ended {count - len(self.buffer)} bytes early"
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def line(self):
        while b"\r\n" not in self.buffer:
            assert self.fill(), f"the connection ended inside a line: {self.buffer[:80]}"
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def head(self):
        """Status and fields; None when the connection ends before a response begins."""
        if not self.buffer and not self.fill():
            return None
        raw = self.line()
        found = re.fullmatch(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [\x20-\x7e]*", raw)
        assert found, raw
        fields, raw = {}, raw + b"\r\n"
        while line := self.line():
            assert (field := re.fullmatch(rb"(" + TOKEN + rb"): ?([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)?", line)), line
            name = field[1].decode().lower()
            assert name not in fields, f"two fields {name}"
            fields[name], raw = (field[2] or b"").decode(), raw + line + b"\r\n"
        return Response(int(found[1]), fields, b"", raw + b"\r\n")

    def response(self, to_head=False):
        response = self.head()
        if response is None:
            return None
        length, coding = response.fields.get("content-length"), response.fields.get("transfer-encoding")
        assert length is None or coding is None, "both lengths"
        if response.status == 204 or response.status < 200:
            assert length is None and coding is None, "a length without a body"
        elif to_head or response.status == 304:
            pass
        elif coding is not None:
            assert coding == "chunked", coding
            while True:
                size = self.line()
                assert re.fullmatch(rb"[0-9a-fA-F]+", size), size
                data = self.take(int(size, 16))
                assert self.take(2) == b"\r\n"
                response.raw += size + b"\r\n" + data + b"\r\n"
                response.body += data
                if not data:
                    break
        elif length is not None:
            assert re.fullmatch(r"[0-9]+", length), length
            response.body = self.take(int(length))
            response.raw += response.body
        else:
            while self.fill():
                pass
            response.body, self.buffer = self.buffer, b""
            response.raw += response.body
        return response

    def responses(self):
        """Everything until the server closes."""
        found = []
        while (response := self.response()) is not None:
            found.append(response)
        return found


def figures(base):
    """The server's metrics: {series: value}."""
    with Wire(base) as wire:
        text = wire.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").response().body.decode()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line and not line.startswith("#")}


def requests_counted(base):
    """How many requests the server has answered, by route; those for the figures themselves are left out."""
    counts = {}
    for series, value in figures(base).items():
        if found := re.fullmatch(r'graft_requests_total\{route="([^"]*)".*\}', series):
            counts[found[1]] = counts.get(found[1], 0) + int(value)
    counts.pop("/metrics", None)
    return counts


def occupied(base):
    """(sequences that run, sequences that wait, cache blocks in use)."""
    found = figures(base)
    return int(found["graft_sequences_running"]), int(found["graft_queue_depth"]), int(found['graft_kv_blocks{state="in_use"}'])


def eventually(condition, what):
    """Waits for something that must come. Returns the seconds that it took, for people to read."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < PATIENCE, f"waited in vain for {what}"
        time.sleep(0.01)
    return time.monotonic() - start


@contextlib.contextmanager
def stopped_thread(pid, name):
    """Holds one thread of a process still, as a fault would, while the others go on: ptrace(2), which a parent may use on its child, and root on all.
    Must be entered and left on one thread."""
    PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT, WALL = 17, 0x4206, 0x4207, 0x40000000
    library = ctypes.CDLL(None, use_errno=True)
    library.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    library.ptrace.restype = ctypes.c_long

    def ptrace(request):
        if library.ptrace(request, thread, None, None) != 0:
            raise OSError(ctypes.get_errno(), f"ptrace: {os.strerror(ctypes.get_errno())}")

    (thread,) = [int(task.name) for task in pathlib.Path(f"/proc/{pid}/task").iterdir() if (task / "comm").read_text().strip() == name]
    ptrace(PTRACE_SEIZE)
    ptrace(PTRACE_INTERRUPT)
    os.waitpid(thread, WALL)
    try:
        yield
    finally:
        ptrace(PTRACE_DETACH)


class Server:
    """A server of a test's own, with settings by their names: server_port for GRAFT_SERVER_PORT. Its directories last as long as this."""

    def __init__(self, scratch=None, **settings):
        self.scratch = scratch or tempfile.mkdtemp()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GRAFT_")}
        environment |= {"GRAFT_DATA_DIRECTORY": f"{self.scratch}/Data", "GRAFT_ADAPTERS_DIRECTORY": f"{self.scratch}/Adapters"}
        environment |= {"GRAFT_" + name.upper(): str(value) for name, value in settings.items()}
        self.log_path = f"{self.scratch}/log"
        binary = os.environ.get("GRAFT_BINARY", ".build/release/graft")
        with open(self.log_path, "ab") as log:
            log.truncate(0)
            self.process = subprocess.Popen([binary, "serve", "--port", "0"], cwd=ROOT, env=environment, stdout=log, stderr=log)
        atexit.register(self.kill)
        eventually(lambda: "address=" in self.log or self.process.poll() is not None, "the server")
        found = re.search(r"address=(\S+)", self.log)
        assert found, self.log
        self.base = found[1]

    @property
    def log(self):
        return pathlib.Path(self.log_path).read_text()

    @property
    def pid(self):
        return self.process.pid

    def stop(self):
        """SIGTERM. Returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def __enter__(self):
        return self

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def __exit__(self, *_):
        self.kill()
        shutil.rmtree(self.scratch, ignore_errors=True)
