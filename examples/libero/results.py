"""What an evaluation found, as `skillweld eval show` and `compare` read it: a line a trial in `trials.jsonl`."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Tuple

import numpy as np

#: In the folder of results: the first line says of what they are, every other is a trial.
FILE = "trials.jsonl"


def which(suite: str, task: int, index: int) -> Dict[str, Any]:
    """A trial's name."""
    return {"task": f"libero-{suite}_{task}", "split": "final", "index": index}


def trial(
    suite: str, task: int, index: int, *, prompt: str, success: bool, steps: int,
    routed: Optional[str], margin: Optional[float], latencies_ms: List[float],
) -> Dict[str, Any]:
    """One line. `task`: index within the suite; `index`: of the state that the episode started from; `steps`: without the wait at the
    start; `latencies_ms`: of each chunk, from the observation sent to the actions received. What Skillweld does not know it lets be."""
    line = {"trial": which(suite, task, index), "success": success, "steps": steps, "inferences": len(latencies_ms)}
    if routed is not None:
        line["routed"] = routed
    return {**line, "prompt": prompt, "margin": margin, "latencies_ms": latencies_ms}


class Results:
    """All trials so far; with a folder, in its file, and those that are there already count."""

    def __init__(self, of: str, folder: Optional[Path]) -> None:
        self.of = of
        self.trials: List[Dict[str, Any]] = []
        self._path = folder / FILE if folder else None
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            self._read()
        else:
            partial = self._path.with_name(f".{FILE}")
            partial.write_text(json.dumps({"of": of}) + "\n")
            os.replace(partial, self._path)

    def _read(self) -> None:
        text = self._path.read_text()
        whole = text[: text.rfind("\n") + 1]
        heading, *trials = [json.loads(line) for line in whole.splitlines()]
        if heading["of"] != self.of:
            raise ValueError(f"{self._path} has the results of {heading['of']}; name another folder for {self.of}")
        self.trials = trials
        if whole != text:
            # An interruption has cut the last line off: its trial is run again.
            os.truncate(self._path, len(whole.encode()))

    def has(self, suite: str, task: int, index: int) -> bool:
        """Whether a trial has been run."""
        wanted = which(suite, task, index)
        return any(line["trial"] == wanted for line in self.trials)

    def add(self, line: Dict[str, Any]) -> None:
        """Adds one; it is in the file when this returns."""
        self.trials.append(line)
        if self._path:
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def document(self) -> Dict[str, Any]:
        """What `skillweld eval run --json` says, and the latencies of chunks."""
        groups: Dict[str, List[Dict[str, Any]]] = {}
        routed: Dict[Tuple[str, str], int] = {}
        for line in self.trials:
            task = line["trial"]["task"]
            suite = task.split("_")[0]
            for group in (suite, task):
                groups.setdefault(group, []).append(line)
            if "routed" in line:
                routed[suite, line["routed"]] = routed.get((suite, line["routed"]), 0) + 1
        latencies_ms = [latency for line in self.trials for latency in line["latencies_ms"]]
        percentiles = np.percentile(latencies_ms, [50, 95]).tolist() if latencies_ms else [None, None]
        return {
            "of": self.of,
            "all": rate(self.trials),
            "groups": {name: rate(part) for name, part in groups.items()},
            "routed": [{"suite": suite, "expert": expert, "trials": n} for (suite, expert), n in routed.items()],
            "latency_ms": dict(zip(["p50", "p95"], percentiles)),
        }

    def table(self) -> str:
        """A row for each suite and task, and one for all."""
        document = self.document()
        groups = {**document["groups"], "all": document["all"]}
        rows = [("", "success", "95 %", "trials")]
        for name, part in groups.items():
            low, high = part["interval_95"]
            rows.append((name, f"{100 * part['share']:.1f} %", f"{100 * low:.0f} … {100 * high:.0f} %", str(part["trials"])))
        for row in document["routed"]:
            rows.append((row["suite"], f"ran {row['expert']}", "", str(row["trials"])))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
        latency = document["latency_ms"]
        if latency["p50"] is not None:
            lines.append(f"\nlatency of a chunk: p50 {latency['p50']:.1f} ms, p95 {latency['p95']:.1f} ms")
        return "\n".join(lines)


def rate(trials: Iterable[Dict[str, Any]]) -> Dict[str, Any]:
    """Successes of so many trials."""
    outcomes = [line["success"] for line in trials]
    successes, count = sum(outcomes), len(outcomes)
    share = successes / count if count else 0.0
    return {
        "successes": successes, "trials": count, "share": share,
        "interval_95": list(wilson_interval(successes, count)),
    }  # fmt: skip


def wilson_interval(successes: int, trials: int) -> Tuple[float, float]:
    """Wilson's 95 % interval of a success rate; (0, 1) without trials. Unlike p ± 1.96 σ it holds for few trials and for 0 and 100 %."""
    if trials == 0:
        return 0.0, 1.0
    z = 1.959964
    share = successes / trials
    centre = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
