"""The published checkpoint layout, written and read.

A whole policy is a folder with `config.json` and `model.safetensors` (OpenVLA's form), a tokenizer, the action expert and
the projector of the robot's state as `.pt` files, and the statistics of its data. An expert trained by LoRA has
`lora_adapter/` in place of the first three; the base that it was trained on has them.
"""

import json
import pathlib

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from .config import Config, Language, Tower
from .policy import Policy

TIMM_IDS = ["vit_small_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"]
HEAD, PROPRIO, STATISTICS = "action_head", "proprio_projector", "dataset_statistics.json"


def config_json(config: Config, norm_stats):
    language = config.language
    tower = lambda t: {
        "patch_size": config.patch_side, "embed_dim": t.width, "depth": t.depth, "num_heads": t.heads,
        "mlp_ratio": t.mlp / t.width,
    }  # fmt: skip
    return {
        "model_type": "openvla",
        "architectures": ["OpenVLAForActionPrediction"],
        "arch_specifier": "no-align+fused-gelu-mlp",
        "use_fused_vision_backbone": True,
        "image_resize_strategy": "resize-naive",
        "image_sizes": [config.image_side] * 2,
        "timm_model_ids": TIMM_IDS,
        "timm_model_args": [
            tower(config.towers[0]) | {"init_values": 1.0, "reg_tokens": 4, "no_embed_class": True},
            tower(config.towers[1]) | {"class_token": False, "global_pool": ""},
        ],
        "text_config": {
            "model_type": "qwen2",
            "hidden_size": language.width,
            "intermediate_size": language.mlp,
            "num_hidden_layers": language.depth,
            "num_attention_heads": language.heads,
            "num_key_value_heads": language.kv_heads,
            "vocab_size": language.vocabulary,
            "max_position_embeddings": 1024,
            "rope_theta": language.rope_theta,
            "rms_norm_eps": language.epsilon,
            "hidden_act": "silu",
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
        },
        "num_actions_chunk": config.chunk,
        "norm_stats": norm_stats,
        "torch_dtype": "bfloat16",
    }


def config_of(raw, statistics, action_queries) -> Config:
    """Of `config.json` as `config_json` made it, and the statistics of the policy's dataset."""
    text, args = raw["text_config"], raw["timm_model_args"]
    tower = lambda a: Tower(
        a["embed_dim"], a["depth"], a["num_heads"], round(a["embed_dim"] * a["mlp_ratio"]), "reg_tokens" in a
    )
    return Config(
        image_side=raw["image_sizes"][0],
        patch_side=args[0]["patch_size"],
        images=2,
        towers=tuple(map(tower, args)),
        language=Language(
            text["hidden_size"], text["num_hidden_layers"], text["num_attention_heads"],
            text["num_key_value_heads"], text["intermediate_size"], text["vocab_size"],
            text["rope_theta"], text["rms_norm_eps"],
        ),
        action_queries=action_queries,
        chunk=raw["num_actions_chunk"],
        action=len(statistics["action"]["q01"]),
        state=len(statistics["proprio"]["q01"]),
    )  # fmt: skip


def rounded(tensors):
    return {name: tensor.detach().to(torch.bfloat16).contiguous().cpu() for name, tensor in tensors.items()}


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def save_parts(folder, policy: Policy, statistics, steps):
    """What every policy has of its own: action expert, projector of the state, statistics. In bf16."""
    for name in (HEAD, PROPRIO):
        for old in folder.glob(f"{name}--*_checkpoint.pt"):
            old.unlink()
        torch.save(rounded(getattr(policy, name).state_dict()), folder / f"{name}--{steps}_checkpoint.pt")
    write_json(folder / STATISTICS, statistics)


def save_whole(folder, policy: Policy, tokenizer: Tokenizer, statistics, steps):
    """A whole policy, in bf16."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(rounded(policy.backbone.state_dict()), folder / "model.safetensors", {"format": "pt"})
    write_json(folder / "config.json", config_json(policy.config, statistics))
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    save_parts(folder, policy, statistics, steps)


def save_expert(folder, policy: Policy, statistics, steps):
    """An expert whose backbone is a PEFT model: its adapter alone, in bf16."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    adapter = folder / "lora_adapter"
    adapter.mkdir(exist_ok=True)
    save_file(rounded(get_peft_model_state_dict(policy.backbone)), adapter / "adapter_model.safetensors", {"format": "pt"})
    config = policy.backbone.peft_config["default"]
    config.inference_mode = True
    config.save_pretrained(adapter)
    save_parts(folder, policy, statistics, steps)


def load_parts(folder, policy: Policy):
    for name in (HEAD, PROPRIO):
        (path,) = pathlib.Path(folder).glob(f"{name}--*_checkpoint.pt")
        state = torch.load(path, map_location="cpu", weights_only=True)
        getattr(policy, name).load_state_dict({key: value.float() for key, value in state.items()})


def load_expert(folder, policy: Policy):
    """Into a policy whose backbone is a PEFT model of the same rank."""
    set_peft_model_state_dict(policy.backbone, load_file(pathlib.Path(folder) / "lora_adapter/adapter_model.safetensors"))
    load_parts(folder, policy)


def load_statistics(folder):
    """The entry of a folder's one dataset."""
    (entry,) = json.loads((pathlib.Path(folder) / STATISTICS).read_text()).values()
    return entry


def load_whole(folder, kind="cross", parts=True):
    """(policy in f32, tokenizer). Without `parts` the action expert is as initialised: another kind than was saved."""
    folder = pathlib.Path(folder)
    state = load_file(folder / "model.safetensors")
    raw = json.loads((folder / "config.json").read_text())
    # Of a policy that `skillweld retain` has left, `config.json` has none.
    config = config_of(raw, load_statistics(folder), len(state["action_queries.weight"]))
    policy = Policy(config, kind)
    policy.backbone.load_state_dict({key: value.float() for key, value in state.items()})
    if parts:
        load_parts(folder, policy)
    return policy, Tokenizer.from_file(str(folder / "tokenizer.json"))
