"""Between LIBERO's robot and the policies that were trained on it.

What happens here is what happened to the demonstrations before training; a policy that sees anything else fails silently.
"""

from __future__ import annotations

import math
from typing import Any, Dict, Mapping, Optional, Sequence

import numpy as np

#: Stands still with an open gripper, while what the simulator dropped onto the table comes to rest.
WAIT_ACTION = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)


def observation(frame: Mapping[str, np.ndarray], prompt: str, task: Optional[str] = None) -> Dict[str, Any]:
    """What the policy sees of a frame of LIBERO.

    Args:
        frame: ``agentview_image`` and ``robot0_eye_in_hand_image`` (H × W × 3, uint8 RGB), ``robot0_eef_pos`` (3, metres),
            ``robot0_eef_quat`` (x, y, z, w), ``robot0_gripper_qpos`` (2, metres).
        prompt: the instruction.
        task: the policy's task to run; None leaves the choice to the server.

    Returns:
        An observation with openpi's LIBERO keys; the state is position, axis times angle (radians), gripper: 8 numbers.
    """
    state = np.concatenate(
        [frame["robot0_eef_pos"], axis_angle(frame["robot0_eef_quat"]), frame["robot0_gripper_qpos"]]
    )
    sent = {
        "observation/image": upright(frame["agentview_image"]),
        "observation/wrist_image": upright(frame["robot0_eye_in_hand_image"]),
        "observation/state": state,
        "prompt": prompt,
    }
    return sent if task is None else {**sent, "task": task}


def upright(image: np.ndarray) -> np.ndarray:
    """The image turned by 180°: MuJoCo renders upside down, and the training data was turned like this (not only flipped)."""
    return np.ascontiguousarray(image[::-1, ::-1])


def axis_angle(quaternion: Sequence[float]) -> np.ndarray:
    """A rotation's axis times its angle in radians, from x, y, z, w.

    As robosuite has it: a negative w gives an angle above π and not the shorter way round.
    """
    w = min(max(float(quaternion[3]), -1.0), 1.0)
    sine = math.sqrt(1.0 - w * w)
    if math.isclose(sine, 0.0):
        return np.zeros(3)
    return np.asarray(quaternion[:3], dtype=np.float64) * (2.0 * math.acos(w) / sine)


def command(action: np.ndarray) -> np.ndarray:
    """The action that LIBERO's controller takes: 7 numbers, of which the last moves the gripper.

    Policies give the gripper as in their training data, 0 closed to 1 open; robosuite opens at −1 and closes at +1. So the
    range becomes −1 … 1, is decided by its sign, and flipped.
    """
    commanded = np.array(action, dtype=np.float64)
    # Adding zero makes the −0.0 of an undecided gripper a plain zero.
    commanded[-1] = -np.sign(2.0 * commanded[-1] - 1.0) + 0.0
    return commanded
