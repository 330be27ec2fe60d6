"""Layer norm over the channels, then shift and scale by the condition: one pass over a channels-last image.

It follows the depthwise convolution in FCDM's blocks and precedes the layers of DiT's: without affine
weights, (1 + scale) * norm(x) + shift with a shift and a scale for every image and channel.
Letters: N batch, H and W sides, C channels.

It is bound by memory: every value is read once and written once, 4 C bytes per pixel in bf16; torch's two
operators move twice as much. The Triton kernel keeps a pixel's channels in registers from mean to output.
It has no gradient: with gradients, on a CPU and for meta tensors, the two operators of torch run.

It is not fused with the convolution's kernel: there a program has 64 channels of a pixel, here all of them.
Fused, a multiprocessor would have to hold the convolution's sums for up to 2048 channels at a time.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.kernels.backends import interpreted, require_same, why_not_forward

WIDEST = 16384  # channels; those of a wider pixel do not fit the registers of a program


def norm_modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """Normalise and modulate: (N, H, W, C), (N, C), (N, C) -> (N, H, W, C), all of one type.

    Raises:
        ValueError: shapes that do not fit each other, different types or devices.
    """
    if x.dim() != 4 or {shift.shape, scale.shape} != {(x.shape[0], x.shape[3])}:
        shapes = ", ".join(str(tuple(given.shape)) for given in (x, shift, scale))
        raise ValueError(f"norm_modulate: takes (N, H, W, C), (N, C) and (N, C), got {shapes}")
    require_same("norm_modulate", x, shift, scale)
    if why_not_triton(x, shift, scale):
        return norm_modulate_reference(x, shift, scale, eps)
    return _norm_modulate(x, shift, scale, eps)


def norm_modulate_reference(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """Torch's operators, in the type of the inputs; one image's modulation is the norm's affine part."""
    if len(x) == 1:
        return F.layer_norm(x, x.shape[-1:], 1 + scale[0], shift[0], eps)
    normed = F.layer_norm(x, x.shape[-1:], eps=eps)
    return torch.addcmul(shift[:, None, None], normed, 1 + scale[:, None, None])


def why_not_triton(x: Tensor, shift: Tensor, scale: Tensor) -> str:
    """Why the Triton kernel cannot take a call; empty where it can."""
    if x.shape[-1] > WIDEST:
        return f"the kernel takes up to {WIDEST} channels, got {x.shape[-1]}"
    return why_not_forward(x, shift, scale)


def norm_modulate_triton(
    x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6, pixels: int | None = None
) -> Tensor:
    """The Triton kernel, float32 inside: forward only, where `why_not_triton` is empty or Triton interprets.

    Args:
        x, shift, scale, eps: as for `norm_modulate`.
        pixels: of a program; default the fastest of a few, timed on the first call of a size.

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
