"""What a backbone is trained to do: the interface of an objective, and the objectives by name."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Model = Callable[[Tensor, Tensor, Tensor], Tensor]  # x (N, C, H, W), t (N,), y (N,) -> (N, 2C or C, H, W)

NAMES = ("iddpm", "flow")


class Objective(Protocol):
    """How data is noised, and what a network's output is held to.

    Attributes:
        name: one of NAMES.
        learn_sigma: what a network is built with to be trained so: Task.learn_sigma.
    """

    @property
    def name(self) -> str: ...

    @property
    def learn_sigma(self) -> bool: ...

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n timesteps (n,) as training does, on the generator's device."""

    def quantile(self, share: Tensor) -> Tensor:
        """The timesteps (n,) that such shares (n,) in [0, 1) of those that `draw` gives lie below."""

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """The noised sample x_t (N, C, H, W)."""

    def losses(self, model: Model, x0: Tensor, t: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        """The training loss of every sample (N,), differentiable, in the precision of x0.

        The network may answer in another precision, as under autocast. Nothing waits for the device.

        Args:
            model: called once.
            x0: data (N, C, H, W).
            t: timesteps (N,) as `draw` gives them, on the device of x0.
            y: labels (N,).
            noise: standard normal, of the shape of x0.

        Raises:
            ValueError: the output's channels are none that the objective can be computed from.
        """

    def noise_level(self, t: Tensor) -> Tensor:
        """Timesteps as numbers from 0 (little noise) to 1 (much), (N,), to sort losses into bins by."""


def find(name: str) -> Objective:
    """An objective by its name.

    Raises:
        ValueError: no such objective.
    """
    from bench.training.diffusion import IDDPM
    from bench.training.flow import Flow

    if name not in NAMES:
        raise ValueError(f"{name}: no such objective; known are {', '.join(NAMES)}")
    made: Objective = IDDPM() if name == "iddpm" else Flow()
    return made
