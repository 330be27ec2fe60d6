"""FCDM's block on channels-last images: the response norm in two passes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from models import fcdm
from models.fast.layout import expanded, image, pixels, rewritable
from models.fast.unet import norm_modulate


class Block(fcdm.Block):
    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(c)  # each (N, D)
        h = norm_modulate(pixels(self.mixer(x)), shift, scale, self.norm.eps)
        h = F.gelu(self.expand(image(h)))  # (N, mlp_ratio * D, H, W)
        if isinstance(self.response, fcdm.GlobalResponseNorm):
            h = image(_respond(self.response, pixels(h)))
        else:
            h = self.response(h)
        return image(torch.addcmul(pixels(x), expanded(gate), pixels(self.contract(h))))


def _respond(norm: fcdm.GlobalResponseNorm, h: Tensor) -> Tensor:
    """The response norm, (N, H, W, D) -> (N, H, W, D); without gradients, h is overwritten."""
    gamma, beta = norm.gamma.flatten(), norm.beta.flatten()
    response = h.square().sum(dim=(1, 2)).sqrt()  # (N, D)
    scale = expanded(1 + gamma * (response / (response.mean(dim=1, keepdim=True) + norm.eps)))
    if rewritable(h, scale, beta):
        return torch.addcmul(beta, h, scale, out=h)
    return torch.addcmul(beta, h, scale)
