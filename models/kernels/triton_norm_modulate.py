"""The Triton kernel of models.kernels.norm_modulate, in a file of its own because it imports triton."""

import functools
from typing import Any

import triton
import triton.language as tl
from torch import Tensor
from triton.errors import TritonError


@triton.jit
def norm_modulate_kernel(
    x: tl.tensor,
    shift: tl.tensor,
    scale: tl.tensor,
    out: tl.tensor,
    pixels: int,
    eps: float,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
    PIXELS: tl.constexpr,
) -> None:
    """One program takes PIXELS pixels of an image with all channels; BLOCK is at least their number."""
    groups = tl.cdiv(pixels, PIXELS)
    image = tl.program_id(0) // groups
    p = tl.program_id(0) % groups * PIXELS + tl.arange(0, PIXELS)
    c = tl.arange(0, BLOCK)
    here = c < CHANNELS
    inside = (p < pixels)[:, None] & here[None, :]
    place = (image.to(tl.int64) * pixels + p)[:, None] * CHANNELS + c[None, :]
    values = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(values, axis=1) / CHANNELS
    values = tl.where(inside, values - mean[:, None], 0.0)
    variance = tl.sum(values * values, axis=1) / CHANNELS
    values *= tl.rsqrt(variance + eps)[:, None]
    by = tl.load(scale + image * CHANNELS + c, mask=here, other=0.0).to(tl.float32)
    to = tl.load(shift + image * CHANNELS + c, mask=here, other=0.0).to(tl.float32)
    values = values * (1 + by)[None, :] + to[None, :]
    tl.store(out + place, values.to(out.dtype.element_ty), mask=inside)


_TILINGS = [
    triton.Config({"PIXELS": pixels}, num_warps=warps) for pixels in (1, 2, 4, 8) for warps in (2, 4, 8)
]
_FEWEST, _MOST = 8, 64  # values of a thread: 16 bytes of bf16, as one load takes them, and 64 registers


def _fitting(
    configs: list[triton.Config],
    _given: dict[str, Any],
    BLOCK: int,
    **_: object,
) -> list[triton.Config]:
    """Drop tilings that give a thread too little to load at a time, or more than its registers hold."""

    def values(config: triton.Config) -> float:
        return BLOCK * config.kwargs["PIXELS"] / (32 * config.num_warps)

    return [c for c in configs if _FEWEST <= values(c) <= _MOST] or [
        min(configs, key=lambda c: abs(values(c) - _FEWEST))
    ]


@functools.cache
def _tuned() -> Any:  # noqa: ANN401 - triton has no types
    return triton.autotune(
        _TILINGS, key=["pixels", "CHANNELS"], prune_configs_by={"early_config_prune": _fitting}
    )(norm_modulate_kernel)


def launch(x: Tensor, shift: Tensor, scale: Tensor, out: Tensor, eps: float, pixels: int | None) -> None:
    """Fill `out`; all four are contiguous. Without `pixels` the fastest for the size is found first.

    Raises:
        RuntimeError: Triton cannot compile it for this device.
    """
    N, H, W, C = x.shape
    kernel = _tuned() if pixels is None else norm_modulate_kernel
    options = {} if pixels is None else {"PIXELS": pixels}

    def grid(meta: dict[str, int]) -> tuple[int]:
        return (N * triton.cdiv(H * W, meta["PIXELS"]),)

    try:
        kernel[grid](x, shift, scale, out, H * W, eps, CHANNELS=C, BLOCK=triton.next_power_of_2(C), **options)
    except TritonError as error:
        raise RuntimeError(
            f"norm_modulate: Triton {triton.__version__} cannot run it here: {error}"
        ) from error
