"""From chunks of actions to one action at a time."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional

import numpy as np

from .client import Client


class ChunkBroker:
    """Carries out chunks action by action, and asks the server again after ``replan_steps`` of them.

    Args:
        client: where chunks come from.
        replan_steps: actions of a chunk that are carried out; None means all.
    """

    def __init__(self, client: Client, replan_steps: Optional[int] = None) -> None:
        if replan_steps is not None and replan_steps < 1:
            raise ValueError(f"replan_steps is {replan_steps}; at least one action of a chunk has to be carried out")
        self._client = client
        self._replan_steps = replan_steps
        self._chunk: Optional[np.ndarray] = None
        self._step = 0
        #: The server's last reply; empty before the first.
        self.reply: Dict[str, Any] = {}

    def action(self, observation: Mapping[str, Any]) -> np.ndarray:
        """The next action: action_dim numbers, float32, in the robot's units.

        The observation is as for :meth:`Client.infer`, and is sent only when a new chunk is needed.
        """
        if self._chunk is None or self._step == len(self._chunk):
            self.reply = self._client.infer(observation)
            self._chunk = self._first(self.reply["actions"])
            self._step = 0
        self._step += 1
        return self._chunk[self._step - 1]

    def reset(self) -> None:
        """Starts a new episode: drops what is left of the chunk, and tells the server with the next observation."""
        self._client.reset()
        self._chunk = None

    def _first(self, actions: np.ndarray) -> np.ndarray:
        horizon = len(actions)
        if self._replan_steps is not None and self._replan_steps > horizon:
            raise ValueError(f"replan_steps is {self._replan_steps}; this policy's chunks have {horizon} actions")
        return actions[: self._replan_steps]
