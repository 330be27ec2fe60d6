"""The selective scan: its chunks against the recurrence, its gradient, its count, its other back end."""

import math
import sys
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.kernels import backends
from models.kernels import selective_scan as kernel
from models.kernels.selective_scan import (
    MAMBA_SSM,
    selective_scan,
    selective_scan_mamba_ssm,
    selective_scan_reference,
)

needs_mamba_ssm = pytest.mark.skipif(
    bool(MAMBA_SSM.why_not()), reason=f"mamba-ssm cannot run: {MAMBA_SSM.why_not()}"
)


def inputs(tokens: int, spread: float = 1, channels: int = 6) -> list[Tensor]:
    """u, delta, decay, b, c, skip and z, 2 rows, 4 states; a wide spread brings decays near 0 and near 1."""
    make = torch.Generator().manual_seed(tokens)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=make, dtype=torch.float64)

    each, states = (2, tokens, channels), (2, tokens, 4)
    return [
        normal(*each),
        spread * normal(*each),
        normal(channels, 4),
        normal(*states),
        normal(*states),
        normal(channels),
        normal(*each),
    ]


def with_gradients(scan: Callable[..., Tensor], given: list[Tensor]) -> list[Tensor]:
    """The output, then the gradients of everything given for a fixed gradient of the output."""
    leaves = [x.clone().requires_grad_() for x in given]
    y = scan(*leaves)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    y.backward(weight.to(y))
    grads = [x.grad for x in leaves]
    assert all(grad is not None and grad.dtype == x.dtype for grad, x in zip(grads, leaves, strict=True))
    return [y.detach(), *(grad for grad in grads if grad is not None)]


# one token; less than a chunk, one, one and a token, several and a part
@pytest.mark.parametrize("tokens", [1, 7, 16, 17, 41])
@pytest.mark.parametrize("spread", [1, 30])
def test_chunks_are_the_recurrence_with_its_gradients(tokens: int, spread: float) -> None:
    given = inputs(tokens, spread)
    for ours, wanted in zip(
        with_gradients(selective_scan, given), with_gradients(selective_scan_reference, given), strict=True
    ):
        torch.testing.assert_close(ours, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("spread", [1, 100, 1e4])
def test_float32_is_exact_for_decays_from_1_to_0(spread: float) -> None:
    given = inputs(96, spread)
    exact = with_gradients(selective_scan_reference, given)
    for ours, wanted in zip(with_gradients(selective_scan, [x.float() for x in given]), exact, strict=True):
        assert ours.isfinite().all()
        # an exponent of the size of 1 has a rounding error of 1e-7, and sums are over up to 200 terms
        assert (ours - wanted).norm() / wanted.norm() < 1e-6


def test_bfloat16_is_scanned_in_float32() -> None:
    given = [x.bfloat16() for x in inputs(200)]
    y = selective_scan(*given)
    exact = selective_scan_reference(*(x.double() for x in given))
    assert y.dtype == torch.bfloat16
    # the output's rounding to 8 bits and no other
    assert (y - exact).norm() / exact.norm() < 2e-3


def test_views_are_scanned_like_copies() -> None:
    u, delta, decay, b, c, skip, z = inputs(21)
    views = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (u, delta, b, c, z)]
    flipped = selective_scan(views[0].flip(1), views[1], decay, views[2], views[3], skip, views[4])
    assert torch.equal(flipped, selective_scan(u.flip(1), delta, decay, b, c, skip, z))


def test_operator_passes_torch_opcheck() -> None:
    u, delta, decay, b, c, _, _ = inputs(5)
    given = [x.requires_grad_() for x in (u, delta.exp(), -decay.exp(), b, c)]
    torch.library.opcheck(kernel._scan, [x.detach().requires_grad_() for x in given])


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_scan_costs_4_macs_per_state_and_twice_that_backward(device: str) -> None:
    given = [x.to(device).requires_grad_() for x in inputs(19)]
    with FlopCounterMode(display=False) as forward:
        y = selective_scan(*given)
    with FlopCounterMode(display=False) as backward:
        y.sum().backward()
    macs = 4 * 2 * 19 * 6 * 4
    assert forward.get_total_flops() == 2 * macs
    assert backward.get_total_flops() == 2 * forward.get_total_flops()


