"""A small complete user's backbone, and broken ones."""

import os
import random
import signal
import time

import numpy as np
import torch
from torch import Tensor, nn

from models import Task
from models.layers.conditions import Condition, LabelDropout


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
    """Passes the check on the meta device, then is killed like a process that runs out of memory."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        if not x.is_meta:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x, t, y)


class HangsWhenReal(Tiny):
    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        if not x.is_meta:
            time.sleep(600)
        return super().forward(x, t, y)


class AsksForTooMuch(Tiny):
    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        if not x.is_meta:
            torch.empty(2**50, dtype=torch.uint8)
        return super().forward(x, t, y)


class TooLarge(Tiny):
    """Can be built on the meta device only: too large for memory."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.table = nn.Parameter(torch.empty(2**48))


class BrokenWhenReal(Tiny):
    """Can be built on the meta device only, for another reason than memory."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        if not self.head.weight.is_meta:
            raise RuntimeError("sizes do not match")


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
    """Conditioned on float vectors instead of labels, declared by `condition_width`."""

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


class DrawsByItself(Tiny):
    """In training, layers draw from all global generators."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        if self.training and not x.is_meta:
            x = nn.functional.dropout(x, 0.3) * (1 + 0.1 * random.random()) + 0.1 * np.random.rand()
        return super().forward(x, t, y)


class DropsLabels(Tiny):
    """Drops labels as our backbones do, and keeps the labels of every batch after dropping."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.drop = LabelDropout(task.num_classes)
        self.left: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        y = self.drop(y)
        self.left.append(y)
        return super().forward(x, t, y)


class BlowsUp(Tiny):
    """Outputs nan from its fifth training pass on."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        out = super().forward(x, t, y)
        if self.training and not x.is_meta:
            self.passes += 1
            return out / (self.passes < 5)
        return out


class PartlyUnused(Tiny):
    """One layer gets no gradient."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.idle = nn.Linear(2, 2)


class RaisesInBackward(Tiny):
    """Passes the check without gradients; its output has no gradient."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return super().forward(x, t, y).detach()
