"""Asks a policy server for robot actions over openpi's websocket protocol."""

from .broker import ChunkBroker
from .client import Client
from .errors import ClientError, ConnectError, ConnectionLost, RequestError

__all__ = ["ChunkBroker", "Client", "ClientError", "ConnectError", "ConnectionLost", "RequestError"]
