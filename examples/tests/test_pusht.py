"""PushT: a real environment in a closed loop with a served policy."""

import json
from pathlib import Path

import mapping
import numpy as np

from conftest import Served, run, scripted

SCRIPT = "pusht/evaluate.py"


def test_actions_are_pixels_of_the_plane() -> None:
    for action, pixels in [([-1, 1, 9, 9], [0, 512]), ([0, 0.5], [256, 384]), ([-7, 3], [0, 512])]:
        command = mapping.command(np.array(action, np.float32))
        assert command.dtype == np.float32
        np.testing.assert_array_equal(command, pixels)


def test_the_state_has_the_length_that_the_server_wants() -> None:
    seen = {"pixels": np.zeros((96, 96, 3), np.uint8), "agent_pos": np.array([512.0, 128.0])}
    for length, state in [(8, [1, -0.5, 0, 0, 0, 0, 0, 0]), (2, [1, -0.5]), (1, [1])]:
        sent = mapping.observation(seen, {"images": 2, "state_dim": length})
        np.testing.assert_array_equal(sent["state"], state)
        assert sorted(sent) == ["image_0", "image_1", "prompt", "state"]


def test_the_agent_goes_where_the_policy_says(tmp_path: Path) -> None:
    corner = np.tile([-0.9, 0.9, 0, 0, 0, 0, 0], (8, 1))
    with scripted(lambda _: corner) as server:
        ran = run(SCRIPT, "--port", server.port, "--episodes", 2, "--steps", 24, "--json", "--videos", tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert len(server.received) == 6
    assert [seen.get("reset", False) for seen in server.received] == [True, False, False] * 2
    for episode in [server.received[:3], server.received[3:]]:
        first, _, last = (seen["state"][:2] for seen in episode)
        np.testing.assert_allclose(last, [-0.9, 0.9], atol=0.1)
        assert np.linalg.norm(first - last) > 0.2
        assert not np.array_equal(episode[0]["image_0"], episode[2]["image_0"])
    assert sorted(video.name for video in tmp_path.iterdir()) == ["pusht-000.mp4", "pusht-001.mp4"]


def test_a_merged_policy_moves_the_agent(server: Served) -> None:
    arguments = ["--port", server.port, "--episodes", 2, "--steps", 16]
    ran = run(SCRIPT, *arguments, "--json")
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert [(episode["seed"], episode["steps"]) for episode in report["episodes"]] == [(0, 16), (1, 16)]
    for episode in report["episodes"]:
        assert episode["travelled_px"] > 50 and 0 <= episode["final_coverage"] <= episode["max_coverage"] <= 1
        assert episode["routed_to"] in report["server"]["tasks"]
    text = run(SCRIPT, *arguments, "--task", "goal").stdout
    assert "0 of 2 solved" in text and "was not trained on PushT" in text and "goal" in text


def test_errors_end_with_1(server: Served) -> None:
    ran = run(SCRIPT, "--port", server.port, "--episodes", 1, "--task", "nope")
    assert ran.returncode == 1 and "error: unknown task `nope`" in ran.stderr
