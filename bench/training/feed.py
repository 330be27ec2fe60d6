"""The batches of a training run: determined by the seed and the step alone, so the same for every arm.

The order of the images, flips, dropped labels and timesteps are drawn on the CPU and are the same on every
device. The noise, which is much more, is drawn on the device that it is for: the same numbers in every arm
there, other ones on another kind of device.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.datasets.datasets import Dataset
from bench.records.record import Recipe
from bench.training import rng
from bench.training.objective import Objective

RESIDENT = 0.25  # of a GPU's free memory, the most that the training images may take


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a training step, or a share of it, works on."""

    x0: Tensor  # (N, C, H, W), noise likewise
    t: Tensor  # (N,), y likewise; a dropped label is the null class
    y: Tensor
    noise: Tensor

    def __len__(self) -> int:
        return len(self.t)

    def part(self, start: int, end: int) -> "Batch":
        return Batch(
            x0=self.x0[start:end], t=self.t[start:end], y=self.y[start:end], noise=self.noise[start:end]
        )


class Feed:
    """Gives the batch of any step.

    Args:
        data: images and labels.
        objective: draws the timesteps.
        recipe: batch, flips, dropped labels.
        seed: of the run.
        device: where batches are wanted; images that fit are kept there.
    """

    def __init__(self, data: Dataset, objective: Objective, recipe: Recipe, seed: int, device: str) -> None:
        self.objective = objective
        self.recipe = recipe
        self.seed = seed
        self.device = device
        self.data = data
        self.resident = not device.startswith("cuda") or _fits(data, device)
        if self.resident:
            self.data = replace(data, train=data.train.to(device), train_labels=data.train_labels.to(device))
        self._epoch = lru_cache(maxsize=2)(self._order)

    def batch(self, step: int, start: int = 0, end: int | None = None) -> Batch:
        """The images from start to end of the batch of a step, counted from 0. Waits for no device."""
        recipe = self.recipe
        n = recipe.batch
        end = n if end is None else end
        draw = rng.generator("cpu", self.seed, "step", step)
        flipped = torch.rand(n, generator=draw) < 0.5
        dropped = torch.rand(n, generator=draw) < recipe.label_dropout
        t = self.objective.draw(n, draw)
        noise = torch.randn(
            n,
            *self.data.shape,
            device=self.device,
            generator=rng.generator(self.device, self.seed, "noise", step),
        )
        indices = torch.from_numpy(self._indices(step)[start:end])
        if self.resident:
            x0, y = self.data.train_batch(self._moved(indices))
        else:
            x0, y = map(self._moved, self.data.train_batch(indices))
        if recipe.flip:
            x0 = torch.where(self._moved(flipped[start:end])[:, None, None, None], x0.flip(-1), x0)
        y = torch.where(self._moved(dropped[start:end]), recipe.classes, y)
        return Batch(x0=x0, t=self._moved(t[start:end]), y=y, noise=noise[start:end])

    def _moved(self, values: Tensor) -> Tensor:
        """To the device, without waiting for it."""
        if not self.device.startswith("cuda"):
            return values
        return values.pin_memory().to(self.device, non_blocking=True)

    def _indices(self, step: int) -> NDArray[np.int64]:
        """Of the images of a step: epochs follow one another, each a new order of all images."""
        n, images = self.recipe.batch, len(self.data.train)
        places = np.arange(step * n, (step + 1) * n)
        epochs = places // images
        parts = [self._epoch(int(epoch))[places[epochs == epoch] % images] for epoch in np.unique(epochs)]
        return np.concatenate(parts)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        return rng.permutation(len(self.data.train), self.seed, "epoch", epoch)


def _fits(data: Dataset, device: str) -> bool:
    free, _ = torch.cuda.mem_get_info(device)
    return data.train.nbytes <= RESIDENT * free
