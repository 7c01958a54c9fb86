"""XPolicyLab's websocket protocol, which RoboTwin 2.0's and RoboDojo's evaluations speak, as a client of a few lines."""

from __future__ import annotations

import uuid
from contextlib import ExitStack
from datetime import datetime, timezone
from typing import Any, Dict, Mapping, Optional

import msgpack
import msgpack_numpy
import numpy as np
import websockets.exceptions
import websockets.sync.client


class SessionError(Exception):
    """Nothing listens there, the connection broke, or the server refused a request; the text says which."""

    def __init__(self, message: str, code: str = "connection") -> None:
        super().__init__(message)
        #: The server's code: ``invalid_frame``, ``infer_failed``, ``unknown_message_type``, …; ``connection`` is ours.
        self.code = code


class Session:
    """One evaluation's connection to a policy server; use it as a context manager.

    Args:
        url: where the server listens, ``ws://127.0.0.1:8000``.
        evaluation_id: sent with every message.
        timeout_s: how long one reply may take, the wait for a server that warms up included.
    """

    def __init__(self, url: str, evaluation_id: str = "evaluation", timeout_s: float = 600.0) -> None:
        self.url = url
        self._evaluation_id = evaluation_id
        self._timeout_s = timeout_s
        self._trial_id: Optional[str] = None
        self._step = 0
        self._connection = ExitStack()
        try:
            connect = websockets.sync.client.connect(url, compression=None, max_size=None, open_timeout=timeout_s)
            self._socket = self._connection.enter_context(connect)
        except (OSError, ValueError, websockets.exceptions.WebSocketException) as error:
            raise SessionError(f"cannot connect to {url}: {error or type(error).__name__}") from error
        try:
            #: What the server says of itself: ``action_dim``, ``state_dim``, ``images``, ``tasks``, …
            self.metadata: Dict[str, Any] = self.request("hello", {})
        except BaseException:
            self._connection.close()
            raise

    def prepare_case(self, action_case_id: str, case: Optional[Mapping[str, Any]] = None) -> None:
        """Says which case comes; the server starts a new episode."""
        self.request("prepare_case", {"action_case_id": action_case_id, **(case or {})}, action_case_id=action_case_id)

    def reset(self, trial_id: str) -> None:
        """Starts a trial: the server starts a new episode."""
        self._trial_id, self._step = trial_id, 0
        self.request("reset", {"trial_id": trial_id})

    def infer(self, observation: Mapping[str, Any]) -> Any:
        """Asks for a chunk of actions on an observation of the Observation Data Format v1.0, or with RoboTwin's own keys.

        Returns:
            One map a control step, from keys like those of the observation's ``state`` to numbers; with RoboTwin's own keys,
            which have no such parts, an array of steps × numbers.
        """
        reply = self.request("infer", {"observation": dict(observation)})
        self._step += 1
        return reply["actions"]

    def trial_end(self, **result: Any) -> None:
        """Ends the trial, with whatever is to be told of it."""
        self.request("trial_end", {"trial_id": self._trial_id, **result})

    def heartbeat(self) -> None:
        """Asks whether the server is there."""
        self.request("heartbeat", {})

    def request(self, kind: str, payload: Mapping[str, Any], **envelope: Any) -> Dict[str, Any]:
        """Sends a message and waits for its answer; returns the answer's payload.

        Raises:
            SessionError: the server answered with an error, or the connection ended.
        """
        message_id = str(uuid.uuid4())
        try:
            self._socket.send(_pack(self._message(kind, message_id, payload, envelope)))
            while True:
                received = self._socket.recv(timeout=self._timeout_s)
                if isinstance(received, str):
                    # What the server says before it ends a connection on which it could read nothing.
                    raise SessionError(received)
                answer = _unpack(received)
                # What the server says of itself to whoever connects is no answer.
                if answer.get("message_id") == message_id:
                    break
        except TimeoutError as error:
            raise SessionError(f"no reply from {self.url} within {self._timeout_s} s") from error
        except websockets.exceptions.ConnectionClosed as error:
            raise SessionError(f"the connection to {self.url} has ended ({error})") from error
        if answer["message_type"] == "error":
            raise SessionError(answer["payload"]["message"], answer["payload"]["code"])
        return answer["payload"]

    def close(self) -> None:
        """Asks the server to end the connection, and waits until it has."""
        try:
            self._socket.send(_pack(self._message("close", str(uuid.uuid4()), {"reason": "done"}, {})))
            while True:
                self._socket.recv(timeout=self._timeout_s)
        except (TimeoutError, websockets.exceptions.ConnectionClosed):
            self._connection.close()

    def _message(
        self, kind: str, message_id: str, payload: Mapping[str, Any], envelope: Mapping[str, Any]
    ) -> Dict[str, Any]:
        return {
            "message_type": kind,
            "message_id": message_id,
            "evaluation_id": self._evaluation_id,
            "action_case_id": None,
            "trial_id": self._trial_id,
            "repeat_index": None,
            "step": self._step,
            "sent_at": datetime.now(timezone.utc).isoformat(),
            "payload": dict(payload),
            **envelope,
        }

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _pack(message: Mapping[str, Any]) -> bytes:
    return msgpack.packb(message, default=_encode, use_bin_type=True)


def _encode(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind not in "biuf":
        # msgpack_numpy would send objects as pickles, which no server should read.
        raise TypeError(f"cannot send an array of dtype {value.dtype}; only plain numbers have a place in an observation")
    return msgpack_numpy.encode(value)


def _unpack(message: bytes) -> Dict[str, Any]:
    return msgpack.unpackb(message, object_hook=_decode)


def _decode(entries: Dict[Any, Any]) -> Any:
    if entries.get(b"kind"):
        raise ValueError("only arrays of plain numbers are read, never pickles")
    return msgpack_numpy.decode(entries)
