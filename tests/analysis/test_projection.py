"""Projection: known shares are recovered, intervals cover, predictions are marked."""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch

from baselines import load
from bench import project
from bench.analysis.memory import memory_fit
from bench.analysis.projection import calibrate, formula, passes, predictions, priors, projector, published
from bench.analysis.projection.calibrate import Calibration, GroupError, Observation
from bench.analysis.projection.projector import EVERYTHING
from bench.analysis.rooflines import roofline
from bench.analysis.rooflines.roofline import Peaks
from bench.counting import counters
from bench.counting.work import count, operator_case
from bench.jobs import memory as memory_jobs
from bench.records.base import Record
from bench.records.ceiling import Ceiling, CeilingCase
from bench.records.memory import Memory
from bench.records.operators import OperatorCost, OperatorCosts
from bench.records.throughput import Throughput
from bench.store.codec import read, to_line
from models.contract import build
from models.registry import published_task, task_at
from reports.sections import projection as report
from tests.analysis import builders
from tests.analysis.builders import CPU, H200, META, USE
from tests.commands import run

XL = ("FCDM-XL", "DiT-XL/2", "DiCo-XL", "DiC-XL")
CERTAIN = GroupError(scale=0.0, groups=0)
ORDER = [prior.name for prior in priors.PRIORS["cuda"]]


def gpu(name: str = "a GPU", scale: float = 1.0) -> Peaks:
    return Peaks(
        device=name,
        source="",
        measured=False,
        fp32=20e12 * scale,
        tf32=150e12 * scale,
        bf16=300e12 * scale,
        fp16=300e12 * scale,
        bytes_per_s=2e12 * scale,
    )


def part(kind: str, gmacs: float, gigabytes: float, calls: int = 10) -> OperatorCost:
    moved = round(gigabytes * 1e9)
    fused = moved if kind in formula.PRODUCTS else 0
    return OperatorCost(
        kind=kind, op=kind, module="", phase="forward", calls=calls, macs=round(gmacs * 1e9),
        eager_bytes=moved, fused_bytes=fused,
    )  # fmt: skip


def made(model: str, parts: Sequence[OperatorCost], res: int = 256, precision: str = "bf16") -> OperatorCosts:
    return builders.operators(
        tuple(parts), model=model, family=model, res=res, latent_size=res // 8, batch=64, precision=precision
    )


def costs_of(model: str, precision: str) -> OperatorCosts:
    """The operators of a backbone at 256 px, batch 64."""
    case = made(model, (), precision=precision).case
    return count(case, build(model, task_at(model, 256, 256), device="meta"))


def renamed(work: OperatorCosts, model: str = "FCDM-XL", **fields: str) -> OperatorCosts:
    return replace(work, case=replace(work.case, model=model, **fields))


def zoo(res: int = 256) -> list[OperatorCosts]:
    """Models that are mostly of one kind each, bound by FLOPs, and some bound by bytes or launches."""
    n = (res / 256) ** 2
    mostly = [
        made(kind, [part(kind, 4000 * n, 5 * n), part("norm", 0, 2 * n), part("linear", 500 * n, n)], res)
        for kind in ("depthwise", "pointwise", "convolution", "linear", "attention", "scan")
    ]
    bound = [
        made("bytes", [part("linear", 1, 40 * n), part("convolution", 1, 20 * n)], res),
        made("moving", [part("elementwise", 0, 60 * n), part("movement", 0, 20 * n)], res),
        made("launching", [part("elementwise", 0, 0.01 * n, 20_000)], res),
    ]
    return mostly + bound


Array = np.ndarray[tuple[int], np.dtype[np.float64]]


def inner(shares: Sequence[float]) -> Array:
    of = priors.PRIORS["cuda"]
    return np.array([replace(p, median=v).fitted_median for p, v in zip(of, shares, strict=True)])


def fixed(x: Array) -> Calibration:
    """A calibration without uncertainty."""
    return Calibration(
        device_type="cuda", observations=(), devices=(), mean=x,
        covariance=np.zeros((len(x), len(x))), residuals=(),
    )  # fmt: skip


def seen(
    x: Array,
    work: OperatorCosts,
    peaks: Peaks,
    precision: str = "bf16",
    off: float = 0.0,
) -> Observation:
    """A pass with the duration of the formula under given shares, times exp(off)."""
    at = calibrate.predict(fixed(x), work, peaks, precision, None, CERTAIN).seconds
    return Observation(
        work=work, precision=precision, peaks=peaks, device=peaks.device, device_type="cuda",
        seconds=at * math.exp(off),
    )  # fmt: skip


