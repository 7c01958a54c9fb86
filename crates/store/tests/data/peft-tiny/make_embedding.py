"""Writes `embedding/` and `embedding.expected.safetensors` with peft: adapted embeddings, regular expressions in the
patterns, trained biases. The other adapters here were made the same way."""

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

torch.manual_seed(1)
model = AutoModelForCausalLM.from_pretrained("base", dtype=torch.float32)
config = LoraConfig(
    r=3,
    lora_alpha=5,
    bias="lora_only",
    target_modules=["embed_tokens", "q_proj", "v_proj"],
    rank_pattern={r"layers\.[01]\.self_attn\.v_proj": 5, "proj": 7},
    alpha_pattern={"^model.layers.1.self_attn.q_proj": 9, "embed_tokens|v_proj": 2.5},
    task_type="CAUSAL_LM",
)
model = get_peft_model(model, config)
with torch.no_grad():
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.copy_(torch.randn_like(parameter) * 0.1)
model.save_pretrained("embedding")
save_file({k: v.contiguous().clone() for k, v in model.merge_and_unload().state_dict().items()}, "embedding.expected.safetensors")
