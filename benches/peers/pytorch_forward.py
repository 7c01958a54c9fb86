#!/usr/bin/env python3
"""The forward of a single MergeVLA expert in plain PyTorch, as fast as PyTorch runs it on a CPU: the peer that
`cargo xtask bench --peer pytorch` measures Skillweld against.

Reads a published checkpoint layout and prints one JSON line: median milliseconds of each stage, peak memory, and the
first actions. Needs torch, safetensors and numpy.

    pytorch_forward.py CHECKPOINT INPUTS.safetensors --dtype float32 --threads 2 --rounds 5
"""

import argparse
import glob
import json
import pathlib
import resource
import statistics
import time

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file


class Weights:
    """All tensors of a checkpoint by their published names, in one dtype."""

    def __init__(self, folder, dtype):
        self.tensors = {}
        for path in sorted(glob.glob(f"{folder}/model*.safetensors")):
            with safe_open(path, "pt") as file:
                # One by one: the stored and the converted weights are never in memory together.
                for key in file.keys():
                    value = file.get_tensor(key)
                    self.tensors[key] = value.to(dtype) if value.dtype != dtype else value.clone()
        for prefix in ["action_head", "proprio_projector"]:
            (path,) = glob.glob(f"{folder}/{prefix}--*checkpoint.pt")
            part = torch.load(path, map_location="cpu", weights_only=True)
            names = ((key.removeprefix("module."), value) for key, value in part.items())
            self.tensors |= {f"{prefix}.{name}": value.to(dtype) for name, value in names}

    def __getitem__(self, key):
        return self.tensors[key]

    def get(self, key):
        return self.tensors.get(key)

    def linear(self, name, x):
        return F.linear(x, self[f"{name}.weight"], self.get(f"{name}.bias"))

    def layer_norm(self, name, x, eps):
        weight = self[f"{name}.weight"]
        return F.layer_norm(x, weight.shape, weight, self[f"{name}.bias"], eps)

    def count(self, prefix):
        return len({key[len(prefix) :].split(".")[0] for key in self.tensors if key.startswith(prefix)})


def heads_of(x, heads):
    """rows × (heads · width) → 1 × heads × rows × width."""
    return x.view(1, x.shape[-2], heads, -1).transpose(1, 2)


def vision_tower(w, prefix, images, heads):
    """Patch features of the second-to-last block: images × patches × width."""
    x = F.conv2d(images, w[f"{prefix}.patch_embed.proj.weight"], w[f"{prefix}.patch_embed.proj.bias"],
                 stride=w[f"{prefix}.patch_embed.proj.weight"].shape[-1])
    x = x.flatten(2).transpose(1, 2) + w[f"{prefix}.pos_embed"]
    first = [w.get(f"{prefix}.{name}") for name in ["cls_token", "reg_token"]]
    first = [token.expand(len(x), -1, -1) for token in first if token is not None]
    patches = x.shape[1]
    x = torch.cat([*first, x], dim=1)
    batch, length, width = x.shape
    for index in range(w.count(f"{prefix}.blocks.") - 1):
        block = f"{prefix}.blocks.{index}"
        qkv = w.linear(f"{block}.attn.qkv", w.layer_norm(f"{block}.norm1", x, 1e-6))
        q, k, v = qkv.view(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, width)
        y = w.linear(f"{block}.attn.proj", y)
        scale = w.get(f"{block}.ls1.scale_factor")
        x = x + (y if scale is None else y * scale)
        y = w.linear(f"{block}.mlp.fc2", F.gelu(w.linear(f"{block}.mlp.fc1", w.layer_norm(f"{block}.norm2", x, 1e-6))))
        scale = w.get(f"{block}.ls2.scale_factor")
        x = x + (y if scale is None else y * scale)
    return x[:, -patches:]


def vision(w, config, pixel_values):
    """(images · patches) × (width of both towers); pixel values are 6 channels an image."""
    images = pixel_values.view(-1, 6, *pixel_values.shape[-2:])
    towers = []
    for index, prefix in enumerate(["featurizer", "fused_featurizer"]):
        pixels = images[:, 3 * index : 3 * index + 3]
        towers.append(vision_tower(w, f"vision_backbone.{prefix}", pixels, config["timm_model_args"][index]["num_heads"]))
    return torch.cat(towers, dim=2).flatten(0, 1)


def projector(w, x):
    x = F.gelu(w.linear("projector.fc1", x))
    return w.linear("projector.fc3", F.gelu(w.linear("projector.fc2", x)))


def rotate_half(x, cos, sin):
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin


