"""The mapping network of HDiT: a condition from the noise, the augmentation of an image and its label.

Source: arXiv:2401.11605 and k-diffusion's `image_transformer_v2`.
Letters: N batch, D width of a feed-forward, E width of the condition.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.arithmetic import Terms
from models.layers.rms import RMSNorm

AUGMENTATIONS = 9  # numbers that describe an augmentation
RATIO = 3  # hidden width of a feed-forward / E


class GatedFeedForward(nn.Module):
    """One half of a projection times GELU of the other, then a projection back: (..., D) -> (..., D)."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.expand = nn.Linear(width, 2 * hidden, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.contract = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.expand(x).chunk(2, dim=-1)
        return self.contract(self.dropout(value * F.gelu(gate)))


class Features(nn.Module):
    """Cosines and sines of random projections, in float32 or wider: (N, inputs) -> (N, E)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.weight: Tensor
        self.register_buffer("weight", torch.randn(width // 2, inputs))

    def forward(self, x: Tensor) -> Tensor:
        angles = F.linear(2 * math.pi * x.float(), self.weight.float())
        return torch.cat([angles.cos(), angles.sin()], dim=-1)


class MappingBlock(nn.Module):
    """A normed feed-forward, added: (N, E) -> (N, E)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = RMSNorm(width)
        self.feedforward = GatedFeedForward(width, RATIO * width)

    def forward(self, c: Tensor) -> Tensor:
        return c + self.feedforward(self.norm(c))


class Mapping(nn.Module):
    """The condition from the noise, no augmentation, and labels: (N,), (N,) -> (N, E)."""

    def __init__(self, width: int, depth: int, num_classes: int | None) -> None:
        super().__init__()
        self.noise_features = Features(1, width)
        self.noise = nn.Linear(width, width, bias=False)
        self.augmentation_features = Features(AUGMENTATIONS, width)
        self.augmentation = nn.Linear(width, width, bias=False)
        self.labels = nn.Embedding(num_classes + 1, width) if num_classes else None
        self.norm1 = RMSNorm(width)
        self.blocks = nn.ModuleList(MappingBlock(width) for _ in range(depth))
        self.norm2 = RMSNorm(width)

    def forward(self, noise: Tensor, y: Tensor) -> Tensor:
        dtype = self.noise.weight.dtype
        features = self.noise_features(noise[:, None])
        augmentation = self.augmentation_features(features.new_zeros(len(noise), AUGMENTATIONS))
        c = self.noise(features.to(dtype)) + self.augmentation(augmentation.to(dtype))
        if self.labels is not None:
            c = c + self.labels(y)
        c = self.norm1(c)
        for block in self.blocks:
            c = block(c)
        return self.norm2(c)


def count_mapping(terms: Terms, width: int, depth: int) -> None:
    """Add the MACs of `Mapping`."""
    for inputs in (1, AUGMENTATIONS):
        terms.elementwise("condition", inputs)
        terms.linear("condition", 1, inputs, width // 2)
        terms.linear("condition", 1, width, width)
    for _ in range(depth):
        terms.rms_norm(1, width)
        terms.gated_feed_forward(1, width, RATIO * width)
    for _ in range(2):
        terms.rms_norm(1, width)
