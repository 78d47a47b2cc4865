"""An HTTP server for one file, with ranges, that can be told to break off.

Usage: range_server.py FILE LOG BREAKS
  FILE    served at every path; its entity tag is made of its size and modification time
  LOG     gets a line for each request: its Range header or "-", and the status
  BREAKS  so many responses end after half of what they announce

Prints its port.
"""

import http.server
import os
import sys

path, log, breaks = sys.argv[1], sys.argv[2], int(sys.argv[3])


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global breaks
        if self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", self.path.replace("/moved", "", 1))
            self.send_header("Content-Length", "0")
            self.send_header("ETag", '"of-the-redirect"')
            self.end_headers()
            return
        with open(path, "rb") as file:
            data = file.read()
        status = os.stat(path)
        tag = f'"{status.st_size}-{status.st_mtime_ns}"'
        wanted = self.headers.get("Range")
        start = 0
        if wanted and self.headers.get("If-Range", tag) == tag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        with open(log, "a") as file:
            file.write(f"{wanted or '-'} {416 if start >= len(data) else 206 if start else 200}\n")
        if start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", tag)
        self.send_header("Connection", "close")
        self.end_headers()
        body = data[start:]
        if breaks > 0:
            breaks -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
