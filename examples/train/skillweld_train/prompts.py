"""From instructions to token ids, with a tokenizer small enough for a small model."""

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

BEFORE = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\nWhat action should the robot take to "
)
AFTER = "?<|im_end|>\n<|im_start|>assistant\n"


def prompt(instruction):
    """The published chat form; the instruction in lower case."""
    return f"{BEFORE}{instruction.lower()}{AFTER}"


def train_tokenizer(texts, vocabulary):
    """Byte-level BPE as Qwen2's. What stands in every prompt is two tokens, or it would be most of the sequence."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 2,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # As they stand in prompts: the first word without a space before it.
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in (BEFORE, AFTER)])
    return tokenizer


class PromptBatch:
    """Encodes instructions once each, and lays batches out as `Backbone.forward` wants them."""

    def __init__(self, tokenizer):
        self.tokenizer, self.known = tokenizer, {}

    def ids(self, instruction):
        if instruction not in self.known:
            self.known[instruction] = self.tokenizer.encode(prompt(instruction)).ids
        return self.known[instruction]

    def __call__(self, instructions):
        """(batch × longest ids, batch lengths)."""
        rows = [self.ids(instruction) for instruction in instructions]
        longest = max(map(len, rows))
        laid = [[row[0], *[0] * (longest - len(row)), *row[1:]] for row in rows]
        return torch.tensor(laid), torch.tensor([len(row) for row in rows])
