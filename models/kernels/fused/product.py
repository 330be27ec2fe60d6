"""Products over the channels of images with what comes before and after them, in one pass over memory.

FCDM's block has two: the first ends in GELU and in the sums of squares of the response norm, the second
begins with the norm's scale and shift and ends in gate and residual. The U-Nets' join begins with a pixel
shuffle and a second image. Letters: N batch, H and W sides, C channels in, D channels out.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.kernels.backends import require_same
from models.kernels.fused.operator import computes, runs_triton
from models.kernels.packed import linear

# GELU


def gelu_product(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """h = GELU(x W^T + b), and the sum of h^2 over an image.

    Args:
        x: (N, H, W, C).
        weight: (D, C), or (D, C, 1, 1) of a 1x1 convolution.
        bias: (D,).

    Returns:
        h (N, H, W, D), and its sums of squares (N, D) in float32, or float64 for float64.

    Raises:
        ValueError: shapes that do not fit each other, different types or devices.
    """
    _check("gelu_product", x, weight, bias)
    if runs_triton(x):
        return _gelu(x, weight.flatten(1), bias)
    return gelu_product_reference(x, weight, bias)


def gelu_product_reference(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Torch's operators; on a CPU the product is oneDNN's."""
    h = linear(x, weight, bias, gelu="none")
    return h, (h * h).sum(dim=(1, 2), dtype=_sum_dtype(h))


