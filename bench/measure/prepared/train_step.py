"""One training step as in the releases: forward, loss, backward, AdamW, EMA of the weights."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.task import Task

LEARNING_RATE = 1e-4
EMA_DECAY = 0.9999

Region = Callable[[], AbstractContextManager[object]]  # makes the context of a forward pass


def noise_of(x: Tensor, task: Task) -> Tensor:
    """Noise for the denoised channels of x, which exclude an upsampler's small image."""
    return torch.randn_like(x[:, : task.in_channels - task.given_channels])


class TrainStep:
    """A repeatable training step over the batch `inputs`, which may be replaced between steps.

    The loss is the squared error of the noise only; a learned variance would add only tensors of the size of
    x. Weight decay is 0, and gradients are set to None after each step.

    Args:
        model: in train mode; every parameter that requires a gradient is trained.
        inputs: x, t and y.
        noise: target of the first output channels.
        region: context of the forward pass and the loss.
        fused: AdamW in one kernel; False: torch's default on CUDA (foreach kernels).
        call: computes model(x, t, y): the model or its compiled form.

    Attributes:
        trained: parameters of the optimizer.
        ema: exponential moving average of the weights.
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
        self.inputs = inputs
        self._noise = noise

    def loss(self) -> Tensor:
        with self._region():
            out = self._call(*self.inputs)
            return F.mse_loss(out[:, : self._noise.shape[1]], self._noise)

    def optimize(self) -> None:
        self._optimizer.step()

    def average(self) -> None:
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), 1 - EMA_DECAY)

    def clear(self) -> None:
        self._optimizer.zero_grad()

    def __call__(self) -> Tensor:
        """Run the step; returns the loss before the update, on the device."""
        loss = self.loss()
        loss.backward()
        self.optimize()
        self.average()
        self.clear()
        return loss.detach()
