"""FCDM's two products and the U-Nets' join of an upsampled image: exact outputs and implementations.

Letters: N batch, C channels in, D channels out, H and W sides.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.measure.operations.implementations import (
    Draws,
    Form,
    Operands,
    Output,
    chunks,
    operation,
    selected,
    tensors,
)
from bench.records.base import height_width
from bench.records.kernels import ProductCase
from models.fast.layout import image, pixels
from models.kernels.fused import product
from models.kernels.packed import can_pack


@dataclass(frozen=True, kw_only=True)
class ProductOperands(Operands):
    """The weight is (D, C, 1, 1). The vectors are read by the scaled product only."""

    share: Tensor  # (N, C), of the response
    gamma: Tensor  # (C,), of the response norm
    beta: Tensor  # (C,)
    gate: Tensor  # (N, D)


def draw(case: ProductCase, draws: Draws) -> ProductOperands:
    """Draw operands whose weights preserve the scale."""
    N, C, D = case.batch, case.channels, case.out_channels
    H, W = height_width(case.image_size)
    shapes = {
        "gelu-product": [(N, C, H, W)],
        "scaled-product": [(N, C, H, W), (N, D, H, W)],  # with the residual
        "shuffled-product": [(N, 2 * C, H // 2, W // 2), (N, C // 2, H, W)],  # with the skip
    }
    return ProductOperands(
        inputs=draws.inputs(*shapes[case.operation]),
        weight=draws.normal(D, C, 1, 1) / C**0.5,
        bias=draws.normal(D),
        share=draws.normal(N, C),
        gamma=draws.normal(C),
        beta=draws.normal(C),
        gate=draws.normal(N, D),
    )


def spread(vectors: Tensor) -> Tensor:
    """Vectors over an image: (..., C) -> (..., C, 1, 1)."""
    return vectors[..., None, None]


# float64


def exact(function: Callable[..., Output]) -> Callable[[ProductOperands], Output]:
    """The exact output, from a function of (operands, slice over N, images in float64)."""

    def computed_exactly(given: ProductOperands) -> Output:
        parts = [
            tensors(function(given, rows, *(one[rows].double() for one in given.inputs[0])))
            for rows in chunks(given.inputs[0][0])
        ]
        return tuple(map(torch.cat, zip(*parts, strict=True)))

    return computed_exactly


def exact_product(x: Tensor, given: ProductOperands) -> Tensor:
    weight = given.weight.double().flatten(1)
    return torch.einsum("nchw,dc->ndhw", x, weight) + spread(given.bias.double())


@exact
def exact_gelu(given: ProductOperands, _rows: slice, x: Tensor) -> Output:
    z = exact_product(x, given)
    h = z * torch.special.ndtr(z)
    return h, h.square().sum(dim=(2, 3)).sqrt()


@exact
def exact_scaled(given: ProductOperands, rows: slice, x: Tensor, residual: Tensor) -> Output:
    share, gamma, beta, gate = (
        one.double() for one in (given.share[rows], given.gamma, given.beta, given.gate[rows])
    )
    return residual + spread(gate) * exact_product(x * spread(1 + gamma * share) + spread(beta), given)


@exact
def exact_shuffled(given: ProductOperands, _rows: slice, x: Tensor, skip: Tensor) -> Output:
    return exact_product(torch.cat([F.pixel_shuffle(x, 2), skip], dim=1), given)


# the operators of models/fcdm.py and models/layers/unet.py


def eager_gelu(given: ProductOperands) -> Callable[..., Output]:
    def function(x: Tensor) -> Output:
        h = F.gelu(F.conv2d(x, given.weight, given.bias))
        return h, torch.linalg.vector_norm(h, dim=(2, 3))

    return function


def eager_scaled(given: ProductOperands) -> Callable[..., Output]:
    share, gamma, beta, gate = map(spread, (given.share, given.gamma, given.beta, given.gate))

    def function(x: Tensor, residual: Tensor) -> Output:
        h = gamma * (x * share) + beta + x
        return residual + gate * F.conv2d(h, given.weight, given.bias)

    return function


def eager_shuffled(given: ProductOperands) -> Callable[..., Output]:
    def function(x: Tensor, skip: Tensor) -> Output:
        return F.conv2d(torch.cat([F.pixel_shuffle(x, 2), skip], dim=1), given.weight, given.bias)

    return function


# models.kernels.fused.product


def fused_gelu(operator: Callable[..., tuple[Tensor, Tensor]]) -> Form[ProductOperands]:
    def form(given: ProductOperands) -> Callable[..., Output]:
        def function(x: Tensor) -> Output:
            h, squares = operator(pixels(x), given.weight, given.bias)
            return image(h), squares.sqrt()

        return function

    return form


def fused_scaled(operator: Callable[..., Tensor]) -> Form[ProductOperands]:
    def form(given: ProductOperands) -> Callable[..., Output]:
        scale = 1 + given.gamma * given.share

        def function(x: Tensor, residual: Tensor) -> Output:
            weights, vectors = (given.weight, given.bias), (scale, given.beta)
            return image(operator(pixels(x), *weights, given.gate, pixels(residual), *vectors))

        return function

    return form


def fused_shuffled(operator: Callable[..., Tensor]) -> Form[ProductOperands]:
    def form(given: ProductOperands) -> Callable[..., Output]:
        return lambda x, skip: image(operator(pixels(x), pixels(skip), given.weight, given.bias))

    return form


# the implementations


def _convolution(given: ProductOperands) -> str:
    """Torch's name of the kernel of the 1x1 convolution."""
    last = given.inputs[0][-1]
    return selected(last.new_empty(len(last), given.weight.shape[1], *last.shape[2:]), given)


def packed(given: Operands) -> str:
    """The kernel of a product or convolution of --impl fast on a CPU."""
    return "oneDNN, packed weight" if can_pack(given.inputs[0][0], given.weight) else "torch"


OPERATIONS = {
    "gelu-product": operation(
        draw,
        exact_gelu,
        (eager_gelu, fused_gelu(product.gelu_product_reference), fused_gelu(product.gelu_product_triton)),
        (_convolution, packed),
    ),
    "scaled-product": operation(
        draw,
        exact_scaled,
        (
            eager_scaled,
            fused_scaled(product.scaled_product_reference),
            fused_scaled(product.scaled_product_triton),
        ),
        (_convolution, packed),
    ),
    "shuffled-product": operation(
        draw,
        exact_shuffled,
        (
            eager_shuffled,
            fused_shuffled(product.shuffled_product_reference),
            fused_shuffled(product.shuffled_product_triton),
        ),
        (_convolution, lambda _given: "torch.nn.functional.linear, two"),
    ),
}
