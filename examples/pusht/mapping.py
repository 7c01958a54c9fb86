"""Between PushT and a policy of another robot: shapes that fit, so that both can run in one loop."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional, Sequence

import numpy as np

#: PushT's plane is this many pixels wide and high; positions and actions are pixels from the top left.
PLANE_PX = 512.0

PROMPT = "push the T into its place"


def observation(
    seen: Mapping[str, np.ndarray], metadata: Mapping[str, Any], task: Optional[str] = None
) -> Dict[str, Any]:
    """An observation of the kind that the server's policy takes.

    Args:
        seen: ``pixels`` (H × W × 3, uint8 RGB) and ``agent_pos`` (x, y in pixels), as ``obs_type="pixels_agent_pos"`` gives.
        metadata: the server's: how many ``images``, how long a state (``state_dim``).
        task: the policy's task to run; None leaves the choice to the server.

    Returns:
        The one camera for every image that the policy wants, and a state that begins with x and y from −1 to 1, the rest zeros.
    """
    state = np.zeros(metadata["state_dim"])
    position = from_pixels(seen["agent_pos"])[: len(state)]
    state[: len(position)] = position
    images = {f"image_{index}": seen["pixels"] for index in range(metadata["images"])}
    sent = {**images, "state": state, "prompt": PROMPT}
    return sent if task is None else {**sent, "task": task}


def command(action: Sequence[float]) -> np.ndarray:
    """Where PushT's agent goes, in pixels: an action's first two numbers, −1 to 1 over the plane; what is beyond is cut off."""
    return to_pixels(np.clip(action[:2], -1.0, 1.0)).astype(np.float32)


def from_pixels(position: Sequence[float]) -> np.ndarray:
    """0 … 512 pixels to −1 … 1."""
    return np.asarray(position, dtype=np.float64) / (PLANE_PX / 2) - 1.0


def to_pixels(position: Sequence[float]) -> np.ndarray:
    """−1 … 1 to 0 … 512 pixels."""
    return (np.asarray(position, dtype=np.float64) + 1.0) * (PLANE_PX / 2)
