import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._report import Report as Report

__all__ = ["Checkpoint", "Error", "Report", "Weights", "__version__", "merge", "merge_arrays", "methods", "open", "retain"]

__version__: str

class Error(Exception):
    """What Skillweld refuses or cannot do: what, where, and the remedy."""

class Checkpoint:
    """Tensors of a checkpoint by key, read when asked for.

    Arrays are copies: float64, integers and booleans as they are stored, every other float (bf16, f16, fp8) as float32, which
    holds it exactly. Of a merged checkpoint `[key]` is Θ₀, or the final weight where there are no masks.
    """

    @property
    def path(self) -> os.PathLike[str]: ...
    @property
    def tasks(self) -> list[str]:
        """Of a merged checkpoint; otherwise there are none."""

    def keys(self) -> list[str]: ...
    def dtype(self, key: str) -> str:
        """As it is stored, by safetensors' name: `BF16`."""

    def shape(self, key: str) -> list[int]: ...
    def weights(self, task: str) -> Weights:
        """One task's model: Θ₀ + rescaler · M ⊙ τ."""

    def __len__(self) -> int: ...
    def __contains__(self, key: str) -> bool: ...
    def __getitem__(self, key: str) -> NDArray[Any]: ...

class Weights:
    """One task's model out of a merged checkpoint, computed in float32 when asked for."""

    @property
    def task(self) -> str: ...
    def keys(self) -> list[str]: ...
    def __len__(self) -> int: ...
    def __contains__(self, key: str) -> bool: ...
    def __getitem__(self, key: str) -> NDArray[Any]: ...

def open(path: str | os.PathLike[str], base: str | os.PathLike[str] | None = None) -> Checkpoint:
    """Open a model, a file of tensors, or a merged checkpoint.

    `base` is the pretrained model, for merged checkpoints that do not hold it.
    """

def merge(
    recipe: str | os.PathLike[str] | Mapping[str, Any],
    out: str | os.PathLike[str],
    *,
    plugins: Sequence[str | os.PathLike[str]] | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Report: ...
def retain(
    base: str | os.PathLike[str],
    finetuned: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    alpha: float | None = None,
    alpha_vision: float | None = None,
    alpha_language: float | None = None,
    alpha_action: float | None = None,
    preset: Literal["language-only"] | None = None,
    method: Literal["linear", "slerp", "dare", "dare-slerp"] = "linear",
    density: float | None = None,
    seed: int = 0,
    dtype: str | None = None,
    statistics: Literal["base", "finetuned"] | None = None,
    plugins: Sequence[str | os.PathLike[str]] | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Report: ...
def merge_arrays(
    method: str,
    base: ArrayLike | None,
    experts: Sequence[ArrayLike],
    *,
    seed: int = 0,
    plugins: Sequence[str | os.PathLike[str]] | None = None,
    **params: Any,
) -> NDArray[np.float32]: ...
def methods(*, plugins: Sequence[str | os.PathLike[str]] | None = None) -> list[dict[str, Any]]: ...
