"""Fused operators: Triton kernels against float64 references, interpreted on a CPU, and their gradients."""

import csv
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from baselines import load
from models.contract import build, make_inputs
from models.kernels import norm_modulate
from models.kernels.fused import depthwise_gelu as dg
from models.kernels.fused import depthwise_norm as dw
from models.kernels.fused import group_norm_gelu as gn
from models.kernels.fused import operator, product
from models.registry import published_task
from tests.kernels.test_kernels import DEVICE, TOLERANCE, error, image, poisoned

__all__ = ["poisoned"]
# a rounded factor, as of a scaled input, adds some roundings to the one of the result
ROUNDED = {dtype: 2 * tolerance for dtype, tolerance in TOLERANCE.items()}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
Arguments = list[Any]  # tensors, None and numbers


def depthwise_arguments(shape: tuple[int, int, int, int], K: int, dtype: torch.dtype) -> Arguments:
    N, _, _, C = shape
    x = 1 + image(*shape, dtype=dtype)
    return [x, image(C, 1, K, K, dtype=dtype), *(image(*of, dtype=dtype) for of in ((C,), (N, C), (N, C)))]


def group_norm_arguments(
    shape: tuple[int, int, int, int], groups: int, dtype: torch.dtype, *, modulated: bool = True
) -> Arguments:
    N, _, _, C = shape
    vectors = [image(*of, dtype=dtype) for of in ((C,), (C,), (N, C), (N, C))]
    # a mean far from 0: the squares' mean less the mean's square would lose what is left of the variance
    return [
        3 + image(*shape, dtype=dtype),
        *vectors[:2],
        *(vectors[2:] if modulated else [None] * 2),
        groups,
        1e-5,
    ]


def gelu_arguments(shape: tuple[int, int, int, int], D: int, dtype: torch.dtype) -> Arguments:
    C = shape[3]
    return [image(*shape, dtype=dtype), image(D, C, dtype=dtype) / C**0.5, image(D, dtype=dtype)]


def scaled_arguments(shape: tuple[int, int, int, int], D: int, dtype: torch.dtype) -> Arguments:
    N, H, W, C = shape
    x, weight, bias = gelu_arguments(shape, D, dtype)
    scale, shift = image(N, C, dtype=dtype), image(C, dtype=dtype)
    return [x, weight, bias, image(N, D, dtype=dtype), image(N, H, W, D, dtype=dtype), scale, shift]


def shuffled_arguments(shape: tuple[int, int, int, int], D: int, dtype: torch.dtype) -> Arguments:
    N, H, W, C = shape
    x, skip = image(N, H, W, 4 * C, dtype=dtype), image(N, 2 * H, 2 * W, 5, dtype=dtype)
    return [x, skip, image(D, C + 5, dtype=dtype) / C**0.5, image(D, dtype=dtype)]


def doubled(arguments: Arguments) -> Arguments:
    return [one.double() if isinstance(one, Tensor) else one for one in arguments]


@pytest.mark.usefixtures("poisoned")
@DTYPES
@pytest.mark.parametrize(
    ("shape", "K"), [((2, 1, 1, 5), 7), ((2, 3, 6, 16), 3), ((1, 2, 5, 130), 7), ((1, 1, 2, 3), 11)]
)
def test_depthwise_with_norm_is_that_of_float64(
    shape: tuple[int, int, int, int], K: int, dtype: torch.dtype
) -> None:
    given = depthwise_arguments(shape, K, dtype)
    out = dw.depthwise_norm_triton(*given)
    assert (out.shape, out.dtype) == (given[0].shape, dtype)
    assert error(out, dw.depthwise_norm_reference(*doubled(given))) < 2 * TOLERANCE[dtype]


@pytest.mark.usefixtures("poisoned")
@DTYPES
@pytest.mark.parametrize(
    ("shape", "K"), [((2, 1, 1, 5), 3), ((2, 7, 13, 70), 3), ((1, 17, 9, 3), 5)]
)  # less than a tile, and parts of several
def test_depthwise_with_gelu_and_averages_is_that_of_float64(
    shape: tuple[int, int, int, int], K: int, dtype: torch.dtype
) -> None:
    x, weight, bias, *_ = depthwise_arguments(shape, K, dtype)
    out, means = dg.depthwise_gelu_triton(x, weight, bias)
    exact, of_exact = dg.depthwise_gelu_reference(*doubled([x, weight, bias]))
    assert (out.shape, out.dtype, means.dtype) == (x.shape, dtype, dtype)
    assert error(out, exact) < ROUNDED[dtype]
    assert error(means, of_exact) < ROUNDED[dtype]


