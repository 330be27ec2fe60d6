"""The interface of a training objective: how data is noised and what the loss is."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Model = Callable[[Tensor, Tensor, Tensor], Tensor]  # x (N, C, H, W), t (N,), y (N,) -> (N, 2C or C, H, W)


class Objective(Protocol):
    """How data is noised, and the loss of a network's output.

    Attributes:
        name: as options and recipes name it; see `bench.training.objectives`.
        learn_sigma: the value of Task.learn_sigma that a network is built with.
    """

    @property
    def name(self) -> str: ...

    @property
    def learn_sigma(self) -> bool: ...

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n timesteps (n,) from the distribution of training, on the generator's device."""

    def quantile(self, share: Tensor) -> Tensor:
        """Quantiles (n,) of the distribution of `draw`, at shares (n,) in [0, 1)."""

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """The noised sample x_t (N, C, H, W)."""

    def losses(self, model: Model, x0: Tensor, t: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        """The training loss of every sample (N,), differentiable, in the precision of x0.

        The network's output may have another precision, as under autocast. Nothing waits for the device.

        Args:
            model: called once.
            x0: data (N, C, H, W).
            t: timesteps (N,) as `draw` gives them, on the device of x0.
            y: labels (N,).
            noise: standard normal, of the shape of x0.

        Raises:
            ValueError: the objective cannot be computed from the output's number of channels.
        """

    def noise_level(self, t: Tensor) -> Tensor:
        """Map timesteps to the level of noise (N,), from 0 (little noise) to 1 (much), for bins of losses."""
