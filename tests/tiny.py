"""A user's backbone, small but complete, and what becomes of broken ones."""

import os
import signal

import torch
from torch import Tensor, nn

from models import Task
from models.layers import Condition


class Tiny(nn.Module):
    """One convolution, scaled by the condition, with the input's mean added back."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.condition = Condition(8, task.num_classes)
        self.stem = nn.Conv2d(task.in_channels, 8, 3, padding=1)
        self.head = nn.Conv2d(8, task.out_channels, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.head(torch.tanh(self.stem(x)) * self.condition(t, y)[:, :, None, None])


class WrongShape(Tiny):
    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return super().forward(x, t, y)[:, :3]


class Raises(Tiny):
    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        raise KeyError("no such layer")


class Overflows(Tiny):
    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return super().forward(x, t, y) / 0


class KilledWhenReal(Tiny):
    """Passes the check on the meta device, then dies as a process that runs out of memory does."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        if not x.is_meta:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x, t, y)


class AsksForTooMuch(Tiny):
    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        if not x.is_meta:
            torch.empty(2**50, dtype=torch.uint8)
        return super().forward(x, t, y)


class RaisesWhenReal(Tiny):
    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        if not x.is_meta:
            raise KeyError("only found out now")
        return super().forward(x, t, y)


def not_a_module(task: Task) -> int:
    return task.height


def takes_nothing() -> nn.Module:
    return nn.Identity()


class TakesVectors(Tiny):
    """Conditioned on float vectors in the place of labels, which it says in `condition_width`."""

    condition_width = 6

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.text = nn.Linear(self.condition_width, 8)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        scale = self.condition(t, torch.zeros_like(t)) + self.text(y.to(x.dtype))
        return self.head(torch.tanh(self.stem(x)) * scale[:, :, None, None])


class RaisesInTraining(Tiny):
    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        if self.training:
            raise RuntimeError("only found out in training")
        return super().forward(x, t, y)