def test_mamba_ssm_by_name_is_refused_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    given = inputs(3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        ValueError, match=r"^backend: mamba-ssm cannot run: torch sees no CUDA device here; torch"
    ):
        MAMBA_SSM.require("mamba-ssm")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(backends, "installed", lambda module: False)
    with pytest.raises(
        ValueError,
        match=r"mamba_ssm is not installed \(pip install mamba-ssm: the extra mamba\)",
    ):
        MAMBA_SSM.require("mamba-ssm")
    monkeypatch.setattr(backends, "installed", lambda module: True)
    MAMBA_SSM.require("mamba-ssm")
    with pytest.raises(ValueError, match="mamba-ssm takes CUDA tensors, got cpu; torch would work"):
        selective_scan(*given, backend="mamba-ssm")
    assert not MAMBA_SSM.takes("mamba-ssm", torch.device("meta"))
    assert not MAMBA_SSM.takes("auto", torch.device("cpu"))
    assert MAMBA_SSM.takes("auto", torch.device("cuda"))


def test_mamba_ssm_is_given_what_its_kernel_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    def selective_scan_fn(
        u: Tensor,
        delta: Tensor,
        a: Tensor,
        b: Tensor,
        c: Tensor,
        *,
        D: Tensor,
        z: Tensor,
        delta_softplus: bool,
    ) -> Tensor:
        """Stub of the package's function: the same layout, tokens last, and the same types."""
        assert delta_softplus
        assert {x.dtype for x in (u, delta, b, c, z)} == {torch.bfloat16}
        assert a.dtype == D.dtype == torch.float32
        u, delta, b, c, z = (x.transpose(1, 2).double() for x in (u, delta, b, c, z))
        y = selective_scan_reference(u, delta, (-a.double()).log(), b, c, D.double(), z)
        return y.transpose(1, 2).bfloat16()

    module = ModuleType("mamba_ssm.ops.selective_scan_interface")
    module.__dict__["selective_scan_fn"] = selective_scan_fn
    for name in ("mamba_ssm", "mamba_ssm.ops"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    u, delta, decay, b, c, skip, z = (x.bfloat16() for x in inputs(12))
    given = (u, delta.float(), decay, b, c, skip, z)
    y = selective_scan_mamba_ssm(*given)
    assert y.shape == u.shape
    torch.testing.assert_close(y, selective_scan(*given), rtol=1e-2, atol=1e-2)  # bfloat16 keeps 8 bits
    assert torch.equal(kernel._whole_mamba_ssm(*given), y)


@needs_mamba_ssm
@pytest.mark.parametrize("tokens", [1, 16, 258])
def test_mamba_ssm_is_the_recurrence_with_its_gradients(tokens: int) -> None:
    given = inputs(tokens, channels=64)
    exact = with_gradients(selective_scan_reference, given)
    on_gpu = [x.float().cuda() for x in given]
    for ours, wanted in zip(
        with_gradients(lambda *x: selective_scan(*x, "mamba-ssm"), on_gpu), exact, strict=True
    ):
        # its exponentials are hardware's, some 1e-6 off
        assert (ours.cpu() - wanted).norm() / wanted.norm() < 1e-4


def test_state_decays_at_its_rate_and_the_scan_is_causal() -> None:
    u = torch.zeros(1, 6, 1, dtype=torch.float64)
    u[0, 1] = 1
    one = torch.ones(1, 6, 1, dtype=torch.float64)
    y = selective_scan(
        u,
        math.log(math.e - 1) * one,
        torch.full((1, 1), math.log(0.5)).double(),
        one,
        one,
        one[0, 0] * 0,
        50 * one,
    )
    wanted = torch.tensor([0.0, 1, *(math.exp(-0.5 * k) for k in range(1, 5))], dtype=torch.float64)
    torch.testing.assert_close(y[0, :, 0] / 50, wanted)
