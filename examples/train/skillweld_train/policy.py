"""The whole policy: images, prompt and robot state in, a chunk of normalised actions out."""

import torch
from torch import nn

from .config import Config
from .expert import ActionExpert, ProprioProjector
from .language import LanguageModel
from .vision import Projector, VisionBackbone

#: Its embedding closes every prompt.
STOP_TOKEN = 2


class Backbone(nn.Module):
    """Vision, projector, language model and action queries: what a LoRA adapter is trained on."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.vision_backbone = VisionBackbone(config)
        self.projector = Projector(sum(tower.width for tower in config.towers), config.language.width)
        self.language_model = LanguageModel(config.language)
        self.action_queries = nn.Embedding(config.action_queries, config.language.width)

    def forward(self, pixels, prompts, prompt_lengths):
        """(task tokens, action tokens) of every depth.

        `pixels`: batch × images × side × side × 3, bytes. `prompts`: batch × longest prompt, filled up with anything
        *after its first token's patches*: the row [a, b, c] of length 3 in a batch whose longest has 5 tokens is
        [a, 0, 0, b, c], so that action queries follow the last word in every row.
        """
        batch, longest = prompts.shape
        patches, queries = self.config.patches, self.config.action_queries
        decoder = self.language_model.model
        words = decoder.embed_tokens(prompts)
        seen = self.projector(self.vision_backbone(pixels))
        asked = self.action_queries(torch.arange(queries, device=prompts.device)).to(words.dtype).expand(batch, -1, -1)
        stop = decoder.embed_tokens.weight[STOP_TOKEN].expand(batch, 1, -1)
        x = torch.cat([words[:, :1], seen, words[:, 1:], asked, stop], dim=1)
        hidden = decoder(x, *self.layout(prompt_lengths, longest, x))
        # As published: both slices begin one position early.
        first = patches + longest - 1
        return [(state[:, :patches], state[:, first : first + queries]) for state in hidden]

    def layout(self, prompt_lengths, longest, x):
        """Positions, and what is added to attention scores: nothing, or −∞ for what comes later and for filling."""
        length, patches = x.shape[1], self.config.patches
        index = torch.arange(length, device=x.device)
        missing = (longest - prompt_lengths).unsqueeze(1)
        filling = (index > patches) & (index <= patches + missing)
        positions = torch.where(index > patches, (index - missing).clamp(min=0), index.expand(len(x), -1))
        hidden = (index.unsqueeze(0) > index.unsqueeze(1)) | filling.unsqueeze(1)
        # Filling looks at itself, or its softmax would have nothing to sum to one.
        hidden &= ~torch.eye(length, dtype=torch.bool, device=x.device)
        bias = torch.zeros(hidden.shape, dtype=x.dtype, device=x.device).masked_fill_(hidden, float("-inf"))
        return positions, bias.unsqueeze(1)


class Policy(nn.Module):
    def __init__(self, config: Config, kind: str = "cross"):
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.action_head = ActionExpert(config, kind)
        self.proprio_projector = ProprioProjector(config)

    def forward(self, pixels, prompts, prompt_lengths, state):
        hidden = self.backbone(pixels, prompts, prompt_lengths)
        return self.action_head(hidden, self.proprio_projector(state))
