"""Embeddings of timesteps and labels, and label dropout.

Letters: N batch, D width, E width of an embedding, F frequencies.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FREQUENCIES = 128
LABEL_DROPOUT = 0.1  # in every paper here that drops labels in the network


PERIOD = 10000.0  # 1 / the lowest frequency of timestep features


def timestep_features(t: Tensor, frequencies: int = FREQUENCIES, period: float = PERIOD) -> Tensor:
    """Cosines, then sines, of t at F geometric frequencies from 1 down to 1/period: (N,) -> (N, 2F).

    The result is float32 whatever the network computes in, as in every release.
    """
    steps = torch.arange(frequencies, dtype=torch.float32, device=t.device)
    rates = torch.exp(-math.log(period) * steps / frequencies)
    angles = t[:, None].float() * rates
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


class TimeEmbedding(nn.Module):
    """Sinusoidal timestep features and an MLP as wide as its output: (N,) -> (N, E)."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.count = features // 2
        self.linear1 = nn.Linear(features, width)
        self.linear2 = nn.Linear(width, width)

    def forward(self, t: Tensor) -> Tensor:
        features = timestep_features(t, self.count).to(self.linear1.weight.dtype)
        return self.linear2(F.silu(self.linear1(features)))


class Condition(nn.Module):
    """Sum of a timestep embedding and a label embedding: (N,), (N,) -> (N, D).

    The label table has one row more than there are classes: the null class of guidance.
    """

    def __init__(self, width: int, num_classes: int, period: float = PERIOD) -> None:
        super().__init__()
        self.period = period
        self.time1 = nn.Linear(2 * FREQUENCIES, width)
        self.time2 = nn.Linear(width, width)
        self.labels = nn.Embedding(num_classes + 1, width)

    def time(self, t: Tensor) -> Tensor:
        """The timestep's part: (N,) -> (N, D)."""
        features = timestep_features(t, period=self.period).to(self.time1.weight.dtype)
        embedded: Tensor = self.time2(F.silu(self.time1(features)))
        return embedded

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.time(t) + self.labels(y)


class LabelDropout(nn.Module):
    """In training mode, replaces each label by the null class with probability 0.1: (N,) -> (N,)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.null = num_classes

    def forward(self, y: Tensor) -> Tensor:
        if not self.training:
            return y
        dropped = torch.rand(y.shape, device=y.device) < LABEL_DROPOUT
        return torch.where(dropped, self.null, y)
