"""Products over the channels of images with what comes before and after them, in one pass over memory.

FCDM's block has two: the first ends in GELU and in the sums of squares of the response norm, the second
begins with the norm's scale and shift and ends in gate and residual. The U-Nets' join begins with a pixel
shuffle and a second image. Letters: N batch, H and W sides, C channels in, D channels out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.kernels.backends import require_same
from models.kernels.fused.operator import operator, runs_triton
from models.kernels.packed import linear

# GELU


def gelu_product(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """h = GELU(x W^T + b), and the sum of h^2 over an image.

    Args:
        x: (N, H, W, C).
        weight: (D, C), or (D, C, 1, 1) of a 1x1 convolution.
        bias: (D,).

    Returns:
        h (N, H, W, D), and its sums of squares (N, D) in float32, or float64 for float64; on a CPU in bf16
        they are sums in float32 that were rounded to bf16.

    Raises:
        ValueError: shapes that do not fit each other, different types or devices.
    """
    _check("gelu_product", x, weight, bias)
    return _gelu(x, weight, bias)


def gelu_product_reference(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Torch's operators; on a CPU the product is oneDNN's.

    There a sum with another `dtype` copies all squares to it first; without, it sums bf16 in float32 as well.
    """
    h = linear(x, weight, bias, gelu="none")
    wanted = torch.float64 if h.dtype == torch.float64 else torch.float32
    if h.device.type == "cpu" and h.dtype == torch.bfloat16:
        return h, (h * h).sum(dim=(1, 2)).to(wanted)
    return h, (h * h).sum(dim=(1, 2), dtype=wanted)


def gelu_product_triton(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The Triton kernel, float32 sums, without gradient. Squares are those of h before it is rounded."""
    from models.kernels.fused.triton_product import launch, tiles_of

    out = _empty(x, len(weight))
    squares = x.new_empty(len(x), tiles_of(out), len(weight), dtype=torch.float32)
    launch(x.contiguous(), weight.contiguous(), bias, out, squares=squares)
    return out, squares.sum(dim=1)


def gelu_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """h of `gelu_product` alone: (N, H, W, C) -> (N, H, W, D)."""
    return gelu_product(x, weight, bias)[0] if runs_triton(x) else linear(x, weight, bias, gelu="none")


# scale and shift before, gate and residual after


def scaled_product(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    gate: Tensor,
    residual: Tensor,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
) -> Tensor:
    """residual + gate * ((x * scale + shift) W^T + b).

    Args:
        x: (N, H, W, C).
        weight: (D, C), or (D, C, 1, 1) of a 1x1 convolution.
        bias: (D,).
        gate: (N, D).
        residual: (N, H, W, D).
        scale: (N, C).
        shift: (C,); only with a scale.

    Returns:
        (N, H, W, D)

    Raises:
        ValueError: shapes that do not fit each other, different types or devices.
    """
    _check("scaled_product", x, weight, bias)
    N, C, D = len(x), x.shape[-1], len(weight)
    vectors = ((gate, (N, D)), (residual, (*x.shape[:3], D)), (scale, (N, C)), (shift, (C,)))
    given, wanted = zip(*(pair for pair in vectors if pair[0] is not None), strict=True)
    require_same("scaled_product", x, *given)
    if (found := tuple(tuple(one.shape) for one in given)) != wanted:
        raise ValueError(f"scaled_product: needs {wanted}, got {found}")
    return _scaled(x, weight, bias, gate, residual, scale, shift)


def scaled_product_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    gate: Tensor,
    residual: Tensor,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
) -> Tensor:
    """Torch's operators; on a CPU the product is oneDNN's."""
    if scale is not None:
        by = scale[:, None, None]
        x = x * by if shift is None else torch.addcmul(shift, x, by)
    return torch.addcmul(residual, gate[:, None, None], linear(x, weight, bias))


def scaled_product_triton(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    gate: Tensor,
    residual: Tensor,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
) -> Tensor:
    """The Triton kernel, float32 sums, without gradient."""
    from models.kernels.fused.triton_product import launch

    out = _empty(x, len(weight))
    scale = None if scale is None else scale.contiguous()
    after = (gate.contiguous(), residual.contiguous())
    launch(x.contiguous(), weight.contiguous(), bias, out, scale=scale, shift=shift, after=after)
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
    return _shuffled(x, skip, weight, bias)


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


def _check(what: str, x: Tensor, weight: Tensor, bias: Tensor) -> None:
    D, C = len(weight), x.shape[-1]
    if x.dim() != 4 or weight.shape not in ((D, C), (D, C, 1, 1)) or bias.shape != (D,):
        shapes = ", ".join(str(tuple(given.shape)) for given in (x, weight, bias))
        raise ValueError(f"{what}: takes (N, H, W, C), (D, C) and (D,), got {shapes}")
    require_same(what, x, weight, bias)


_gelu = operator("gelu_product", gelu_product_reference, gelu_product_triton)
_scaled = operator("scaled_product", scaled_product_reference, scaled_product_triton)
_shuffled = operator("shuffled_product", shuffled_product_reference, shuffled_product_triton)
