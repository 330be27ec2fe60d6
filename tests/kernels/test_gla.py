"""Gated linear attention against the recurrence, forward and backward, and as a single operator."""

import sys
import types
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.machine import device as device
from models.kernels import backends
from models.kernels import gla as kernel
from models.kernels.gla import FLA, gla, gla_reference

Inputs = list[Tensor]

needs_fla = pytest.mark.skipif(bool(FLA.why_not()), reason=f"the back end fla cannot run: {FLA.why_not()}")


def inputs(tokens: int, spread: float = 1, batch: int = 2, heads: int = 3) -> Inputs:
    """q, k, v and logarithms of gates as DiG makes them, in float64; a wide spread brings gates near 0."""
    generator = torch.Generator().manual_seed(tokens)

    def normal(channels: int) -> Tensor:
        return torch.randn(batch, tokens, heads, channels, generator=generator, dtype=torch.float64)

    return [normal(32), normal(32), normal(64), F.logsigmoid(spread * normal(32)) / 16]


def with_gradients(call: Callable[..., Tensor], arguments: Inputs) -> Inputs:
    """The output, then the gradients of q, k, v and log_decay for a fixed gradient of the output."""
    leaves = [x.clone().requires_grad_() for x in arguments]
    out = call(*leaves)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    out.backward(weight.to(out))
    return [out.detach(), *(x.grad for x in leaves if x.grad is not None)]


def error(ours: Tensor, exact: Tensor) -> float:
    return float((ours.cpu().double() - exact).norm() / exact.norm())


# one token; one, two and many chunks, full or not
TOKENS = [1, 7, 32, 33, 96, 250]


