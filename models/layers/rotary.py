"""Rotary embeddings of positions on a grid: pairs of adjacent features of a head turn by angles of the token.

Source: arXiv:2104.09864, in two dimensions.
Letters: N batch, T tokens, d channels of a head, a multiple of 4.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.precision import widest

REACH = 16.0  # the last position of `spread_angles`, whatever the grid
PERIOD = 10000.0


def grid_angles(height: int, width: int, channels: int) -> Tensor:
    """Angles (T, d/2) of pairs, row by row: the first half turns by the row, the second by the column.

    Rows and columns are counted from 0; each half has the frequencies 10000^(-4 i / d), in float32.
    """
    rates = _rates(channels)
    rows = (torch.arange(height).float()[:, None] * rates).repeat_interleave(width, dim=0)
    columns = (torch.arange(width).float()[:, None] * rates).repeat(height, 1)
    return torch.cat([rows, columns], dim=1)


def spread_angles(height: int, width: int, channels: int) -> Tensor:
    """Angles (T, d/2) of pairs, row by row: even pairs turn by the column, odd ones by the row.

    Positions are evenly spaced from 0 to 16 on both sides, at any size of the grid.
    """
    rates = _rates(channels)
    rows = (torch.linspace(0, REACH, height)[:, None] * rates).repeat_interleave(width, dim=0)
    columns = (torch.linspace(0, REACH, width)[:, None] * rates).repeat(height, 1)
    return torch.stack([columns, rows], dim=2).flatten(1)


def _rates(channels: int) -> Tensor:
    return 1 / PERIOD ** (torch.arange(0, channels, 4).float() / channels)


class Rotary(nn.Module):
    """Tables of cosines and sines for the tokens of a grid.

    Args:
        angles: makes the angles of tokens (rows) and pairs or channels (columns).
        stored: whether the tables are in the state_dict.
    """

    def __init__(self, angles: Callable[[], Tensor], *, stored: bool = False) -> None:
        super().__init__()
        self._angles = angles
        self.cosines: Tensor
        self.sines: Tensor
        made = angles()
        self.register_buffer("cosines", made.cos(), persistent=stored)
        self.register_buffer("sines", made.sin(), persistent=stored)

    def recompute(self) -> None:
        """Make the tables again on the default device: those of a model on the meta device have no values."""
        made = self._angles()
        self.cosines, self.sines = made.cos(), made.sin()


def paired(angles: Callable[[], Tensor], first: int = 0) -> Tensor:
    """Every angle twice, for `turn`, after `first` tokens that do not turn: (T, d/2) -> (first + T, d)."""
    return F.pad(angles().repeat_interleave(2, dim=1), (0, 0, first, 0))


def turn(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn pairs (a, b) to (a cos - b sin, b cos + a sin): (N, heads, T, d) -> the same, in the type of x.

    Args:
        x: queries or keys.
        cosines, sines: (T, d), each angle twice.
    """
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    quarter = torch.stack([-b, a], dim=-1).flatten(-2)  # x turned by a right angle
    return (x * cosines + quarter * sines).type_as(x)


def turn_complex(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """`turn` as one product of complex numbers, in float32 or wider; cosines and sines are (T, d/2).

    torchprofile counts a complex product as one MAC, and so a quarter of those of `turn`.
    """
    wide = widest(x)
    pairs = torch.view_as_complex(x.to(wide).unflatten(-1, (-1, 2)).contiguous())
    turned = pairs * torch.complex(cosines.to(wide), sines.to(wide))
    return torch.view_as_real(turned).flatten(-2).type_as(x)
