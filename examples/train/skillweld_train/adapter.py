"""LoRA on the backbone, by peft."""

import functools

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from torch.nn import functional


def adapted(policy, rank):
    """The backbone under LoRA on all linear layers that the forward uses; action queries are trained whole."""
    unused = {f"{tower}.blocks.{t.depth - 1}." for tower, t in zip(("featurizer", "fused_featurizer"), policy.config.towers)}
    linear = [
        name
        for name, module in policy.backbone.named_modules()
        if isinstance(module, torch.nn.Linear) and not any(part in name for part in unused)
    ]
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=linear, modules_to_save=["action_queries"],
        init_lora_weights="gaussian", lora_dropout=0.0,
    )  # fmt: skip
    policy.backbone = get_peft_model(policy.backbone, config)
    return policy


def narrowed(policy):
    """What LoRA does not train in bf16, for training under autocast: it needs no precision beyond that of products."""
    for parameter in policy.backbone.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    for module in policy.backbone.modules():
        # Or peft widens every input to the adapter's f32, for autocast to narrow it again.
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = False
    return policy


def thinned(policy, share):
    """LoRA's task vector s·BA without a random `share` of its elements, the rest larger by as much, anew in every step.

    What masks of a merge leave of a task vector then is nothing new to the policy.
    """
    for module in policy.backbone.modules():
        if isinstance(module, Linear):
            module.forward = functools.partial(thinned_forward, module, share)
    return policy


def thinned_forward(module, share, inputs):
    a, b = (part["default"].weight for part in (module.lora_A, module.lora_B))
    task_vector = functional.dropout(module.scaling["default"] * (b @ a), share)
    return module.base_layer(inputs) + functional.linear(inputs, task_vector)
