"""The group norm of DiC's block with its modulation and GELU: exact output and implementations.

Letters: N batch, C channels, H and W sides.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.measure.operations.implementations import Draws, Form, Operands, Output, chunks, operation
from bench.records.base import height_width
from bench.records.kernels import NormCase
from models.fast.layout import image, pixels
from models.kernels.fused.group_norm_gelu import group_norm_gelu_reference, group_norm_gelu_triton
from models.layers.modulation import modulate

EPS = 1e-5


@dataclass(frozen=True, kw_only=True)
class NormOperands(Operands):
    """The weight is (C,); an input is one image."""

    shift: Tensor  # (N, C)
    scale: Tensor  # (N, C)
    groups: int


def draw(case: NormCase, draws: Draws) -> NormOperands:
    N, C = case.batch, case.channels
    return NormOperands(
        inputs=draws.inputs((N, C, *height_width(case.image_size))),
        weight=draws.normal(C),
        bias=draws.normal(C),
        shift=draws.normal(N, C),
        scale=draws.normal(N, C),
        groups=case.groups,
    )


def exact(given: NormOperands) -> Tensor:
    (x,) = given.inputs[0]
    weight, bias = (one.double()[:, None, None] for one in (given.weight, given.bias))
    outs = []
    for rows in chunks(x):
        grouped = x[rows].double().unflatten(1, (given.groups, -1))
        variance, mean = torch.var_mean(grouped, dim=(2, 3, 4), correction=0, keepdim=True)
        normed = ((grouped - mean) / (variance + EPS).sqrt()).flatten(1, 2) * weight + bias
        shift, scale = (one[rows].double()[..., None, None] for one in (given.shift, given.scale))
        z = normed * (1 + scale) + shift
        outs.append(z * torch.special.ndtr(z))
    return torch.cat(outs)


def eager(given: NormOperands) -> Callable[[Tensor], Output]:
    """The operators of models/dic.py."""
    shift, scale = given.shift[..., None, None], given.scale[..., None, None]

    def function(x: Tensor) -> Tensor:
        normed = F.group_norm(x, given.groups, given.weight, given.bias, EPS)
        return F.gelu(modulate(normed, shift, scale))

    return function


def fused(operator: Callable[..., Tensor]) -> Form[NormOperands]:
    def form(given: NormOperands) -> Callable[[Tensor], Output]:
        vectors = (given.weight, given.bias, given.shift, given.scale)
        return lambda x: image(operator(pixels(x), *vectors, given.groups, EPS))

    return form


def _torchs(_given: NormOperands) -> str:
    return "torch.nn.functional.group_norm"


OPERATIONS = {
    "norm-gelu": operation(
        draw,
        exact,
        (eager, fused(group_norm_gelu_reference), fused(group_norm_gelu_triton)),
        (_torchs, _torchs),
    )
}
