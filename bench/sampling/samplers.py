"""Samplers: ancestral and DDIM for iDDPM; Euler, Heun and the SDE for flow matching; Heun's for denoisers.

Those of flow matching are given velocities, whatever the network predicts: see `Flow.velocity`.

Sources: A. Nichol and P. Dhariwal, 2021, arXiv:2102.09672 (ancestral, respaced); J. Song et al., 2021,
arXiv:2010.02502 (DDIM, without noise); N. Ma et al., 2024, arXiv:2401.08740 (flow: the ODE, and the SDE by
Euler-Maruyama); T. Karras et al., 2022, arXiv:2206.00364 (denoisers). Samples keep the precision of the
start; the network's output may have another, as under autocast. No step waits for the device.
"""

import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from bench.training.losses.diffusion import STEPS, Diffusion, Model, respaced, split
from bench.training.losses.flow import predicted
from models.guidance import guide

Predict = Callable[[Tensor, Tensor], Tensor]  # x (N, C, H, W), t (N,) -> the network's output
Noise = Callable[[int], Tensor]  # step number, from 0 -> standard normal (N, C, H, W)

LAST_STEP = 0.04  # length of the SDE's last step, which has no noise
SIGMAS, RHO = (80.0, 0.002), 7  # noise levels of a denoiser's first and last step, and their spacing
AHEAD = 16  # steps whose noise is drawn at once for an image, limited by
AHEAD_BYTES = 2**20


def ancestral(predict: Predict, x: Tensor, noise: Noise, steps: int) -> Tensor:
    """Sample every reverse step of the respaced iDDPM process; the last step returns its mean."""
    diffusion = Diffusion(respaced(steps))
    timesteps, places = _on(diffusion, x)
    for i in reversed(range(steps)):
        reverse = diffusion.reverse(predict(x, timesteps[i]), x, places[i])
        x = reverse.mean
        if i:
            x = x + torch.exp(reverse.log_variance / 2) * noise(steps - 1 - i)
    return x


def ddim(predict: Predict, x: Tensor, noise: Noise, steps: int) -> Tensor:
    """DDIM with eta = 0, Eq. 12 of arXiv:2010.02502."""
    diffusion = Diffusion(respaced(steps))
    timesteps, places = _on(diffusion, x)
    for i in reversed(range(steps)):
        out = predict(x, timesteps[i])
        x0 = diffusion.reverse(out, x, places[i]).x0
        a = float(diffusion.alphas_cumprod[i - 1]) if i else 1.0
        x = math.sqrt(a) * x0 + math.sqrt(1 - a) * split(out, x)[0]
    return x


def euler(predict: Predict, x: Tensor, noise: Noise, steps: int) -> Tensor:
    """Euler's method from t = 0 to 1 in equal steps."""
    for k in range(steps):
        x = x + predicted(predict(x, _time(k / steps, x)), x) / steps
    return x


def heun(predict: Predict, x: Tensor, noise: Noise, steps: int, *, last_euler: bool = False) -> Tensor:
    """Heun's method: Euler's step with the mean of the velocities at both ends.

    With `last_euler` the last step is Euler's, as in JiT: predicted data have no velocity at t = 1.
    """
    for k in range(steps):
        first = predicted(predict(x, _time(k / steps, x)), x)
        end = x + first / steps
        if last_euler and k == steps - 1:
            return end
        second = predicted(predict(end, _time((k + 1) / steps, x)), x)
        x = x + (first + second) / (2 * steps)
    return x


def sde(predict: Predict, x: Tensor, noise: Noise, steps: int) -> Tensor:
    """Euler-Maruyama from t = 0 to 0.96 in all steps but one, then the last 0.04 without noise.

    Drift v + w s with w = 1 - t and the score s = (t v - x) / (1 - t), that is (1 + t) v - x; noise of
    standard deviation sqrt(2 w dt).
    """
    dt = (1 - LAST_STEP) / (steps - 1)
    for k in range(steps - 1):
        t = k * dt
        drift = (1 + t) * predicted(predict(x, _time(t, x)), x) - x
        x = x + drift * dt + math.sqrt(2 * (1 - t) * dt) * noise(k)
    t = 1 - LAST_STEP
    return x + ((1 + t) * predicted(predict(x, _time(t, x)), x) - x) * LAST_STEP


