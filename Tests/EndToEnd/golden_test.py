"""A server in exact mode against the reference answers of transformers, over HTTP: prompts token by token, first-token probabilities,
whole greedy answers. SmolLM2 always, bare and with an adapter that came as PEFT files, as GGUF and after export and import; the other models of
Tests/Golden/logits if their files are in Models/.

usage: golden_test.py        (GRAFT_BINARY names the command)
       golden_test.py --model FILE --golden JSON --adapter DIR|FILE [--adapter …] [--fast]
       golden_test.py --job PYTHON [--model FILE] [--fast]
The second form holds adapters of any kind against a reference that Scripts/make_golden.py --adapter has made. The third lets a job make the adapter,
exports it for PEFT over HTTP, has PYTHON, an interpreter with make_golden.py's packages, make that reference of it (a minute or two), and holds the
server against it with the job's own adapter and with its exports imported again; also token by token over the reference's passage. --fast serves with
8-bit activations; D is reported and not compared then, and of the passage only the perplexity, loosely.

The last line is "N passed, M failed"."""
import argparse
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time

import httpx

from adapter_files import make_adapter

ROOT = pathlib.Path(__file__).resolve().parents[2]
GRAFT = os.environ.get("GRAFT_BINARY", ".build/release/graft")
MODELS = {
    "SmolLM2-135M-Instruct.Q4_1": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "Qwen2.5-Coder-0.5B-Instruct.Q4_K_M": "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    "Qwen2.5-Coder-1.5B-Instruct.Q4_K_M": "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
    "gemma-3-270m.Q4_K_M": "gemma-3-270m-q4_k_m.gguf",
}
# A base model has no template: its prompts go in as token ids only.
BASE_MODELS = {"gemma-3-270m.Q4_K_M"}


def serve(path, exact=True):
    scratch = tempfile.mkdtemp()
    directories = {"GRAFT_DATA_DIRECTORY": scratch + "/Data", "GRAFT_ADAPTERS_DIRECTORY": scratch + "/Adapters"}
    process = subprocess.Popen(
        [GRAFT, "serve", *(["--exact"] if exact else []), "--port", "0", "--context", "1024", "--model", path], cwd=ROOT, stderr=subprocess.PIPE, text=True,
        env=os.environ | directories)
    for line in process.stderr:
        if address := re.search(r"address=(\S+)", line):
            # A full pipe would stop the server.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, address[1], scratch
    raise SystemExit(f"{path}: the server ended before it was ready")


def upload(http, name, path):
    """Publishes a PEFT directory, or a file that is an archive or GGUF."""
    path = pathlib.Path(path)
    if path.is_dir():
        files = {"adapter_config": (path / "adapter_config.json").read_bytes(), "adapter_model": (path / "adapter_model.safetensors").read_bytes()}
    else:
        files = {"gguf" if path.suffix == ".gguf" else "archive": path.read_bytes()}
    return http.post("/v1/adapters", data={"name": name}, files=files).raise_for_status().json()


def export(http, name, format, folder):
    path = pathlib.Path(folder) / f"{name}.{'gguf' if format == 'gguf' else 'tar'}"
    path.write_bytes(http.get(f"/v1/adapters/{name}/export", params={"format": format}).raise_for_status().content)
    return path


def distance(golden, found):
    """D = sum over the golden's 20 best of p |ln p - ln q|; a token that is not among the 100 returned counts as at most the last of them."""
    found = {int(token): logprob for token, logprob in found}
    least = min(found.values())
    return sum(math.exp(p) * abs(p - found.get(token, least)) for token, p in golden)


