"""One tensor in memory, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

import skillweld


@pytest.fixture
def arrays():
    random = np.random.default_rng(3)
    return [random.normal(size=(13, 7)).astype(np.float32) for _ in range(3)]


def test_methods_on_weights_and_on_task_vectors(arrays):
    base, a, b = arrays
    mean = skillweld.merge_arrays("linear", None, [a, b], weight=[1.0, 3.0])
    np.testing.assert_allclose(mean, (a + 3 * b) / 4, rtol=1e-5, atol=1e-6)
    assert mean.dtype == np.float32 and mean.shape == base.shape
    total = skillweld.merge_arrays("task_arithmetic", base, [a, b], weight=np.float32(0.5), **{"lambda": 2})
    np.testing.assert_allclose(total, base + (a - base) + (b - base), rtol=1e-4, atol=1e-5)


def test_ties_at_full_density_elects_signs(arrays):
    base, *experts = arrays
    tau = np.stack([expert - base for expert in experts])
    sign = np.sign(tau.sum(axis=0))
    agree = np.sign(tau) == sign
    expected = base + (tau * agree).sum(axis=0)
    got = skillweld.merge_arrays("ties", base, experts, density=1.0, normalize=False)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_a_merge_of_files_gives_the_same_values(models, tmp_path):
    base, a, b = models
    recipe = {"merge_method": "ties", "base_model": base, "models": [{"model": a}, {"model": b}],
              "parameters": {"density": 0.5, "weight": 0.7}}
    skillweld.merge(recipe, tmp_path / "merged")
    merged, *opened = (skillweld.open(path) for path in (tmp_path / "merged", base, a, b))
    for key in merged.keys():
        arrays = [checkpoint[key] for checkpoint in opened]
        got = skillweld.merge_arrays("ties", arrays[0], arrays[1:], density=0.5, weight=0.7)
        np.testing.assert_allclose(got, merged[key], rtol=1e-6, atol=1e-6)


def test_other_dtypes_and_views_are_taken(arrays):
    _, a, b = arrays
    expected = skillweld.merge_arrays("linear", None, [a, b])
    got = skillweld.merge_arrays("linear", None, [np.asfortranarray(a.astype(np.float64)), b[::-1][::-1].tolist()])
    np.testing.assert_array_equal(got, expected)
    assert skillweld.merge_arrays("linear", None, [np.float32(1), np.float32(3)]).shape == ()


def test_seeds_decide_about_what_is_dropped(arrays):
    base, *experts = arrays
    runs = [skillweld.merge_arrays("dare_linear", base, experts, density=0.5, seed=seed) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_bad_input_is_refused(arrays):
    base, a, b = arrays
    nan = a.copy()
    nan[0, 3] = np.nan
    cases = [
        (("linaer", None, [a, b]), {}, "`linear`"),
        (("ties", None, [a, b]), {}, "needs a base"),
        (("linear", None, []), {}, "no experts"),
        (("linear", None, [a, b[:3]]), {}, "one shape"),
        (("linear", base[:3], [a, b]), {}, "one shape"),
        (("linear", None, [a, nan]), {}, "expert 1 holds NaN or infinity, first at element 3"),
        (("linear", None, [a, b]), {"wieght": 1}, "did you mean `weight`"),
        (("linear", None, [a, b]), {"weight": [1.0]}, "1 values for 2 experts"),
        (("linear", None, [a, b]), {"weight": "much"}, "weight"),
        (("ties", base, [a, b]), {"density": 2}, "density"),
        (("slerp", None, [a]), {"t": 0.5}, "slerp"),
    ]
    for arguments, params, said in cases:
        with pytest.raises(skillweld.Error, match=said):
            skillweld.merge_arrays(*arguments, **params)
    with pytest.raises(TypeError, match="a parameter is"):
        skillweld.merge_arrays("linear", None, [a, b], weight=object())
