"""Small models that the demo makes, and what comes of merging them."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest

import skillweld


@pytest.fixture(scope="session")
def recipe() -> Path:
    value = os.environ.get("SKILLWELD_DEMO_RECIPE")
    if not value or not Path(value).exists():
        pytest.fail(f"SKILLWELD_DEMO_RECIPE names no recipe: {value!r}; `cargo xtask test` sets it", pytrace=False)
    return Path(value)


@pytest.fixture(scope="session")
def merged(recipe, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("merges") / "merged"
    skillweld.merge(recipe, out)
    return out


def write_safetensors(folder: Path, tensors: dict[str, tuple[str, np.ndarray]]) -> Path:
    """A model of its own: name → (safetensors' dtype, array of its bytes)."""
    folder.mkdir(parents=True)
    header, data = {}, b""
    for name, (dtype, array) in tensors.items():
        bytes_ = array.tobytes()
        shape = list(array.shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(bytes_)]}
        data += bytes_
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder


@pytest.fixture
def models(tmp_path) -> list[Path]:
    """Three models of two float32 tensors: a base and two fine-tunes."""
    random = np.random.default_rng(0)

    def tensors():
        return {
            "layers.0.weight": ("F32", random.normal(size=(6, 5)).astype(np.float32)),
            "norm.weight": ("F32", random.normal(size=7).astype(np.float32)),
        }

    return [write_safetensors(tmp_path / name, tensors()) for name in ("base", "a", "b")]
