"""PEFT adapters for SmolLM2-135M out of thin air, and requests that carry them: standard library only.

`make_adapter(seed, rank)` gives (adapter_config.json, adapter_model.safetensors) as bytes, with random pairs on every linear layer, strong
enough that no two seeds give the same greedy answer."""
import array
import json
import random
import struct

HIDDEN, KV, INTERMEDIATE, LAYERS = 576, 192, 1536, 30
# name: (module, in, out)
PROJECTIONS = {
    "q_proj": ("self_attn", HIDDEN, HIDDEN), "k_proj": ("self_attn", HIDDEN, KV), "v_proj": ("self_attn", HIDDEN, KV), "o_proj": ("self_attn", HIDDEN, HIDDEN),
    "gate_proj": ("mlp", HIDDEN, INTERMEDIATE), "up_proj": ("mlp", HIDDEN, INTERMEDIATE), "down_proj": ("mlp", INTERMEDIATE, HIDDEN),
}


def floats(generator, count, size):
    """`count` numbers of magnitude up to `size`: the random bytes are the mantissas of floats from 1 to 2."""
    words = array.array("I", generator.randbytes(4 * count))
    ones = array.array("f", array.array("I", [(word & 0x7FFFFF) | 0x3F800000 for word in words]).tobytes())
    return array.array("f", [(one - 1.5) * 2 * size for one in ones])


def make_adapter(seed, rank=4, strength=0.2, projections=tuple(PROJECTIONS)):
    generator = random.Random(seed)
    header, body, end = {"__metadata__": {"format": "pt"}}, [], 0
    for layer in range(LAYERS):
        for name in projections:
            module, width, height = PROJECTIONS[name]
            path = f"base_model.model.model.layers.{layer}.{module}.{name}"
            for half, shape, size in (("lora_A", [rank, width], 0.05), ("lora_B", [height, rank], strength)):
                data = floats(generator, shape[0] * shape[1], size).tobytes()
                header[f"{path}.{half}.weight"] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + len(data)]}
                body.append(data)
                end += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct", "r": rank, "lora_alpha": rank,
        "target_modules": list(projections), "bias": "none", "lora_dropout": 0.0,
    }
    return json.dumps(config).encode(), struct.pack("<Q", len(text)) + text + b"".join(body)


def multipart(fields, boundary=b"graft-test-boundary"):
    """(content type, body) of a form; values are bytes, or (file name, bytes)."""
    body = b""
    for name, value in fields:
        filename, value = value if isinstance(value, tuple) else (None, value)
        body += b"--" + boundary + b'\r\ncontent-disposition: form-data; name="' + name.encode() + b'"'
        body += (b'; filename="' + filename.encode() + b'"' if filename else b"") + b"\r\n\r\n" + value + b"\r\n"
    return "multipart/form-data; boundary=" + boundary.decode(), body + b"--" + boundary + b"--\r\n"


def upload_form(name, adapter):
    config, weights = adapter
    return multipart([("name", name.encode()), ("adapter_config", ("adapter_config.json", config)), ("adapter_model", ("adapter_model.safetensors", weights))])


if __name__ == "__main__":
    import pathlib
    import sys

    if len(sys.argv) not in (2, 3):
        sys.exit("usage: adapter_files.py FOLDER [SEED]: a random rank-4 adapter for SmolLM2-135M, to try things with")
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    for file_name, content in zip(("adapter_config.json", "adapter_model.safetensors"), make_adapter(int((sys.argv + ["1"])[2]))):
        (folder / file_name).write_bytes(content)