#        depthwise pointwise convolution linear attention scan  fp32  bytes  rest  launch
SHARES = [0.03, 0.35, 0.65, 0.72, 0.25, 0.06, 1.9, 0.60, 0.88, 9e-6]


def of_known_devices() -> list[Observation]:
    x = inner(SHARES)
    return [
        seen(x, work, gpu(f"GPU {scale}", scale), precision)
        for scale in (1.0, 1.5, 3.0)
        for precision in ("bf16", "fp32")
        for res in (256, 512)
        for work in zoo(res)
    ]


@cache
def calibrated() -> Calibration:
    return calibrate.calibrate("cuda", of_known_devices())


# the formula and its calibration


def test_a_kernel_takes_the_longer_of_flops_and_bytes() -> None:
    x = inner([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.0, 0.25, 0.8, 1e-9])
    work = made("x", [part("linear", 1500, 1), part("linear", 1, 4), part("norm", 0, 8)])
    predicted = calibrate.predict(fixed(x), work, gpu(), "bf16", None, CERTAIN)
    assert predicted.seconds == pytest.approx(3e12 / 150e12 + 4e9 / 0.5e12 + 8e9 / 1.6e12)
    assert predicted.low_s < predicted.seconds < predicted.high_s  # another device may differ


def test_launch_time_counts_on_an_idle_gpu_only() -> None:
    x = inner([*SHARES[:-1], 5e-6])
    busy = calibrate.predict(fixed(x), made("x", [part("norm", 0, 80, 100)]), gpu(), "bf16", None, CERTAIN)
    idle = calibrate.predict(fixed(x), made("x", [part("norm", 0, 1e-6, 100)]), gpu(), "bf16", None, CERTAIN)
    assert busy.seconds == pytest.approx(80e9 / (0.88 * 2e12))
    assert idle.seconds == pytest.approx(100 * 5e-6)


def test_depthwise_convolutions_use_no_tensor_cores() -> None:
    work = made("x", [part("depthwise", 1000, 0.001)])
    times = [
        calibrate.predict(fixed(inner(SHARES)), work, gpu(), precision, None, CERTAIN).seconds
        for precision in ("fp32", "tf32", "bf16")
    ]
    assert times == pytest.approx([2e12 / (0.03 * 20e12)] * 3)


def test_torch_default_is_tf32_in_convolutions_only() -> None:
    def seconds(kind: str, precision: str) -> float:
        work = made("x", [part(kind, 1000, 0.001)])
        return calibrate.predict(fixed(inner(SHARES)), work, gpu(), precision, None, CERTAIN).seconds

    assert seconds("convolution", "torch-default") == seconds("convolution", "tf32")
    assert seconds("linear", "torch-default") == seconds("linear", "fp32") > seconds("linear", "tf32")


def test_known_shares_are_found_again() -> None:
    for share, true in zip(calibrated().shares, SHARES, strict=True):
        assert share.low <= true <= share.high, share
        assert abs(share.value - true) < 0.3 * abs(share.prior.median - true) + 0.02 * true, share


def test_without_observations_the_shares_are_the_priors() -> None:
    for share in calibrate.calibrate("cuda", []).shares:
        assert share.value == pytest.approx(share.prior.median)
        assert share.low < share.value < share.high


def test_one_disturbed_measurement_does_not_bend_the_rest() -> None:
    quiet = of_known_devices()
    work, peaks = quiet[3].work, quiet[3].peaks
    disturbed = [*quiet, seen(inner(SHARES), renamed(work, "again"), peaks, off=math.log(30))]
    after = calibrate.calibrate("cuda", disturbed).shares
    for one, other in zip(calibrated().shares, after, strict=True):
        assert other.value == pytest.approx(one.value, rel=0.05)


def test_a_measured_device_has_a_narrower_interval() -> None:
    work = zoo()[0]
    spans = []
    for device in ("GPU 1.0", "one that nobody saw"):
        found = calibrate.predict(calibrated(), work, gpu(), "bf16", device, CERTAIN)
        spans.append(found.high_s / found.low_s)
    assert spans[0] < spans[1]


def varied(seed: int) -> list[Observation]:
    """Devices that differ by DEVICE_SPREAD, and passes that the formula misses by MODEL_SPREAD."""
    random = np.random.default_rng(seed)
    shared = inner(SHARES)
    found = []
    for scale in (1.0, 1.5, 3.0):
        x = shared + calibrate.DEVICE_SPREAD * random.standard_normal(len(shared))
        for res in (256, 512):
            for work in zoo(res):
                off = calibrate.MODEL_SPREAD * float(random.standard_normal())
                found.append(seen(x, work, gpu(f"GPU {scale}", scale), off=off))
    return found