@pytest.mark.usefixtures("poisoned")
@DTYPES
@pytest.mark.parametrize(
    ("shape", "groups", "modulated"),
    [
        ((2, 1, 1, 8), 2, True),
        ((2, 7, 13, 96), 24, True),
        ((1, 33, 5, 15), 3, False),  # 3 groups, none beside another; 5 channels in a block of 8
        ((1, 13, 97, 24), 4, True),  # more pixels than a step takes
    ],
)
def test_group_norm_with_modulation_and_gelu_is_that_of_float64(
    shape: tuple[int, int, int, int], groups: int, modulated: bool, dtype: torch.dtype
) -> None:
    given = group_norm_arguments(shape, groups, dtype, modulated=modulated)
    out = gn.group_norm_gelu_triton(*given)
    assert (out.shape, out.dtype) == (shape, dtype)
    assert error(out, gn.group_norm_gelu_reference(*doubled(given))) < ROUNDED[dtype]


SHAPES = pytest.mark.parametrize(
    ("shape", "D"), [((2, 1, 7, 7), 5), ((1, 7, 3, 96), 17), ((2, 5, 13, 33), 130)]
)


@pytest.mark.usefixtures("poisoned")
@DTYPES
@SHAPES
def test_product_with_gelu_and_squares_is_that_of_float64(
    shape: tuple[int, int, int, int], D: int, dtype: torch.dtype
) -> None:
    given = gelu_arguments(shape, D, dtype)
    out, squares = product.gelu_product_triton(*given)
    exact, of_exact = product.gelu_product_reference(*doubled(given))
    assert (out.dtype, squares.dtype) == (dtype, torch.float32)
    assert error(out, exact) < ROUNDED[dtype]
    assert error(squares, of_exact) < ROUNDED[dtype]


@pytest.mark.usefixtures("poisoned")
@DTYPES
@SHAPES
def test_product_between_scale_and_gate_is_that_of_float64(
    shape: tuple[int, int, int, int], D: int, dtype: torch.dtype
) -> None:
    given = scaled_arguments(shape, D, dtype)
    for some in (given, given[:-1], given[:-2]):  # without shift, without scale
        exact = product.scaled_product_reference(*doubled(some))
        assert error(product.scaled_product_triton(*some), exact) < ROUNDED[dtype]


@pytest.mark.usefixtures("poisoned")
@DTYPES
@SHAPES
def test_product_of_a_shuffled_image_is_that_of_float64(
    shape: tuple[int, int, int, int], D: int, dtype: torch.dtype
) -> None:
    given = shuffled_arguments(shape, D, dtype)
    exact = product.shuffled_product_reference(*doubled(given))
    assert error(product.shuffled_product_triton(*given), exact) < ROUNDED[dtype]


