"""Implementations of a model's operations: comparison, correctness check, records, report."""

import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench import kernels
from bench.analysis.rooflines import kernels as analysis
from bench.analysis.rooflines import roofline
from bench.jobs import worker
from bench.machine import device, environment
from bench.measure.operations import depthwise, implementations, norms, products
from bench.measure.operations import kernels as measuring
from bench.measure.operations.implementations import (
    Call,
    Draws,
    Implementation,
    Operands,
    Output,
    error,
    tensors,
)
from bench.measure.operations.kernels import OPERATIONS, Layer
from bench.records.base import Environment, Record, Skipped, StoreError, height_width
from bench.records.ceiling import Ceiling, CeilingCase
from bench.records.kernels import (
    DEPTHWISE,
    NORMS,
    PRODUCTS,
    CheckedImplementation,
    DepthwiseCase,
    DepthwiseComparison,
    KernelCase,
    NormCase,
    ProductCase,
    ProductComparison,
)
from bench.store.codec import from_dict, key, read, to_dict, to_line
from bench.tables.render import render
from models import fcdm
from models.contract import build
from models.layers.unet import UNet, Up
from models.registry import task_at
from reports.sections.kernels import section
from tests.commands import run
from tests.records.examples import ENVIRONMENT, MODEL, PRODUCT, SKIPPED

SMALL = DepthwiseCase(
    **{**MODEL, "batch": 2},
    operation="conv",
    kernel=3,
    channels=6,
    image_size=(5, 7),
    calls_per_pass=2,
    budget_s=0.2,
    precision_target=0.01,
)
PRODUCT_CASE = ProductCase(
    **{**MODEL, "batch": 2},
    operation="gelu-product",
    channels=6,
    out_channels=10,
    image_size=(6, 4),
    calls_per_pass=2,
    budget_s=0.2,
    precision_target=0.01,
)
NORM_CASE = NormCase(
    **{**MODEL, "batch": 2},
    operation="norm-gelu",
    channels=6,
    groups=2,
    image_size=(5, 7),
    calls_per_pass=2,
    budget_s=0.2,
    precision_target=0.01,
)

# torch's names of its convolutions; which of them it takes in bf16 depends on the CPU's instructions
KERNELS = torch._C._ConvBackend.__members__  # type: ignore[attr-defined]
TORCH = [
    *((operation, name) for operation in DEPTHWISE for name in ("nchw", "channels-last")),
    *((operation, name) for operation in (*PRODUCTS, *NORMS) for name in ("eager", "fast")),
    ("conv-gelu", "fast"),
]


def case(operation: str = "conv", precision: str = "fp32") -> KernelCase:
    small = SMALL if operation in DEPTHWISE else NORM_CASE if operation in NORMS else PRODUCT_CASE
    return replace(small, operation=operation, precision=precision)


