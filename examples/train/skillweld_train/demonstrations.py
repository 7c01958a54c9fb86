"""Demonstrations from LeRobot datasets (version 3, pictures as images), in memory as training wants them."""

import dataclasses
import io
import json
import pathlib

import numpy as np
import pyarrow.compute
import torch
from PIL import Image
from pyarrow import parquet

from . import statistics
from .preprocess import center_crop


@dataclasses.dataclass
class Demonstrations:
    """All frames of one or more datasets, in order."""

    #: Pictures × cameras × side × side × 3 bytes, cropped, and the frame that each was taken in.
    pixels: torch.Tensor
    frames: np.ndarray
    #: Frames × state, and frames × action, as recorded.
    states: np.ndarray
    actions: np.ndarray
    #: Of each frame: the first frame after its episode.
    ends: np.ndarray
    instructions: list[str]
    episodes: int

    def chunks(self, frames, length):
        """Frames × length × action: what came next; after its end an episode repeats its last action."""
        steps = np.minimum(np.asarray(frames)[:, None] + np.arange(length), self.ends[frames][:, None] - 1)
        return self.actions[steps]

    def statistics(self, name):
        return statistics.dataset(name, self.actions, self.states, self.episodes)


def load(folders, stride=1, episodes=None):
    """Reads datasets; of pictures only every `stride`-th frame's, others are never trained on.

    `episodes`: so many of each dataset's, from its beginning.
    """
    parts = [load_one(pathlib.Path(folder), stride, episodes) for folder in folders]
    offset, frames, ends = 0, [], []
    for part in parts:
        frames.append(part.frames + offset)
        ends.append(part.ends + offset)
        offset += len(part.ends)
    return Demonstrations(
        torch.cat([part.pixels for part in parts]),
        np.concatenate(frames),
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("states", "actions")),
        np.concatenate(ends),
        [text for part in parts for text in part.instructions],
        sum(part.episodes for part in parts),
    )


def load_one(folder, stride, episodes):
    info = json.loads((folder / "meta/info.json").read_text())
    cameras = [name for name in info["features"] if name.startswith("observation.images.")]
    tasks = parquet.read_table(folder / "meta/tasks.parquet").to_pydict()
    text = dict(zip(tasks["task_index"], tasks.get("task") or tasks["__index_level_0__"]))
    states, actions, index, task, pixels, seen = [], [], [], [], [], []
    for path in sorted((folder / "data").rglob("*.parquet")):
        table = parquet.read_table(path)
        if episodes is not None:
            table = table.filter(pyarrow.compute.less(table["episode_index"], episodes))
        if not (rows := table.num_rows):
            continue
        columns = [table[camera].combine_chunks().field("bytes") for camera in cameras]
        states.append(np.array(table["observation.state"].to_pylist(), np.float32).reshape(rows, -1))
        actions.append(np.array(table["action"].to_pylist(), np.float32).reshape(rows, -1))
        index.append(table["episode_index"].to_numpy())
        task.append(table["task_index"].to_numpy())
        frames = table["frame_index"].to_numpy()
        for row in np.flatnonzero(frames % stride == 0):
            views = [column[row].as_py() for column in columns]
            views = [np.asarray(Image.open(io.BytesIO(view)).convert("RGB")) for view in views]
            pixels.append(center_crop(np.stack(views)))
        seen.append(sum(map(len, index[:-1])) + np.flatnonzero(frames % stride == 0))
    index = np.concatenate(index)
    last = np.append(np.flatnonzero(np.diff(index)) + 1, len(index))
    ends = last[np.searchsorted(last, np.arange(len(index)), side="right")]
    return Demonstrations(
        torch.from_numpy(np.stack(pixels)), np.concatenate(seen),
        np.concatenate(states), np.concatenate(actions), ends,
        [text[i] for i in np.concatenate(task)], len(last),
    )  # fmt: skip