def test_intervals_cover_held_out_passes_at_their_nominal_rate() -> None:
    held = projector.held_out(varied(0))
    for left_out in ("size", "model", "device", EVERYTHING):
        covered = [one.is_covered for one in held if one.left_out == left_out]
        assert sum(covered) / len(covered) >= 0.8, left_out
    widths = [one.prediction.high_s / one.prediction.low_s for one in held if one.left_out == "device"]
    assert np.median(widths) < 4  # and are not that long


@pytest.mark.parametrize("groups", [2, 4, 9])
def test_group_errors_cover_a_new_group_at_their_nominal_rate(
    groups: int,
) -> None:
    random = np.random.default_rng(groups)
    trials, passes, reached = 4000, 5, 0
    for _ in range(trials):
        offsets = 0.3 * random.standard_normal(groups + 1)  # of groups; passes within a group vary less
        *known, new = (off + 0.05 * random.standard_normal(passes) for off in offsets)
        reached += abs(new[0]) <= calibrate.error_of([list(errors) for errors in known], 0.0).half_width
    assert reached / trials == pytest.approx(calibrate.COVERAGE, abs=0.03)


def test_a_group_counts_once_however_many_passes_it_has() -> None:
    few = calibrate.error_of([[0.1], [-0.5]])
    assert few == calibrate.error_of([[0.1] * 50, [-0.5]])
    assert few.groups == 2
    assert few.scale == pytest.approx(math.sqrt((0.01 + 0.25) / 2))
    assert few.half_width > calibrate.error_of([[0.1], [-0.5]] * 5).half_width
    assert calibrate.error_of([]) == calibrate.ASSUMED
    assert calibrate.error_of([[0.0]]).scale == calibrate.MODEL_SPREAD


def test_with_everything_left_out_the_priors_alone_predict() -> None:
    known = of_known_devices()[::4]
    nothing = calibrate.calibrate("cuda", [])
    held = [one for one in projector.held_out(known) if one.left_out == EVERYTHING]
    assert len(held) == len(known)
    for one in held[::3]:
        of = one.observation
        alone = calibrate.predict(nothing, of.work, of.peaks, of.precision, None, CERTAIN)
        assert one.prediction.seconds == alone.seconds


def test_a_group_that_is_the_only_one_is_not_left_out() -> None:
    one_size = [seen(inner(SHARES), work, gpu()) for work in zoo()]
    assert {held.left_out for held in projector.held_out(one_size)} == {"model", EVERYTHING}
    assert projector.held_out(one_size[:1]) == []


@pytest.mark.parametrize("precision", ["fp32", "tf32", "torch-default", "bf16"])
def test_no_interval_is_below_the_eager_floor(precision: str) -> None:
    perfect = inner([*[1 - 1e-9] * 6, 0.0, 1 - 1e-9, 1 - 1e-9, 1e-12])
    for model in XL:
        work = costs_of(model, "bf16" if precision == "bf16" else "fp32")
        for peaks in map(roofline.of_gpu, load.gpus()):
            if formula.why_not(peaks, [precision]) is not None:
                continue
            eager, fused = (roofline.floor(work, peaks, precision, form) for form in roofline.FORMS)
            assert eager is not None
            assert fused is not None
            for x in (perfect, inner(SHARES)):
                predicted = calibrate.predict(
                    fixed(x), work, peaks, precision, None, GroupError(scale=0.5, groups=0)
                )
                assert predicted.seconds >= predicted.low_s >= eager.total_s * (1 - 1e-6)
                assert predicted.eager_floor_s == eager.total_s >= fused.total_s == predicted.fused_floor_s


def test_a_device_without_a_peak_is_refused_and_says_which() -> None:
    assert formula.why_not(gpu(), ["bf16", "tf32"]) is None
    assert formula.why_not(replace(gpu(), bf16=None), ["bf16"]) == "its bf16 peak is unknown"
    assert formula.why_not(replace(gpu(), fp32=None), ["bf16"]) == "its fp32 peak is unknown"
    assert formula.why_not(replace(gpu(), tf32=None), ["torch-default"]) == "its tf32 peak is unknown"


# measured passes


def timed(
    device: str, device_type: str, work: OperatorCosts, seconds: float, **changes: object
) -> Throughput:
    case = work.case
    fields = {
        "model": case.model, "family": case.family, "res": case.res, "latent_size": case.latent_size,
        "batch": case.batch, "precision": "bf16", **changes,
    }  # fmt: skip
    return builders.throughput((seconds,) * 7, replace(CPU, device=device, device_type=device_type), **fields)


