"""The loss of a network on images, timesteps and noise that are the same for all arms, seeds and devices.

Every label is given as it is, none dropped. The timesteps follow the distribution of training, one from each
of as many equally likely ranges as there are pairs of an image and a draw, in an order that has nothing to do
with the images: the mean over them varies less than over as many drawn freely.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.datasets.datasets import Dataset
from bench.training import rng
from bench.training.feed import Batch
from bench.training.objective import Model, Objective
from bench.training.processes import Processes

BINS = 10  # equal ranges of t


def chosen(data: Dataset, images: int) -> Tensor:
    """Which of the validation images are looked at: the same ones every time, (images,)."""
    return torch.from_numpy(rng.permutation(len(data.validation), "validation images")[:images])


def stratified(objective: Objective, n: int) -> Tensor:
    """n timesteps, (n,), each from the middle of one of n equally likely ranges, in an order drawn once."""
    order = torch.from_numpy(rng.permutation(n, "validation order"))
    return objective.quantile((order.double() + 0.5) / n)


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Of one network on the whole set."""

    mean: float
    bins: tuple[float, ...]  # by equal ranges of t, from little noise to much; nan for a range without any


class Validation:
    """The fixed set, on the device of this process.

    Args:
        data: images and labels.
        objective: what the loss is.
        images: how many of the validation images.
        draws: pairs of a timestep and noise for each of them.
        chunk: images of one pass; each pass has as many, the last is filled up.
        processes: each takes a share of the passes.
    """

    def __init__(
        self,
        data: Dataset,
        objective: Objective,
        *,
        images: int,
        draws: int,
        chunk: int,
        processes: Processes,
    ) -> None:
        self.objective = objective
        self.processes = processes
        self.n = images * draws
        self.chunk = min(chunk, self.n)
        x0, y = data.validation_batch(chosen(data, images).repeat(draws))
        t = stratified(objective, self.n)
        noise = torch.randn(x0.shape, generator=rng.generator("cpu", "validation noise"))
        level = (objective.noise_level(t).double() * BINS).long().clamp(0, BINS - 1)
        device = processes.device
        self.batch = Batch(x0=x0.to(device), t=t.to(device), y=y.to(device), noise=noise.to(device))
        # (1 + BINS, n): one row adds up all losses, the others those of a range
        rows = torch.stack([torch.ones(self.n, dtype=torch.bool), *(level == i for i in range(BINS))])
        self.rows = rows.double().to(device)

    @torch.no_grad()
    def losses(self, model: Model) -> Losses:
        """Look at every pair once; waits for the device at the end."""
        sums = torch.zeros(1 + BINS, dtype=torch.float64, device=self.batch.x0.device)
        for start in self._starts():
            # a chunk that would stick out at the end begins earlier, and what was looked at counts no more
            begin = min(start, self.n - self.chunk)
            part = self.batch.part(begin, begin + self.chunk)
            losses = self.objective.losses(model, part.x0, part.t, part.y, part.noise)[start - begin :]
            sums += self.rows[:, start : begin + self.chunk] @ losses.double()
        sums = self.processes.sum(sums).cpu()
        means = (sums / self.rows.sum(1).cpu()).tolist()
        return Losses(mean=means[0], bins=tuple(means[1:]))

    def _starts(self) -> range:
        chunks = math.ceil(self.n / self.chunk)
        return range(self.processes.rank * self.chunk, chunks * self.chunk, self.processes.count * self.chunk)
