"""Asks a policy server what it serves, and for actions on grey pictures: is it there, and how fast is it?"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np

from . import Client, ClientError

EXAMPLES = """\
examples:
  skillweld-client                                      the server on this machine
  skillweld-client --host robot-lab --port 8001 --task goal
  skillweld-client --requests 100 --json                latency, for a program

exit codes: 0 the server answered, 1 it did not, 2 wrong arguments"""


def main(arguments: Optional[List[str]] = None) -> int:
    args = _parser().parse_args(arguments)
    try:
        api_key = args.api_key_file.read_text().split("\n")[0].strip() if args.api_key_file else None
        with Client(args.host, args.port, api_key=api_key) as client:
            report = _ask(client, args.requests, args.prompt, args.task)
    except (ClientError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="skillweld-client",
        description=__doc__,
        epilog=EXAMPLES,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="where the server is [%(default)s]")
    parser.add_argument("--port", type=int, default=8000, help="where it listens [%(default)s]")
    parser.add_argument("--api-key-file", type=Path, metavar="FILE", help="its first line is the server's API key")
    parser.add_argument("--task", metavar="T", help="run this task instead of the server's choice")
    parser.add_argument("--prompt", default="put the bowl on the plate", help="the instruction [%(default)s]")
    parser.add_argument("--requests", type=int, default=5, metavar="N", help="how many chunks to ask for [%(default)s]")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _ask(client: Client, requests: int, prompt: str, task: Optional[str]) -> Dict[str, Any]:
    grey = np.full((224, 224, 3), 128, np.uint8)
    # The keys that any robot's policy understands: as many cameras as it wants.
    observation: Dict[str, Any] = {f"image_{index}": grey for index in range(client.metadata["images"])}
    observation.update(state=np.zeros(client.metadata["state_dim"] or 0), prompt=prompt, task=task)
    latencies_ms = []
    reply: Dict[str, Any] = {}
    for _ in range(max(requests, 1)):
        start = time.perf_counter()
        reply = client.infer(observation)
        latencies_ms.append(1e3 * (time.perf_counter() - start))
    return {
        "server": client.uri,
        "metadata": client.metadata,
        "routing": reply.get("routing"),
        "actions": reply["actions"].tolist(),
        "latency_ms": {
            "first": latencies_ms[0],
            "p50": float(np.percentile(latencies_ms, 50)),
            "p95": float(np.percentile(latencies_ms, 95)),
        },
    }


def _print(report: Dict[str, Any]) -> None:
    metadata, routing, latency = report["metadata"], report["routing"], report["latency_ms"]
    print(f"{report['server']}: {metadata['policy']}, tasks {', '.join(metadata['tasks'])}")
    if routing and routing["scores"]:
        scores = ", ".join(f"{task} {score:.2f}" for task, score in routing["scores"].items())
        print(f"task {routing['task']} ({routing['reason']}; margin {routing['margin']:.3f}; {scores})")
    elif routing:
        print(f"task {routing['task']} ({routing['reason']})")
    print(f"a chunk of {len(report['actions'])} actions of {len(report['actions'][0])} numbers; the first:")
    print("  " + "  ".join(f"{number:.4f}" for number in report["actions"][0]))
    print("latency " + ", ".join(f"{name} {value:.1f} ms" for name, value in latency.items()))


if __name__ == "__main__":
    sys.exit(main())
