"""3x3 convolutions with 16 products for 36: Winograd's F(2x2, 3x3), for inference in float32 on a CPU.

Source: A. Lavin, S. Gray, arXiv:1509.09308, Section 4.1: a tile d of 4x4 pixels gives 2x2 pixels
A^T [(G g G^T) * (B^T d B)] A of the output, with the filter g. Summed over channels, the 16 products of all
tiles are 16 matrix products, by oneDNN: with AVX512 it is twice as fast as torch.bmm, which is MKL's.
Letters: N batch, H and W sides, C channels in, D channels out, h and w sides in tiles.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

MOST = 256  # tiles at a time; those of more leave the caches
FEWEST = 64  # tiles; with fewer, reading 16 C D weights takes longer than 20 C D products less
NARROWEST = 80  # channels, C D / (C + D): 20 C D products less a tile, and some 60 (C + D) values moved more
LEAST = 8_000_000  # tiles x C x D: a smaller product saves less than calling 16 for one costs


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether this is faster than a direct convolution (docs/fast.md), for (N, C, H, W) and (D, C, 3, 3)."""
    N, C, H, W = x.shape
    D, tiles = len(weight), N * H * W // 4
    return (
        x.dtype == torch.float32
        and weight.shape == (D, C, 3, 3)
        and H % 2 == W % 2 == 0
        and tiles >= FEWEST
        and C * D >= NARROWEST * (C + D)
        and tiles * C * D >= LEAST
    )


def transformed(weight: Tensor) -> tuple[tuple[Tensor, ...], ...]:
    """G g G^T of every filter, (D, C, 3, 3) -> 4 times 4 of (D, C), reordered for oneDNN."""
    G = weight.new_tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], dtype=torch.float64)
    rows = torch.einsum("ak,dckl,bl->abdc", G, weight.double(), G).to(weight.dtype)
    reorder = torch.ops.mkldnn._reorder_linear_weight
    return tuple(tuple(reorder(each.contiguous(), MOST) for each in row) for row in rows)


def winograd(x: Tensor, weights: tuple[tuple[Tensor, ...], ...], bias: Tensor | None) -> Tensor:
    """Convolve with padding 1 and stride 1, without gradient: (N, C, H, W) -> (N, D, H, W), channels last.

    Args:
        x: H and W even.
        weights: from `transformed`.
        bias: (D,).
    """
    N, C, H, W = x.shape
    D, h, w = len(weights[0][0]), H // 2, W // 2
    out = x.new_empty(N, h, 2, w, 2, D)
    pieces = min(N, -(-N * h * w // MOST))
    for of_x, of_out in zip(x.tensor_split(pieces), out.tensor_split(pieces), strict=True):
        padded = F.pad(of_x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))  # (n, H + 2, W + 2, C)
        n = len(padded)
        rows = x.new_empty(4, n, h, W + 2, C)
        _before([padded[:, i : i + H : 2] for i in range(4)], rows)
        tiles = x.new_empty(4, 4, n, h, w, C)
        _before([rows[:, :, :, j : j + W : 2] for j in range(4)], tiles.transpose(0, 1))
        columns = x.new_empty(2, 4, n, h, w, D)
        for j in range(4):  # the bias enters all four pixels once, through product (1, 1)
            _after(
                [_product(tiles[i, j], weights[i][j], bias if i == j == 1 else None) for i in range(4)],
                columns[:, j],
            )
        _after(columns.transpose(0, 1), of_out.permute(4, 2, 0, 1, 3, 5))
    return out.view(N, H, W, D).permute(0, 3, 1, 2)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def _before(d: Sequence[Tensor], out: Tensor) -> None:
    """B^T d of four rows or columns."""
    torch.sub(d[0], d[2], out=out[0])
    torch.add(d[1], d[2], out=out[1])
    torch.sub(d[2], d[1], out=out[2])
    torch.sub(d[1], d[3], out=out[3])


def _after(m: Sequence[Tensor] | Tensor, out: Tensor) -> None:
    """A^T m of four rows or columns."""
    torch.add(m[1], m[2], out=out[0]).add_(m[0])
    torch.sub(m[1], m[2], out=out[1]).sub_(m[3])
