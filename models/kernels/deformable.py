"""Deformable sampling: every position reads its own points of a map, weights them and adds them up.

Source: arXiv:2410.22655, after DCNv4 (arXiv:2401.06197): no softmax over the weights.
Letters: N batch, H and W sides, h groups of channels, d channels of a group, K points.

The cell of a point is its position truncated toward zero, as in the released kernel. From 0 upward that is
bilinear sampling with zeros outside of the map; below 0 it extrapolates from the two cells above.

The four corners of all K points are one weighted sum of rows: torch's embedding bag, which holds no sample.
On meta tensors it is one operator, `backbones::deformable_sampling`, for a counter: 5 MACs per point and
channel, 4 corners and the weight. Its backward pass is one operator of twice the cost.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from models.kernels.operators import operator

MACS_PER_SAMPLE = 5


def deformable_sampling(values: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """Sum the weighted samples of every position and group.

    Args:
        values: (N, H, W, h, d).
        offsets: of each point from the position that reads it, (N, H, W, h, K, 2): columns, then rows.
        weights: of the points (N, H, W, h, K).

    Returns:
        (N, H, W, h, d) in the type of the values.
    """
    if values.is_meta:
        return _counted(values, offsets, weights)
    batch, height, width, groups, _ = values.shape
    offsets = offsets.to(torch.promote_types(offsets.dtype, torch.float32))
    columns = torch.arange(width, device=values.device)[:, None, None]
    rows = torch.arange(height, device=values.device)[:, None, None, None]
    column, along = _corners(columns + offsets[..., 0], width)  # (N, H, W, h, K, 2)
    row, down = _corners(rows + offsets[..., 1], height)
    image = torch.arange(batch, device=values.device)[:, None, None, None, None, None, None]
    group = torch.arange(groups, device=values.device)[:, None, None, None]
    pixel = (image * height + row[..., None]) * width + column[..., None, :]  # (N, H, W, h, K, 2, 2)
    share = weights[..., None, None] * down[..., None] * along[..., None, :]
    summed = F.embedding_bag(
        (pixel * groups + group).flatten(4).flatten(0, 3),
        values.reshape(-1, values.shape[-1]),
        mode="sum",
        per_sample_weights=share.flatten(4).flatten(0, 3).type_as(values),
    )
    return summed.view(values.shape)


def _corners(position: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The two cells next to positions (...), and their shares, zero outside of the map: both (..., 2)."""
    first = position.detach().trunc()
    cells = torch.stack([first, first + 1], dim=-1)
    shares = torch.stack([1 - (position - first), position - first], dim=-1)
    inside = (cells >= 0) & (cells < size)
    return cells.clamp(0, size - 1).long(), torch.where(inside, shares, 0)


def deformable_sampling_reference(values: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """One point and one corner at a time."""
    batch, height, width, groups, _ = values.shape
    image = torch.arange(batch)[:, None, None, None]
    group = torch.arange(groups)
    out = torch.zeros_like(values)
    for point in range(weights.shape[-1]):
        x = torch.arange(width)[:, None] + offsets[..., point, 0]  # (N, H, W, h)
        y = torch.arange(height)[:, None, None] + offsets[..., point, 1]
        left, top = x.trunc().long(), y.trunc().long()
        for column, along in ((left, left + 1 - x), (left + 1, x - left)):
            for row, down in ((top, top + 1 - y), (top + 1, y - top)):
                inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
                read = values[image, row.clamp(0, height - 1), column.clamp(0, width - 1), group]
                out = out + (inside * along * down * weights[..., point])[..., None] * read
    return out


def _flops(values: tuple[int, ...], offsets: tuple[int, ...], weights: tuple[int, ...]) -> int:
    return 2 * MACS_PER_SAMPLE * math.prod(weights) * values[-1]


_counted = operator("backbones::deformable_sampling", "Tensor values, Tensor offsets, Tensor weights", _flops)
