#!/usr/bin/env python3
"""Whole forwards of a policy of the published size by `skillweld predict`, on the CPU and with `--device cuda`.

    policy.py [--folder DIR] [--repeat N]

Prints a line of JSON a device and precision: median milliseconds of each stage, and how far the actions are from those of
the CPU in f32, as a part of the largest. Random weights are written to DIR, by default in memory (/dev/shm), and removed.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
RUNS = [("cpu", "f32"), ("cuda", "f32"), ("cuda", "bf16")]


def predict(folder, device, precision, repeat):
    command = [str(HERE / "skillweld"), "predict", str(folder / "expert"), "--inputs", str(folder / "observation.safetensors")]
    command += ["--output", str(folder / "actions.safetensors"), "--force", "--json"]
    command += ["--device", device, "--precision", precision, "--repeat", str(repeat if device == "cuda" else 2)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed")
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("/dev/shm"))
    parser.add_argument("--repeat", type=int, default=30)
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(dir=arguments.folder))
    try:
        subprocess.run([str(HERE / "published-policy"), str(folder)], check=True)
        expected = None
        for device, precision in RUNS:
            report = predict(folder, device, precision, arguments.repeat)
            actions = [value for row in report["normalized_actions"] for value in row]
            expected = expected or actions
            largest = max(abs(value) for value in expected)
            off = max(abs(a - b) for a, b in zip(actions, expected)) / largest
            result = {"device": device, "precision": precision, "off": off, "latency_ms": report["latency"]}
            print(json.dumps(result), flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
