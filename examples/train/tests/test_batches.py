"""What batches must not change."""

import numpy as np
import torch

from skillweld_train.policy import Policy
from skillweld_train.preprocess import center_crop
from skillweld_train.prompts import PromptBatch, train_tokenizer

from .test_parity import TEXTS, tiny


def test_a_prompt_among_longer_ones_gives_what_it_gives_alone():
    tokenizer = train_tokenizer(TEXTS, 320)
    torch.manual_seed(0)
    policy, prompts = Policy(tiny(tokenizer.get_vocab_size())), PromptBatch(tokenizer)
    pixels = torch.randint(0, 256, (2, 2, 32, 32, 3), dtype=torch.uint8)
    state = torch.randn(2, 8)
    with torch.inference_mode():
        together = policy(pixels, *prompts(TEXTS), state)
        alone = [policy(pixels[i : i + 1], *prompts(TEXTS[i : i + 1]), state[i : i + 1]) for i in range(2)]
    assert len({len(prompts.ids(text)) for text in TEXTS}) == 2
    # f32, about a dozen layers.
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)


def test_words_decide():
    tokenizer = train_tokenizer(TEXTS, 320)
    torch.manual_seed(0)
    policy, prompts = Policy(tiny(tokenizer.get_vocab_size())), PromptBatch(tokenizer)
    pixels, state = torch.zeros(2, 2, 32, 32, 3, dtype=torch.uint8), torch.zeros(2, 8)
    with torch.inference_mode():
        actions = policy(pixels, *prompts(TEXTS), state)
    assert (actions[0] - actions[1]).abs().max() > 1e-4


def crop_by_definition(image, area):
    """Pixel by pixel in f64, before the conversion to bytes."""
    side, (height, width, _) = area**0.5, image.shape
    out = np.zeros(image.shape)
    for y in range(height):
        for x in range(width):
            v, u = ((1 - side) / 2 * (n - 1) + i * side for i, n in ((y, height), (x, width)))
            for row, a in ((int(v), 1 - v % 1), (min(int(v) + 1, height - 1), v % 1)):
                for column, b in ((int(u), 1 - u % 1), (min(int(u) + 1, width - 1), u % 1)):
                    out[y, x] += a * b * image[row, column] / 255
    return out * 255.5


def test_crops_are_the_definition():
    image = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    exact = crop_by_definition(image, 0.9)
    # Truncated; rounding in f32 may fall on either side of a whole number.
    assert np.all(np.abs(center_crop(image) + 0.5 - exact) <= 0.5 + 1e-3)
