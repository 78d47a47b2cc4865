"""Requests whose framing is valid, broken or open to two readings, with what the server says to each: RFC 9110 and 9112, and RELIABILITY R01 to R05.

Each entry ends with a hidden request for /health wherever a reader could take a part of it for one: a server or a proxy that counts a request for
/health has been led astray. `h11` is what that parser makes of it, where it differs from ours on purpose."""
import dataclasses

HIDDEN = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
JSON = b'{"content":"a"}'


@dataclasses.dataclass
class Entry:
    rule: str
    name: str
    raw: bytes
    status: int
    # Why h11 says something else; None where it agrees.
    h11: str | None = None


def post(fields, body, line=b"POST /tokenize HTTP/1.1"):
    return line + b"\r\nHost: localhost\r\nContent-Type: application/json\r\n" + fields + b"\r\n" + body


def length(value):
    return b"Content-Length: " + value + b"\r\n"


def get(fields=b"", line=b"GET /version HTTP/1.1", host=b"Host: localhost\r\n"):
    return line + b"\r\n" + host + fields + b"\r\n"


CHUNKED = b"Transfer-Encoding: chunked\r\n"
WHOLE = b"f\r\n" + JSON + b"\r\n0\r\n\r\n"
TWICE = length(str(len(JSON)).encode())

