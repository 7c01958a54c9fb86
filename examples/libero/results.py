"""What an evaluation found: episodes, rates with intervals, a table, JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Tuple

import numpy as np


@dataclasses.dataclass
class Episode:
    """One trial of one task."""

    suite: str
    #: Index within the suite.
    task: int
    prompt: str
    trial: int
    success: bool
    #: Actions carried out, without the wait at the start.
    steps: int
    #: The policy's task that ran last, and the router's margin; None where the server did not say.
    routed_to: Optional[str] = None
    margin: Optional[float] = None
    #: What each chunk took, from the observation sent to the actions received.
    latencies_ms: List[float] = dataclasses.field(default_factory=list)


def wilson_interval(successes: int, trials: int) -> Tuple[float, float]:
    """Wilson's 95 % interval of a success rate; (0, 1) without trials. Unlike p ± 1.96 σ it holds for few trials and for 0 and 100 %."""
    if trials == 0:
        return 0.0, 1.0
    z = 1.959964
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


class Results:
    """All episodes so far."""

    def __init__(self, settings: Dict[str, Any]) -> None:
        #: How the evaluation was run, and what the server said of itself.
        self.settings = settings
        self.episodes: List[Episode] = []

    def document(self) -> Dict[str, Any]:
        """Everything, for JSON."""
        suites: Dict[str, Any] = {}
        for suite, episodes in _by(self.episodes, lambda episode: episode.suite).items():
            tasks = [
                {"task": task, "prompt": part[0].prompt, **_summary(part)}
                for task, part in _by(episodes, lambda episode: episode.task).items()
            ]
            suites[suite] = {**_summary(episodes), "tasks": tasks}
        latencies_ms = [latency for episode in self.episodes for latency in episode.latencies_ms]
        percentiles = np.percentile(latencies_ms, [50, 95]).tolist() if latencies_ms else [None, None]
        return {
            "settings": self.settings,
            "total": _summary(self.episodes),
            "suites": suites,
            "latency_ms": dict(zip(["p50", "p95"], percentiles)),
            "episodes": [dataclasses.asdict(episode) for episode in self.episodes],
        }

    def write(self, path: Path) -> None:
        """Writes the document; what was there is replaced at once, so that an interrupted run leaves a whole file."""
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(self.document(), indent=2) + "\n")
        os.replace(partial, path)

    def table(self) -> str:
        """A row for each task and suite, and one for all."""
        document = self.document()
        rows = [("suite", "task", "success", "rate", "95 % interval", "ran as")]
        for suite, part in document["suites"].items():
            rows += [(suite, task["prompt"], *_cells(task)) for task in part["tasks"]]
            rows.append((suite, "all tasks", *_cells(part)))
        rows.append(("all", "", *_cells(document["total"])))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
        latency = document["latency_ms"]
        if latency["p50"] is not None:
            lines.append(f"\nlatency of a chunk: p50 {latency['p50']:.1f} ms, p95 {latency['p95']:.1f} ms")
        return "\n".join(lines)


def _by(episodes: Iterable[Episode], key: Any) -> Dict[Any, List[Episode]]:
    groups: Dict[Any, List[Episode]] = {}
    for episode in episodes:
        groups.setdefault(key(episode), []).append(episode)
    return groups


def _summary(episodes: List[Episode]) -> Dict[str, Any]:
    successes = sum(episode.success for episode in episodes)
    return {
        "successes": successes,
        "trials": len(episodes),
        "rate": successes / len(episodes) if episodes else None,
        "wilson_95": list(wilson_interval(successes, len(episodes))),
        "routed_to": dict(Counter(episode.routed_to for episode in episodes if episode.routed_to)),
    }


def _cells(summary: Dict[str, Any]) -> Tuple[str, str, str, str]:
    low, high = summary["wilson_95"]
    rate = "–" if summary["rate"] is None else f"{100 * summary['rate']:.1f} %"
    ran_as = ", ".join(f"{task} {count}" for task, count in summary["routed_to"].items())
    return f"{summary['successes']}/{summary['trials']}", rate, f"{100 * low:.0f} – {100 * high:.0f} %", ran_as
