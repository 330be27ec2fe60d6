"""DiC's block: norm, modulation and GELU, and gate and residual, in one operator each."""

import torch
from torch import Tensor, nn

from models import dic
from models.fast.layout import expanded, image, pixels
from models.kernels.fused.group_norm_gelu import group_norm_gelu


class Block(dic.Block):
    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        gate, scale, shift = self.modulation(c)  # each (N, D)
        x = pixels(x)  # (N, H, W, D_in): a sum keeps the layout of its first term
        h = self.conv0(image(_norm_gelu(self.norm0, x)))
        h = self.conv1(image(_norm_gelu(self.norm1, pixels(h), shift, scale)))
        return image(torch.addcmul(pixels(self.skip(image(x))), expanded(gate), pixels(h)))


def _norm_gelu(
    norm: nn.GroupNorm, x: Tensor, shift: Tensor | None = None, scale: Tensor | None = None
) -> Tensor:
    return group_norm_gelu(x, norm.weight, norm.bias, shift, scale, norm.num_groups, norm.eps)
