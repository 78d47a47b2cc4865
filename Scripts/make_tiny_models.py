#!/usr/bin/env python3
"""Writes the tiny random models in Tests/Golden/tiny and the logits a correct runtime gives for them.

For every model of MODELS below:
  <name>.gguf   a complete model file: metadata with the keys llama.cpp's converter writes, a small working
                vocabulary, random weights;
  <name>.json   {"tokens": […], "positions": […], "logits": [[…], …]}: row i of "logits" is the float32 output of
                transformers at positions[i] after reading tokens[0...positions[i]], one value per vocabulary entry.
manifest.json lists size and SHA-256 of each file, and for each model the noise floor of its reference: the largest
difference between the same logits in float32 and in float64.

The order of events makes the file the only source of truth: weights are drawn, written, read back with `gguf`,
dequantised, carried back to Hugging Face names and layouts, and only then given to transformers. So a quantised
model's logits are those of its dequantised weights, and nothing that the file does not hold can reach the reference.
Weights come from NumPy's PCG64 seeded with model and tensor name, so that a change to one tensor leaves the others
as they are. The scale of the weights makes attention sharp and the logits spread over several units: a wrong rotary
base, window, norm or row order moves them by far more than the tolerance of 1e-4.

usage: make_tiny_models.py [--out DIRECTORY] [--only NAME[,NAME…]] [--verify]
--verify also loads each file through transformers' own GGUF reader, which shares no code with this script, and
compares logits. Needs the PyPI packages torch, transformers, accelerate, gguf and numpy.
"""

import argparse
import hashlib
import json
import math
import zlib
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import numpy as np

import gguf
from gguf import GGMLQuantizationType as Q

# --------------------------------------------------------------------------------------------------- vocabularies

# Merge rules in order of rank; "_" stands for the space that opens a word.
MERGES = """
_ t|h e|i n|_ a|r e|o n|_t he|e r|_ s|a t|_ w|_ o|e n|_ c|i s|o r|n d|_ b|i t|_ f|a n|_ p|_i n|e s|in g|_ m|o u|a l
a r|_o f|_a nd|_ d|_t o|e d|l l|_ h|_ l|i c|_ n|_ g|_ e|o m|_ is|er e|_ re|_ be|_w h|t i|_f or|_s t
""".replace("\n", "|").strip("|").split("|")
MERGES.insert(MERGES.index("_i n"), "_ i")

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TURNS = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else 'user') + '\\n' }}"
    "{{ message['content'] | trim }}{{ '<end_of_turn>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)


