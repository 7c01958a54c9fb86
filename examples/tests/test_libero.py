"""The LIBERO client: what it sends and commands, and whole evaluations in the dummy world."""

import json
import math
from pathlib import Path
from typing import Any, Dict

import numpy as np
import pytest

import robot
from conftest import Served, Serving, run, scripted
from results import wilson_interval

SCRIPT = "libero/evaluate.py"

#: Where the dummy world's tasks want the hand.
DIRECTIONS = {
    "move the hand to the front": [1, 0, 0],
    "move the hand to the left": [0, 1, 0],
    "move the hand up": [0, 0, 1],
}


@pytest.mark.parametrize(
    "policy, commanded", [(0.0, 1.0), (0.49, 1.0), (0.5, 0.0), (0.51, -1.0), (1.0, -1.0), (-3.0, 1.0), (2.0, -1.0)]
)
def test_the_gripper_becomes_a_sign_and_is_flipped(policy: float, commanded: float) -> None:
    action = np.array([0.1, -0.2, 0.3, -0.4, 0.5, -0.6, policy], np.float32)
    before = action.copy()
    command = robot.command(action)
    assert command[6] == commanded and not np.signbit(command[6]) == (commanded >= 0)
    np.testing.assert_array_equal(command[:6], before[:6])
    np.testing.assert_array_equal(action, before, "the chunk is left as it was")


def test_images_are_turned_and_not_only_flipped() -> None:
    image = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    turned = robot.upright(image)
    np.testing.assert_array_equal(turned, np.rot90(image, 2))
    assert turned.flags.c_contiguous


@pytest.mark.parametrize(
    "quaternion, expected",
    [
        ([0, 0, 0, 1], [0, 0, 0]),
        ([0, 0, 0, -1], [0, 0, 0]),
        ([1, 0, 0, 0], [math.pi, 0, 0]),
        ([0, 0, math.sqrt(0.5), math.sqrt(0.5)], [0, 0, math.pi / 2]),
        # The longer way round, as robosuite has it.
        ([0, 0, math.sqrt(0.5), -math.sqrt(0.5)], [0, 0, 3 * math.pi / 2]),
        # Rounded beyond 1.
        ([0, 0, 0, 1.0000001], [0, 0, 0]),
    ],
)
def test_rotations_are_axis_times_angle(quaternion: list, expected: list) -> None:
    np.testing.assert_allclose(robot.axis_angle(quaternion), expected, atol=1e-12)