def gelu_product_triton(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The Triton kernel, float32 sums, without gradient. Squares are those of h before it is rounded."""
    from models.kernels.fused.triton_product import launch, tiles_of

    out = _empty(x, len(weight))
    squares = x.new_empty(len(x), tiles_of(out), len(weight), dtype=torch.float32)
    launch(x.contiguous(), weight.contiguous(), bias, out, squares=squares)
    return out, squares.sum(dim=1)


# scale and shift before, gate and residual after


def scaled_product(
    x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, gate: Tensor, residual: Tensor
) -> Tensor:
    """residual + gate * ((x * scale + shift) W^T + b).

    Args:
        x: (N, H, W, C).
        scale: (N, C).
        shift: (C,).
        weight: (D, C), or (D, C, 1, 1) of a 1x1 convolution.
        bias: (D,).
        gate: (N, D).
        residual: (N, H, W, D).

    Returns:
        (N, H, W, D)

    Raises:
        ValueError: shapes that do not fit each other, different types or devices.
    """
    _check("scaled_product", x, weight, bias)
    require_same("scaled_product", x, scale, shift, gate, residual)
    wanted = ((len(x), x.shape[-1]), x.shape[-1:], (len(x), len(weight)), (*x.shape[:3], len(weight)))
    given = (scale.shape, shift.shape, gate.shape, residual.shape)
    if given != wanted:
        raise ValueError(f"scaled_product: needs {wanted}, got {tuple(map(tuple, given))}")
    if runs_triton(x):
        return _scaled(x, scale, shift, weight.flatten(1), bias, gate, residual)
    return scaled_product_reference(x, scale, shift, weight, bias, gate, residual)


def scaled_product_reference(
    x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, gate: Tensor, residual: Tensor
) -> Tensor:
    """Torch's operators; on a CPU the product is oneDNN's."""
    product = linear(torch.addcmul(shift, x, scale[:, None, None]), weight, bias)
    return torch.addcmul(residual, gate[:, None, None], product)


def scaled_product_triton(
    x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, gate: Tensor, residual: Tensor
) -> Tensor:
    """The Triton kernel, float32 sums, without gradient."""
    from models.kernels.fused.triton_product import launch

    out = _empty(x, len(weight))
    before, after = (scale.contiguous(), shift), (gate.contiguous(), residual.contiguous())
    launch(x.contiguous(), weight.contiguous(), bias, out, before=before, after=after)
    return out


# pixel shuffle and a second image before


def shuffled_product(x: Tensor, skip: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """[pixel_shuffle(x), skip] W^T + b: a 1x1 convolution of an upsampled image and its skip.

    Args:
        x: (N, H, W, 4 * C), in the channel order of torch.nn.functional.pixel_shuffle.
        skip: (N, 2H, 2W, C_skip).
        weight: (D, C + C_skip), or (D, C + C_skip, 1, 1).
        bias: (D,).

    Returns:
        (N, 2H, 2W, D)

    Raises:
        ValueError: shapes that do not fit each other, different types or devices.
    """
    N, H, W, _ = skip.shape
    if x.shape != (N, H // 2, W // 2, 4 * (weight.shape[1] - skip.shape[3])) or H % 2 or W % 2:
        shapes = ", ".join(str(tuple(one.shape)) for one in (x, skip, weight))
        raise ValueError(
            f"shuffled_product: takes (N, H, W, 4C), (N, 2H, 2W, S) and (D, C + S), got {shapes}"
        )
    require_same("shuffled_product", x, skip, weight, bias)
    if runs_triton(x):
        return _shuffled(x, skip, weight.flatten(1), bias)
    return shuffled_product_reference(x, skip, weight, bias)


def shuffled_product_reference(x: Tensor, skip: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Torch's operators: a sum of two products, without concatenation."""
    shuffled = F.pixel_shuffle(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)  # (N, 2H, 2W, C)
    of_shuffled, of_skip = weight.flatten(1).split((shuffled.shape[-1], skip.shape[-1]), dim=1)
    return F.linear(shuffled, of_shuffled, bias) + F.linear(skip, of_skip)


def shuffled_product_triton(x: Tensor, skip: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The Triton kernel, float32 sums, without gradient."""
    from models.kernels.fused.triton_product import launch

    out = _empty(skip, len(weight))
    launch(x.contiguous(), weight.contiguous(), bias, out, skip=skip.contiguous())
    return out


def _empty(like: Tensor, channels: int) -> Tensor:
    return like.new_empty(*like.shape[:3], channels)


def _sum_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _check(what: str, x: Tensor, weight: Tensor, bias: Tensor) -> None:
    D, C = len(weight), x.shape[-1]
    if x.dim() != 4 or weight.shape not in ((D, C), (D, C, 1, 1)) or bias.shape != (D,):
        shapes = ", ".join(str(tuple(given.shape)) for given in (x, weight, bias))
        raise ValueError(f"{what}: takes (N, H, W, C), (D, C) and (D,), got {shapes}")
    require_same(what, x, weight, bias)


# operators of torch, with gradients

Context = Any  # torch.autograd.function.FunctionCtx
Gradients = tuple[Tensor | None, ...]


def _save(ctx: Context, inputs: tuple[Tensor, ...], output: object) -> None:
    ctx.save_for_backward(*inputs)


@torch.library.custom_op("backbones::gelu_product", mutates_args=())
def _gelu(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    chosen = gelu_product_triton if computes(x) else gelu_product_reference
    return chosen(x, weight, bias)


@_gelu.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return _empty(x, len(weight)), x.new_empty(len(x), len(weight), dtype=_sum_dtype(x))


def _gelu_gradients(ctx: Context, of_h: Tensor, of_squares: Tensor) -> Gradients:
    x, weight, bias = ctx.saved_tensors
    z = F.linear(x, weight, bias)
    total = of_h + 2 * F.gelu(z) * of_squares[:, None, None].to(z.dtype)
    of_z = torch.ops.aten.gelu_backward(total, z)
    return of_z @ weight, _of_weight(of_z, x), of_z.sum(dim=(0, 1, 2))


_gelu.register_autograd(_gelu_gradients, setup_context=_save)


@torch.library.custom_op("backbones::scaled_product", mutates_args=())
def _scaled(
    x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, gate: Tensor, residual: Tensor
) -> Tensor:
    chosen: Callable[..., Tensor] = scaled_product_triton if computes(x) else scaled_product_reference
    return chosen(x, scale, shift, weight, bias, gate, residual)


@_scaled.register_fake
def _(
    x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, gate: Tensor, residual: Tensor
) -> Tensor:
    return _empty(x, len(weight))


def _scaled_gradients(ctx: Context, grad: Tensor) -> Gradients:
    x, scale, shift, weight, bias, gate, _ = ctx.saved_tensors
    scaled = torch.addcmul(shift, x, scale[:, None, None])
    of_gate = (grad * F.linear(scaled, weight, bias)).sum(dim=(1, 2))
    of_product = grad * gate[:, None, None]
    of_scaled = of_product @ weight
    return (
        of_scaled * scale[:, None, None],
        (of_scaled * x).sum(dim=(1, 2)),
        of_scaled.sum(dim=(0, 1, 2)),
        _of_weight(of_product, scaled),
        of_product.sum(dim=(0, 1, 2)),
        of_gate,
        grad,
    )


_scaled.register_autograd(_scaled_gradients, setup_context=_save)


@torch.library.custom_op("backbones::shuffled_product", mutates_args=())
def _shuffled(x: Tensor, skip: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    chosen = shuffled_product_triton if computes(x) else shuffled_product_reference
    return chosen(x, skip, weight, bias)


@_shuffled.register_fake
def _(x: Tensor, skip: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _empty(skip, len(weight))


def _shuffled_gradients(ctx: Context, grad: Tensor) -> Gradients:
    x, skip, weight, _ = ctx.saved_tensors
    width = x.shape[-1] // 4
    shuffled = F.pixel_shuffle(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    of_shuffled = (grad @ weight[:, :width]).permute(0, 3, 1, 2)
    of_weight = torch.cat([_of_weight(grad, shuffled), _of_weight(grad, skip)], dim=1)
    return (
        F.pixel_unshuffle(of_shuffled, 2).permute(0, 2, 3, 1),
        grad @ weight[:, width:],
        of_weight,
        grad.sum(dim=(0, 1, 2)),
    )


_shuffled.register_autograd(_shuffled_gradients, setup_context=_save)


def _of_weight(of_out: Tensor, x: Tensor) -> Tensor:
    """The gradient of W in x W^T: (N, H, W, D), (N, H, W, C) -> (D, C)."""
    return of_out.flatten(0, 2).T @ x.flatten(0, 2)
