"""XPolicyLab's protocol: our small client, and raw frames as XPolicyLab's own clients send them, against the real servers."""

import json
import sys
import uuid
from typing import Any, Dict, Iterator

import msgpack
import msgpack_numpy
import numpy as np
import pytest
import websockets.sync.client

from conftest import EXAMPLES, Served, ZeroCost, run
from skillweld_client import Client

sys.path.append(str(EXAMPLES / "xpolicylab"))

from ask import observation as grey, pose  # noqa: E402
from session import Session, SessionError  # noqa: E402

SCRIPT = "xpolicylab/ask.py"


@pytest.fixture(scope="module")
def two_arms(zero_cost: ZeroCost) -> Iterator[int]:
    """The port of a server whose policy says: stay. Two arms of six joints and a gripper each."""
    with zero_cost("--images", "3", "--state", "14", "--horizon", "5", "--dim", "14") as started:
        yield started.port


def url(port: int) -> str:
    return f"ws://127.0.0.1:{port}"


def test_a_session_gets_what_openpis_protocol_gives(server: Served, observation: Dict[str, Any]) -> None:
    with Client(port=server.port) as client:
        expected, metadata = client.infer(observation), client.metadata
    with Session(url(server.port)) as session:
        assert {key: session.metadata[key] for key in metadata} == metadata
        session.prepare_case("bowl", {"difficulty": "easy"})
        session.reset("trial-0")
        # Any known keys go into the envelope; those of LIBERO have no parts.
        np.testing.assert_array_equal(session.infer(observation), expected["actions"])
        session.heartbeat()
        session.trial_end(success=True)


def test_actions_fall_into_the_parts_of_the_state(two_arms: int) -> None:
    state = pose(2, 6)
    with Session(url(two_arms)) as session:
        session.reset("trial-0")
        actions = session.infer(grey(state, "stay"))
    assert len(actions) == 5
    for action in actions:
        assert list(action) == list(state)
        for key, numbers in action.items():
            assert numbers.dtype == np.float32
            np.testing.assert_array_equal(numbers, state[key])


def test_what_newer_clients_send_is_answered_with_its_number(two_arms: int) -> None:
    """`call`s, packed by msgpack_numpy alone."""

    def frame(function: str, obs: Any) -> Dict[str, Any]:
        payload = {"func_name": function, "obs": obs}
        return {"message_type": "call", "message_id": str(uuid.uuid4()), "evaluation_id": "e", "step": 7, "payload": payload}

    with websockets.sync.client.connect(url(two_arms), max_size=None) as socket:
        assert "server" in msgpack.unpackb(socket.recv())
        for function, obs in [("reset", None), ("update_obs", grey(pose(2, 6), "stay")), ("get_action", None)]:
            sent = frame(function, obs)
            socket.send(msgpack.packb(sent, default=msgpack_numpy.encode))
            answer = msgpack.unpackb(socket.recv(), object_hook=msgpack_numpy.decode)
            assert answer["message_type"] == "call_result" and answer["payload"]["ok"] is True
            assert all(answer[key] == sent[key] for key in ["message_id", "evaluation_id", "step"])
    assert len(answer["payload"]["result"]) == 5 and answer["payload"]["latency_ms"] >= 0
    np.testing.assert_array_equal(answer["payload"]["result"][4]["right_ee_joint_state"], [1])


def test_errors_have_the_protocols_form_and_the_session_goes_on(two_arms: int) -> None:
    good = grey(pose(2, 6), "stay")
    with Session(url(two_arms)) as session:
        for change, code, message in [
            ({"instruction": None}, "invalid_frame", "`instruction` has to be the instruction"),
            ({"vision": {"cam_head": {"color": np.zeros((2, 2, 4), np.uint8)}}}, "invalid_frame", "cam_head/color"),
            ({"state": pose(2, 7)}, "invalid_frame", "numbers; the policy wants 14"),
            ({"state": pose(1, 13)}, "invalid_frame", "missing key `state/left_arm_joint_state`"),
        ]:
            with pytest.raises(SessionError, match=message) as refused:
                session.infer({**good, **change})
            assert refused.value.code == code
        with pytest.raises(SessionError, match="unknown message_type `dance`") as refused:
            session.request("dance", {})
        assert refused.value.code == "unknown_message_type"
        assert len(session.infer(good)) == 5


def test_no_pickle_is_sent_or_read(two_arms: int) -> None:
    with Session(url(two_arms)) as session:
        with pytest.raises(TypeError, match="cannot send an array of dtype object"):
            session.infer({"state": np.array([{}])})
    pickled = {"message_type": "infer", "message_id": "m", "payload": {"observation": {"state": np.array([{}])}}}
    with websockets.sync.client.connect(url(two_arms)) as socket:
        socket.recv()
        socket.send(msgpack.packb(pickled, default=msgpack_numpy.encode))
        assert "pickled objects, which are never read" in socket.recv()


def test_the_script_runs_trials(two_arms: int) -> None:
    ran = run(SCRIPT, "--url", url(two_arms), "--trials", 2, "--chunks", 3, "--json")
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert [trial["steps"] for trial in report["trials"]] == [15, 15]
    expected = {key: numbers.tolist() for key, numbers in pose(2, 6).items()}
    assert all(trial["pose"] == expected for trial in report["trials"])
    assert "right_arm_joint_state" in run(SCRIPT, "--url", url(two_arms)).stdout
    # The policy is of two arms.
    ran = run(SCRIPT, "--url", url(two_arms), "--arms", 1)
    assert ran.returncode == 1 and "error: missing key `vision/cam_third_view/color`" in ran.stderr


def test_nobody_there_is_said() -> None:
    ran = run(SCRIPT, "--url", "ws://127.0.0.1:1")
    assert ran.returncode == 1 and "error: cannot connect to ws://127.0.0.1:1" in ran.stderr
