"""A policy from demonstrations: an expert by LoRA on a base, or a whole policy."""

import pathlib

import torch

from . import checkpoint, demonstrations, statistics
from .adapter import adapted, narrowed
from .loop import Run
from .prompts import PromptBatch


def run(args):
    # Weights that begin at random; batches have a generator of their own.
    torch.manual_seed(args.seed)
    policy, tokenizer = checkpoint.load_whole(args.base, args.expert, parts=args.expert == "cross")
    demos = demonstrations.load(args.demos, args.without)
    # The base's: its action expert reads and writes numbers of that scale, and experts of one base can be averaged.
    entry = checkpoint.load_statistics(args.base)
    table = {f"skillweld_{pathlib.Path(args.out).name}": entry | demos.counts()}
    chunks = torch.from_numpy(statistics.normalize(demos.chunks(policy.config.chunk), entry["action"], clip=False))
    states = torch.from_numpy(statistics.normalize(demos.states, entry["proprio"], clip=True))
    texts, prompts = demos.instructions, PromptBatch(tokenizer)
    if args.lora:
        policy = narrowed(adapted(policy, args.lora))
    run = Run(args.out, [policy], args.steps, args.rate, seed=args.seed)

    def losses(random):
        rows = random.integers(len(texts), size=args.batch)
        actions = policy(demos.pixels[rows], *prompts([texts[row] for row in rows]), states[rows])
        off = (actions.float() - chunks[rows]).abs()
        return {"total": off.mean(), "arm": off[..., :6].mean(), "gripper": off[..., 6].mean()}

    run.go(losses)
    run.curves()
    if args.lora:
        checkpoint.save_expert(args.out, policy, table, args.steps)
    else:
        checkpoint.save_whole(args.out, policy, tokenizer, table, args.steps)
