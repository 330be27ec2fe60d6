"""Neighbourhood attention: every pixel attends to the window of pixels around it.

Source: arXiv:2204.07143; at a border the window moves inward, as in NATTEN, so that every query has the
same window * window keys.
Letters: N batch, H and W sides, h heads, d width of a head; q, k and v are (N, H, W, h, d). Scores are
plain products of q and k: the caller scales q, as with NATTEN's separate operators.

On meta tensors it is one operator, `backbones::neighbourhood_attention`, for every back end, so that a
counter sees the cost of attention to a window, 2 * window^2 * d products per query and head, and not what a
back end computes in vain: the masked one has 7 * W keys per query instead of 49. Its backward pass is one
operator of twice the cost. On real tensors each back end runs its own operators.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from models.kernels.backends import installed
from models.kernels.operators import operator

Attend = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def neighbourhood_attention(q: Tensor, k: Tensor, v: Tensor, window: int, backend: str) -> Tensor:
    """(N, H, W, h, d) three times -> (N, H, W, h, d); window is odd and at most H and W."""
    if q.is_meta:
        return _counted(q, k, v, window)
    return BACKENDS[backend](q, k, v, window)


def require_backend(name: str) -> None:
    """Refuse a back end that is unknown or not installed.

    Raises:
        ValueError: says what to install, or which back ends there are.
    """
    if name not in BACKENDS:
        raise ValueError(f"neighbourhood: no such back end, got {name!r}; {', '.join(BACKENDS)} would work")
    if name == "natten" and not installed("natten"):
        raise ValueError(
            "neighbourhood: natten is not installed here; pip install natten (the extra natten), or use flex "
            "or masked"
        )


def window_starts(size: int, window: int, device: torch.device) -> Tensor:
    """The first row (or column) of the window of each of `size` rows: (size,)."""
    return (torch.arange(size, device=device) - window // 2).clamp(0, size - window)


def neighbourhood_attention_reference(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Gathers the keys and values of every query: window^2 times the memory of k and v."""
    steps = torch.arange(window, device=q.device)
    rows = window_starts(q.shape[1], window, q.device)[:, None] + steps  # (H, window)
    columns = window_starts(q.shape[2], window, q.device)[:, None] + steps  # (W, window)
    at = (slice(None), rows[:, None, :, None], columns[None, :, None, :])
    keys, values = k[at].flatten(3, 4), v[at].flatten(3, 4)  # (N, H, W, window^2, h, d)
    scores = torch.einsum("nijhd,nijkhd->nijhk", q, keys)
    return torch.einsum("nijhk,nijkhd->nijhd", scores.softmax(dim=-1), values)


def neighbourhood_attention_masked(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Each row of queries attends to the `window` rows around it, with the far columns masked.

    Works and trains on every device. The rows of k and v are repeated `window` times.
    """
    height, width = q.shape[1:3]
    steps = torch.arange(window, device=q.device)
    rows = window_starts(height, window, q.device)[:, None] + steps  # (H, window)
    first = window_starts(width, window, q.device)[:, None]
    columns = torch.arange(width, device=q.device)
    near = (columns >= first) & (columns < first + window)  # (W, W), of query and key

    def by_row(x: Tensor) -> Tensor:
        return x.flatten(0, 1).transpose(1, 2)

    out = F.scaled_dot_product_attention(
        by_row(q),  # (N*H, h, W, d)
        by_row(k[:, rows].flatten(2, 3)),  # (N*H, h, window*W, d)
        by_row(v[:, rows].flatten(2, 3)),
        attn_mask=near.repeat(1, window),
        scale=1.0,
    )
    return out.transpose(1, 2).unflatten(0, (-1, height))


def neighbourhood_attention_flex(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """torch's flex attention over a block mask: fused on CUDA; on a CPU unfused, and without gradients."""
    height, width = q.shape[1:3]
    q, k, v = (x.flatten(1, 2).transpose(1, 2) for x in (q, k, v))  # each (N, h, H*W, d)
    where = (height, width, window, q.device)
    if torch.compiler.is_compiling():  # the compiler fuses the attention and traces the mask into its graph
        out = flex_attention(q, k, v, block_mask=_block_mask(*where), scale=1.0)
    else:
        out = _flex(q.is_cuda)(q, k, v, block_mask=_kept_block_mask(*where), scale=1.0)
    return out.transpose(1, 2).unflatten(1, (height, width))


def neighbourhood_attention_natten(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """NATTEN's kernels on CUDA; elsewhere NATTEN uses flex attention, without gradients on a CPU."""
    from natten import na2d

    out: Tensor = na2d(q, k, v, kernel_size=window, scale=1.0)
    return out


BACKENDS: dict[str, Attend] = {
    "masked": neighbourhood_attention_masked,
    "flex": neighbourhood_attention_flex,
    "natten": neighbourhood_attention_natten,
}


@functools.cache
def _flex(fused: bool) -> Callable[..., Any]:
    if fused:
        return torch.compile(flex_attention, dynamic=False)
    return flex_attention


def _block_mask(height: int, width: int, window: int, device: torch.device) -> BlockMask:
    def near(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        row = (query // width - window // 2).clamp(0, height - window)
        column = (query % width - window // 2).clamp(0, width - window)
        down, along = key // width - row, key % width - column
        return (down >= 0) & (down < window) & (along >= 0) & (along < window)

    return create_block_mask(near, None, None, height * width, height * width, device=device)


@functools.lru_cache(maxsize=16)
def _kept_block_mask(height: int, width: int, window: int, device: torch.device) -> BlockMask:
    with torch.inference_mode(False):  # a training step may be the next to use it
        return _block_mask(height, width, window, device)


def _flops(q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...], window: int) -> int:
    """Products with window^2 keys and window^2 values for each query."""
    return 4 * window**2 * math.prod(q)


_counted = operator("backbones::neighbourhood_attention", "Tensor q, Tensor k, Tensor v, int window", _flops)
