"""Group norm, shift and scale by the condition, GELU: what precedes the 3x3 convolutions of DiC's block.

Fused, an image is read from memory and written once; the operators of torch move twice as much without a
modulation, three times as much with it. Letters: N batch, H and W sides, C channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.kernels.backends import require_same
from models.kernels.fused.operator import operator
from models.kernels.packed import gelu_


def group_norm_gelu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    shift: Tensor | None,
    scale: Tensor | None,
    groups: int,
    eps: float = 1e-5,
) -> Tensor:
    """GELU(norm(x) * (1 + scale) + shift): (N, H, W, C) -> (N, H, W, C).

    Args:
        x: images.
        weight, bias: (C,), of the norm.
        shift, scale: (N, C), or both None.
        groups: of C / groups channels, each normed over all pixels of an image.
        eps: of the norm.

    Raises:
        ValueError: shapes that do not fit each other, different types or devices.
    """
    N, _, _, C = x.shape
    wanted = ((C,), (C,), (N, C), (N, C))
    given = [one for one in (weight, bias, shift, scale) if one is not None]
    shapes = tuple(tuple(one.shape) for one in given)
    if (shift is None) != (scale is None) or shapes != wanted[: len(given)] or C % groups:
        raise ValueError(
            "group_norm_gelu: takes (N, H, W, C), (C,), (C,), none or two (N, C), and a divisor of C, "
            f"got {', '.join(map(str, (tuple(x.shape), *shapes)))}, {groups} groups"
        )
    require_same("group_norm_gelu", x, *given)
    return _group_norm_gelu(x, weight, bias, shift, scale, groups, eps)


def group_norm_gelu_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    shift: Tensor | None,
    scale: Tensor | None,
    groups: int,
    eps: float = 1e-5,
) -> Tensor:
    """Torch's operators, on a CPU in float32 for narrower types.

    Torch's group norm takes up to six times as long in bf16 as in float32 there (images below 1024 pixels).
    """
    dtype = x.dtype
    if x.device.type == "cpu" and dtype in (torch.bfloat16, torch.float16):
        x, weight, bias = x.float(), weight.float(), bias.float()
    h = F.group_norm(x.permute(0, 3, 1, 2), groups, weight, bias, eps).permute(0, 2, 3, 1)
    if shift is not None and scale is not None:
        h = torch.addcmul(shift[:, None, None].to(h.dtype), h, 1 + scale[:, None, None].to(h.dtype))
    return gelu_(h).to(dtype)


def group_norm_gelu_triton(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    shift: Tensor | None,
    scale: Tensor | None,
    groups: int,
    eps: float = 1e-5,
) -> Tensor:
    """The Triton kernel, float32 inside, without gradient."""
    from models.kernels.fused.triton_group_norm_gelu import launch

    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    if out.numel():
        modulation = None
        if shift is not None and scale is not None:
            modulation = (shift.contiguous(), scale.contiguous())
        launch(x.contiguous(), weight, bias, modulation, out, groups, eps)
    return out


_group_norm_gelu = operator("group_norm_gelu", group_norm_gelu_reference, group_norm_gelu_triton)
