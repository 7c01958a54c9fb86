"""The LIBERO client: what it sends and commands, and whole evaluations in the dummy world."""

import json
import math
import subprocess
from pathlib import Path
from typing import Any, Dict, List

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


def lines(folder: Path) -> List[Dict[str, Any]]:
    """The trials of a folder, without its heading."""
    return [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()[1:]]


def test_a_policy_that_goes_to_the_goal_succeeds_and_sees_the_world_upright(tmp_path: Path) -> None:
    out = tmp_path / "results"
    with scripted(towards_goal) as server:
        ran = run(
            SCRIPT, "--port", server.port, "--dummy-env", "--suites", "goal", "--trials", 2, "--replan-steps", 2,
            "--task", "pick", "--json", "--out", out,
        )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    report, trials = json.loads(ran.stdout), lines(out)
    assert report["all"]["successes"] == report["all"]["trials"] == len(trials) == 6
    assert [line["prompt"] for line in trials[::2]] == list(DIRECTIONS)
    assert report["routed"] == [{"suite": "libero-goal", "expert": "pick", "trials": 6}]
    # 0.25 m to go, 0.05 m a step, 0.08 m is near enough, starts differ by up to 0.02 m: three or four steps in chunks of two.
    assert all(3 <= line["steps"] <= 4 and line["inferences"] == 2 for line in trials)
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
    out, videos = tmp_path / "results", tmp_path / "videos"
    with scripted(lambda observation: -towards_goal(observation)) as server:
        ran = run(
            SCRIPT, "--port", server.port, "--dummy-env", "--suites", "long", "--trials", 1,
            "--out", out, "--videos", videos, "--json",
        )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert [(line["success"], line["steps"]) for line in lines(out)] == [(False, 40)] * 3
    np.testing.assert_allclose(json.loads(ran.stdout)["all"]["interval_95"], [0, 0.5615], atol=5e-5)
    assert sorted(video.name for video in videos.iterdir()) == [f"long-0{task}-00-failure.mp4" for task in range(3)]
    assert all(video.stat().st_size > 1000 for video in videos.iterdir())


def test_an_evaluation_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    out = tmp_path / "results"
    with scripted(towards_goal) as server:
        arguments = ["--port", server.port, "--dummy-env", "--suites", "goal", "--out", out, "--trials"]
        assert run(SCRIPT, *arguments, 1).returncode == 0
        first = lines(out)
        # As an interruption leaves it.
        with (out / "trials.jsonl").open("a") as file:
            file.write('{"trial": {"task": "libero-goal_0", "spl')
        assert run(SCRIPT, *arguments, 2).returncode == 0
        assert lines(out)[:3] == first and len(lines(out)) == 6
        other = run(SCRIPT, *arguments, 2, "--replan-steps", 1)
    assert other.returncode == 1 and "name another folder for" in other.stderr, other.stderr


def test_a_merged_policy_is_evaluated_in_a_closed_loop(server: Served, skillweld: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    arguments = ["--port", server.port, "--dummy-env", "--suites", "object", "--trials", 1, "--route"]
    ran = run(SCRIPT, *arguments, "--out", out)
    assert ran.returncode == 0, ran.stderr
    rows = [line.split("  ")[0] for line in ran.stdout.splitlines()]
    assert rows[:6] == ["", "libero-object", "libero-object_0", "libero-object_1", "libero-object_2", "all"]
    assert "latency of a chunk: p50" in ran.stdout

    for line in lines(out):
        assert line["success"] or line["steps"] == 40
        assert line["inferences"] == math.ceil(line["steps"] / 8) and line["routed"] in ["spatial", "object", "goal", "long"]
    again = tmp_path / "again"
    told = json.loads(run(SCRIPT, *arguments, "--json", "--out", again).stdout)
    assert same(again) == same(out)
    other = tmp_path / "other"
    run(SCRIPT, *arguments, "--seed", 8, "--out", other)
    assert same(other) != same(out), "the seed has to matter"

    # Skillweld's own report, of this client's trials.
    shown = json.loads(subprocess.check_output([skillweld, "eval", "show", again, "--json"]))
    # Intervals are of two implementations.
    for name in ["successes", "trials", "share"]:
        assert shown["all"][name] == told["all"][name]
        assert {key: rate[name] for key, rate in shown["groups"].items()} == {key: rate[name] for key, rate in told["groups"].items()}
    assert sorted(map(str, shown["routed"])) == sorted(map(str, told["routed"]))
    compared = json.loads(subprocess.check_output([skillweld, "eval", "compare", out, again, "--json"]))
    assert compared["trials"] == 3 and compared["p_value"] == 1


def same(folder: Path) -> list:
    """What has to be the same each time."""
    return [(line["success"], line["steps"], line["margin"]) for line in lines(folder)]


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
