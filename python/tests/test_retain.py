"""RETAIN from Python: the formula, the options' names, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import skillweld


def test_the_output_lies_at_alpha_between_the_two(models, tmp_path):
    base, finetuned, _ = models
    calls = []
    report = skillweld.retain(base, finetuned, tmp_path / "out", alpha=0.75, progress=lambda *at: calls.append(at))
    out, base, finetuned = (skillweld.open(path) for path in (tmp_path / "out", base, finetuned))
    for key in base.keys():
        np.testing.assert_allclose(out[key], 0.25 * base[key] + 0.75 * finetuned[key], rtol=1e-6, atol=1e-6)
    assert report["interpolation"]["alpha"] == dict.fromkeys(("vision", "language", "action", "other"), 0.75)
    assert report["result_blake3"]["weights"] and calls[-1][0] == calls[-1][1] > 0
    assert "merged" in report._repr_html_()


def test_options_have_the_command_s_names(models, tmp_path):
    base, finetuned, _ = models
    options = {"alpha_action": 0.3, "preset": "language-only", "method": "dare", "density": 0.5, "seed": np.int64(7)}
    said = skillweld.retain(base, finetuned, tmp_path / "out", **options)["interpolation"]
    assert said["alpha"] == {"vision": 1.0, "language": 0.8, "action": 0.3, "other": 1.0}
    assert (said["method"], said["density"], said["seed"]) == ("dare", 0.5, 7)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "alpha is missing"),
        ({"alpha": 1.5}, "0 to 1"),
        ({"alpha": 0.5, "preset": "language-only"}, "not both"),
        ({"preset": "vision-only"}, "language-only"),
        ({"alpha": 0.5, "method": "darre"}, "dare-slerp"),
        ({"alpha": 0.5, "density": 0.5}, "of no use"),
        ({"alpha": 0.5, "statistics": "mine"}, "finetuned"),
        ({"alpha": 0.5, "dtype": "float31"}, "float31"),
        ({"alpha": 0.5, "threads": 0}, "threads=0"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(models, tmp_path, options, said):
    base, finetuned, _ = models
    with pytest.raises(skillweld.Error, match=said):
        skillweld.retain(base, finetuned, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_an_output_is_replaced_only_when_asked(models, tmp_path):
    base, finetuned, other = models
    out = tmp_path / "out"
    skillweld.retain(base, finetuned, out, alpha=1.0)
    with pytest.raises(skillweld.Error, match="out"):
        skillweld.retain(base, other, out, alpha=1.0)
    skillweld.retain(base, other, out, alpha=1.0, force=True)
    np.testing.assert_array_equal(skillweld.open(out)["norm.weight"], skillweld.open(other)["norm.weight"])
