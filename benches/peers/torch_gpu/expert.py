"""The action expert's attention, and the whole expert, in PyTorch on a GPU."""

import torch
import torch.nn.functional as F

T, WIDTH, HEADS, BLOCKS = 8, 896, 8, 24
ADAPTER_KEYS, TASK_KEYS = 65, 512
HEAD_DIM = WIDTH // HEADS
GATE = 0.6


def values(*shape, size=1.0):
    return (torch.rand(*shape, device="cuda", dtype=torch.bfloat16) * 2 - 1) * size


def heads_of(x):
    return x.view(1, x.shape[0], HEADS, HEAD_DIM).transpose(1, 2)


def attention_plain(q_a, q_t, k_a, k_t, v_a, v_t):
    """Scores of both groups side by side, one softmax: as the published code."""
    scores = torch.cat([heads_of(q_a) @ heads_of(k_a).mT, GATE * (heads_of(q_t) @ heads_of(k_t).mT)], dim=-1)
    weights = torch.softmax(scores / HEAD_DIM**0.5, dim=-1)
    return (weights @ torch.cat([heads_of(v_a), heads_of(v_t)], dim=2)).transpose(1, 2).reshape(T, WIDTH)


def attention_sdpa(q, k, v):
    """Both groups in one call: heads twice as wide, each group's keys zero in the other's half."""
    return F.scaled_dot_product_attention(q, k, v, scale=HEAD_DIM**-0.5)


def inputs_plain():
    return [values(rows, WIDTH) for rows in (T, T, ADAPTER_KEYS, TASK_KEYS, ADAPTER_KEYS, TASK_KEYS)]


def sdpa_inputs():
    q = values(1, HEADS, T, 2 * HEAD_DIM)
    k = values(1, HEADS, ADAPTER_KEYS + TASK_KEYS, 2 * HEAD_DIM)
    k[:, :, :ADAPTER_KEYS, HEAD_DIM:] = 0
    k[:, :, ADAPTER_KEYS:, :HEAD_DIM] = 0
    # The kernels want values as wide as keys.
    return q, k, F.pad(values(1, HEADS, ADAPTER_KEYS + TASK_KEYS, HEAD_DIM), (0, HEAD_DIM))


def in_graph(function, layers):
    """Replays `layers` calls over different operands as one CUDA graph and reports the time of all."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for layer in layers:
            function(*layer)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = [function(*layer) for layer in layers]

    def work(keep=out):
        graph.replay()

    return work


class Block(torch.nn.Module):
    """One block as published: keys and values are given, as in our case."""

    def __init__(self):
        super().__init__()
        linear = lambda: torch.nn.Linear(WIDTH, WIDTH, device="cuda", dtype=torch.bfloat16)
        self.q_adapter, self.q_task, self.out, self.feed_forward = linear(), linear(), linear(), linear()
        self.norm = torch.nn.LayerNorm(WIDTH, device="cuda", dtype=torch.bfloat16)

    def forward(self, x, cos, sin, k_a, k_t, v_a, v_t):
        def turned(q):
            q = heads_of(q)
            halves = torch.stack([-q[..., 1::2], q[..., ::2]], dim=-1).flatten(-2)
            return (q * cos + halves * sin).transpose(1, 2).reshape(T, WIDTH)

        attended = attention_plain(turned(self.q_adapter(x)), turned(self.q_task(x)), k_a, k_t, v_a, v_t)
        return torch.relu(self.feed_forward(self.norm(x + self.out(attended))))


class Expert(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList(Block() for _ in range(BLOCKS))
        self.norm = torch.nn.LayerNorm(WIDTH, device="cuda", dtype=torch.bfloat16)
        self.fc2 = torch.nn.Linear(WIDTH, 7, device="cuda", dtype=torch.bfloat16)

    def forward(self, x, cos, sin, layers):
        for block, layer in zip(self.blocks, layers):
            x = block(x, cos, sin, *layer)
        return self.fc2(self.norm(x))


def prepare_expert(compile_mode=None):
    expert = Expert().eval()
    x, cos, sin = values(T, WIDTH), values(T, HEAD_DIM), values(T, HEAD_DIM)
    layers = [
        [values(rows, WIDTH) for rows in (ADAPTER_KEYS, TASK_KEYS, ADAPTER_KEYS, TASK_KEYS)] for _ in range(BLOCKS)
    ]
    if compile_mode:
        expert = torch.compile(expert, mode=compile_mode, dynamic=False)
    return lambda: expert(x, cos, sin, layers)


EXPERT = {
    "eager": prepare_expert,
    "compile": lambda: prepare_expert("reduce-overhead"),  # replays CUDA graphs
}

CASES = {
    "gated_attention/24 layers in a graph, 8 queries, 65 + 512 keys": {
        "eager": lambda: in_graph(attention_plain, [inputs_plain() for _ in range(BLOCKS)]),
        "compile": lambda: in_graph(torch.compile(attention_plain), [inputs_plain() for _ in range(BLOCKS)]),
        "sdpa": lambda: in_graph(attention_sdpa, [sdpa_inputs() for _ in range(BLOCKS)]),
    },
    "expert/24 blocks in a graph, 8 rows, 65 + 512 keys": EXPERT,
    "expert/24 blocks in one launch, 8 rows, 65 + 512 keys": EXPERT,
}
