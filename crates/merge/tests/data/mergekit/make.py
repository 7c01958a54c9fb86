"""Makes the models of this folder and merges them with mergekit 0.1.5, recipe by recipe, into expected/.

    pip install mergekit==0.1.5 && python make.py
"""

import json
import pathlib
import shutil
import subprocess
import tempfile

import torch
from safetensors.torch import save_file

WIDTH, INNER, WORDS = 8, 12, 16
CONFIG = dict(
    architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=WIDTH, intermediate_size=INNER,
    num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, head_dim=WIDTH, vocab_size=WORDS,
    rms_norm_eps=1e-6, max_position_embeddings=64, tie_word_embeddings=False, torch_dtype="float32",
)
LAYER = "model.layers.0."
SHAPES = {"model.embed_tokens.weight": (WORDS, WIDTH), "model.norm.weight": (WIDTH,), "lm_head.weight": (WORDS, WIDTH)}
SHAPES |= {f"{LAYER}self_attn.{name}_proj.weight": (WIDTH, WIDTH) for name in "qkvo"}
SHAPES |= {f"{LAYER}mlp.{name}_proj.weight": (INNER, WIDTH) for name in ("gate", "up")}
SHAPES |= {f"{LAYER}mlp.down_proj.weight": (WIDTH, INNER)}
SHAPES |= {f"{LAYER}{name}_layernorm.weight": (WIDTH,) for name in ("input", "post_attention")}


def write(name, tensors):
    folder = pathlib.Path(name)
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


generator = torch.Generator().manual_seed(2)
base = {key: torch.randn(shape, generator=generator) for key, shape in SHAPES.items()}
write("base", base)
for expert in range(3):
    moved = {key: t + 0.1 * torch.randn(t.shape, generator=generator) for key, t in base.items()}
    write(f"expert{expert}", moved)
# Models that point elsewhere, of different lengths; one has a tensor of zeros.
for stranger in range(3):
    model = {key: (stranger + 1) * torch.randn(shape, generator=generator) for key, shape in SHAPES.items()}
    if stranger == 1:
        model["model.norm.weight"].zero_()
    write(f"stranger{stranger}", model)

pathlib.Path("expected").mkdir(exist_ok=True)
for recipe in sorted(pathlib.Path().glob("*.yaml")):
    with tempfile.TemporaryDirectory() as out:
        subprocess.run(["mergekit-yaml", recipe, out, "--quiet", "--no-write-model-card"], check=True)
        shutil.copy(pathlib.Path(out) / "model.safetensors", f"expected/{recipe.stem}.safetensors")