def language(w, config, x):
    """Every hidden state of a Qwen2 decoder, the last one after the final norm."""
    text, prefix = config["text_config"], "language_model.model"
    heads, kv_heads = text["num_attention_heads"], text["num_key_value_heads"]
    eps, width = text.get("rms_norm_eps", 1e-6), w[f"{prefix}.layers.0.self_attn.q_proj.weight"].shape[0] // heads
    theta = (text.get("rope_parameters") or {}).get("rope_theta") or text.get("rope_theta", 1e6)
    angles = torch.outer(torch.arange(len(x), dtype=torch.float32),
                         theta ** (-torch.arange(0, width, 2, dtype=torch.float32) / width))
    angles = torch.cat([angles, angles], dim=1)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    norm = lambda name, x: F.rms_norm(x, x.shape[-1:], w[f"{name}.weight"], eps)
    states = []
    for index in range(w.count(f"{prefix}.layers.")):
        states.append(x)
        layer = f"{prefix}.layers.{index}"
        y = norm(f"{layer}.input_layernorm", x)
        q = rotate_half(heads_of(w.linear(f"{layer}.self_attn.q_proj", y), heads), cos, sin)
        k = rotate_half(heads_of(w.linear(f"{layer}.self_attn.k_proj", y), kv_heads), cos, sin)
        v = heads_of(w.linear(f"{layer}.self_attn.v_proj", y), kv_heads)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + w.linear(f"{layer}.self_attn.o_proj", y.transpose(1, 2).reshape(len(x), -1))
        y = norm(f"{layer}.post_attention_layernorm", x)
        y = F.silu(w.linear(f"{layer}.mlp.gate_proj", y)) * w.linear(f"{layer}.mlp.up_proj", y)
        x = x + w.linear(f"{layer}.mlp.down_proj", y)
    return states + [norm(f"{prefix}.norm", x)]


def rotate_pairs(x, cos, sin):
    """Neighbouring elements with a half-split table, as the published action expert does it."""
    turned = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
    return x * cos + turned * sin


def action_expert(w, task, action, proprio, chunk, heads=8):
    """Normalised actions from task and action tokens of every depth."""
    p = w.linear("proprio_projector.fc2", F.gelu(w.linear("proprio_projector.fc1", proprio.view(1, -1))))
    head, prefix = "action_head.model", "action_head.model.mlp_resnet_blocks"
    width = task[0].shape[1] // heads
    longest = max(len(task[0]), len(action[0]) + 1, chunk)
    # The table is computed in the dtype of the checkpoint, as the published code does.
    frequencies = (1.0 / 10000 ** (torch.arange(0, width, 2).float() / width)).to(p.dtype)
    angles = torch.outer(torch.arange(longest).to(p.dtype), frequencies)
    angles = torch.cat([angles, angles], dim=1)
    cos, sin = angles.cos(), angles.sin()
    turn = lambda x: rotate_pairs(heads_of(x, heads), cos[: len(x)], sin[: len(x)])
    bias = w[f"{head}.layer_norm1.bias"]
    x = F.relu(w.linear(f"{head}.fc1", bias)).expand(chunk, -1)
    for index in range(w.count(f"{prefix}.")):
        block, h_t, h_a = f"{prefix}.{index}", task[index + 1], torch.cat([action[index + 1], p])
        q_a, k_a = turn(w.linear(f"{block}.q_proj_adapter", x)), turn(w.linear(f"{block}.k_adapter", h_a))
        q_t, k_t = turn(w.linear(f"{block}.q_proj_task", x)), turn(w.linear(f"{block}.k_task", h_t))
        v = torch.cat([w.linear(f"{block}.v_adapter", h_a), w.linear(f"{block}.v_task", h_t)])
        gate = torch.sigmoid(w[f"{block}.gating_factor"])
        scores = torch.cat([q_a @ k_a.mT, gate * (q_t @ k_t.mT)], dim=-1) / width**0.5
        y = torch.softmax(scores, dim=-1) @ heads_of(v, heads)
        x = x + w.linear(f"{block}.o_proj", y.transpose(1, 2).reshape(chunk, -1))
        x = F.relu(w.linear(f"{block}.ffn.1", w.layer_norm(f"{block}.ffn.0", x, 1e-5)))
    return w.linear(f"{head}.fc2", w.layer_norm(f"{head}.layer_norm2", x, 1e-5))


def forward(w, config, inputs, chunk):
    """Actions, and when each stage ended."""
    times = [time.perf_counter()]
    stamp = lambda: times.append(time.perf_counter())
    features = vision(w, config, inputs["pixel_values"])
    stamp()
    projected = projector(w, features)
    stamp()
    embedding, queries = w["language_model.model.embed_tokens.weight"], w["action_queries.weight"]
    prompt = F.embedding(inputs["input_ids"].flatten(), embedding)
    stop = embedding[2:3]
    states = language(w, config, torch.cat([prompt[:1], projected, prompt[1:], queries, stop]))
    stamp()
    patches, first = len(projected), len(projected) + len(prompt) - 1
    task = [state[:patches] for state in states]
    action = [state[first : first + len(queries)] for state in states]
    actions = action_expert(w, task, action, inputs["proprio"], chunk)
    stamp()
    names = ["vision_ms", "projector_ms", "language_ms", "expert_ms"]
    stages = {name: 1e3 * (end - start) for name, start, end in zip(names, times, times[1:])}
    return actions, stages | {"total_ms": 1e3 * (times[-1] - times[0])}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("inputs", type=pathlib.Path)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chunk", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dtype = getattr(torch, args.dtype)
    config = json.loads((args.checkpoint / "config.json").read_text())
    weights = Weights(args.checkpoint, dtype)
    inputs = {key: value.to(dtype) if value.is_floating_point() else value for key, value in load_file(args.inputs).items()}
    with torch.inference_mode():
        actions, _ = forward(weights, config, inputs, args.chunk)
        rounds = [forward(weights, config, inputs, args.chunk)[1] for _ in range(args.rounds)]
    medians = {name: statistics.median(stages[name] for stages in rounds) for name in rounds[0]}
    peak_bytes = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"latency": medians, "peak_bytes": peak_bytes, "normalized_actions": actions.float().tolist()}))


if __name__ == "__main__":
    main()