def edm(predict: Predict, x: Tensor, noise: Noise, steps: int) -> Tensor:
    """Heun's method from noise level 80 to 0.002, and Euler's to 0, Algorithm 1 of arXiv:2206.00364.

    Without added noise; the data's slope at noise level s is (x - denoised) / s.
    """
    ends = [sigma ** (1 / RHO) for sigma in SIGMAS]
    levels = [(ends[0] + k / (steps - 1) * (ends[1] - ends[0])) ** RHO for k in range(steps)] + [0.0]
    x = levels[0] * x
    for level, following in itertools.pairwise(levels):
        first = (x - predicted(predict(x, _time(level, x)), x)) / level
        end = x + (following - level) * first
        if not following:
            return end
        second = (end - predicted(predict(end, _time(following, x)), x)) / following
        x = x + (following - level) * (first + second) / 2
    return x


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """A sampler of some objectives."""

    objectives: tuple[str, ...]
    draw: Callable[[Predict, Tensor, Noise, int], Tensor]  # predict, start, noise, steps -> samples
    passes: int  # network passes per step
    steps: tuple[int, float]  # the smallest and the largest number of steps
    saved: int = 0  # passes that the last step does without

    def calls(self, steps: int) -> int:
        """Passes of the network of one chain."""
        return self.passes * steps - self.saved


SAMPLERS = {  # the first of an objective is its default
    "ancestral": Sampler(objectives=("iddpm",), draw=ancestral, passes=1, steps=(2, STEPS)),
    "ddim": Sampler(objectives=("iddpm",), draw=ddim, passes=1, steps=(2, STEPS)),
    "sde": Sampler(objectives=("flow",), draw=sde, passes=1, steps=(2, math.inf)),
    "heun-euler": Sampler(
        objectives=("flow-x",), draw=partial(heun, last_euler=True), passes=2, steps=(1, math.inf), saved=1
    ),
    "euler": Sampler(objectives=("flow", "flow-x"), draw=euler, passes=1, steps=(1, math.inf)),
    "heun": Sampler(objectives=("flow",), draw=heun, passes=2, steps=(1, math.inf)),
    "edm": Sampler(objectives=("edm",), draw=edm, passes=2, steps=(2, math.inf), saved=1),
}


def find(name: str | None, objective: str, steps: int) -> str:
    """The name of a sampler, by default the objective's. ValueError: unknown or unsupported."""
    fitting = [known for known, sampler in SAMPLERS.items() if objective in sampler.objectives]
    found = fitting[0] if name is None else name
    if found not in fitting:
        raise ValueError(f"sampler: {objective} has {', '.join(fitting)}, got {found}")
    least, most = SAMPLERS[found].steps
    if not least <= steps <= most:
        bounds = f"at least {least}" if most == math.inf else f"from {least} to {most}"
        raise ValueError(f"steps: must be {bounds} with {found}, got {steps}")
    return found


class ImageNoise:
    """Noise with one generator for each image, so that no image depends on its batch.

    The same seed gives the same noise on the same type of device. Noise of several steps is drawn at once,
    which saves kernel launches.
    """

    def __init__(self, seed: int, images: Sequence[int], shape: tuple[int, int, int], device: str) -> None:
        """Create the generators of the images with these numbers, each image (C, H, W)."""
        # a CPU generator uses 32 bits of its seed: a hash plus the image number is unique within a run
        start = int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:4], "little")
        self._generators = [torch.Generator(device).manual_seed((start + image) % 2**32) for image in images]
        self._ahead = max(1, min(AHEAD, AHEAD_BYTES // (4 * math.prod(shape))))
        self._drawn = torch.empty(len(images), self._ahead, *shape, device=device)
        self._used = self._ahead

    def draw(self) -> Tensor:
        """The next standard normal noise of every image, (N, C, H, W) float32."""
        if self._used == self._ahead:
            self._used = 0
            for image, generator in zip(self._drawn, self._generators, strict=True):
                image.normal_(generator=generator)
        self._used += 1
        return self._drawn[:, self._used - 1].clone()

    def __call__(self, step: int) -> Tensor:
        return self.draw()


def guided(model: Model, y: Tensor, *, scale: float, null: int, channels: int) -> Predict:
    """Predictions for labels y (N,), with classifier-free guidance unless the scale is 1.

    Args:
        model: its output is converted to float32 before the predictions are combined.
        y: labels, or float vectors (N, width), whose null vector is zero.
        scale: 1 calls the network on the batch; any other value on twice the batch.
        null: label of the null class.
        channels: number of guided channels, from the first.
    """

    def plain(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return model(x, t, y).float()

    if scale == 1:
        return lambda x, t: plain(x, t, y)
    return lambda x, t: guide(plain, x, t, y, scale=scale, null=null, channels=channels)


def _on(diffusion: Diffusion, x: Tensor) -> tuple[Tensor, Tensor]:
    """Timestep and step index of each sample at every step, both (S, N), moved to the device once."""
    places = torch.arange(len(diffusion)).repeat(len(x), 1).T.contiguous()
    return diffusion.timesteps[places].to(x.device), places.to(x.device)


def _time(t: float, x: Tensor) -> Tensor:
    return torch.full((len(x),), t, dtype=x.dtype, device=x.device)
