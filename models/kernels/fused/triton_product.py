"""The Triton kernel of models.kernels.fused.product, in a file of its own because it imports triton.

A program computes a tile of pixels of one image by channels. What precedes and follows the product is chosen
when the kernel is compiled: no other kernel has its loop.
"""

import triton
import triton.language as tl
from torch import Tensor
from triton.errors import TritonError

from models.kernels.backends import interpreted
from models.kernels.fused.operator import precision

CHANNELS, INNER = 128, 32  # of a tile out, and of a step


@triton.jit
def product_kernel(
    x: tl.tensor,
    skip: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    scale: tl.tensor,
    shift: tl.tensor,
    gate: tl.tensor,
    residual: tl.tensor,
    out: tl.tensor,
    squares: tl.tensor,
    pixels: int,
    width: int,
    C: tl.constexpr,
    SKIP: tl.constexpr,
    D: tl.constexpr,
    SCALED: tl.constexpr,
    SHIFTED: tl.constexpr,
    GATED: tl.constexpr,
    GELU: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    INNER: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
) -> None:
    """A tile of out; C channels of x, SKIP of a second image, 0 for none; width is that of out."""
    columns = tl.cdiv(D, CHANNELS)
    tiles = tl.cdiv(pixels, PIXELS)
    d = tl.program_id(0) % columns * CHANNELS + tl.arange(0, CHANNELS)
    tile = tl.program_id(0) // columns % tiles
    image = (tl.program_id(0) // columns // tiles).to(tl.int64)
    p = tile * PIXELS + tl.arange(0, PIXELS)
    inside = p < pixels
    row = image * pixels + p
    if SKIP:  # x is shuffled: pixel (i, j) of out is in pixel (i // 2, j // 2) of x, in every fourth channel
        i, j = p // width, p % width
        source = (image * (pixels // 4) + (i // 2) * (width // 2) + j // 2) * (4 * C) + i % 2 * 2 + j % 2
    else:
        source = row * C
    total = tl.zeros((PIXELS, CHANNELS), dtype=tl.float32)
    for first in range(0, C, INNER):
        c = first + tl.arange(0, INNER)
        place = source[:, None] + (c[None, :] * 4 if SKIP else c[None, :])
        a = tl.load(x + place, mask=inside[:, None] & (c < C)[None, :], other=0.0)
        if SCALED:
            scaled = a.to(tl.float32)
            scaled *= tl.load(scale + image * C + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
            if SHIFTED:
                scaled += tl.load(shift + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
            a = scaled.to(x.dtype.element_ty)
        b = tl.load(
            weight + d[None, :] * (C + SKIP) + c[:, None], mask=(d < D)[None, :] & (c < C)[:, None], other=0.0
        )
        if INTERPRETED:  # the interpreter multiplies the bits of bf16 as whole numbers
            a, b = a.to(tl.float32), b.to(tl.float32)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    for first in range(0, SKIP, INNER):
        c = first + tl.arange(0, INNER)
        mask = inside[:, None] & (c < SKIP)[None, :]
        a = tl.load(skip + row[:, None] * SKIP + c[None, :], mask=mask, other=0.0)
        mask = (d < D)[None, :] & (c < SKIP)[:, None]
        b = tl.load(weight + d[None, :] * (C + SKIP) + C + c[:, None], mask=mask, other=0.0)
        if INTERPRETED:  # the interpreter multiplies the bits of bf16 as whole numbers
            a, b = a.to(tl.float32), b.to(tl.float32)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    total += tl.load(bias + d, mask=d < D, other=0.0).to(tl.float32)[None, :]
    written = inside[:, None] & (d < D)[None, :]
    place = row[:, None] * D + d[None, :]
    if GELU:
        total = 0.5 * total * (1 + tl.erf(total * 0.7071067811865476))
        kept = tl.where(inside[:, None], total, 0.0)
        partial = squares + (image * tiles + tile) * D + d
        tl.store(partial, tl.sum(kept * kept, axis=0), mask=d < D)
    if GATED:
        by = tl.load(gate + image * D + d, mask=d < D, other=0.0).to(tl.float32)
        total = tl.load(residual + place, mask=written, other=0.0).to(tl.float32) + by[None, :] * total
    tl.store(out + place, total.to(out.dtype.element_ty), mask=written)


def tiles_of(out: Tensor) -> int:
    """Tiles of pixels of an image (N, H, W, D)."""
    return int(triton.cdiv(out.shape[1] * out.shape[2], _pixels(out)))


def _pixels(out: Tensor) -> int:
    most = 64 if out.element_size() == 4 else 128
    return int(min(most, max(16, triton.next_power_of_2(out.shape[1] * out.shape[2]))))


def options(out: Tensor, *, scaled: bool) -> dict[str, int]:
    """Size of a tile, and warps, with which no kernel spills registers (baselines/kernel_resources.csv)."""
    channels = min(CHANNELS, max(16, triton.next_power_of_2(out.shape[-1])))
    channels = min(64, channels) if out.element_size() == 4 else channels
    warps = 8 if _pixels(out) * channels >= 128 * 128 or (scaled and out.element_size() == 4) else 4
    return {"PIXELS": _pixels(out), "CHANNELS": channels, "INNER": INNER, "num_warps": warps}


def launch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    out: Tensor,
    *,
    skip: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    after: tuple[Tensor, Tensor] | None = None,
    squares: Tensor | None = None,
) -> None:
    """Fill `out`, and `squares` if given, which ask for GELU; all are contiguous.

    Raises:
        RuntimeError: Triton cannot compile it for this device.
    """
    if not out.numel():
        return
    N, H, W, D = out.shape
    tile = options(out, scaled=scale is not None)
    grid = (N * tiles_of(out) * triton.cdiv(D, tile["CHANNELS"]),)
    gate, residual = after or (None, None)
    what = {
        "C": x.shape[-1] if skip is None else x.shape[-1] // 4,
        "SKIP": 0 if skip is None else skip.shape[-1],
        "D": D,
        "SCALED": scale is not None,
        "SHIFTED": shift is not None,
        "GATED": after is not None,
        "GELU": squares is not None,
        "PRECISION": precision(x),
        "INTERPRETED": interpreted(),
    }
    pointers = (x, skip, weight, bias, scale, shift, gate, residual, out, squares)
    given = [x if one is None else one for one in pointers]  # those of None are not read
    try:
        product_kernel[grid](*given, H * W, W, **what, **tile)
    except TritonError as error:
        raise RuntimeError(f"product: Triton {triton.__version__} cannot run it here: {error}") from error
