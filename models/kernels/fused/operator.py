"""What the operators of this package share: when their Triton kernels run, their shapes and gradients."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from models.kernels.backends import DTYPES, autocasts, interpreted, why_no_triton

P = ParamSpec("P")
T = TypeVar("T")  # tensors


def runs_triton(x: Tensor) -> bool:
    """Whether a Triton kernel takes tensors like x: on a GPU, in fp32, bf16 or fp16, without autocast."""
    return x.device.type == "cuda" and x.dtype in DTYPES and not autocasts(x) and not why_no_triton()


def precision(x: Tensor) -> str:
    """Triton's name for how a product of float32 rounds its factors, by torch's switch."""
    return "tf32" if x.is_cuda and torch.backends.cuda.matmul.allow_tf32 else "ieee"


def operator(name: str, reference: Callable[P, T], kernel: Callable[P, T]) -> Callable[P, T]:
    """A function that runs a kernel where `runs_triton` holds for its first input, else the reference.

    To torch the kernel is one operator, backbones::<name>, which runs the reference in float64. It saves its
    inputs; its gradients are those of the reference, computed again from them.

    Args:
        name: of the operator.
        reference: plain torch.
        kernel: the same, without gradient.
    """

    plain: Callable[..., Any] = reference
    fused: Callable[..., Any] = kernel

    def run(*given: Any) -> Any:  # noqa: ANN401 - of the schema
        x = given[0]
        computes = x.dtype in DTYPES and (x.device.type == "cuda" or interpreted())
        return _contiguous((fused if computes else plain)(*given))

    def gradients(ctx: Any, *of_outputs: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - autograd's
        leaves = [one if one is None else one.detach().requires_grad_() for one in ctx.saved_tensors]
        with torch.enable_grad():
            out = plain(*(b if a is None else a for a, b in zip(leaves, ctx.others, strict=True)))
        wanted = [one for one in leaves if one is not None]
        found = iter(torch.autograd.grad(out, wanted, of_outputs))
        return tuple(None if one is None else next(found) for one in leaves)

    made = torch.library.custom_op(
        f"backbones::{name}",
        run,
        mutates_args=(),
        schema=torch.library.infer_schema(reference, mutates_args=()),
    )
    made.register_fake(lambda *given: _contiguous(plain(*given)))
    made.register_autograd(gradients, setup_context=_save)

    def chosen(*given: P.args, **named: P.kwargs) -> T:
        x = given[0]
        assert isinstance(x, Tensor)
        out: T = (made if runs_triton(x) else reference)(*given, **named)
        return out

    return chosen


def _contiguous(out: Any) -> Any:  # noqa: ANN401 - a tensor, or several
    return out.contiguous() if isinstance(out, Tensor) else tuple(one.contiguous() for one in out)


def _save(ctx: Any, inputs: tuple[Any, ...], output: object) -> None:  # noqa: ANN401 - autograd's context
    ctx.save_for_backward(*(one if isinstance(one, Tensor) else None for one in inputs))
    ctx.others = [None if isinstance(one, Tensor) else one for one in inputs]
