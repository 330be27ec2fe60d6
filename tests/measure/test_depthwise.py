"""Implementations of depthwise convolutions: what is compared and checked, what is kept, what is reported."""

import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench import depthwise
from bench.analysis import agreement, roofline
from bench.analysis import depthwise as implemented
from bench.cli import tables
from bench.depthwise import Case
from bench.jobs import worker
from bench.machine import environment
from bench.measure import depthwise as implementations
from bench.measure.depthwise import IMPLEMENTATIONS, Layer, Operands
from bench.records import record
from bench.records.record import Ceiling, Implemented, Run, Skipped, StoreError, Variant, read
from models.contract import build
from models.registry import task_at
from reports.sections.depthwise import section
from tests.cli.test_cli import run
from tests.records.test_record import HERE, RUN

SMALL = Layer(channels=6, size=(5, 7), kernel=3, calls_a_pass=2)
# torch's names of its convolutions; which of them it takes in bf16 depends on the CPU's instructions
KERNELS = torch._C._ConvBackend.__members__


def case(operation: str = "conv", precision: str = "fp32") -> Case:
    return Case(
        run=replace(RUN, question=f"depthwise: {operation}", precision=precision, batch=2, budget_s=0.2),
        operation=operation,
        kernel=SMALL.kernel,
        channels=SMALL.channels,
        size=SMALL.size,
        calls_a_pass=SMALL.calls_a_pass,
        margin=0.01,
    )


