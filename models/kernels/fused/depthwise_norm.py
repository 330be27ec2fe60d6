"""Depthwise convolution, bias, layer norm over the channels, shift and scale: the start of FCDM's block.

Fused, an image is read once and written once; the convolution, the norm and the modulation of torch move
four times as much. Letters: N batch, H and W sides, C channels, K side of the window.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.kernels.backends import require_same
from models.kernels.depthwise import channels_last_weight
from models.kernels.fused.operator import operator
from models.kernels.norm_modulate import norm_modulate_reference


def depthwise_norm(
    x: Tensor, weight: Tensor, bias: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6
) -> Tensor:
    """norm(conv(x) + bias) * (1 + scale) + shift: (N, H, W, C) -> (N, H, W, C).

    Args:
        x: images.
        weight: (C, 1, K, K) of a torch.nn.Conv2d, K odd.
        bias: (C,).
        shift, scale: (N, C).
        eps: of the norm.

    Raises:
        ValueError: shapes that do not fit each other, an even K, different types or devices.
    """
    N, _, _, C = x.shape
    K = weight.shape[-1]
    if K % 2 == 0 or (weight.shape, bias.shape, shift.shape, scale.shape) != (
        (C, 1, K, K),
        (C,),
        (N, C),
        (N, C),
    ):
        shapes = ", ".join(str(tuple(given.shape)) for given in (x, weight, bias, shift, scale))
        raise ValueError(
            f"depthwise_norm: takes (N, H, W, C), (C, 1, K, K) with K odd, (C,), (N, C), (N, C), got {shapes}"
        )
    require_same("depthwise_norm", x, weight, bias, shift, scale)
    return _depthwise_norm(x, weight, bias, shift, scale, eps)


def depthwise_norm_reference(
    x: Tensor, weight: Tensor, bias: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6
) -> Tensor:
    """Torch's operators, in the type of the inputs."""
    padding = weight.shape[-1] // 2
    h = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=padding, groups=len(weight))
    return norm_modulate_reference(h.permute(0, 2, 3, 1), shift, scale, eps)


def depthwise_norm_triton(
    x: Tensor, weight: Tensor, bias: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6
) -> Tensor:
    """The Triton kernel, float32 inside, without gradient."""
    from models.kernels.fused.triton_depthwise_norm import launch

    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    if out.numel():
        taps = channels_last_weight(weight)
        launch(x.contiguous(), taps, bias.contiguous(), shift.contiguous(), scale.contiguous(), out, eps)
    return out


_depthwise_norm = operator("depthwise_norm", depthwise_norm_reference, depthwise_norm_triton)
