"""Convolutions with reordered weights on a CPU: Winograd's against float64, and changes of a weight."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.kernels import winograd
from models.kernels.packed import convolution, linear
from tests.kernels.test_kernels import error, poisoned

__all__ = ["poisoned"]


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 2, 2, 1, 1), (3, 4, 6, 5, 7), (2, 14, 2, 96, 33)])
def test_winograds_convolution_is_that_of_float64(
    shape: tuple[int, int, int, int, int], bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    N, H, W, C, D = shape
    monkeypatch.setattr(winograd, "MOST", 6)  # tiles, so that images are computed one by one
    x, weight, shift = torch.randn(N, C, H, W), torch.randn(D, C, 3, 3), torch.randn(D) if bias else None
    out = winograd.winograd(x, winograd.transformed(weight), shift)
    exact = F.conv2d(x.double(), weight.double(), None if shift is None else shift.double(), padding=1)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert error(out, exact) < 1e-6


@pytest.mark.parametrize("side", [24, 15], ids=["winograd", "direct"])
def test_a_packed_convolution_sees_changes_of_its_weight(side: int) -> None:
    layer = nn.Conv2d(256, 256, 3, padding=1, bias=False).requires_grad_(False)
    x = torch.randn(1, 256, side, side)
    assert winograd.suits(x, layer.weight) is (side == 24)
    for _ in range(2):
        exact = F.conv2d(x.double(), layer.weight.double(), padding=1)
        assert error(convolution(layer, x), exact) < 2e-6
        layer.weight.mul_(1.5)


def test_a_compiled_layer_runs_the_packed_one_with_the_same_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = nn.Conv2d(256, 256, 3, padding=1).requires_grad_(False), torch.randn(1, 256, 24, 24)
    copies: list[Any] = []
    transformed = winograd.transformed

    def kept(weight: Tensor) -> Any:  # noqa: ANN401 - passed on
        copies.append(transformed(weight))
        return copies[-1]

    monkeypatch.setattr(winograd, "transformed", kept)

    def both(x: Tensor) -> Tensor:
        return linear(
            convolution(layer, x).permute(0, 2, 3, 1), layer.weight[:, :, 0, 0], layer.bias, gelu="none"
        )

    compiled = torch.compile(both, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        torch.testing.assert_close(compiled(x), both(x), rtol=1e-5, atol=1e-5)
    assert len(copies) == 1
