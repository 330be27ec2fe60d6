"""The diffusion process of the DiT family: iDDPM's schedule, training loss and reverse step.

Source: A. Nichol and P. Dhariwal, 2021, arXiv:2102.09672 (learned variance, hybrid loss, respacing), on
J. Ho et al., 2020, arXiv:2006.11239, with the linear schedule of 1000 steps. The network predicts the noise.
Only sampled pixels are clipped. A test compares every quantity with the released process
(baselines/golden/diffusion.npz).
As in the release, coefficients are computed in float64 and rounded to float32 before they multiply a sample.
Letters: N batch, C H W of the samples, S steps of the schedule.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.task import Prediction

Model = Callable[[Tensor, Tensor, Tensor], Tensor]  # x (N, C, H, W), t (N,), y (N,) -> (N, 2C or C, H, W)

STEPS = 1000
BETAS = (1e-4, 0.02)  # beta of the first and the last step
HALF_BIN = 1 / 255  # half the distance between pixel values 0 to 255 scaled to [-1, 1]
MIN_PROBABILITY = 1e-12  # lower bound of a bin's probability, before its logarithm is taken
OUTERMOST = 0.999  # |x| above it lies in the first or the last bin, which extend to infinity

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Coefficients:
    """The coefficients of every step, each (S,) float32."""

    signal: Tensor  # sqrt(a), with a the product of 1 - beta up to the step
    noise: Tensor  # sqrt(1 - a)
    signal_inverse: Tensor  # sqrt(1 / a)
    noise_inverse: Tensor  # sqrt(1 / a - 1)
    posterior_x0: Tensor  # the posterior's mean is posterior_x0 * x0 + posterior_x * x_t
    posterior_x: Tensor
    posterior_log_variance: Tensor  # at step 0 the value of step 1, as the variance is zero
    log_beta: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Reverse:
    """Parameters of the predicted distribution of x_{t-1}, each (N, C, H, W)."""

    mean: Tensor
    log_variance: Tensor
    x0: Tensor  # predicted data


class Diffusion:
    """The forward and the reverse process over a subset of the 1000 steps, by default all of them.

    Attributes:
        timesteps: the original number of each step, increasing; the network's input t.
        betas, alphas_cumprod: (S,) float64; respacing keeps the level of noise of every step.
    """

    def __init__(self, timesteps: Sequence[int] = range(STEPS)) -> None:
        whole: Values = np.cumprod(1 - np.linspace(*BETAS, STEPS), dtype=np.float64)
        chosen = np.asarray(timesteps, dtype=np.int64)
        self.timesteps = torch.from_numpy(chosen)
        self.alphas_cumprod: Values = whole[chosen]
        before = np.append(1.0, self.alphas_cumprod[:-1])
        self.betas: Values = 1 - self.alphas_cumprod / before
        self._before: Values = before
        self._placed: dict[torch.device, Coefficients] = {}

    def __len__(self) -> int:
        return len(self.betas)

    @cached_property
    def _rounded(self) -> Coefficients:
        a, before, betas = self.alphas_cumprod, self._before, self.betas
        variance = betas * (1 - before) / (1 - a)
        # the first step's posterior variance is 0: use the log variance of the second step, or of beta if
        # there is one step only
        variance[0] = variance[1] if len(variance) > 1 else betas[0]
        values = {
            "signal": np.sqrt(a),
            "noise": np.sqrt(1 - a),
            "signal_inverse": np.sqrt(1 / a),
            "noise_inverse": np.sqrt(1 / a - 1),
            "posterior_x0": betas * np.sqrt(before) / (1 - a),
            "posterior_x": (1 - before) * np.sqrt(1 - betas) / (1 - a),
            "posterior_log_variance": np.log(variance),
            "log_beta": np.log(betas),
        }
        return Coefficients(**{name: torch.from_numpy(value).float() for name, value in values.items()})

    def coefficients(self, device: torch.device) -> Coefficients:
        """The coefficients of all steps on a device; cached by device."""
        if device not in self._placed:
            moved = {
                field.name: getattr(self._rounded, field.name).to(device) for field in fields(Coefficients)
            }
            self._placed[device] = Coefficients(**moved)
        return self._placed[device]

    def q_sample(self, x0: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """Sample q(x_t | x0) for x0 (N, C, H, W) and step (N,), an index into `timesteps`."""
        at = self.coefficients(x0.device)
        return _take(at.signal, step) * x0 + _take(at.noise, step) * noise

    def posterior(self, x0: Tensor, x: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (N, C, H, W) and log variance (N, 1, 1, 1) of q(x_{t-1} | x_t, x0)."""
        at = self.coefficients(x.device)
        mean = _take(at.posterior_x0, step) * x0 + _take(at.posterior_x, step) * x
        return mean, _take(at.posterior_log_variance, step)

    def reverse(self, out: Tensor, x: Tensor, step: Tensor) -> Reverse:
        """The distribution p(x_{t-1} | x_t) from a network's output at x (N, C, H, W).

        Args:
            out: (N, 2C, H, W): the noise and v in [-1, 1], which interpolates between the log posterior
                variance and log beta; or (N, C, H, W): the noise only, for the posterior variance.
            x: the network's input.
            step: (N,) int64, index into `timesteps`.

        Raises:
            ValueError: the output has neither C nor 2C channels.
        """
        eps, v = split(out, x)
        at = self.coefficients(x.device)
        x0 = _take(at.signal_inverse, step) * x - _take(at.noise_inverse, step) * eps
        mean, least = self.posterior(x0, x, step)
        if v is None:
            return Reverse(mean=mean, log_variance=least.to(x.dtype).expand_as(x), x0=x0)
        share = (v + 1) / 2
        return Reverse(mean=mean, log_variance=share * _take(at.log_beta, step) + (1 - share) * least, x0=x0)

    def clipped(self, out: Tensor, x: Tensor, step: Tensor) -> Tensor:
        """The output, as for `reverse`, with the noise for which the predicted data lie in [-1, 1]."""
        eps, v = split(out, x)
        at = self.coefficients(x.device)
        scaled, noise = _take(at.signal_inverse, step) * x, _take(at.noise_inverse, step)
        eps = (scaled - (scaled - noise * eps).clamp(-1, 1)) / noise
        return eps if v is None else torch.cat([eps, v], dim=1)

    def variational(self, out: Tensor, x0: Tensor, x: Tensor, step: Tensor) -> Tensor:
        """The variational bound's term of a step, in bits per dimension (N,).

        The KL divergence of the reverse step from the posterior; at step 0 the negative log likelihood of x0
        on the grid of 255 pixel values.
        """
        mean, log_variance = self.posterior(x0, x, step)
        reverse = self.reverse(out, x, step)
        divergence = gaussian_divergence(mean, log_variance, reverse.mean, reverse.log_variance)
        likelihood = grid_log_likelihood(x0, reverse.mean, reverse.log_variance / 2)
        nats = torch.where(step == 0, -_mean(likelihood), _mean(divergence))
        return nats / math.log(2)


