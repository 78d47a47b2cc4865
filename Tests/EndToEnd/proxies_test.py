"""haproxy and nginx in front of the server forward exactly the requests that the server counts.

usage: proxies_test.py [BASE_URL]        (or GRAFT_BASE_URL; haproxy and nginx from PATH, /usr/sbin or /usr/local/sbin)

Every request of request_table.py goes through each proxy on a connection of its own, with a plain request behind it. A reply of the server carries an
x-request-id, one of the proxy does not. If the two sides of the proxy ever disagreed about where a request ends, the server would count other requests
than the ones whose replies the client sees: for example one for /health, which is hidden in the bodies. The proxies keep their connections to the server open
between clients, so that a disagreement would meet the next client as well. Each check prints a line; the last line is "N passed, M failed"."""
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.parse

import httpx

from checks import run
from request_table import TABLE, get
from wire import Response, Wire, eventually, requests_counted

BASE = (sys.argv[1] if len(sys.argv) > 1 else os.environ["GRAFT_BASE_URL"]).rstrip("/")
SERVER = urllib.parse.urlsplit(BASE)
HEALTHY = b'{"status":"ok"}'

HAPROXY = """
global
    maxconn 256
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 60s
    http-reuse always
frontend in
    bind 127.0.0.1:{port}
    default_backend graft
backend graft
    server graft {host}:{backend} maxconn 1
"""

NGINX = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream graft {{ server {host}:{backend}; keepalive 1; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://graft;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host localhost;
            proxy_buffering off;
            {more}
        }}
    }}
}}
"""


def program(name):
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
    assert found, f"{name} is not there; `Scripts/setup tests` installs it"
    return found


@contextlib.contextmanager
def proxy(template, command, **more):
    """A proxy on a port of its own. Gives its address."""
    folder = pathlib.Path(tempfile.mkdtemp())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = folder / "configuration"
    path.write_text(template.format(folder=folder, port=port, host=SERVER.hostname, backend=SERVER.port, **more))
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([part.format(path) for part in command], stdout=log, stderr=log)
    try:
        def answers():
            assert process.poll() is None, (folder / "log").read_text()
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(f"http://127.0.0.1:{port}/livez").status_code == 200

        eventually(answers, "the proxy")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def replies(front, raw):
    """What a client sees: replies until the proxy closes, in whatever way it does."""
    with Wire(front) as wire:
        wire.send(raw)
        found = []
        with contextlib.suppress(ConnectionResetError):
            wire.fill()
        if wire.buffer and not wire.buffer.startswith(b"HTTP/"):
            # A reply as of HTTP/0.9, which nginx still knows: a body without a head. Ours shows by what it says.
            while wire.fill():
                pass
            return [Response(0, {"x-request-id": ""} if wire.buffer.startswith(b'{"name":"graft"') else {}, wire.buffer, wire.buffer)]
        with contextlib.suppress(ConnectionResetError, AssertionError):
            while (response := wire.response()) is not None:
                found.append(response)
        return found


def forwards_what_is_counted(front):
    forwarded = refused = 0
    last = get(b"Connection: close\r\n")
    for entry in TABLE:
        before = requests_counted(BASE)
        seen = replies(front, entry.raw + last)
        after = requests_counted(BASE)
        served = [reply for reply in seen if "x-request-id" in reply.fields]
        counted = sum(after.values()) - sum(before.values())
        assert counted == len(served), f"{entry.name}: the client saw {[r.status for r in served]} of the server, which counted {counted}"
        # Where a proxy takes what we would not (equal lengths in a list), it says so to us in its own words, and the hidden request is an open one.
        hidden = sum(reply.body == HEALTHY for reply in served)
        assert after.get("/health", 0) - before.get("/health", 0) == hidden, f"{entry.name}: a hidden request was run"
        if entry.status == 200:
            # A proxy may be stricter than we are, but then nothing is forwarded.
            assert [r.status for r in served] in ([200, 200], []), (entry.name, [r.status for r in seen])
        forwarded += counted
        refused += not served
        # The next client gets its own reply and no one else's.
        with Wire(front) as wire:
            assert wire.send(get(b"X-Request-Id: next-client\r\n")).response().fields["x-request-id"] == "next-client", entry.name
    # Through the proxy a stream is what it is without it.
    body = {"messages": [{"role": "user", "content": "Hello."}], "max_tokens": 5, "temperature": 0, "stream": True}
    direct, through = (
        [line.partition('"choices"')[2] for line in httpx.post(base + "/v1/chat/completions", json=body, timeout=60).text.splitlines()]
        for base in (BASE, front))
    assert direct == through and len(direct) > 5
    return f"{len(TABLE)} requests: {forwarded} reached the server and were counted, {refused} were stopped by the proxy"


def through_haproxy():
    with proxy(HAPROXY, [program("haproxy"), "-db", "-q", "-f", "{}"]) as front:
        return forwards_what_is_counted(front)


def through_nginx():
    with proxy(NGINX, [program("nginx"), "-c", "{}"], more="") as front:
        return forwards_what_is_counted(front)


def through_nginx_unbuffered():
    """Bodies are passed on as they come, chunks included."""
    with proxy(NGINX, [program("nginx"), "-c", "{}"], more="proxy_request_buffering off;") as front:
        return forwards_what_is_counted(front)


run([through_haproxy, through_nginx, through_nginx_unbuffered])
