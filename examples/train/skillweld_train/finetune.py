"""A policy from demonstrations: an expert by LoRA on a base, or a whole policy (the generalist, and what is finetuned from it)."""

import json
import pathlib

import torch

from . import checkpoint, demonstrations, statistics
from .adapter import adapted
from .loop import Run, seed_everything
from .prompts import PromptBatch


def run(args):
    seed_everything(args.seed)
    policy, tokenizer = checkpoint.load_whole(args.base, args.expert, parts=args.expert == "cross")
    demos = demonstrations.load(args.demos, args.stride, args.episodes)
    name = args.name or f"skillweld_{pathlib.Path(args.out).name}"
    table = statistics_of(args, demos, name)
    entry = next(iter(table.values()))
    chunks = demos.chunks(demos.frames, policy.config.chunk)
    chunks = torch.from_numpy(statistics.normalize(chunks, entry["action"], clip=False))
    states = torch.from_numpy(statistics.normalize(demos.states[demos.frames], entry["proprio"], clip=True))
    texts = [demos.instructions[frame] for frame in demos.frames]
    prompts = PromptBatch(tokenizer)
    if args.lora:
        policy = adapted(policy, args.lora)
    run = Run(args.out, [policy], args.steps, args.rate, seed=args.seed)

    def losses(random):
        rows = random.integers(len(texts), size=args.batch)
        actions = policy(demos.pixels[rows], *prompts([texts[row] for row in rows]), states[rows])
        off = (actions.float() - chunks[rows]).abs()
        return {"total": off.mean(), "arm": off[..., :6].mean(), "gripper": off[..., 6].mean()}

    run.go(losses)
    if args.lora:
        checkpoint.save_expert(args.out, policy, table, args.steps)
    else:
        checkpoint.save_whole(args.out, policy, tokenizer, table, args.steps)


def statistics_of(args, demos, name):
    """Of the demonstrations; or, for what is finetuned from a policy and merged with it, that policy's."""
    if not args.statistics:
        return demos.statistics(name)
    return json.loads((pathlib.Path(args.statistics) / "dataset_statistics.json").read_text())
