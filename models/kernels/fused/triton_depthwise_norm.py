"""The Triton kernel of models.kernels.fused.depthwise_norm, in a file of its own because it imports triton.

A program has PIXELS neighbouring pixels of a row with all their channels, so that the norm needs no second
pass. It reads each of the K rows of a window once, PIXELS + K - 1 pixels of it, and adds every pixel to the
sums whose windows hold it: (PIXELS + K - 1) * K / PIXELS loads an output, which the caches serve.
"""

import triton
import triton.language as tl
from torch import Tensor
from triton.errors import TritonError

PIXELS = {2: 4, 4: 2}  # by the bytes of a value: float32 with 4 spills a few registers on sm_80 and sm_89
CHANNELS_OF_THREAD = 4  # (PIXELS + K + 1) values of each in registers: 48 at K = 7, 64 at K = 11


@triton.jit
def depthwise_norm_kernel(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    shift: tl.tensor,
    scale: tl.tensor,
    out: tl.tensor,
    height: int,
    width: int,
    eps: float,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
    K: tl.constexpr,
    PIXELS: tl.constexpr,
) -> None:
    """One program computes PIXELS pixels of a row of an image; BLOCK is at least CHANNELS."""
    strips = tl.cdiv(width, PIXELS)
    left = tl.program_id(0) % strips * PIXELS
    y = tl.program_id(0) // strips % height
    image = tl.program_id(0) // strips // height
    start = image.to(tl.int64) * height * width * CHANNELS
    c = tl.arange(0, BLOCK)
    here = c < CHANNELS
    first = tl.load(bias + c, mask=here, other=0.0).to(tl.float32)
    sums = ()
    for _ in tl.static_range(PIXELS):
        sums += (first,)
    for dy in range(K):
        row = y + dy - K // 2
        valid = here & (row >= 0) & (row < height)
        taps = ()
        for dx in tl.static_range(K):
            taps += (tl.load(weight + (dy * K + dx) * CHANNELS + c, mask=here, other=0.0).to(tl.float32),)
        for p in tl.static_range(PIXELS + K - 1):
            column = left + p - K // 2
            place = start + (row * width + column) * CHANNELS + c
            value = tl.load(x + place, mask=valid & (column >= 0) & (column < width), other=0.0).to(
                tl.float32
            )
            added = ()
            for q in tl.static_range(PIXELS):
                if p >= q and p < q + K:
                    added += (sums[q] + value * taps[p - q],)
                else:
                    added += (sums[q],)
            sums = added
    by = 1 + tl.load(scale + image * CHANNELS + c, mask=here, other=0.0).to(tl.float32)
    to = tl.load(shift + image * CHANNELS + c, mask=here, other=0.0).to(tl.float32)
    for q in tl.static_range(PIXELS):
        centred = tl.where(here, sums[q] - tl.sum(sums[q], axis=0) / CHANNELS, 0.0)
        deviation = tl.rsqrt(tl.sum(centred * centred, axis=0) / CHANNELS + eps)
        place = start + (y * width + left + q) * CHANNELS + c
        value = centred * deviation * by + to
        tl.store(out + place, value.to(out.dtype.element_ty), mask=here & (left + q < width))


def launch(
    x: Tensor, taps: Tensor, bias: Tensor, shift: Tensor, scale: Tensor, out: Tensor, eps: float
) -> None:
    """Fill `out`; all are contiguous, taps are (K, K, C).

    Raises:
        RuntimeError: Triton cannot compile it for this device.
    """
    N, H, W, C = x.shape
    tile = options(C, len(taps), x.element_size())
    grid = (N * H * triton.cdiv(W, tile["PIXELS"]),)
    try:
        depthwise_norm_kernel[grid](x, taps, bias, shift, scale, out, H, W, eps, **tile)
    except TritonError as error:
        raise RuntimeError(
            f"depthwise_norm: Triton {triton.__version__} cannot run it here: {error}"
        ) from error


def options(channels: int, kernel: int, value_bytes: int) -> dict[str, int]:
    """Constants and warps of the kernel."""
    block = triton.next_power_of_2(channels)
    warps = min(16, max(1, block // (32 * CHANNELS_OF_THREAD)))
    pixels = PIXELS[value_bytes]
    return {"CHANNELS": channels, "BLOCK": block, "K": kernel, "PIXELS": pixels, "num_warps": warps}
