#!/usr/bin/env python3
"""Everything about the GPU in one go: the kernels' tests, their times, the same work in PyTorch, a table and a roofline.

    run.py --output DIR [--parts tests,sanitizer,kernels,torch,merges,policy] [--filter NAME]

Lies in the bundle of `cargo xtask dist --gpu`, beside the programs that it runs; `cargo xtask bench --peer torch` calls it.
Writes DIR/gpu.json, DIR/gpu.md and DIR/roofline.svg. Needs a driver; PyTorch and matplotlib for what compares and draws.
"""

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
# What the matrix units do at best is taken from this case of the same run, on random data.
FASTEST_PRODUCT = "gemm/4096x4096x4096 cublaslt"


def json_lines(command, environment=None):
    """Runs a program and returns the JSON objects among its lines, printing everything else."""
    found = []
    environment = {**os.environ, **(environment or {})}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    for line in process.stdout:
        if line.startswith("{"):
            found.append(json.loads(line))
        print(line, end="", flush=True)
    if process.wait() != 0:
        print(f"{command[0]} failed with exit code {process.returncode}", file=sys.stderr)
    return found


def cublaslt():
    """Path of the cuBLASLt that PyTorch brought, or nothing."""
    for folder in map(pathlib.Path, sys.path):
        for path in sorted(folder.glob("nvidia/*/lib/libcublasLt.so.*")):
            return str(path)
    return None


def sanitized(output, environment):
    """Runs the tests under compute-sanitizer: stray accesses, then races in shared memory, then misused barriers."""
    clean = True
    for tool in ("memcheck", "racecheck", "synccheck"):
        with open(output / f"{tool}.txt", "w") as log:
            command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", str(HERE / "gpu-tests")]
            cases = {"SKILLWELD_GPU_CASES": "2"}
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **environment, **cases})
        print(f"compute-sanitizer, {tool}: {'clean' if done.returncode == 0 else 'see ' + log.name}", flush=True)
        clean &= done.returncode == 0
    return clean


def joined(machine, kernels, peers):
    """One row a case: our time, the floor, PyTorch's times."""
    fastest = [case for case in kernels if case["name"] == FASTEST_PRODUCT and "time_us" in case]
    if fastest:
        machine = {**machine, "matrix_flop_per_s": fastest[0]["matrix_flop"] / fastest[0]["time_us"] * 1e6}
    rows = []
    for case in kernels:
        if "time_us" not in case:
            rows.append(case)
            continue
        # Without cuBLASLt, or with a filter, only bytes make a floor.
        matrix_us = case["matrix_flop"] / machine["matrix_flop_per_s"] * 1e6 if fastest else 0
        floor_us = max(case["floor_us"], matrix_us)
        row = {**case, "floor_us": floor_us, "ratio": case["time_us"] / floor_us if floor_us else None}
        for peer in peers:
            if peer["name"] == case["name"] and "time_us" in peer:
                row[f"torch_{peer['form']}_us"] = peer["time_us"]
        rows.append(row)
    return {"machine": machine, "rows": rows, "torch": peers}


