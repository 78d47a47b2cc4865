#!/usr/bin/env python3
"""Writes the adapters in Tests/Golden/adapters and the logits that PEFT gives with them.

For every adapter of ADAPTERS below, on the tiny model of the same architecture in Tests/Golden/tiny, a folder with:
  adapter_config.json, adapter_model.safetensors   as PEFT saves them, A and B random;
  adapter.gguf    the same converted by llama.cpp's convert_lora_to_gguf.py, where that converter honours all of it;
  expected.json   {"model": …, "tokens": […], "positions": […], "logits": [[…], …]}, as in Tests/Golden/tiny.

The adapter is read back from its folder by PEFT before the logits are computed, so nothing that the files do not hold can reach the reference; the base
weights come from the tiny GGUF. The numbers are large enough to move the logits by units.

Also Tests/AdaptersTests/Fixtures/patterns.json: what Python's `re` says of many patterns, by hand and at random, in the three ways in which PEFT uses them.

usage: make_adapter_fixtures.py --converter CONVERT_LORA_TO_GGUF.PY [--out DIRECTORY]
       make_adapter_fixtures.py --verify DIRECTORY
--verify loads <DIRECTORY>/<name>/ with PEFT, for adapters that Graft has written (GRAFT_EXPORT_ADAPTERS=DIRECTORY swift test --filter AdapterGoldenTests),
and compares their logits with expected.json; it also reads <name>/adapter.gguf with `gguf` and compares alpha / rank · B A with PEFT's own. Needs the PyPI packages torch, transformers, peft, safetensors, gguf and numpy, and for --converter a
checkout of llama.cpp.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

import make_tiny_models as tiny

ROOT = Path(__file__).resolve().parent.parent
TINY = ROOT / "Tests/Golden/tiny"
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass
class Adapter:
    name: str
    model: str
    config: dict
    dtype: torch.dtype = torch.float32
    gguf_type: str | None = "f32"  # None: the converter would drop rsLoRA and the patterns
    note: str = ""


ADAPTERS = [
    Adapter("llama", "llama", dict(r=4, lora_alpha=8, target_modules=ALL), note="every projection, rows of q and k to be interleaved"),
    Adapter("qwen2", "qwen2", dict(r=4, lora_alpha=8, target_modules=ALL), note="every projection, rows as they are"),
    Adapter(
        "qwen2-patterns", "qwen2",
        dict(r=4, lora_alpha=6, use_rslora=True, target_modules=ALL, rank_pattern={"k_proj": 2, r"layers\.1\.mlp\.(up|down)_proj": 3},
             alpha_pattern={"model.layers.0.self_attn.o_proj": 3, "down_proj": 2}),
        gguf_type=None, note="rsLoRA, other ranks and alphas by pattern"),
    Adapter("qwen3-bf16", "qwen3", dict(r=4, lora_alpha=4, target_modules="all-linear"), torch.bfloat16, "bf16", note="BF16, all-linear"),
    Adapter(
        "gemma3-some-layers", "gemma3", dict(r=4, lora_alpha=12, target_modules=r"(?:.*\.)?layers\.[1-46]\.(self_attn\.(q|v)|mlp\.(?:gate|down))_proj"),
        torch.float16, "f16", note="F16, a pattern with five of seven layers"),
]


def base(name):
    """(the tiny model's description, transformers' model with the weights of its GGUF)"""
    model = next(m for m in tiny.MODELS if m.name == name)
    other = AutoModelForCausalLM.from_config(model.configuration(), attn_implementation="eager").eval()
    weights = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in model.restore(TINY / f"{name}.gguf").items()}
    missing, unexpected = other.load_state_dict(weights, strict=False)
    other.tie_weights()
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    return model, other


def logits(model, tokens):
    with torch.no_grad():
        return model.eval()(torch.tensor([tokens])).logits[0].double().numpy()


def make(adapter, out, converter):
    folder = out / adapter.name
    folder.mkdir(parents=True, exist_ok=True)
    model, other = base(adapter.model)
    golden = json.loads((TINY / f"{adapter.model}.json").read_text())
    tokens, positions = golden["tokens"], golden["positions"]
    other.config.name_or_path = f"graft/tiny-{adapter.model}"
    other.config.architectures = [type(other).__name__]
    other.name_or_path = f"graft/tiny-{adapter.model}"
    plain = logits(other, tokens)
    tuned = get_peft_model(other, LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **adapter.config))
    for key, parameter in tuned.named_parameters():
        if "lora_" not in key:
            continue
        random = np.random.Generator(np.random.PCG64([zlib.crc32(adapter.name.encode()), zlib.crc32(key.encode())]))
        deviation = 0.6 / np.sqrt(parameter.shape[1]) if "lora_A" in key else 0.3
        parameter.data = torch.from_numpy(random.normal(0, deviation, parameter.shape).astype(np.float32)).to(adapter.dtype)
    tuned.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    # PEFT writes its set of targets in an order that changes from run to run.
    config = json.loads((folder / "adapter_config.json").read_text())
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
    converted = folder / "adapter.gguf"
    converted.unlink(missing_ok=True)
    if adapter.gguf_type:
        with tempfile.TemporaryDirectory() as directory:
            other.config.save_pretrained(directory)
            arguments = ["--base", directory, "--outfile", str(converted), "--outtype", adapter.gguf_type, str(folder)]
            subprocess.run([sys.executable, converter, *arguments], check=True, capture_output=True)
    _, fresh = base(adapter.model)
    exact = logits(PeftModel.from_pretrained(fresh, folder, autocast_adapter_dtype=True), tokens)
    rows = [[round(float(v), 6) for v in exact[p]] for p in positions]
    document = {"model": adapter.model, "tokens": tokens, "positions": positions, "logits": rows}
    (folder / "expected.json").write_text(json.dumps(document, separators=(",", ":")) + "\n")
    sizes = ", ".join(f"{f.name} {f.stat().st_size}" for f in sorted(folder.iterdir()))
    print(f"{adapter.name}: the logits move by up to {np.abs(exact - plain).max():.2f}; {sizes}", flush=True)


PATHS = [
    "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.k_proj", "model.layers.10.mlp.up_proj", "model.layers.11.mlp.down_proj",
    "model.language_model.layers.3.mlp.gate_proj", "language_model.model.layers.29.self_attn.o_proj", "lm_head", "model.embed_tokens", "q_proj", "a", "",
]
PATTERNS = r"""
(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?(?:k_proj|v_proj|q_proj|out_proj|gate_proj|up_proj|down_proj).*?)
(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)\.(?:(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)))
^(language_model|model)(?=\.).*\.(q_proj|k_proj|o_proj)$ q_proj .*q_proj .*\.q_proj .*(q|v)_proj .*\.(q_proj|k_proj)$ ^model\.layers\..*
model.layers.1.self_attn.k_proj .*\.layers\.(0|1)\..* .*layers\.[0-9]+\.mlp.* .*layers\.[01]\..*_proj .*layers\.1[0-5]?\..*
model\.layers\.\d{1,2}\.(?:self_attn|mlp)\.\w+ (?P<all>.*)_proj .*?_proj .* .+ () .{5} .{1,} .{,3} .{0,0} x{,} a{1} a{2} (a+)+ (a*)* (a|b)* (a?){5}
((a{0,2}){0,2}) (^a|b)+ (?:)* (?:^)*a [^.]+ [^\W\d]+ [a-z_]+ [\w.]* [\]a] []a] [^]a] [a-] [-a] [+--a] [a^] [\d-]*.* [.] [\b] a\b \ba \Ba .*\b_proj
.*\B_proj .*\bq_proj\b \Amodel.*\Z $ ^$ ^ a$ ^a$ a$$ ^^a (a$) .*(?=_proj)_proj (?!model).* (?=.*mlp)model.* (?!.*(?:mlp|lm_head)).*
(?!(?=.*mlp)).*_proj .*(?!a) .*(?=a) (?=a)*a (?!x)+a { a{ a{} a{x} a{1 a{, a{1,2 } ] \. \- \_ \/ é [é] [^é] .*é? \t \n [\n] \s \S+ \D+ \W .*\W.* a (|)
[ [] [a * +a a** a*? a+? a?? a{1}? a{1}{2} a*+ a++ a{2,1} ^* $+ \q \1 \8 (?P<a>a)(?P=a) (?<=a) (?<!a)a (?i)A (?i:A) (?>a) (?#c)a (?a) (?P>a) (?P<1>a)
(?P<>a) (?x|\|a\|[z-a]|[\d-z]|[a-\d]|a) ONE}|\z | a|b q_proj|lm_head .*mlp.*|.*q_proj |a a| a||b (a a) a)|(b ( ) layers layers|x .ayers h [a|*] \|
""".split()


def patterns():
    """[pattern, [what re says of each path when the pattern is used as a whole, as a key, as a layers pattern]]; null where re refuses the pattern."""
    texts = PATTERNS + [""]
    random = np.random.Generator(np.random.PCG64(7))
    pieces = ["a", "q", "_proj", "\\.", ".", ".*", "[a-q]", "[^a]", "\\d", "\\w", "(", "(?:", ")", "|", "*", "+", "?", "{2}", "{1,3}", "{,2}", "^", "$", "\\b", "(?=", "(?!", "layers"]
    texts += ["".join(random.choice(pieces, random.integers(1, 9))) for _ in range(1500)]

    def verdicts(pattern, function):
        try:
            return [bool(function(pattern, path)) for path in PATHS]
        except re.error:
            return None

    cases = []
    for text in dict.fromkeys(texts):
        cases.append([text, verdicts(text, re.fullmatch), verdicts(rf"(.*\.)?({text})$", re.match), verdicts(rf"(?:^|.*?\.){text}\.(?P<idx>\d+)\.", re.match)])
    # Random patterns that Python refuses are many and alike; a few are enough.
    refused = [case[0] for case in cases[len(PATTERNS):] if case[1] is None][60:]
    cases = [case for case in cases if case[0] not in refused]
    # As digits, one character for each path: short enough to keep.
    return [[case[0]] + [None if row is None else "".join(str(int(v)) for v in row) for row in case[1:]] for case in cases]


def gguf_distance(path, model, tuned):
    """The largest difference between PEFT's changes of the weights and those of a GGUF file."""
    reader = gguf.GGUFReader(path)
    alpha = float(reader.fields["adapter.lora.alpha"].parts[-1][0])
    stored = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float64) for t in reader.tensors}
    modules = {key: module for key, module in tuned.get_base_model().named_modules() if hasattr(module, "get_delta_weight")}
    worst = 0
    for name, other, _, _ in model.tensors():
        module = modules.pop(other.removesuffix(".weight"), None)
        if module is None:
            continue
        a, b = stored.pop(name + ".lora_a"), stored.pop(name + ".lora_b")
        if model.architecture == "llama" and name.endswith(("attn_q.weight", "attn_k.weight")):
            b = tiny.unpermute(b, model.dim)
        worst = max(worst, np.abs(alpha / len(a) * b @ a - module.get_delta_weight("default").detach().double().numpy()).max())
    assert not modules and not stored, (modules.keys(), stored.keys())
    return float(worst)


def verify(out, exports):
    worst = 0
    for adapter in ADAPTERS:
        expected = json.loads((out / adapter.name / "expected.json").read_text())
        model, other = base(adapter.model)
        tuned = PeftModel.from_pretrained(other, exports / adapter.name)
        found = logits(tuned, expected["tokens"])[expected["positions"]]
        distance = float(np.abs(found - np.array(expected["logits"])).max())
        change = gguf_distance(exports / adapter.name / "adapter.gguf", model, tuned)
        worst = max(worst, distance, change)
        print(f"{adapter.name}: PEFT's logits with the exported adapter differ by {distance:.1e}, the GGUF's weights by {change:.1e}")
    sys.exit(worst > 1e-4)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "Tests/Golden/adapters")
    parser.add_argument("--converter", type=Path, help="llama.cpp's convert_lora_to_gguf.py")
    parser.add_argument("--verify", type=Path, help="a folder of adapters that Graft has written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.verify:
        verify(options.out, options.verify)
    rows = ",\n".join(json.dumps(case) for case in patterns())
    (ROOT / "Tests/AdaptersTests/Fixtures/patterns.json").write_text(f'{{"paths": {json.dumps(PATHS)},\n"patterns": [\n{rows}\n]}}\n')
    if not options.converter:
        parser.error("--converter is needed to make the fixtures")
    for adapter in ADAPTERS:
        make(adapter, options.out, options.converter)


if __name__ == "__main__":
    main()