def on_h200(seconds_of: float = 1.0) -> list[Record]:
    """Work, and its passes on an H200 under SHARES, times a factor."""
    peaks, x = roofline.of_gpu("H200 SXM5 141GB"), inner(SHARES)
    records: list[Record] = []
    for work in zoo():
        at = calibrate.predict(fixed(x), work, peaks, "bf16", None, CERTAIN).seconds
        records += [work, timed("NVIDIA H200", "cuda", work, at * seconds_of)]
    return records


def projector_of(records: Sequence[Record]) -> tuple[projector.Projector, list[str]]:
    timings, unused = passes.usable(records)
    found, lacking = passes.observations(timings, records, passes.costs_in(records))
    return projector.projector(found), [f"{count} {reason}" for reason, count in (unused + lacking).items()]


def ceilings(device: str, flops: float) -> list[Record]:
    rates = {("matmul", "fp32"): flops / 2, ("matmul", "bf16"): flops, ("copy", "fp32"): flops / 20}
    return [
        Ceiling(
            case=CeilingCase(device="cpu", what=what, precision=precision),
            environment=replace(CPU, device=device), size=1024, work=10**9, times_s=(1e9 / rate,) * 7,
        )
        for (what, precision), rate in rates.items()
    ]  # fmt: skip


def test_passes_of_a_gpu_calibrate_gpus_by_themselves() -> None:
    made_by, unused = projector_of(on_h200())
    assert unused == []
    assert made_by.calibrations["cuda"].devices == ("H200 SXM5 141GB",)
    assert made_by.calibrations["cpu"].devices == ()
    linear = made_by.calibrations["cuda"].shares[ORDER.index("linear")]
    assert abs(linear.value - 0.72) < abs(linear.prior.median - 0.72)
    assert made_by.describe().startswith("calibrated on 9 passes on H200 SXM5 141GB; the interval combines ")
    assert "for 9 models left out on H200 SXM5 141GB (the largest, by Student's t)" in made_by.describe()
    assert made_by.error("cuda").groups == 9
    assert "the difference between two GPUs is assumed" in made_by.describe()


def test_without_a_gpu_priors_and_the_tested_device_are_named() -> None:
    made_by, _ = projector_of([])
    assert made_by.describe().startswith("no GPU is measured yet: the shares of its peaks are priors")
    assert "an error of a factor of 1.2, assumed" in made_by.describe()
    assert made_by.describe_coverage().endswith("90 %; no measured pass tests it")
    peaks = gpu("a CPU", 0.01)
    records: list[Record] = [*zoo(), *ceilings("a CPU", 300e12 * 0.01)]
    for work in zoo():
        if work.case.model not in ("launching", "moving"):
            floor = roofline.floor(work, peaks, "bf16", "eager")
            assert floor is not None
            records.append(timed("a CPU", "cpu", work, 3 * floor.total_s))
    made_by, unused = projector_of(records)
    assert unused == []
    assert (
        "for 7 models predicted from priors alone on a CPU (the largest, by Student's t)"
        in made_by.describe()
    )
    alone = [held for held in made_by.held_out if held.left_out == EVERYTHING]
    off = calibrate.error_of([held.error] for held in alone)  # a pass a model
    assert made_by.error("cuda").half_width == pytest.approx(off.half_width)
    assert made_by.error("cpu").half_width < off.half_width  # its shares are calibrated
    assert "the error for a GPU is unknown" in made_by.describe()
    assert [s.value for s in made_by.calibrations["cuda"].shares] == pytest.approx(
        [s.prior.median for s in made_by.calibrations["cuda"].shares]
    )


def test_a_model_outside_its_intervals_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [
        replace(one, times_s=(20 * one.median_s,) * 7)
        if isinstance(one, Throughput) and one.case.model == "linear"
        else one
        for one in on_h200()
    ]
    made_by, _ = projector_of(records)
    low = [one for one in made_by.coverages if one.left_out == "model" and one.covered < one.passes]
    assert [(one.model, one.text) for one in low] == [("linear", "0 of 1")]
    assert "8 of 9 with its model left out (interval of a factor of " in made_by.describe_coverage()
    assert ", only 0 of 1 of linear)" in made_by.describe_coverage()
    path = tmp_path / "measured.jsonl"
    path.write_text("".join(map(to_line, records)))
    assert run(project.main, *TINY, "--records", str(path)) == 0
    printed = capsys.readouterr()
    assert made_by.describe_coverage() in printed.err
    assert "nominal 90 % interval" in printed.out
    text, _ = report.section([renamed(zoo()[1]), *records])
    assert made_by.describe_coverage()[1:] in text
    assert "with its model left out" in text


