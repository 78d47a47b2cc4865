"""Writes sampling_chain.json: what the logits processors of Hugging Face transformers (an implementation independent of ours)
keep of random logits, in the order repetition penalty, top-k, typical, top-p, min-p, temperature.

    python make_sampling_chain.py > sampling_chain.json        # transformers 4.56 or later, torch
"""
import json
import math
import random

import torch
from transformers import (
    MinPLogitsWarper, RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper,
    TypicalLogitsWarper)

random.seed(7)
cases = []
for number in range(48):
    vocabulary = random.choice([5, 40, 90, 150])
    logits = [round(random.gauss(0, 2.5), 3) for _ in range(vocabulary)]
    for _ in range(vocabulary // 10):
        logits[random.randrange(vocabulary)] += random.choice([4, 7, 9])
    prompt = [random.randrange(vocabulary) for _ in range(6)]
    p = {}
    if number % 3 == 0:
        p["repetitionPenalty"] = random.choice([0.9, 1.1, 1.5])
    if random.random() < 0.5:
        p["topK"] = random.choice([1, 3, 10, 64])
    if number % 4 == 1:
        p["typicalP"] = random.choice([0.2, 0.5, 0.95])
    if random.random() < 0.5:
        p["topP"] = random.choice([0.1, 0.5, 0.9, 0.99])
    if random.random() < 0.5:
        p["minP"] = random.choice([0.01, 0.05, 0.3])
    p["temperature"] = random.choice([0.3, 0.7, 1.0, 1.6])
    chain = []
    if "repetitionPenalty" in p:
        chain.append(RepetitionPenaltyLogitsProcessor(p["repetitionPenalty"]))
    if "topK" in p:
        chain.append(TopKLogitsWarper(p["topK"]))
    if "typicalP" in p:
        chain.append(TypicalLogitsWarper(p["typicalP"]))
    if "topP" in p:
        chain.append(TopPLogitsWarper(p["topP"]))
    if "minP" in p:
        chain.append(MinPLogitsWarper(p["minP"]))
    chain.append(TemperatureLogitsWarper(p["temperature"]))
    scores = torch.tensor([logits], dtype=torch.float64)
    for step in chain:
        scores = step(torch.tensor([prompt]), scores)
    probabilities = torch.softmax(scores, -1)[0].tolist()
    kept = [[i, float(f"{q:.9g}")] for i, q in enumerate(probabilities) if scores[0, i].item() != -math.inf]
    cases.append({"logits": [round(x, 3) for x in logits], "prompt": prompt, "parameters": p, "kept": kept})

print("[" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "]")
