"""Depthwise convolution with a bias over channels-last images: a K x K window per channel.

FCDM's blocks begin with it (models/fcdm.py; K = 7). The output has the size of the input, padded with zeros.
Letters: N batch, H and W sides, C channels, K side of the window, which is odd.

One image costs K^2 H W C multiply-accumulates and at least H W C values read and as many written. At 256 px
the three levels of FCDM-XL, (H, C) = (32, 512), (16, 1024) and (8, 2048), are 25.7, 12.8 and 6.4 million
MACs, and 2.10, 1.05 and 0.52 MB in bf16 or twice that in fp32; at 512 px four times as much. That is 24.5
FLOPs per byte in bf16 and 12 in fp32. Nothing is summed over channels, so tensor cores do not help, and
without them an H200 does 14 FLOPs per byte of its memory bandwidth (data sheet): multiply-adds are the limit
in bf16, both in fp32. So the kernel issues little else: see models/kernels/triton_depthwise.py.

Where `why_not_triton` gives a reason, torch's convolution computes it: on a CPU, for meta tensors, with
gradients, for K above 9 and for float64. To torch.compile and to FLOP counters the kernel is one operator.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from models.kernels.backends import interpreted, require_same, why_not_forward
from models.kernels.tiling import Tiling

LARGEST = 9  # K; the weights of a channel of a larger window do not fit the registers of a thread


def depthwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve: (N, H, W, C), (K, K, C), (C,) -> (N, H, W, C), all of one type; sums in float32 at least.

    Args:
        x: images, channels last.
        weight: from `channels_last_weight`.
        bias: of every channel.

    Raises:
        ValueError: shapes that do not fit each other, an even K, different types or devices.
    """
    _check(x, weight, bias)
    if why_not_triton(x, weight, bias):
        return depthwise_reference(x, weight, bias)
    return _depthwise(x, weight, bias)


def depthwise_reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Torch's convolution, in the type of its inputs."""
    filters = weight.permute(2, 0, 1)[:, None]  # (C, 1, K, K)
    y = F.conv2d(x.permute(0, 3, 1, 2), filters, bias, padding=len(weight) // 2, groups=x.shape[-1])
    return y.permute(0, 2, 3, 1)


def channels_last_weight(weight: Tensor) -> Tensor:
    """The weight of a torch.nn.Conv2d in this layout: (C, 1, K, K) -> (K, K, C)."""
    return weight[:, 0].permute(1, 2, 0).contiguous()


def why_not_triton(x: Tensor, weight: Tensor, bias: Tensor) -> str:
    """Why the Triton kernel cannot take a call; empty where it can."""
    if len(weight) > LARGEST:
        return f"the kernel takes windows of up to {LARGEST}, got {len(weight)}"
    return why_not_forward(x, weight, bias)


def depthwise_triton(x: Tensor, weight: Tensor, bias: Tensor, tiling: Tiling | None = None) -> Tensor:
    """The Triton kernel: forward only, where `why_not_triton` is empty or Triton interprets.

    Args:
        x, weight, bias: as for `depthwise`.
        tiling: default the fastest of a few, timed on the first call of a size; interpreted, `Tiling()`.

    Raises:
        RuntimeError: Triton cannot compile it for this device.
    """
    from models.kernels.triton_depthwise import launch

    x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
    out = torch.empty_like(x)
    if out.numel():
        launch(x, weight, bias, out, Tiling() if tiling is None and interpreted() else tiling)
    return out


def _check(x: Tensor, weight: Tensor, bias: Tensor) -> None:
    if x.dim() != 4 or weight.dim() != 3 or bias.shape != x.shape[3:] or weight.shape[2:] != x.shape[3:]:
        shapes = ", ".join(str(tuple(given.shape)) for given in (x, weight, bias))
        raise ValueError(f"depthwise: takes (N, H, W, C), (K, K, C) and (C,), got {shapes}")
    if weight.shape[0] != weight.shape[1] or len(weight) % 2 == 0:
        raise ValueError(
            f"depthwise: the window must be square and odd, got {tuple(weight.shape[:2])}; (7, 7) would work"
        )
    require_same("depthwise", x, weight, bias)


@torch.library.custom_op("backbones::depthwise", mutates_args=())
def _depthwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return depthwise_triton(x, weight, bias)


@_depthwise.register_fake
def _shape(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@register_flop_formula(torch.ops.backbones.depthwise)
def _flops(x: torch.Size, weight: torch.Size, bias: torch.Size, **_: Any) -> int:  # noqa: ANN401
    return 2 * x.numel() * weight[0] * weight[1]
