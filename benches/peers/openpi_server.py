#!/usr/bin/env python3
"""openpi's serving loop around a policy that computes nothing: the peer that `cargo xtask bench --peer openpi` measures
Skillweld's server against.

openpi's own server is not on PyPI. This is a reconstruction of it, written from its protocol with the same parts: one
asyncio loop of the package `websockets` with no compression and no limit on sizes, messages by openpi-client's own
msgpack_numpy, metadata on connect, the policy called synchronously in the connection's handler, `server_timing` in every
reply. It leaves out only what costs time (JAX, transforms, logging). Needs openpi-client.

    openpi_server.py        prints the port that it took
"""

import asyncio
import http
import time
import traceback

import numpy as np
import websockets.asyncio.server
import websockets.exceptions
import websockets.frames
from openpi_client import msgpack_numpy


class ZeroCost:
    """The same as `crates/serve/examples/zero_cost.rs`: every action is the state's first seven numbers."""

    metadata = {"policy": "zero-cost", "action_horizon": 8, "action_dim": 7}

    def infer(self, observation):
        start = time.monotonic()
        state = np.asarray(observation["observation/state"], dtype=np.float32)
        actions = np.tile(state[:7], (8, 1))
        return {"actions": actions, "policy_timing": {"infer_ms": (time.monotonic() - start) * 1000}}


POLICY = ZeroCost()


async def handler(connection):
    packer = msgpack_numpy.Packer()
    await connection.send(packer.pack(POLICY.metadata))
    previous_s = None
    while True:
        try:
            start = time.monotonic()
            observation = msgpack_numpy.unpackb(await connection.recv())
            infer_start = time.monotonic()
            action = POLICY.infer(observation)
            action["server_timing"] = {"infer_ms": (time.monotonic() - infer_start) * 1000}
            if previous_s is not None:
                action["server_timing"]["prev_total_ms"] = previous_s * 1000
            await connection.send(packer.pack(action))
            previous_s = time.monotonic() - start
        except websockets.exceptions.ConnectionClosed:
            break
        except Exception:
            await connection.send(traceback.format_exc())
            await connection.close(code=websockets.frames.CloseCode.INTERNAL_ERROR, reason="Internal server error.")
            raise


def health(connection, request):
    return connection.respond(http.HTTPStatus.OK, "OK\n") if request.path == "/healthz" else None


async def main():
    serve = websockets.asyncio.server.serve
    async with serve(handler, "127.0.0.1", 0, compression=None, max_size=None, process_request=health) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
