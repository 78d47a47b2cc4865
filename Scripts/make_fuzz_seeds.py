#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets that no editor can write: Tests/FuzzTests/Corpus/{gguf,safetensors,tokenizer,http,multipart}.

Text seeds beside them are written by hand; inputs that once broke something are named regression-* and never touched here."""
import io
import json
import pathlib
import struct
import tarfile

corpus = pathlib.Path(__file__).resolve().parent.parent / "Tests" / "FuzzTests" / "Corpus"


def write(target, name, data):
    folder = corpus / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


# GGUF: numbers are little endian, texts have a 64-bit length before them.
def text(value):
    return struct.pack("<Q", len(value.encode())) + value.encode()


FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}


def value(kind, content):
    if kind == 8:
        return text(content)
    if kind == 9:
        element, items = content
        return struct.pack("<IQ", element, len(items)) + b"".join(value(element, item) for item in items)
    return struct.pack("<" + FORMATS[kind], content)


def gguf(pairs, tensors, version=3, alignment=32, cut=0):
    """tensors: (name, dimensions, type, bytes)."""
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs))
    for key, kind, content in pairs:
        out += text(key) + struct.pack("<I", kind) + value(kind, content)
    offset = 0
    data = b""
    for name, dimensions, kind, content in tensors:
        out += text(name) + struct.pack("<I", len(dimensions)) + b"".join(struct.pack("<Q", d) for d in dimensions) + struct.pack("<IQ", kind, offset)
        data += content + bytes(-len(content) % alignment)
        offset = len(data)
    if tensors:
        out += bytes(-len(out) % alignment) + data
    return out[: len(out) - cut]


floats = struct.pack("<8f", *range(8))
every = [(f"k{kind}", kind, 1) for kind in FORMATS] + [("s", 8, "text é"), ("a", 9, (8, ["a", "", "long enough for the heap"])), ("n", 9, (6, [1.5, -2]))]
write("gguf", "every-type", gguf(every, []))
write("gguf", "arrays", gguf([(f"a{kind}", 9, (kind, [0, 1])) for kind in FORMATS], []))
write("gguf", "two-tensors", gguf([("general.architecture", 8, "llama")], [("a", [8], 0, floats), ("b", [4, 2], 1, floats[:16])]))
write("gguf", "version-2", gguf([], [("w", [32], 2, bytes(18))], version=2))
write("gguf", "alignment-8", gguf([("general.alignment", 4, 8)], [("a", [1, 1, 1, 1], 0, floats[:4]), ("b", [2], 0, floats[:8])], alignment=8))
write("gguf", "cut", gguf([], [("w", [8], 0, floats)], cut=4))
model = [
    ("general.architecture", 8, "llama"), ("llama.block_count", 4, 1), ("llama.context_length", 4, 64), ("llama.embedding_length", 4, 8),
    ("llama.feed_forward_length", 4, 16), ("llama.attention.head_count", 4, 2), ("llama.attention.head_count_kv", 4, 1),
    ("llama.attention.layer_norm_rms_epsilon", 6, 1e-5), ("llama.rope.freq_base", 6, 10000.0), ("llama.vocab_size", 4, 5),
]
pieces = ["<unk>", "<s>", "</s>", "▁a", "b"]
sentencepiece = [
    ("tokenizer.ggml.model", 8, "llama"), ("tokenizer.ggml.tokens", 9, (8, pieces)), ("tokenizer.ggml.scores", 9, (6, [0, 0, 0, -1, -2])),
    ("tokenizer.ggml.token_type", 9, (5, [2, 3, 3, 1, 1])), ("tokenizer.ggml.bos_token_id", 4, 1), ("tokenizer.ggml.eos_token_id", 4, 2),
    ("tokenizer.ggml.unknown_token_id", 4, 0), ("tokenizer.chat_template", 8, "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"),
]
pairs = [
    ("tokenizer.ggml.model", 8, "gpt2"), ("tokenizer.ggml.pre", 8, "smollm"), ("tokenizer.ggml.tokens", 9, (8, ["H", "e", "l", "o", "He", "ll", "Hell", "<|im_end|>"])),
    ("tokenizer.ggml.token_type", 9, (5, [1] * 7 + [3])), ("tokenizer.ggml.merges", 9, (8, ["H e", "l l", "He ll"])), ("tokenizer.ggml.eos_token_id", 4, 7),
]
write("gguf", "model-sentencepiece", gguf(model + sentencepiece, [("token_embd.weight", [8], 0, floats)]))
write("gguf", "model-byte-pairs", gguf(model + pairs, [("token_embd.weight", [8], 0, floats)]))
lora = [("general.architecture", 8, "llama"), ("general.type", 8, "adapter"), ("adapter.type", 8, "lora"), ("adapter.lora.alpha", 6, 8.0)]
write("gguf", "adapter-shapes", gguf(lora, [("blk.0.attn_q.weight.lora_a", [8, 1], 0, floats), ("blk.0.attn_q.weight.lora_b", [1, 8], 0, floats)]))


# safetensors: the header's length, the header, the data.
def safetensors(header, data=b"", length=None, padding=0):
    body = (header if isinstance(header, str) else json.dumps(header, separators=(",", ":"))).encode() + b" " * padding
    return struct.pack("<Q", len(body) if length is None else length) + body + data


def entry(kind, shape, begin, end):
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


write("safetensors", "empty", safetensors("{}"))
write("safetensors", "three", safetensors(
    {"__metadata__": {"format": "pt"}, "a": entry("F32", [2], 0, 8), "b": entry("F16", [1, 3], 8, 14), "c": entry("BF16", [], 14, 16)}, bytes(range(16)), padding=3))
write("safetensors", "small-types", safetensors({"f": entry("F4", [2], 0, 1), "g": entry("F8_E4M3", [1], 1, 2), "z": entry("I64", [0, 3], 2, 2)}, b"\x7f\x80"))
write("safetensors", "hole", safetensors({"a": entry("U8", [1], 0, 1), "b": entry("U8", [1], 2, 3)}, b"abc"))
write("safetensors", "overlap", safetensors({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, b"abc"))
write("safetensors", "tail", safetensors({"a": entry("U8", [1], 0, 1)}, b"ab"))
write("safetensors", "length-2-63", safetensors("{}", length=1 << 63))
write("safetensors", "twice", safetensors('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"a"))
names = {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": entry("F32", [1, 8], 0, 32), "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": entry("F32", [8, 1], 32, 64)}
write("safetensors", "adapter-shapes", safetensors(names, floats * 2))
packed = io.BytesIO()
with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
    for name, content in (("a/adapter_config.json", b'{"peft_type":"LORA","r":1,"lora_alpha":1,"target_modules":["q_proj"]}'), ("a/adapter_model.safetensors", safetensors(names, floats * 2))):
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
write("safetensors", "archive", packed.getvalue().rstrip(b"\0") + bytes(1024))

# Tokenizer: the first byte chooses the vocabulary, U+0001 changes the origin.
samples = [
    "Hello, World! 123 4567  \n\n\tdef f(x):\r\n    return x's\u0001<|im_start|>user\n\u0001<|im_end|>", "Zoë 🙂👩‍👩‍👧 日本語 नमस्ते ½ ٣\u00a0\u3000", "<s>▁▁</s><unk>\u0001<s>[INST]<0x0A>",
    "don't I'LL we've  \u0301e\u0301 ﬁ \u200d\ufeff", "\u0001<|endoftext|>\u0001<|endo\u0001ftext|>", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa   ", "",
]
for index in range(8):
    for place, sample in enumerate(samples):
        if (index + place) % 3 == 0:
            write("tokenizer", f"{index}-{place}", bytes([index]) + sample.encode())
write("tokenizer", "broken-utf-8", b"\x06\xf0\x9f\x98 \xed\xa0\x80 \xff")


# HTTP: line ends matter.
def http(name, message):
    write("http", name, message.replace("\n", "\r\n").encode("latin-1"))


http("get", "GET /v1/models?x=%20y HTTP/1.1\nHost: localhost:8080\nAccept: */*\n\n")
http("post", "POST /v1/chat/completions HTTP/1.1\nHost: a\nContent-Type: application/json\nContent-Length: 2\n\n{}")
http("chunked", "POST /x HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nTrailer: t\n\n5;ext=1\nhello\n3\nabc\n0\nt: v\n\n")
http("pipelined", "GET / HTTP/1.1\nHost: a\n\nPOST / HTTP/1.1\nHost: a\nContent-Length: 3\n\nabcHEAD /h HTTP/1.1\nHost: a\nConnection: close\n\n")
http("expect", "PUT /f HTTP/1.1\nHost: [::1]:80\nExpect: 100-continue\nContent-Length: 1\n\nx")
http("absolute", "GET http://b.example/p?q HTTP/1.1\nHost: b.example\n\n")
http("options", "OPTIONS * HTTP/1.1\nHost: a\n\n")
http("http-1-0", "GET / HTTP/1.0\nConnection: keep-alive\n\nGET / HTTP/1.0\n\n")
http("two-lengths", "POST / HTTP/1.1\nHost: a\nContent-Length: 1\nContent-Length: 1\n\nx")
http("length-and-chunked", "POST / HTTP/1.1\nHost: a\nContent-Length: 1\nTransfer-Encoding: chunked\n\n0\n\n")
http("fold", "GET / HTTP/1.1\nHost: a\nX: a\n b\n\n")
http("upgrade", "GET / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: h2c\n\nGET / HTTP/1.1\nHost: a\n\n")
write("http", "bare-line-feeds", b"GET / HTTP/1.1\nHost: a\n\n")
write("http", "preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
write("http", "bare-cr", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb: c\r\n\r\n")


def multipart(name, message, content_type="multipart/form-data; boundary=XX"):
    write("multipart", name, content_type.encode() + b"\n" + message.replace("\n", "\r\n").encode())


multipart("file", '--XX\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\nContent-Type: application/jsonl\n\n{"a":1}\n\n--XX\nContent-Disposition: form-data; name="purpose"\n\nfine-tune\n--XX--\n')
multipart("empty-part", '--XX\nContent-Disposition: form-data; name=a\n\n\n--XX--')
multipart("preamble", 'before\n--XX \t\nContent-Disposition: form-data; name="q\\"\\\\"\n\n-\n--X\n--XY\n--XX--after')
multipart("no-end", '--XX\nContent-Disposition: form-data; name="a"\n\nabc')
multipart("star", "--XX\nContent-Disposition: form-data; name=\"a\"; filename*=UTF-8''%e2%82%ac\n\nx\n--XX--")
multipart("quoted-boundary", "--a b\nContent-Disposition: form-data; name=a\n\nx\n--a b--", 'Multipart/Form-Data; charset=utf-8; boundary="a b"')
multipart("base64", "--XX\nContent-Disposition: form-data; name=a\nContent-Transfer-Encoding: base64\n\nx\n--XX--")
print(f"seeds are in {corpus}")
