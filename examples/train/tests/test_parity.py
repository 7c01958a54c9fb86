"""What Python trains, Skillweld runs: both forwards agree on a checkpoint of random weights."""

import os
import subprocess

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from skillweld_train import checkpoint, statistics
from skillweld_train.adapter import adapted
from skillweld_train.config import Config, Language, Tower
from skillweld_train.policy import Policy
from skillweld_train.preprocess import center_crop
from skillweld_train.prompts import PromptBatch, train_tokenizer

TEXTS = ["put the red can in the basket", "open the drawer and put the blue cube in it"]


@pytest.fixture(scope="module")
def skillweld():
    return os.environ["SKILLWELD_BIN"]


def tiny(vocabulary):
    return Config(
        image_side=32, patch_side=8, images=2,
        towers=(Tower(24, 3, 2, 48, dino=True), Tower(16, 3, 2, 40, dino=False)),
        language=Language(width=32, depth=3, heads=4, kv_heads=2, mlp=48, vocabulary=vocabulary),
        action_queries=6, chunk=8, action=7, state=8,
    )  # fmt: skip


def everything(random, kind):
    """A policy whose every parameter matters, its tokenizer, and statistics."""
    tokenizer = train_tokenizer(TEXTS, 320)
    torch.manual_seed(3)
    policy = Policy(tiny(tokenizer.get_vocab_size()), kind)
    with torch.no_grad():
        for parameter in policy.parameters():
            # As stored; in f32 both sides would differ by the rounding of bf16 alone.
            parameter.add_(0.1 * torch.randn_like(parameter)).copy_(parameter.bfloat16().float())
    table = statistics.dataset("tiny", random.normal(size=(90, 7)), random.normal(size=(90, 8)), 3)
    return policy, tokenizer, table


def ask(policy, tokenizer, entry, images, state, text):
    proprio = statistics.normalize(state[None], entry["proprio"], clip=True)
    with torch.inference_mode():
        pixels = torch.from_numpy(center_crop(images))[None]
        actions = policy(pixels, *PromptBatch(tokenizer)([text]), torch.from_numpy(proprio))[0].numpy()
    low, high = (np.array(entry["action"][name]) for name in ("q01", "q99"))
    return np.where(entry["action"]["mask"], (actions + 1) / 2 * (high - low + 1e-8) + low, actions)


@pytest.mark.parametrize("kind", ["cross", "self"])
def test_forwards_agree(skillweld, tmp_path, kind):
    random = np.random.default_rng(5)
    policy, tokenizer, table = everything(random, kind)
    checkpoint.save_whole(tmp_path / "policy", policy, tokenizer, table, 7)
    for number, text in enumerate(TEXTS):
        images = random.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
        state = random.normal(size=8).astype(np.float32)
        expected = ask(policy, tokenizer, table["tiny"], images, state, text)
        found = run(skillweld, tmp_path, number, images, state, text, tmp_path / "policy")
        # Sums of at most 10^3 products of order 1 in f32, in another order, through some twenty layers.
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)


def run(skillweld, folder, number, images, state, text, policy, *more):
    inputs, output = folder / f"in{number}.safetensors", folder / f"out{number}.safetensors"
    save_file({"image_0": images[0], "image_1": images[1], "state": state}, inputs, {"prompt": text})
    command = [skillweld, "predict", policy, "--inputs", inputs, "--output", output, *more]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    return load_file(output)["actions"]


def test_an_adapter_runs_on_its_base(skillweld, tmp_path):
    """An expert as training leaves it, `lora_adapter/` and all, on the base in its own folder."""
    random = np.random.default_rng(8)
    policy, tokenizer, table = everything(random, "cross")
    base = tmp_path / "base"
    checkpoint.save_whole(base, policy, tokenizer, table, 1)
    policy = adapted(policy, rank=4)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter)).copy_(parameter.bfloat16().float())
    checkpoint.save_expert(tmp_path / "expert", policy, table, 9)
    images = random.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    state = random.normal(size=8).astype(np.float32)
    expected = ask(policy, tokenizer, table["tiny"], images, state, TEXTS[0])
    found = run(skillweld, tmp_path, 0, images, state, TEXTS[0], tmp_path / "expert", "--base", base)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)
    assert np.abs(found - run(skillweld, tmp_path, 1, images, state, TEXTS[0], base)).max() > 1e-2
    # Training goes on from what it has left.
    again, _ = checkpoint.load_whole(base)
    again = adapted(again, rank=4)
    checkpoint.load_expert(tmp_path / "expert", again)
    np.testing.assert_array_equal(ask(again, tokenizer, table["tiny"], images, state, TEXTS[0]), expected)
    # And from what `skillweld retain` has made of both.
    words = ["retain", "--base", base, "--finetuned", tmp_path / "expert", "--alpha", "1", "--statistics", "finetuned"]
    subprocess.run([skillweld, *words, tmp_path / "whole"], check=True, capture_output=True)
    whole, _ = checkpoint.load_whole(tmp_path / "whole")
    off = np.abs(ask(whole, tokenizer, table["tiny"], images, state, TEXTS[0]) - expected).max()
    alone = np.abs(run(skillweld, tmp_path, 2, images, state, TEXTS[0], base) - expected).max()
    # The sum is rounded to bf16, 2⁻⁹ of each weight: far less than what the adapter does.
    assert off < alone / 50