SMALL, DOUBLE = (2, 3, 2, 4), torch.float64
OPERATORS = {
    "depthwise_norm": lambda: [*depthwise_arguments(SMALL, 3, DOUBLE), 1e-6],
    "depthwise_gelu": lambda: depthwise_arguments(SMALL, 3, DOUBLE)[:3],
    "group_norm_gelu": lambda: group_norm_arguments(SMALL, 2, DOUBLE),
    "gelu_product": lambda: gelu_arguments(SMALL, 3, DOUBLE),
    "scaled_product": lambda: scaled_arguments(SMALL, 3, DOUBLE),
    "shuffled_product": lambda: shuffled_arguments(SMALL, 3, DOUBLE),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_gradients_of_a_fused_operator_are_those_of_its_output(name: str) -> None:
    made = getattr(torch.ops.backbones, name).default
    leaves = [one.requires_grad_() if isinstance(one, Tensor) else one for one in OPERATORS[name]()]
    assert torch.autograd.gradcheck(made, leaves, fast_mode=True)
    torch.library.opcheck(made, tuple(leaves), test_utils=("test_schema", "test_faketensor"))


def test_gradients_of_inputs_that_are_none_are_left_out() -> None:
    leaves = [
        one.requires_grad_() if isinstance(one, Tensor) else one
        for one in group_norm_arguments(SMALL, 2, DOUBLE, modulated=False)
    ]
    assert torch.autograd.gradcheck(torch.ops.backbones.group_norm_gelu.default, leaves, fast_mode=True)


def test_a_fused_operator_compiles_with_its_gradients() -> None:
    given = [one.requires_grad_() for one in gelu_arguments(SMALL, 3, DOUBLE)]

    def loss(*given: Tensor) -> Tensor:
        h, squares = torch.ops.backbones.gelu_product(*given)
        return (h.sum() + squares.square().sum()) * 1.0

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for one, other in zip(*(torch.autograd.grad(f(*given), given) for f in (loss, compiled)), strict=True):
        torch.testing.assert_close(one, other)


def test_fused_operators_refuse_other_shapes() -> None:
    x, weight, bias = gelu_arguments((2, 3, 2, 4), 3, torch.float32)
    with pytest.raises(ValueError, match=r"gelu_product: takes \(N, H, W, C\), \(D, C\) and \(D,\), got"):
        product.gelu_product(x, weight.T, bias)
    with pytest.raises(
        ValueError, match=r"scaled_product: all must have the same dtype, got .*float32, float64"
    ):
        product.scaled_product(x, weight, bias, bias.expand(2, 3), x[..., :3], x[:, 0, 0].double())
    with pytest.raises(ValueError, match="with K odd"):
        dw.depthwise_norm(*depthwise_arguments((1, 3, 3, 4), 2, torch.float32))
    with pytest.raises(ValueError, match=r"depthwise_gelu: .* with K odd and \(C,\), got"):
        dg.depthwise_gelu(*depthwise_arguments((1, 3, 3, 4), 2, torch.float32)[:3])
    norm = group_norm_arguments((1, 3, 3, 4), 3, torch.float32)
    for wrong in (norm, [*norm[:3], None, *norm[4:]], [norm[0], norm[3], *norm[2:]]):
        with pytest.raises(ValueError, match=r"group_norm_gelu: .*, got \(1, 3, 3, 4\), .*, 3 groups"):
            gn.group_norm_gelu(*wrong)


@pytest.mark.skipif(DEVICE == "cuda", reason="a GPU runs the kernels")
def test_fused_operators_on_a_cpu_are_the_reference() -> None:
    given = scaled_arguments((2, 3, 2, 4), 3, torch.float32)
    out = product.scaled_product(*given)
    assert torch.equal(out, product.scaled_product_reference(*given))
    assert product.scaled_product(*(one.to("meta") for one in given)).shape == out.shape


@pytest.mark.skipif(DEVICE == "cuda", reason="on a GPU the kernels compute, not these")
@DTYPES
@pytest.mark.parametrize("side", [7, 33])
def test_fused_operators_on_a_cpu_are_those_of_float64(side: int, dtype: torch.dtype) -> None:
    shape = (2, side, side, 24)
    for reference, given in (
        (gn.group_norm_gelu_reference, group_norm_arguments(shape, 3, dtype)),
        (product.gelu_product_reference, gelu_arguments(shape, 17, dtype)),
        (dg.depthwise_gelu_reference, depthwise_arguments(shape, 3, dtype)[:3]),
    ):
        found, exact = (tree_leaves(reference(*some)) for some in (given, doubled(given)))
        for one, of_float64 in zip(found, exact, strict=True):
            assert error(one, of_float64) < 2 * ROUNDED[dtype]


# of a pass in bf16, 64 images of 256 px: with everything fused that can be, and at most (docs/fast.md)
MOVED_GB = (("FCDM-XL", 13.5, 14.1), ("DiCo-XL", 40.0, 40.4), ("DiC-XL", 13.5, 17.6))


class MovedBytes(TorchDispatchMode):
    """Sums the bytes of operators, each input read once and each output written once.

    Convolutions keep channels last, as cuDNN's do; on meta they forget it, and copies would follow.
    """

    total = 0

    def __torch_dispatch__(  # type: ignore[override] # torch has no types here
        self, func: OpOverload, types: object, args: tuple[object, ...] = (), kwargs: object = None
    ) -> object:
        out = func(*args, **(kwargs or {}))  # type: ignore[arg-type]
        if func is torch.ops.aten.convolution.default:
            out = out.contiguous(memory_format=torch.channels_last)
        if not func.is_view:
            read = {id(one): one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
            for one in (*read.values(), *tree_leaves(out)):
                self.total += one.numel() * one.element_size()
        return out


@pytest.mark.parametrize(("name", "floor", "most"), MOVED_GB, ids=[row[0] for row in MOVED_GB])
def test_fused_bytes_are_near_their_floor(
    name: str, floor: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (operator, product):
        monkeypatch.setattr(module, "runs_triton", lambda x: True)  # as on a GPU
    monkeypatch.setattr(norm_modulate, "why_not_triton", lambda *given: "")
    task = published_task(name)
    model = build(name, task, impl="fast").eval().bfloat16()
    x, t, y = make_inputs(task, 64, "meta")
    with torch.no_grad(), MovedBytes() as moved:
        model(x.bfloat16(), t, y)
    assert floor < moved.total / 1e9 < most


def test_no_fused_kernel_spills_registers_when_compiled() -> None:
    with (load.ROOT / "kernel_resources.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["sm"] for row in rows} == {"80", "89", "90"}
    assert not [row for row in rows if int(row["spilled_bytes"])]
