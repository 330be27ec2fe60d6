"""Implementations of depthwise convolutions: comparison, correctness check, records, report."""

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
from bench.analysis import agreement, roofline
from bench.analysis import depthwise as analysis
from bench.jobs import worker
from bench.machine import environment
from bench.measure import depthwise as measuring
from bench.measure.depthwise import IMPLEMENTATIONS, Layer, Operands
from bench.records.base import Environment, Record, Skipped, StoreError, height_width
from bench.records.ceiling import Ceiling, CeilingCase
from bench.records.depthwise import CheckedImplementation, DepthwiseCase, OperatorComparison
from bench.store.codec import from_dict, key, read, to_dict, to_line
from bench.tables.render import render
from models.contract import build
from models.registry import task_at
from reports.sections.depthwise import section
from tests.commands import run
from tests.records.examples import ENVIRONMENT, MODEL, SKIPPED

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

# torch's names of its convolutions; which of them it takes in bf16 depends on the CPU's instructions
KERNELS = torch._C._ConvBackend.__members__  # type: ignore[attr-defined]


def case(operation: str = "conv", precision: str = "fp32") -> DepthwiseCase:
    return replace(SMALL, operation=operation, precision=precision)


@pytest.fixture(autouse=True)
def _few_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    # three inputs of the small layer: more than one, and none of the megabytes that time needs
    monkeypatch.setattr(measuring, "ROTATED", {"cpu": 3 * 2 * 6 * 5 * 7 * 4})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile is left out: it takes seconds."""
    monkeypatch.delitem(IMPLEMENTATIONS, "compiled")


def changed(monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[Tensor], Tensor]) -> None:
    """Change the output of an implementation."""
    right = IMPLEMENTATIONS[name]

    def make(given: Operands, operation: str) -> measuring.Call:
        call = right.make(given, operation)
        return lambda i: change(call(i))

    monkeypatch.setitem(IMPLEMENTATIONS, name, replace(right, make=make))


# what is compared


@pytest.mark.parametrize(("res", "sides"), [(256, (32, 16, 8)), ((256, 512), ((32, 64), (16, 32), (8, 16)))])
def test_widths_sides_and_calls_are_those_of_the_model(
    res: int | tuple[int, int], sides: tuple[int, ...]
) -> None:
    task = task_at("FCDM-XL", *height_width(res))
    found = measuring.layers(build("FCDM-XL", task), task)
    assert found == [
        Layer(channels=channels, image_size=side, kernel=7, calls_per_pass=calls)
        for channels, side, calls in zip((512, 1024, 2048), sides, (6, 12, 12), strict=True)
    ]


def test_a_model_without_such_convolutions_has_none() -> None:
    task = task_at("DiC-S", 256, 256)
    assert measuring.layers(build("DiC-S", task), task) == []


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_the_check_is_the_operation_in_float64(kernel: int) -> None:
    given = measuring.operands(2, 6, (5, 7), kernel, torch.bfloat16, "cpu")
    conv = F.conv2d(
        given.xs[0].double(), given.weight.double(), given.bias.double(), padding=kernel // 2, groups=6
    )
    torch.testing.assert_close(measuring.exact(given, "conv"), conv)
    normed = F.layer_norm(conv.permute(0, 2, 3, 1), (6,), eps=1e-6).permute(0, 3, 1, 2)
    block = normed * (1 + given.scale.double()[:, :, None, None]) + given.shift.double()[:, :, None, None]
    torch.testing.assert_close(measuring.exact(given, "block"), block)


def test_the_check_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    given = measuring.operands(3, 6, 5, 3, torch.float32, "cpu")
    whole = measuring.exact(given, "block")
    monkeypatch.setattr(measuring, "CHUNK", 1)
    assert torch.equal(measuring.exact(given, "block"), whole)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("operation", kernels.OPERATIONS)
@pytest.mark.parametrize("name", ["nchw", "channels-last"])
def test_an_implementation_works_through_every_input(
    name: str, operation: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outs: list[Tensor] = []

    def keep(out: Tensor) -> Tensor:
        outs.append(out)
        return out

    changed(monkeypatch, name, keep)
    given, exact = measuring.draw(case(operation, precision))
    assert len(given.xs) == len(given.xs_last) == (3 if precision == "fp32" else 6)
    found, call = measuring.prepare(name, given, exact, operation, precision)
    assert found.status == "ok"
    assert found.ran in KERNELS
    assert found.error is not None
    assert 0 < found.error < measuring.TOLERANCE[precision]
    assert call is not None
    outs.clear()
    call()
    assert len(outs) == len(given.xs)
    for i, out in enumerate(outs):
        assert out.shape == (2, 6, 5, 7)
        exact = measuring.exact(replace(given, xs=given.xs[i:]), operation)
        assert float((out - exact).norm() / exact.norm()) < measuring.TOLERANCE[precision]


@pytest.mark.parametrize("operation", kernels.OPERATIONS)
def test_the_triton_implementation_is_right(operation: str) -> None:
    pytest.importorskip("triton")
    given, exact = measuring.draw(case(operation))
    off = measuring.error(IMPLEMENTATIONS["triton"].make(given, operation)(1), exact)
    assert off is not None
    assert off > 0.1  # the second input is another one
    exact = measuring.exact(replace(given, xs=given.xs[1:]), operation)
    off = measuring.error(IMPLEMENTATIONS["triton"].make(given, operation)(1), exact)
    assert off is not None
    assert off < 1e-6


def test_unavailable_implementation_gives_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = {name: one.why_not("cpu", 7) for name, one in IMPLEMENTATIONS.items()}
    cuda = ["nchw-cudnn", "channels-last-searched", "triton", "triton-fused"]
    assert {name for name, reason in reasons.items() if reason} == set(cuda)
    assert {reasons[name] for name in cuda} == {"runs on CUDA only"}
    assert "up to 9" in IMPLEMENTATIONS["triton"].why_not("cuda", 31)
    monkeypatch.setattr(measuring, "has_switch", lambda: False)
    assert f"torch {torch.__version__} has no switch" in IMPLEMENTATIONS["nchw-cudnn"].why_not("cuda", 7)


@pytest.mark.skipif(not measuring.has_switch(), reason="this torch has no switch")
def test_cudnn_switch_is_restored() -> None:
    before = torch.backends.cudnn.depthwise_kernel
    with measuring.switched("depthwise_kernel", "native"):
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
    triton = replace(IMPLEMENTATIONS["channels-last"])
    monkeypatch.setitem(IMPLEMENTATIONS, "triton", triton)
    changed(monkeypatch, "channels-last", change)
    found = measuring.measure(case(), ENVIRONMENT)
    assert isinstance(found, OperatorComparison)
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
    assert (found.status, "nothing beside nchw: nchw-cudnn: runs on" in found.reason) == ("not timed", True)
    changed(monkeypatch, "nchw", lambda out: out + 1)
    found = measuring.measure(case(), ENVIRONMENT)
    assert isinstance(found, Skipped)
    assert (found.status, found.reason[:5]) == ("wrong", "nchw:")


def test_an_implementation_that_fails_is_a_row() -> None:
    given, exact = measuring.draw(case())
    broken = replace(given, weight=given.weight[:4])  # six channels
    found, call = measuring.prepare("nchw", broken, exact, "conv", "fp32")
    assert (found.status, call) == ("error", None)
    assert "groups" in found.reason


def test_each_case_is_compared_in_a_worker() -> None:
    here = environment.gather("cpu", "")
    larger = replace(case(), channels=64, image_size=16)
    found = worker.run("bench.measure.depthwise:measure", larger, here, 120)
    assert isinstance(found, OperatorComparison), found
    assert found.arms == ("nchw", "channels-last", "compiled")
    assert found.inputs == measuring.MAX_INPUTS
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


def made(**changes: Any) -> OperatorComparison:  # noqa: ANN401 - fields of the case
    """Ten rounds; Triton takes half the time."""
    known = {"model": "FCDM-XL", "precision": "bf16", "kernel": 7, "channels": 4, "image_size": (3, 5)}
    asked = replace(SMALL, **{**known, "calls_per_pass": 3, **changes})
    draw = random.Random(asked.channels)
    return OperatorComparison(
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
        ({"visits_s": (1.0,)}, "time above zero for every visit"),
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

    def answer(function: str, case: DepthwiseCase, environment: Environment, timeout_s: float) -> Record:
        assert function == "bench.measure.depthwise:measure"
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
    assert canned == [f"conv, 7x7, {c} channels, {side}x{side}" for c, side in sides.items()]
    rows = json.loads(capsys.readouterr().out)
    assert len({frozenset(row) for row in rows}) == 1
    assert [row["status"] for row in rows] == [
        "ok", "not here", "wrong", "ok", "out of memory", "ok", "not here", "wrong", "ok"
    ]  # fmt: skip
    assert rows[3]["ratio"] == pytest.approx(2, rel=0.01)
    assert rows[3]["elements_per_s"] == pytest.approx(4 * 32 * 32 * 512 / rows[3]["median_s"])
    assert rows[2]["median_s"] is None
    assert [type(one) for one in read(out).records] == [OperatorComparison, Skipped, OperatorComparison]

    canned.clear()
    assert run(kernels.main, *ASKED, "--out", str(out)) == 0
    assert canned == []
    printed = capsys.readouterr()
    assert "wrong: is off by" in printed.out
    assert "out of memory" in printed.out
    assert "no room" in printed.out
    assert "not here" not in printed.out
    assert "not here: nchw-cudnn: torch 2.11.0 has no switch" in printed.err
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
    assert [label.split(", ")[1] for label in canned] == ["3x3", "31x31"] * 3
    printed = capsys.readouterr().err
    assert "all conv 31x31 of one pass of FCDM-XL, 256 px, batch 4, fp32, in ms: nchw" in printed


def test_two_sessions_are_compared_by_implementation() -> None:
    names = [quantity.name for quantity in agreement.quantities(made())]
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


def test_a_sweep_gets_a_job_for_every_case() -> None:
    jobs = kernels.jobs(kernels.parser().parse_args(["--device", "cpu", "--budget", "5"]))
    assert len({job.case.name for job in jobs}) == len(jobs) == 2 * 2 * 2 * 3
    assert jobs[0].case.label == "conv, 7x7, 512 channels, 32x32, FCDM-XL 256 px, batch 4, fp32"


@pytest.mark.parametrize(
    ("args", "message"),
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


def test_only_the_newest_record_of_a_case_counts() -> None:
    older = replace(COMPARISONS[0], environment=replace(ENVIRONMENT, date="2025-01-01T00:00:00Z"))
    assert section([*reversed(COMPARISONS), older]) == section(COMPARISONS)


def test_floors_in_the_report_are_those_of_measured_ceilings() -> None:
    copy = ceiling(ENVIRONMENT, 10**3)
    text, _ = section([made(), copy])
    peaks = roofline.measured_peaks([copy], ENVIRONMENT.device)
    least_bytes = made().case.least_bytes
    assert analysis.floors_s(made().case, peaks) == (least_bytes / 1e3, None)
    assert f"| {100 * least_bytes / 1e3 / made().median_s(0):.1f} |" in re.sub(" +", " ", text)
