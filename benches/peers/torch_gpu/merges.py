#!/usr/bin/env python3
"""Whole merges of a model of half a billion parameters by `skillweld merge`, on the CPU and with `--device cuda`.

    merges.py [--folder DIR] [--layers N]

Prints a line of JSON a merge: best of three for each, and whether the bytes are the same. Random bf16 models of
Qwen2.5-0.5B's shape are made with PyTorch in DIR, by default in memory (/dev/shm), and removed.
"""

import argparse
import filecmp
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import torch

HERE = pathlib.Path(__file__).resolve().parent
RUNS = 3
EXPERTS = 4
RECIPES = {
    "task_arithmetic with tall masks": "merge_method: task_arithmetic\nmask: {method: tall, lambda: 0.6}\nbase_model: base\n",
    "task_arithmetic": "merge_method: task_arithmetic\nbase_model: base\n",
    "linear": "merge_method: linear\n",
}


def shapes(layers):
    """Names and shapes of a Qwen2 model of hidden size 896."""
    hidden, inner, keys = 896, 4864, 128
    yield "model.embed_tokens.weight", (151_936, hidden)
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for name, shape in {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }.items():
            yield f"{prefix}{name}.weight", shape


def write(folder, tensors):
    """One safetensors file of bf16."""
    folder.mkdir()
    header, end = {}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [end, end + 2 * tensor.numel()]}
        end += 2 * tensor.numel()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(tensor.cpu().view(torch.uint8).numpy().tobytes())


def models(folder, layers):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(1)
    random = lambda shape, size: torch.randn(shape, device=device) * size
    base = {name: random(shape, 0.02).bfloat16() for name, shape in shapes(layers)}
    write(folder / "base", base)
    for index in range(EXPERTS):
        # One in a hundred elements moves far, so that masks differ.
        moved = lambda shape: random(shape, 1e-3) + random(shape, 1e-2) * (torch.rand(shape, device=device) < 0.01)
        write(folder / f"expert{index}", {name: (w + moved(w.shape)).bfloat16() for name, w in base.items()})
    return sum(file.stat().st_size for file in folder.glob("*/model.safetensors"))


def merge(recipe, out, device):
    """Seconds of the best run, and its report."""
    best = None
    for _ in range(RUNS):
        command = [str(HERE / "skillweld"), "merge", str(recipe), str(out), "--device", device, "--force", "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} failed")
        report = json.loads(done.stdout)
        if best is None or report["elapsed_s"] < best["elapsed_s"]:
            best = report
    return best


def same(left, right):
    names = sorted(path.name for path in left.iterdir())
    return names == sorted(path.name for path in right.iterdir()) and not any(filecmp.cmpfiles(left, right, names, shallow=False)[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("/dev/shm"))
    parser.add_argument("--layers", type=int, default=24)
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(dir=arguments.folder))
    try:
        read_bytes = models(folder, arguments.layers)
        experts = "models: [" + ", ".join(f"{{model: expert{index}}}" for index in range(EXPERTS)) + "]\n"
        for name, text in RECIPES.items():
            recipe = folder / "recipe.yaml"
            recipe.write_text(text + experts)
            outs = [folder / "cpu", folder / "cuda"]
            cpu, cuda = (merge(recipe, out, out.name) for out in outs)
            result = {
                "name": name,
                "read_bytes": read_bytes,
                "cpu_s": cpu["elapsed_s"],
                "cuda_s": cuda["elapsed_s"],
                "threads": cuda["threads"],
                **cuda["device"],
                "same_bytes": same(*outs),
            }
            print(json.dumps(result), flush=True)
            for out in outs:
                shutil.rmtree(out)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