@pytest.fixture(autouse=True)
def _few_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    # three inputs of the small layer: more than one, and none of the megabytes that time needs
    monkeypatch.setattr(implementations, "ROTATED", {"cpu": 3 * 2 * 6 * 5 * 7 * 4})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile is left out: it takes seconds."""
    monkeypatch.delitem(IMPLEMENTATIONS, "compiled")


def changed(monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[Tensor], Tensor]) -> None:
    """Change what an implementation puts out."""
    right = IMPLEMENTATIONS[name]

    def make(given: Operands, operation: str) -> implementations.Call:
        call = right.make(given, operation)
        return lambda i: change(call(i))

    monkeypatch.setitem(IMPLEMENTATIONS, name, replace(right, make=make))


# what is compared


@pytest.mark.parametrize(("res", "sides"), [(256, (32, 16, 8)), ((256, 512), ((32, 64), (16, 32), (8, 16)))])
def test_widths_sides_and_calls_are_those_of_the_model(
    res: int | tuple[int, int], sides: tuple[int, ...]
) -> None:
    task = task_at("FCDM-XL", *record.height_width(res))
    found = implementations.layers(build("FCDM-XL", task), task)
    assert found == [
        Layer(channels=channels, size=side, kernel=7, calls_a_pass=calls)
        for channels, side, calls in zip((512, 1024, 2048), sides, (6, 12, 12), strict=True)
    ]


def test_a_model_without_such_convolutions_has_none() -> None:
    task = task_at("DiC-S", 256, 256)
    assert implementations.layers(build("DiC-S", task), task) == []


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_the_check_is_the_operation_in_float64(kernel: int) -> None:
    given = implementations.operands(2, 6, (5, 7), kernel, torch.bfloat16, "cpu")
    conv = F.conv2d(
        given.xs[0].double(), given.weight.double(), given.bias.double(), padding=kernel // 2, groups=6
    )
    torch.testing.assert_close(implementations.exact(given, "conv"), conv)
    normed = F.layer_norm(conv.permute(0, 2, 3, 1), (6,), eps=1e-6).permute(0, 3, 1, 2)
    block = normed * (1 + given.scale.double()[:, :, None, None]) + given.shift.double()[:, :, None, None]
    torch.testing.assert_close(implementations.exact(given, "block"), block)


def test_the_check_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    given = implementations.operands(3, 6, 5, 3, torch.float32, "cpu")
    whole = implementations.exact(given, "block")
    monkeypatch.setattr(implementations, "CHUNK", 1)
    assert torch.equal(implementations.exact(given, "block"), whole)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("operation", depthwise.OPERATIONS)
@pytest.mark.parametrize("name", ["nchw", "channels-last"])
def test_an_implementation_is_checked_and_works_through_every_input(
    name: str, operation: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outs: list[Tensor] = []
    changed(monkeypatch, name, lambda out: (outs.append(out), out)[1])
    given, exact = implementations.drawn(2, SMALL, precision, "cpu", operation)
    assert len(given.xs) == len(given.xs_last) == (3 if precision == "fp32" else 6)
    variant, call = implementations.prepared(name, given, exact, operation, precision)
    assert variant.status == "ok"
    assert variant.ran in KERNELS
    assert variant.error is not None
    assert 0 < variant.error < implementations.TOLERANCE[precision]
    assert call is not None
    outs.clear()
    call()
    assert len(outs) == len(given.xs)
    for i, out in enumerate(outs):
        assert out.shape == (2, 6, 5, 7)
        exact = implementations.exact(replace(given, xs=given.xs[i:]), operation)
        assert float((out - exact).norm() / exact.norm()) < implementations.TOLERANCE[precision]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["nchw", "channels-last"])
def test_the_kernel_named_is_the_one_torch_takes(
    name: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 5x5: torch has a kernel of its own for 3x3 on ARM
    given, exact = implementations.drawn(2, replace(SMALL, kernel=5), precision, "cpu", "conv")
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    variant, _ = implementations.prepared(name, given, exact, "conv", precision)
    assert (variant.status, variant.ran) == ("ok", "Slow2d")


@pytest.mark.parametrize("operation", depthwise.OPERATIONS)
def test_the_triton_variant_is_right_where_triton_is_interpreted(operation: str) -> None:
    pytest.importorskip("triton")
    given, exact = implementations.drawn(2, SMALL, "fp32", "cpu", operation)
    off = implementations.error(IMPLEMENTATIONS["triton"].make(given, operation)(1), exact)
    assert off is not None
    assert off > 0.1  # the second input is another one
    exact = implementations.exact(replace(given, xs=given.xs[1:]), operation)
    off = implementations.error(IMPLEMENTATIONS["triton"].make(given, operation)(1), exact)
    assert off is not None
    assert off < 1e-6


def test_what_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = {name: one.why_not("cpu", 7) for name, one in IMPLEMENTATIONS.items()}
    cuda = ["nchw-cudnn", "channels-last-searched", "triton"]
    assert {name for name, reason in reasons.items() if reason} == set(cuda)
    assert {reasons[name] for name in cuda} == {"runs on CUDA only"}
    assert "up to 9" in IMPLEMENTATIONS["triton"].why_not("cuda", 31)
    monkeypatch.setattr(implementations, "has_switch", lambda: False)
    assert f"torch {torch.__version__} has no switch" in IMPLEMENTATIONS["nchw-cudnn"].why_not("cuda", 7)


@pytest.mark.skipif(not implementations.has_switch(), reason="this torch has no switch")
def test_the_switch_of_cudnn_is_back_where_it_was() -> None:
    before = torch.backends.cudnn.depthwise_kernel
    with implementations._switched("native"):
        assert torch.backends.cudnn.depthwise_kernel == "native"
    assert torch.backends.cudnn.depthwise_kernel == before


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("change", "told"), [(lambda out: 1.01 * out, "is off by 1.0e-02, fp32 by less than 1e-05"),
                         (lambda out: out / 0, "holds inf or NaN")]
)  # fmt: skip
def test_a_wrong_output_is_a_row_and_not_timed(
    change: Callable[[Tensor], Tensor], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    triton = replace(IMPLEMENTATIONS["channels-last"])
    monkeypatch.setitem(IMPLEMENTATIONS, "triton", triton)
    changed(monkeypatch, "channels-last", change)
    found = depthwise.measure(case())
    assert isinstance(found, Implemented)
    by_name = {variant.name: variant for variant in found.variants}
    assert by_name["channels-last"].status == "wrong"
    assert by_name["channels-last"].ran in KERNELS
    assert told in by_name["channels-last"].reason
    assert [variant.name for variant in found.timed] == ["nchw", "triton"]


@pytest.mark.usefixtures("quick")
def test_without_the_reference_or_anything_beside_it_there_is_nothing_to_compare(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed(monkeypatch, "channels-last", lambda out: out + 1)
    found = depthwise.measure(case())
    assert isinstance(found, Skipped)
    assert (found.status, "nothing beside nchw: nchw-cudnn: runs on" in found.reason) == ("not timed", True)
    changed(monkeypatch, "nchw", lambda out: out + 1)
    found = depthwise.measure(case())
    assert isinstance(found, Skipped)
    assert (found.status, found.reason[:5]) == ("wrong", "nchw:")


def test_a_variant_that_fails_is_a_row() -> None:
    given, exact = implementations.drawn(2, SMALL, "fp32", "cpu", "conv")
    broken = replace(given, weight=given.weight[:4])  # six channels
    variant, call = implementations.prepared("nchw", broken, exact, "conv", "fp32")
    assert (variant.status, call) == ("error", None)
    assert "groups" in variant.reason


def test_each_case_is_compared_in_a_worker_torch_compile_among_it() -> None:
    here = environment.gather("cpu", "")
    asked = replace(case(), channels=64, size=16)
    found = worker.run(
        "bench.depthwise:measure", replace(asked, run=replace(asked.run, environment=here)), 120
    )
    assert isinstance(found, Implemented), found
    assert [variant.name for variant in found.timed] == ["nchw", "channels-last", "compiled"]
    assert found.inputs == implementations.MOST_INPUTS
    assert found.rounds >= 1


# what is kept

VARIANTS = (
    Variant(name="nchw", ran="Slow2d", status="ok", reason="", error=1e-7),
    Variant(name="nchw-cudnn", ran="", status="not here", reason="torch 2.11.0 has no switch", error=None),
    Variant(name="channels-last", ran="Cudnn", status="wrong", reason="is off by 1e+00", error=1.0),
    Variant(name="triton", ran="Triton", status="ok", reason="", error=2e-7),
)


def made(
    channels: int = 4, precision: str = "bf16", operation: str = "conv", calls_a_pass: int = 3
) -> Implemented:
    """Ten rounds, in which Triton takes half the time."""
    draw = random.Random(channels)
    return Implemented(
        run=replace(
            RUN,
            question=f"depthwise: {operation}, {channels} channels",
            model="FCDM-XL",
            batch=2,
            precision=precision,
        ),
        operation=operation,
        kernel=7,
        channels=channels,
        size=(3, 5),
        calls_a_pass=calls_a_pass,
        variants=VARIANTS,
        inputs=5,
        order=(0, 1, 1, 0) * 10,
        visits_s=tuple(
            seconds * draw.uniform(0.99, 1.01) for _ in range(10) for seconds in (10.0, 10.0, 10.0, 10.0)
        ),
        calls=(10, 20),
        clocks_mhz=(),
        warmup_times_s=((1.0,), (0.5,)),
        warmup_stationary=(True, True),
        margin=0.01,
        stopped_by="verdicts",
        unmet=(),
    )  # fmt: skip


def test_times_are_of_one_operation_and_ratios_against_the_first_variant() -> None:
    one = made()
    assert one.elements == 2 * 3 * 5 * 4
    assert one.flops == 2 * 49 * one.elements
    assert one.least_bytes == 2 * (2 * one.elements + 50 * 4)
    assert made(operation="block").least_bytes == one.least_bytes + 2 * 2 * 2 * 4
    assert made(precision="tf32").least_bytes == 2 * one.least_bytes
    assert one.median_s(0) == pytest.approx(10 / 10 / 5, rel=0.01)
    assert one.median_s(1) == pytest.approx(0.1, rel=0.01)
    assert one.ratio(1) == pytest.approx(2, rel=0.01)
    assert (one.verdict(1), one.rounds) == ("faster", 10)


def test_a_record_comes_back_and_is_known_by_its_run() -> None:
    one = made()
    assert record.from_dict(json.loads(record.to_line(one))) == one
    assert record.key(one) == record.key(one.run) == record.key(replace(one, calls_a_pass=9))
    assert record.key(one) != record.key(made(channels=8))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"variants": VARIANTS[1:]}, "needs a first variant that was timed"),
        ({"calls": (1, 1, 1)}, "needs a first variant that was timed, and calls for each"),
        ({"order": (0, 1, 1), "visits_s": (1.0, 1.0, 1.0)}, "same number of visits"),
        ({"visits_s": (1.0,)}, "time above zero for every visit"),
    ],
)
def test_impossible_records_cannot_be_made(change: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(made(), **change)
    with pytest.raises(StoreError, match=told):
        record.from_dict(json.loads(json.dumps({**record.to_dict(made()), **change}, default=vars)))


def test_a_pass_is_the_sum_over_its_sizes_of_what_was_timed_at_all_of_them() -> None:
    four, eight = made(4), made(8, calls_a_pass=1)
    lone = replace(eight, variants=(*VARIANTS[:3], replace(VARIANTS[3], name="compiled")))
    ((first, seconds),) = implemented.passes([four, eight, made(4).run and four][:2])
    assert first == four
    assert seconds == {
        name: pytest.approx(3 * four.median_s(arm) + eight.median_s(arm))
        for arm, name in enumerate(("nchw", "triton"))
    }
    ((_, seconds),) = implemented.passes([four, lone])
    assert list(seconds) == ["nchw"]


# the command


@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command gets records without measuring; what it asked for, in order."""
    asked: list[str] = []

    def here(measure: str, case: Case, timeout_s: float) -> Implemented | Skipped:
        assert measure == "bench.depthwise:measure"
        assert timeout_s > case.run.budget_s
        asked.append(case.run.question)
        if case.channels == 1024:
            return Skipped(run=case.run, status="out of memory", reason="no room")
        known = made(case.channels)
        return replace(known, run=case.run, operation=case.operation, kernel=case.kernel, size=case.size)

    monkeypatch.setattr("bench.worker.run", here)
    return asked


