#!/usr/bin/env python3
"""Writes training.json and two files of gradients beside the adapters in Tests/Golden/adapters: what PyTorch's autograd and AdamW make of them.

Each adapter is loaded by PEFT on the tiny model of its architecture and trained in float32, once on examples and once, by DPO, on pairs of them:
  training.json           {"model", "examples": [{"tokens", "trained"}], "learning_rate", "supervised": {"losses": […]}, "preference": {"beta", "losses": […]}}
  supervised_gradients.safetensors, preference_gradients.safetensors   those of the first steps, named as an adapter's own tensors

Supervised: the sum of -log p over all trained tokens divided by their number. DPO: examples 0 and 1 are chosen and rejected of one pair, 2 and 3 of the other,
and the reference is the same adapter with all B's zero, that is, the bare model.
usage: make_training_fixtures.py   (needs the PyPI packages of make_adapter_fixtures.py)
"""

import json
import zlib

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import save_file

import make_adapter_fixtures as adapters

LEARNING_RATE, BETA, STEPS = 5e-3, 0.2, 5


def examples(name, vocabulary):
    random = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    rows = []
    for length in (23, 9, 41, 16):
        trained = random.random(length) < 0.4
        trained[0], trained[-1] = False, True
        rows.append({"tokens": random.integers(0, vocabulary, length).tolist(), "trained": trained.astype(int).tolist()})
    return rows


def log_probabilities(model, row):
    tokens = torch.tensor(row["tokens"])
    found = torch.log_softmax(model(tokens[None]).logits[0, :-1].float(), -1).gather(1, tokens[1:, None])[:, 0]
    return found[torch.tensor(row["trained"][1:]) == 1]


def train(adapter, folder, loss_of):
    _, base = adapters.base(adapter.model)
    model = PeftModel.from_pretrained(base, folder, is_trainable=True, autocast_adapter_dtype=True)
    parameters = {key: p for key, p in model.named_parameters() if p.requires_grad}
    assert all(p.dtype == torch.float32 for p in parameters.values())
    optimiser = torch.optim.AdamW(parameters.values(), lr=LEARNING_RATE, weight_decay=0.0)
    losses, gradients = [], {}
    for step in range(STEPS):
        loss = loss_of(model)
        loss.backward()
        if step == 0:
            gradients = {key.replace(".default", ""): p.grad.clone().contiguous() for key, p in parameters.items()}
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
    return losses, gradients


def main():
    for adapter in adapters.ADAPTERS:
        folder = adapters.ROOT / "Tests/Golden/adapters" / adapter.name
        model, base = adapters.base(adapter.model)
        rows = examples(adapter.name, base.config.vocab_size)
        count = sum(sum(row["trained"][1:]) for row in rows)
        with torch.no_grad():
            reference = [float(log_probabilities(base, row).sum()) for row in rows]

        def supervised(tuned):
            return -sum(log_probabilities(tuned, row).sum() for row in rows) / count

        def preference(tuned):
            gains = [log_probabilities(tuned, row).sum() - value for row, value in zip(rows, reference)]
            return -sum(torch.nn.functional.logsigmoid(BETA * (gains[i] - gains[i + 1])) for i in (0, 2)) / 2

        losses, gradients = train(adapter, folder, supervised)
        others, more = train(adapter, folder, preference)
        save_file(gradients, folder / "supervised_gradients.safetensors")
        save_file(more, folder / "preference_gradients.safetensors")
        document = {
            "model": adapter.model, "examples": rows, "learning_rate": LEARNING_RATE, "supervised": {"losses": losses},
            "preference": {"beta": BETA, "losses": others},
        }
        (folder / "training.json").write_text(json.dumps(document, separators=(",", ":")) + "\n")
        print(f"{adapter.name}: supervised {losses[0]:.4f} to {losses[-1]:.4f}, preference {others[0]:.4f} to {others[-1]:.4f}", flush=True)


if __name__ == "__main__":
    main()
