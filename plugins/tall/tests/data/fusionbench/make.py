"""TALL and consensus masks of FusionBench's functions on small random task vectors.

    pip install fusion-bench==0.2.33 && python make.py
"""

import torch
from fusion_bench.method.tall_mask import utils
from safetensors.torch import save_file

TASKS, LEN, LAMBDA = 4, 203, 0.6
generator = torch.Generator().manual_seed(7)
base, tasks = torch.zeros(LEN), torch.randn(TASKS, LEN, generator=generator)
merged = tasks.sum(0)
masks = utils.generate_task_masks(tasks, base + tasks, base, merged, LAMBDA)
tensors = {"tasks": tasks, "merged": merged, "tall": masks.float()}
# The function reads its masks from a file.
utils.load_tall_mask = lambda *_: {str(k): {"w": mask} for k, mask in enumerate(masks)}
for wanted in (1, 2, 3, 4):
    mask = utils.construct_consensus_mask({"w": base}, wanted, config=None)
    tensors[f"consensus.{wanted}"] = mask.float()
save_file(tensors, "values.safetensors")