@pytest.fixture(autouse=True)
def _few_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    # three inputs of the small layer: more than one, and none of the megabytes that time needs
    monkeypatch.setattr(implementations, "ROTATED", {"cpu": 3 * 2 * 6 * 5 * 7 * 4})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile is left out: it takes seconds."""
    for one in OPERATIONS.values():
        monkeypatch.delitem(one.implementations, "compiled")


def changed(monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[Any], Output]) -> None:
    """Change the output of an implementation of the convolution."""
    of = OPERATIONS["conv"].implementations
    right = of[name]

    def make(given: Operands) -> Call:
        call = right.make(given)
        return lambda i: change(call(i))

    monkeypatch.setitem(of, name, replace(right, make=make))


# what is compared


@pytest.mark.parametrize(("res", "sides"), [(256, (32, 16, 8)), ((256, 512), ((32, 64), (16, 32), (8, 16)))])
def test_widths_sides_and_calls_are_those_of_the_model(
    res: int | tuple[int, int], sides: tuple[Any, ...]
) -> None:
    task = task_at("FCDM-XL", *height_width(res))
    found = measuring.layers(build("FCDM-XL", task), task)

    def layer(channels: int, out_channels: int, level: int, calls: int, kernel: int = 1) -> Layer:
        return Layer(
            channels=channels,
            out_channels=out_channels,
            image_size=sides[level],
            kernel=kernel,
            groups=1,
            calls_per_pass=calls,
        )

    levels = ((512, 0, 6), (1024, 1, 12), (2048, 2, 12))
    depthwise_layers = [layer(width, width, level, calls, 7) for width, level, calls in levels]
    assert found == {
        "conv": depthwise_layers,
        "block": depthwise_layers,
        "gelu-product": [layer(width, 3 * width, level, calls) for width, level, calls in levels],
        "scaled-product": [layer(3 * width, width, level, calls) for width, level, calls in levels],
        "shuffled-product": [layer(2048, 1024, 1, 1), layer(1024, 512, 0, 1)],
    }


@pytest.mark.parametrize(
    ("model", "operations"),
    [
        ("DiC-S", {"norm-gelu"}),
        ("DiCo-S", {"conv", "block", "conv-gelu", "shuffled-product"}),
        ("DiCo-S@relu", {"conv", "block", "shuffled-product"}),
        ("FCDM-S@nogrn", {"conv", "block", "gelu-product", "shuffled-product"}),
    ],
)
def test_operations_are_those_that_a_pass_calls(
    model: str, operations: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_at(model, 256, 256)
    found = measuring.layers(build(model, task), task)
    assert set(found) == operations
    monkeypatch.setattr(UNet, "levels", lambda unet: iter(()))
    assert measuring.layers(build(model, task), task) == found


def depthwise_operands(precision: torch.dtype, kernel: int, **changes: int) -> depthwise.DepthwiseOperands:
    return depthwise.draw(replace(SMALL, kernel=kernel, **changes), Draws(precision, "cpu"))


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_the_check_is_the_operation_in_float64(kernel: int) -> None:
    given = depthwise_operands(torch.bfloat16, kernel)
    (x,) = given.inputs[0]
    conv = F.conv2d(x.double(), given.weight.double(), given.bias.double(), padding=kernel // 2, groups=6)
    torch.testing.assert_close(depthwise.exact_conv(given), conv)
    normed = F.layer_norm(conv.permute(0, 2, 3, 1), (6,), eps=1e-6).permute(0, 3, 1, 2)
    block = normed * (1 + given.scale.double()[:, :, None, None]) + given.shift.double()[:, :, None, None]
    torch.testing.assert_close(depthwise.exact_block(given), block)


def product_operands(operation: str) -> products.ProductOperands:
    return products.draw(replace(PRODUCT_CASE, operation=operation), Draws(torch.float64, "cpu"))


def test_the_checks_of_products_are_the_modules_of_the_network() -> None:
    given = product_operands("scaled-product")
    response = fcdm.GlobalResponseNorm(6).double()
    (x, residual), weight, bias = given.inputs[0], given.weight, given.bias
    norm = torch.linalg.vector_norm(x, dim=(2, 3))
    given = replace(given, share=norm / (norm.mean(dim=1, keepdim=True) + response.eps))
    gamma, beta = (one.view(1, 6, 1, 1) for one in (given.gamma, given.beta))
    response.load_state_dict({"gamma": gamma, "beta": beta})
    h = F.conv2d(response(x), weight, bias)
    (exact,) = tensors(products.exact_scaled(given))
    torch.testing.assert_close(exact, residual + given.gate[..., None, None] * h)

    given = product_operands("gelu-product")
    h, norms = tensors(products.exact_gelu(given))
    torch.testing.assert_close(h, F.gelu(F.conv2d(given.inputs[0][0], given.weight, given.bias)))
    torch.testing.assert_close(norms, torch.linalg.vector_norm(h, dim=(2, 3)))

    given, up = product_operands("shuffled-product"), Up(12, 3)
    up.conv = torch.nn.Identity()  # type: ignore[assignment] # what remains is the shuffle
    x, skip = given.inputs[0]
    (exact,) = tensors(products.exact_shuffled(given))
    torch.testing.assert_close(exact, F.conv2d(torch.cat([up(x), skip], dim=1), given.weight, given.bias))


def test_the_checks_of_gelu_are_the_operators_of_the_networks() -> None:
    given = depthwise_operands(torch.float64, 3)
    h, mean = tensors(depthwise.exact_conv_gelu(given))
    torch.testing.assert_close(h, F.gelu(depthwise.exact_conv(given)))
    torch.testing.assert_close(mean, h.mean(dim=(2, 3)))
    norm = norms.draw(NORM_CASE, Draws(torch.float64, "cpu"))
    torch.testing.assert_close(norms.exact(norm), norms.eager(norm)(*norm.inputs[0]))


@pytest.mark.parametrize("operation", ["block", "conv-gelu", *PRODUCTS, *NORMS])
def test_the_check_is_the_same_in_parts(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given, whole = measuring.draw(case(operation))
    monkeypatch.setattr(implementations, "CHUNK", 1)
    off = error(OPERATIONS[operation].exact(given), whole)
    assert off is not None
    assert off < 1e-14


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("operation", "name"), TORCH)
def test_an_implementation_works_through_every_input(
    name: str, operation: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outs: list[Output] = []
    of = OPERATIONS[operation]
    right = of.implementations[name]

    def make(given: Operands) -> Call:
        call = right.make(given)

        def kept(i: int) -> Output:
            outs.append(call(i))
            return outs[-1]

        return kept

    monkeypatch.setitem(of.implementations, name, replace(right, make=make))
    given, exact = measuring.draw(case(operation, precision))
    assert len(given.inputs) == len(given.inputs_last) > 1
    with torch.inference_mode():
        found, call = implementations.prepare(name, of.implementations, given, exact, precision)
        assert (found.status, found.reason) == ("ok", "")
        assert found.ran in KERNELS or name == "fast" or operation in NORMS
        assert found.error is not None
        assert 0 < found.error < implementations.TOLERANCE[precision]
        assert call is not None
        outs.clear()
        call()
    assert len(outs) == len(given.inputs)
    for i, out in enumerate(outs):
        off = error(out, of.exact(replace(given, inputs=given.inputs[i:])))
        assert off is not None
        assert off < implementations.TOLERANCE[precision]


@pytest.mark.parametrize(
    ("operation", "name"),
    [*((operation, "triton") for operation in OPERATIONS), ("block", "triton-fused")],
)
def test_the_triton_implementation_is_right(operation: str, name: str) -> None:
    pytest.importorskip("triton")
    given, exact = measuring.draw(case(operation))
    of = OPERATIONS[operation]
    out = of.implementations[name].make(given)(1)
    off = error(out, exact)
    assert off is not None
    assert off > 0.01  # the second input is another one
    off = error(out, of.exact(replace(given, inputs=given.inputs[1:])))
    assert off is not None
    assert off < 1e-6


def test_unavailable_implementation_gives_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    conv, block, gelu = (OPERATIONS[name].implementations for name in ("conv", "block", "gelu-product"))

    def reasons(of: dict[str, Implementation[Any]], where: str) -> dict[str, str]:
        found = {name: one.why_not(where, 7) for name, one in of.items()}
        return {name: reason for name, reason in found.items() if reason}

    cuda = "runs on CUDA only"
    assert reasons(conv, "cpu") == dict.fromkeys(("nchw-cudnn", "channels-last-searched", "triton"), cuda)
    assert reasons(block, "cpu") == dict.fromkeys(("triton", "triton-fused"), cuda)
    assert reasons(gelu, "cpu") == {"triton": cuda}
    monkeypatch.setattr(implementations, "why_no_triton", lambda: "")
    assert reasons(gelu, "cuda") == {"fast": "is triton on CUDA"}
    assert "up to 9" in conv["triton"].why_not("cuda", 31)
    monkeypatch.setattr(depthwise, "has_switch", lambda: False)
    assert f"torch {torch.__version__} has no switch" in conv["nchw-cudnn"].why_not("cuda", 7)


@pytest.mark.skipif(not depthwise.has_switch(), reason="this torch has no switch")
def test_cudnn_switch_is_restored() -> None:
    before = torch.backends.cudnn.depthwise_kernel
    with depthwise.switched("depthwise_kernel", "native"):
        assert torch.backends.cudnn.depthwise_kernel == "native"
    assert torch.backends.cudnn.depthwise_kernel == before


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("change", "message"), [(lambda out: 1.01 * out, "is off by 1.0e-02, fp32 by less than 1e-05"),
                         (lambda out: out / 0, "holds inf or NaN")]
)  # fmt: skip
def test_a_wrong_output_is_a_row_and_not_timed(
    change: Callable[[Tensor], Tensor], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = OPERATIONS["conv"].implementations
    monkeypatch.setitem(of, "triton", replace(of["channels-last"]))
    changed(monkeypatch, "channels-last", change)
    found = measuring.measure(case(), ENVIRONMENT)
    assert isinstance(found, DepthwiseComparison)
    by_name = {one.name: one for one in found.implementations}
    assert by_name["channels-last"].status == "wrong"
    assert by_name["channels-last"].ran in KERNELS
    assert message in by_name["channels-last"].reason
    assert list(found.arms) == ["nchw", "triton"]


@pytest.mark.usefixtures("quick")
def test_nothing_is_compared_without_a_second_implementation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed(monkeypatch, "channels-last", lambda out: out + 1)
    found = measuring.measure(case(), ENVIRONMENT)
    assert isinstance(found, Skipped)
    assert (found.status, "nothing beside nchw: channels-last: the" in found.reason) == ("not timed", True)
    changed(monkeypatch, "nchw", lambda out: out + 1)
    found = measuring.measure(case(), ENVIRONMENT)
    assert isinstance(found, Skipped)
    assert (found.status, found.reason[:5]) == ("wrong", "nchw:")


def test_an_implementation_that_fails_is_a_row() -> None:
    given, exact = measuring.draw(case())
    broken = replace(given, weight=given.weight[:4])  # six channels
    of = OPERATIONS["conv"].implementations
    found, call = implementations.prepare("nchw", of, broken, exact, "fp32")
    assert (found.status, call) == ("error", None)
    assert "groups" in found.reason


def test_one_output_of_two_is_enough_to_be_wrong() -> None:
    one, other = torch.ones(3).double(), torch.tensor([1.0, 2.0, 2.0]).double()
    assert error((one, other), (one, other)) == 0
    assert error((one, 1.5 * other), (one, other)) == pytest.approx(0.5)
    assert error((one, other / 0), (one, other)) is None


def test_a_product_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without compiling, which takes seconds."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(implementations, "ROTATED", {"cpu": 2**25})
    larger = replace(case("gelu-product"), channels=64, image_size=16, budget_s=0.5)
    found = measuring.measure(larger, ENVIRONMENT)
    assert isinstance(found, ProductComparison), found
    assert found.arms == ("eager", "fast", "compiled")
    assert found.inputs == implementations.MAX_INPUTS
    assert found.rounds >= 1


# what is kept

FOUND = (
    CheckedImplementation(name="nchw", ran="Slow2d", status="ok", reason="", error=1e-7),
    CheckedImplementation(
        name="nchw-cudnn", ran="", status="not here", reason="torch 2.11.0 has no switch", error=None
    ),
    CheckedImplementation(
        name="channels-last", ran="Cudnn", status="wrong", reason="is off by 1e+00", error=1.0
    ),
    CheckedImplementation(name="triton", ran="Triton", status="ok", reason="", error=2e-7),
)


def made(**changes: Any) -> DepthwiseComparison:  # noqa: ANN401 - fields of the case
    """Ten rounds; Triton takes half the time."""
    known = {"model": "FCDM-XL", "precision": "bf16", "kernel": 7, "channels": 4, "image_size": (3, 5)}
    asked = replace(SMALL, **{**known, "calls_per_pass": 3, **changes})
    draw = random.Random(asked.channels)
    return DepthwiseComparison(
        case=asked,
        environment=ENVIRONMENT,
        implementations=FOUND,
        inputs=5,
        order=(0, 1, 1, 0) * 10,
        visits_s=tuple(10.0 * draw.uniform(0.99, 1.01) for _ in range(40)),
        calls=(10, 20),
        clocks_mhz=(),
        warmup_times_s=((1.0,), (0.5,)),
        warmup_stationary=(True, True),
        margin=0.01,
        stopped_by="verdicts",
        unmet=(),
    )


def test_times_are_of_one_operation_and_ratios_to_the_first() -> None:
    one = made()
    elements = one.case.elements
    assert elements == 2 * 3 * 5 * 4
    assert one.case.flops == 2 * 49 * elements
    assert one.case.least_bytes == 2 * (2 * elements + 50 * 4)
    assert made(operation="block").case.least_bytes == one.case.least_bytes + 2 * 2 * 2 * 4
    assert made(precision="tf32").case.least_bytes == 2 * one.case.least_bytes
    assert one.median_s(0) == pytest.approx(10 / 10 / 5, rel=0.01)
    assert one.median_s(1) == pytest.approx(0.1, rel=0.01)
    assert one.ratio(1) == pytest.approx(2, rel=0.01)
    assert (one.verdict(1), one.rounds) == ("faster within one process", 10)


def test_a_product_has_its_flops_and_least_bytes() -> None:
    pixels, C, D = 2 * 6 * 4, 6, 10
    product = PRODUCT_CASE
    assert product.operation_label == "gelu-product, 6 to 10 channels, 6x4"
    assert product.flops == 2 * pixels * C * D
    plain = pixels * (C + D) + (C + 1) * D
    assert product.least_bytes == 4 * (plain + 2 * D)
    assert replace(product, precision="bf16").least_bytes == 2 * plain + 4 * 2 * D
    assert replace(product, operation="shuffled-product").least_bytes == 4 * plain
    residual, vectors = pixels * D, 2 * (C + D) + C
    assert replace(product, operation="scaled-product").least_bytes == 4 * (plain + residual + vectors)


def test_record_round_trips_and_is_found_by_its_case() -> None:
    one = made()
    assert from_dict(json.loads(to_line(one))) == one
    assert key(one.case, ENVIRONMENT) != key(made(channels=8).case, ENVIRONMENT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"implementations": FOUND[1:]}, "needs a first implementation that was timed"),
        ({"calls": (1, 1, 1)}, "needs a first implementation that was timed, and calls for each"),
        ({"order": (0, 1, 1), "visits_s": (1.0, 1.0, 1.0)}, "same number of visits"),
        ({"visits_s": (1.0,)}, "time from 1e-12 to 1e9 s for every visit"),
    ],
)
def test_impossible_records_cannot_be_made(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(made(), **change)
    with pytest.raises(StoreError, match=message):
        from_dict(json.loads(json.dumps({**to_dict(made()), **change}, default=vars)))


def test_a_pass_sums_what_was_timed_at_all_of_its_sizes() -> None:
    four, eight = made(channels=4), made(channels=8, calls_per_pass=1)
    lone = replace(eight, implementations=(*FOUND[:3], replace(FOUND[3], name="compiled")))
    (found,) = analysis.pass_sums([four, eight])
    assert found.records == (four, eight)
    assert found.seconds == {
        name: pytest.approx(3 * four.median_s(arm) + eight.median_s(arm))
        for arm, name in enumerate(("nchw", "triton"))
    }
    (found,) = analysis.pass_sums([four, lone])
    assert list(found.seconds) == ["nchw"]


# the command


@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command gets records without measuring; the operations that it asked for, in order."""
    asked: list[str] = []

    def answer(function: str, case: KernelCase, environment: Environment, timeout_s: float) -> Record:
        assert function == "bench.measure.operations.kernels:measure"
        assert timeout_s > case.budget_s
        asked.append(case.operation_label)
        if case.channels == 1024:
            return Skipped(case=case, environment=environment, status="out of memory", reason="no room")
        return replace(made(channels=case.channels), case=case, environment=environment)

    monkeypatch.setattr(worker, "run", answer)
    return asked


