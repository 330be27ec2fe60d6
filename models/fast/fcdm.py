"""FCDM's block as three passes over memory: depthwise with norm, and two products."""

import torch
from torch import Tensor, nn

from models import fcdm
from models.fast.layout import expanded, image, pixels
from models.fast.packed import weights
from models.kernels.fused.depthwise_norm import depthwise_norm
from models.kernels.fused.product import gelu_product, scaled_product
from models.kernels.norm_modulate import norm_modulate


class Block(fcdm.Block):
    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(c)  # each (N, D)
        if isinstance(self.mixer, nn.Conv2d):
            weight, bias = weights(self.mixer)
            h = depthwise_norm(pixels(x), weight, bias, shift, scale, self.norm.eps)  # (N, H, W, D)
        else:
            h = norm_modulate(pixels(self.mixer(x)), shift, scale, self.norm.eps)
        h, squares = gelu_product(h, *weights(self.expand))  # (N, H, W, mlp_ratio * D)
        if isinstance(self.response, fcdm.GlobalResponseNorm):
            share, beta = response(self.response, squares)
            return image(scaled_product(h, *weights(self.contract), gate, pixels(x), share, beta))
        h = pixels(self.contract(self.response(image(h))))
        return image(torch.addcmul(pixels(x), expanded(gate), h))


def response(norm: fcdm.GlobalResponseNorm, squares: Tensor) -> tuple[Tensor, Tensor]:
    """The response norm of images with these sums of squares (N, D), as a scale (N, D) and a shift (D,)."""
    size = squares.sqrt()
    share = size / (size.mean(dim=1, keepdim=True) + norm.eps)
    gamma, beta = norm.gamma.flatten(), norm.beta.flatten()
    return (1 + gamma * share).to(gamma.dtype), beta
