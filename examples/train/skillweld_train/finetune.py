"""A policy from demonstrations: an expert by LoRA on a base, or a whole policy."""

import pathlib

import torch

from . import checkpoint, demonstrations, statistics
from .adapter import adapted, narrowed, thinned
from .loop import Run, asked
from .prompts import PromptBatch


class Examples:
    """Frames of demonstrations as a policy takes them, and the normalised chunks that it should answer with."""

    def __init__(self, demos, chunk, entry):
        self.pixels, self.texts = demos.pixels, demos.instructions
        self.states = torch.from_numpy(statistics.normalize(demos.states, entry["proprio"], clip=True))
        self.chunks = torch.from_numpy(statistics.normalize(demos.chunks(chunk), entry["action"], clip=False))

    def draw(self, random, count):
        rows = random.integers(len(self.texts), size=count)
        return self.pixels[rows], [self.texts[row] for row in rows], self.states[rows], self.chunks[rows]


def beginning(args):
    """(policy, tokenizer): the base's, but for an action expert of another kind, whose weights are random."""
    # Batches have a generator of their own.
    torch.manual_seed(args.seed)
    return checkpoint.load_whole(args.base, args.expert, parts=args.expert == "cross")


def begin(args):
    policy, tokenizer = beginning(args)
    table = {f"skillweld_{pathlib.Path(args.out).name}": checkpoint.load_statistics(args.base)}
    checkpoint.save_whole(args.out, policy, tokenizer, table, 0)


def run(args):
    policy, tokenizer = beginning(args)
    # The base's: its action expert reads and writes numbers of that scale, and experts of one base can be averaged.
    entry = checkpoint.load_statistics(args.base)
    groups = [demonstrations.load(args.demos, args.without)]
    if args.skill:
        groups.append(demonstrations.load(args.skill))
    prepared = [Examples(demos, policy.config.chunk, entry) for demos in groups]
    table = {f"skillweld_{pathlib.Path(args.out).name}": entry | demonstrations.counts(groups)}
    prompts = PromptBatch(tokenizer)
    if args.lora:
        policy = adapted(policy, args.lora)
        if args.begin:
            checkpoint.load_expert(args.begin, policy)
        policy = thinned(narrowed(policy), args.thin) if args.thin else narrowed(policy)
    run = Run(args.out, [policy], args.steps, args.rate, seed=args.seed, of=asked(args))

    def losses(random):
        if args.thin:
            # Whoever goes on leaves out the same.
            torch.manual_seed(int(random.integers(2**63)))
        size = args.batch // len(prepared)
        drawn = [examples.draw(random, size) for examples in prepared]
        pixels, texts, states, chunks = zip(*drawn)
        pixels, states, chunks = (torch.cat(parts).to(run.device) for parts in (pixels, states, chunks))
        off = (policy(pixels, *prompts(sum(texts, [])), states).float() - chunks).abs()
        return {"total": off.mean(), "arm": off[..., :6].mean(), "gripper": off[..., 6].mean()}

    run.go(losses)
    run.curves()
    if args.lora:
        checkpoint.save_expert(args.out, policy, table, args.steps)
    else:
        checkpoint.save_whole(args.out, policy, tokenizer, table, args.steps)
