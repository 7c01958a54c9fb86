"""Merges from Python: what the program does, as a dict; progress, interruption, errors."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import skillweld


def test_a_recipe_is_merged_and_reported(recipe, tmp_path):
    calls = []
    report = skillweld.merge(recipe, tmp_path / "merged", threads=2, progress=lambda *at: calls.append(at))
    assert report["tasks"] == ["spatial", "object", "goal", "long"]
    masks = report["report"]["masks"]
    assert set(masks["kept"]) == set(report["tasks"]) and 0 < masks["selfish_ratio"] < 1
    assert (tmp_path / "merged" / "skillweld.json").is_file()
    done, total = zip(*calls)
    assert list(done) == sorted(done) and len(set(total)) == 1 and calls[-1][0] == calls[-1][1] > 0


def test_the_report_is_a_table_in_a_notebook(recipe, merged):
    report = skillweld.Report(output="<here>", tasks=[], base=None, report={"tensors": {"model: merged": 3}})
    assert "&lt;here&gt;" in report._repr_html_() and "3 model: merged" in report._repr_html_()
    report = skillweld.merge(recipe, merged, force=True)
    html = report._repr_html_()
    assert html.count("<tr>") == 5 and "<td>goal</td>" in html and "kept by exactly one task" in html


def test_a_recipe_may_be_a_mapping(models, tmp_path):
    _, a, b = models
    # A path-like is as good as a string.
    recipe = {"merge_method": "linear", "models": [{"model": a}, {"model": b}], "parameters": {"weight": 1}}
    skillweld.merge(recipe, tmp_path / "mean")
    mean, a, b = (skillweld.open(path) for path in (tmp_path / "mean", a, b))
    for key in a.keys():
        np.testing.assert_allclose(mean[key], (a[key] + b[key]) / 2, rtol=1e-6)


def test_every_plugin_came_along():
    ids = {(method["kind"], method["id"]) for method in skillweld.methods()}
    assert {("merge", "linear"), ("merge", "ties"), ("merge", "magmax"), ("mask", "tall"), ("mask", "emr")} <= ids
    (ties,) = (method for method in skillweld.methods() if method["id"] == "ties")
    assert "density" in ties["schema"]["properties"]


def test_what_is_wrong_is_said_and_nothing_is_written(models, recipe, tmp_path):
    base, a, b = models
    cases = [
        ({"merge_method": "tise", "models": [{"model": a}]}, "`ties`"),
        ({"merge_method": "linear", "models": [{"model": tmp_path / "nowhere"}]}, "nowhere"),
        ({"merge_method": "linear"}, "models"),
        (tmp_path / "no.yaml", "no.yaml"),
    ]
    for source, said in cases:
        with pytest.raises(skillweld.Error, match=said):
            skillweld.merge(source, tmp_path / "out")
    with pytest.raises(skillweld.Error, match="threads=0"):
        skillweld.merge(recipe, tmp_path / "out", threads=0)
    with pytest.raises(skillweld.Error, match="no-plugin.so"):
        skillweld.merge(recipe, tmp_path / "out", plugins=["no-plugin.so"])
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    for force in (False, True):
        with pytest.raises(skillweld.Error, match="out"):
            skillweld.merge(recipe, tmp_path / "out", force=force)
    assert (tmp_path / "out" / "thesis.tex").exists()
    assert issubclass(skillweld.Error, Exception) and skillweld.Error.__module__ == "skillweld"


def test_an_exception_of_the_callback_stops_the_merge(recipe, tmp_path):
    def progress(done, total):
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        skillweld.merge(recipe, tmp_path / "merged", progress=progress)
    assert not list(tmp_path.glob(".*partial*"))


@pytest.fixture
def large(tmp_path) -> dict:
    """A recipe of some seconds on one thread."""
    from conftest import write_safetensors

    random = np.random.default_rng(1)
    values = [random.normal(size=(4000, 4000)).astype(np.float32) for _ in range(3)]
    base, *experts = (
        write_safetensors(tmp_path / f"large{i}", {f"layers.{j}.weight": ("F32", v) for j in range(4)})
        for i, v in enumerate(values)
    )
    return {"merge_method": "dare_ties", "base_model": base, "models": [{"model": e} for e in experts],
            "parameters": {"density": 0.5}}


def test_ctrl_c_stops_the_merge_and_leaves_nothing(large, tmp_path):
    started = time.monotonic()
    # As the terminal does it, once the merge is under way: from another process, for a thread of this one would need its lock.
    kill = subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -INT {os.getpid()}"])
    with pytest.raises(KeyboardInterrupt):
        skillweld.merge(large, tmp_path / "merged", threads=1, progress=lambda *at: None)
        kill.wait()
        pytest.fail(f"done after {time.monotonic() - started} s, before the signal")
    kill.wait()
    assert not (tmp_path / "merged").exists()
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]
    # And the next one works.
    assert skillweld.merge(large, tmp_path / "merged")["report"]["tensors"]


def test_other_threads_run_meanwhile(large, tmp_path):
    ticks = []
    stop = threading.Event()

    def tick():
        while not stop.wait(0.01):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    started = time.monotonic()
    skillweld.merge(large, tmp_path / "merged", threads=1)
    ended = time.monotonic()
    stop.set()
    thread.join()
    assert sum(started < at < ended for at in ticks) >= 3


def test_log_lines_of_plugins_go_to_logging(recipe, tmp_path, caplog):
    with caplog.at_level(logging.DEBUG, logger="skillweld"):
        skillweld.merge(recipe, tmp_path / "merged")
    assert all(isinstance(record.levelno, int) for record in caplog.records)


def test_stubs_are_installed():
    package = Path(skillweld.__file__).parent
    for name in ("py.typed", "__init__.pyi", "_report.pyi"):
        assert (package / name).is_file(), name
