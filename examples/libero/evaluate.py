#!/usr/bin/env python3
"""Success rates of a served policy on LIBERO's task suites."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, List, Optional

try:
    import numpy as np
    from tqdm import tqdm

    import skillweld_client  # noqa: F401
except ImportError as error:
    sys.exit(f"error: {error}; pip install ./examples/client -r examples/libero/requirements.txt")

import robot
from dummy_env import DummySuite
from results import Episode, Results
from skillweld_client import ChunkBroker, Client, ClientError
from suites import MAX_STEPS, LiberoMissing, LiberoSuite

#: Steps until what was dropped lies still.
WAIT_STEPS = 10

#: LIBERO's control rate.
FRAMES_PER_S = 20

EXAMPLES = """\
examples:
  python3 evaluate.py                                          all four suites, 50 trials a task, the server routes
  python3 evaluate.py --suites goal --task goal                one suite with its own expert: the router's upper bound
  python3 evaluate.py --suites spatial --trials 5 --videos videos --results spatial.json
  python3 evaluate.py --dummy-env --trials 2                   without LIBERO: does everything fit together?

exit codes: 0 every episode was run, whatever came of it; 1 an error ended the evaluation (--results keeps what was done);
2 wrong arguments"""


class EvaluationError(Exception):
    """Why an evaluation cannot go on."""


def main(arguments: Optional[List[str]] = None) -> int:
    args = _parser().parse_args(arguments)
    try:
        results = evaluate(args)
    except (ClientError, EvaluationError, LiberoMissing, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(results.document(), indent=2) if args.json else results.table())
    return 0


def evaluate(args: argparse.Namespace) -> Results:
    """Runs every episode; after each, ``args.results`` is up to date."""
    write_video = _video_writer(args.videos) if args.videos else None
    suites = [(DummySuite if args.dummy_env else LiberoSuite)(name, args.seed) for name in args.suites]
    np.random.seed(args.seed)
    api_key = args.api_key_file.read_text().split("\n")[0].strip() if args.api_key_file else None
    total = args.trials * sum(len(suite.prompts) for suite in suites)
    with Client(args.host, args.port, api_key=api_key) as client, tqdm(total=total, unit="episode") as progress:
        settings = {
            "environment": "dummy" if args.dummy_env else "LIBERO",
            "task": args.task,
            "trials": args.trials,
            "replan_steps": args.replan_steps,
            "seed": args.seed,
            "server": client.metadata,
        }
        results = Results(settings)
        broker = ChunkBroker(client, args.replan_steps)
        for suite in suites:
            for task, prompt in enumerate(suite.prompts):
                env, states = suite.open(task)
                if args.trials > len(states):
                    raise EvaluationError(f"{suite.name} has {len(states)} initial states a task; use --trials {len(states)} or fewer")
                for trial in range(args.trials):
                    episode = Episode(suite.name, task, prompt, trial, success=False, steps=0)
                    frames = _run(episode, env, states[trial], suite.max_steps, broker, args)
                    results.episodes.append(episode)
                    if args.results:
                        results.write(args.results)
                    if write_video:
                        write_video(episode, frames)
                    progress.set_postfix_str(f"{sum(e.success for e in results.episodes)} succeeded")
                    progress.update()
                env.close()
    return results


def _run(
    episode: Episode, env: Any, state: Any, max_steps: int, broker: ChunkBroker, args: argparse.Namespace
) -> List[np.ndarray]:
    """Runs one episode, fills in what came of it, and returns what the front camera saw."""
    env.reset()
    frame = env.set_init_state(state)
    for _ in range(WAIT_STEPS):
        frame, *_ = env.step(list(robot.WAIT_ACTION))
    broker.reset()
    seen = []
    while episode.steps < max_steps and not episode.success:
        observation = robot.observation(frame, episode.prompt, args.task)
        seen.append(observation["observation/image"])
        asked, start = broker.reply, time.perf_counter()
        action = broker.action(observation)
        if broker.reply is not asked:
            episode.latencies_ms.append(1e3 * (time.perf_counter() - start))
        frame, _, done, _ = env.step(robot.command(action).tolist())
        episode.steps += 1
        episode.success = bool(done)
    routing = broker.reply.get("routing")
    if args.route and (not routing or routing["reason"] in ("fixed", "requested")):
        raise EvaluationError("the server does not route: start it without --task, on a checkpoint that has a router")
    if routing:
        episode.routed_to, episode.margin = routing["task"], routing["margin"]
    else:
        episode.routed_to = args.task
    return seen


def _video_writer(folder: Path) -> Any:
    try:
        import imageio.v2 as imageio
    except ImportError as error:
        raise EvaluationError(f"--videos needs imageio: pip install 'imageio[ffmpeg]' ({error})") from error
    folder.mkdir(parents=True, exist_ok=True)

    def write(episode: Episode, frames: List[np.ndarray]) -> None:
        outcome = "success" if episode.success else "failure"
        name = f"{episode.suite}-{episode.task:02}-{episode.trial:02}-{outcome}.mp4"
        imageio.mimwrite(folder / name, frames, fps=FRAMES_PER_S)

    return write


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1", help="where the server is [%(default)s]")
    parser.add_argument("--port", type=int, default=8000, help="where it listens [%(default)s]")
    parser.add_argument("--api-key-file", type=Path, metavar="FILE", help="its first line is the server's API key")
    parser.add_argument(
        "--suites", nargs="+", choices=list(MAX_STEPS), default=list(MAX_STEPS), metavar="SUITE",
        help=f"which of {', '.join(MAX_STEPS)} (LIBERO-10) [all]",
    )
    parser.add_argument("--trials", type=_positive, default=50, metavar="N", help="episodes a task [%(default)s]")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--task", metavar="T", help="the policy's task to run [the server's choice]")
    choice.add_argument("--route", action="store_true", help="an error unless the server's router chooses the task")
    parser.add_argument(
        "--replan-steps", type=_positive, metavar="N", help="actions of a chunk that are carried out [all]"
    )
    parser.add_argument("--seed", type=int, default=7, help="places objects [%(default)s]")
    parser.add_argument("--results", type=Path, metavar="FILE", help="JSON of every episode, written after each")
    parser.add_argument("--videos", type=Path, metavar="FOLDER", help="an MP4 of each episode")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--dummy-env", action="store_true", help="a tiny world with LIBERO's interface instead of LIBERO")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("has to be 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
