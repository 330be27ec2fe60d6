"""DiCo's block: channel attention on the way into the last product, gates and residuals in one operator."""

import torch
from torch import Tensor

from models import dico
from models.fast.layout import expanded, image, pixels
from models.kernels.norm_modulate import norm_modulate


class Block(dico.Block):
    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)  # each (N, D)
        x = pixels(x)
        h = self.mixer(image(norm_modulate(x, shift1, scale1, self.norm1.eps)))
        x = torch.addcmul(x, expanded(gate1), pixels(h))
        h = self.expand(image(norm_modulate(x, shift2, scale2, self.norm2.eps)))
        h = self.contract(self.activation(h))
        return image(torch.addcmul(x, expanded(gate2), pixels(h)))