def byte_alphabet():
    """The printable character that stands for each byte in a GPT-2 style vocabulary."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table, spare = {}, 0x100
    for byte in range(256):
        if byte in printable:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(spare)
            spare += 1
    return table


@dataclass
class Vocabulary:
    """What the tokenizer section of a file says, and which ids a test sequence may use."""

    model: str
    pre: str
    tokens: list
    types: list
    scores: list | None = None
    merges: list | None = None
    bos: int | None = None
    eos: int = 0
    unknown: int | None = None
    padding: int | None = None
    add_bos: bool | None = None
    add_space_prefix: bool | None = None
    template: str | None = None

    @property
    def size(self):
        return len(self.tokens)

    def write(self, writer):
        if self.add_space_prefix is not None:
            writer.add_add_space_prefix(self.add_space_prefix)
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        if self.scores is not None:
            writer.add_token_scores(self.scores)
        writer.add_token_types(self.types)
        if self.merges is not None:
            writer.add_token_merges(self.merges)
        if self.bos is not None:
            writer.add_bos_token_id(self.bos)
        writer.add_eos_token_id(self.eos)
        if self.unknown is not None:
            writer.add_unk_token_id(self.unknown)
        if self.padding is not None:
            writer.add_pad_token_id(self.padding)
        if self.add_bos is not None:
            writer.add_add_bos_token(self.add_bos)
        if self.template is not None:
            writer.add_chat_template(self.template)


def byte_pair_vocabulary(pre, control, specials_first, **roles):
    """All 256 bytes, MERGES, and the control tokens before (SmolLM) or after (Llama 3, Qwen) them."""
    alphabet = byte_alphabet()
    space = alphabet[0x20]
    merges = [rule.replace("_", space) for rule in MERGES]
    ordinary = [alphabet[b] for b in sorted(range(256), key=lambda b: alphabet[b])]
    ordinary += [rule.replace(" ", "") for rule in merges]
    assert len(set(ordinary)) == len(ordinary)
    normal, special = [gguf.TokenType.NORMAL] * len(ordinary), [gguf.TokenType.CONTROL] * len(control)
    tokens = control + ordinary if specials_first else ordinary + control
    types = special + normal if specials_first else normal + special
    ids = {role: tokens.index(text) for role, text in roles.items() if role in ("bos", "eos", "unknown", "padding")}
    rest = {key: value for key, value in roles.items() if key not in ids}
    return Vocabulary("gpt2", pre, tokens, types, merges=merges, **ids, **rest)


def sentence_piece_vocabulary(control, unknown, extra=(), **roles):
    """Control tokens, the 256 byte tokens, merged pieces with falling scores, then single characters."""
    tokens, scores, types = [], [], []

    def add(text, score, kind):
        tokens.append(text)
        scores.append(float(score))
        types.append(kind)

    for text in control:
        add(text, 0, gguf.TokenType.UNKNOWN if text == unknown else gguf.TokenType.CONTROL)
    for text in extra:
        add(text, 0, gguf.TokenType.USER_DEFINED)
    for byte in range(256):
        add(f"<0x{byte:02X}>", 0, gguf.TokenType.BYTE)
    pieces = [rule.replace(" ", "").replace("_", "▁") for rule in MERGES]
    assert len(set(pieces)) == len(pieces)
    for rank, piece in enumerate(pieces):
        add(piece, -rank, gguf.TokenType.NORMAL)
    for rank, character in enumerate("▁etaoinsrhldcumfpgwybvkxjqzETAOINSRHLDCUMFPGWYBVKXJQZ.,'-\"0123456789!?:;()é"):
        add(character, -len(pieces) - rank, gguf.TokenType.NORMAL)
    ids = {role: tokens.index(text) for role, text in roles.items() if role in ("bos", "eos", "padding")}
    rest = {key: value for key, value in roles.items() if key not in ids}
    return Vocabulary("llama", "default", tokens, types, scores=scores, unknown=tokens.index(unknown), **ids, **rest)


def smollm_vocabulary():
    return byte_pair_vocabulary(
        "smollm", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], specials_first=True, bos="<|im_start|>",
        eos="<|im_end|>", unknown="<|endoftext|>", padding="<|im_end|>", add_bos=False, add_space_prefix=False,
        template=CHATML)


def llama3_vocabulary():
    return byte_pair_vocabulary(
        "llama-bpe", ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        specials_first=False, bos="<|begin_of_text|>", eos="<|eot_id|>")


def qwen_vocabulary():
    return byte_pair_vocabulary(
        "qwen2", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], specials_first=False, bos="<|endoftext|>",
        eos="<|im_end|>", padding="<|endoftext|>", add_bos=False, template=CHATML)


def mistral_vocabulary():
    return sentence_piece_vocabulary(["<unk>", "<s>", "</s>"], "<unk>", bos="<s>", eos="</s>", add_bos=True)


def gemma_vocabulary():
    return sentence_piece_vocabulary(
        ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"], "<unk>",
        extra=["\n\n", "\t\t", "  "], bos="<bos>", eos="<eos>", padding="<pad>", add_bos=True,
        add_space_prefix=False, template=TURNS)


# --------------------------------------------------------------------------------------------------- quantisation

# Where the float16 scale and minimum lie in a block of each K type, the share of the minimum that centres the
# weights on zero when every other bit is random (mean scale x mean quant / mean minimum), and the block's bytes.
K_BLOCKS = {
    Q.Q2_K: (80, 82, 1.5, 84),
    Q.Q3_K: (108, None, 0, 110),
    Q.Q4_K: (0, 2, 7.5, 144),
    Q.Q5_K: (0, 2, 15.5, 176),
    Q.Q6_K: (208, None, 0, 210),
}


def random_k_blocks(rows, columns, kind, deviation, random):
    """Blocks of a K type with every quant, sub-scale and mask bit random and the super-scale set for the deviation.

    `gguf` reads these types and does not write them. Random bits reach corners that a quantiser leaves alone: the
    largest sub-scales, minima of zero, negative scales of Q6_K.
    """
    scale_at, minimum_at, minimum_share, size = K_BLOCKS[kind]
    blocks = random.integers(0, 256, (rows * columns // 256, size), dtype=np.uint8)

    def put(at, values):
        blocks[:, at : at + 2] = values.astype("<f2").view(np.uint8).reshape(-1, 2)

    def put_scales(values):
        put(scale_at, values)
        if minimum_at is not None:
            put(minimum_at, values * minimum_share)

    unit = np.ones(len(blocks), np.float32)
    put_scales(unit)
    spread = gguf.quants.dequantize(blocks.reshape(rows, -1), kind).std()
    put_scales(unit * (deviation / spread) * random.uniform(0.7, 1.3, len(blocks)))
    return blocks.reshape(rows, -1)


def encode(values, kind, deviation, random):
    """(bytes or floats for the writer) of a matrix of normal values in the given type."""
    if kind in K_BLOCKS:
        return random_k_blocks(*values.shape, kind, deviation, random)
    return gguf.quants.quantize(values, kind)


# --------------------------------------------------------------------------------------------------------- models


@dataclass
class Model:
    name: str
    architecture: str  # of the file: general.architecture
    vocabulary: object
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    head_dim: int | None = None  # None: hidden / heads, and no key_length in the file
    theta: float = 10000.0
    tied: bool = True
    mistral: bool = False
    rope_llama3: dict | None = None
    window: int | None = None
    local_theta: float | None = None  # Gemma 3's base of the local layers; None leaves the key out (10000)
    linear_factor: float | None = None  # Gemma 3's scaling of the global layers
    epsilon: float = 1e-5
    context: int = 512
    types: dict = field(default_factory=dict)  # tensor name without "blk.N." or with it -> type
    default_type: Q = Q.F16
    fallback_type: Q | None = None  # where a row is no multiple of the default type's block, as llama.cpp has it
    file_type: gguf.LlamaFileType = gguf.LlamaFileType.MOSTLY_F16
    positions: tuple = (0, 1, 31, 32, 33, 64, 95)
    note: str = ""

    @property
    def dim(self):
        return self.head_dim or self.hidden // self.heads

    def tensors(self):
        """(name in the file, Hugging Face name, shape as [out, in], kind of value) of every tensor but rope_freqs."""
        vocab, h, q, kv = self.vocabulary.size, self.hidden, self.heads * self.dim, self.kv_heads * self.dim
        gemma = self.architecture == "gemma3"
        yield "token_embd.weight", "model.embed_tokens.weight", (vocab, h), "embedding"
        for i in range(self.layers):
            a, b = f"blk.{i}.", f"model.layers.{i}."
            yield a + "attn_norm.weight", b + "input_layernorm.weight", (h,), "norm"
            yield a + "attn_q.weight", b + "self_attn.q_proj.weight", (q, h), "sharp"
            yield a + "attn_k.weight", b + "self_attn.k_proj.weight", (kv, h), "sharp"
            yield a + "attn_v.weight", b + "self_attn.v_proj.weight", (kv, h), "matrix"
            if self.architecture == "qwen2":
                yield a + "attn_q.bias", b + "self_attn.q_proj.bias", (q,), "bias"
                yield a + "attn_k.bias", b + "self_attn.k_proj.bias", (kv,), "bias"
                yield a + "attn_v.bias", b + "self_attn.v_proj.bias", (kv,), "bias"
            if self.architecture in ("qwen3", "gemma3"):
                yield a + "attn_q_norm.weight", b + "self_attn.q_norm.weight", (self.dim,), "sharp norm"
                yield a + "attn_k_norm.weight", b + "self_attn.k_norm.weight", (self.dim,), "sharp norm"
            yield a + "attn_output.weight", b + "self_attn.o_proj.weight", (h, q), "matrix"
            if gemma:
                yield a + "post_attention_norm.weight", b + "post_attention_layernorm.weight", (h,), "norm"
                yield a + "ffn_norm.weight", b + "pre_feedforward_layernorm.weight", (h,), "norm"
                yield a + "post_ffw_norm.weight", b + "post_feedforward_layernorm.weight", (h,), "norm"
            else:
                yield a + "ffn_norm.weight", b + "post_attention_layernorm.weight", (h,), "norm"
            yield a + "ffn_gate.weight", b + "mlp.gate_proj.weight", (self.ffn, h), "matrix"
            yield a + "ffn_up.weight", b + "mlp.up_proj.weight", (self.ffn, h), "matrix"
            yield a + "ffn_down.weight", b + "mlp.down_proj.weight", (h, self.ffn), "matrix"
        yield "output_norm.weight", "model.norm.weight", (h,), "norm"
        if not self.tied:
            yield "output.weight", "lm_head.weight", (vocab, h), "embedding"

    def type_of(self, name, shape):
        if len(shape) == 1:
            return Q.F32
        suffix = name.split(".", 2)[2] if name.startswith("blk.") else name
        kind = self.types.get(name) or self.types.get(suffix) or self.default_type
        block = gguf.GGML_QUANT_SIZES[kind][0]
        return kind if shape[1] % block == 0 else self.fallback_type

    def value(self, name, shape, kind):
        """(tensor for the writer, its type): drawn, put in the file's row order, encoded."""
        random = np.random.Generator(np.random.PCG64([zlib.crc32(self.name.encode()), zlib.crc32(name.encode())]))
        target = self.type_of(name, shape)
        if len(shape) == 1:
            mean, deviation = {"norm": (1, 0.2), "sharp norm": (1.3, 0.2), "bias": (0, 0.5)}[kind]
            # Gemma's norms are stored as 1 + weight already, as the converter folds them.
            return random.normal(mean, deviation, shape).astype(np.float32), target
        deviation = {"embedding": 1.5, "sharp": 1.2, "matrix": 1.0}[kind] / math.sqrt(shape[1])
        if target in K_BLOCKS and kind != "embedding":
            deviation *= 0.7  # their minima move whole sub-blocks at once, which makes attention sharper by itself
        values = random.normal(0, deviation, shape).astype(np.float32)
        # The draw is taken as being in the file's order; `restore` computes what transformers must hold.
        return encode(values, target, deviation, random), target

    # ------------------------------------------------------------------------------------------------- the file

    def write(self, path):
        w = gguf.GGUFWriter(path, self.architecture)
        w.add_type("model")
        w.add_name(f"Tiny random {self.name}")
        w.add_description("Random weights, a test fixture. " + self.note)
        w.add_block_count(self.layers)
        w.add_context_length(self.context)
        w.add_embedding_length(self.hidden)
        w.add_feed_forward_length(self.ffn)
        w.add_head_count(self.heads)
        w.add_head_count_kv(self.kv_heads)
        if self.linear_factor is not None:
            w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            w.add_rope_scaling_factor(self.linear_factor)
        w.add_rope_freq_base(self.theta)
        if self.local_theta is not None:
            w.add_rope_freq_base_swa(self.local_theta)
        w.add_layer_norm_rms_eps(self.epsilon)
        if self.head_dim is not None:
            w.add_key_length(self.head_dim)
            w.add_value_length(self.head_dim)
        if self.architecture == "gemma3":
            w.add_sliding_window(self.window)
        w.add_file_type(self.file_type)
        if self.architecture == "llama":
            w.add_vocab_size(self.vocabulary.size)
            w.add_rope_dimension_count(self.dim)
        self.vocabulary.write(w)
        w.add_quantization_version(gguf.GGML_QUANT_VERSION)
        if self.rope_llama3:
            w.add_tensor("rope_freqs.weight", self.rope_factors())
        for name, _, shape, kind in self.tensors():
            data, target = self.value(name, shape, kind)
            w.add_tensor(name, data, raw_dtype=target)
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()

    def rope_factors(self):
        """What Llama 3's scaling divides each rotary frequency by: 1 for short waves, `factor` for long ones."""
        p = self.rope_llama3
        original = p["original_max_position_embeddings"]
        factors = []
        for pair in range(self.dim // 2):
            wave = 2 * math.pi * self.theta ** (2 * pair / self.dim)
            if wave < original / p["high_freq_factor"]:
                factors.append(1.0)
            elif wave > original / p["low_freq_factor"]:
                factors.append(p["factor"])
            else:
                blend = (original / wave - p["low_freq_factor"]) / (p["high_freq_factor"] - p["low_freq_factor"])
                factors.append(1 / (blend + (1 - blend) / p["factor"]))
        return np.array(factors, np.float32)

    # -------------------------------------------------------------------------------------------- the reference

    def configuration(self):
        import transformers as t

        common = dict(
            vocab_size=self.vocabulary.size, hidden_size=self.hidden, intermediate_size=self.ffn,
            num_hidden_layers=self.layers, num_attention_heads=self.heads, num_key_value_heads=self.kv_heads,
            head_dim=self.dim, rms_norm_eps=self.epsilon, max_position_embeddings=self.context,
            tie_word_embeddings=self.tied, bos_token_id=self.vocabulary.bos, eos_token_id=self.vocabulary.eos,
            pad_token_id=None, attn_implementation="eager")
        plain = {"rope_type": "default", "rope_theta": self.theta}
        if self.architecture == "gemma3":
            full = dict(plain)
            if self.linear_factor is not None:
                full.update(rope_type="linear", factor=self.linear_factor)
            local = {"rope_type": "default", "rope_theta": self.local_theta or 10000.0}
            return t.Gemma3TextConfig(
                **common, sliding_window=self.window, query_pre_attn_scalar=self.dim,
                hidden_activation="gelu_pytorch_tanh", final_logit_softcapping=None, attn_logit_softcapping=None,
                rope_parameters={"full_attention": full, "sliding_attention": local})
        if self.rope_llama3:
            plain.update(rope_type="llama3", **self.rope_llama3)
        kind = {"llama": t.LlamaConfig, "qwen2": t.Qwen2Config, "qwen3": t.Qwen3Config}[self.architecture]
        if self.mistral:
            # The converter drops Mistral's sliding window: a file of this kind attends to everything.
            return t.MistralConfig(**common, sliding_window=None, rope_parameters=plain)
        return kind(**common, rope_parameters=plain)

    def restore(self, path):
        """Hugging Face name -> float32 array, from nothing but the file."""
        stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
        weights = {}
        for name, other, shape, _ in self.tensors():
            tensor = stored[name]
            array = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(shape)
            if self.architecture == "llama" and name.endswith(("attn_q.weight", "attn_k.weight")):
                array = unpermute(array, self.dim)
            if self.architecture == "gemma3" and other.endswith("norm.weight"):
                array = array - 1  # transformers adds it again
            weights[other] = array
        return weights

    def reference(self, path, tokens, dtype):
        import torch
        from transformers import AutoModelForCausalLM

        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(self.configuration(), attn_implementation="eager").eval()
        weights = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in self.restore(path).items()}
        missing, unexpected = model.load_state_dict(weights, strict=False)
        if self.tied:
            model.tie_weights()
        assert not unexpected and set(missing) <= ({"lm_head.weight"} if self.tied else set()), (missing, unexpected)
        with torch.no_grad():
            return model.to(dtype)(torch.tensor([tokens])).logits[0].double().numpy()

    def sequence(self):
        """96 ids: the start token where the model wants one, then ordinary tokens."""
        random = np.random.Generator(np.random.PCG64([zlib.crc32(self.name.encode()), 96]))
        ordinary = [i for i, kind in enumerate(self.vocabulary.types) if kind in (gguf.TokenType.NORMAL, gguf.TokenType.BYTE)]
        tokens = [int(i) for i in random.choice(ordinary, 96)]
        # A stretch that comes back, so that attention has something to find far behind.
        tokens[70:80] = tokens[10:20]
        if self.vocabulary.bos is not None:
            tokens[0] = self.vocabulary.bos
        return tokens


