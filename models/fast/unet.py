"""The U-Net of FCDM, DiCo and U-DiT and its head: no concatenation, 1x1 convolutions as products."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.fast.layout import expanded, image, pixels
from models.fast.packed import linear
from models.layers import unet


def norm_modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """Layer norm over channels, then shift and scale: (N, H, W, D), (N, D), (N, D) -> (N, H, W, D)."""
    if len(x) == 1:  # the condition's vectors are the norm's affine weights
        return F.layer_norm(x, x.shape[-1:], 1 + scale[0], shift[0], eps)
    normed = F.layer_norm(x, x.shape[-1:], eps=eps)
    return torch.addcmul(expanded(shift), normed, 1 + expanded(scale))


class UNet(unet.UNet):
    def forward(self, x: Tensor, conditions: Sequence[Tensor]) -> Tensor:
        skip1 = unet.run_blocks(self.encoder1, x, conditions[0])  # (N, D, H, W)
        skip2 = unet.run_blocks(self.encoder2, self.down1(skip1), conditions[1])  # (N, 2D, H/2, W/2)
        x = unet.run_blocks(self.middle, self.down2(skip2), conditions[2])  # (N, 4D, H/4, W/4)
        x = unet.run_blocks(self.decoder2, _fuse(self.fuse2, self.up2(x), skip2), conditions[3])
        return unet.run_blocks(self.decoder1, _fuse(self.fuse1, self.up1(x), skip1), conditions[4])


def _fuse(layer: nn.Conv2d, x: Tensor, skip: Tensor) -> Tensor:
    """A 1x1 convolution of two images' channels, as a sum of two products: no concatenation."""
    weight = layer.weight.flatten(1)
    width = x.shape[1]
    out = F.linear(pixels(x), weight[:, :width], layer.bias)
    return image(out + F.linear(pixels(skip), weight[:, width:]))


class ChannelAttention(unet.ChannelAttention):
    def forward(self, h: Tensor) -> Tensor:
        share = linear(pixels(h).mean(dim=(1, 2)), self.mix.weight, self.mix.bias)  # (N, D)
        return h * torch.sigmoid(share)[..., None, None]


class Head(unet.Head):
    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.modulation(c)  # each (N, D)
        return self.conv(image(norm_modulate(pixels(x), shift, scale, self.norm.eps)))