ASKED = ("--device", "cpu", "--res", "256", "--precision", "fp32", "--operation", "conv")


def test_the_command_shows_all_and_measures_nothing_twice(
    canned: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "depthwise.jsonl"
    assert run(kernels.main, *ASKED, "--out", str(out), "--format", "json") == 0
    sides = {512: 32, 1024: 16, 2048: 8}
    assert canned == [f"conv 7x7, {c} channels, {side}x{side}" for c, side in sides.items()]
    rows = json.loads(capsys.readouterr().out)
    assert len({frozenset(row) for row in rows}) == 1
    assert [row["status"] for row in rows] == [
        "ok", "not here", "wrong", "ok", "out of memory", "ok", "not here", "wrong", "ok"
    ]  # fmt: skip
    assert rows[3]["ratio"] == pytest.approx(2, rel=0.01)
    assert rows[3]["elements_per_s"] == pytest.approx(4 * 32 * 32 * 512 / rows[3]["median_s"])
    assert rows[2]["median_s"] is None
    assert [type(one) for one in read(out).records] == [DepthwiseComparison, Skipped, DepthwiseComparison]

    canned.clear()
    assert run(kernels.main, *ASKED, "--out", str(out)) == 0
    assert canned == []
    printed = capsys.readouterr()
    assert "wrong: is off by" in printed.out
    assert "out of memory" in printed.out
    assert "no room" in printed.out
    assert "not here" not in printed.out
    assert "not run: nchw-cudnn: torch 2.11.0 has no switch" in printed.err
    assert "3 of 3 were in" in printed.err


def test_a_refused_verdict_has_its_reason() -> None:
    for drift, steady in ((0.004, 0.0), (0.0, 0.04)):
        clocks = tuple(2000 * (1 - arm * (drift * i / 4 + steady)) for i, arm in enumerate((0, 1, 1, 0) * 10))
        lines = analysis.lines(replace(made(), clocks_mhz=clocks), None)
        line = lines[-1]
        assert line.verdict == ("refused" if drift else "faster within one process")
        assert line.reason.startswith("clocks drifted apart") == bool(drift)
        assert "drifted" not in line.remark
        text = render(analysis.TABLE, lines, "table")
        assert ("refused: clocks drifted apart" in text) == bool(drift)
    assert line.remark.startswith("clock -4.0 %")


def test_windows_replace_those_of_the_model(canned: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(kernels.main, *ASKED, "--kernel-size", "3", "31", "3") == 0
    assert [label.split(", ")[0] for label in canned] == ["conv 3x3", "conv 31x31"] * 3
    printed = capsys.readouterr().err
    assert "all conv 31x31 of one pass of FCDM-XL, 256 px, batch 4, fp32, in ms: nchw" in printed


def test_two_sessions_are_compared_by_implementation() -> None:
    names = [quantity.name for quantity in made().quantities]
    assert names == ["median of nchw", "median of triton", "speed of triton / nchw"]


@pytest.mark.usefixtures("canned")
def test_shares_of_the_floors_need_ceilings_of_this_device(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ceilings = tmp_path / "ceilings.jsonl"
    copy = ceiling(environment.gather("cpu", ""), 10**9)
    product = replace(copy, case=replace(copy.case, what="matmul"), work=10**10)
    ceilings.write_text(to_line(copy) + to_line(product))
    assert run(kernels.main, *ASKED, "--format", "json", "--records", str(ceilings)) == 0
    row = json.loads(capsys.readouterr().out)[0]
    values = 4 * 32 * 32 * 512
    assert row["bytes_floor_share"] == pytest.approx(4 * (2 * values + 50 * 512) / 1e9 / row["median_s"])
    assert row["flops_floor_share"] == pytest.approx(98 * values / 1e10 / row["median_s"])
    ceilings.write_text(to_line(replace(copy, environment=ENVIRONMENT)))
    assert run(kernels.main, *ASKED, "--format", "json", "--records", str(ceilings)) == 0
    row = json.loads(capsys.readouterr().out)[0]
    assert (row["bytes_floor_share"], row["flops_floor_share"]) == (None, None)


def ceiling(here: Environment, work: int) -> Ceiling:
    case = CeilingCase(device="cpu", what="copy", precision="fp32")
    return Ceiling(case=case, environment=here, size=1, work=work, times_s=(1.0,))


@pytest.mark.parametrize(("has_bf16", "precisions"), [(True, 2), (False, 1)])
def test_a_sweep_gets_a_job_for_every_case(
    has_bf16: bool, precisions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "has_bf16_instructions", lambda: has_bf16)
    jobs = kernels.jobs(kernels.parser().parse_args(["--device", "cpu", "--budget", "5"]))
    assert len({job.case.name for job in jobs}) == len(jobs) == precisions * 2 * (4 * 3 + 2)
    assert jobs[0].case.label == "conv 7x7, 512 channels, 32x32, FCDM-XL 256 px, batch 4, fp32"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--kernel-size", "4"], "--kernel-size: must be odd, got 4; 5 would work"),
        (["--model", "FDCM-XL"], "--model FDCM-XL: no such backbone; did you mean FCDM-XL"),
        (
            ["--model", "DiT-S/2", "--operation", "conv"],
            "--model DiT-S/2: has none of conv; FCDM-XL has",
        ),
        (
            ["--operation", "gelu-product", "--kernel-size", "3"],
            "--kernel-size: applies to conv, block, conv-gelu; add one",
        ),
        (["--device", "cpu", "--precision", "tf32"], "--precision tf32: only a CUDA device has it"),
        (["--device", "cpu", "--precision", "fp16"], "--precision fp16: is measured on CUDA only"),
        (["--res", "264"], "multiple of"),
        (["--records", "absent.jsonl"], "--records: absent.jsonl: no such file"),
    ],
)
def test_bad_input_is_one_line(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(kernels.main, *args) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1


# the report

COMPARISONS = [
    made(channels=c, precision=p, operation=operation)
    for c in (4, 8)
    for p in ("fp32", "bf16")
    for operation in ("conv", "block")
]


def test_section_is_empty_without_comparisons() -> None:
    assert section([]) == ("", [])
    assert section([SKIPPED]) == ("", [])


@pytest.mark.usefixtures("blank_figures")
def test_the_section_has_times_ratios_and_sums() -> None:
    text, _ = section(COMPARISONS)
    timed = [line for line in text.splitlines() if line.startswith("| FCDM-XL") and "| Triton" in line]
    assert len(timed) == len(COMPARISONS)
    assert all(re.search(r"\| +(1\.9|2\.0)\d+ \|", line) for line in timed)
    assert all("| faster " in line for line in timed)
    assert text.count("- nchw-cudnn on a device, torch 2.13.0: torch 2.11.0 has no switch") == 1
    assert text.count("wrong: is off by 1e+00") == len(COMPARISONS)
    sums = re.sub(" +", " ", text.partition("All of them in one pass")[2])
    assert f"| {1e3 * sum(3 * made(channels=c).median_s(0) for c in (4, 8)):,.0f}" in sums


@pytest.mark.usefixtures("blank_figures")
def test_only_the_newest_record_of_a_case_counts() -> None:
    older = replace(COMPARISONS[0], environment=replace(ENVIRONMENT, date="2025-01-01T00:00:00Z"))
    assert section([*reversed(COMPARISONS), older]) == section(COMPARISONS)


@pytest.mark.usefixtures("blank_figures")
def test_floors_in_the_report_are_those_of_measured_ceilings() -> None:
    copy = ceiling(ENVIRONMENT, 10**3)
    text, _ = section([made(), copy])
    peaks = roofline.measured_peaks([copy], ENVIRONMENT.device)
    least_bytes = made().case.least_bytes
    assert analysis.floors_s(made().case, peaks) == (least_bytes / 1e3, None)
    assert f"| {100 * least_bytes / 1e3 / made().median_s(0):.1f} |" in re.sub(" +", " ", text)


def test_products_are_held_to_the_ceiling_of_their_precision() -> None:
    copy = ceiling(ENVIRONMENT, 10**3)
    fast = replace(copy, case=replace(copy.case, what="matmul", precision="bf16"), work=10**9)
    peaks = roofline.measured_peaks([copy, fast], ENVIRONMENT.device)
    product, depthwise = replace(PRODUCT_CASE, precision="bf16"), made(precision="bf16").case
    by_bytes = product.least_bytes / 1e3
    assert analysis.floors_s(product, peaks) == (by_bytes, product.flops / 1e9)
    assert analysis.floor_s(product, peaks) == by_bytes
    assert analysis.floor_s(depthwise, peaks) is None  # no ceiling of fp32


def test_the_figure_has_a_panel_for_each_operation_and_its_floor() -> None:
    product = replace(PRODUCT, environment=ENVIRONMENT, case=replace(PRODUCT.case, model="FCDM-XL", batch=2))
    copy = ceiling(ENVIRONMENT, 10**3)
    roof = replace(copy, case=replace(copy.case, what="matmul"), work=10**5)
    text, (drawing, *others) = section([made(precision="fp32"), product, copy, roof])
    assert not others
    assert drawing.picture.markdown in text
    svg = drawing.svg.decode()
    assert all(f">{word}<" in svg for word in ("conv 7x7", "gelu-product", "nchw", "triton", "128→384"))
    assert ">floor (computed)<" in svg
    case = made(precision="fp32").case
    assert f">{100 * case.least_bytes / 1e3 / made(precision='fp32').median_s(1):.0f} %<" in svg
    _, (drawing,) = section([made()])
    assert "floor" not in drawing.svg.decode() + drawing.picture.caption
