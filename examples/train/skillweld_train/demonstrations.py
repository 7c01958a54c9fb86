"""Demonstrations from LeRobot datasets (version 3, pictures as images), as training wants them."""

import dataclasses
import io
import json
import mmap
import pathlib
import tempfile

import numpy as np
import torch
from PIL import Image
from pyarrow import parquet

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


def counts(groups):
    """Of some demonstrations, as statistics say them."""
    return {
        "num_transitions": sum(len(demos.ends) for demos in groups),
        "num_trajectories": sum(demos.episodes for demos in groups),
    }


def pictures(*shape):
    """Bytes of that shape in a file that vanishes with them: pages that are not needed at the moment may leave memory."""
    with tempfile.TemporaryFile() as file:
        file.truncate(int(np.prod(shape)))
        return torch.frombuffer(mmap.mmap(file.fileno(), 0), dtype=torch.uint8).view(shape)


def load(folders, without=()):
    """Reads datasets, but no frames whose instruction has one of some words."""
    folders = [pathlib.Path(folder) for folder in folders]
    infos = [json.loads((folder / "meta/info.json").read_text()) for folder in folders]
    views = [name for name in infos[0]["features"] if name.startswith("observation.images.")]
    shape = infos[0]["features"][views[0]]["shape"]
    pixels = pictures(sum(info["total_frames"] for info in infos), len(views), *shape)
    states, actions, instructions, lengths = [], [], [], []
    for folder in folders:
        tasks = parquet.read_table(folder / "meta/tasks.parquet").to_pydict()
        text = dict(zip(tasks["task_index"], tasks.get("task") or tasks["__index_level_0__"]))
        left_out = [index for index, words in text.items() if not set(without).isdisjoint(words.split())]
        episode = None
        for path in sorted((folder / "data").rglob("*.parquet")):
            table = parquet.read_table(path)
            table = table.filter([index not in left_out for index in table["task_index"].to_pylist()])
            if not table.num_rows:
                continue
            states.append(np.array(table["observation.state"].to_pylist(), np.float32))
            actions.append(np.array(table["action"].to_pylist(), np.float32))
            columns = [table[view].combine_chunks().field("bytes") for view in views]
            for row, (index, task) in enumerate(zip(table["episode_index"].to_pylist(), table["task_index"].to_pylist())):
                seen = [np.asarray(Image.open(io.BytesIO(column[row].as_py())).convert("RGB")) for column in columns]
                pixels[len(instructions)] = torch.from_numpy(center_crop(np.stack(seen)))
                instructions.append(text[task])
                if index != episode:
                    lengths.append(0)
                episode = index
                lengths[-1] += 1
    if not instructions:
        raise SystemExit(f"{', '.join(map(str, folders))}: no demonstrations are left")
    return Demonstrations(
        pixels[: len(instructions)], np.concatenate(states), np.concatenate(actions),
        np.repeat(np.cumsum(lengths), lengths), instructions, len(lengths),
    )  # fmt: skip
