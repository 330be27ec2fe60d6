"""3x3 convolutions with 16 products for 36: Winograd's F(2x2, 3x3), for inference in float32 on a CPU.

Source: A. Lavin, S. Gray, arXiv:1509.09308, Section 4.1: a tile d of 4x4 pixels gives 2x2 pixels
A^T [(G g G^T) * (B^T d B)] A of the output, with the filter g. Summed over channels, the 16 products of all
tiles are 16 matrix products.
Letters: N batch, H and W sides, C channels in, D channels out, h and w sides in tiles.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

MOST = 256  # tiles at a time; those of more leave the caches
FEWEST = 128  # tiles; with fewer, reading 16 C D weights takes longer than 20 C D products less
NARROWEST = 80  # channels, C D / (C + D): 20 C D products less a tile, and some 60 (C + D) values moved more


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether this is faster than a direct convolution (docs/fast.md), for (N, C, H, W) and (D, C, 3, 3)."""
    N, C, H, W = x.shape
    D = len(weight)
    return (
        x.dtype == torch.float32
        and weight.shape == (D, C, 3, 3)
        and H % 2 == W % 2 == 0
        and N * H * W >= 4 * FEWEST
        and C * D >= NARROWEST * (C + D)
    )


def transformed(weight: Tensor) -> Tensor:
    """G g G^T of every filter: (D, C, 3, 3) -> (16, C, D)."""
    G = weight.new_tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], dtype=torch.float64)
    return torch.einsum("ak,dckl,bl->abcd", G, weight.double(), G).flatten(0, 1).to(weight.dtype).contiguous()


def winograd(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve with padding 1 and stride 1, without gradient: (N, C, H, W) -> (N, D, H, W), channels last.

    Args:
        x: H and W even.
        weight: from `transformed`.
        bias: (D,).
    """
    N, C, H, W = x.shape
    D, h, w = weight.shape[2], H // 2, W // 2
    out = x.new_empty(N, h, 2, w, 2, D)
    pieces = min(N, -(-N * h * w // MOST))
    for of_x, of_out in zip(x.tensor_split(pieces), out.tensor_split(pieces), strict=True):
        padded = F.pad(of_x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))  # (n, H + 2, W + 2, C)
        n = len(padded)
        rows = x.new_empty(4, n, h, W + 2, C)
        _before([padded[:, i : i + H : 2] for i in range(4)], rows)
        tiles = x.new_empty(4, 4, n, h, w, C)
        _before([rows[:, :, :, j : j + W : 2] for j in range(4)], tiles.transpose(0, 1))
        products = torch.bmm(tiles.view(16, n * h * w, C), weight).view(4, 4, n, h, w, D)
        if bias is not None:
            products[1, 1].add_(bias)  # it enters all four pixels once
        columns = x.new_empty(2, 4, n, h, w, D)
        _after(products, columns)
        _after(columns.transpose(0, 1), of_out.permute(4, 2, 0, 1, 3, 5))
    return out.view(N, H, W, D).permute(0, 3, 1, 2)


def _before(d: Sequence[Tensor], out: Tensor) -> None:
    """B^T d of four rows or columns."""
    torch.sub(d[0], d[2], out=out[0])
    torch.add(d[1], d[2], out=out[1])
    torch.sub(d[2], d[1], out=out[2])
    torch.sub(d[1], d[3], out=out[3])


def _after(m: Tensor, out: Tensor) -> None:
    """A^T m of four rows or columns."""
    torch.add(m[1], m[2], out=out[0]).add_(m[0])
    torch.sub(m[1], m[2], out=out[1]).sub_(m[3])
