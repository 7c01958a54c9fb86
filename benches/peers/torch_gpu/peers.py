#!/usr/bin/env python3
"""The work of `skillweld_kernels::cases` in PyTorch: eager, compiled, and whatever form of it is fastest there.

    peers.py [FILTER]

Prints a line of JSON a form: name (as the case's), form, median microseconds by CUDA events. Random data, never zeros.
"""

import json
import statistics
import sys

import torch

import expert
import merging

RUNS = 15


# Work that takes longer than this is timed fewer times.
LONG_MS = 100


def median_us(work):
    """Median time of one call, several calls in a row between two events so that launches overlap."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def time_ms(repeats):
        start.record()
        for _ in range(repeats):
            work()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / repeats

    time_ms(1)  # compiles, allocates
    once = time_ms(1)
    if once > LONG_MS:
        return statistics.median(time_ms(1) for _ in range(3)) * 1e3
    repeats = min(max(2, int(2.0 / max(once, 1e-3))), 50)
    time_ms(2)
    return statistics.median(time_ms(repeats) for _ in range(RUNS)) * 1e3


def main():
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    known = {}  # two of our kernels may have the same peer
    for name, forms in {**merging.CASES, **expert.CASES}.items():
        if wanted not in name:
            continue
        for form, prepare in forms.items():
            try:
                if prepare not in known:
                    known[prepare] = median_us(prepare())
                time_us = known[prepare]
                print(json.dumps({"name": name, "form": form, "time_us": round(time_us, 2)}), flush=True)
            except Exception as error:  # one form that does not run must not hide the others
                print(json.dumps({"name": name, "form": form, "error": str(error)[:200]}), flush=True)
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
