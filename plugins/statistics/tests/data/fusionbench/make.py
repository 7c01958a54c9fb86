"""Values of FusionBench's functions for Fisher and RegMean merging on small random matrices.

    pip install fusion-bench==0.2.33 && python make.py
"""

import torch
from fusion_bench.method.fisher_merging.fisher_merging import merging_with_fisher_weights
from fusion_bench.method.regmean.regmean import merging_with_regmean_weights
from safetensors.torch import save_file

EXPERTS, KEYS = 3, {"up": (6, 4), "down": (4, 6)}
generator = torch.Generator().manual_seed(5)
random = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
base = {key: random(*shape) for key, shape in KEYS.items()}
experts = [{key: t + 0.1 * random(*t.shape) for key, t in base.items()} for _ in range(EXPERTS)]
fishers = [{key: random(*t.shape) ** 2 * 10.0 ** -k for key, t in base.items()} for k in range(EXPERTS)]
grams = []
for _ in range(EXPERTS):
    inputs = {key: random(3 * shape[1], shape[1]) for key, shape in KEYS.items()}
    grams.append({key: x.T @ x / len(x) for key, x in inputs.items()})
tensors = {f"base.{key}": t for key, t in base.items()}
for k in range(EXPERTS):
    for name, of in (("expert", experts), ("fisher", fishers), ("gram", grams)):
        tensors |= {f"{name}.{k}.{key}": t for key, t in of[k].items()}
tensors = {name: t.float() for name, t in tensors.items()}
# From here on with the values that are kept.
read = lambda name, key: [tensors[f"{name}.{k}.{key}"].double() for k in range(EXPERTS)]
weights = {key: read("expert", key) for key in KEYS}
fishers = [{key: read("fisher", key)[k] for key in KEYS} for k in range(EXPERTS)]
grams = [{key: read("gram", key)[k] for key in KEYS} for k in range(EXPERTS)]
coefficients = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
for name, normalize in (("fisher_normalized", True), ("fisher_plain", False)):
    merged = merging_with_fisher_weights(weights, fishers, coefficients, normalize, minimal_fisher_weight=1e-6)
    tensors |= {f"{name}.{key}": t.float() for key, t in merged.items()}
for ratio in (0.9, 1.0):
    merged = merging_with_regmean_weights(
        {f"{key}.weight": t for key, t in weights.items()}, grams, reduce_non_diagonal_ratio=ratio)
    tensors |= {f"regmean_{ratio}.{key}": merged[f"{key}.weight"].float().contiguous() for key in KEYS}
save_file(tensors, "values.safetensors")
