#!/usr/bin/env python3
"""Success rates of a served policy on LIBERO's task suites."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

try:
    import numpy as np
    from tqdm import tqdm

    import skillweld_client  # noqa: F401
except ImportError as error:
    sys.exit(f"error: {error}; pip install ./examples/client -r examples/libero/requirements.txt")

import robot
from dummy_env import DummySuite
from results import Results, trial
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
  python3 evaluate.py --suites spatial --trials 5 --videos videos --out results
  python3 evaluate.py --dummy-env --trials 2                   without LIBERO: does everything fit together?

exit codes: 0 every trial was run, whatever came of it; 1 an error ended the evaluation (--out keeps what was done);
2 wrong arguments"""


class EvaluationError(Exception):
    """Why an evaluation cannot go on."""


def main(arguments: Optional[List[str]] = None) -> int:
    args = _parser().parse_args(arguments)
    try:
        results = evaluate(args)
    except (ClientError, EvaluationError, LiberoMissing, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(results.document(), indent=2) if args.json else results.table())
    return 0


def evaluate(args: argparse.Namespace) -> Results:
    """Runs every trial that ``args.out`` has not; after each, that folder is up to date."""
    write_video = _video_writer(args.videos) if args.videos else None
    suites = [(DummySuite if args.dummy_env else LiberoSuite)(name, args.seed) for name in args.suites]
    np.random.seed(args.seed)
    api_key = args.api_key_file.read_text().split("\n")[0].strip() if args.api_key_file else None
    total = args.trials * sum(len(suite.prompts) for suite in suites)
    with Client(args.host, args.port, api_key=api_key) as client, tqdm(total=total, unit="trial") as progress:
        results = Results(_of(args, client.metadata), args.out)
        broker = ChunkBroker(client, args.replan_steps)
        for suite in suites:
            for task, prompt in enumerate(suite.prompts):
                env, states = suite.open(task)
                if args.trials > len(states):
                    raise EvaluationError(f"{suite.name} has {len(states)} initial states a task; use --trials {len(states)} or fewer")
                for index in range(args.trials):
                    if not results.has(suite.name, task, index):
                        ran, frames = _run(prompt, env, states[index], suite.max_steps, broker, args)
                        results.add(trial(suite.name, task, index, prompt=prompt, **ran))
                        if write_video:
                            write_video(f"{suite.name}-{task:02}-{index:02}", ran["success"], frames)
                    progress.set_postfix_str(f"{sum(line['success'] for line in results.trials)} succeeded")
                    progress.update()
                env.close()
    return results


def _of(args: argparse.Namespace, server: Dict[str, Any]) -> str:
    """All that decides on the results, in one line."""
    policy = server.get("policy", f"ws://{args.host}:{args.port}")
    words = [str(policy), "dummy" if args.dummy_env else "LIBERO", f"--seed {args.seed}"]
    words += [f"--task {args.task}"] if args.task else []
    words += [f"--replan-steps {args.replan_steps}"] if args.replan_steps else []
    return " ".join(words)


def _run(
    prompt: str, env: Any, state: Any, max_steps: int, broker: ChunkBroker, args: argparse.Namespace
) -> Tuple[Dict[str, Any], List[np.ndarray]]:
    """Runs one trial; returns what came of it, and what the front camera saw."""
    env.reset()
    frame = env.set_init_state(state)
    for _ in range(WAIT_STEPS):
        frame, *_ = env.step(list(robot.WAIT_ACTION))
    broker.reset()
    seen: List[np.ndarray] = []
    latencies_ms: List[float] = []
    success = False
    while len(seen) < max_steps and not success:
        observation = robot.observation(frame, prompt, args.task)
        seen.append(observation["observation/image"])
        asked, start = broker.reply, time.perf_counter()
        action = broker.action(observation)
        if broker.reply is not asked:
            latencies_ms.append(1e3 * (time.perf_counter() - start))
        frame, _, done, _ = env.step(robot.command(action).tolist())
        success = bool(done)
    routing = broker.reply.get("routing")
    if args.route and (not routing or routing["reason"] in ("fixed", "requested")):
        raise EvaluationError("the server does not route: start it without --task, on a checkpoint that has a router")
    routed, margin = (routing["task"], routing["margin"]) if routing else (args.task, None)
    return {
        "success": success, "steps": len(seen), "routed": routed, "margin": margin, "latencies_ms": latencies_ms,
    }, seen  # fmt: skip


def _video_writer(folder: Path) -> Any:
    try:
        import imageio.v2 as imageio
    except ImportError as error:
        raise EvaluationError(f"--videos needs imageio: pip install 'imageio[ffmpeg]' ({error})") from error
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, success: bool, frames: List[np.ndarray]) -> None:
        outcome = "success" if success else "failure"
        imageio.mimwrite(folder / f"{name}-{outcome}.mp4", frames, fps=FRAMES_PER_S)

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
    parser.add_argument("--trials", type=_positive, default=50, metavar="N", help="trials a task [%(default)s]")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--task", metavar="T", help="the policy's task to run [the server's choice]")
    choice.add_argument("--route", action="store_true", help="an error unless the server's router chooses the task")
    parser.add_argument(
        "--replan-steps", type=_positive, metavar="N", help="actions of a chunk that are carried out [all]"
    )
    parser.add_argument("--seed", type=int, default=7, help="places objects [%(default)s]")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="every trial, for `skillweld eval show`; one that the same command began goes on"
    )
    parser.add_argument("--videos", type=Path, metavar="FOLDER", help="an MP4 of each trial")
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