def test_shares_outside_their_prior_are_named() -> None:
    made_by, _ = projector_of(on_h200())
    assert made_by.describe_priors().startswith("of the 10 shares of a GPU, calibration moved none outside")
    made_by, _ = projector_of(on_h200(6.0))
    for share in made_by.calibrations["cuda"].shares:
        prior = share.prior
        away = abs(replace(prior, median=share.value).fitted_median - prior.fitted_median) / prior.spread
        assert (prior.name in made_by.describe_priors()) == (away > 1.6449), prior.name
    assert projector_of([])[0].describe_priors() == ""


def test_passes_that_cannot_calibrate_are_counted_by_reason() -> None:
    work = zoo()[0]
    other = renamed(work, "not traced")
    records: list[Record] = [
        work,
        timed("NVIDIA H200", "cuda", work, 0.1, engine="compile"),
        timed("NVIDIA H200", "cuda", other, 0.1),
        timed("NVIDIA H200", "cuda", work, 1e-9),
        timed("a CPU", "cpu", work, 1.0),
    ]
    assert sorted(projector_of(records)[1]) == [
        "1 on H200 SXM5 141GB, faster than its peaks allow: measure its ceilings again",
        "1 on a CPU, which has no ceilings: python -m bench.roofline measures them",
        "1 under settings that are not predicted",
        "1 whose operator costs are unknown",
    ]


def test_the_newest_pass_of_a_case_counts() -> None:
    records = on_h200()
    newer = replace(H200, date="2026-11-22T00:00:00Z")
    again = [
        replace(one, environment=newer, times_s=(2 * one.median_s,) * 7)
        for one in records
        if isinstance(one, Throughput)
    ]
    for order in ([*records, *again], [*again, *records]):
        made_by, unused = projector_of(order)
        assert unused == ["9 measured again since"]
        calibrated = made_by.calibrations["cuda"].observations
        assert {one.seconds for one in calibrated} == {one.median_s for one in again}


def test_a_training_step_includes_the_bytes_of_its_update() -> None:
    use = replace(USE, gradients_bytes=4000, ema_bytes=5000)
    step = formula.with_update(zoo()[0], use)
    adamw, average = 4000 * (4 + 3), 5000 * (2 + 1)  # a thousand trained parameters of 1250
    assert step.eager_bytes - zoo()[0].eager_bytes == adamw + average
    assert step.fused_bytes - zoo()[0].fused_bytes == adamw + average
    assert step.macs == zoo()[0].macs


# memory


def peak(model: str, gib: float, measured: bool, work: str = "inference", **fields: int) -> Memory:
    use = replace(USE, passes_peak_bytes=round(gib * 2**30), passes_peak_phase="forward")
    size = {"res": 64, "latent_size": 8, "batch": 2, **fields}
    return builders.memory(
        use, H200 if measured else META, model=model, family=model, precision="bf16", work=work, **size
    )


def errors_of(records: Sequence[Record]) -> predictions.MemoryErrors:
    return predictions.memory_errors(records, passes.costs_in(records))


MEASURED_PEAKS = {"a": 1.1, "b": 1.2, "c": 1.05}  # of 1 GiB predicted


def test_memory_intervals_come_from_peaks_of_the_same_work() -> None:
    records = [
        *(peak(model, 1, measured=False) for model in MEASURED_PEAKS),
        *(peak(model, gib, measured=True) for model, gib in MEASURED_PEAKS.items()),
    ]
    errors = errors_of(records)
    interval = errors.interval(2**30, "inference")
    assert interval is not None
    low, high = interval
    assert low < 2**30
    assert all(gib * 2**30 < high for gib in MEASURED_PEAKS.values())
    assert high < 1.5 * 2**30
    assert "Student's t over 3 measured GPU peaks of inference, models counted: 3" in errors.describe(
        "inference"
    )
    assert errors.interval(2**30, "training") is None
    assert "no interval: no GPU peak of training is measured yet" in errors.describe("training")
    assert errors_of([one for one in records if one.case.is_predicted]).interval(2**30, "inference") is None
    ends = (0.9 * low, 2**30, 1.1 * high)
    assert [memory_fit.fits(2**30, round(end), interval) for end in ends] == [
        *("probably does not fit", "perhaps fits", "probably fits")
    ]