def check(http, name, chat, model=None, exact=True):
    ids = chat["prompt_ids"]
    if name not in BASE_MODELS:
        body = {"messages": chat["messages"], "temperature": 0, "max_tokens": 1, "return_token_ids": True}
        found = http.post("/v1/chat/completions", json=body).raise_for_status().json()
        assert found["prompt_token_ids"] == ids, f"the prompt is {found['prompt_token_ids']}, expected {ids}"
    body = {"prompt": ids, "temperature": 0, "max_tokens": len(chat["greedy_ids"]), "logprobs": 100, "return_token_ids": True}
    if model:
        body["model"] = model
    choice = http.post("/v1/completions", json=body).raise_for_status().json()["choices"][0]
    top = choice["logprobs"]["top_token_ids"]
    d = distance(chat["last_top20"], top[0])
    if not exact:
        return d
    assert d < 0.002, f"D is {d}"
    for i, (a, b) in enumerate(zip(choice["token_ids"], chat["greedy_ids"], strict=False)):
        if a != b:
            logprobs = dict(map(tuple, top[i]))
            assert abs(logprobs[a] - logprobs.get(b, -math.inf)) < 1e-3, f"token {i} is {a}, expected {b}"
            break
    else:
        assert choice["token_ids"] == chat["greedy_ids"], f"the answer is {choice['token_ids']}, expected {chat['greedy_ids']}"
    return d


passed = failed = 0


def run(http, name, golden, label, model=None, exact=True):
    global passed, failed
    distances = []
    for number, chat in enumerate(golden["chats"]):
        try:
            distances.append(check(http, name, chat, model, exact))
            print(f"ok   {label}, chat {number}: D = {distances[-1]:.5f}")
            passed += 1
        except Exception as error:
            print(f"FAIL {label}, chat {number}: {error}")
            failed += 1
    return distances


def adapter_variants(http, path, scratch):
    """Publishes an adapter as it is, and what its exports in both formats become when they are imported again."""
    upload(http, "original", path)
    for format in ("peft", "gguf"):
        upload(http, f"again-{format}", export(http, "original", format, scratch))
    return ["original", "again-peft", "again-gguf"]


def every_model():
    for name, file in MODELS.items():
        if not (ROOT / "Models" / file).exists():
            print(f"skipped: {file} is not in Models/ (graft pull fetches it)")
            continue
        golden = json.loads((ROOT / f"Tests/Golden/logits/{name}.json").read_text())
        process, address, scratch = serve(f"Models/{file}")
        try:
            with httpx.Client(base_url=address, timeout=300) as http:
                run(http, name, golden, name)
                with_adapter = ROOT / f"Tests/Golden/logits/{name}+generated.json"
                if with_adapter.exists():
                    folder = pathlib.Path(scratch) / "generated"
                    folder.mkdir()
                    for file_name, content in zip(("adapter_config.json", "adapter_model.safetensors"), make_adapter(7, rank=2), strict=True):
                        (folder / file_name).write_bytes(content)
                    golden = json.loads(with_adapter.read_text())
                    for variant in adapter_variants(http, folder, scratch):
                        run(http, name, golden, f"{name} with an adapter, {variant}", variant)
        finally:
            process.terminate()
            process.wait()
            shutil.rmtree(scratch)


def given_adapters(options):
    golden = json.loads(pathlib.Path(options.golden).read_text())
    process, address, scratch = serve(options.model, exact=not options.fast)
    try:
        with httpx.Client(base_url=address, timeout=300) as http:
            for path in options.adapter:
                for variant in adapter_variants(http, path, scratch):
                    distances = run(http, pathlib.Path(options.model).stem, golden, f"{path}, {variant}", variant, exact=not options.fast)
                    print(f"     mean D {sum(distances) / max(len(distances), 1):.5f}")
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(scratch)


def check_passage(http, passage, model, exact):
    """(largest difference of a log-probability, perplexity) over an echoed passage."""
    body = {"model": model, "prompt": passage["ids"], "echo": True, "logprobs": 0, "max_tokens": 0}
    found = http.post("/v1/completions", json=body).raise_for_status().json()["choices"][0]["logprobs"]["token_logprobs"]
    assert found[0] is None, f"the first token has the log-probability {found[0]}"
    furthest = max(abs(a - b) for a, b in zip(found[1:], passage["next_token_logprobs"], strict=True))
    perplexity = math.exp(-sum(found[1:]) / len(found[1:]))
    assert not exact or furthest < 0.001, f"a log-probability differs by {furthest}"
    bound = 0.001 if exact else 0.05
    assert abs(perplexity / passage["perplexity"] - 1) < bound, f"perplexity {perplexity}, expected {passage['perplexity']}"
    return furthest, perplexity


