"""Transformer blocks: norm with modulation, and gate with residual, are one operator each."""

import torch
from torch import Tensor

from models.kernels.norm_modulate import norm_modulate
from models.kernels.packed import linear
from models.layers import transformer


def _norm_modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """(N, T, D), (N, D), (N, D) -> (N, T, D): tokens are the pixels of an image one pixel high."""
    return norm_modulate(x[:, None], shift, scale, eps)[:, 0]


def forward(block: transformer.TransformerBlock, x: Tensor, c: Tensor) -> Tensor:
    """The forward pass of `transformer.TransformerBlock`: (N, T, D), (N, D) -> (N, T, D)."""
    shift1, scale1, gate1, shift2, scale2, gate2 = block.modulation(c)  # each (N, D)
    h = block.attention(_norm_modulate(x, shift1, scale1, block.norm1.eps))
    x = torch.addcmul(x, gate1[:, None], h)
    h = _norm_modulate(x, shift2, scale2, block.norm2.eps)
    h = linear(h, block.expand.weight, block.expand.bias, gelu="tanh")
    return torch.addcmul(x, gate2[:, None], block.contract(h))


class TransformerBlock(transformer.TransformerBlock):
    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return forward(self, x, c)


class SkipTransformerBlock(transformer.SkipTransformerBlock):
    def forward(self, x: Tensor, skip: Tensor, c: Tensor) -> Tensor:  # type: ignore[override] # one input more
        return forward(self, self.join(torch.cat([x, skip], dim=-1)), c)
