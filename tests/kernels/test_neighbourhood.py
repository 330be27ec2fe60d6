"""Neighbourhood attention: every form against the definition."""

import pytest
import torch
from torch import Tensor, nn

from bench.counting import counters
from models import Task, create
from models.fcdm import NeighbourhoodAttention
from models.kernels.neighbourhood import (
    BACKENDS,
    neighbourhood_attention,
    neighbourhood_attention_masked,
    neighbourhood_attention_reference,
)

SIZES = [(7, 7), (7, 12), (16, 9)]


def qkv(height: int, width: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    return tuple(torch.randn(2, height, width, 3, 8, dtype=dtype, requires_grad=True) for _ in range(3))


def by_definition(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Pixel by pixel: the window around it, moved inward at the borders."""
    height, width = q.shape[1:3]
    out = torch.empty_like(q)
    for i in range(height):
        for j in range(width):
            top = min(max(i - window // 2, 0), height - window)
            left = min(max(j - window // 2, 0), width - window)
            near = (slice(None), slice(top, top + window), slice(left, left + window))
            keys, values = k[near].flatten(1, 2), v[near].flatten(1, 2)  # (N, window^2, h, d)
            share = torch.einsum("nhd,nkhd->nhk", q[:, i, j], keys).softmax(dim=2)
            out[:, i, j] = torch.einsum("nhk,nkhd->nhd", share, values)
    return out


@pytest.mark.parametrize("size", SIZES)
def test_the_reference_attends_to_the_window_moved_inward_at_the_borders(size: tuple[int, int]) -> None:
    args = qkv(*size, torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(neighbourhood_attention_reference(*args, 7), by_definition(*args, 7))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (torch.float64, 1e-12),
        (torch.float32, 1e-5),
        (torch.bfloat16, 3e-2),
    ],  # some roundings of outputs near 1
)
def test_masked_attention_and_its_gradients_equal_the_references(
    size: tuple[int, int], dtype: torch.dtype, tolerance: float
) -> None:
    args = qkv(*size, dtype)
    exact = [arg.detach().double().requires_grad_() for arg in args]
    out, wanted = neighbourhood_attention_masked(*args, 7), neighbourhood_attention_reference(*exact, 7)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), wanted, atol=tolerance, rtol=tolerance)
    seed = torch.randn_like(wanted)
    ours = torch.autograd.grad(out, args, seed.to(dtype))
    theirs = torch.autograd.grad(wanted, exact, seed)
    for grad, target in zip(ours, theirs, strict=True):
        scale = float(target.abs().max())
        torch.testing.assert_close(grad.double(), target, atol=2 * tolerance * scale, rtol=tolerance)


def close_to_masked(backend: str) -> None:
    args = [arg.detach() for arg in qkv(9, 12, torch.float32)]
    with torch.no_grad():
        torch.testing.assert_close(
            neighbourhood_attention(*args, 7, backend),
            neighbourhood_attention_masked(*args, 7),
            atol=1e-5,
            rtol=1e-5,
        )


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.filterwarnings("ignore:return_lse is deprecated")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler, when it is first imported
def test_flex_attention_equals_masked_attention() -> None:
    close_to_masked("flex")


@pytest.mark.filterwarnings("ignore")  # those of another package
def test_natten_equals_masked_attention_where_it_is_installed() -> None:
    pytest.importorskip("natten")
    close_to_masked("natten")


def test_an_unknown_back_end_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="no such back end, got 'dense'; masked, flex, natten would work"):
        NeighbourhoodAttention(32, 7, "dense")


class Attends(nn.Module):
    def __init__(self, backend: str) -> None:
        super().__init__()
        self.attention = NeighbourhoodAttention(64, 7, backend)
        self.backend = backend

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.attention(x)


@pytest.mark.parametrize("backend", BACKENDS)
def test_macs_are_those_of_49_keys_a_query_whatever_the_back_end(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.fcdm.require_backend", lambda name: None)  # natten need not be installed
    task = Task((8, 16), in_channels=64)
    with torch.device("meta"):
        model = Attends(backend)
    products, linears = 2 * 49 * 64 * 8 * 16, 4 * 64 * 64 * 8 * 16
    forward = counters.count_forward(model, task)
    assert forward.by_op["neighbourhood_attention"] == products
    assert forward.macs == products + linears
    step = counters.count_step(model, task)
    # both products have two factors to differentiate; the image itself needs no gradient
    assert step.train_macs == 3 * products + 3 * linears - 3 * 64 * 64 * 8 * 16
    papers = counters.count_forward(model, task, counter="torchprofile-meta")
    assert papers.macs == linears + 64 * 8 * 16  # and the scaling of q
    assert "neighbourhood_attention" in papers.not_counted


def test_a_whole_network_has_its_neighbourhood_products_counted() -> None:
    with torch.device("meta"):
        model = create("FCDM-S@na7")
    with_products = counters.count_forward(model, Task()).by_op["neighbourhood_attention"]
    assert with_products == 2 * 49 * sum(
        blocks * 96 * scale * (32 // scale) ** 2 for blocks, scale in ((4, 1), (8, 2), (8, 4))
    )