class IDDPM:
    """The objective of the DiT family: L_simple on the noise plus L_vlb for the variance.

    A network without channels for the variance (Task.learn_sigma=False) is trained on L_simple alone.
    """

    name = "iddpm"
    prediction: Prediction = "epsilon"

    def __init__(self) -> None:
        self.diffusion = Diffusion()

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw timesteps (n,), int64, uniform from 0 to 999."""
        return torch.randint(STEPS, (n,), generator=generator, device=generator.device)

    def quantile(self, share: Tensor) -> Tensor:
        return (STEPS * share).long()

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return self.diffusion.q_sample(x0, t, noise)

    def terms(
        self, model: Model, x0: Tensor, t: Tensor, y: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """The squared error and the variational term (N,); the second is None without a learned variance.

        The predicted noise is detached in the variational term, which trains the variance only.
        """
        x = self.q_sample(x0, t, noise)
        eps, v = split(model(x, t, y), x)
        squared = _mean((noise - eps) ** 2)
        if v is None:
            return squared, None
        return squared, self.diffusion.variational(torch.cat([eps.detach(), v], dim=1), x0, x, t)

    def losses(self, model: Model, x0: Tensor, t: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        """L_simple + L_vlb, the second in bits per dimension and not rescaled."""
        squared, variational = self.terms(model, x0, t, y, noise)
        return squared if variational is None else squared + variational

    def noise_level(self, t: Tensor) -> Tensor:
        return t / STEPS

    def at_level(self, level: int) -> float:
        return level

    def noise(self, out: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return split(out, x)[0]


def respaced(steps: int) -> tuple[int, ...]:
    """Choose 2 to 1000 timesteps, the first and the last included, evenly spaced before rounding."""
    stride = (STEPS - 1) / (steps - 1)
    return tuple(round(i * stride) for i in range(steps))


def split(out: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Split an output into noise and v of the variance or None, each (N, C, H, W). ValueError: other C."""
    channels, out = x.shape[1], out.to(x.dtype)
    if out.shape[1] == channels:
        return out, None
    if out.shape[1] == 2 * channels:
        return out[:, :channels], out[:, channels:]
    raise ValueError(f"output: must have {channels} or {2 * channels} channels for x, got {out.shape[1]}")


def gaussian_divergence(
    mean: Tensor, log_variance: Tensor, of_mean: Tensor, of_log_variance: Tensor
) -> Tensor:
    """KL divergence KL(first || second) of two normal distributions, elementwise, in nats."""
    squared = (mean - of_mean) ** 2 * torch.exp(-of_log_variance)
    return (of_log_variance - log_variance + torch.exp(log_variance - of_log_variance) + squared - 1) / 2


def grid_log_likelihood(x0: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log probability of x0's bin of 255 in [-1, 1], by the release's tanh approximation; elementwise."""
    centred, per_std = x0 - mean, torch.exp(-log_std)
    above = _normal_cdf((centred + HALF_BIN) * per_std)
    below = _normal_cdf((centred - HALF_BIN) * per_std)
    probability = torch.where(x0 < -OUTERMOST, above, torch.where(x0 > OUTERMOST, 1 - below, above - below))
    return torch.log(probability.clamp(min=MIN_PROBABILITY))


def _normal_cdf(x: Tensor) -> Tensor:
    return (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def _take(values: Tensor, step: Tensor) -> Tensor:
    """(S,), (N,) -> (N, 1, 1, 1)."""
    return values[step][:, None, None, None]


def _mean(values: Tensor) -> Tensor:
    """(N, C, H, W) -> (N,)."""
    return values.flatten(1).mean(1)
