"""The connection to a policy server."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any, Dict, Mapping, Optional

import websockets.exceptions
import websockets.sync.client

from . import codec
from .errors import ConnectError, ConnectionLost, RequestError

#: A server may be on its way up; this is how often it is asked again.
_RETRY_INTERVAL_S = 0.2


class Client:
    """One robot's connection to a policy server; the server keeps one episode for each.

    Use it as a context manager, or call :meth:`close`. It is not meant for several threads at once.

    Args:
        host: name or address, or a whole URI (``ws://robot-lab:8000``, ``wss://…``).
        port: where the server listens; None if the URI says it.
        api_key: what the server was given with ``--api-key-file``.
        connect_timeout_s: how long a server may take to begin to listen.
        reply_timeout_s: how long one reply may take, the wait for a server that warms up included; None waits as long as the
            server answers pings.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: Optional[int] = 8000,
        *,
        api_key: Optional[str] = None,
        connect_timeout_s: float = 10.0,
        reply_timeout_s: Optional[float] = None,
    ) -> None:
        self.uri = host if host.startswith(("ws://", "wss://")) else f"ws://{host}"
        if port is not None:
            self.uri += f":{port}"
        self._reply_timeout_s = reply_timeout_s
        self._reset_next = False
        # `websockets` wants its connections used as context managers.
        self._connection = ExitStack()
        self._socket = _connect(self._connection, self.uri, api_key, connect_timeout_s)
        try:
            #: What the server says of itself: ``tasks``, ``action_horizon``, ``action_dim``, ``state_dim``, ``images``, …
            self.metadata: Dict[str, Any] = self._receive()
        except BaseException:
            self.close()
            raise

    def infer(self, observation: Mapping[str, Any]) -> Dict[str, Any]:
        """Asks for a chunk of actions.

        Args:
            observation: for LIBERO ``observation/image`` and ``observation/wrist_image`` (H × W × 3, uint8 RGB),
                ``observation/state`` (numbers in the units that the policy was trained with) and ``prompt``. May also hold
                ``task``, the name of a task to run instead of routing, and ``reset``, true at the start of an episode.

        Returns:
            ``actions`` (action_horizon × action_dim, float32, in the robot's units), ``policy_timing`` and ``server_timing``
            (milliseconds) and ``routing``: the ``task`` that ran, the ``reason`` for it (``fixed``, ``requested``, ``routed``,
            ``fallback`` or ``kept``), and where a router chose, its ``scores`` and ``margin`` (else ``{}`` and ``None``).

        Raises:
            RequestError: the server refused the observation; the connection has ended.
            ConnectionLost: the connection broke, or no reply came in time.
        """
        if self._reset_next:
            observation = {**observation, "reset": True}
        message = codec.packb(dict(observation))
        try:
            self._socket.send(message)
        except websockets.exceptions.ConnectionClosed as error:
            # What the server said before it closed, of an observation that is too large for example, can still be read.
            self._receive()
            raise self._lost(error) from error
        reply = self._receive()
        self._reset_next = False
        return reply

    def reset(self) -> None:
        """Starts a new episode with the next observation: the server forgets the last one and routes again."""
        self._reset_next = True

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _receive(self) -> Dict[str, Any]:
        try:
            message = self._socket.recv(timeout=self._reply_timeout_s)
        except TimeoutError as error:
            # The reply may still come: the connection is out of step.
            self.close()
            raise ConnectionLost(f"no reply from {self.uri} within {self._reply_timeout_s} s") from error
        except websockets.exceptions.ConnectionClosed as error:
            raise self._lost(error) from error
        if isinstance(message, str):
            self.close()
            raise RequestError(message)
        return codec.unpackb(message)

    def _lost(self, error: websockets.exceptions.ConnectionClosed) -> ConnectionLost:
        return ConnectionLost(f"the connection to {self.uri} has ended ({error}); open a new Client")


def _connect(
    connection: ExitStack, uri: str, api_key: Optional[str], timeout_s: float
) -> websockets.sync.client.ClientConnection:
    headers = {"Authorization": f"Api-Key {api_key}"} if api_key else None
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            # Compressing camera images costs more time than it saves on any robot's network.
            socket = websockets.sync.client.connect(
                uri, additional_headers=headers, compression=None, max_size=None, open_timeout=timeout_s
            )
            return connection.enter_context(socket)
        except ConnectionRefusedError as error:
            if time.monotonic() >= deadline:
                raise ConnectError(f"nothing listens on {uri}; is `skillweld serve` running there?") from error
            time.sleep(_RETRY_INTERVAL_S)
        except websockets.exceptions.InvalidStatus as error:
            raise ConnectError(f"{uri}: {_refusal(error)}") from error
        except (OSError, ValueError, websockets.exceptions.WebSocketException) as error:
            raise ConnectError(f"cannot connect to {uri}: {error or type(error).__name__}") from error


def _refusal(error: websockets.exceptions.InvalidStatus) -> str:
    """What the server's HTTP answer says."""
    response = error.response
    body = (response.body or b"").decode(errors="replace").strip()
    return f"HTTP status {response.status_code}: {body or response.reason_phrase}"
