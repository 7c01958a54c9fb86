"""Merge expert checkpoints of vision-language-action models into one policy that still has every skill.

    import skillweld

    report = skillweld.merge("recipe.yaml", "merged")          # a dict, and a table in a notebook
    merged = skillweld.open("merged")
    merged.tasks, merged.weights("pick")["action_queries.weight"]   # numpy arrays

    skillweld.retain("pi0", "pi0-stove", "retained", alpha=0.8)   # between a policy and its fine-tune (RETAIN)
    skillweld.merge_arrays("ties", base, [a, b], density=0.2)   # one tensor in memory
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import _skillweld
from ._report import Report
from ._skillweld import Checkpoint, Error, Weights, __version__, open

__all__ = ["Checkpoint", "Error", "Report", "Weights", "__version__", "merge", "merge_arrays", "methods", "open", "retain"]

#: The merge methods that came with the package.
_BUNDLED = Path(__file__).parent / "plugins"

_log = logging.getLogger("skillweld")


def merge(
    recipe: str | os.PathLike | Mapping[str, Any],
    out: str | os.PathLike,
    *,
    plugins: Sequence[str | os.PathLike] | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Report:
    """Merge the models of a recipe into the directory `out`, which appears complete or not at all.

    `recipe` is the path of a YAML file, or a mapping with the same fields, whose relative paths start at the working
    directory. `plugins` are more libraries of merge methods; they count before those of the package. `progress` is called with
    (done, total) some times a second; if it raises, or on Ctrl-C, the merge stops and nothing is written.
    """
    is_text = isinstance(recipe, Mapping)
    source = json.dumps(recipe, default=os.fspath) if is_text else os.fspath(recipe)
    report, lines = _skillweld.merge(
        source, is_text, out, list(plugins or ()), _BUNDLED, _positive("threads", threads), force, progress
    )
    return _report(report, lines)


def retain(
    base: str | os.PathLike,
    finetuned: str | os.PathLike,
    out: str | os.PathLike,
    *,
    alpha: float | None = None,
    alpha_vision: float | None = None,
    alpha_language: float | None = None,
    alpha_action: float | None = None,
    preset: str | None = None,
    method: str = "linear",
    density: float | None = None,
    seed: int = 0,
    dtype: str | None = None,
    statistics: str | None = None,
    plugins: Sequence[str | os.PathLike] | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Report:
    """Write the policy at (1 − α) Θ_base + α Θ_finetuned into the directory `out` (RETAIN, arXiv 2512.08333).

    `finetuned` may be a PEFT adapter on the base. Give `alpha`, from 0 (the base) to 1 (the finetuned policy), or the preset
    `"language-only"`; α of vision, language and action may be given besides. `method` is `linear`, `slerp`, `dare` or
    `dare-slerp`; the last two take a `density` and a `seed`. Where normalisation statistics differ, `statistics` says whose to
    keep: `"base"` or `"finetuned"`. The rest is as in `merge`.
    """
    options = {
        "alpha": alpha,
        "alpha_vision": alpha_vision,
        "alpha_language": alpha_language,
        "alpha_action": alpha_action,
        "preset": preset,
        "method": method,
        "density": density,
        "seed": seed,
        "dtype": dtype,
        "statistics": statistics,
    }
    report, lines = _skillweld.retain(
        base,
        finetuned,
        out,
        json.dumps(options, default=_plain),
        list(plugins or ()),
        _BUNDLED,
        _positive("threads", threads),
        force,
        progress,
    )
    return _report(report, lines)


def merge_arrays(
    method: str,
    base: np.ndarray | None,
    experts: Sequence[np.ndarray],
    *,
    seed: int = 0,
    plugins: Sequence[str | os.PathLike] | None = None,
    **params: Any,
) -> np.ndarray:
    """Merge one tensor in memory: weights in, weights out, as float32.

    `base` is Θ₀; methods on weights (`linear`) do without. A parameter that each expert may have takes one value, or a list of
    one for each. What a method sees is the whole array at once, so sums may differ from a merge's in the last bits.
    """
    arrays = [np.asarray(expert, dtype=np.float32) for expert in experts]
    base = None if base is None else np.asarray(base, dtype=np.float32)
    return _skillweld.merge_arrays(
        method, base, arrays, json.dumps(params, default=_plain), seed, list(plugins or ()), _BUNDLED
    )


def methods(*, plugins: Sequence[str | os.PathLike] | None = None) -> list[dict[str, Any]]:
    """The merge and mask methods at hand: id, kind, version, summary, citation and the JSON Schema of the parameters."""
    names = ("id", "kind", "version", "summary", "citation", "schema")
    rows = [dict(zip(names, row)) for row in _skillweld.methods(list(plugins or ()), _BUNDLED)]
    for row in rows:
        row["schema"] = json.loads(row["schema"])
    return rows


def _report(text: str, lines: Sequence[tuple[int, str]]) -> Report:
    for level, line in lines:
        _log.log(level, line)
    return Report(json.loads(text))


def _positive(name: str, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise Error(f"{name}={value}: give at least 1, or nothing for one a core")
    return value


def _plain(value: Any) -> Any:
    """numpy's numbers and arrays as JSON has them."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"a parameter is a number, a word, a boolean or a list of them, not {type(value).__name__}")