def report(label, body):
    """Counts one check, which returns what is to be said of it."""
    global passed, failed
    try:
        print(f"ok   {label}: {body()}")
        passed += 1
    except Exception as error:
        print(f"FAIL {label}: {error}")
        failed += 1


def train(http, name):
    """Has a job make an adapter. It learns slowly: an answer that is certain would be the same whatever its logits are."""
    colours = ["red", "blue", "green", "grey", "white", "black", "brown", "yellow"]
    rows = [
        {"messages": [{"role": "user", "content": f"What do you know about the {colour} house, number {number}?"},
                      {"role": "assistant", "content": f"Friend, the {colour} house has {number} doors, and each of them leads to the sea."}]}
        for number in range(2, 8) for colour in colours
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    file = http.post("/v1/files", data={"purpose": "fine-tune"}, files={"file": ("rows.jsonl", content)}).raise_for_status().json()
    body = {
        "model": http.get("/v1/models").json()["data"][0]["id"], "training_file": file["id"], "suffix": name, "seed": 7,
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 4}}},
        "lora": {"rank": 8, "learning_rate": 5e-4, "validation_split": 0},
    }
    job = http.post("/v1/fine_tuning/jobs", json=body).raise_for_status().json()
    while job["status"] not in ("succeeded", "failed", "cancelled"):
        time.sleep(0.5)
        job = http.get(f"/v1/fine_tuning/jobs/{job['id']}").raise_for_status().json()
    if job["status"] != "succeeded":
        raise SystemExit(f"the job {job['status']}: {job['error']}")


def trained_adapter(options):
    path, exact = options.model or "Models/" + MODELS["SmolLM2-135M-Instruct.Q4_1"], not options.fast
    name = pathlib.Path(path).stem
    process, address, scratch = serve(path, exact)
    try:
        with httpx.Client(base_url=address, timeout=300) as http:
            train(http, "tuned")
            # The same from the same build, whatever the server's mode is.
            print(f"the job made {http.get('/v1/models/tuned').raise_for_status().json()['digest']}")
            archive, folder, reference = export(http, "tuned", "peft", scratch), pathlib.Path(scratch) / "peft", pathlib.Path(scratch) / "golden.json"
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
            command = [options.job, ROOT / "Scripts/make_golden.py", ROOT / path, reference, "--adapter", folder]
            made = subprocess.run(command, capture_output=True, text=True)
            if made.returncode != 0:
                raise SystemExit(f"make_golden.py failed: {made.stderr[-1200:]}")
            golden = json.loads(reference.read_text())

            def base():
                mean = sum(check(http, name, chat, exact=False) for chat in golden["chats"]) / len(golden["chats"])
                # Else the comparison with the adapter would pass without it.
                assert mean > 0.2, f"the adapter changes too little to be compared: mean D of the base is {mean}"
                return f"mean D = {mean:.3f} from the adapter's reference"

            report("the base", base)
            for variant in ["tuned", *adapter_variants(http, archive, scratch)]:
                distances = run(http, name, golden, variant, variant, exact)
                print(f"     mean D {sum(distances) / max(len(distances), 1):.5f}")
                report(f"{variant}, the passage", lambda: "log-probabilities within {:.5f}, perplexity {:.4f}".format(
                    *check_passage(http, golden["text"], variant, exact)) + f" for {golden['text']['perplexity']:.4f}")
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(scratch)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model")
parser.add_argument("--golden")
parser.add_argument("--adapter", action="append", default=[])
parser.add_argument("--fast", action="store_true")
parser.add_argument("--job", metavar="PYTHON")
options = parser.parse_args()
if options.job:
    trained_adapter(options)
elif options.adapter:
    given_adapters(options)
else:
    every_model()
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed else 0)
