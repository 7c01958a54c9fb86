#!/usr/bin/env python3
"""The least that a websocket server can do, for `cargo xtask bench --peer openpi`: it reads as many bytes as a request has,
looks at none of them, and answers with the bytes of one ready-made reply. What remains of a round trip is the client's
work and the kernel's: no server gets below it.

    floor_server.py REQUEST.msgpack        prints the port that it took
"""

import base64
import hashlib
import pathlib
import socket
import struct
import sys
import threading

import numpy as np
from openpi_client import msgpack_numpy


def frame(payload):
    """One unmasked binary frame."""
    return (struct.pack(">BBH", 0x82, 126, len(payload)) if len(payload) > 125 else bytes([0x82, len(payload)])) + payload


def serve(connection, request_bytes, reply):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    (key,) = [line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    connection.sendall(upgrade + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
    connection.sendall(frame(msgpack_numpy.packb({})))
    # Two bytes, eight of length, four of mask: clients' frames of this size have no other form.
    frame_bytes = 14 + request_bytes
    buffer = memoryview(bytearray(frame_bytes))
    while True:
        received = 0
        while received < frame_bytes:
            count = connection.recv_into(buffer[received:])
            if count == 0:
                return
            received += count
        connection.sendall(reply)


def main():
    request = pathlib.Path(sys.argv[1]).read_bytes()
    state = msgpack_numpy.unpackb(request)["observation/state"].astype(np.float32)
    actions = np.tile(state[:7], (8, 1))
    timing = {"infer_ms": 0.0}
    reply = frame(msgpack_numpy.packb({"actions": actions, "policy_timing": timing, "server_timing": timing}))
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection, len(request), reply), daemon=True).start()


if __name__ == "__main__":
    main()
