"""peft loads the adapters, and the adapted model is the fine-tuned one."""

import copy

import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = torch.nn.Linear(24, 24)
        self.up_proj = torch.nn.Linear(24, 64, bias=False)
        self.down_proj = torch.nn.Linear(64, 24, bias=False)
        self.norm = torch.nn.LayerNorm(24)

    def forward(self, x):
        x = x + torch.tanh(self.q_proj(self.norm(x)))
        return x + self.down_proj(torch.relu(self.up_proj(x)))


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(50, 24)
        self.layers = torch.nn.ModuleList(Layer() for _ in range(2))
        self.head = torch.nn.Linear(24, 3)

    def forward(self, tokens):
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


TOKENS = torch.arange(40).reshape(4, 10)


def tuned(base, rank, others):
    """`base` with an update of `rank` on every linear weight, and other tensors moved if asked."""
    model = copy.deepcopy(base)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                m, n = module.weight.shape
                module.weight += 0.1 * torch.randn(m, rank) @ torch.randn(rank, n)
        if others:
            model.embed_tokens.weight += 0.1
            model.layers[1].norm.weight += 0.3
            model.layers[0].norm.bias -= 0.2
            model.layers[0].q_proj.bias += 0.4
            model.head.bias += 0.5
    return model


@pytest.fixture
def models(tmp_path):
    """Writes a base and a fine-tune; gives both."""

    def make(rank, others):
        torch.manual_seed(rank)
        base = Model()
        finetuned = tuned(base, rank, others)
        for name, model in (("base", base), ("finetuned", finetuned)):
            (tmp_path / name).mkdir()
            save_file(model.state_dict(), str(tmp_path / name / "model.safetensors"))
        return base, finetuned

    return make


def adapted(base, adapter):
    return PeftModel.from_pretrained(copy.deepcopy(base), str(adapter)).eval()


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize("rank,asked", [(2, 2), (3, 8)])
def test_the_adapted_model_is_the_finetuned_one(skillweld, models, tmp_path, rank, asked, others):
    base, finetuned = models(rank, others)
    paths = [tmp_path / name for name in ("base", "finetuned", "adapter")]
    report = skillweld("extract-lora", *paths, "--rank", asked)["report"]
    # Seven linear weights; the smallest has three rows.
    assert len(report["adapted"]) == 7 and report["left_out"] == []
    assert {tensor["rank"] for tensor in report["adapted"]} == {asked, min(asked, 3)}
    model = adapted(base, tmp_path / "adapter")
    with torch.no_grad():
        before, expected, got = base(TOKENS), finetuned(TOKENS), model(TOKENS)
    assert (before - expected).abs().max() > 0.1
    assert (got - expected).abs().max() < 1e-4 * expected.abs().max()
    if others:
        assert len(report["saved"]) >= 5


def test_a_lower_rank_is_what_merging_the_factors_gives(skillweld, models, tmp_path):
    base, finetuned = models(6, False)
    paths = [tmp_path / name for name in ("base", "finetuned", "adapter")]
    report = skillweld("extract-lora", *paths, "--rank", 2, "--dtype", "bf16")["report"]
    assert 0.1 < report["residual"] < 0.95
    merged = adapted(base, tmp_path / "adapter").merge_and_unload().state_dict()
    for tensor in report["adapted"]:
        tau = finetuned.state_dict()[tensor["key"]] - base.state_dict()[tensor["key"]]
        lost = (finetuned.state_dict()[tensor["key"]] - merged[tensor["key"]]).norm() / tau.norm()
        assert abs(lost - tensor["residual"]) < 1e-3, tensor
        # No approximation of that rank is better (Eckart-Young), but for the rounding to bf16.
        least = torch.linalg.svdvals(tau)[tensor["rank"] :].norm() / tau.norm()
        assert least - 1e-4 < lost < least + 0.01, tensor
