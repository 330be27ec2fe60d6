"""Depthwise convolution, bias, layer norm over the channels, shift and scale: the start of FCDM's block.

Fused, an image is read once and written once; the convolution, the norm and the modulation of torch move
four times as much. Letters: N batch, H and W sides, C channels, K side of the window.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.kernels.backends import require_same
from models.kernels.depthwise import channels_last_weight
from models.kernels.fused.operator import computes, runs_triton
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
    if runs_triton(x):
        return _operator(x, weight, bias, shift, scale, eps)
    return depthwise_norm_reference(x, weight, bias, shift, scale, eps)


def depthwise_norm_reference(
    x: Tensor, weight: Tensor, bias: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6
) -> Tensor:
    """Torch's operators, in the type of the inputs."""
    return norm_modulate_reference(_convolved(x, weight, bias), shift, scale, eps)


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    padding = weight.shape[-1] // 2
    out = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=padding, groups=len(weight))
    return out.permute(0, 2, 3, 1)


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


Context = Any  # torch.autograd.function.FunctionCtx, which lacks the attributes that are set on it


@torch.library.custom_op("backbones::depthwise_norm", mutates_args=())
def _operator(x: Tensor, weight: Tensor, bias: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    chosen = depthwise_norm_triton if computes(x) else depthwise_norm_reference
    return chosen(x, weight, bias, shift, scale, eps).contiguous()


@_operator.register_fake
def _shape(x: Tensor, weight: Tensor, bias: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _save(ctx: Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Context, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias, _, scale = ctx.saved_tensors
    convolved = _convolved(x, weight, bias).contiguous()
    C, eps = x.shape[-1], ctx.eps
    normed, mean, rstd = torch.native_layer_norm(convolved, (C,), None, None, eps)
    of_norm = torch.ops.aten.native_layer_norm_backward(
        grad * (1 + scale[:, None, None]), convolved, [C], mean, rstd, None, None, [True, False, False]
    )[0]
    padding = [weight.shape[-1] // 2] * 2
    of_x, of_weight, of_bias = torch.ops.aten.convolution_backward(
        of_norm.permute(0, 3, 1, 2),
        x.permute(0, 3, 1, 2),
        weight,
        [C],
        *([1, 1], padding, [1, 1], False, [0, 0], C, [True, True, True]),
    )
    of_shift, of_scale = grad.sum(dim=(1, 2)), (grad * normed).sum(dim=(1, 2))
    return of_x.permute(0, 2, 3, 1), of_weight, of_bias, of_shift, of_scale, None


_operator.register_autograd(_gradients, setup_context=_save)
