"""Attention and rotary embeddings."""

import torch


def attention(q, k, v, bias=None):
    """softmax(q kᵀ / √width + bias) v; everything is batch × heads × rows × width."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return torch.softmax(scores if bias is None else scores + bias.to(scores.dtype), dim=-1) @ v


def rotary_table(positions, width, theta):
    """cos and sin, … × rows × width, of positions … × rows: every frequency twice, half a row apart."""
    frequencies = theta ** (-torch.arange(0, width, 2, dtype=torch.float32, device=positions.device) / width)
    angles = positions.float().unsqueeze(-1) * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate_halves(x, cos, sin):
    """Pairs are half a row apart: Qwen2's form."""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin


def rotate_neighbours(x, cos, sin):
    """Pairs are neighbours, their angles those of `rotary_table`: the published action expert's form."""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    turned = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
    return x * cos + turned * sin


def split_heads(x, heads):
    """Batch × rows × (heads · width) → batch × heads × rows × width."""
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def join_heads(x):
    """The way back."""
    return x.transpose(1, 2).flatten(2)
