"""Our client against the real server."""

import ast
import json
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict

import numpy as np
import pytest

from conftest import EXAMPLES, Served, Serving, libero_observation, scripted
from skillweld_client import ChunkBroker, Client, ConnectError, ConnectionLost, RequestError

TASKS = ["spatial", "object", "goal", "long"]


def safetensors(path: Path) -> Dict[str, Any]:
    """The U8 and F32 tensors of a safetensors file, and its metadata."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    found: Dict[str, Any] = dict(header.pop("__metadata__", {}))
    for name, tensor in header.items():
        start, end = tensor["data_offsets"]
        dtype = {"U8": "u1", "F32": "<f4"}[tensor["dtype"]]
        found[name] = np.frombuffer(data[start:end], dtype).reshape(tensor["shape"])
    return found


def test_numpy_is_of_today() -> None:
    assert int(np.__version__.split(".")[0]) >= 2


@pytest.mark.parametrize("folder", ["client", "libero"])
def test_sources_are_python_3_8(folder: str) -> None:
    sources = list((EXAMPLES / folder).rglob("*.py"))
    assert sources
    for source in sources:
        ast.parse(source.read_text(), str(source), feature_version=(3, 8))


def test_the_server_introduces_itself(server: Served) -> None:
    with Client(port=server.port) as client:
        told = {key: client.metadata[key] for key in ["tasks", "action_horizon", "action_dim", "state_dim", "images"]}
    assert told == {"tasks": TASKS, "action_horizon": 8, "action_dim": 7, "state_dim": 8, "images": 2}


def test_served_actions_are_those_of_predict(server: Served, skillweld: Path, merged: Path, tmp_path: Path) -> None:
    inputs, output = merged.parent / "observation.safetensors", tmp_path / "actions.safetensors"
    command = [skillweld, "predict", merged, "--inputs", inputs, "--output", output]
    subprocess.run(command, check=True, capture_output=True)
    seen = safetensors(inputs)
    with Client(port=server.port) as client:
        actions = client.infer({key: seen[key] for key in ["image_0", "image_1", "state", "prompt"]})["actions"]
    assert actions.shape == (8, 7) and actions.dtype == np.float32
    np.testing.assert_allclose(actions, safetensors(output)["actions"], rtol=1e-6, atol=1e-6)


def test_images_and_states_may_come_in_other_forms(server: Served, observation: Dict[str, Any]) -> None:
    image = observation["observation/image"]
    other = {
        **observation,
        # Between the grey levels: the server cuts off, and n / 255 · 255 may be a little less than n.
        "observation/image": ((image + 0.25) / 255).astype(np.float32).transpose(2, 0, 1),
        "observation/state": observation["observation/state"].tolist(),
    }
    with Client(port=server.port) as client:
        expected = client.infer(observation)["actions"]
        np.testing.assert_array_equal(client.infer(other)["actions"], expected)
        darker = client.infer({**observation, "observation/image": image // 2})["actions"]
    assert not np.array_equal(darker, expected), "the image has to matter"


def test_a_task_is_routed_once_an_episode_or_asked_for(server: Served) -> None:
    grey = {f"observation/{name}": np.full((224, 224, 3), 128, np.uint8) for name in ["image", "wrist_image"]}
    first = {**grey, "observation/state": np.zeros(8), "prompt": "put the bowl on the plate"}
    with Client(port=server.port) as client:
        routing = client.infer(first)["routing"]
        assert routing["task"] == max(routing["scores"], key=routing["scores"].get)
        assert sorted(routing["scores"]) == sorted(TASKS) and routing["margin"] > 0
        elsewhere = other_observation(client, routing["task"])
        assert client.infer(elsewhere)["routing"]["task"] == routing["task"], "an episode keeps its task"
        client.reset()
        again = client.infer(elsewhere)["routing"]["task"]
        assert again != routing["task"], "a new episode routes again"
        assert client.infer(first)["routing"]["task"] == again, "only one observation after reset() resets"
        chunks = {task: client.infer({**first, "task": task})["actions"] for task in TASKS}
    for index, task in enumerate(TASKS):
        for other in TASKS[:index]:
            assert not np.array_equal(chunks[task], chunks[other]), f"{task} and {other} give the same actions"


def other_observation(client: Client, task: str) -> Dict[str, Any]:
    """An observation that is routed elsewhere; leaves the client in the episode of `task`."""
    with Client(client.uri, port=None) as scout:
        for seed in range(20):
            scout.reset()
            if scout.infer(libero_observation(seed))["routing"]["task"] != task:
                return libero_observation(seed)
    pytest.fail(f"everything is routed to {task}")


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"observation/wrist_image": None}, "missing key|`observation/wrist_image` has to be"),
        ({"observation/state": np.zeros(7)}, "has 7 numbers; the policy wants 8"),
        ({"observation/state": np.full(8, np.nan)}, "`observation/state` holds NaN or infinity"),
        ({"observation/image": np.zeros((8, 8), np.uint8)}, "`observation/image` has to be an image"),
        ({"prompt": " "}, "`prompt` is empty"),
        ({"task": "nope"}, "unknown task `nope`; this policy knows spatial, object, goal, long"),
        ({"observation/image": np.zeros((4000, 3000, 3), np.uint8)}, "larger than 33554432 bytes"),
    ],
)
def test_errors_carry_the_servers_words(
    server: Served, observation: Dict[str, Any], change: Dict[str, Any], sentence: str
) -> None:
    with Client(port=server.port) as client:
        with pytest.raises(RequestError, match=sentence):
            client.infer({**observation, **change})
        with pytest.raises(ConnectionLost, match="open a new Client"):
            client.infer(observation)
    with Client(port=server.port) as client:
        assert client.infer(observation)["actions"].shape == (8, 7), "the server lives on"


def test_an_api_key_is_asked_for(serving: Serving, observation: Dict[str, Any], tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("open-sesame\n")
    with serving("--api-key-file", str(key), "--task", "goal") as served:
        for wrong in [None, "open-sesam"]:
            with pytest.raises(ConnectError, match="HTTP status 401"):
                Client(port=served.port, api_key=wrong)
        with Client(port=served.port, api_key="open-sesame") as client:
            reply = client.infer(observation)
        assert reply["routing"] == {"task": "goal", "reason": "fixed", "scores": {}, "margin": None}


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(ConnectError, match="nothing listens on ws://127.0.0.1:9; is `skillweld serve` running"):
        Client(port=9, connect_timeout_s=0.3)


def test_a_server_may_start_after_its_client(observation: Dict[str, Any]) -> None:
    with scripted(lambda _: np.zeros((8, 7))) as early:
        port = early.port
    greeted = []
    connecting = threading.Thread(target=lambda: greeted.append(Client(port=port).metadata))
    connecting.start()
    time.sleep(0.4)
    assert not greeted
    with scripted(lambda _: np.zeros((8, 7)), port=port) as late:
        connecting.join(timeout=10)
        assert late.port == port and greeted[0]["action_horizon"] == 8


def test_a_server_that_stops_is_noticed(serving: Serving, observation: Dict[str, Any]) -> None:
    with serving("--task", "goal") as served, Client(port=served.port) as client:
        client.infer(observation)
        served.process.terminate()
        served.process.wait(timeout=40)
        with pytest.raises(ConnectionLost, match="has ended"):
            client.infer(observation)


def test_a_late_reply_ends_the_connection(observation: Dict[str, Any]) -> None:
    with scripted(lambda _: time.sleep(0.5) or np.zeros((8, 7))) as server:
        with Client(port=server.port, reply_timeout_s=0.1) as client:
            with pytest.raises(ConnectionLost, match="no reply .* within 0.1 s"):
                client.infer(observation)
            with pytest.raises(ConnectionLost):
                client.infer(observation)


def test_the_broker_carries_out_chunks_and_asks_again(observation: Dict[str, Any]) -> None:
    chunks = iter(range(100))
    # Every action says of which chunk it is, and which of it.
    policy = lambda _: next(chunks) + np.arange(8)[:, None] / 10 + np.zeros(7)  # noqa: E731
    with scripted(policy) as server, Client(port=server.port) as client:
        broker = ChunkBroker(client, replan_steps=3)
        taken = [float(broker.action(observation)[0]) for _ in range(7)]
        np.testing.assert_allclose(taken, [0.0, 0.1, 0.2, 1.0, 1.1, 1.2, 2.0])
        broker.reset()
        assert broker.action(observation)[0] == 3.0, "what is left of a chunk is dropped"
        assert [request.get("reset", False) for request in server.received] == [False, False, False, True]
        whole = ChunkBroker(client)
        assert [float(whole.action(observation)[0]) for _ in range(9)][-1] == 5.0, "all eight by default"
        with pytest.raises(ValueError, match="9; this policy's chunks have 8 actions"):
            ChunkBroker(client, replan_steps=9).action(observation)
        with pytest.raises(ValueError, match="at least one"):
            ChunkBroker(client, replan_steps=0)


def test_the_command_line_client_reports(server: Served) -> None:
    command = [sys.executable, "-m", "skillweld_client", "--port", str(server.port), "--requests", "2"]
    report = json.loads(subprocess.run([*command, "--json"], check=True, capture_output=True).stdout)
    assert report["metadata"]["tasks"] == TASKS and np.shape(report["actions"]) == (8, 7)
    assert 0 < report["latency_ms"]["p50"] <= report["latency_ms"]["p95"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert f"task {report['routing']['task']} (routed; margin" in text
    failed = subprocess.run([*command, "--task", "nope"], capture_output=True, text=True)
    assert failed.returncode == 1 and "error: unknown task `nope`" in failed.stderr
