"""Sizes of the policy: Prismatic's parts, so small that two CPU cores train them."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Tower:
    """A vision transformer under timm's names; features are those of the second-to-last block."""

    width: int
    depth: int
    heads: int
    mlp: int
    #: DINOv2's form: class token, four registers, LayerScale. The other form is SigLIP's, here without its pooling.
    dino: bool


@dataclasses.dataclass(frozen=True)
class Language:
    """A Qwen2 decoder."""

    width: int
    depth: int
    heads: int
    kv_heads: int
    mlp: int
    vocabulary: int
    rope_theta: float = 1e6
    epsilon: float = 1e-6


@dataclasses.dataclass(frozen=True)
class Config:
    image_side: int
    patch_side: int
    images: int
    towers: tuple[Tower, Tower]
    language: Language
    action_queries: int
    chunk: int
    action: int
    state: int
    #: Published experts have 8, and no file says so.
    expert_heads: int = 8

    @property
    def patches(self) -> int:
        """Of all images."""
        return self.images * (self.image_side // self.patch_side) ** 2


def small(vocabulary: int) -> Config:
    """What all stages train."""
    return Config(
        image_side=96,
        patch_side=12,
        images=2,
        towers=(Tower(96, 4, 3, 384, dino=True), Tower(96, 4, 3, 384, dino=False)),
        language=Language(width=128, depth=4, heads=4, kv_heads=2, mlp=384, vocabulary=vocabulary),
        action_queries=16,
        chunk=8,
        action=7,
        state=8,
    )
