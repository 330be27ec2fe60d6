"""The U-Net of FCDM, DiCo and U-DiT and its head: no concatenation, 1x1 convolutions as products."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.fast.layout import image, pixels
from models.kernels.fused.product import shuffled_product
from models.kernels.norm_modulate import norm_modulate
from models.kernels.packed import linear
from models.layers import unet


class UNet(unet.UNet):
    def forward(self, x: Tensor, conditions: Sequence[Tensor]) -> Tensor:
        skip1 = unet.run_blocks(self.encoder1, x, conditions[0])  # (N, D, H, W)
        skip2 = unet.run_blocks(self.encoder2, self.down1(skip1), conditions[1])  # (N, 2D, H/2, W/2)
        x = unet.run_blocks(self.middle, self.down2(skip2), conditions[2])  # (N, 4D, H/4, W/4)
        x = unet.run_blocks(self.decoder2, _join(self.up2, x, skip2, self.fuse2), conditions[3])
        return unet.run_blocks(self.decoder1, _join(self.up1, x, skip1, self.fuse1), conditions[4])


def _join(up: unet.Up, x: Tensor, skip: Tensor, fuse: nn.Conv2d) -> Tensor:
    """Join an upsampled image with its skip: (N, D, H, W), (N, S, 2H, 2W) -> (N, D_out, 2H, 2W)."""
    assert fuse.bias is not None
    return image(shuffled_product(pixels(up.conv(x)), pixels(skip), fuse.weight, fuse.bias))


class ChannelAttention(unet.ChannelAttention):
    def forward(self, h: Tensor) -> Tensor:
        share = linear(pixels(h).mean(dim=(1, 2)), self.mix.weight, self.mix.bias)  # (N, D)
        return h * torch.sigmoid(share)[..., None, None]


class Head(unet.Head):
    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.modulation(c)  # each (N, D)
        return self.conv(image(norm_modulate(pixels(x), shift, scale, self.norm.eps)))