@pytest.mark.parametrize(
    "successes, trials, low, high",
    [
        # Newcombe (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_intervals_are_wilsons(successes: int, trials: int, low: float, high: float) -> None:
    np.testing.assert_allclose(wilson_interval(successes, trials), (low, high), atol=5e-5)


def towards_goal(observation: Dict[str, Any]) -> np.ndarray:
    """Eight full steps to where the task wants the hand, gripper closed."""
    return np.tile([*DIRECTIONS[observation["prompt"]], 0, 0, 0, 0.0], (8, 1))


def test_a_policy_that_goes_to_the_goal_succeeds_and_sees_the_world_upright(tmp_path: Path) -> None:
    with scripted(towards_goal) as server:
        ran = run(
            SCRIPT, "--port", server.port, "--dummy-env", "--suites", "goal", "--trials", 2, "--replan-steps", 2,
            "--task", "pick", "--json",
        )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert report["total"]["successes"] == report["total"]["trials"] == 6
    assert [task["prompt"] for task in report["suites"]["goal"]["tasks"]] == list(DIRECTIONS)
    assert report["total"]["routed_to"] == {"pick": 6}
    # 0.25 m to go, 0.05 m a step, 0.08 m is near enough, starts differ by up to 0.02 m: three or four steps in chunks of two.
    assert all(3 <= episode["steps"] <= 4 and len(episode["latencies_ms"]) == 2 for episode in report["episodes"])
    assert len(server.received) == 12

    red = [255, 0, 0]
    for index, seen in enumerate(server.received):
        assert seen["task"] == "pick"
        assert seen.get("reset", False) == (index % 2 == 0), "each episode begins with a reset"
        for key in ["observation/image", "observation/wrist_image"]:
            image = seen[key]
            assert image.shape == (256, 256, 3) and image.dtype == np.uint8
            assert image[0, 0].tolist() == red, "the red corner is at the top left"
            assert not any(image[corner].tolist() == red for corner in [(0, -1), (-1, 0), (-1, -1)])
        state = seen["observation/state"]
        assert state.shape == (8,)
        np.testing.assert_allclose(state[3:6], [math.pi, 0, 0])
        # Two steps of closing by a centimetre each.
        opening = 0.04 if index % 2 == 0 else 0.02
        np.testing.assert_allclose(state[6:], [opening, -opening])


def test_a_policy_that_goes_elsewhere_fails(tmp_path: Path) -> None:
    results, videos = tmp_path / "results.json", tmp_path / "videos"
    with scripted(lambda observation: -towards_goal(observation)) as server:
        ran = run(
            SCRIPT, "--port", server.port, "--dummy-env", "--suites", "long", "--trials", 1,
            "--results", results, "--videos", videos,
        )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    report = json.loads(results.read_text())
    assert report["total"]["successes"] == 0
    assert [episode["steps"] for episode in report["episodes"]] == [40, 40, 40]
    np.testing.assert_allclose(report["total"]["wilson_95"], [0, 0.5615], atol=5e-5)
    assert sorted(video.name for video in videos.iterdir()) == [f"long-0{task}-00-failure.mp4" for task in range(3)]
    assert all(video.stat().st_size > 1000 for video in videos.iterdir())


def test_a_merged_policy_is_evaluated_in_a_closed_loop(server: Served, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    arguments = ["--port", server.port, "--dummy-env", "--suites", "object", "--trials", 1, "--route"]
    ran = run(SCRIPT, *arguments, "--results", results)
    assert ran.returncode == 0, ran.stderr
    rows = [line.split("  ")[0] for line in ran.stdout.splitlines()]
    assert rows[:6] == ["suite", "object", "object", "object", "object", "all"]
    assert "/3" in ran.stdout and "latency of a chunk: p50" in ran.stdout

    report = json.loads(results.read_text())
    assert report["settings"]["server"]["tasks"] == ["spatial", "object", "goal", "long"]
    assert sum(report["total"]["routed_to"].values()) == 3
    for episode in report["episodes"]:
        assert episode["success"] or episode["steps"] == 40
        assert len(episode["latencies_ms"]) == math.ceil(episode["steps"] / 8)
    again = json.loads(run(SCRIPT, *arguments, "--json").stdout)
    assert episodes_of(again) == episodes_of(report)
    other = json.loads(run(SCRIPT, *arguments, "--json", "--seed", 8).stdout)
    assert episodes_of(other) != episodes_of(report), "the seed has to matter"


def episodes_of(report: Dict[str, Any]) -> list:
    """What has to be the same each time."""
    return [(episode["success"], episode["steps"], episode["margin"]) for episode in report["episodes"]]


def test_errors_say_what_to_do(server: Served, serving: Serving) -> None:
    dummy = ["--port", server.port, "--dummy-env", "--suites", "goal", "--trials"]
    for arguments, code, sentence in [
        (["--trials", 1], 1, "git clone https://github.com/Lifelong-Robot-Learning/LIBERO.git"),
        ([*dummy, 51], 1, "use --trials 50 or fewer"),
        ([*dummy, 1, "--task", "nope"], 1, "error: unknown task `nope`"),
        ([*dummy, 0], 2, "has to be 1 or more"),
        ([*dummy, 1, "--task", "goal", "--route"], 2, "not allowed with"),
    ]:
        ran = run(SCRIPT, *arguments)
        assert ran.returncode == code and sentence in ran.stderr, ran.stderr
    with serving("--task", "goal") as fixed:
        ran = run(SCRIPT, "--port", fixed.port, *dummy[2:], 1, "--route")
    assert ran.returncode == 1 and "the server does not route" in ran.stderr