@pytest.mark.parametrize("tokens", TOKENS)
def test_chunked_gla_is_the_recurrence_with_its_gradients(tokens: int) -> None:
    arguments = inputs(tokens)
    exact = with_gradients(gla_reference, arguments)
    for ours, wanted in zip(with_gradients(lambda *x: gla(*x, "torch"), arguments), exact, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("tokens", TOKENS[1:])
@pytest.mark.parametrize(("spread", "bound"), [(1, 5e-7), (100, 3e-6), (20_000, 2e-5)])
def test_float32_error_is_bounded_for_gates_from_1_to_0(spread: float, bound: float, tokens: int) -> None:
    # decays are differences of a chunk's sums of logarithms, some 50 at a spread of 100 and some 10000 at
    # 20000, where a token's gate may be exp(-1000); float32 keeps 7 digits of the sums
    arguments = inputs(tokens, spread)
    exact = with_gradients(gla_reference, arguments)
    ours = with_gradients(lambda *x: gla(*x, "torch"), [x.float() for x in arguments])
    assert all(x.dtype == torch.float32 and x.isfinite().all() for x in ours)
    assert max(map(error, ours, exact)) < bound


def test_closed_gate_erases_earlier_tokens() -> None:
    q, k, v, log_decay = (x.float() for x in inputs(96))
    log_decay[:, 50] = -1e4
    out = gla(q, k, v, log_decay, "torch")
    alone = gla(q[:, 50:], k[:, 50:], v[:, 50:], log_decay[:, 50:], "torch")
    torch.testing.assert_close(out[:, 50:], alone, rtol=1e-2, atol=1e-2)
    assert out.isfinite().all()


def test_gla_is_causal() -> None:
    q, k, v, log_decay = (x.float() for x in inputs(70))
    out = gla(q, k, v, log_decay)
    v[:, 40:] = 0
    k[:, 40:] = 1
    assert torch.equal(gla(q, k, v, log_decay)[:, :40], out[:, :40])


def test_gla_in_bfloat16_accumulates_in_float32() -> None:
    rounded = [x.bfloat16() for x in inputs(250)]
    exact = with_gradients(gla_reference, [x.double() for x in rounded])
    ours = with_gradients(gla, rounded)
    assert all(x.dtype == torch.bfloat16 for x in ours)
    assert max(map(error, ours, exact)) < 4e-3  # the rounding of the result, 8 bits


def test_gla_is_a_sound_operator_to_autograd_and_compilers() -> None:
    arguments = [x.float().requires_grad_() for x in inputs(37)]
    torch.library.opcheck(torch.ops.diffusion_bench.gla.default, tuple(arguments))
    arguments = [x.detach() for x in arguments]
    torch.library.opcheck(torch.ops.diffusion_bench.gla_backward.default, (arguments[2], *arguments))


def test_macs_equal_the_recurrence_on_any_device_and_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def count(device: str) -> tuple[int, int]:
        arguments = [x.to(device, torch.float32).requires_grad_() for x in inputs(100)]
        with FlopCounterMode(display=False) as forward:
            out = gla(*arguments)
        with FlopCounterMode(display=False) as backward:
            out.sum().backward()
        return forward.get_total_flops() // 2, backward.get_total_flops() // 2

    recurrence = 2 * 100 * 3 * (2 * 32 * 64)  # batch, tokens, heads, two products
    assert count("meta") == count("cpu") == (recurrence, 2 * recurrence)
    monkeypatch.setattr(kernel, "CHUNK", 8)
    assert count("cpu") == (recurrence, 2 * recurrence)


def test_gla_on_the_meta_device_keeps_shapes_and_types() -> None:
    arguments = [x.to("meta", torch.bfloat16).requires_grad_() for x in inputs(5)]
    out = gla(*arguments)
    out.sum().backward()
    assert (out.shape, out.dtype) == (arguments[2].shape, torch.bfloat16)
    assert all(x.grad is not None and x.grad.shape == x.shape for x in arguments)


@pytest.mark.parametrize(
    ("cuda", "packages", "message"),
    [
        (False, ("fla", "triton"), "torch sees no CUDA device here"),
        (
            True,
            ("triton",),
            r"fla is not installed \(pip install flash-linear-attention\)",
        ),
        (True, ("fla",), r"triton is not installed \(pip install triton\)"),
    ],
)
def test_a_back_end_that_cannot_run_is_refused_by_name(
    cuda: bool, packages: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(backends, "installed", lambda module: module in packages)
    with pytest.raises(ValueError, match=f"^backend: fla cannot run: {message}; torch would work$"):
        FLA.require("fla")
    FLA.require("torch")
    FLA.require("auto")
    assert not FLA.takes("auto", torch.device("cuda"))


def test_default_back_end_depends_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(backends, "installed", lambda module: True)
    taken = {device: FLA.takes("auto", torch.device(device)) for device in ("cpu", "meta", "cuda")}
    assert taken == {"cpu": False, "meta": False, "cuda": True}
    assert not FLA.takes("torch", torch.device("cuda"))
    assert not FLA.takes("fla", torch.device("meta"))
    with pytest.raises(ValueError, match="backend: fla takes CUDA tensors, got cpu; torch would work"):
        gla(*inputs(3), "fla")


def test_fla_receives_tokens_before_heads_and_unscaled_queries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stub = types.ModuleType("fla.ops.gla")
    stub.chunk_gla = lambda q, k, v, g: (gla_reference(q, k, v, g), None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fla.ops.gla", stub)
    arguments = inputs(9)
    assert torch.equal(kernel.gla_fla(*arguments), gla_reference(*arguments))
    assert torch.equal(torch.ops.diffusion_bench.gla_fla(*arguments), gla_reference(*arguments))


@needs_fla
@pytest.mark.parametrize("tokens", TOKENS[1:])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fla_is_the_recurrence_with_its_gradients(dtype: torch.dtype, tokens: int) -> None:
    rounded = [x.to("cuda", dtype) for x in inputs(tokens)]
    exact = with_gradients(gla_reference, [x.cpu().double() for x in rounded])
    ours = with_gradients(lambda *x: gla(*x, "fla"), rounded)
    # its products may run in TF32, 10 bits, whatever torch's switches say; bf16 keeps 8
    assert max(map(error, ours, exact)) < (5e-3 if dtype == torch.float32 else 2e-2)
    with torch.no_grad():
        assert error(gla(*rounded, "fla"), exact[0]) < 2e-2


@pytest.mark.parametrize(
    ("precision", "expected"), [("fp32", "ieee"), ("tf32", "tf32"), ("torch-default", None)]
)
def test_triton_default_precision_follows_the_setting(
    precision: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    triton = pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_F32_DEFAULT", "of an earlier case")
    device.set_precision(precision)
    found = triton.knobs.language.fp32_default
    device.set_precision("torch-default")
    assert found == expected
