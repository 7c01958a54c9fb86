"""What examples/write.rs has recorded, read by pyarrow, pandas and the lerobot package.

    cargo run -p skillweld-recorder --example write -- FOLDER 3 5,130,2
    SKILLWELD_DATASET=FOLDER pytest crates/recorder/tests/python

Wants lerobot 0.4 or newer with its dataset extra, and pytest. Nothing is fetched.
"""

import importlib.metadata
import io
import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

import datasets
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.compute_stats import aggregate_stats, compute_episode_stats
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from PIL import Image

ROOT = Path(os.environ["SKILLWELD_DATASET"])
FPS = 30
TASKS = ["put the cube into the bowl", "öffne die Schublade"]
CAMERAS = {"front": (24, 32), "wrist": (310, 16)}


def state(episode, frame):
    """As tests/common/mod.rs has it."""
    return np.array([10 * episode + frame * (j + 1) / 8 - 20 * j for j in range(3)], np.float32)


def pixels(episode, frame, camera):
    height, width = CAMERAS[camera]
    row, column = np.mgrid[:height, :width]
    channels = [row + 3 * frame, column + 5 * episode, 100 * list(CAMERAS).index(camera) + row * column // 7]
    return (np.stack(channels, axis=-1) % 256).astype(np.uint8)


@pytest.fixture(scope="module")
def info():
    return json.loads((ROOT / "meta/info.json").read_text())


@pytest.fixture(scope="module")
def tables():
    """One table an episode, in order."""
    return [pq.read_table(path) for path in sorted(ROOT.glob("data/*/*.parquet"))]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    datasets.config.HF_DATASETS_CACHE = str(tmp_path_factory.mktemp("cache"))
    return LeRobotDataset("skillweld/test", root=ROOT)


def test_pyarrow_reads_every_number(info, tables):
    assert info["codebase_version"] == "v3.0" and info["total_episodes"] == len(tables) >= 2
    index = 0
    for episode, table in enumerate(tables):
        columns = table.to_pydict()
        assert list(columns) == list(info["features"])
        for frame in range(table.num_rows):
            assert columns["index"][frame] == index
            assert columns["episode_index"][frame] == episode and columns["frame_index"][frame] == frame
            assert columns["timestamp"][frame] == np.float32(frame / FPS)
            assert columns["intervention"][frame] == (frame % 3 == 1)
            assert columns["next.done"][frame] == (frame + 1 == table.num_rows)
            assert (columns["observation.state"][frame] == state(episode, frame)).all()
            assert (columns["action"][frame] == -state(episode, frame + 1)).all()
            index += 1
    assert index == info["total_frames"]


def test_pyarrow_reads_every_pixel(tables):
    for episode, table in enumerate(tables):
        for camera in CAMERAS:
            for frame, image in enumerate(table[f"observation.images.{camera}"].to_pylist()):
                with Image.open(io.BytesIO(image["bytes"])) as opened:
                    assert opened.mode == "RGB"
                    assert (np.asarray(opened) == pixels(episode, frame, camera)).all()


def test_types_are_those_that_datasets_expects(tables):
    for table in tables:
        types = {field.name: str(field.type) for field in table.schema}
        assert types["observation.state"] == "fixed_size_list<item: float>[3]"
        assert types["observation.images.front"] == "struct<bytes: binary, path: string>"
        assert types["intervention"] == "bool" and types["timestamp"] == "float"
        assert types["task_index"] == "int64"


def test_datasets_reads_the_files_by_themselves(tmp_path):
    files = sorted(str(path) for path in ROOT.glob("data/*/*.parquet"))
    loaded = datasets.Dataset.from_parquet(files, cache_dir=str(tmp_path))
    assert isinstance(loaded.features["observation.images.wrist"], datasets.Image)
    assert (np.asarray(loaded[1]["observation.images.wrist"]) == pixels(0, 1, "wrist")).all()


def test_pandas_finds_tasks_by_their_text(info):
    tasks = pd.read_parquet(ROOT / "meta/tasks.parquet")
    assert tasks.index.name == "task" and list(tasks.index) == TASKS[: info["total_tasks"]]
    assert list(tasks.loc[TASKS[0]]) == [0]


def test_lerobot_reads_every_frame(info, dataset):
    assert dataset.num_episodes == info["total_episodes"] and len(dataset) == info["total_frames"]
    assert dataset.fps == FPS and dataset.meta.robot_type == "so101_follower"
    assert set(dataset.meta.camera_keys) == {f"observation.images.{name}" for name in CAMERAS}
    for index in range(len(dataset)):
        item = dataset[index]
        episode, frame = item["episode_index"].item(), item["frame_index"].item()
        assert item["index"].item() == index and item["task"] == TASKS[episode % 2]
        assert (item["observation.state"].numpy() == state(episode, frame)).all()
        assert item["intervention"].item() == (frame % 3 == 1)
        for camera in CAMERAS:
            image = item[f"observation.images.{camera}"].numpy()
            expected = pixels(episode, frame, camera).transpose(2, 0, 1).astype(np.float32) / np.float32(255)
            assert (image == expected).all()


def test_lerobot_gives_windows_within_episodes(dataset):
    steps = {"action": [0.0, 1 / FPS, 2 / FPS]}
    windows = LeRobotDataset("skillweld/test", root=ROOT, delta_timestamps=steps)
    last = windows.meta.episodes[0]["dataset_to_index"] - 1
    assert windows[last]["action"].shape == (3, 3)
    assert windows[last]["action_is_pad"].tolist() == [False, True, True]


def test_lerobot_reads_chosen_episodes():
    one = LeRobotDataset("skillweld/test", root=ROOT, episodes=[1])
    assert {one[i]["episode_index"].item() for i in range(len(one))} == {1}


def lerobots_statistics(info, tables, folder):
    """An episode's statistics as the lerobot package computes them from the same frames."""
    features = {name: feature | {"shape": tuple(feature["shape"])} for name, feature in info["features"].items()}
    for episode, table in enumerate(tables):
        data = {}
        for name, feature in features.items():
            if feature["dtype"] == "image":
                data[name] = []
                for frame, image in enumerate(table[name].to_pylist()):
                    path = folder / f"{episode}-{name}-{frame}.png"
                    path.write_bytes(image["bytes"])
                    data[name].append(str(path))
            else:
                data[name] = np.array(table[name].to_pylist(), dtype=feature["dtype"])
                if feature["dtype"] == "bool":
                    # Flags are numbers to newer releases, and an error to some older ones.
                    data[name] = data[name].astype(np.float32)
        yield compute_episode_stats(data, features)


def assert_same(ours, theirs, frames):
    assert set(ours) == set(theirs)
    for name, expected in theirs.items():
        got = {key: np.asarray(value) for key, value in ours[name].items()}
        assert set(got) == set(expected)
        low, high = expected["min"].astype(float), expected["max"].astype(float)
        scale = np.maximum(np.abs(low), np.abs(high))
        # They sum squares in float32: the variance is off by as many roundings as there are values, at most.
        rounding = np.finfo(np.float32).eps
        values = frames * (max(h * w for h, w in CAMERAS.values()) if "image" in name else 1)
        sums = rounding * np.sqrt(values)
        for key, value in expected.items():
            assert got[key].shape == value.shape, f"{name} {key}"
            error = np.abs(got[key] - value)
            if key == "count":
                assert (error == 0).all()
            elif key in ("min", "max"):
                assert (error <= rounding * scale).all(), f"{name} {key}"
            elif key == "mean":
                assert (error <= 4 * sums * scale + 1e-12).all(), f"{name} {key}"
            elif key == "std" and "image" in name and importlib.metadata.version("lerobot") < "0.6":
                pass  # They squared bytes as bytes.
            elif key == "std":
                variance = np.abs(got[key] ** 2 - value**2)
                assert (variance <= 8 * sums * scale**2 + 1e-12).all(), f"{name} {key}"
            else:
                # The histogram's bins: a value on an edge may fall to either side, and the edges are float32 to them.
                assert (error <= 2 * (high - low) / 5000 + 2 * rounding * scale + 1e-9).all(), f"{name} {key}"


def test_statistics_agree_with_lerobots_own(info, tables, tmp_path):
    rows = pd.concat([pd.read_parquet(path) for path in sorted(ROOT.glob("meta/episodes/*/*.parquet"))])
    assert list(rows["episode_index"]) == list(range(len(tables)))

    def unpack(value):
        return np.stack([unpack(v) for v in value]) if isinstance(value, np.ndarray) and value.dtype == object else value

    all_theirs, all_ours = [], []
    for episode, theirs in enumerate(lerobots_statistics(info, tables, tmp_path)):
        ours = {}
        for column in rows.columns:
            if column.startswith("stats/"):
                name, key = column.removeprefix("stats/").rsplit("/", 1)
                ours.setdefault(name, {})[key] = unpack(rows[column].iloc[episode])
        assert_same(ours, theirs, tables[episode].num_rows)
        all_theirs.append(theirs)
        all_ours.append(ours)

    # Aggregation is the same arithmetic in the same precision: only the order of sums differs.
    aggregated = aggregate_stats(all_ours)
    stats = json.loads((ROOT / "meta/stats.json").read_text())
    assert set(stats) == set(aggregated)
    for name, expected in aggregated.items():
        for key, value in expected.items():
            np.testing.assert_allclose(stats[name][key], value, rtol=1e-9, atol=1e-9, err_msg=f"{name} {key}")


def test_lerobot_finds_the_statistics(dataset):
    stats = dataset.meta.stats
    assert stats["observation.images.front"]["mean"].shape == (3, 1, 1)
    assert stats["observation.state"]["q99"].shape == (3,)
    assert stats["frame_index"]["count"][0] == len(dataset)
