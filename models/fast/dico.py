"""DiCo's block: channel attention on the way into the last product, gates and residuals in one operator."""

import torch
from torch import Tensor, nn

from models import dico
from models.fast.layout import expanded, image, pixels
from models.kernels.norm_modulate import norm_modulate
from models.kernels.packed import convolution, linear


class Block(dico.Block):
    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)  # each (N, D)
        x = pixels(x)
        h = self.mixer(image(norm_modulate(x, shift1, scale1, self.norm1.eps)))
        x = torch.addcmul(x, expanded(gate1), pixels(h))
        h = norm_modulate(x, shift2, scale2, self.norm2.eps)  # (N, H, W, D)
        if isinstance(self.activation, nn.GELU):
            h = image(linear(h, self.expand.weight, self.expand.bias, gelu="none"))
        else:
            h = self.activation(self.expand(image(h)))
        return image(torch.addcmul(x, expanded(gate2), pixels(self.contract(h))))


class ConvModule(dico.ConvModule):
    def forward(self, h: Tensor) -> Tensor:
        if not isinstance(self.activation, nn.GELU):
            return super().forward(h)
        h = convolution(self.depthwise, self.mix_in(h), gelu=True)
        return self.mix_out(self.attention(h))