def unpermute(array, dim):
    """Rows of a rotated projection from the file's order to Hugging Face's.

    Architecture `llama` in GGUF rotates neighbouring rows (2i, 2i + 1) of a head; transformers rotates (i, i + dim/2).
    """
    heads = array.reshape(-1, dim // 2, 2, array.shape[-1])
    return heads.transpose(0, 2, 1, 3).reshape(array.shape)


def quantised(kind, file_type):
    """The llama model that shows one type with blocks of at most 32: two and three of them to a row (floats: half)."""
    hidden, heads, ffn = (32, 2, 48) if kind in (Q.F16, Q.BF16) else (64, 4, 96)
    return Model(
        f"llama-{kind.name.lower()}", "llama", smollm_vocabulary(), hidden=hidden, layers=2, heads=heads, kv_heads=heads // 2, ffn=ffn,
        default_type=kind, file_type=file_type, positions=(0, 32, 95), note=f"All matrices {kind.name}.")


def k_quantised(kind, fallback, file_type):
    """The llama model that shows one K type; rows of 32 cannot hold a block of 256 and take the fallback type."""
    return Model(
        f"llama-{kind.name.lower()}", "llama", smollm_vocabulary(), hidden=256, layers=2, heads=2, kv_heads=1,
        head_dim=16, ffn=32, default_type=kind, fallback_type=fallback, file_type=file_type, positions=(0, 32, 95),
        note=f"Matrices {kind.name}; attn_output and ffn_down, whose rows are shorter than a block, {fallback.name}.")


F = gguf.LlamaFileType
MODELS = [
    Model("llama", "llama", smollm_vocabulary(), hidden=64, layers=2, heads=4, kv_heads=2, ffn=64,
          theta=100000.0, default_type=Q.F32, file_type=F.ALL_F32, note="Grouped queries, tied head."),
    Model("qwen2", "qwen2", qwen_vocabulary(), hidden=64, layers=2, heads=4, kv_heads=2, ffn=96, theta=1000000.0,
          epsilon=1e-6, note="Biases on query, key and value, tied head."),
    Model("llama3", "llama", llama3_vocabulary(), hidden=64, layers=2, heads=4, kv_heads=1, ffn=64, head_dim=16,
          theta=500000.0, tied=False, rope_llama3=dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
          original_max_position_embeddings=64), note="Llama 3 rotary scaling in rope_freqs, untied head."),
    Model("mistral", "llama", mistral_vocabulary(), hidden=64, layers=2, heads=4, kv_heads=2, ffn=64, head_dim=32,
          theta=1000000.0, tied=False, mistral=True, types={"token_embd.weight": Q.Q8_0, "output.weight": Q.Q8_0},
          note="Mistral: heads wider than hidden / heads, untied head."),
    Model("qwen3", "qwen3", qwen_vocabulary(), hidden=64, layers=2, heads=4, kv_heads=2, ffn=64, head_dim=32,
          theta=1000000.0, epsilon=1e-6, note="Norms on query and key, heads wider than hidden / heads."),
    Model("gemma3", "gemma3", gemma_vocabulary(), hidden=32, layers=7, heads=2, kv_heads=1, ffn=64, head_dim=32,
          theta=1000000.0, local_theta=5000.0, window=24, epsilon=1e-6,
          positions=(0, 1, 23, 24, 25, 48, 64, 95),
          note="Five local layers, one global, one local; window 24; both rotary bases in the file."),
    Model("gemma3-scaled", "gemma3", gemma_vocabulary(), hidden=32, layers=6, heads=2, kv_heads=2, ffn=64, head_dim=16,
          theta=1000000.0, linear_factor=8.0, window=32, epsilon=1e-6,
          positions=(0, 1, 31, 32, 33, 64, 95),
          note="Linear scaling of the global layer; no rope.freq_base_swa, so the local base is 10000."),
    quantised(Q.F16, F.MOSTLY_F16),
    quantised(Q.BF16, F.MOSTLY_BF16),
    quantised(Q.Q8_0, F.MOSTLY_Q8_0),
    quantised(Q.Q4_0, F.MOSTLY_Q4_0),
    quantised(Q.Q4_1, F.MOSTLY_Q4_1),
    quantised(Q.Q5_0, F.MOSTLY_Q5_0),
    quantised(Q.Q5_1, F.MOSTLY_Q5_1),
    k_quantised(Q.Q2_K, Q.Q5_0, F.MOSTLY_Q2_K),
    k_quantised(Q.Q3_K, Q.Q5_0, F.MOSTLY_Q3_K_M),
    k_quantised(Q.Q4_K, Q.Q5_0, F.MOSTLY_Q4_K_S),
    k_quantised(Q.Q5_K, Q.Q5_1, F.MOSTLY_Q5_K_S),
    k_quantised(Q.Q6_K, Q.Q8_0, F.MOSTLY_Q6_K),
    Model("llama-mixed", "llama", smollm_vocabulary(), hidden=32, layers=5, heads=2, kv_heads=1, ffn=512,
          positions=(0, 32, 95), default_type=Q.Q4_0, file_type=F.MOSTLY_Q4_K_M, types={
              "token_embd.weight": Q.Q8_0, "attn_v.weight": Q.Q5_1, "blk.1.attn_q.weight": Q.Q4_1,
              "blk.2.attn_k.weight": Q.F16, "blk.3.ffn_up.weight": Q.Q5_0, "blk.4.attn_output.weight": Q.BF16,
              "blk.0.ffn_down.weight": Q.Q2_K, "blk.1.ffn_down.weight": Q.Q3_K, "blk.2.ffn_down.weight": Q.Q4_K,
              "blk.3.ffn_down.weight": Q.Q5_K, "blk.4.ffn_down.weight": Q.Q6_K},
          note="Ten types in one file; each ffn_down has two K blocks in a row, another type in each layer."),
]


