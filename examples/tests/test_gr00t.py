"""GR00T's inference service over libzmq's REQ sockets, packed as Isaac-GR00T's clients pack."""

import io
from typing import Any, Callable, Dict, Iterator

import msgpack
import msgpack_numpy
import numpy as np
import pytest
import zmq

from conftest import ZeroCost

Ask = Callable[..., Any]


def encode(value: Any) -> Any:
    file = io.BytesIO()
    np.save(file, value, allow_pickle=False)
    return {"__ndarray_class__": True, "as_npy": file.getvalue()}


def decode(entries: Dict[str, Any]) -> Any:
    if "__ndarray_class__" in entries:
        return np.load(io.BytesIO(entries["as_npy"]), allow_pickle=False)
    return entries


@pytest.fixture(scope="module")
def ask(zero_cost: ZeroCost) -> Iterator[Ask]:
    """Asks a server whose policy says: stay. LIBERO's state of eight numbers, actions of seven."""
    with zero_cost("--zmq-port", "0") as started, zmq.Context() as context:
        with context.socket(zmq.REQ) as socket:
            socket.setsockopt(zmq.RCVTIMEO, 20_000)
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(f"tcp://127.0.0.1:{started.zmq_port}")

            def call(endpoint: str, data: Any = None, pack: Any = encode, unpack: Any = decode) -> Any:
                request = {"endpoint": endpoint} if data is None else {"endpoint": endpoint, "data": data}
                socket.send(msgpack.packb(request, default=pack))
                return msgpack.unpackb(socket.recv(), object_hook=unpack)

            yield call


def libero(turn: Callable[[np.ndarray], np.ndarray] = lambda image: image) -> Dict[str, Any]:
    image = turn(np.full((224, 224, 3), 7, np.uint8))
    state = {f"state.{name}": np.array([[index + 0.5]]) for index, name in enumerate(["x", "y", "z", "roll", "pitch", "yaw"])}
    return {
        "video.image": image[None],
        "video.wrist_image": image[None],
        **state,
        "state.gripper": np.array([[6.5, 7.5]]),
        "annotation.human.action.task_description": ["put the bowl on the plate"],
    }


def test_ping_and_kill(ask: Ask) -> None:
    assert ask("ping") == {"status": "ok", "message": "Server is running"}
    assert "`kill` is refused" in ask("kill")["error"]
    assert ask("ping")["status"] == "ok"


def test_flat_observations(ask: Ask) -> None:
    for data in [libero(), libero(np.asfortranarray)]:
        actions = ask("get_action", data)
        assert sorted(actions) == sorted(f"action.{name}" for name in ["x", "y", "z", "roll", "pitch", "yaw", "gripper"])
        for index, name in enumerate(["x", "y", "z", "roll", "pitch", "yaw", "gripper"]):
            assert actions[f"action.{name}"].dtype == np.float32
            np.testing.assert_array_equal(actions[f"action.{name}"], np.full((8, 1), index + 0.5))


def test_nested_observations_in_either_packing(ask: Ask) -> None:
    flat = libero()
    nested = {
        "video": {"image": flat["video.image"][None], "wrist_image": flat["video.wrist_image"][None]},
        "state": {key[6:]: value[None] for key, value in flat.items() if key.startswith("state.")},
        "language": {"task": [["put the bowl on the plate"]]},
    }
    data = {"observation": nested, "options": None}
    for packing in [(encode, decode), (msgpack_numpy.encode, msgpack_numpy.decode)]:
        actions, info = ask("get_action", data, *packing)
        assert actions["x"].shape == (1, 8, 1) and actions["gripper"][0, 0, 0] == 6.5
        assert info["server_timing"]["infer_ms"] >= 0
    assert ask("reset", {"options": None})["reset"] is True


def test_the_modality_config_is_what_is_then_understood(ask: Ask) -> None:
    config = ask("get_modality_config")
    assert config["video"]["as_dict"] == {"delta_indices": [0], "modality_keys": ["image", "wrist_image"]}
    assert config["action"]["delta_indices"] == list(range(8))
    flat = libero()
    assert all(f"state.{key}" in flat for key in config["state"]["modality_keys"])


def test_errors_are_answers(ask: Ask) -> None:
    data = libero()
    del data["state.gripper"]
    assert "missing key `state/gripper`" in ask("get_action", data)["error"]
    assert "NaN" in ask("get_action", {**libero(), "state.x": np.array([[np.nan]])})["error"]
    assert "unknown endpoint `dance`" in ask("dance")["error"]
