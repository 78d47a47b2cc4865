"""Files that somebody made to break a server: adapters as GGUF and safetensors over HTTP, and model files at the start.

Each upload is refused with 422 and a message that names what is wrong, nothing of it is listed, and the same process answers the next chat. The bad
GGUF files have one thing wrong each, in the classes of llama.cpp's own loader tests (tests/test-gguf.cpp): magic, version, counts, keys, value types,
alignment, tensor names, dimensions, types, offsets, and data that is missing or short.

usage: hostile_files_test.py      (GRAFT_BASE_URL and GRAFT_SERVER_PID name a server of SmolLM2 with directories of its own, GRAFT_BINARY the command)

The last line is "N passed, M failed"."""
import json
import math
import os
import pathlib
import re
import signal
import struct
import subprocess
import tempfile
import time

import httpx

from adapter_files import HIDDEN, make_adapter, multipart, upload_form
from checks import check, run

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BASE = os.environ.get("GRAFT_BASE_URL", "http://127.0.0.1:8080").rstrip("/")
GRAFT = os.environ.get("GRAFT_BINARY", str(ROOT / ".build/release/graft"))
http = httpx.Client(base_url=BASE, timeout=120)


# ------------------------------------------------------------------------------------------------------------------ GGUF


def text(value):
    value = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(value)) + value


