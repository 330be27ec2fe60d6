"""One training step as the releases take it: forward, loss, backward, AdamW, average of the weights (EMA)."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.task import Task

LEARNING_RATE = 1e-4
EMA_DECAY = 0.9999

Region = Callable[[], AbstractContextManager[object]]  # makes what a forward pass runs in


def noise_of(x: Tensor, task: Task) -> Tensor:
    """Noise for every channel of x that is to be denoised: an upsampler's small image is not."""
    return torch.randn_like(x[:, : task.in_channels - task.given_channels])


class Step:
    """A training step over one batch that stays the same; call it as often as you like.

    The loss is the squared error of the noise alone: the variance that some outputs learn beside it adds
    tensors as small as x. Weight decay is 0, and gradients are set to None after each step.

    Args:
        model: in train mode; every parameter that requires a gradient is trained.
        inputs: x, t and y.
        noise: what the first channels of the output should be.
        region: around the forward pass and the loss.
        fused: AdamW in one kernel; False takes torch's default on CUDA, a list of kernels over all tensors.
        call: what computes model(x, t, y): the model itself unless it is compiled.

    Attributes:
        trained: the parameters that the optimizer has.
        ema: the average of the weights.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: tuple[Tensor, Tensor, Tensor],
        noise: Tensor,
        region: Region,
        *,
        fused: bool,
        call: Callable[..., Tensor] | None = None,
    ) -> None:
        self.model = model
        self.ema = deepcopy(model).requires_grad_(False)
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self.trained, lr=LEARNING_RATE, weight_decay=0, fused=fused, foreach=not fused
        )
        self._region = region
        self._call = model if call is None else call
        self._inputs = inputs
        self._noise = noise

    def loss(self) -> Tensor:
        with self._region():
            out = self._call(*self._inputs)
            return F.mse_loss(out[:, : self._noise.shape[1]], self._noise)

    def optimize(self) -> None:
        self._optimizer.step()

    def average(self) -> None:
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), 1 - EMA_DECAY)

    def clear(self) -> None:
        self._optimizer.zero_grad()

    def __call__(self) -> Tensor:
        """Take the step, and give the loss that it began with, on the device."""
        loss = self.loss()
        loss.backward()
        self.optimize()
        self.average()
        self.clear()
        return loss.detach()
