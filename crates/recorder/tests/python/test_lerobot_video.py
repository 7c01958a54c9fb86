"""The same with images as mp4, read by PyAV and the lerobot package, and one of lerobot's own read by `skillweld`.

    cargo run -p skillweld-recorder --features mp4 --example write -- FOLDER 3 5,130,2 video
    SKILLWELD_VIDEO_DATASET=FOLDER SKILLWELD_DATASET=… SKILLWELD_BIN=… pytest crates/recorder/tests/python
"""

import json
import os
import subprocess
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.utils import DEFAULT_VIDEO_PATH
from lerobot.datasets.video_utils import get_video_duration_in_s, get_video_info
from test_lerobot import CAMERAS, FPS, ROOT as PNG_ROOT, TASKS, pixels, state

ROOT = Path(os.environ["SKILLWELD_VIDEO_DATASET"])

# Of every frame's brightness, in 8 bits. Colours have half the resolution: the patterns' edges, which no camera sees, lose them.
LEAST_PSNR_DB = 33
BRIGHTNESS = np.array([0.299, 0.587, 0.114])


@pytest.fixture(scope="module")
def info():
    return json.loads((ROOT / "meta/info.json").read_text())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    datasets.config.HF_DATASETS_CACHE = str(tmp_path_factory.mktemp("cache"))
    return LeRobotDataset("skillweld/test", root=ROOT, video_backend="pyav")


def psnr_db(got, expected):
    error = np.mean((got.astype(np.float64) - expected) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-9))


def test_features_say_what_lerobot_would(info):
    assert info["video_path"] == DEFAULT_VIDEO_PATH
    for camera, (height, width) in CAMERAS.items():
        feature = info["features"][f"observation.images.{camera}"]
        assert feature["dtype"] == "video" and feature["shape"] == [height, width, 3]
        files = sorted((ROOT / f"videos/observation.images.{camera}").glob("*/*"))
        assert len(files) == info["total_episodes"]
        for path in files:
            assert get_video_info(path) == feature["info"]


def test_episodes_say_where_their_videos_are(info):
    rows = pd.concat([pd.read_parquet(path) for path in sorted(ROOT.glob("meta/episodes/*/*.parquet"))])
    for camera in CAMERAS:
        key = f"videos/observation.images.{camera}"
        assert list(rows[f"{key}/file_index"]) == list(range(info["total_episodes"]))
        assert rows[f"{key}/chunk_index"].dtype == rows[f"{key}/file_index"].dtype == np.int64
        for row in rows.to_dict("records"):
            path = ROOT / DEFAULT_VIDEO_PATH.format(
                video_key=f"observation.images.{camera}", chunk_index=0, file_index=row[f"{key}/file_index"]
            )
            assert row[f"{key}/from_timestamp"] == 0.0
            assert abs(row[f"{key}/to_timestamp"] - get_video_duration_in_s(path)) < 1e-6


def test_the_data_have_no_column_for_a_video(info):
    numbers = [name for name, feature in info["features"].items() if feature["dtype"] != "video"]
    for path in ROOT.glob("data/*/*.parquet"):
        assert pq.read_schema(path).names == numbers


def test_statistics_are_those_of_the_images():
    assert (ROOT / "meta/stats.json").read_bytes() == (PNG_ROOT / "meta/stats.json").read_bytes()


def test_lerobot_decodes_every_frame(info, dataset):
    assert len(dataset) == info["total_frames"]
    assert set(dataset.meta.video_keys) == {f"observation.images.{name}" for name in CAMERAS}
    shifts = (-1, 0, 1)
    qualities = {(camera, shift): [] for camera in CAMERAS for shift in shifts}
    for index in range(len(dataset)):
        item = dataset[index]
        episode, frame = item["episode_index"].item(), item["frame_index"].item()
        assert item["task"] == TASKS[episode % 2]
        assert (item["observation.state"].numpy() == state(episode, frame)).all()
        for camera in CAMERAS:
            got = item[f"observation.images.{camera}"].numpy().transpose(1, 2, 0) * 255
            expected = {shift: pixels(episode, frame + shift, camera) for shift in shifts}
            assert psnr_db(got @ BRIGHTNESS, expected[0] @ BRIGHTNESS) >= LEAST_PSNR_DB, f"{camera} {episode} {frame}"
            for shift in shifts:
                qualities[camera, shift].append(psnr_db(got, expected[shift]))
    for camera in CAMERAS:
        # It is this frame, and none beside it, which differs little: on the whole, then.
        mean = [np.mean(qualities[camera, shift]) for shift in shifts]
        assert mean[1] > max(mean[0], mean[2]) + 1, mean


def test_skillweld_reads_lerobots_own(tmp_path):
    features = {
        "observation.state": {"dtype": "float32", "shape": (2,), "names": ["a", "b"]},
        "action": {"dtype": "float32", "shape": (2,), "names": ["a", "b"]},
        "observation.images.front": {
            "dtype": "video",
            "shape": (48, 64, 3),
            "names": ["height", "width", "channels"],
        },
    }
    root = tmp_path / "set"
    made = LeRobotDataset.create("lerobot/test", FPS, features, root=root, use_videos=True, vcodec="h264")
    for frames in (7, 12):
        for frame in range(frames):
            picture = np.full((48, 64, 3), 10 * frame, np.uint8)
            numbers = np.full(2, frame, np.float32)
            made.add_frame(
                {"observation.state": numbers, "action": numbers, "observation.images.front": picture, "task": "x"}
            )
        made.save_episode()
    made.finalize()
    inspect = [os.environ["SKILLWELD_BIN"], "dataset", "inspect", str(root)]
    ran = subprocess.run([*inspect, "--json"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert json.loads(ran.stdout)["problems"] == []
    assert "frames of observation.images.front are in mp4 files" in ran.stderr
    next(root.glob("videos/*/*/*.mp4")).unlink()
    ran = subprocess.run([*inspect, "--json"], capture_output=True, text=True)
    assert ran.returncode == 1
    assert [found["episode"] for found in json.loads(ran.stdout)["problems"]] == [0, 1]