def test_predicted_memory_has_an_interval_or_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(project.main, *TINY, *empty(tmp_path), "--format", "json") == 0
    printed = capsys.readouterr()
    assert "memory has no interval: no GPU peak of inference is measured yet" in printed.err
    assert [row["memory_peak_bytes_interval"] for row in json.loads(printed.out)] == [None, None]
    path = tmp_path / "measured.jsonl"
    path.write_text(to_line(peak("tests.tiny:Tiny", 1, measured=True)))  # its prediction is made
    assert run(project.main, *TINY, "--records", str(path), "--format", "json") == 0
    printed = capsys.readouterr()
    assert "Student's t over 1 measured GPU peaks of inference, models counted: 1" in printed.err
    for row in json.loads(printed.out):
        low, high = row["memory_peak_bytes_interval"]
        assert low < row["memory_peak_bytes"] < 2**30 < high
        assert row["fits"] == "perhaps fits"  # of one model alone the interval is wider than any GPU
    assert run(project.main, *TINY, "--records", str(path)) == 0
    assert capsys.readouterr().out.count("perhaps") == 2
    work = renamed(zoo()[1])
    of_it = peak("FCDM-XL", 1, measured=False, res=256, latent_size=32, batch=64)
    pair = [peak("a", 1, measured=False), peak("a", 1.1, measured=True)]
    text, _ = report.section([work, of_it])
    assert "Memory has no interval: no GPU peak of inference is measured yet" in text
    text, _ = report.section([work, of_it, *pair])
    assert "0.5 to 1.8" in text
    assert "1 measured GPU peaks of inference" in text


def test_measured_memory_of_removed_models_is_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "measured.jsonl", tmp_path / "derived.jsonl"
    gone = ("gone.net:Net", "Renamed-XL")
    peaks = [*(peak(model, 1, measured=True) for model in gone), peak("tests.tiny:Tiny", 1, True, "training")]
    timing = timed("NVIDIA H200", "cuda", renamed(zoo()[0], "gone.net:Net"), 0.1)
    path.write_text("".join(map(to_line, [*peaks, timing])))
    assert run(project.main, *TINY, "--records", str(path), "--out", str(out)) == 0
    printed = capsys.readouterr()
    note = "measured peaks of memory that cannot be predicted: 1 of Renamed-XL; 1 of gone.net:Net"
    assert note in printed.err
    assert "measured passes that do not calibrate: 1 whose operator costs are unknown" in printed.err
    assert "memory has no interval: no GPU peak of inference is measured yet" in printed.err
    assert {one.case.work for one in read(out).records if isinstance(one, Memory)} == {"inference"}


# published rows


def test_published_rows_come_once_from_their_own_paper() -> None:
    rows = published.published_rows()
    named = [(row.source, row.model) for row in rows]
    assert len(named) == len(set(named))
    assert ("fcdm:table3", "DiT-S/2") not in named  # DiCo's number
    assert ("dico:table1", "DiT-S/2") in named
    assert {(row.device, row.precision) for row in rows if row.source == "dico:table1"} == {("A100", "fp32")}


def test_fcdm_on_an_a100_cannot_have_been_fp32() -> None:
    work = costs_of("FCDM-XL", "fp32")
    made_by, _ = projector_of([])
    (judged,) = published.judge(made_by, passes.costs_in([work]), ["A100 SXM4 80GB"])
    assert judged.row.as_printed == "272.7"
    assert judged.verdict.startswith("not fp32 by direct algorithms at the rated clock; nearest ")
    assert [reading.is_impossible for reading in judged.readings] == [True, False, False]


def test_a_row_slightly_above_a_limit_is_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work, made_by = renamed(zoo()[0], precision="fp32"), projector_of([])[0]
    predictions = {p: made_by.predict(work, gpu(), p) for p in published.PRECISIONS}
    floor = predictions["fp32"].fused_floor_s
    verdicts = {}
    for share in (0.85, 0.95, 1.05):  # of the least time in fp32
        readings = tuple(
            published.Reading(precision=precision, prediction=prediction, published_s=share * floor)
            for precision, prediction in predictions.items()
        )
        row = published.published_rows()[0]
        verdicts[share] = published.Judged(row=row, gpu="a GPU", work=zoo()[0], readings=readings).verdict
    assert verdicts[0.85].startswith("not fp32 by direct algorithms")
    assert verdicts[0.95].endswith("above the fp32 limit, within 10 % slack")
    assert "cannot be" not in verdicts[0.95]
    assert "limit" not in verdicts[1.05]
    assert published.SLACK_TEXT in published.LIMIT
    text, _ = report.section([renamed(zoo()[1], precision="fp32")])
    assert published.LIMIT in text
    assert "fp32 images/s at most" in text


def test_an_interval_that_holds_a_row_beats_a_nearer_value() -> None:
    def reading(precision: str, seconds: float, low_s: float) -> published.Reading:
        prediction = calibrate.Prediction(
            seconds=seconds, low_s=low_s, high_s=3 * seconds, eager_floor_s=low_s, fused_floor_s=low_s / 2
        )
        return published.Reading(precision=precision, prediction=prediction, published_s=1.0)

    row = published.published_rows()[0]
    both = (reading("fp32", 1.2, 1.1), reading("tf32", 0.7, 0.5))
    assert published.Judged(row=row, gpu="a GPU", work=zoo()[0], readings=both).verdict == "nearest tf32"
    alone = published.Judged(row=row, gpu="a GPU", work=zoo()[0], readings=both[:1]).verdict
    assert alone == "nearest fp32, printed faster than its interval"


