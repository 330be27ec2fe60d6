"""The Triton kernel of models.kernels.depthwise and of models.kernels.fused.depthwise_gelu.

In a file of its own because it imports triton.

A thread has one or two channels. A program walks down a strip of COLUMNS columns and reads each pixel of a
row once, with K // 2 more on either side; the K x K weights stay in registers, and so do the sums of the K
output rows that an input row adds to. So an output costs K^2 multiply-adds and (COLUMNS + K - 1) / COLUMNS
loads, not K^2 of them. The next row is loaded while the current one is computed.
"""

import functools
from typing import Any

import triton
import triton.language as tl
from torch import Tensor
from triton.errors import TritonError

from models.kernels.tiling import Tiling


@triton.jit
def _row(
    x: tl.tensor,
    left: tl.tensor,
    width: int,
    valid: tl.tensor,
    CHANNELS: tl.constexpr,
    COUNT: tl.constexpr,
) -> tl.tuple:
    """COUNT pixels from column left on, zeros outside the image; x points at the row's first one."""
    pixels = ()
    x += left * CHANNELS
    for p in tl.static_range(COUNT):
        column = left + p
        inside = (column >= 0) & (column < width) & valid
        pixels += (tl.load(x + p * CHANNELS, mask=inside, other=0.0),)
    return pixels


@triton.jit
def _store(
    target: tl.tensor, value: tl.tensor, inside: tl.tensor, total: tl.tensor, GELU: tl.constexpr
) -> tl.tensor:
    """Write one pixel, with GELU if asked for; returns the total so far, which only GELU adds to."""
    if GELU:
        value = 0.5 * value * (1 + tl.erf(value * 0.7071067811865476))
        total += tl.where(inside, value, 0.0)
    tl.store(target, value.to(target.dtype.element_ty), mask=inside)
    return total


