"""Layers that preserve the magnitude of activations: no biases, no affine norms, weights of unit mean square.

Source: arXiv:2312.02696, Section 2.2 and Appendix B; constants are those of its config G.
Letters: N batch, C channels, H and W sides.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.precision import widest

EPS = 1e-4
SILU_SCALE = 0.596  # root mean square of SiLU on standard normal inputs


def normalise(x: Tensor, dims: int | Sequence[int]) -> Tensor:
    """x / (1e-4 + its root mean square over some dimensions), the divisor in float32 or wider; shape kept."""
    norm = torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=widest(x))
    return x / (EPS + norm / math.sqrt(x.numel() / norm.numel())).to(x.dtype)


def silu(x: Tensor) -> Tensor:
    return F.silu(x) / SILU_SCALE


def mix(a: Tensor, b: Tensor, share: float) -> Tensor:
    """(1 - share) a + share b, divided by the magnitude that this has for independent a and b."""
    return torch.lerp(a, b, share) / math.hypot(1 - share, share)


def concatenate(a: Tensor, b: Tensor) -> Tensor:
    """Channels of both, scaled so that each contributes equally: (N, C, H, W), (N, C', H, W) -> sum of C."""
    scale = math.sqrt((a.shape[1] + b.shape[1]) / 2)
    return torch.cat([a * (scale / math.sqrt(a.shape[1])), b * (scale / math.sqrt(b.shape[1]))], dim=1)


class _Weight(nn.Module):
    """A weight that is used at unit mean square per output, and stored so after a training pass."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape))
        self.dims = tuple(range(1, len(shape)))

    def scaled(self, dtype: torch.dtype, gain: Tensor | float = 1.0) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.weight.copy_(normalise(self.weight, self.dims))
        weight = normalise(self.weight, self.dims)
        return (weight * (gain / math.sqrt(weight[0].numel()))).to(dtype)


class Linear(_Weight):
    """(N, in) -> (N, out), times a gain."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__(out_width, width)

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        return F.linear(x, self.scaled(x.dtype, gain))


class Conv(_Weight):
    """A convolution with an odd kernel that keeps the sides, times a gain: (N, C, H, W) -> (N, C', H, W)."""

    def __init__(self, width: int, out_width: int, kernel: int) -> None:
        super().__init__(out_width, width, kernel, kernel)
        self.padding = kernel // 2

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        return F.conv2d(x, self.scaled(x.dtype, gain), padding=self.padding)


class Fourier(nn.Module):
    """Random features sqrt(2) cos(x * frequency + phase), in float32 or wider: (N,) -> (N, features)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.freqs: Tensor
        self.phases: Tensor
        self.register_buffer("freqs", 2 * math.pi * torch.randn(features))
        self.register_buffer("phases", 2 * math.pi * torch.rand(features))

    def forward(self, x: Tensor) -> Tensor:
        angles = torch.addcmul(self.phases.float(), x.float()[:, None], self.freqs.float())
        return torch.cos(angles) * math.sqrt(2)