def test_a_row_beyond_every_reading_says_only_what_it_cannot_be() -> None:
    row = replace(published.published_rows()[0], images_per_s=1e9)
    made_by, _ = projector_of([])
    work = renamed(zoo()[0], precision="fp32")
    readings = tuple(
        published.Reading(
            precision=precision, prediction=made_by.predict(work, gpu(), precision), published_s=64e-9
        )
        for precision in published.PRECISIONS
    )
    judged = published.Judged(row=row, gpu="a GPU", work=zoo()[0], readings=readings)
    assert judged.verdict == "not fp32 or tf32 or torch-default by direct algorithms at the rated clock"


# names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("rtx4090", "RTX 4090"),
        ("4090", "RTX 4090"),
        ("a100-80", "A100 SXM4 80GB"),
        ("a100-80-pcie", "A100 PCIe 80GB"),
        ("A100 SXM4 80GB", "A100 SXM4 80GB"),
        ("h100-sxm", "H100 SXM5 80GB"),
        ("h100", "H100 SXM5 80GB"),
        ("h200", "H200 SXM5 141GB"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM5 80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 PCIe 40GB"),
        ("a10", "A10"),
        ("l4", "L4"),
        ("NVIDIA B200", "B200 SXM 180GB"),
        ("AMD Instinct MI300X", "AMD Instinct MI300X 192GB"),
        ("rtx-pro-6000", "RTX PRO 6000 Blackwell Workstation Edition"),
    ],
)
def test_a_gpu_is_found_by_a_part_of_its_name(text: str, name: str) -> None:
    assert load.gpu(text).gpu == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a100", "a100: may be several GPUs: A100 SXM4 40GB or A100 SXM4 80GB; say which"),
        ("rtx 4900", "rtx 4900: no such GPU; did you mean RTX 4090"),
        ("a1", "a1: no such GPU; did you mean A100 PCIe 40GB or "),
        ("b300", "b300: no such GPU; known are "),
        ("NVIDIA GeForce RTX 4090 D", "no such GPU"),
        ("", "no such GPU"),
    ],
)
def test_a_name_of_none_or_of_several_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="GPU") as refusal:
        load.gpu(text)
    assert message in str(refusal.value)


# the command

TINY = ("--model", "tests.tiny:Tiny", "--res", "64", "--batch", "2", "--to", "h200", "a100-80")


def empty(folder: Path) -> tuple[str, str]:
    path = folder / "none.jsonl"
    path.touch()
    return "--records", str(path)


