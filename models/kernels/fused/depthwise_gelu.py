"""Depthwise convolution, bias, GELU, and the average of every channel: the start of DiCo's channel attention.

Fused, an image is read once and written once; the three operators of torch move two and a half times as much.
Letters: N batch, H and W sides, C channels, K side of the window.
"""

import torch
from torch import Tensor

from models.kernels.backends import require_same
from models.kernels.depthwise import channels_last_weight
from models.kernels.fused.operator import operator
from models.kernels.packed import Place, placed_convolution
from models.kernels.tiling import Tiling

# 10 pixels are read for 8 of a row, and 24 sums stay in the registers of a thread at K = 3
TILING = Tiling(columns=8)


def depthwise_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """h = GELU(conv(x) + bias), and its average over an image.

    Args:
        x: (N, H, W, C).
        weight: (C, 1, K, K) of a torch.nn.Conv2d, K odd.
        bias: (C,).

    Returns:
        h (N, H, W, C), and its averages (N, C).

    Raises:
        ValueError: shapes that do not fit each other, an even K, different types or devices.
    """
    C, K = x.shape[-1], weight.shape[-1]
    if x.dim() != 4 or K % 2 == 0 or (weight.shape, bias.shape) != ((C, 1, K, K), (C,)):
        shapes = ", ".join(str(tuple(given.shape)) for given in (x, weight, bias))
        raise ValueError(
            f"depthwise_gelu: takes (N, H, W, C), (C, 1, K, K) with K odd and (C,), got {shapes}"
        )
    require_same("depthwise_gelu", x, weight, bias)
    return _depthwise_gelu(x, weight, bias)


def depthwise_gelu_reference(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Torch's operators; on a CPU oneDNN computes GELU before a value is written.

    Tensor.mean copies bf16 to float32 first; a sum does not, and is one of float32 as well. One of float16
    might exceed its range.
    """
    half = weight.shape[-1] // 2
    place = Place(padding=(half, half), groups=len(weight))
    h = placed_convolution(x.permute(0, 3, 1, 2), weight, bias, place, gelu=True).permute(0, 2, 3, 1)
    if h.dtype == torch.bfloat16:
        return h, h.sum(dim=(1, 2)) / (h.shape[1] * h.shape[2])
    return h, h.mean(dim=(1, 2))


def depthwise_gelu_triton(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The Triton kernel, float32 inside, without gradient. Averages are those of h before it is rounded."""
    from models.kernels.triton_depthwise import launch

    N, H, W, C = x.shape
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    totals = x.new_empty(N, TILING.programs(H, W), C, dtype=torch.float32)
    if out.numel():
        launch(x.contiguous(), channels_last_weight(weight), bias, out, TILING, totals)
    return out, (totals.sum(dim=1) / (H * W)).to(x.dtype)


_depthwise_gelu = operator("depthwise_gelu", depthwise_gelu_reference, depthwise_gelu_triton)
