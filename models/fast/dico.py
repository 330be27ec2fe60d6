"""DiCo's block: GELU behind two convolutions, channel attention, gates and residuals in their neighbours."""

import torch
from torch import Tensor, nn

from models import dico
from models.fast.layout import expanded, image, pixels
from models.fast.packed import weights
from models.kernels.fused.depthwise_gelu import depthwise_gelu
from models.kernels.fused.product import gelu_linear, scaled_product
from models.kernels.norm_modulate import norm_modulate
from models.kernels.packed import linear
from models.layers.unet import ChannelAttention


class Block(dico.Block):
    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)  # each (N, D)
        gelu = isinstance(self.activation, nn.GELU)
        x = pixels(x)  # (N, H, W, D)
        h = norm_modulate(x, shift1, scale1, self.norm1.eps)
        if gelu and isinstance(self.mixer, dico.ConvModule):
            x = _add_mixed(self.mixer, h, gate1, x)
        else:
            x = torch.addcmul(x, expanded(gate1), pixels(self.mixer(image(h))))
        h = norm_modulate(x, shift2, scale2, self.norm2.eps)
        expand, contract = weights(self.expand), weights(self.contract)
        # (N, H, W, mlp_ratio * D)
        h = gelu_linear(h, *expand) if gelu else self.activation(linear(h, *expand))
        return image(scaled_product(h, *contract, gate2, x))


def _add_mixed(mixer: dico.ConvModule, h: Tensor, gate: Tensor, x: Tensor) -> Tensor:
    """x + gate * mixer(h), where the mixer has GELU: (N, H, W, D), (N, D), (N, H, W, D) -> (N, H, W, D)."""
    h, mean = depthwise_gelu(linear(h, *weights(mixer.mix_in)), *weights(mixer.depthwise))
    share = None
    if isinstance(mixer.attention, ChannelAttention):
        share = torch.sigmoid(linear(mean, *weights(mixer.attention.mix)))  # (N, D)
    else:
        h = pixels(mixer.attention(image(h)))
    return scaled_product(h, *weights(mixer.mix_out), gate, x, share)
