"""Values of PCB-Merging's published code on small random task vectors.

    git clone https://github.com/duguodong7/pcb-merging && python make.py pcb-merging/pcb-merging.py

The published file is a script; only its functions are taken. It computes in f32; here it is handed f64.
"""

import ast
import pathlib
import sys

import torch
from safetensors.torch import save_file

source = ast.parse(pathlib.Path(sys.argv[1]).read_text())
source.body = [node for node in source.body if isinstance(node, ast.FunctionDef)]
published = {"torch": torch}
exec(compile(source, sys.argv[1], "exec"), published)

generator = torch.Generator().manual_seed(11)
tasks = torch.randn(3, 1500, generator=generator)
tensors = {"tasks": tasks}
for ratio in (0.05, 0.1, 0.6):
    merged, _, _ = published["PCB_merge"](tasks.double(), pcb_ratio=ratio)
    tensors[f"merged.{ratio}"] = merged.float()
save_file(tensors, "values.safetensors")