TABLE = [
    # What must be taken.
    Entry("R06", "plain", get(), 200),
    Entry("R06", "with a length", post(length(b"15"), JSON), 200),
    Entry("R06", "length with leading zeros", post(length(b"0015"), JSON), 200),
    Entry("R06", "chunked", post(CHUNKED, WHOLE), 200),
    Entry("R06", "chunked, in capitals", post(b"TRANSFER-ENCODING: CHUNKED\r\n", WHOLE), 200),
    Entry("R06", "two chunks, hexadecimal in both cases", post(CHUNKED, b"A\r\n" + JSON[:10] + b"\r\n5\r\n" + JSON[10:] + b"\r\n0\r\n\r\n"), 200),
    Entry("R06", "chunk extension", post(CHUNKED, b"f;note=1\r\n" + JSON + b"\r\n0\r\n\r\n"), 200),
    Entry("R06", "trailers", post(CHUNKED, b"f\r\n" + JSON + b"\r\n0\r\nX-Sum: 1\r\n\r\n"), 200),
    Entry("R06", "empty lines before a request", b"\r\n" + get(), 200, "refuses them; RFC 9112 2.2 asks servers to ignore at least one"),
    Entry("R06", "absolute target", get(line=b"GET http://localhost/version HTTP/1.1"), 200),
    Entry("R06", "no space after the colon", get(b"X-A:1\r\n"), 200),
    Entry("R06", "empty value", get(b"X-A:\r\n"), 200),
    Entry("R06", "bytes beyond ASCII in a value", get(b"X-A: \xc3\xa9\r\n"), 200),
    Entry("R06", "a length of zero", get(b"Content-Length: 0\r\n"), 200),
    # R01: two framings.
    Entry("R01", "length and chunked", post(TWICE + CHUNKED, b"0\r\n\r\n" + HIDDEN), 400, "takes the chunks, as RFC 9112 6.3 allows"),
    Entry("R01", "chunked and length", post(CHUNKED + length(b"6"), b"0\r\n\r\nG" + HIDDEN), 400, "takes the chunks, as RFC 9112 6.3 allows"),
    Entry("R01", "chunked twice", post(CHUNKED + CHUNKED, WHOLE + HIDDEN), 400),
    Entry("R01", "chunked is not last", post(b"Transfer-Encoding: chunked, identity\r\n", WHOLE + HIDDEN), 400),
    Entry("R01", "another coding before chunked", post(b"Transfer-Encoding: gzip, chunked\r\n", WHOLE + HIDDEN), 501),
    Entry("R01", "identity", post(b"Transfer-Encoding: identity\r\n" + TWICE, JSON + HIDDEN), 400),
    Entry("R01", "a coding with a tab in it", post(b"Transfer-Encoding: \x0bchunked\r\n", WHOLE + HIDDEN), 400),
    Entry("R01", "chunked in HTTP/1.0", post(CHUNKED, WHOLE + HIDDEN, b"POST /tokenize HTTP/1.0"), 400, "takes the chunks"),
    # R02: lengths.
    *(Entry("R02", f"length {value!r}", post(length(value), JSON + HIDDEN), 400)
      for value in (b"+15", b"0xf", b"-0", b"15,16", b"18446744073709551616", b"1 5", b"15a", b"-15")),
    Entry("R02", "empty length", post(b"Content-Length:\r\n", JSON + HIDDEN), 400),
    Entry("R02", "equal lengths in a list", post(length(b"15, 15"), JSON + HIDDEN), 400, "takes equal values as one, as RFC 9110 8.6 allows"),
    Entry("R02", "two equal lengths", post(TWICE + TWICE, JSON + HIDDEN), 400, "takes equal values as one, as RFC 9110 8.6 allows"),
    Entry("R02", "two lengths", post(TWICE + length(b"16"), JSON + HIDDEN), 400),
    # R03: chunks.
    *(Entry("R03", f"chunk size {size!r}", post(CHUNKED, size + b"\r\n" + JSON + b"\r\n0\r\n\r\n" + HIDDEN), 400)
      for size in (b"+f", b"+0", b"0xf", b"f_0", b"-1", b"", b" f", b"g")),
    Entry("R03", "chunk size of 17 digits", post(CHUNKED, b"0" * 16 + b"f\r\n" + JSON + b"\r\n0\r\n\r\n" + HIDDEN), 400, "takes up to 20 digits"),
    Entry("R03", "chunk size beyond 64 bits", post(CHUNKED, b"1" + b"0" * 16 + b"\r\n" + JSON + b"\r\n0\r\n\r\n" + HIDDEN), 400),
    Entry("R03", "chunk longer than its size", post(CHUNKED, b"4\r\n" + JSON + b"\r\n0\r\n\r\n" + HIDDEN), 400),
    Entry("R03", "chunk ended by a bare line feed", post(CHUNKED, b"f\n" + JSON + b"\n0\n\n" + HIDDEN), 400),
    Entry("R03", "length in the trailers", post(CHUNKED, b"f\r\n" + JSON + b"\r\n0\r\nContent-Length: 3\r\n\r\n" + HIDDEN), 400, "leaves trailers to its caller"),
    # R04: hosts.
    Entry("R04", "no host", get(host=b""), 400),
    Entry("R04", "two hosts", get(host=b"Host: localhost\r\nHost: localhost\r\n"), 400),
    Entry("R04", "host with a user", get(host=b"Host: me@localhost\r\n"), 400, "leaves the host to its caller"),
    Entry("R04", "host with a path", get(host=b"Host: localhost/a\r\n"), 400, "leaves the host to its caller"),
    # R05: fields and lines.
    Entry("R05", "space before the colon", get(b"X-A : 1\r\n"), 400),
    Entry("R05", "space before the colon of a length", post(b"Content-Length : 15\r\n", JSON + HIDDEN), 400),
    Entry("R05", "NUL in a value", get(b"X-A: a\0b\r\n"), 400),
    Entry("R05", "bare carriage return in a value", get(b"X-A: a\rTransfer-Encoding: chunked\r\n"), 400),
    Entry("R05", "bare line feed", b"GET /version HTTP/1.1\nHost: localhost\n\n", 400, "takes bare line feeds, as RFC 9112 2.2 allows"),
    Entry("R05", "a name that is no token", get(b"X(A): 1\r\n"), 400),
    Entry("R05", "a line without a colon", get(b"X-A\r\n"), 400),
    Entry("R05", "a folded line", get(b"X-A: 1\r\n 2\r\n"), 400, "unfolds, as RFC 9112 5.2 allows"),
    Entry("R05", "white space before the first field", b"GET /version HTTP/1.1\r\n Host: localhost\r\n\r\n", 400),
    Entry("R05", "two spaces in the request line", get(line=b"GET  /version HTTP/1.1"), 400),
    Entry("R05", "no version, which is HTTP/0.9", get(line=b"GET /version"), 505),
    Entry("R05", "a version of its own", get(line=b"GET /version HTTP/1.2"), 505, "takes any version"),
    Entry("R05", "HTTP/2", get(line=b"GET /version HTTP/2.0"), 505, "takes any version"),
    Entry("R05", "a method that is no token", get(line=b"G@T /version HTTP/1.1"), 400),
    Entry("R05", "a fragment in the target", get(line=b"GET /version#a HTTP/1.1"), 400, "leaves the target to its caller"),
]
