"""The validation loss on fixed images, timesteps and noise, equal for all models, seeds and devices.

No label is dropped. Timesteps are stratified: n pairs of image and timestep use one timestep from each of n
equally likely ranges, in an order independent of the images. Their mean has a lower variance than that of n
independent draws.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.datasets.datasets import Dataset
from bench.training import rng
from bench.training.feed import Batch
from bench.training.losses.diffusion import Model
from bench.training.objectives import Objective
from bench.training.processes import Processes

BINS = 10  # equal ranges of the level of noise


def validation_indices(data: Dataset, images: int) -> Tensor:
    """Indices (images,) of a fixed choice of validation images."""
    return torch.from_numpy(rng.permutation(len(data.validation), "validation images")[:images])


def stratified(objective: Objective, n: int) -> Tensor:
    """Timesteps (n,), the midpoints of n equally likely ranges, in a fixed order."""
    order = torch.from_numpy(rng.permutation(n, "validation order"))
    return objective.quantile((order.double() + 0.5) / n)


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Validation losses of one network."""

    mean: float
    bins: tuple[float, ...]  # by equal ranges of noise, from low to high; nan for a range without timesteps


class Validation:
    """The fixed validation set, on the device of this process.

    Args:
        images: number of validation images.
        draws: pairs of timestep and noise for each image.
        chunk: images per pass; the last pass is filled up to the same size.
        processes: each process computes a share of the passes.
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
        x0, y = data.validation_batch(validation_indices(data, images).repeat(draws))
        t = stratified(objective, self.n)
        noise = torch.randn(x0.shape, generator=rng.generator("cpu", "validation noise"))
        level = (objective.noise_level(t).double() * BINS).long().clamp(0, BINS - 1)
        device = processes.device
        self.batch = Batch(x0=x0.to(device), t=t.to(device), y=y.to(device), noise=noise.to(device))
        # (1 + BINS, n): the first row sums all losses, each other row those of one range
        rows = torch.stack([torch.ones(self.n, dtype=torch.bool), *(level == i for i in range(BINS))])
        self.rows = rows.double().to(device)

    @torch.no_grad()
    def losses(self, model: Model) -> Losses:
        """Compute the loss of every pair once; waits for the device at the end."""
        sums = torch.zeros(1 + BINS, dtype=torch.float64, device=self.batch.x0.device)
        for start in self._starts():
            # the last chunk starts earlier so that it is full; pairs of the previous chunk are dropped
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
