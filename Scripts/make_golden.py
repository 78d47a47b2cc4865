#!/usr/bin/env python3
"""Writes the reference logits of a real model, Tests/Golden/logits/<file>.json, with transformers.

The weights are those of the GGUF, dequantised, in float32 throughout: activations, cache and head. A runtime that
quantises activations is held against these figures by divergence and perplexity, one that computes in float32 by
value. A reference holds:
  chats[]  messages, the prompt that the model's own template makes of them (for a model without a template: the last
           message as it is), its ids, the twenty most likely next tokens with their log-probabilities, and the 48
           tokens of the greedy answer;
  text     a passage, its ids, the log-probability of each id after the first, and the perplexity.
The questions are data, not code: messages and passage come from an earlier reference, so that every model is asked
the same things.

With --adapter the model carries a PEFT adapter, a directory, or `generated`: the one that Tests/EndToEnd/adapter_files.py makes of seed 7 for
SmolLM2, so that no adapter need be kept beside its reference.

usage: make_golden.py MODEL.gguf OUT.json [--adapter DIR|generated] [--like Tests/Golden/logits/EARLIER.json] [--threads N]
Needs the PyPI packages torch, transformers, accelerate, gguf and, with an adapter, peft; and about five bytes of memory a parameter.
"""

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path

TOP = 20
ANSWER = 48
ROOT = Path(__file__).resolve().parent.parent


def log_probabilities(model, ids):
    """Log-softmax in float64 of the float32 logits, [position, vocabulary]."""
    import torch

    return torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), dim=-1)


def chat_reference(model, tokenizer, messages):
    import torch

    if tokenizer.chat_template:
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    else:
        prompt = messages[-1]["content"]
        ids = tokenizer(prompt)["input_ids"]
    best = torch.topk(log_probabilities(model, ids)[-1], TOP)
    whole = model.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), max_new_tokens=ANSWER,
        do_sample=False, temperature=None, top_p=None, top_k=None, pad_token_id=0)
    answer = whole[0, len(ids) :].tolist()
    return {
        "messages": messages, "prompt": prompt, "prompt_ids": ids,
        "last_top20": [[int(i), float(v)] for i, v in zip(best.indices, best.values)],
        "greedy_ids": answer, "greedy_text": tokenizer.decode(answer),
    }


def text_reference(model, tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    table = log_probabilities(model, ids)
    per_token = [float(table[i, following]) for i, following in enumerate(ids[1:])]
    return {
        "text": text, "ids": ids, "next_token_logprobs": [round(value, 5) for value in per_token],
        "perplexity": math.exp(-sum(per_token) / len(per_token)),
    }


def adapted(model, adapter):
    import peft

    if adapter != "generated":
        return peft.PeftModel.from_pretrained(model, adapter).eval()
    sys.path.insert(0, str(ROOT / "Tests/EndToEnd"))
    from adapter_files import make_adapter

    with tempfile.TemporaryDirectory() as folder:
        for name, content in zip(("adapter_config.json", "adapter_model.safetensors"), make_adapter(7, rank=2)):
            (Path(folder) / name).write_bytes(content)
        return peft.PeftModel.from_pretrained(model, folder).eval()


def main():
    import torch
    import transformers

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--adapter")
    parser.add_argument("--like", type=Path, default=ROOT / "Tests/Golden/logits/SmolLM2-135M-Instruct.Q4_1.json")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    questions = json.loads(options.like.read_text())
    place = dict(pretrained_model_name_or_path=options.model.parent, gguf_file=options.model.name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(**place)
    model = transformers.AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32).eval()
    if options.adapter:
        model = adapted(model, options.adapter)
    document = {"model": options.model.name, "reference": "transformers float32, dequantised weights" + (", peft" if options.adapter else ""), "chats": []}
    with torch.no_grad():
        for chat in questions["chats"]:
            document["chats"].append(chat_reference(model, tokenizer, chat["messages"]))
            print(json.dumps(document["chats"][-1]["greedy_text"], ensure_ascii=False), flush=True)
        document["text"] = text_reference(model, tokenizer, questions["text"]["text"])
    options.out.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n")
    print(f"{options.out}: {len(document['chats'])} chats, {len(document['text']['ids'])} ids of text, "
          f"perplexity {document['text']['perplexity']:.6f}")


if __name__ == "__main__":
    main()