@pytest.mark.parametrize("form", ["table", "md", "csv", "json", "latex"])
def test_every_format_calls_a_prediction_one(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(project.main, *TINY, *empty(tmp_path), "--format", form) == 0
    printed = capsys.readouterr()
    assert "predicted, not measured; no GPU is measured yet" in printed.err
    assert "--to h200: H200 SXM5 141GB; a100-80: A100 SXM4 80GB" in printed.err
    assert f"work counted with torch {torch.__version__}, commit " in printed.err
    if form == "json":
        rows = json.loads(printed.out)
    elif form == "csv":
        rows = list(csv.DictReader(io.StringIO(printed.out)))
    else:
        assert "predicted images/s" in printed.out
        assert "H200 SXM5 141GB" in printed.out
        return
    assert [row["gpu"] for row in rows] == ["H200 SXM5 141GB", "A100 SXM4 80GB"]
    for row in rows:
        assert str(row["predicted"]) == "True"
        assert float(row["images_per_s"]) <= float(row["images_per_s_at_most_eager"]) * (1 + 1e-6)
        assert row["fits"] == "probably fits"
        assert float(row["memory_margin"]) > 1


def test_a_training_step_is_predicted_with_its_update(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = (*TINY, *empty(tmp_path), "--work", "inference", "training", "--format", "json")
    assert run(project.main, *args) == 0
    seconds = {row["work"]: row["seconds"] for row in json.loads(capsys.readouterr().out)}
    assert seconds["training"] > seconds["inference"]


def test_recomputed_blocks_are_those_of_the_count() -> None:
    for name in ("DiT-S/8", "FCDM-Ti"):
        task = published_task(name)
        model = build(name, task)
        costs = count(operator_case(name, task.res, 1, "fp32", "training"), model)
        step = counters.count_step(model, task)
        assert costs.macs == step.train_macs
        assert formula.with_recomputation(costs).macs == step.train_macs_checkpointed
    with pytest.raises(ValueError, match="no operators of a list of blocks"):
        formula.with_recomputation(made("x", [part("linear", 1, 1)]))


def test_checkpointing_is_predicted_for_training_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("--model", "DiT-S/8", "--batch", "1024", "--to", "h200", *empty(tmp_path), "--format", "json")
    assert run(project.main, *args, "--work", "training", "--checkpointing", "off", "on") == 0
    plain, again = json.loads(capsys.readouterr().out)
    assert [row["checkpointing"] for row in (plain, again)] == [False, True]
    assert plain["seconds"] < again["seconds"]
    assert plain["memory_peak_bytes"] > again["memory_peak_bytes"]
    assert run(project.main, *args, "--checkpointing") == 2
    assert "--checkpointing: is of a training step" in capsys.readouterr().err


def test_costs_of_predictions_are_stored_and_not_counted_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "records.jsonl"
    args = (*TINY, *empty(tmp_path), "--work", "training", "--out", str(out))
    assert run(project.main, *args) == 0
    before = out.read_text()
    kinds = sorted(type(one).__name__ for one in read(out).records)
    assert kinds == ["Memory", "OperatorCosts"]

    def counts(*_: object) -> NoReturn:
        raise AssertionError("counted again")

    monkeypatch.setattr("bench.counting.work.count", counts)
    monkeypatch.setattr(memory_jobs, "result_of", counts)
    assert run(project.main, *args) == 0
    assert out.read_text() == before
    first, second = capsys.readouterr().out.split("GPU", 2)[1:]
    assert first == second


def test_measured_passes_in_the_records_calibrate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "measured.jsonl"
    path.write_text("".join(map(to_line, on_h200())))
    assert run(project.main, *TINY, "--records", str(path)) == 0
    printed = capsys.readouterr()
    assert "calibrated on 9 passes on H200 SXM5 141GB" in printed.err
    assert "the nominal coverage of the intervals is 90 %. Observed: " in printed.err
    assert "With 9 measured passes of 9 models the true coverage may be" in printed.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--to", "rtx4900"], "--to rtx4900: no such GPU; did you mean RTX 4090"),
        (["--to", "a100"], "--to a100: may be several GPUs: A100 SXM4 40GB or A100 SXM4 80GB; say which"),
        (["--model", "FDCM-XL"], "--model FDCM-XL: no such backbone; did you mean FCDM-XL"),
        (["--res", "100"], "--res: must be a multiple of 8 pixels"),
        (
            ["--precision", "fp16", "--work", "training"],
            "--precision fp16: training in it would need a scaled",
        ),
        (["--weights", __file__], "weights do not change costs; leave it out"),
        (["--records", "nowhere.jsonl"], "--records: nowhere.jsonl: no such file"),
        (["--batch", "0"], "--batch: must be a whole number of at least 1, got '0'"),
    ],
)
def test_bad_input_ends_in_one_line(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(project.main, *args) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert message in written.err
    assert len(written.err.splitlines()) == 1


def test_a_gpu_without_the_peak_is_refused_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = load.gpus()
    lacking = {**known, "L40S": replace(known["L40S"], bf16_dense_tflops=None)}
    monkeypatch.setattr("baselines.gpus.gpus", lambda: lacking)
    monkeypatch.setattr("bench.counting.work.count", None)
    assert run(project.main, "--to", "l40s") == 2
    assert (
        "--to l40s: its bf16 peak is unknown: baselines/gpus.csv leaves it blank" in capsys.readouterr().err
    )


# the report


def test_report_predicts_from_operator_costs_only() -> None:
    assert report.section([builders.throughput((1.0,))]) == ("", [])
    works = [renamed(zoo()[1]), renamed(zoo()[3], "DiT-XL/2")]
    fp32 = [replace(work, case=replace(work.case, precision="fp32")) for work in works]
    text, _ = report.section([*works, *fp32])
    assert report.section([*reversed([*works, *fp32])]) == (text, [])
    assert "are predicted, not measured" in text
    assert "no GPU is measured yet" in text
    for name in report.GPUS:
        assert f"### Predicted: {name}" in text
    assert "published images/s" in text
    assert "predicted images/s fp32, A100 SXM4 80GB" in text


def test_report_calibrates_and_shows_passes_left_out() -> None:
    work = renamed(zoo()[1])
    text, _ = report.section([work, *on_h200()])
    assert "Basis: calibrated on 9 passes on H200 SXM5 141GB" in text
    assert "### Held-out passes" in text
    left_out = text.partition("### Held-out passes")[2].splitlines()
    assert sum(line.startswith("| its model") for line in left_out) == 9
    assert sum(line.startswith("| everything") for line in left_out) == 9
    assert "no GPU is measured yet" not in text
