"""Flow matching with a linear path: the network predicts the velocity, as in SiT, or the data, as in JiT.

Sources: N. Ma et al., 2024, arXiv:2401.08740; arXiv:2511.13720 (JiT). t runs from 0 (noise z) to 1 (data x):
x_t = t x + (1 - t) z. A velocity is dx_t/dt = x - z. The network's timestep input is t itself, in [0, 1].
"""

import torch
from torch import Tensor

from bench.training.losses.diffusion import Model
from models.task import Prediction

LOGIT_MEAN, LOGIT_STD = -0.8, 0.8  # of JiT's timesteps
LEAST_TO_GO = 0.05  # least 1 - t of a velocity from predicted data


class Flow:
    """The mean squared error of the velocity, with t uniform in [0, 1].

    Nothing waits for the device. The network's output may have another precision than x0, as under autocast.
    """

    name = "flow"
    prediction: Prediction = "velocity"

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw timesteps (n,), float32, uniform in [0, 1)."""
        return torch.rand(n, generator=generator, device=generator.device)

    def quantile(self, share: Tensor) -> Tensor:
        """Quantiles (n,) of the distribution of `draw` at probabilities (n,) in [0, 1)."""
        return share.float()

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Sample x_t (N, C, H, W) from x0 and noise."""
        share = t[:, None, None, None]
        return share * x0 + (1 - share) * noise

    def losses(self, model: Model, x0: Tensor, t: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        """The training loss of every sample (N,), differentiable, in the precision of x0."""
        x = self.q_sample(x0, t, noise)
        error = self.velocity(model(x, t, y), x, t) - self.velocity(self.target(x0, noise), x, t)
        return (error**2).flatten(1).mean(1)

    def target(self, x0: Tensor, noise: Tensor) -> Tensor:
        """What the network should predict, (N, C, H, W)."""
        return x0 - noise

    def velocity(self, out: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The velocity (N, C, H, W) of a network's output at x and t (N,)."""
        return predicted(out, x)

    def noise_level(self, t: Tensor) -> Tensor:
        """Map timesteps to their place (N,) between 0 (data) and 1 (noise), uniform for those of `draw`."""
        return 1 - t

    def at_level(self, level: int) -> float:
        return 1 - level / 1000

    def noise(self, out: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """x - t v for a velocity v."""
        return x - t[:, None, None, None] * self.velocity(out, x, t)


class FlowX(Flow):
    """The mean squared error of the velocity that follows from predicted data, with JiT's timesteps.

    The velocity is (data - x_t) / (1 - t), and 1 - t is at least 0.05. The logit of t is normal with mean
    -0.8 and deviation 0.8.
    """

    name = "flow-x"
    prediction: Prediction = "x"

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw timesteps (n,), float32, in (0, 1)."""
        normal = torch.randn(n, generator=generator, device=generator.device)
        return torch.sigmoid(LOGIT_MEAN + LOGIT_STD * normal)

    def quantile(self, share: Tensor) -> Tensor:
        return torch.sigmoid(LOGIT_MEAN + LOGIT_STD * torch.special.ndtri(share.double())).float()

    def noise_level(self, t: Tensor) -> Tensor:
        """The share of timesteps with less noise: few have the least or the most noise."""
        return torch.special.ndtr((LOGIT_MEAN - torch.logit(t.double())) / LOGIT_STD).float()

    def target(self, x0: Tensor, noise: Tensor) -> Tensor:
        return x0

    def velocity(self, out: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return (predicted(out, x) - x) / (1 - t).clamp(min=LEAST_TO_GO)[:, None, None, None]


def predicted(out: Tensor, x: Tensor) -> Tensor:
    """The prediction (N, C, H, W) in a network's output, in the precision of x.

    Released networks have C extra channels, which their samplers and this function ignore. ValueError:
    neither C nor 2C channels.
    """
    channels = x.shape[1]
    if out.shape[1] not in (channels, 2 * channels):
        raise ValueError(f"output: must have {channels} channels for x, or twice as many, got {out.shape[1]}")
    return out[:, :channels].to(x.dtype)