def verify(model, path, tokens, expected):
    """Largest difference of the logits when transformers' own GGUF reader finds and reorders the tensors.

    The configuration is ours (but for Mistral, which it maps by the file's own): that reader does not know rope_freqs, Qwen 3's key_length or Gemma's second rotary base.
    """
    import torch
    from transformers import AutoModelForCausalLM

    ours = {} if model.mistral else {"config": model.configuration()}
    other = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, **ours, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        found = other.eval()(torch.tensor([tokens])).logits[0].double().numpy()
    return float(np.abs(found - expected).max())


def main():
    import torch

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "Tests/Golden/tiny")
    parser.add_argument("--only", default="", help="comma-separated names; the manifest keeps the other entries")
    parser.add_argument("--verify", action="store_true", help="compare with transformers' own GGUF reader")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    manifest_path = options.out / "manifest.json"
    manifest = json.loads(manifest_path.read_text())["models"] if manifest_path.exists() else {}
    wanted = set(filter(None, options.only.split(",")))
    for model in MODELS:
        if wanted and model.name not in wanted:
            continue
        path, tokens = options.out / f"{model.name}.gguf", model.sequence()
        model.write(path)
        exact = model.reference(path, tokens, torch.float32)
        rounding = np.abs(exact - model.reference(path, tokens, torch.float64))[list(model.positions)]
        noise = float(rounding.max())
        rows = [[round(float(v), 6) for v in exact[p]] for p in model.positions]
        document = {"model": path.name, "tokens": tokens, "positions": list(model.positions), "logits": rows}
        golden = options.out / f"{model.name}.json"
        golden.write_text(json.dumps(document, separators=(",", ":")) + "\n")
        manifest[model.name] = {
            "architecture": model.architecture, "note": model.note, "float32_noise": float(f"{noise:.2e}"),
            "files": {f.name: {"bytes": f.stat().st_size, "sha256": hashlib.sha256(f.read_bytes()).hexdigest()} for f in (path, golden)},
        }
        line = f"{model.name:14} {path.stat().st_size:7} bytes  logits spread {exact.std():.2f}  float32 noise {noise:.1e}"
        if options.verify:
            line += f"  transformers' reader differs by {verify(model, path, tokens, exact):.1e}"
        print(line, flush=True)
    manifest = {model.name: manifest[model.name] for model in MODELS if model.name in manifest}
    versions = {package: metadata.version(package) for package in ("transformers", "torch", "gguf", "numpy")}
    text = json.dumps(
        {"reference": "transformers, float32, weights dequantised from the GGUF", "made_with": versions, "models": manifest}, indent=1)
    manifest_path.write_text(text + "\n")


if __name__ == "__main__":
    main()
