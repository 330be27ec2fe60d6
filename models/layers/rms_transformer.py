"""Transformer blocks of RMS norms, rotary attention and a gated feed-forward, modulated and gated as DiT's.

Letters: N batch, T tokens, D width, d channels of a head.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from models.arithmetic import Terms
from models.family import Renames
from models.layers.modulation import modulate
from models.layers.precision import widest, without_autocast
from models.layers.rms import RMSNorm

Rotate = Callable[[Tensor, Tensor, Tensor], Tensor]  # (N, heads, T, d), cosines, sines -> (N, heads, T, d)
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # q, k and v (N, heads, T, d) -> (N, heads, T, d)


def attend_fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def attend_in_float32(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention step by step, with logits and softmax in float32 or wider."""
    wide = widest(q)
    with without_autocast(q):
        logits = q.to(wide) @ k.to(wide).transpose(-2, -1) * q.shape[-1] ** -0.5
    return logits.softmax(-1).type_as(v) @ v


class RotaryAttention(nn.Module):
    """Self-attention whose queries and keys are turned by their position: (N, T, D), tables -> (N, T, D).

    Args:
        width: D.
        heads: of d = D / heads channels.
        rotate: see `models.layers.rotary`.
        qkv_bias: whether queries, keys and values have a bias.
        qk_norm: whether queries and keys are normed over d before they turn.
        attend: attention of the turned queries and keys.
        dropout: of the output, in training.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        rotate: Rotate,
        *,
        qkv_bias: bool = True,
        qk_norm: bool = True,
        attend: Attend = attend_fused,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads, self.rotate, self.attend = heads, rotate, attend
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.q_norm = RMSNorm(width // heads) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(width // heads) if qk_norm else nn.Identity()
        self.project = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (N, heads, T, d)
        q = self.rotate(self.q_norm(q), cosines, sines)
        k = self.rotate(self.k_norm(k), cosines, sines)
        x = self.attend(q, k, v).transpose(1, 2).flatten(2)
        return self.dropout(self.project(x))


class RMSBlock(nn.Module):
    """Attention, then a feed-forward, each after a norm that the condition modulates, each gated by it.

    (N, T, D), a condition (N, 1 or T, D) after its activation, cosines, sines -> (N, T, D)
    """

    def __init__(self, width: int, attention: nn.Module, feedforward: nn.Module) -> None:
        super().__init__()
        self.norm1 = RMSNorm(width)
        self.attention = attention
        self.norm2 = RMSNorm(width)
        self.feedforward = feedforward
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, c: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c).chunk(6, dim=-1)
        x = x + gate1 * self.attention(modulate(self.norm1(x), shift1, scale1), cosines, sines)
        return x + gate2 * self.feedforward(modulate(self.norm2(x), shift2, scale2))


def count_block(
    terms: Terms,
    tokens: int,
    width: int,
    hidden: int,
    heads: int,
    *,
    qk_norm: bool = True,
    turning: int = 4,
    conditions: int = 1,
    fused: bool = True,
) -> None:
    """Add the MACs of an `RMSBlock`.

    Args:
        terms: to add to.
        tokens: T.
        width: D.
        hidden: inner width of the feed-forward.
        heads: of the attention.
        qk_norm: whether queries and keys are normed.
        turning: products per token and channel that turn queries and keys: 4 by `turn`, 1 by `turn_complex`.
        conditions: 1, or T.
        fused: whether attention is one operator.
    """
    terms.linear("adaLN", conditions, width, 6 * width)
    for _ in range(2):
        terms.rms_norm(tokens, width)
        terms.modulate(tokens, width)
        terms.gate(tokens, width)
    terms.attention_projections(tokens, width)
    if qk_norm:
        terms.rms_norm(2 * tokens * heads, width // heads)
    terms.elementwise("rotation", turning * tokens * width)
    if fused:
        terms.fused_attention(tokens, tokens, width)
    else:
        terms.attention(tokens, tokens, width)
        terms.elementwise("scaling of logits", heads * tokens**2)
    terms.gated_feed_forward(tokens, width, hidden)


RMS_BLOCK_KEYS: Renames = (  # of `RMSBlock` and `PackedSwiGLU` in the releases
    (r"\.attention\.qkv\.", ".attn.qkv."),
    (r"\.attention\.([qk]_norm)\.", r".attn.\1."),
    (r"\.attention\.project\.", ".attn.proj."),
    (r"\.feedforward\.expand\.", ".mlp.w12."),
    (r"\.feedforward\.contract\.", ".mlp.w3."),
)
