"""Layer norm over the channels, then shift and scale by the condition: one pass over a channels-last image.

What follows the depthwise convolution in FCDM's blocks, and stands before the layers of DiT's: without affine
weights, (1 + scale) * norm(x) + shift with a shift and a scale for every image and channel.
Letters: N batch, H and W sides, C channels.

The least it moves is every value once in and once out, 4 C bytes a pixel in bf16; its arithmetic is nothing
beside that. torch's two operators move twice as much. The Triton kernel keeps a pixel's channels in registers
from mean to output. It has no gradient: where one is wanted, as on a CPU and for meta tensors, the two
operators of torch run.

It is no part of the convolution's kernel: there a program has 64 channels of a pixel, here all of them.
Joined, a multiprocessor would have to hold the convolution's sums for all of up to 2048 channels at a time.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.kernels.triton_here import interpreted, require_alike, why_not_forward

WIDEST = 16384  # channels; above, those of a pixel do not fit the registers of a program


def norm_modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """Normalise and modulate: (N, H, W, C), (N, C), (N, C) -> (N, H, W, C), all of one type.

    Raises:
        ValueError: shapes that do not fit each other, different types or devices.
    """
    if x.dim() != 4 or {shift.shape, scale.shape} != {(x.shape[0], x.shape[3])}:
        shapes = ", ".join(str(tuple(given.shape)) for given in (x, shift, scale))
        raise ValueError(f"norm_modulate: wants (N, H, W, C), (N, C) and (N, C), got {shapes}")
    require_alike("norm_modulate", x, shift, scale)
    if why_not_triton(x, shift, scale):
        return norm_modulate_reference(x, shift, scale, eps)
    return _norm_modulate(x, shift, scale, eps)


def norm_modulate_reference(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """By torch's two operators, in the type of the inputs."""
    normed = F.layer_norm(x, x.shape[-1:], eps=eps)
    return torch.addcmul(shift[:, None, None], normed, 1 + scale[:, None, None])


def why_not_triton(x: Tensor, shift: Tensor, scale: Tensor) -> str:
    """What keeps the Triton kernel from a call, in words; empty where nothing does."""
    if x.shape[-1] > WIDEST:
        return f"the kernel takes up to {WIDEST} channels, got {x.shape[-1]}"
    return why_not_forward(x, shift, scale)


def norm_modulate_triton(
    x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6, pixels: int | None = None
) -> Tensor:
    """By the Triton kernel, in float32 inside: forward only; for what it takes, or interpreted.

    Args:
        x, shift, scale, eps: as for `norm_modulate`.
        pixels: of a program; by default the fastest of a few, timed on the first call of a size.

    Raises:
        RuntimeError: Triton cannot compile it for this device.
    """
    from models.kernels.triton_norm_modulate import launch

    x, shift, scale = x.contiguous(), shift.contiguous(), scale.contiguous()
    out = torch.empty_like(x)
    if out.numel():
        launch(x, shift, scale, out, eps, 2 if pixels is None and interpreted() else pixels)
    return out


@torch.library.custom_op("backbones::norm_modulate", mutates_args=())
def _norm_modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    return norm_modulate_triton(x, shift, scale, eps)


@_norm_modulate.register_fake
def _shape(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)
