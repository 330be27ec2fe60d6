"""The batches of a training run. Seed and step determine a batch, so all models get the same batches.

Image order, flips, dropped labels and timesteps are drawn on the CPU and are equal on every device. Noise,
which is much larger, is drawn on the training device: it is equal for all models on one type of device and
differs between CPU and CUDA.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.datasets.datasets import Dataset
from bench.records.training import Recipe
from bench.training import rng
from bench.training.objectives import Objective

RESIDENT_SHARE = 0.25  # share of a GPU's free memory that the training images may fill


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The images of a training step, or of a micro-batch of it."""

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
    """Makes the batch of any step on a device; a data set that fits is stored on it."""

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
        """Images start to end, counted from 0, of the batch of a step. Does not wait for the device."""
        recipe = self.recipe
        n = recipe.batch
        end = n if end is None else end
        generator = rng.generator("cpu", self.seed, "step", step)
        flipped = torch.rand(n, generator=generator) < 0.5
        dropped = torch.rand(n, generator=generator) < recipe.label_dropout
        t = self.objective.draw(n, generator)
        noise = torch.randn(
            n,
            *self.data.shape,
            device=self.device,
            generator=rng.generator(self.device, self.seed, "noise", step),
        )
        indices = torch.from_numpy(self._indices(step)[start:end])
        if self.resident:
            x0, y = self.data.train_batch(self._to_device(indices))
        else:
            x0, y = map(self._to_device, self.data.train_batch(indices))
        if recipe.flip:
            x0 = torch.where(self._to_device(flipped[start:end])[:, None, None, None], x0.flip(-1), x0)
        y = torch.where(self._to_device(dropped[start:end]), recipe.classes, y)
        return Batch(x0=x0, t=self._to_device(t[start:end]), y=y, noise=noise[start:end])

    def _to_device(self, values: Tensor) -> Tensor:
        """Copy to the device without waiting for it."""
        if not self.device.startswith("cuda"):
            return values
        return values.pin_memory().to(self.device, non_blocking=True)

    def _indices(self, step: int) -> NDArray[np.int64]:
        """Indices of the training images of a step; every epoch is a new permutation of all images."""
        n, images = self.recipe.batch, len(self.data.train)
        positions = np.arange(step * n, (step + 1) * n)
        epochs = positions // images
        parts = [self._epoch(int(epoch))[positions[epochs == epoch] % images] for epoch in np.unique(epochs)]
        return np.concatenate(parts)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        return rng.permutation(len(self.data.train), self.seed, "epoch", epoch)


def _fits(data: Dataset, device: str) -> bool:
    free, _ = torch.cuda.mem_get_info(device)
    return data.train.nbytes <= RESIDENT_SHARE * free
