"""What is left out of a task vector while it is trained."""

import torch
from peft import LoraConfig, get_peft_model

from skillweld_train.adapter import thinned


class Policy:
    """A backbone of one layer under an adapter that does something."""

    def __init__(self):
        torch.manual_seed(0)
        layers = torch.nn.Sequential(torch.nn.Linear(24, 40))
        self.backbone = get_peft_model(layers, LoraConfig(r=4, lora_alpha=8, target_modules=["0"], init_lora_weights=False))

    def task_vector(self, inputs):
        """What the adapter adds of every input to every output: of the identity, its whole task vector."""
        return (self.backbone(inputs) - self.backbone.base_model.model[0].base_layer(inputs)).T


def test_what_is_left_is_larger_by_as_much():
    whole = Policy().task_vector(torch.eye(24)).detach()
    policy = thinned(Policy(), 0.25)
    torch.manual_seed(1)
    thin = policy.task_vector(torch.eye(24)).detach()
    left = thin.abs() > 1e-6
    assert torch.allclose(thin[left], whole[left] / 0.75, atol=1e-5)
    assert 0.6 < left.float().mean() < 0.9
    assert not torch.equal(thin, policy.task_vector(torch.eye(24)).detach()), "the same is left out again"


def test_both_factors_are_trained():
    policy = thinned(Policy(), 0.25)
    policy.backbone(torch.ones(2, 24)).square().sum().backward()
    trained = [p for p in policy.backbone.parameters() if p.requires_grad]
    assert len(trained) == 2 and all(p.grad.abs().sum() > 0 for p in trained)
