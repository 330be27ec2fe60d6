"""The interface of a training objective: the noising process and the loss."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from models.task import Prediction

Model = Callable[[Tensor, Tensor, Tensor], Tensor]  # x (N, C, H, W), t (N,), y (N,) -> (N, 2C or C, H, W)


class Objective(Protocol):
    """A noising process and a loss.

    Attributes:
        name: the name in options and recipes; see `bench.training.objectives`.
        prediction: what the network predicts, as in Task.prediction; epsilon comes with a variance.
    """

    @property
    def name(self) -> str: ...

    @property
    def prediction(self) -> Prediction: ...

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw timesteps (n,) from the training distribution, on the generator's device."""

    def quantile(self, share: Tensor) -> Tensor:
        """Quantiles (n,) of the distribution of `draw` at probabilities (n,) in [0, 1)."""

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Sample x_t (N, C, H, W) from x0 and noise."""

    def losses(self, model: Model, x0: Tensor, t: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        """The training loss of every sample (N,), differentiable, in the precision of x0.

        The network's output may have another precision, as under autocast. Does not wait for the device.

        Args:
            model: called once.
            x0: data (N, C, H, W).
            t: timesteps (N,) from `draw`, on the device of x0.
            y: labels (N,).
            noise: standard normal noise with the shape of x0.

        Raises:
            ValueError: the output has an unsupported number of channels.
        """

    def noise_level(self, t: Tensor) -> Tensor:
        """Map timesteps to their place (N,) between 0 (data) and 1 (noise), uniform for those of `draw`."""
