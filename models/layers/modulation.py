"""Adaptive layer norm: vectors of the condition, and the norm that they shift and scale.

Letters: N batch, H and W sides, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Modulation(nn.Module):
    """`count` vectors from the condition, Linear(SiLU(c)): (N, D) -> (count, N, D or out_width)."""

    def __init__(self, width: int, count: int, out_width: int | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(width, count * (out_width or width))
        self.count = count

    def forward(self, c: Tensor) -> Tensor:
        vectors = self.linear(F.silu(c))  # (N, count * D)
        return vectors.unflatten(1, (self.count, -1)).transpose(0, 1)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of an image, without affine weights: (N, D, H, W) -> (N, D, H, W)."""

    eps = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)  # (N, H, W, D)
        return F.layer_norm(x, x.shape[-1:], eps=self.eps).permute(0, 3, 1, 2)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x * (1 + scale) + shift, as a product and a sum.

    `modulate_addcmul` is the same function. Both exist because the releases differ: addcmul reads x once
    less, and torchprofile counts the product but not addcmul, which shows in the published GMACs.
    """
    return x * (1 + scale) + shift


def modulate_addcmul(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x * (1 + scale) + shift in one operator, as in FCDM's blocks."""
    return torch.addcmul(shift, x, 1 + scale)
