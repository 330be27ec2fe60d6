"""The objective of denoisers: EDM, with the lognormal noise levels of EDM2.

Sources: T. Karras et al., 2022, arXiv:2206.00364 (preconditioning, loss weight, Table 1); 2024,
arXiv:2312.02696 (EDM2's noise levels for latents). The input is x + sigma z, for data x and standard normal
z. The network returns the data, inside the scales of `models.layers.preconditioning`, which take the data's
standard deviation to be 0.5. Data are used as they are given.

Left out: EDM2's uncertainty of a noise level, a part of that network alone, and HDiT's own weight and
schedule of noise (soft-min-SNR, interpolated cosine): one loss compares all networks.
"""

import torch
from torch import Tensor

from bench.training.losses.diffusion import Model
from bench.training.losses.flow import predicted
from models.layers.preconditioning import INVERSE_STD
from models.task import Prediction

LOG_MEAN, LOG_STD = -0.4, 1.0  # of the natural logarithm of sigma


class EDM:
    """The squared error of the denoised data, weighted to unit variance of the network's inner target."""

    name = "edm"
    prediction: Prediction = "denoised"

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw noise levels sigma (n,), float32, lognormal."""
        normal = torch.randn(n, generator=generator, device=generator.device)
        return torch.exp(LOG_MEAN + LOG_STD * normal)

    def quantile(self, share: Tensor) -> Tensor:
        return torch.exp(LOG_MEAN + LOG_STD * torch.special.ndtri(share.double())).float()

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return x0 + t[:, None, None, None] * noise

    def losses(self, model: Model, x0: Tensor, t: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        x = self.q_sample(x0, t, noise)
        error = predicted(model(x, t, y), x) - x0
        return self.weight(t) * (error**2).flatten(1).mean(1)

    def weight(self, t: Tensor) -> Tensor:
        """(sigma^2 + 0.25) / (0.5 sigma)^2: (N,) -> (N,)"""
        return (t**2 + INVERSE_STD**-2) * INVERSE_STD**2 / t**2

    def noise_level(self, t: Tensor) -> Tensor:
        """The share of noise levels below sigma."""
        return torch.special.ndtr((t.double().log() - LOG_MEAN) / LOG_STD).float()

    def at_level(self, level: int) -> float:
        return float(self.quantile(torch.tensor((level + 0.5) / 1000)))

    def noise(self, out: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return (x - predicted(out, x)) / t[:, None, None, None]
