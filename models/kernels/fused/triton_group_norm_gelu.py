"""The Triton kernel of models.kernels.fused.group_norm_gelu, in a file of its own because it imports triton.

A program has some neighbouring groups of an image: so many that their channels of a pixel fill whole sectors
of memory. It walks over the pixels twice, for the moments and for the output. The second time it finds them
in the caches, unless the images that are in work exceed them.
"""

import math

import triton
import triton.language as tl
from torch import Tensor
from triton.errors import TritonError

SECTOR = 32  # bytes
TILE = 4096  # values of a step: 32 of a thread of 4 warps


@triton.jit
def group_norm_gelu_kernel(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    shift: tl.tensor,
    scale: tl.tensor,
    out: tl.tensor,
    pixels: int,
    eps: float,
    GROUPS: tl.constexpr,
    WIDTH: tl.constexpr,
    MODULATED: tl.constexpr,
    TOGETHER: tl.constexpr,
    BLOCK: tl.constexpr,
    PIXELS: tl.constexpr,
) -> None:
    """TOGETHER of the GROUPS groups of an image, PIXELS pixels a step; BLOCK is at least WIDTH channels."""
    CHANNELS: tl.constexpr = GROUPS * WIDTH
    PARTS: tl.constexpr = GROUPS // TOGETHER
    image = tl.program_id(0) // PARTS
    k = tl.arange(0, BLOCK)[None, :]
    c = (tl.program_id(0) % PARTS * TOGETHER + tl.arange(0, TOGETHER))[:, None] * WIDTH + k
    here = (k < WIDTH) & (c >= 0)  # (TOGETHER, BLOCK)
    p = tl.arange(0, PIXELS)[:, None, None]
    place = image.to(tl.int64) * pixels * CHANNELS + p * CHANNELS + c[None]  # (PIXELS, TOGETHER, BLOCK)

    # moments of the pixels so far, joined with those of a step (Chan, Golub and LeVeque, 1979)
    mean = tl.zeros((TOGETHER,), tl.float32)
    squares = tl.zeros((TOGETHER,), tl.float32)
    for first in range(0, pixels, PIXELS):
        inside = (first + p < pixels) & here[None]
        values = tl.load(x + place + first * CHANNELS, mask=inside, other=0.0).to(tl.float32)
        count = tl.minimum(PIXELS, pixels - first).to(tl.float32)
        share = count / (first + count)
        of_step = tl.sum(tl.sum(values, axis=2), axis=0) / (count * WIDTH)
        centred = tl.where(inside, values - of_step[None, :, None], 0.0)
        off = of_step - mean
        squares += tl.sum(tl.sum(centred * centred, axis=2), axis=0) + off * off * (first * share * WIDTH)
        mean += off * share
    deviation = tl.rsqrt(squares / (pixels * WIDTH) + eps)

    by = tl.load(weight + c, mask=here, other=0.0).to(tl.float32) * deviation[:, None]
    to = tl.load(bias + c, mask=here, other=0.0).to(tl.float32)
    if MODULATED:
        factor = 1 + tl.load(scale + image * CHANNELS + c, mask=here, other=0.0).to(tl.float32)
        by *= factor
        to = to * factor + tl.load(shift + image * CHANNELS + c, mask=here, other=0.0).to(tl.float32)
    for first in range(0, pixels, PIXELS):
        inside = (first + p < pixels) & here[None]
        values = tl.load(x + place + first * CHANNELS, mask=inside, other=0.0).to(tl.float32)
        values = (values - mean[None, :, None]) * by[None] + to[None]
        values = 0.5 * values * (1 + tl.erf(values * 0.7071067811865476))
        tl.store(out + place + first * CHANNELS, values.to(out.dtype.element_ty), mask=inside)


def launch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    modulation: tuple[Tensor, Tensor] | None,
    out: Tensor,
    groups: int,
    eps: float,
) -> None:
    """Fill `out`; all are contiguous, the modulation is (shift, scale).

    Raises:
        RuntimeError: Triton cannot compile it for this device.
    """
    N, H, W, C = x.shape
    shift, scale = modulation or (x, x)  # not read
    tile = options(H * W, C, groups, x.element_size(), modulated=modulation is not None)
    grid = (N * groups // tile["TOGETHER"],)
    try:
        group_norm_gelu_kernel[grid](x, weight, bias, shift, scale, out, H * W, eps, **tile)
    except TritonError as error:
        raise RuntimeError(
            f"group_norm_gelu: Triton {triton.__version__} cannot run it here: {error}"
        ) from error


def options(pixels: int, channels: int, groups: int, value_bytes: int, *, modulated: bool) -> dict[str, int]:
    """Constants and warps of the kernel."""
    width = channels // groups
    together = math.gcd(SECTOR // math.gcd(SECTOR, width * value_bytes), groups)  # a power of two
    block = triton.next_power_of_2(width)
    step = max(1, min(TILE // (together * block), triton.next_power_of_2(pixels)))
    return {
        "GROUPS": groups,
        "WIDTH": width,
        "MODULATED": modulated,
        "TOGETHER": together,
        "BLOCK": block,
        "PIXELS": step,
        "num_warps": 4,
    }
