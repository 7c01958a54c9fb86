#!/usr/bin/env python3
"""Runs PushT, a real environment with physics, in a closed loop with a served policy.

It proves that environment, client and server work together. A policy that was not trained on PushT does not solve it: its
actions are mapped so that they fit, not so that they make sense.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

import gymnasium
import imageio.v2 as imageio
import numpy as np
from tqdm import tqdm

import gym_pusht  # noqa: F401: registers the environment
import mapping
from skillweld_client import ChunkBroker, Client, ClientError

EXAMPLES = """\
examples:
  python3 evaluate.py                                   ten episodes against the server on this machine
  python3 evaluate.py --episodes 2 --steps 20 --json    a quick look, for a program
  python3 evaluate.py --videos videos --task goal

exit codes: 0 every episode was run, 1 an error ended the evaluation, 2 wrong arguments"""

NOTE = "A policy that was not trained on PushT does not solve it; this shows that environment, client and server run in a closed loop."


def main(arguments: Optional[List[str]] = None) -> int:
    args = _parser().parse_args(arguments)
    try:
        report = evaluate(args)
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    return 0


def evaluate(args: argparse.Namespace) -> Dict[str, Any]:
    """Runs every episode; they differ in their seeds, and so in where agent and T begin."""
    env = gymnasium.make("gym_pusht/PushT-v0", obs_type="pixels_agent_pos", max_episode_steps=args.steps)
    episodes = []
    with Client(args.host, args.port) as client:
        broker = ChunkBroker(client, args.replan_steps)
        for seed in tqdm(range(args.seed, args.seed + args.episodes), unit="episode"):
            episodes.append(_run(env, seed, broker, client.metadata, args))
        metadata = client.metadata
    env.close()
    return {"note": NOTE, "server": metadata, "successes": sum(e["success"] for e in episodes), "episodes": episodes}


def _run(
    env: gymnasium.Env, seed: int, broker: ChunkBroker, metadata: Dict[str, Any], args: argparse.Namespace
) -> Dict[str, Any]:
    seen, _ = env.reset(seed=seed)
    broker.reset()
    positions, frames, coverages = [seen["agent_pos"]], [seen["pixels"]], []
    ended = success = False
    while not ended:
        action = broker.action(mapping.observation(seen, metadata, args.task))
        seen, _, success, truncated, info = env.step(mapping.command(action))
        ended = success or truncated
        positions.append(seen["agent_pos"])
        frames.append(seen["pixels"])
        coverages.append(info["coverage"])
    if args.videos:
        _write_video(args.videos / f"pusht-{seed:03}.mp4", frames, env.metadata["render_fps"])
    routing = broker.reply.get("routing")
    return {
        "seed": seed,
        "steps": len(coverages),
        "success": bool(success),
        # The part of the goal that the T covers, 0 to 1: the best of the episode, and the last.
        "max_coverage": float(max(coverages)),
        "final_coverage": float(coverages[-1]),
        "travelled_px": float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum()),
        "routed_to": routing["task"] if routing else args.task,
    }


def _write_video(path: Path, frames: List[np.ndarray], frames_per_s: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    imageio.mimwrite(path, frames, fps=frames_per_s)


def _print(report: Dict[str, Any]) -> None:
    print(f"{'seed':>4}  {'steps':>5}  {'max coverage':>12}  {'final':>6}  {'travelled':>9}  ran as")
    for episode in report["episodes"]:
        print(
            f"{episode['seed']:4}  {episode['steps']:5}  {episode['max_coverage']:12.1%}  {episode['final_coverage']:6.1%}"
            f"  {episode['travelled_px']:6.0f} px  {episode['routed_to'] or ''}"
        )
    print(f"{report['successes']} of {len(report['episodes'])} solved (coverage above 95 %)\n{report['note']}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1", help="where the server is [%(default)s]")
    parser.add_argument("--port", type=int, default=8000, help="where it listens [%(default)s]")
    parser.add_argument("--episodes", type=_positive, default=10, metavar="N", help="how many [%(default)s]")
    parser.add_argument("--steps", type=_positive, default=300, metavar="N", help="longest episode [%(default)s]")
    parser.add_argument("--task", metavar="T", help="the policy's task to run [the server's choice]")
    parser.add_argument(
        "--replan-steps", type=_positive, metavar="N", help="actions of a chunk that are carried out [all]"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the first episode; each has the next [%(default)s]")
    parser.add_argument("--videos", type=Path, metavar="FOLDER", help="an MP4 of each episode")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("has to be 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
