"""PyTorch reads the published code's layout, by the restricted loader, and its arithmetic gives each task's weights."""

import json

import pytest
import torch
from safetensors.torch import load_file


@pytest.fixture(scope="module")
def exported(skillweld, merged, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "official"
    skillweld("export", merged, out, "--format", "mergevla")
    return out


def load(path):
    return torch.load(str(path), map_location="cpu", weights_only=True)


def model(folder):
    tensors = {}
    for file in sorted(folder.glob("model*.safetensors")):
        tensors.update(load_file(str(file)))
    return tensors


def test_every_file_is_plain_tensors(exported):
    assert load(exported / "task2idx.pt") == {"spatial": 0, "object": 1, "goal": 2, "long": 3}
    masks = load(exported / "tall_masks.pt")
    assert list(masks) == ["spatial", "object", "goal", "long"]
    tau = model(exported)
    for task in masks.values():
        assert task and all(mask.dtype == torch.bool and mask.shape == tau[key].shape for key, mask in task.items())
    head = load(exported / "action_head--checkpoint.pt")
    assert head["model.router_layer_idx"].item() == 22
    assert head["model.mlp_resnet_moe_blocks.0.gating_factor"].shape == (4,)
    for task in range(4):
        assert head[f"model.fc2.experts.{task}.weight"].shape[0] == 7
        rows = head[f"model.gate.gate.0.routers.{task}"].float()
        assert torch.allclose(rows @ rows.T, torch.eye(8), atol=1e-4)
    assert load(exported / "proprio_projector--checkpoint.pt")["fc1.weight"].shape[1] == 8


def test_pretrained_plus_masked_task_vector_is_the_tasks_model(skillweld, merged, base, exported, tmp_path):
    pretrained, tau = model(base), model(exported)
    masks = load(exported / "tall_masks.pt")
    for task in ("spatial", "long"):
        skillweld("materialize", merged, tmp_path / task, "--task", task)
        for key, expected in model(tmp_path / task).items():
            if key == "action_queries.weight":
                got = tau[key]
            else:
                mask = masks[task].get(key)
                vector = tau[key].float() if mask is None else mask.float() * tau[key].float()
                got = (pretrained[key].float() + vector).to(expected.dtype)
            assert torch.equal(got, expected), key


def test_statistics_are_found_under_the_tasks_names(exported):
    statistics = json.loads((exported / "dataset_statistics.json").read_text())
    assert {"spatial", "object", "goal", "long"} <= set(statistics)
