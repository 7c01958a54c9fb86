"""Dataset statistics as OpenVLA's loaders write them, and the normalisation that they stand for."""

import numpy as np


def of(values, mask=None):
    """Rows of numbers → mean, std, min, max, q01, q99 a column."""
    entry = {
        "mean": values.mean(0), "std": values.std(0), "max": values.max(0), "min": values.min(0),
        "q01": np.quantile(values, 0.01, axis=0), "q99": np.quantile(values, 0.99, axis=0),
    }  # fmt: skip
    entry = {name: [float(x) for x in column] for name, column in entry.items()}
    return entry if mask is None else entry | {"mask": mask}


def dataset(name, actions, states, episodes):
    """`dataset_statistics.json`: the gripper, the last action, is not normalised."""
    mask = [True] * (actions.shape[1] - 1) + [False]
    return {
        name: {
            "action": of(actions, mask),
            "proprio": of(states),
            "num_transitions": len(actions),
            "num_trajectories": episodes,
        }
    }


def normalize(values, entry, clip):
    """q01 and q99 become −1 and 1."""
    low, high = (np.asarray(entry[key], np.float32) for key in ("q01", "q99"))
    scaled = 2 * (values - low) / (high - low + 1e-8) - 1
    if clip:
        scaled = np.clip(scaled, -1, 1)
    return np.where(np.asarray(entry.get("mask", [True] * len(low))), scaled, values).astype(np.float32)
