"""Demonstrations of `skillweld sim demos`, read by the lerobot package.

    SKILLWELD_BIN=target/release/skillweld pytest crates/recorder/tests/python
"""

import os
import subprocess

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

EPISODES = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demos") / "goal"
    words = ["sim", "demos", folder, "--suite", "goal", "--episodes", str(EPISODES), "--image-size", "32"]
    subprocess.run([os.environ["SKILLWELD_BIN"], *words], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def dataset(folder, tmp_path_factory):
    datasets.config.HF_DATASETS_CACHE = str(tmp_path_factory.mktemp("cache"))
    return LeRobotDataset("skillweld/demos", root=folder)


def test_every_task_is_there_with_its_instruction(dataset):
    tasks = list(dataset.meta.tasks.index)
    assert len(tasks) == 5 and "open the drawer" in tasks
    assert dataset.num_episodes == EPISODES * len(tasks)
    seen = {}
    for index in range(len(dataset)):
        item = dataset[index]
        seen.setdefault(item["episode_index"].item(), set()).add(item["task"])
    # Round by round, each task once.
    assert [seen[episode] for episode in range(dataset.num_episodes)] == [{task} for task in tasks] * EPISODES


def test_shapes_are_liberos(dataset):
    assert dataset.fps == 20
    item = dataset[0]
    assert item["observation.state"].shape == (8,) and item["action"].shape == (7,)
    for camera in ("front", "wrist"):
        assert item[f"observation.images.{camera}"].shape == (3, 32, 32)
    # Some columns of a scene differ: no picture is of one colour.
    assert item["observation.images.front"].std() > 0.01


def test_statistics_are_of_its_numbers(folder, dataset):
    tables = [pq.read_table(path) for path in sorted(folder.glob("data/*/*.parquet"))]
    for name in ("observation.state", "action"):
        values = np.concatenate([np.array(table[name].to_pylist(), np.float64) for table in tables])
        stats = dataset.meta.stats[name]
        np.testing.assert_array_equal(stats["min"], values.min(0).astype(np.float32))
        np.testing.assert_array_equal(stats["max"], values.max(0).astype(np.float32))
        # f32 values, summed in f64.
        np.testing.assert_allclose(stats["mean"], values.mean(0), rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(stats["std"], values.std(0), rtol=1e-6, atol=1e-9)
    assert np.abs(values).max() <= 1