ASKED = ("--device", "cpu", "--res", "256", "--precision", "fp32", "--operation", "conv")


def test_the_command_tells_every_variant_and_measures_nothing_twice(
    canned: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "depthwise.jsonl"
    assert run(depthwise.main, *ASKED, "--out", str(out), "--format", "json") == 0
    sides = {512: 32, 1024: 16, 2048: 8}
    assert canned == [f"depthwise: conv, 7x7, {c} channels, {side}x{side}" for c, side in sides.items()]
    rows = json.loads(capsys.readouterr().out)
    assert len({frozenset(row) for row in rows}) == 1
    assert [row["status"] for row in rows] == [
        "ok", "not here", "wrong", "ok", "out of memory", "ok", "not here", "wrong", "ok"
    ]  # fmt: skip
    assert rows[3]["ratio_nchw_s_over_s"] == pytest.approx(2, rel=0.01)
    assert rows[3]["elements_per_s"] == pytest.approx(4 * 32 * 32 * 512 / rows[3]["median_s"])
    assert rows[2]["median_s"] is None
    assert [type(one) for one in read(out)] == [Implemented, Skipped, Implemented]

    canned.clear()
    assert run(depthwise.main, *ASKED, "--out", str(out)) == 0
    assert canned == []
    printed = capsys.readouterr()
    assert "wrong: is off by" in printed.out
    assert "out of memory: no room" in printed.out
    assert "not here" not in printed.out
    assert "not on a CPU: nchw-cudnn" in printed.err
    assert "3 of 3 were in" in printed.err


def test_a_refused_verdict_has_its_reason_and_a_remark_is_of_clocks_alone() -> None:
    for drift, steady in ((0.004, 0.0), (0.0, 0.04)):
        read = tuple(2000 * (1 - arm * (drift * i / 4 + steady)) for i, arm in enumerate((0, 1, 1, 0) * 10))
        told = depthwise.rows(replace(made(), clocks_mhz=read), None)
        row = told[-1]
        assert row["verdict"] == ("refused" if drift else "faster")
        assert row["reason"].startswith("clocks drifted apart") == bool(drift)
        assert "drifted" not in row["remark"]
        text = tables.render(told, depthwise._columns(told), "table")
        assert ("refused: clocks drifted apart" in text) == bool(drift)
    assert row["remark"].startswith("clock -4.0 %")


def test_windows_replace_those_of_the_model(canned: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(depthwise.main, *ASKED, "--kernel-size", "3", "31", "3") == 0
    assert [question.split(", ")[1] for question in canned] == ["3x3", "31x31"] * 3
    assert (
        "all conv 31x31 of one pass of FCDM-XL, 256 px, batch 4, fp32, in ms: nchw" in capsys.readouterr().err
    )


def test_two_sessions_are_compared_by_variant() -> None:
    names = [quantity.name for quantity in agreement.quantities(made())]
    assert names == ["median of nchw", "median of triton", "speed of triton / nchw"]


@pytest.mark.usefixtures("canned")
def test_shares_of_the_floors_need_ceilings_of_this_device(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ceilings = tmp_path / "ceilings.jsonl"
    here = environment.gather("cpu", "")
    copy = Ceiling(what="copy", precision="fp32", size=1, work=10**9, times_s=(1.0,), environment=here)
    product = replace(copy, what="matmul", work=10**10)
    ceilings.write_text(record.to_line(copy) + record.to_line(product))
    assert run(depthwise.main, *ASKED, "--format", "json", "--records", str(ceilings)) == 0
    row = json.loads(capsys.readouterr().out)[0]
    values = 4 * 32 * 32 * 512
    assert row["bytes_floor_share"] == pytest.approx(4 * (2 * values + 50 * 512) / 1e9 / row["median_s"])
    assert row["flops_floor_share"] == pytest.approx(98 * values / 1e10 / row["median_s"])
    ceilings.write_text(record.to_line(replace(copy, environment=HERE)))
    assert run(depthwise.main, *ASKED, "--format", "json", "--records", str(ceilings)) == 0
    row = json.loads(capsys.readouterr().out)[0]
    assert (row["bytes_floor_share"], row["flops_floor_share"]) == (None, None)


def test_a_sweep_gets_a_unit_for_every_case() -> None:
    args = depthwise.parser().parse_args(["--device", "cpu", "--budget", "5"])
    units = depthwise.units(args)
    assert len({unit.label for unit in units}) == len(units) == 2 * 2 * 2 * 3
    assert units[0].label == "FCDM-XL 256 px, batch 4, fp32, conv, 7x7, 512 channels, 32x32"
    assert isinstance(units[0].about, Run)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--kernel-size", "4"], "--kernel-size: must be odd, got 4; 5 would work"),
        (["--model", "FDCM-XL"], "--model FDCM-XL: no such backbone; did you mean FCDM-XL"),
        (["--model", "DiC-S"], "--model DiC-S: has no depthwise convolution; FCDM-XL has"),
        (["--device", "cpu", "--precision", "tf32"], "--precision tf32: only a CUDA device has it"),
        (["--device", "cpu", "--precision", "fp16"], "--precision fp16: is measured on CUDA only"),
        (["--res", "264"], "multiple of"),
        (["--records", "absent.jsonl"], "--records absent.jsonl: No such file"),
    ],
)
def test_bad_input_is_one_line(args: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(depthwise.main, *args) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert told in printed.err
    assert printed.err.count("\n") == 1


# the report

FOUND = [made(c, p, operation) for c in (4, 8) for p in ("fp32", "bf16") for operation in ("conv", "block")]


def test_there_is_no_section_without_such_records() -> None:
    assert section([]) == ("", [])
    assert section([Skipped(run=RUN, status="error", reason="")]) == ("", [])


@pytest.mark.usefixtures("blank_figures")
def test_the_section_has_times_ratios_sums_and_a_figure_for_each_operation() -> None:
    text, drawings = section(FOUND)
    assert [drawing.picture.name for drawing in drawings] == ["depthwise_1", "depthwise_2"]
    assert all(f"({drawing.picture.name}.png)" in text for drawing in drawings)
    timed = [line for line in text.splitlines() if line.startswith("| FCDM-XL") and "| Triton" in line]
    assert len(timed) == len(FOUND)
    assert all(re.search(r"\| (1\.9|2\.0)\d+ \[", line) for line in timed)
    assert all("| faster " in line and "2.13.0; abc; 2026" in line for line in timed)
    assert text.count("- nchw-cudnn on a device, torch 2.13.0: not here: torch 2.11.0 has no switch") == 1
    assert (
        "- channels-last on a device, torch 2.13.0, bf16, block 7x7, 8 channels, 3x5: wrong: is off" in text
    )
    sums = [line for line in text.splitlines() if line.startswith("| FCDM-XL") and "Triton" not in line]
    assert any(f"| {1e3 * sum(3 * made(c).median_s(0) for c in (4, 8)):.0f}" in line for line in sums)


def test_the_section_is_the_same_whatever_the_order_and_only_the_newest_counts() -> None:
    old = replace(FOUND[0], run=replace(FOUND[0].run, environment=replace(HERE, date="2025-01-01T00:00:00Z")))
    assert section([*reversed(FOUND), old]) == section(FOUND)


@pytest.mark.usefixtures("blank_figures")
def test_floors_in_the_report_are_those_of_measured_ceilings() -> None:
    copy = Ceiling(what="copy", precision="fp32", size=1, work=10**3, times_s=(1.0,), environment=HERE)
    text, drawings = section([made(), copy])
    peaks = roofline.measured_peaks([copy], HERE.device)
    by_bytes, by_flops = implemented.floors_s(made(), peaks)
    assert (by_bytes, by_flops) == (made().least_bytes / 1e3, None)
    assert f"| {100 * made().least_bytes / 1e3 / made().median_s(0):.1f} | —" in " ".join(text.split())
    assert "floors" not in section([made()])[1][0].picture.caption.replace("no floors are drawn", "")
    assert "measured ceilings" in drawings[0].picture.caption
