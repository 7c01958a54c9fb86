#!/usr/bin/env python3
"""Runs trials of a robot that sees grey and goes where the policy says, over XPolicyLab's protocol.

It shows in seconds whether a served policy and XPolicyLab's evaluations (RoboTwin 2.0, RoboDojo) fit together.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any, Dict, List, Mapping, Optional

import numpy as np

from session import Session, SessionError

EXAMPLES = """\
examples:
  python3 ask.py                                  two arms of six joints and a gripper, as RoboTwin's
  python3 ask.py --arms 1 --joints 7              one arm of seven
  python3 ask.py --url ws://robot-lab:8001 --trials 3 --chunks 10 --json

exit codes: 0 every trial was run, 1 an error ended them, 2 wrong arguments"""


def main(arguments: Optional[List[str]] = None) -> int:
    args = _parser().parse_args(arguments)
    try:
        report = run(args)
    except SessionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    return 0


def run(args: argparse.Namespace) -> Dict[str, Any]:
    """Runs every trial from the same pose."""
    trials = []
    with Session(args.url) as session:
        session.prepare_case("grey")
        for number in range(args.trials):
            trials.append(_trial(session, f"trial-{number}", args))
        metadata = session.metadata
    return {"server": metadata, "trials": trials}


def _trial(session: Session, trial_id: str, args: argparse.Namespace) -> Dict[str, Any]:
    session.reset(trial_id)
    state = pose(args.arms, args.joints)
    latencies_ms, steps = [], 0
    for _ in range(args.chunks):
        start = time.perf_counter()
        actions = session.infer(observation(state, args.prompt))
        latencies_ms.append(1e3 * (time.perf_counter() - start))
        steps += len(actions)
        # The robot is where it was told to go.
        state = {**state, **actions[-1]}
    session.trial_end(steps=steps)
    pose_ = {key: np.asarray(value).tolist() for key, value in state.items()}
    return {"trial": trial_id, "steps": steps, "pose": pose_, "latency_ms": float(np.median(latencies_ms))}


def pose(arms: int, joints: int) -> Dict[str, np.ndarray]:
    """The state of so many arms with a gripper each: joints in radians, the gripper from 0 to 1."""
    prefixes = [""] if arms == 1 else ["left_", "right_"]
    parts = {}
    for prefix in prefixes:
        parts[f"{prefix}arm_joint_state"] = np.linspace(-0.5, 0.5, joints, dtype=np.float32)
        parts[f"{prefix}ee_joint_state"] = np.ones(1, np.float32)
    return parts


def observation(state: Mapping[str, np.ndarray], prompt: str) -> Dict[str, Any]:
    """An observation of the Observation Data Format v1.0 with grey cameras, as many as the robot has."""
    wrists = ["cam_wrist"] if "arm_joint_state" in state else ["cam_left_wrist", "cam_right_wrist"]
    grey = np.full((240, 320, 3), 128, np.uint8)
    return {
        "data_format_version": "v1.0",
        "instruction": prompt,
        "vision": {camera: {"color": grey} for camera in ["cam_head", *wrists]},
        "state": dict(state),
    }


def _print(report: Mapping[str, Any]) -> None:
    print(f"{report['server']['policy']}: {report['server']['action_dim']} numbers an action")
    for trial in report["trials"]:
        print(f"{trial['trial']}: {trial['steps']} steps, a chunk in {trial['latency_ms']:.1f} ms; the last pose:")
        for key, numbers in trial["pose"].items():
            print(f"  {key:22} " + " ".join(f"{number:7.3f}" for number in numbers))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="ws://127.0.0.1:8000", help="where the server is [%(default)s]")
    parser.add_argument("--arms", type=int, choices=[1, 2], default=2, help="of the robot [%(default)s]")
    parser.add_argument("--joints", type=_positive, default=6, metavar="N", help="of each arm [%(default)s]")
    parser.add_argument("--prompt", default="stack the bowls", help="the instruction [%(default)s]")
    parser.add_argument("--trials", type=_positive, default=1, metavar="N", help="how many [%(default)s]")
    parser.add_argument("--chunks", type=_positive, default=3, metavar="N", help="of a trial [%(default)s]")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("has to be 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
