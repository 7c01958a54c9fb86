"""A real `skillweld serve`, and a server that does as a test says."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from skillweld_client import codec

EXAMPLES = Path(__file__).parent.parent

# The examples are scripts: they find their modules beside themselves.
sys.path += [str(EXAMPLES / "libero"), str(EXAMPLES / "pusht")]

START_TIMEOUT_S = 60


def from_environment(name: str, what: str) -> Path:
    """A path that `cargo xtask test` hands over."""
    value = os.environ.get(name)
    if not value or not Path(value).exists():
        pytest.fail(f"{name} has to name {what}, not {value!r}; `cargo xtask test` sets it", pytrace=False)
    return Path(value)


@pytest.fixture(scope="session")
def skillweld() -> Path:
    return from_environment("SKILLWELD_BIN", "the program skillweld")


@pytest.fixture(scope="session")
def merged() -> Path:
    return from_environment("SKILLWELD_DEMO_MERGED", "the merged checkpoint that `cargo xtask demo` writes")


class Served(NamedTuple):
    """A running `skillweld serve`."""

    port: int
    process: subprocess.Popen


Serving = Callable[..., "contextlib.AbstractContextManager[Served]"]


@pytest.fixture(scope="session")
def serving(skillweld: Path, merged: Path, tmp_path_factory: pytest.TempPathFactory) -> Serving:
    """Starts a server on the demo's checkpoint, with more arguments if given, and waits until it is warm."""
    logs = tmp_path_factory.mktemp("servers")

    @contextlib.contextmanager
    def start(*arguments: str) -> Iterator[Served]:
        log = logs / f"{len(list(logs.iterdir()))}.log"
        with log.open("w") as stderr:
            command = [str(skillweld), "serve", str(merged), "--port", "0", *arguments]
            process = subprocess.Popen(command, stderr=stderr)
        try:
            yield Served(_wait(process, log), process)
        finally:
            process.terminate()
            process.wait(timeout=40)

    return start


def _wait(process: subprocess.Popen, log: Path) -> int:
    """Waits for /healthz; returns the port that the server has chosen."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        listening = re.search(r"listening on ws://127\.0\.0\.1:(\d+)", log.read_text())
        if listening:
            with contextlib.suppress(urllib.error.URLError):
                urllib.request.urlopen(f"http://127.0.0.1:{listening[1]}/healthz", timeout=5).close()
                return int(listening[1])
        time.sleep(0.05)
    pytest.fail(f"the server did not get ready:\n{log.read_text()}", pytrace=False)


@pytest.fixture(scope="session")
def server(serving: Serving) -> Iterator[Served]:
    """One server for all tests that do not stop it; it routes."""
    with serving() as served:
        yield served


class Started(NamedTuple):
    """A running server of the policy that computes nothing."""

    port: int
    #: Where it listens to GR00T's clients; None unless asked to.
    zmq_port: Optional[int]


ZeroCost = Callable[..., "contextlib.AbstractContextManager[Started]"]


@pytest.fixture(scope="session")
def zero_cost() -> ZeroCost:
    """Starts a server whose policy has the shapes that arguments say, and whose every action is to stay."""
    program = from_environment("SKILLWELD_ZERO_COST", "the example zero_cost of the crate serve, with its feature zmq")

    @contextlib.contextmanager
    def start(*arguments: str) -> Iterator[Started]:
        command = [str(program), "--port", "0", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            said = [process.stdout.readline() for _ in range(1 + ("--zmq-port" in arguments))]
            ports = [int(line.rsplit(":", 1)[1]) for line in said]
            yield Started(ports[0], ports[1] if len(ports) > 1 else None)
        finally:
            process.terminate()
            process.wait(timeout=40)
            process.stdout.close()

    return start


@pytest.fixture
def observation() -> Dict[str, Any]:
    """What a LIBERO client sends: noise, but always the same."""
    return libero_observation(0)


def libero_observation(seed: int) -> Dict[str, Any]:
    random = np.random.default_rng(seed)
    return {
        "observation/image": random.integers(0, 256, (224, 224, 3), dtype=np.uint8),
        "observation/wrist_image": random.integers(0, 256, (224, 224, 3), dtype=np.uint8),
        "observation/state": random.uniform(-0.5, 0.5, 8),
        "prompt": "put the bowl on the plate",
    }


class Scripted(NamedTuple):
    """A server of a policy that a test has written down."""

    port: int
    #: Every observation received, in order.
    received: List[Dict[str, Any]]


@contextlib.contextmanager
def scripted(policy: Callable[[Dict[str, Any]], Any], port: int = 0) -> Iterator[Scripted]:
    """Serves `policy`, a function from an observation to actions (H × D), as openpi's servers do."""
    received: List[Dict[str, Any]] = []
    greeting = {"images": 2, "state_dim": 8, "action_horizon": 8, "action_dim": 7, "tasks": []}

    def converse(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            connection.send(codec.packb(greeting))
            for message in connection:
                received.append(codec.unpackb(message))
                actions = np.asarray(policy(received[-1]), np.float32)
                connection.send(codec.packb({"actions": actions}))

    with serve(converse, "127.0.0.1", port, compression=None, max_size=None) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield Scripted(running.socket.getsockname()[1], received)
        finally:
            running.shutdown()
            thread.join()


def run(script: str, *arguments: Any) -> subprocess.CompletedProcess:
    """Runs one of the examples as a user does."""
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)