class GGUF:
    """An adapter of rank 1 on one projection, valid until something is changed. Attributes named raw_… replace what would be written there."""

    def __init__(self):
        self.magic, self.version, self.tensor_count, self.pair_count, self.alignment = b"GGUF", 3, None, None, 32
        self.pairs = [
            text("general.architecture") + struct.pack("<I", 8) + text("llama"), text("general.type") + struct.pack("<I", 8) + text("adapter"),
            text("adapter.type") + struct.pack("<I", 8) + text("lora"), text("adapter.lora.alpha") + struct.pack("<If", 6, 1.0),
        ]
        self.tensors = [
            {"name": "blk.0.attn_q.weight.lora_a", "dimensions": [HIDDEN, 1]}, {"name": "blk.0.attn_q.weight.lora_b", "dimensions": [1, HIDDEN]},
        ]
        self.cut = 0
        self.without_data = False

    def pair(self, key, kind, content):
        self.pairs.append(text(key) + struct.pack("<I", kind) + content)

    def bytes(self):
        out = self.magic + struct.pack("<I", self.version)
        out += struct.pack("<Q", len(self.tensors) if self.tensor_count is None else self.tensor_count)
        out += struct.pack("<Q", len(self.pairs) if self.pair_count is None else self.pair_count) + b"".join(self.pairs)
        data = b""
        for tensor in self.tensors:
            dimensions = tensor["dimensions"]
            out += tensor.get("raw_name", text(tensor["name"])) + struct.pack("<I", tensor.get("dimension_count", len(dimensions)))
            out += b"".join(struct.pack("<Q", extent) for extent in dimensions) + struct.pack("<I", tensor.get("type", 0))
            out += struct.pack("<Q", tensor.get("offset", len(data)))
            size = tensor.get("size", 4 * min(math.prod(dimensions), 1 << 16))
            data += struct.pack("<f", 0.01) * (size // 4)
            data += bytes(-len(data) % self.alignment)
        if self.without_data:
            return out
        out += bytes(-len(out) % self.alignment) + data
        return out[: len(out) - self.cut]


def bad_ggufs():
    """(what, a word of the message, file)."""
    cases = []

    def case(what, word, change):
        file = GGUF()
        change(file)
        cases.append((what, word, file.bytes()))

    def tensor(**changes):
        return lambda file: file.tensors[0].update(changes)

    def pair(key, kind, content):
        return lambda file: file.pair(key, kind, content)

    # The header.
    case("another magic", "not a GGUF", lambda f: setattr(f, "magic", b"GGUX"))
    case("version 0", "version 0", lambda f: setattr(f, "version", 0))
    case("version 1", "version 1", lambda f: setattr(f, "version", 1))
    case("a version of the future", "version 4", lambda f: setattr(f, "version", 4))
    case("big endian", "big-endian", lambda f: setattr(f, "version", 3 << 24))
    case("2^64-1 tensors", "announces 18446744073709551615 tensors", lambda f: setattr(f, "tensor_count", 2**64 - 1))
    case("2^63 pairs", "metadata pairs", lambda f: setattr(f, "pair_count", 2**63))
    case("cut inside the header", "", lambda f: (setattr(f, "without_data", True), setattr(f, "tensor_count", 2), f.tensors.pop()))
    case("a pair too many", "", lambda f: setattr(f, "pair_count", len(f.pairs) + 1))
    # Keys and values.
    case("a key of 2^64-1 bytes", "18446744073709551615 bytes", lambda f: f.pairs.append(struct.pack("<Q", 2**64 - 1) + b"k" * 16))
    case("an empty key", "is empty", pair("", 4, bytes(4)))
    case("a key twice", "twice", pair("general.type", 8, text("adapter")))
    case("value type 13", "value type 13", pair("k", 13, bytes(4)))
    case("value type 2^32-1", "value type 4294967295", pair("k", 2**32 - 1, bytes(4)))
    case("a string of 2^63-1 bytes", "9223372036854775807 bytes", pair("k", 8, struct.pack("<Q", 2**63 - 1)))
    case("an array of an unknown type", "value type 99", pair("k", 9, struct.pack("<IQ", 99, 1) + bytes(4)))
    case("an array whose size wraps around", "2305843009213693953", pair("k", 9, struct.pack("<IQ", 10, 2**61 + 1) + bytes(8)))
    case("an array of arrays", "array of arrays", pair("k", 9, struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 0, 0)))
    case("alignment 0", "general.alignment", pair("general.alignment", 4, struct.pack("<I", 0)))
    case("alignment 24", "general.alignment", pair("general.alignment", 4, struct.pack("<I", 24)))
    case("an alignment of another type", "general.alignment", pair("general.alignment", 10, struct.pack("<Q", 32)))
    # Tensors.
    case("a name of 65 bytes", "65 bytes", tensor(name="blk.0.attn_q." + "x" * 52))
    case("a name of 2^62 bytes", "", tensor(raw_name=struct.pack("<Q", 2**62) + b"a"))
    case("an empty name", "is empty", tensor(name=""))
    case("a name twice", "occurs twice", tensor(name="blk.0.attn_q.weight.lora_b"))
    case("no dimensions", "0 dimensions", tensor(dimensions=[], size=4))
    case("five dimensions", "5 dimensions", tensor(dimensions=[HIDDEN, 1, 1, 1, 1]))
    case("2^32-1 dimensions", "4294967295 dimensions", tensor(dimension_count=2**32 - 1))
    case("a negative extent", "18446744073709551615", tensor(dimensions=[2**64 - 1, 1], size=64))
    case("an extent of zero", "0 elements", tensor(dimensions=[HIDDEN, 0], size=64))
    case("extents that wrap around", "2^63", tensor(dimensions=[2**32, 2**32, 4], size=64))
    case("bytes that wrap around", "2^63", tensor(dimensions=[2**62], size=64))
    # One tensor whose bytes end 16 before 2^64, where rounding up to the alignment wraps around; and two that are possible alone and not together.
    case("bytes whose padding wraps around", "2^63", tensor(type=24, dimensions=[2**63 - 8, 2], size=64))
    case("bytes whose sum wraps around", "", lambda f: [t.update(type=24, dimensions=[0x7FFFFFFFFFFFFFC0], size=64) for t in f.tensors])
    case("an unknown type", "type 999", tensor(type=999))
    case("a type that was removed", "type 4", tensor(type=4))
    case("rows that are no whole blocks", "multiple of 32", tensor(type=8, dimensions=[HIDDEN + 8, 1]))
    case("an offset off the alignment", "alignment", tensor(offset=4))
    case("an offset behind the file", "the file has", tensor(offset=1 << 40))
    case("an offset that wraps around", "18446744073709551584", tensor(offset=2**64 - 32))
    case("tensors over one another", "inside tensor", lambda f: f.tensors[1].update(offset=0))
    case("no data", "the file has", lambda f: setattr(f, "without_data", True))
    case("short data", "the file has", lambda f: setattr(f, "cut", 64))
    # What a GGUF may be and an adapter may not.
    case("a third dimension", "two dimensions", tensor(dimensions=[HIDDEN, 1, 2], size=8 * HIDDEN))
    case("rank 4096", "rank 4096", lambda f: (f.tensors[0].update(dimensions=[HIDDEN, 4096], size=4 * HIDDEN * 4096), f.tensors[1].update(dimensions=[4096, HIDDEN], size=4 * HIDDEN * 4096)))
    case("a lone A", "other half", lambda f: f.tensors.pop())
    case("a transposed A", "transposed", tensor(dimensions=[1, HIDDEN]))
    case("a layer that is not there", "layers 0 to 29", tensor(name="blk.30.attn_q.weight.lora_a"))
    case("another architecture", "qwen2", lambda f: f.pairs.__setitem__(0, text("general.architecture") + struct.pack("<I", 8) + text("qwen2")))
    case("a whole model", "adapter", lambda f: f.pairs.__setitem__(1, text("general.type") + struct.pack("<I", 8) + text("model")))
    case("an alpha that is no number", "finite", lambda f: f.pairs.__setitem__(3, text("adapter.lora.alpha") + struct.pack("<If", 6, math.nan)))
    return cases


