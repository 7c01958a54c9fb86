"""Demonstrations from LeRobot datasets (version 3, pictures as images), in memory as training wants them."""

import dataclasses
import io
import json
import pathlib

import numpy as np
import torch
from PIL import Image
from pyarrow import parquet

from . import statistics
from .preprocess import center_crop


@dataclasses.dataclass
class Demonstrations:
    """All frames of one or more datasets, in order."""

    #: Frames × cameras × side × side × 3 bytes, cropped.
    pixels: torch.Tensor
    #: Frames × state, and frames × action, as recorded.
    states: np.ndarray
    actions: np.ndarray
    #: Of each frame: the first frame after its episode.
    ends: np.ndarray
    instructions: list[str]
    episodes: int

    def chunks(self, length):
        """Frames × length × action: what came next; after its end an episode repeats its last action."""
        frames = np.arange(len(self.ends))[:, None]
        return self.actions[np.minimum(frames + np.arange(length), self.ends[:, None] - 1)]

    def statistics(self, name):
        return statistics.dataset(name, self.actions, self.states, self.episodes)


def load(folders):
    """Reads datasets."""
    parts = [load_one(pathlib.Path(folder)) for folder in folders]
    offset, ends = 0, []
    for part in parts:
        ends.append(part.ends + offset)
        offset += len(part.ends)
    return Demonstrations(
        torch.cat([part.pixels for part in parts]),
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("states", "actions")),
        np.concatenate(ends),
        [text for part in parts for text in part.instructions],
        sum(part.episodes for part in parts),
    )


def load_one(folder):
    info = json.loads((folder / "meta/info.json").read_text())
    cameras = [name for name in info["features"] if name.startswith("observation.images.")]
    tasks = parquet.read_table(folder / "meta/tasks.parquet").to_pydict()
    text = dict(zip(tasks["task_index"], tasks.get("task") or tasks["__index_level_0__"]))
    states, actions, index, task, pixels = [], [], [], [], []
    for path in sorted((folder / "data").rglob("*.parquet")):
        table = parquet.read_table(path)
        states.append(np.array(table["observation.state"].to_pylist(), np.float32))
        actions.append(np.array(table["action"].to_pylist(), np.float32))
        index.append(table["episode_index"].to_numpy())
        task.append(table["task_index"].to_numpy())
        columns = [table[camera].combine_chunks().field("bytes") for camera in cameras]
        for row in range(table.num_rows):
            views = [Image.open(io.BytesIO(column[row].as_py())).convert("RGB") for column in columns]
            pixels.append(center_crop(np.stack([np.asarray(view) for view in views])))
    index = np.concatenate(index)
    last = np.append(np.flatnonzero(np.diff(index)) + 1, len(index))
    ends = last[np.searchsorted(last, np.arange(len(index)), side="right")]
    return Demonstrations(
        torch.from_numpy(np.stack(pixels)),
        np.concatenate(states), np.concatenate(actions), ends,
        [text[i] for i in np.concatenate(task)], len(last),
    )  # fmt: skip
