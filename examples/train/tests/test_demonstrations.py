"""Datasets of `skillweld sim demos` in memory."""

import os
import subprocess

import numpy as np
import pytest
from skillweld_train import demonstrations

TASKS = {"goal_open": "open the drawer", "goal_push": "push the blue disc into the green zone"}


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folders = []
    for task in TASKS:
        folders.append(tmp_path_factory.mktemp("demos") / task)
        words = ["sim", "demos", folders[-1], "--task", task, "--episodes", "2", "--image-size", "32", "--noise", "0.3"]
        subprocess.run([os.environ["SKILLWELD_BIN"], *words], check=True, capture_output=True)
    return folders


def test_chunks_end_with_their_episode(datasets):
    demos = demonstrations.load(datasets)
    frames = len(demos.ends)
    assert demos.pixels.shape == (frames, 2, 32, 32, 3) and demos.states.shape == (frames, 8) and demos.episodes == 4
    assert list(dict.fromkeys(demos.instructions)) == list(TASKS.values())
    chunks = demos.chunks(8)
    last_frames = sorted(set(demos.ends))
    assert len(last_frames) == 4 and last_frames[-1] == frames
    for first, end in zip([0, *last_frames], last_frames):
        assert np.all(demos.ends[first:end] == end)
        # Slow and obvious.
        for frame in range(first, end):
            expected = [demos.actions[min(frame + step, end - 1)] for step in range(8)]
            np.testing.assert_array_equal(chunks[frame], expected)
    # Pictures are of their frames: an arm that moves is seen to move.
    assert len({picture.numpy().tobytes() for picture in demos.pixels[:, 0]}) > frames / 2


def test_some_instructions_are_left_out(datasets):
    whole, part = demonstrations.load(datasets), demonstrations.load(datasets, ["drawer", "tea"])
    left = np.array(["drawer" not in text for text in whole.instructions])
    assert 0 < left.sum() < len(left) and part.episodes == 2
    np.testing.assert_array_equal(part.actions, whole.actions[left])
    np.testing.assert_array_equal(part.pixels, whole.pixels[left])
    np.testing.assert_array_equal(part.chunks(8), whole.chunks(8)[left])
    with pytest.raises(SystemExit, match="no demonstrations are left"):
        demonstrations.load(datasets[:1], ["drawer"])
