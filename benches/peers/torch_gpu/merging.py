"""Merging in PyTorch on a GPU: task masks, masked weights, TIES, multiplied-out adapters."""

import torch

NUMEL = 500_000_000
EXPERTS = 4
LAMBDA = 0.6
DENSITY = 0.2
RANK = 64
# Qwen2.5-0.5B: the linear layers of a decoder block, rows by columns, 24 blocks.
LAYERS = [(896, 896), (128, 896), (128, 896), (896, 896), (4864, 896), (4864, 896), (896, 4864)]
BLOCKS = 24


def values(numel, size=1.0):
    return (torch.rand(numel, device="cuda", dtype=torch.bfloat16) * 2 - 1) * size


def compiled(function):
    return torch.compile(function, mode="max-autotune-no-cudagraphs", dynamic=False)


def masked(base, task_vector, masks):
    return [torch.where(mask, base + 0.9 * task_vector, base) for mask in masks]


def masked_eager(base, task_vector, masks):
    # As the published code: the mask times the task vector, added.
    return [base + 0.9 * (mask * task_vector) for mask in masks]


def prepare_masked(function, tasks):
    base, task_vector = values(NUMEL), values(NUMEL, 0.1)
    masks = [torch.rand(NUMEL, device="cuda", dtype=torch.bfloat16) > 0.5 for _ in range(tasks)]
    return lambda: function(base, task_vector, masks)


def packed(mask, places):
    """Eight elements a byte, the first in the lowest bit: PyTorch has no function for it."""
    return (mask.view(-1, 8) * places).sum(-1, dtype=torch.uint8)


def tall(task_vectors, merged, places):
    return [packed(v.abs() > LAMBDA * (merged - v).abs(), places) for v in task_vectors]


def prepare_tall(function):
    task_vectors = [values(NUMEL, 0.1) for _ in range(EXPERTS)]
    merged = sum(task_vectors)
    places = (2 ** torch.arange(8, device="cuda")).to(torch.uint8)
    return lambda: function(task_vectors, merged, places)


def ties(task_vectors, base):
    total = None
    trimmed = []
    for v in task_vectors:
        sizes = v.abs()
        threshold = sizes.float().kthvalue(int(NUMEL * (1 - DENSITY))).values
        trimmed.append(torch.where(sizes >= threshold, v, torch.zeros_like(v)))
        total = trimmed[-1].float() if total is None else total + trimmed[-1].float()
    sign = total.sign()
    kept, count = torch.zeros_like(total), torch.zeros_like(total)
    for v in trimmed:
        agrees = v.sign() == sign
        kept += torch.where(agrees, v, torch.zeros_like(v)).float()
        count += agrees
    return base + (kept / count.clamp(min=1)).to(base.dtype)


def prepare_ties(function):
    task_vectors, base = [values(NUMEL, 0.1) for _ in range(EXPERTS)], values(NUMEL)
    return lambda: function(task_vectors, base)


def task_arithmetic(task_vectors, base):
    total = task_vectors[0].float()
    for v in task_vectors[1:]:
        total = total + v.float()
    return (base.float() + total).to(base.dtype)


def low_rank(bases, factors):
    """Each adapter multiplied out, then added: what merging tools do."""
    out = []
    for base, pairs in zip(bases, factors):
        weight = base.clone()
        for b, a in pairs:
            weight += b @ a
        out.append(weight)
    return out


def low_rank_stacked(bases, factors):
    """The best form in PyTorch: one product of the stacked factors, added by the library's own epilogue."""
    return [torch.addmm(base, b, a) for base, (b, a) in zip(bases, factors)]


def prepare_low_rank(function, stacked):
    shapes = LAYERS * BLOCKS
    bases = [values(m * n).view(m, n) for m, n in shapes]
    if stacked:
        factors = [(values(m * RANK * EXPERTS, 0.1).view(m, -1), values(RANK * EXPERTS * n, 0.1).view(-1, n)) for m, n in shapes]
    else:
        factors = [
            [(values(m * RANK, 0.1).view(m, RANK), values(RANK * n, 0.1).view(RANK, n)) for _ in range(EXPERTS)]
            for m, n in shapes
        ]
    return lambda: function(bases, factors)


def gemm(rows, columns, inner):
    """Products over so many weights that none is in the L2 when its turn comes."""

    def prepare():
        weights = [values(columns * inner).view(columns, inner) for _ in range(max(2, int(2e8) // (columns * inner)))]
        x, bias, turn = values(rows * inner).view(rows, inner), values(columns), [0]

        def work():
            turn[0] += 1
            return torch.nn.functional.linear(x, weights[turn[0] % len(weights)], bias)

        return work

    return {"eager": prepare}


CASES = {
    "masked_apply/1 task": {
        "eager": lambda: prepare_masked(masked_eager, 1),
        "compile": lambda: prepare_masked(compiled(masked), 1),
    },
    "masked_apply/4 tasks": {
        "eager": lambda: prepare_masked(masked_eager, 4),
        "compile": lambda: prepare_masked(compiled(masked), 4),
    },
    "masks/tall 4 experts": {"eager": lambda: prepare_tall(tall), "compile": lambda: prepare_tall(compiled(tall))},
    "merge/ties 4 experts": {"eager": lambda: prepare_ties(ties)},
    "merge/task arithmetic 4 experts": {
        "eager": lambda: prepare_ties(task_arithmetic),
        "compile": lambda: prepare_ties(compiled(task_arithmetic)),
    },
    "low_rank/4 experts of rank 64": {
        "eager": lambda: prepare_low_rank(low_rank, False),
        "stacked": lambda: prepare_low_rank(low_rank_stacked, True),
    },
    "gemm/592x4864x896": gemm(592, 4864, 896),
    "gemm/592x896x4864": gemm(592, 896, 4864),
    "gemm/514x4096x1024": gemm(514, 4096, 1024),
    "gemm/512x4304x1152": gemm(512, 4304, 1152),
}