@triton.jit(do_not_specialize=["rows"])
def depthwise_kernel(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    totals: tl.tensor,
    height: int,
    width: int,
    rows: int,
    CHANNELS: tl.constexpr,
    K: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    GELU: tl.constexpr,
) -> None:
    """One program computes `rows` rows of a strip of COLUMNS columns, for BLOCK channels of an image.

    With GELU it also writes its totals, of every channel: (N, bands * strips, C).
    """
    P: tl.constexpr = K // 2
    BLOCKS: tl.constexpr = (CHANNELS + BLOCK - 1) // BLOCK
    COUNT: tl.constexpr = COLUMNS + K - 1
    program = tl.program_id(0)
    strips, bands = tl.cdiv(width, COLUMNS), tl.cdiv(height, rows)
    # neighbouring programs share an image, so that they find its borders in the cache
    c = program % BLOCKS * BLOCK + tl.arange(0, BLOCK)
    left = program // BLOCKS % strips * COLUMNS
    top = program // (BLOCKS * strips) % bands * rows
    image = (program // (BLOCKS * strips * bands)).to(tl.int64) * height * width * CHANNELS
    valid = c < CHANNELS if CHANNELS % BLOCK else tl.full((BLOCK,), True, tl.int1)
    stride = width * CHANNELS

    taps = ()
    for tap in tl.static_range(K * K):
        taps += (tl.load(weight + tap * CHANNELS + c, mask=valid, other=0.0).to(tl.float32),)
    start = tl.load(bias + c, mask=valid, other=0.0).to(tl.float32)

    # sums[j * COLUMNS + q] belongs to row y - P + j and column left + q; y is the next row of the input
    sums = ()
    for _ in tl.static_range(K * COLUMNS):
        sums += (start,)
    last = tl.minimum(top + rows, height)
    first_input, last_input = tl.maximum(top - P, 0), tl.minimum(top + rows + P, height)
    source = x + image + first_input * stride + c
    target = out + image + (first_input - P) * stride + left * CHANNELS + c
    loaded = _row(source, left - P, width, valid, CHANNELS, COUNT)
    total = tl.zeros((BLOCK,), tl.float32)
    for y in range(first_input, last_input):
        pixels = ()
        for p in tl.static_range(COUNT):
            pixels += (loaded[p].to(tl.float32),)
        source += stride
        loaded = _row(source, left - P, width, valid & (y + 1 < last_input), CHANNELS, COUNT)
        added = ()
        for j in tl.static_range(K):
            for q in tl.static_range(COLUMNS):
                value = sums[j * COLUMNS + q]
                for tap in tl.static_range(K):
                    value += pixels[q + tap] * taps[(K - 1 - j) * K + tap]
                added += (value,)
        for q in tl.static_range(COLUMNS):
            inside = (left + q < width) & (y - P >= top) & valid
            total = _store(target + q * CHANNELS, added[q], inside, total, GELU)
        target += stride
        sums = ()
        for at in tl.static_range(COLUMNS, K * COLUMNS):
            sums += (added[at],)
        for _ in tl.static_range(COLUMNS):
            sums += (start,)
    # rows below the input add nothing: the sums are complete
    for j in tl.static_range(P):
        row = last_input - P + j
        for q in tl.static_range(COLUMNS):
            inside = (left + q < width) & (row >= top) & (row < last) & valid
            total = _store(target + q * CHANNELS, sums[j * COLUMNS + q], inside, total, GELU)
        target += stride
    if GELU:
        tl.store(totals + program // BLOCKS * CHANNELS + c, total, mask=valid)


# The fastest depends on the size. Compiled for an H200 in bf16, 65 % of the instructions in the loop over
# rows are multiply-adds with 4 columns and 72 % with 8, which take 30 % more registers; neither spills.
_TILINGS = [
    triton.Config({"COLUMNS": columns, "rows": rows, "BLOCK": 64}, num_warps=2)
    for columns in (4, 8)
    for rows in (8, 16, 64)
]


def _fitting(
    configs: list[triton.Config],
    given: dict[str, Any],
    K: int,
    **_: object,
) -> list[triton.Config]:
    """Drop tilings that differ only below the image, and 8 columns where registers cannot hold the sums."""
    rows = [config.kwargs["rows"] for config in configs]
    enough = min((count for count in rows if count >= given["height"]), default=max(rows))
    fitting = [config for config in configs if config.kwargs["rows"] <= enough]
    return [config for config in fitting if config.kwargs["COLUMNS"] == 4 or K <= 7]


@functools.cache
def _tuned() -> Any:  # noqa: ANN401 - triton has no types
    return triton.autotune(
        _TILINGS, key=["height", "width", "CHANNELS", "K"], prune_configs_by={"early_config_prune": _fitting}
    )(depthwise_kernel)


def launch(
    x: Tensor, weight: Tensor, bias: Tensor, out: Tensor, tiling: Tiling | None, totals: Tensor | None = None
) -> None:
    """Fill `out`, and `totals` if given, which ask for GELU and a tiling; all are contiguous.

    Without a tiling the fastest for the size is found first.

    Raises:
        RuntimeError: Triton cannot compile it for this device.
    """
    N, H, W, C = x.shape
    kernel, options = _tuned(), {}
    if tiling is not None:
        kernel = depthwise_kernel
        options = {"COLUMNS": tiling.columns, "rows": tiling.rows, "BLOCK": tiling.block}
        options["num_warps"] = max(1, tiling.block // 32)

    def grid(meta: dict[str, int]) -> tuple[int]:
        blocks, strips = triton.cdiv(C, meta["BLOCK"]), triton.cdiv(W, meta["COLUMNS"])
        return (N * blocks * strips * triton.cdiv(H, meta["rows"]),)

    try:
        pointers = (x, weight, bias, out, out if totals is None else totals)
        kernel[grid](*pointers, H, W, CHANNELS=C, K=len(weight), GELU=totals is not None, **options)
    except TritonError as error:
        raise RuntimeError(f"depthwise: Triton {triton.__version__} cannot run it here: {error}") from error