# ----------------------------------------------------------------------------------------------------------- safetensors


def bad_safetensors():
    """(what, a word of the message, configuration, weights)."""
    config, weights = make_adapter(60, rank=2, projections=("q_proj",))
    size = int.from_bytes(weights[:8], "little")
    header, data = json.loads(weights[8 : 8 + size]), weights[8 + size :]
    first, last = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", "base_model.model.model.layers.29.self_attn.q_proj.lora_B.weight"
    begin, end = header[first]["data_offsets"]

    def rebuilt(change=lambda h: None, body=data, length=None, raw=lambda t: t):
        copy = json.loads(json.dumps(header))
        change(copy)
        coded = raw(json.dumps(copy)).encode()
        return (len(coded) if length is None else length).to_bytes(8, "little") + coded + body

    def other_rank(rank):
        def change(h):
            h[first].update(shape=[rank, HIDDEN], data_offsets=[0, 4 * rank * HIDDEN])
            for name, entry in h.items():
                if name not in (first, "__metadata__"):
                    entry["data_offsets"] = [offset + 4 * (rank - 2) * HIDDEN for offset in entry["data_offsets"]]
        return rebuilt(change, bytes(4 * (rank - 2) * HIDDEN) + data)

    doubled = json.dumps(first) + ": " + json.dumps(header[first]) + ", "
    return [(what, word, config, file) for what, word, file in [
        ("a length of 2^63", "9223372036854775808", rebuilt(length=2**63)), ("a length of 2^64-1", "18446744073709551615", rebuilt(length=2**64 - 1)),
        ("a length beyond the file", "cut short", rebuilt(length=len(weights))), ("no file at all", "", b""),
        ("a hole", "belong to no tensor", rebuilt(lambda h: h.pop(first))),
        ("an overlap", "inside tensor", rebuilt(lambda h: h[last].update(data_offsets=[o - 4 for o in h[last]["data_offsets"]]), data[:-4])),
        ("a name twice", "twice", rebuilt(raw=lambda t: "{" + doubled + t[1:])),
        ("a shape that is not its bytes", "takes", rebuilt(lambda h: h[first].update(shape=[3, HIDDEN]))),
        ("a shape that wraps around", "", rebuilt(lambda h: h[first].update(shape=[2**62, 4]))),
        ("bytes behind the end", "belong to no tensor", rebuilt(body=data + b"tail")), ("bytes missing at the end", "cut short", rebuilt(body=data[:-4])),
        ("a NaN", "nan", rebuilt(body=data[:begin] + struct.pack("<f", math.nan) + data[begin + 4 :])),
        ("an infinity", "inf", rebuilt(body=data[: end - 4] + struct.pack("<f", -math.inf) + data[end:])),
        ("another base", "another base", rebuilt(lambda h: h[first].update(shape=[HIDDEN, 2][:1] + [2]) or h[first].update(shape=[4, HIDDEN // 2]))),
        ("a transposed A", "transposed", rebuilt(lambda h: h[first].update(shape=[HIDDEN, 2]))),
        ("three dimensions", "two dimensions", rebuilt(lambda h: h[first].update(shape=[2, HIDDEN, 1]))),
        ("rank 4096", "4096", other_rank(4096)),
        ("a lone A", "other half", rebuilt(lambda h: h.pop(last), data[: header[last]["data_offsets"][0]])),
        ("a layer that is not there", "layers 0 to 29", rebuilt(lambda h: h.update({first.replace("layers.0.", "layers.30."): h.pop(first)}))),
        ("a pickle", "", b"\x80\x02}q\x00."),
    ]]


def refused(body, content_type):
    response = http.post("/v1/adapters", content=body, headers={"content-type": content_type})
    assert response.status_code == 422, (response.status_code, response.text[:300])
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and 20 < len(error["message"]) < 1000 and "\n" not in error["message"], error
    return error["message"]


def holds(cases):
    """Every upload is refused by name; none of them is listed; the process is the same and still answers."""
    before = http.get("/v1/adapters").json()
    wrong = []
    for what, word, (content_type, body) in cases:
        try:
            message = refused(body, content_type)
            assert word in message.lower() or word in message, f"expected '{word}' in: {message}"
        except (AssertionError, httpx.HTTPError) as error:
            wrong.append(f"{what}: {error}")
    assert not wrong, "\n  " + "\n  ".join(wrong)
    assert http.get("/v1/adapters").json() == before
    assert http.get("/v1/adapters/hostile").status_code == 404
    os.kill(int(os.environ["GRAFT_SERVER_PID"]), 0)
    answer = http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1})
    assert answer.status_code == 200, answer.text


@check
def bad_gguf_adapters_are_refused():
    cases = bad_ggufs()
    assert len(cases) >= 28
    holds([(what, word, multipart([("name", b"hostile"), ("gguf", ("a.gguf", file))])) for what, word, file in cases])


@check
def the_gguf_adapter_that_they_were_made_of_is_accepted():
    content_type, body = multipart([("name", b"harmless"), ("gguf", ("a.gguf", GGUF().bytes()))])
    response = http.post("/v1/adapters", content=body, headers={"content-type": content_type})
    assert response.status_code == 200 or response.status_code == 201, response.text
    assert http.delete("/v1/adapters/harmless").status_code < 300


@check
def bad_safetensors_adapters_are_refused():
    holds([(what, word, upload_form("hostile", (config, weights))) for what, word, config, weights in bad_safetensors()])


# ------------------------------------------------------------------------------------------------------- models at the start


def serve(model, directory):
    environment = os.environ | {"GRAFT_DATA_DIRECTORY": f"{directory}/Data", "GRAFT_ADAPTERS_DIRECTORY": f"{directory}/Adapters"}
    return subprocess.Popen([GRAFT, "serve", "--port", "0", "--model", str(model)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def refused_at_the_start(model, directory, word):
    started = time.monotonic()
    process = serve(model, directory)
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"the server started with {model}") from None
    assert process.returncode > 0, (process.returncode, err)
    # The log of the start may stand before the cause, which is the last line.
    cause = err.strip().splitlines()[-1]
    assert word in cause and model.name in cause, err
    assert time.monotonic() - started < 10, f"refused after {time.monotonic() - started:.1f} s"


@check
def a_model_that_is_no_whole_model_ends_the_server_with_one_line():
    tiny = (ROOT / "Tests/Golden/tiny/llama.gguf").read_bytes()
    default = ROOT / "Models/SmolLM2-135M-Instruct.Q4_1.gguf"
    with tempfile.TemporaryDirectory() as directory:
        for name, content, word in [
            ("truncated.gguf", tiny[: len(tiny) * 2 // 3], "cut short"), ("header.gguf", tiny[:1000], ""), ("empty.gguf", b"", "not a GGUF"),
            ("text.gguf", b"<html>not found</html>", "not a GGUF"), ("version.gguf", tiny[:4] + struct.pack("<I", 9) + tiny[8:], "version 9"),
        ]:
            path = pathlib.Path(directory) / name
            path.write_bytes(content)
            refused_at_the_start(path, directory, word)
        path = pathlib.Path(directory) / "half.gguf"
        with open(default, "rb") as whole, open(path, "wb") as half:
            half.write(whole.read(default.stat().st_size // 2))
        refused_at_the_start(path, directory, "cut short")


@check
def a_template_without_end_costs_a_request_and_not_the_server():
    tiny = (ROOT / "Tests/Golden/tiny/gemma3.gguf").read_bytes()
    place = tiny.index(b"tokenizer.chat_template") + len(b"tokenizer.chat_template") + 4
    length = struct.unpack_from("<Q", tiny, place)[0]
    loop = b"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    assert len(loop) <= length
    with tempfile.TemporaryDirectory() as directory:
        model = pathlib.Path(directory) / "looping.gguf"
        model.write_bytes(tiny[: place + 8] + loop.ljust(length) + tiny[place + 8 + length :])
        process = serve(model, directory)
        try:
            address = None
            while address is None:
                line = process.stderr.readline()
                assert line, "the server ended"
                found = re.search(r"address=(\S+)", line)
                address = found and found.group(1)
            with httpx.Client(base_url=address, timeout=60) as looping:
                for _ in range(2):
                    response = looping.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hi"}]})
                    assert response.status_code == 400 and "steps" in response.json()["error"]["message"], response.text
                assert looping.get("/livez").status_code == 200
                assert looping.post("/v1/completions", json={"prompt": "the", "max_tokens": 1}).status_code == 200
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
            assert process.returncode == 0, process.returncode
        finally:
            process.kill()


if __name__ == "__main__":
    run()
