"""Times FusionBench's merging functions, matrix by matrix, on LoRA experts given as factors and multiplied out here.

Prints one JSON object: milliseconds by method and matrix. WUDI's 300 steps are measured as a few of them and scaled.
"""

import argparse
import contextlib
import io
import json
import time

import torch
from safetensors.torch import load_file

STEPS = 300
FEW = 2


def knots(vectors):
    from fusion_bench.method.knots.knots_utils import subspace_alignment

    u, s, parts = subspace_alignment([vector["w"] for vector in vectors])
    return u @ torch.diag(s) @ sum(parts)


def tsv(vectors):
    from fusion_bench.method.task_singular_vector.utils import TSVM_utils

    return TSVM_utils.compute_and_sum_svd_mem_reduction(vectors, accelerator="cpu")["w"]


def iso_c(vectors):
    from fusion_bench.method.isotropic_merging.iso_utils import iso_c

    return iso_c(vectors, accelerator="cpu")["w"]


def iso_cts(vectors):
    from fusion_bench.method.isotropic_merging.iso_utils import iso_cts

    return iso_cts(vectors, 0.8, accelerator="cpu")["w"]


def wudi(vectors, steps):
    from fusion_bench.method.wudi.wudi import wudi_merging

    return wudi_merging(vectors, accelerator="cpu", iter_num=steps)["w"]


def timed(function, *arguments):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        start = time.perf_counter()
        function(*arguments)
        return 1e3 * (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("inputs", help="safetensors: <matrix>.<expert>.{b,a}")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--methods", nargs="+", default=["knots", "tsv", "iso_c", "iso_cts", "wudi"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    factors = load_file(options.inputs)
    matrices = sorted({name.split(".")[0] for name in factors})
    experts = sorted({name.split(".")[1] for name in factors})
    # Imports and first calls cost what no later one does.
    small = [{"w": torch.randn(8, 8)} for _ in experts]
    for method in options.methods:
        timed(wudi, small, 1) if method == "wudi" else timed(globals()[method], small)
    results = {method: {} for method in options.methods}
    for matrix in matrices:
        vectors = [{"w": factors[f"{matrix}.{k}.b"] @ factors[f"{matrix}.{k}.a"]} for k in experts]
        for method in options.methods:
            if method == "wudi":
                start_up = timed(wudi, vectors, 0)
                steps = timed(wudi, vectors, FEW) - start_up
                results[method][matrix] = start_up + steps * STEPS / FEW
            else:
                results[method][matrix] = timed(globals()[method], vectors)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
