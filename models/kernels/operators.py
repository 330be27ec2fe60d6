"""Operators with gradients as torch.compile and FLOP counters see them: their shapes, gradients and FLOPs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula


def _on_meta_only(*_: object) -> Any:  # noqa: ANN401 - of the schema
    raise NotImplementedError("this operator is for meta tensors")


def operator(
    name: str,
    inputs: str,
    flops: Callable[..., int],
    *,
    forward: Callable[..., Tensor] = _on_meta_only,
    backward: Callable[..., tuple[Tensor, ...]] = _on_meta_only,
    like: int = 0,
) -> Callable[..., Tensor]:
    """Register an operator, and another with "_backward" behind its name for the gradients.

    Args:
        name: with its namespace: backbones::gla.
        inputs: of its schema, tensors first: "Tensor q, Tensor k, int window".
        flops: from the shapes of the inputs; those of the backward pass are twice as many.
        forward: computes it; by default it takes meta tensors only.
        backward: gradients of the tensors, from that of the output and the inputs.
        like: index of the input whose shape and type the output has.
    """
    count = inputs.count("Tensor")
    run = torch.library.custom_op(name, forward, mutates_args=(), schema=f"({inputs}) -> Tensor")
    gradients = torch.library.custom_op(
        f"{name}_backward",
        backward,
        mutates_args=(),
        schema=f"(Tensor grad, {inputs}) -> ({', '.join(['Tensor'] * count)})",
    )

    def shape(*given: Any) -> Tensor:  # noqa: ANN401 - of the schema
        return given[like].new_empty(given[like].shape)

    def shapes(_: Tensor, *given: Any) -> tuple[Tensor, ...]:  # noqa: ANN401
        return tuple(x.new_empty(x.shape) for x in given[:count])

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401 - autograd's context
        ctx.save_for_backward(*inputs[:count])
        ctx.numbers = inputs[count:]

    def differentiate(ctx: Any, grad: Tensor) -> tuple[Any, ...]:  # noqa: ANN401
        return *gradients(grad, *ctx.saved_tensors, *ctx.numbers), *(None for _ in ctx.numbers)

    run.register_fake(shape)
    gradients.register_fake(shapes)
    run.register_autograd(differentiate, setup_context=keep)
    count_flops(name, flops)
    count_flops(f"{name}_backward", lambda _, *shapes: 2 * flops(*shapes))
    return run


def count_flops(name: str, flops: Callable[..., int]) -> None:
    """Register the FLOPs of an operator as a function of the shapes of its inputs."""
    namespace, _, plain = name.partition("::")
    packet = getattr(getattr(torch.ops, namespace), plain)
    register_flop_formula(packet)(lambda *shapes, **_: flops(*shapes))
