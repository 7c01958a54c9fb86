"""Checkpoints as numpy arrays."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import write_safetensors

import skillweld


def test_every_dtype_comes_exactly(tmp_path):
    floats = np.array([[1.5, -2.0, 3.25e-3], [0.0, 7e4, -0.375]], dtype=np.float32)
    as_bf16 = (floats.view(np.uint32) >> 16).astype(np.uint16)
    arrays = {
        "f64": ("F64", np.array([1 / 3, 1e300])),
        "f32": ("F32", floats),
        "f16": ("F16", np.array([0.5, -1.25], dtype=np.float16)),
        "bf16": ("BF16", as_bf16),
        "bool": ("BOOL", np.array([True, False, True])),
        "scalar": ("F32", np.array(2.5, dtype=np.float32)),
        "empty": ("F32", np.zeros((0, 3), dtype=np.float32)),
        **{f"{kind}{bits}": (f"{kind}{bits}".upper(), np.array([1, 2, 100], dtype=f"{name}{bits}"))
           for kind, name in (("i", "int"), ("u", "uint")) for bits in (8, 16, 32, 64)},
    }
    checkpoint = skillweld.open(write_safetensors(tmp_path / "model", arrays))
    assert checkpoint.keys() == sorted(arrays) and len(checkpoint) == len(arrays)
    assert "f64" in checkpoint and "f65" not in checkpoint
    for key, (dtype, array) in arrays.items():
        assert checkpoint.dtype(key) == dtype and checkpoint.shape(key) == list(array.shape)
        got = checkpoint[key]
        assert got.shape == array.shape
        if key == "bf16":
            expected = (array.astype(np.uint32) << 16).view(np.float32)
        elif key == "f16":
            expected = array.astype(np.float32)
        else:
            expected = array
        assert got.dtype == expected.dtype, key
        np.testing.assert_array_equal(got, expected)
    # A copy: nothing that is done to it reaches the file.
    checkpoint["f32"][:] = 0
    np.testing.assert_array_equal(checkpoint["f32"], floats)


def test_a_merged_checkpoint_has_each_tasks_weights(merged, recipe):
    checkpoint = skillweld.open(merged)
    assert checkpoint.tasks == ["spatial", "object", "goal", "long"]
    assert "spatial" in repr(checkpoint)
    base = skillweld.open(recipe.parent / "base")
    key = "language_model.model.layers.0.mlp.up_proj.weight"
    tasks = {task: checkpoint.weights(task) for task in checkpoint.tasks}
    assert tasks["goal"].task == "goal" and len(tasks["goal"]) == len(checkpoint)
    assert tasks["goal"].keys() == checkpoint.keys() and key in tasks["goal"]
    # Θ₀ is the base's; each task adds some of the entries of one and the same τ to it.
    np.testing.assert_array_equal(checkpoint[key], base[key])
    added = [weights[key] - base[key] for weights in tasks.values()]
    assert all(np.count_nonzero(tau) for tau in added)
    for i in range(4):
        for j in range(i):
            both = (added[i] != 0) & (added[j] != 0)
            np.testing.assert_array_equal(added[i][both], added[j][both])
            assert not np.array_equal(added[i], added[j])


def test_what_is_not_there_is_said(merged, models):
    plain, checkpoint = skillweld.open(models[0]), skillweld.open(merged)
    with pytest.raises(KeyError, match="did you mean `layers.0.weight`"):
        plain["layers.0.wieght"]
    with pytest.raises(skillweld.Error, match="no merged checkpoint"):
        plain.weights("pick")
    assert plain.tasks == []
    with pytest.raises(skillweld.Error, match="did you mean `spatial`"):
        checkpoint.weights("spatail")
    with pytest.raises(KeyError, match="no tensor `x`"):
        checkpoint.weights("goal")["x"]
    with pytest.raises(skillweld.Error, match="nowhere"):
        skillweld.open("nowhere")
    with pytest.raises(skillweld.Error, match="--base"):
        skillweld.open(merged, base=models[0])
