"""A tiny world with LIBERO's interface, for trying the client where LIBERO is not installed.

A hand moves through a box as the action says; a task is done once the hand has come near its goal. Frames have LIBERO's keys,
shapes and dtypes, and are upside down like LIBERO's.
"""

from __future__ import annotations

from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from suites import RESOLUTION

#: How far a full command moves the hand in one step, in metres.
REACH_M = 0.05

#: How near the goal counts, in metres.
NEAR_M = 0.08

#: Half the box's edges, in metres.
BOX_M = 0.3

_GOALS: Dict[str, Tuple[float, float, float]] = {
    "move the hand to the front": (0.25, 0.0, 0.0),
    "move the hand to the left": (0.0, 0.25, 0.0),
    "move the hand up": (0.0, 0.0, 0.25),
}

Frame = Dict[str, np.ndarray]


class DummySuite:
    """Three tasks of moving a hand; the same in every suite."""

    max_steps = 40

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self._seed = seed

    @property
    def prompts(self) -> List[str]:
        """The instruction of every task."""
        return list(_GOALS)

    def open(self, index: int) -> Tuple[DummyEnv, Sequence[np.ndarray]]:
        """The environment of a task, and the hand positions that its episodes start from."""
        starts = np.random.default_rng([self._seed, index]).uniform(-0.02, 0.02, size=(50, 3))
        return DummyEnv(_GOALS[self.prompts[index]]), starts


class DummyEnv:
    """The part of LIBERO's ``OffScreenRenderEnv`` that an evaluation uses."""

    def __init__(self, goal: Sequence[float]) -> None:
        self._goal = np.asarray(goal)
        self.reset()

    def reset(self) -> Frame:
        """Puts the hand in the middle and opens the gripper."""
        self._hand = np.zeros(3)
        self._opening = 0.04
        return self._frame()

    def set_init_state(self, state: np.ndarray) -> Frame:
        """Puts the hand at a position."""
        self._hand = np.array(state, dtype=np.float64)
        return self._frame()

    def step(self, action: Sequence[float]) -> Tuple[Frame, float, bool, Dict[str, Any]]:
        """Moves the hand by the first three numbers, and the gripper by the last: −1 opens, +1 closes."""
        moved = np.clip(action, -1.0, 1.0)
        self._hand = np.clip(self._hand + REACH_M * moved[:3], -BOX_M, BOX_M)
        self._opening = float(np.clip(self._opening - 0.01 * moved[6], 0.0, 0.04))
        done = bool(np.linalg.norm(self._hand - self._goal) < NEAR_M)
        return self._frame(), float(done), done, {}

    def close(self) -> None:
        """Nothing to free."""

    def _frame(self) -> Frame:
        return {
            "agentview_image": _render(self._hand[1], self._hand[0]),
            "robot0_eye_in_hand_image": _render(self._hand[1], self._hand[2]),
            "robot0_eef_pos": self._hand.copy(),
            # Points down, as LIBERO's hand does.
            "robot0_eef_quat": np.array([1.0, 0.0, 0.0, 0.0]),
            "robot0_gripper_qpos": np.array([self._opening, -self._opening]),
        }


def _render(left_m: float, up_m: float) -> np.ndarray:
    """A white square on grey, and a red corner that is at the top left once the image is turned upright."""
    image = np.full((RESOLUTION, RESOLUTION, 3), 96, np.uint8)
    row, column = (int((0.5 - 0.4 * metres / BOX_M) * RESOLUTION) for metres in (up_m, left_m))
    image[row - 8 : row + 8, column - 8 : column + 8] = 255
    image[:16, :16] = (255, 0, 0)
    return np.ascontiguousarray(image[::-1, ::-1])
