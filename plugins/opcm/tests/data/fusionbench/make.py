"""Values of FusionBench's OPCM on small random task vectors: its functions for a matrix and for a vector, and around them
the loop over experts with the norms of all parameters.

    pip install fusion-bench==0.2.33 && python make.py
"""

import sys
import types
from unittest import mock

import torch

# Evaluation, which is not needed and wants an older transformers.
sys.modules["fusion_bench.taskpool"] = mock.MagicMock()
from fusion_bench.method.opcm.opcm import OPCMForCLIP
from safetensors.torch import save_file

EXPERTS, SHAPES = 4, {"up": (7, 5), "down": (5, 7), "bias": (9,)}
generator = torch.Generator().manual_seed(13)
draw = lambda: {key: torch.randn(*shape, generator=generator) for key, shape in SHAPES.items()}
experts = [draw() for _ in range(EXPERTS)]
tensors = {f"expert.{k}.{key}": t for k, expert in enumerate(experts) for key, t in expert.items()}
experts = [{key: t.double() for key, t in expert.items()} for expert in experts]
norm = lambda model: torch.linalg.norm(torch.cat([t.flatten() for t in model.values()]))
for alpha in (0.3, 0.5, 0.8):
    state = types.SimpleNamespace(previous_lambda_t=1, lambda_t=1)
    merged, norms = experts[0], [norm(experts[0])]
    for expert in experts[1:]:
        norms.append(norm(expert))
        mean = sum(norms) / len(norms)
        new = {}
        for key, t in merged.items():
            zero = torch.zeros_like(t)
            if t.ndim == 2:
                new[key] = OPCMForCLIP.merge_linear_weights(state, t, zero, expert[key], key, alpha)
            else:
                new[key] = OPCMForCLIP.merge_other_parameters(state, t, zero, expert[key], key)
        state.previous_lambda_t = norm(new) / mean
        merged = {key: t * (mean / norm(new)) for key, t in new.items()}
    tensors |= {f"merged.{alpha}.{key}": t.float() for key, t in merged.items()}
save_file(tensors, "values.safetensors")
