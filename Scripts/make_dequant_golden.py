#!/usr/bin/env python3
"""Write the fixtures of Tests/KernelsTests/DequantizeGoldenTests.swift.

For each tensor type: seeded blocks, and what PyPI's `gguf` package (0.19.0, with numpy) makes of them. Types that `gguf` can quantise carry
quantised normal variates first; all carry random bytes too, which reach every bit of every field. Scales in random blocks are drawn apart so
that they stay finite.

A fixture is: "DEQ1", ggml type (u32), element count (u32), block bytes, expected float32 values; little endian.

Usage: make_dequant_golden.py [DIRECTORY]   (default: the fixture directory beside this script's package)
"""

import struct
import sys
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize, quantize

# Where each block type keeps its half-precision scales.
SCALE_OFFSETS = {
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
    T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
}
CAN_QUANTIZE = [T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.BF16]


def random_blocks(kind, rng, count):
    block, size = GGML_QUANT_SIZES[kind]
    data = rng.integers(0, 256, size=(count, size), dtype=np.uint8)
    for offset in SCALE_OFFSETS[kind]:
        scales = rng.normal(0, 0.02, size=count).astype(np.float16)
        # A subnormal, a negative zero and the largest half are among them.
        scales.view(np.uint16)[:3] = [0x0123, 0x8000, 0x7BFF]
        data[:, offset:offset + 2] = scales.view(np.uint8).reshape(count, 2)
    return data.reshape(-1)


def blocks_for(kind, rng):
    block, _ = GGML_QUANT_SIZES[kind]
    if kind == T.F32:
        return rng.normal(size=64).astype(np.float32).view(np.uint8)
    if kind == T.F16:
        bits = rng.integers(0, 0x7C00, size=64, dtype=np.uint16) | (rng.integers(0, 2, size=64, dtype=np.uint16) << 15)
        special = np.array([0, 0x8000, 1, 0x8001, 0x3FF, 0x400, 0x7BFF, 0x7C00, 0xFC00, 0x7E00], dtype=np.uint16)
        return np.concatenate([special, bits]).view(np.uint8)
    if kind == T.BF16:
        special = np.array([0, 0x8000, 1, 0x7F80, 0xFF80, 0x7FC0], dtype=np.uint16).view(np.uint8)
        return np.concatenate([special, quantize(rng.normal(size=64).astype(np.float32), kind).reshape(-1)])
    parts = []
    if kind in CAN_QUANTIZE:
        parts.append(quantize(rng.normal(0, 0.05, size=4 * block).astype(np.float32), kind).reshape(-1))
    parts.append(random_blocks(kind, rng, 6))
    return np.concatenate(parts)


def main():
    default = Path(__file__).resolve().parent.parent / "Tests/KernelsTests/Fixtures"
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    directory.mkdir(parents=True, exist_ok=True)
    kinds = [T.F32, T.F16, T.BF16, *SCALE_OFFSETS]
    for kind in kinds:
        blocks = np.ascontiguousarray(blocks_for(kind, np.random.default_rng(1000 + int(kind))))
        expected = np.ascontiguousarray(dequantize(blocks, kind), dtype=np.float32).reshape(-1)
        path = directory / f"dequantize_{kind.name}.bin"
        path.write_bytes(b"DEQ1" + struct.pack("<II", int(kind), expected.size) + blocks.tobytes() + expected.tobytes())
        print(f"{path.name}: {expected.size} elements, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
