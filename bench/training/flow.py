"""Flow matching with the linear path and velocity prediction of SiT.

Source: N. Ma et al., 2024, arXiv:2401.08740. t runs from 0 (noise z) to 1 (data x): x_t = t x + (1 - t) z,
and the network predicts dx_t/dt = x - z. Its timestep input is t itself, in [0, 1].
"""

import torch
from torch import Tensor

from bench.training.objective import Model


class Flow:
    """The mean squared error of the velocity, with t uniform in [0, 1]."""

    name = "flow"
    learn_sigma = False

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw timesteps (n,), float32, uniform in [0, 1)."""
        return torch.rand(n, generator=generator, device=generator.device)

    def quantile(self, share: Tensor) -> Tensor:
        return share.float()

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        share = t[:, None, None, None]
        return share * x0 + (1 - share) * noise

    def losses(self, model: Model, x0: Tensor, t: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        x = self.q_sample(x0, t, noise)
        error = velocity(model(x, t, y), x) - (x0 - noise)
        return (error**2).flatten(1).mean(1)

    def noise_level(self, t: Tensor) -> Tensor:
        return 1 - t


def velocity(out: Tensor, x: Tensor) -> Tensor:
    """The velocity (N, C, H, W) in a network's output, in the precision of x.

    Released networks have C extra channels, which their samplers and this function ignore.

    Raises:
        ValueError: neither C nor 2C channels.
    """
    channels = x.shape[1]
    if out.shape[1] not in (channels, 2 * channels):
        raise ValueError(f"output: must have {channels} channels for x, or twice as many, got {out.shape[1]}")
    return out[:, :channels].to(x.dtype)