def table(result):
    machine = result["machine"]
    lines = [
        f"# {machine.get('gpu', '?')}, {result['date']}",
        "",
        f"Compute capability {machine.get('compute_capability')}, driver {machine.get('driver')}; the driver's copy moves "
        f"{machine.get('copy_bytes_per_s', 0) / 1e12:.2f} TB/s, read and written. Made by `python3 run.py` of `cargo xtask dist --gpu`.",
        "",
        "Floor: the bytes that must move at the speed of that copy, or the matrix units' work at the rate of cuBLASLt's product of",
        f"4096³ in the same run ({machine.get('matrix_flop_per_s', 0) / 1e12:.0f} TFLOP/s), whichever is longer. Times are medians by the GPU's clock; PyTorch ran on the same machine in the same run.",
        "",
        "| work | µs | × floor | PyTorch eager ÷ ours | torch.compile ÷ ours | other forms ÷ ours |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        if "time_us" not in row:
            lines.append(f"| {row['name']} | {row.get('error', '')} | | | | |")
            continue
        ratio = lambda key: f"{row[key] / row['time_us']:.2f}" if key in row else ""
        others = [key for key in row if key.startswith("torch_") and key not in ("torch_eager_us", "torch_compile_us")]
        other = ", ".join(f"{key[6:-3]} {row[key] / row['time_us']:.2f}" for key in others)
        floor = f"{row['ratio']:.2f}" if row["ratio"] else ""
        lines.append(
            f"| {row['name']} | {row['time_us']:.1f} | {floor} | {ratio('torch_eager_us')} | {ratio('torch_compile_us')} | {other} |"
        )
    if result["merges"]:
        lines += [
            "",
            "Whole merges by `skillweld merge`, from files to files in memory, seconds of wall-clock time; `--device cuda` gives",
            "the same bytes.",
            "",
            "| merge | read, GB | CPU | with the GPU | tensors on the GPU, on the CPU |",
            "|---|---|---|---|---|",
        ]
    for merge in result["merges"]:
        where = f"{merge['on_device']}, {merge['on_cpu']}"
        lines.append(f"| {merge['name']} | {merge['read_bytes'] / 1e9:.1f} | {merge['cpu_s']:.2f} | {merge['cuda_s']:.2f} | {where} |")
    if result["policy"]:
        stages = list(result["policy"][0]["latency_ms"])
        lines += [
            "",
            "One observation to one chunk of actions by `skillweld predict`, a single expert of the published size with random",
            "weights, median milliseconds; off: from the CPU's actions in f32, as a part of the largest.",
            "",
            "| device | precision | " + " | ".join(stage.removesuffix("_ms") for stage in stages) + " | off |",
            "|---|---|" + "---|" * (len(stages) + 1),
        ]
    for run in result["policy"]:
        times = " | ".join(f"{time:.2f}" for time in run["latency_ms"].values())
        lines.append(f"| {run['device']} | {run['precision']} | {times} | {run['off']:.1e} |")
    return "\n".join(lines) + "\n"


def roofline(result, path):
    """Work per second over work per byte, one point a case, under what memory and matrix units allow."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    copy = result["machine"]["copy_bytes_per_s"]
    rows = [row for row in result["rows"] if row.get("bytes") and "time_us" in row]
    figure, (memory, matrix) = plt.subplots(1, 2, figsize=(13, 6))
    moved = [row for row in rows if not row["matrix_flop"]]
    memory.barh([row["name"] for row in moved], [row["bytes"] / row["time_us"] / 1e6 for row in moved], color="#4c78a8")
    memory.axvline(copy / 1e12, color="#e45756", label="the driver's copy")
    memory.set_xlabel("TB/s")
    memory.set_title("bound by memory")
    memory.legend()
    memory.invert_yaxis()
    intensity = [2**i for i in range(0, 13)]
    most = result["machine"].get("matrix_flop_per_s", float("inf"))
    matrix.plot(intensity, [min(i * copy, most) / 1e12 for i in intensity], color="#e45756")
    for row in rows:
        if row["matrix_flop"]:
            at = row["matrix_flop"] / row["bytes"], row["matrix_flop"] / row["time_us"] / 1e6
            matrix.plot(*at, "o", color="#4c78a8")
            matrix.annotate(row["name"], at, fontsize=7, xytext=(4, 4), textcoords="offset points")
    matrix.set(xscale="log", yscale="log", xlabel="FLOP per byte", ylabel="TFLOP/s", title="bound by matrix units")
    figure.suptitle(f"{result['machine'].get('gpu')}, {result['date']}")
    figure.tight_layout()
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder for the results")
    parser.add_argument("--parts", default="tests,kernels,torch", help="which of tests, sanitizer, kernels, torch, merges, policy (default: tests, kernels, torch)")
    parser.add_argument("--filter", default="", help="only cases whose name contains this")
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    arguments.output.mkdir(parents=True, exist_ok=True)
    library = cublaslt()
    environment = {"SKILLWELD_REQUIRE_GPU": "1", **({"SKILLWELD_CUBLASLT": library} if library else {})}
    failed = False
    if "tests" in parts:
        with open(arguments.output / "tests.txt", "w") as log:
            for program in ("gpu-tests", "gpu-merge-tests"):
                tests = subprocess.run([str(HERE / program)], stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **environment})
                failed |= tests.returncode != 0
        print((arguments.output / "tests.txt").read_text()[-6000:], flush=True)
    if "sanitizer" in parts:
        failed |= not sanitized(arguments.output, environment)
    result = {"date": datetime.date.today().isoformat(), "machine": {}, "rows": [], "torch": [], "merges": [], "policy": []}

    def keep():
        """Writes what is known so far: a later part that fails, or is stopped, takes nothing away."""
        (arguments.output / "gpu.json").write_text(json.dumps(result, indent=1) + "\n")
        (arguments.output / "gpu.md").write_text(table(result))

    kernels = []
    if "kernels" in parts:
        kernels = json_lines([str(HERE / "gpu-bench"), "--table", arguments.filter], environment)
        result |= joined(kernels[0] if kernels else {}, kernels[1:], [])
        keep()
    if "policy" in parts:
        result["policy"] = json_lines([sys.executable, str(HERE / "policy.py")], environment)
        keep()
    if "merges" in parts:
        result["merges"] = json_lines([sys.executable, str(HERE / "merges.py")], environment)
        failed |= any(not merge["same_bytes"] for merge in result["merges"])
        keep()
    if "torch" in parts:
        peers = json_lines([sys.executable, str(HERE / "peers.py"), arguments.filter])
        result |= joined(result["machine"], kernels[1:], peers)
        keep()
    print(table(result))
    if result["rows"]:
        try:
            roofline(result, arguments.output / "roofline.svg")
        except ImportError as error:
            print(f"no roofline: {error}", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
