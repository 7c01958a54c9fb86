#!/usr/bin/env python3
"""Round trips of a LIBERO observation (two images of 224 x 224, a state, a prompt: 301 KB) by PyPI's own openpi-client,
for `cargo xtask bench --peer openpi`.

Asks the servers in turns (A B A B), blocks of requests at a time, and prints one JSON line: milliseconds of every round trip
by port, and versions. Every reply is compared with what it has to be. With --request it writes the packed observation
into a file instead.

    openpi_round_trips.py PORT PORT ... --requests 2000 --block 100
"""

import argparse
import importlib.metadata
import json
import pathlib
import platform
import time

import numpy as np
from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy


def observation():
    random = np.random.default_rng(0)
    image = lambda: random.integers(0, 256, (224, 224, 3), dtype=np.uint8)
    return {
        "observation/image": image(),
        "observation/wrist_image": image(),
        "observation/state": np.linspace(-1, 1, 8),
        "prompt": "pick up the black bowl and place it on the plate",
    }


def measure(ports, requests, block, warm_up):
    asked = observation()
    expected = np.tile(asked["observation/state"][:7].astype(np.float32), (8, 1))
    clients = {port: WebsocketClientPolicy("127.0.0.1", port) for port in ports}
    times = {port: [] for port in ports}
    for client in clients.values():
        for _ in range(warm_up):
            client.infer(asked)
    for _ in range(0, requests, block):
        for port, client in clients.items():
            for _ in range(block):
                start = time.perf_counter()
                reply = client.infer(asked)
                times[port].append((time.perf_counter() - start) * 1e3)
                np.testing.assert_array_equal(reply["actions"], expected)
    return times


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("ports", type=int, nargs="*")
    arguments.add_argument("--requests", type=int, default=2000)
    arguments.add_argument("--block", type=int, default=100)
    arguments.add_argument("--warm-up", type=int, default=100)
    arguments.add_argument("--request", type=pathlib.Path)
    given = arguments.parse_args()
    if given.request:
        given.request.write_bytes(msgpack_numpy.packb(observation()))
        return
    versions = {name: importlib.metadata.version(name) for name in ["openpi-client", "websockets", "msgpack", "numpy"]}
    times = measure(given.ports, given.requests, given.block, given.warm_up)
    print(json.dumps({"versions": versions | {"Python": platform.python_version()}, "ms": times}))


if __name__ == "__main__":
    main()
