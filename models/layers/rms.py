"""Norms by the root mean square, and the gated feed-forward that comes with them.

Letters: N batch, D width of the last dimension.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-6


def rms_normalise(x: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + 1e-6) over the last dimension, computed in float32 or wider: (..., D) -> (..., D).

    It is written out: torchprofile has no rule for the fused operator and counts 2 products per element here.
    """
    wide = x if x.dtype == torch.float64 else x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPS)).type_as(x)


class RMSNorm(nn.Module):
    """`rms_normalise`, then a trained weight per channel: (..., D) -> (..., D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return rms_normalise(x) * self.weight


class SwiGLU(nn.Module):
    """SiLU of one projection times another, then a projection back, without biases: (..., D) -> (..., D)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.value = nn.Linear(width, hidden, bias=False)
        self.contract = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(F.silu(self.gate(x)) * self.value(x))


class PackedSwiGLU(nn.Module):
    """`SwiGLU` whose two projections are one matrix: (..., D) -> (..., D).

    Args:
        width: D.
        hidden: inner width.
        dropout: of the inner channels, in training.
        bias: whether the projections have one.
    """

    def __init__(self, width: int, hidden: int, dropout: float = 0.0, *, bias: bool = True) -> None:
        super().__init__()
        self.expand = nn.Linear(width, 2 * hidden, bias=bias)
        self.dropout = nn.Dropout(dropout)
        self.contract = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.expand(x).chunk(2, dim=-1)
        return self.contract(self.dropout(F.silu(gate) * value))
