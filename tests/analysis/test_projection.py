"""Projection: known devices are found again, bars hold what they say, a prediction is called one."""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines import load
from bench import memory, operators, project
from bench.analysis import calibration as validation
from bench.analysis import projection, roofline
from bench.analysis.projection import EVERYTHING, Calibration, Error, Observation
from bench.analysis.roofline import Peaks
from bench.records import record
from bench.records.record import Ceiling, Memory, MemoryUse, Part, Record, Throughput, Work, to_line
from models.contract import build
from models.registry import task_at
from reports.sections import projection as report
from tests.cli.test_cli import run
from tests.records.test_record import HERE, TIMED

XL = ("FCDM-XL", "DiT-XL/2", "DiCo-XL", "DiC-XL")
ELSEWHERE = replace(HERE, device="meta", device_type="meta")
CERTAIN = Error(scale=0.0, groups=0)
ORDER = [prior.name for prior in projection.PRIORS["cuda"]]


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


def part(kind: str, gmacs: float, gigabytes: float, calls: int = 10) -> Part:
    moved = round(gigabytes * 1e9)
    fused = moved if kind in projection.PRODUCTS else 0
    return Part(
        kind=kind, op=kind, module="", phase="forward", calls=calls, macs=round(gmacs * 1e9),
        eager_bytes=moved, fused_bytes=fused,
    )  # fmt: skip


def made(model: str, parts: Sequence[Part], res: int = 256) -> Work:
    return Work(
        model=model, family=model, res=res, latent_size=res // 8, batch=64, precision="bf16",
        work="inference", parts=tuple(parts), environment=ELSEWHERE,
    )  # fmt: skip


def zoo(res: int = 256) -> list[Work]:
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


def inner(shares: Sequence[float]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    priors = projection.PRIORS["cuda"]
    return np.array([replace(p, median=v).inner for p, v in zip(priors, shares, strict=True)])


def fixed(x: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> Calibration:
    """A calibration that is certain."""
    return Calibration(
        device_type="cuda", observations=(), devices=(), mean=x,
        covariance=np.zeros((len(x), len(x))), residuals=(),
    )  # fmt: skip


def seen(
    x: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    work: Work,
    peaks: Peaks,
    precision: str = "bf16",
    off: float = 0.0,
) -> Observation:
    """A pass that takes what the formula says under some shares, but for a factor exp(off)."""
    at = projection.predict(fixed(x), work, peaks, precision, None, CERTAIN).seconds
    return Observation(
        model=work.model, res=work.res, batch=work.batch, precision=precision, work=work, peaks=peaks,
        device=peaks.device, device_type="cuda", seconds=at * math.exp(off), date="",
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


# the mathematics


def test_a_kernel_takes_the_longer_of_its_flops_and_its_bytes_at_their_shares() -> None:
    x = inner([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.0, 0.25, 0.8, 1e-9])
    work = made("x", [part("linear", 1500, 1), part("linear", 1, 4), part("norm", 0, 8)])
    predicted = projection.predict(fixed(x), work, gpu(), "bf16", None, CERTAIN)
    assert predicted.seconds == pytest.approx(3e12 / 150e12 + 4e9 / 0.5e12 + 8e9 / 1.6e12)
    assert predicted.low_s < predicted.seconds < predicted.high_s  # another device may differ


def test_starting_kernels_hides_behind_a_busy_gpu_and_shows_on_an_idle_one() -> None:
    x = inner([*SHARES[:-1], 5e-6])
    busy = projection.predict(fixed(x), made("x", [part("norm", 0, 80, 100)]), gpu(), "bf16", None, CERTAIN)
    idle = projection.predict(fixed(x), made("x", [part("norm", 0, 1e-6, 100)]), gpu(), "bf16", None, CERTAIN)
    assert busy.seconds == pytest.approx(80e9 / (0.88 * 2e12))
    assert idle.seconds == pytest.approx(100 * 5e-6)


def test_a_depthwise_convolution_uses_no_tensor_cores_in_any_precision() -> None:
    work = made("x", [part("depthwise", 1000, 0.001)])
    times = [
        projection.predict(fixed(inner(SHARES)), work, gpu(), precision, None, CERTAIN).seconds
        for precision in ("fp32", "tf32", "bf16")
    ]
    assert times == pytest.approx([2e12 / (0.03 * 20e12)] * 3)


def test_torch_default_runs_convolutions_in_tf32_and_linear_layers_in_fp32() -> None:
    def seconds(kind: str, precision: str) -> float:
        work = made("x", [part(kind, 1000, 0.001)])
        return projection.predict(fixed(inner(SHARES)), work, gpu(), precision, None, CERTAIN).seconds

    assert seconds("convolution", "torch-default") == seconds("convolution", "tf32")
    assert seconds("linear", "torch-default") == seconds("linear", "fp32") > seconds("linear", "tf32")


def test_known_shares_are_found_again() -> None:
    shares = projection.calibrate("cuda", of_known_devices()).described()
    for share, true in zip(shares, SHARES, strict=True):
        assert share.low <= true <= share.high, share
        assert abs(share.value - true) < 0.3 * abs(share.prior.median - true) + 0.02 * true, share


def test_without_observations_the_shares_are_the_priors() -> None:
    for share in projection.calibrate("cuda", []).described():
        assert share.value == pytest.approx(share.prior.median)
        assert share.low < share.value < share.high


def test_one_disturbed_measurement_does_not_bend_the_rest() -> None:
    quiet = of_known_devices()
    work, peaks = quiet[3].work, quiet[3].peaks
    disturbed = [*quiet, seen(inner(SHARES), replace(work, model="again"), peaks, off=math.log(30))]
    before, after = (projection.calibrate("cuda", found).described() for found in (quiet, disturbed))
    for one, other in zip(before, after, strict=True):
        assert other.value == pytest.approx(one.value, rel=0.05)


def test_a_measured_device_is_predicted_better_than_another_one() -> None:
    calibration = projection.calibrate("cuda", of_known_devices())
    work = zoo()[0]
    spans = []
    for device in ("GPU 1.0", "one that nobody saw"):
        found = projection.predict(calibration, work, gpu(), "bf16", device, CERTAIN)
        spans.append(found.high_s / found.low_s)
    assert spans[0] < spans[1]


def varied(seed: int) -> list[Observation]:
    """Devices that differ by DEVICE_SPREAD, and passes that the formula misses by MODEL_SPREAD."""
    random = np.random.default_rng(seed)
    shared = inner(SHARES)
    found = []
    for scale in (1.0, 1.5, 3.0):
        x = shared + projection.DEVICE_SPREAD * random.standard_normal(len(shared))
        for res in (256, 512):
            for work in zoo(res):
                off = projection.MODEL_SPREAD * float(random.standard_normal())
                found.append(seen(x, work, gpu(f"GPU {scale}", scale), off=off))
    return found


def test_bars_hold_what_was_left_out_about_as_often_as_they_say() -> None:
    held = projection.held_out(varied(0))
    for left_out in ("size", "model", "device", EVERYTHING):
        covered = [one.covered for one in held if one.left_out == left_out]
        assert sum(covered) / len(covered) >= 0.8, left_out
    widths = [one.prediction.high_s / one.prediction.low_s for one in held if one.left_out == "device"]
    assert np.median(widths) < 4  # and are not that long


@pytest.mark.parametrize("groups", [2, 4, 9])
def test_an_error_of_few_groups_that_are_off_alike_reaches_a_new_one_about_as_often_as_it_says(
    groups: int,
) -> None:
    random = np.random.default_rng(groups)
    trials, passes, reached = 4000, 5, 0
    for _ in range(trials):
        alike = 0.3 * random.standard_normal(groups + 1)  # of a group, and less of each of its passes
        *known, new = (off + 0.05 * random.standard_normal(passes) for off in alike)
        reached += abs(new[0]) <= projection.error_of([list(errors) for errors in known], 0.0).reach
    assert reached / trials == pytest.approx(projection.COVERAGE, abs=0.03)


def test_a_group_counts_once_however_many_passes_it_has() -> None:
    few = projection.error_of([[0.1], [-0.5]])
    assert few == projection.error_of([[0.1] * 50, [-0.5]])
    assert few.groups == 2
    assert few.scale == pytest.approx(math.sqrt((0.01 + 0.25) / 2))
    assert few.reach > projection.error_of([[0.1], [-0.5]] * 5).reach
    assert projection.error_of([]) == projection.ASSUMED
    assert projection.error_of([[0.0]]).scale == projection.MODEL_SPREAD


def test_with_everything_left_out_the_priors_alone_predict() -> None:
    nothing = projection.calibrate("cuda", [])
    held = [one for one in projection.held_out(of_known_devices()) if one.left_out == EVERYTHING]
    assert len(held) == len(of_known_devices())
    for one in held[::10]:
        of = one.observation
        alone = projection.predict(nothing, of.work, of.peaks, of.precision, None, CERTAIN)
        assert one.prediction.seconds == alone.seconds


def test_a_group_that_is_the_only_one_is_not_left_out() -> None:
    one_size = [seen(inner(SHARES), work, gpu()) for work in zoo()]
    assert {held.left_out for held in projection.held_out(one_size)} == {"model", EVERYTHING}
    assert projection.held_out(one_size[:1]) == []


@pytest.mark.parametrize("precision", ["fp32", "tf32", "torch-default", "bf16"])
def test_neither_a_prediction_nor_its_interval_is_below_the_eager_floor(precision: str) -> None:
    perfect = inner([*[1 - 1e-9] * 6, 0.0, 1 - 1e-9, 1 - 1e-9, 1e-12])
    tensors = "bf16" if precision == "bf16" else "fp32"
    for model in XL:
        task = task_at(model, 256, 256)
        parts = operators.work(build(model, task, device="meta"), task, batch=64, precision=tensors)
        work = replace(made(model, parts), precision=tensors)
        for name in load.gpus():
            peaks = roofline.of_gpu(name)
            eager, fused = (roofline.floor(work, peaks, precision, form) for form in roofline.FORMS)
            assert eager is not None
            assert fused is not None
            for x in (perfect, inner(SHARES)):
                predicted = projection.predict(
                    fixed(x), work, peaks, precision, None, Error(scale=0.5, groups=0)
                )
                assert predicted.seconds >= predicted.low_s >= eager.total_s * (1 - 1e-6)
                assert predicted.eager_floor_s == eager.total_s >= fused.total_s == predicted.fused_floor_s


def test_a_device_without_a_peak_is_refused_and_says_which() -> None:
    assert projection.why_not(gpu(), ["bf16", "tf32"]) is None
    assert projection.why_not(replace(gpu(), bf16=None), ["bf16"]) == "no bf16 peak is known of it"
    assert projection.why_not(replace(gpu(), fp32=None), ["bf16"]) == "no fp32 peak is known of it"
    assert projection.why_not(replace(gpu(), tf32=None), ["torch-default"]) == "no tf32 peak is known of it"


# measured passes


def timed(device: str, device_type: str, work: Work, seconds: float, **changes: object) -> Throughput:
    environment = replace(HERE, device=device, device_type=device_type)
    run = replace(
        TIMED.run, model=work.model, family=work.family, res=work.res, latent_size=work.latent_size,
        batch=work.batch, precision="bf16", environment=environment,
    )  # fmt: skip
    return replace(TIMED, run=replace(run, **changes), times_s=(seconds,) * 7)  # type: ignore[arg-type]


def on_h200(seconds_of: float = 1.0) -> list[Record]:
    """Work, and its passes on an H200 under SHARES, times a factor."""
    peaks, x = roofline.of_gpu("H200 SXM5 141GB"), inner(SHARES)
    records: list[Record] = []
    for work in zoo():
        at = projection.predict(fixed(x), work, peaks, "bf16", None, CERTAIN).seconds
        records += [work, timed("NVIDIA H200", "cuda", work, at * seconds_of)]
    return records


def basis_of(records: Sequence[Record]) -> tuple[validation.Basis, list[str]]:
    timings, unused = validation.usable(records)
    found, lacking = validation.observations(timings, records, validation.derived_in(records))
    return validation.basis(found), [f"{count} {reason}" for reason, count in (unused + lacking).items()]


def ceilings(device: str, flops: float) -> list[Record]:
    environment = replace(HERE, device=device, device_type="cpu")
    rates = {("matmul", "fp32"): flops / 2, ("matmul", "bf16"): flops, ("copy", "fp32"): flops / 20}
    return [
        Ceiling(
            what=what, precision=precision, size=1024, work=10**9, times_s=(1e9 / rate,) * 7,
            environment=environment,
        )
        for (what, precision), rate in rates.items()
    ]  # fmt: skip


def test_passes_of_a_gpu_calibrate_gpus_by_themselves() -> None:
    basis, unused = basis_of(on_h200())
    assert unused == []
    assert basis.calibrations["cuda"].devices == ("H200 SXM5 141GB",)
    assert basis.calibrations["cpu"].devices == ()
    linear = basis.calibrations["cuda"].described()[ORDER.index("linear")]
    assert abs(linear.value - 0.72) < abs(linear.prior.median - 0.72)
    assert basis.words().startswith("calibrated on 9 passes on H200 SXM5 141GB; the interval holds ")
    assert "for 9 models left out on H200 SXM5 141GB, by Student's t" in basis.words()
    assert basis.error("cuda").groups == 9
    assert "no second GPU is measured: how two differ is assumed, not known" in basis.words()


def test_without_a_measured_gpu_the_words_say_so_and_name_the_device_that_bars_come_from() -> None:
    basis, _ = basis_of([])
    assert basis.words().startswith("no GPU measured yet: its shares of the peaks are the priors")
    assert "a factor of 1.2 that is assumed of the formula" in basis.words()
    assert basis.level().endswith("are nominal: nothing measured was left out to test them")
    peaks = gpu("a CPU", 0.01)
    records: list[Record] = [*zoo(), *ceilings("a CPU", 300e12 * 0.01)]
    for work in zoo():
        if work.model not in ("launching", "moving"):
            floor = roofline.floor(work, peaks, "bf16", "eager")
            assert floor is not None
            records.append(timed("a CPU", "cpu", work, 3 * floor.total_s))
    basis, unused = basis_of(records)
    assert unused == []
    assert "for 7 models predicted from priors alone on a CPU, by Student's t" in basis.words()
    alone = [held for held in basis.held_out if held.left_out == EVERYTHING]
    off = projection.error_of([held.error] for held in alone)  # a pass a model
    assert basis.error("cuda").reach == pytest.approx(off.reach)
    assert basis.error("cpu").reach < off.reach  # its shares are calibrated
    assert "the error of a GPU left out is not known" in basis.words()
    assert [s.value for s in basis.calibrations["cuda"].described()] == pytest.approx(
        [s.prior.median for s in basis.calibrations["cuda"].described()]
    )


def test_a_model_that_its_intervals_do_not_hold_is_named_beside_the_nominal_level(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [
        replace(one, times_s=(20 * one.median_s,) * 7)
        if isinstance(one, Throughput) and one.run.model == "linear"
        else one
        for one in on_h200()
    ]
    basis, _ = basis_of(records)
    (short,) = [one for one in basis.coverages if one.left_out == "model" and one.falls_short]
    assert (short.model, short.text) == ("linear", "0 of 1")
    assert "8 of 9 with its model left out (bars of a factor of " in basis.level()
    assert ", only 0 of 1 of linear)" in basis.level()
    path = tmp_path / "measured.jsonl"
    path.write_text("".join(map(record.to_line, records)))
    assert run(project.main, *TINY, "--records", str(path)) == 0
    told = capsys.readouterr()
    assert basis.level() in told.err
    assert "nominal 90 % interval" in told.out
    text, _ = report.section([replace(zoo()[1], model="FCDM-XL"), *records])
    assert basis.level()[1:] in text
    assert "in the interval with its model left out" in text


def test_shares_that_measuring_put_outside_their_prior_are_named() -> None:
    basis, _ = basis_of(on_h200())
    assert basis.priors_held().startswith("of a GPU's 10 shares, calibration put none outside")
    basis, _ = basis_of(on_h200(6.0))
    for share in basis.calibrations["cuda"].described():
        prior = share.prior
        away = abs(replace(prior, median=share.value).inner - prior.inner) / prior.spread
        assert (prior.name in basis.priors_held()) == (away > 1.6449), prior.name
    assert basis_of([])[0].priors_held() == ""


def test_what_cannot_calibrate_is_counted_with_its_reason() -> None:
    work = zoo()[0]
    other = replace(work, model="not traced")
    records: list[Record] = [
        work,
        timed("NVIDIA H200", "cuda", work, 0.1, compile=True),
        timed("NVIDIA H200", "cuda", work, 0.1, question="sample"),
        timed("NVIDIA H200", "cuda", other, 0.1),
        timed("NVIDIA H200", "cuda", work, 1e-9),
        timed("a CPU", "cpu", work, 1.0),
    ]
    assert sorted(basis_of(records)[1]) == [
        "1 of another question",
        "1 of passes whose work is not known here",
        "1 on H200 SXM5 141GB, faster than its peaks allow: measure its ceilings again",
        "1 on a CPU, which has no ceilings yet: python -m bench.ceilings",
        "1 under settings that are not predicted",
    ]


def test_the_newest_pass_of_a_case_counts() -> None:
    records = on_h200()
    newer = replace(HERE, device="NVIDIA H200", device_type="cuda", date="2026-11-22T00:00:00Z")
    again = [
        replace(one, run=replace(one.run, environment=newer), times_s=(2 * one.median_s,) * 7)
        for one in records
        if isinstance(one, Throughput)
    ]
    for order in ([*records, *again], [*again, *records]):
        basis, unused = basis_of(order)
        assert unused == ["9 measured again since"]
        assert {one.seconds for one in basis.calibrations["cuda"].observations} == {t.median_s for t in again}


def test_a_training_step_moves_what_adamw_and_the_average_read_and_write() -> None:
    use = MemoryUse(
        passes_peak_bytes=10**6, passes_peak_phase="forward", passes_gradients_bytes=0,
        update_peak_bytes=10**6, parameters_bytes=5000, gradients_bytes=4000, optimizer_bytes=8000,
        ema_bytes=5000, reserved_bytes=None, process_bytes=None,
    )  # fmt: skip
    step = projection.with_update(zoo()[0], use)
    adamw, average = 4000 * (4 + 3), 5000 * (2 + 1)  # a thousand trained parameters of 1250
    assert step.eager_bytes - zoo()[0].eager_bytes == adamw + average
    assert step.fused_bytes - zoo()[0].fused_bytes == adamw + average
    assert step.macs == zoo()[0].macs


# memory


def peak(model: str, gib: float, measured: bool, work: str = "inference") -> Memory:
    environment = replace(HERE, device="NVIDIA H200", device_type="cuda") if measured else ELSEWHERE
    run = replace(
        TIMED.run, question=f"memory of {work}", model=model, family=model, res=64, latent_size=8, batch=2,
        precision="bf16", environment=environment,
    )  # fmt: skip
    use = MemoryUse(
        passes_peak_bytes=round(gib * 2**30), passes_peak_phase="forward", passes_gradients_bytes=0,
        update_peak_bytes=None, parameters_bytes=0, gradients_bytes=0, optimizer_bytes=0, ema_bytes=0,
        reserved_bytes=None, process_bytes=None,
    )  # fmt: skip
    return Memory(
        run=run, work=work, checkpointing=False, predicted=not measured, limit_bytes=None, status="ok",
        reason="", use=use,
    )  # fmt: skip


def bars_of(records: Sequence[Record]) -> validation.MemoryBars:
    return validation.MemoryBars(peaks=tuple(validation.peaks_seen(records, validation.derived_in(records))))


MEASURED_PEAKS = {"a": 1.1, "b": 1.2, "c": 1.05}  # of 1 GiB predicted


def test_memory_has_an_interval_from_measured_peaks_of_its_own_work_and_else_says_that_there_is_none() -> (
    None
):
    records = [
        *(peak(model, 1, measured=False) for model in MEASURED_PEAKS),
        *(peak(model, gib, measured=True) for model, gib in MEASURED_PEAKS.items()),
    ]
    bars = bars_of(records)
    interval = bars.interval(2**30, "inference")
    assert interval is not None
    low, high = interval
    assert low < 2**30
    assert all(gib * 2**30 < high for gib in MEASURED_PEAKS.values())
    assert high < 1.5 * 2**30
    assert "from 3 GPU peaks of inference measured, by Student's t over 3 models" in bars.words("inference")
    assert bars.interval(2**30, "training") is None
    assert "no interval: no GPU peak of training is measured yet" in bars.words("training")
    assert bars_of([one for one in records if one.predicted]).interval(2**30, "inference") is None
    assert [validation.fits(2**30, interval, round(end)) for end in (0.9 * low, 2**30, 1.1 * high)] == [
        "no",
        "perhaps",
        "yes",
    ]


def test_predicted_memory_is_shown_with_its_interval_or_a_note_that_it_has_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(project.main, *TINY, *empty(tmp_path), "--format", "json") == 0
    told = capsys.readouterr()
    assert "memory has no interval: no GPU peak of inference is measured yet" in told.err
    assert {row["memory_peak_bytes_interval"] for row in json.loads(told.out)} == {None}
    path = tmp_path / "measured.jsonl"
    path.write_text(to_line(peak("tests.tiny:Tiny", 1, measured=True)))  # its prediction is made
    assert run(project.main, *TINY, "--records", str(path), "--format", "json") == 0
    told = capsys.readouterr()
    assert "from 1 GPU peak of inference measured, by Student's t over 1 model" in told.err
    for row in json.loads(told.out):
        low, high = row["memory_peak_bytes_interval"]
        assert low < row["memory_peak_bytes"] < 2**30 < high
        assert row["fits"] == "perhaps"  # of one model alone the interval is wider than any GPU
    assert run(project.main, *TINY, "--records", str(path)) == 0
    assert capsys.readouterr().out.count("perhaps, ") == 2
    work = replace(zoo()[1], model="FCDM-XL")
    asked = replace(TIMED.run, environment=ELSEWHERE, model="FCDM-XL", res=256, latent_size=32, batch=64)
    of_it = replace(peak("FCDM-XL", 1, measured=False), run=replace(asked, precision="bf16"))
    pair = [peak("a", 1, measured=False), peak("a", 1.1, measured=True)]
    text, _ = report.section([work, of_it])
    assert "Memory has no interval: no GPU peak of inference is measured yet" in text
    text, _ = report.section([work, of_it, *pair])
    assert "| 1.0 [0.5, 1.8]" in text
    assert "from 1 GPU peak of inference measured" in text


def test_measured_memory_of_models_that_are_not_here_any_more_is_told_and_that_of_other_work_not_predicted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "measured.jsonl", tmp_path / "derived.jsonl"
    gone = ("gone.net:Net", "Renamed-XL")
    peaks = [*(peak(model, 1, measured=True) for model in gone), peak("tests.tiny:Tiny", 1, True, "training")]
    timing = timed("NVIDIA H200", "cuda", replace(zoo()[0], model="gone.net:Net"), 0.1)
    path.write_text("".join(map(to_line, [*peaks, timing])))
    assert run(project.main, *TINY, "--records", str(path), "--out", str(out)) == 0
    told = capsys.readouterr()
    note = "measured peaks of memory that cannot be predicted here: 1 of Renamed-XL; 1 of gone.net:Net"
    assert note in told.err
    assert "measured passes that do not calibrate: 1 of passes whose work is not known here" in told.err
    assert "memory has no interval: no GPU peak of inference is measured yet" in told.err
    assert {one.work for one in record.read(out) if isinstance(one, Memory)} == {"inference"}


# published rows


def test_published_rows_come_once_and_not_from_the_paper_that_took_them_over() -> None:
    rows = validation.published_rows()
    named = [(row.source, row.model) for row in rows]
    assert len(named) == len(set(named))
    assert ("fcdm:table3", "DiT-S/2") not in named  # DiCo's number
    assert ("dico:table1", "DiT-S/2") in named
    assert {(row.device, row.precision) for row in rows if row.source == "dico:table1"} == {("A100", "fp32")}


def test_fcdm_on_an_a100_cannot_have_been_fp32() -> None:
    task = task_at("FCDM-XL", 256, 256)
    parts = operators.work(build("FCDM-XL", task, device="meta"), task, batch=64, precision="fp32")
    work = replace(made("FCDM-XL", parts), precision="fp32")
    basis, _ = basis_of([])
    (judged,) = validation.judge(basis, validation.derived_in([work]), ["A100 SXM4 80GB"])
    assert judged.row.as_printed == "272.7"
    assert judged.verdict.startswith("cannot be fp32; nearest ")
    assert [reading.impossible for reading in judged.readings] == [True, False, False]


def test_a_row_a_little_above_a_limit_says_so_and_the_slack_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work, basis = replace(zoo()[0], precision="fp32"), basis_of([])[0]
    predictions = {p: basis.predict(work, gpu(), p) for p in validation.READINGS}
    floor = predictions["fp32"].fused_floor_s
    verdicts = {}
    for share in (0.85, 0.95, 1.05):  # of the least time in fp32
        readings = tuple(
            validation.Reading(precision=precision, prediction=prediction, published_s=share * floor)
            for precision, prediction in predictions.items()
        )
        row = validation.published_rows()[0]
        verdicts[share] = validation.Judged(row=row, gpu="a GPU", readings=readings).verdict
    assert verdicts[0.85].startswith("cannot be fp32")
    assert verdicts[0.95].endswith("above the fp32 limit, within 10 % slack")
    assert "cannot be" not in verdicts[0.95]
    assert "limit" not in verdicts[1.05]
    assert validation.SAID_SLACK in validation.LIMIT
    assert f"{100 * validation.SLACK:.0f} % of the time" in str(project.__doc__)
    text, _ = report.section([replace(zoo()[1], model="FCDM-XL", precision="fp32")])
    assert validation.LIMIT in text
    assert "fp32 images/s at most" in text


def test_a_reading_whose_interval_holds_the_row_fits_better_than_a_nearer_one_at_its_floor() -> None:
    def reading(precision: str, seconds: float, low_s: float) -> validation.Reading:
        prediction = projection.Prediction(
            seconds=seconds, low_s=low_s, high_s=3 * seconds, eager_floor_s=low_s, fused_floor_s=low_s / 2
        )
        return validation.Reading(precision=precision, prediction=prediction, published_s=1.0)

    row = validation.published_rows()[0]
    both = (reading("fp32", 1.2, 1.1), reading("tf32", 0.7, 0.5))
    assert validation.Judged(row=row, gpu="a GPU", readings=both).verdict == "nearest tf32"
    alone = validation.Judged(row=row, gpu="a GPU", readings=both[:1]).verdict
    assert alone == "nearest fp32, printed faster than its interval"


def test_a_row_beyond_every_reading_says_only_what_it_cannot_be() -> None:
    row = replace(validation.published_rows()[0], images_per_s=1e9)
    basis, _ = basis_of([])
    work = replace(zoo()[0], precision="fp32")
    readings = tuple(
        validation.Reading(
            precision=precision, prediction=basis.predict(work, gpu(), precision), published_s=64e-9
        )
        for precision in validation.READINGS
    )
    judged = validation.Judged(row=row, gpu="a GPU", readings=readings)
    assert judged.verdict == "cannot be fp32 or tf32 or torch-default"


# names


@pytest.mark.parametrize(
    ("said", "name"),
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
    ],
)
def test_a_gpu_is_found_by_a_part_of_its_name(said: str, name: str) -> None:
    assert load.gpu(said).gpu == name


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("a100", "a100: may be several GPUs: A100 SXM4 40GB or A100 SXM4 80GB; say which"),
        ("rtx 4900", "rtx 4900: no such GPU; did you mean RTX 4090?"),
        ("a10", "a10: no such GPU; did you mean A100 PCIe 40GB or "),
        ("b200", "b200: no such GPU; known are "),
        ("NVIDIA GeForce RTX 4090 D", "no such GPU"),
        ("", "no such GPU"),
    ],
)
def test_a_name_of_none_or_of_several_is_refused(said: str, told: str) -> None:
    with pytest.raises(ValueError, match="GPU") as refusal:
        load.gpu(said)
    assert told in str(refusal.value)


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
    told = capsys.readouterr()
    assert "predicted, not measured; no GPU measured yet" in told.err
    assert "--to h200: H200 SXM5 141GB; a100-80: A100 SXM4 80GB" in told.err
    assert f"work traced with torch {torch.__version__}, commit " in told.err
    if form == "json":
        rows = json.loads(told.out)
    elif form == "csv":
        rows = list(csv.DictReader(io.StringIO(told.out)))
    else:
        assert "predicted images/s" in told.out
        assert "H200 SXM5 141GB" in told.out
        return
    assert [row["gpu"] for row in rows] == ["H200 SXM5 141GB", "A100 SXM4 80GB"]
    for row in rows:
        assert str(row["predicted"]) == "True"
        assert float(row["images_per_s"]) <= float(row["images_per_s_at_most_eager"]) * (1 + 1e-6)
        assert row["fits"] == "yes"


def test_a_training_step_is_predicted_with_its_update(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = (*TINY, *empty(tmp_path), "--work", "inference", "training", "--format", "json")
    assert run(project.main, *args) == 0
    seconds = {row["work"]: row["seconds"] for row in json.loads(capsys.readouterr().out)}
    assert seconds["training"] > seconds["inference"]


def test_records_keep_what_a_prediction_is_derived_from_and_it_is_not_traced_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "records.jsonl"
    args = (*TINY, *empty(tmp_path), "--work", "training", "--out", str(out))
    assert run(project.main, *args) == 0
    before = out.read_text()
    kinds = sorted(type(one).__name__ for one in record.read(out))
    assert kinds == ["Memory", "Work"]
    monkeypatch.setattr(operators, "traced", None)
    monkeypatch.setattr(memory, "result_of", None)
    assert run(project.main, *args) == 0
    assert out.read_text() == before
    first, second = capsys.readouterr().out.split("GPU", 2)[1:]
    assert first == second


def test_measured_passes_in_the_records_calibrate_and_are_left_out_in_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "measured.jsonl"
    path.write_text("".join(map(record.to_line, on_h200())))
    assert run(project.main, "--show", "held-out", "--records", str(path), "--format", "json") == 0
    told = capsys.readouterr()
    rows = json.loads(told.out)
    assert {row["left_out"] for row in rows} == {"model", EVERYTHING}
    assert {row["device"] for row in rows} == {"H200 SXM5 141GB"}
    assert all(row["predicted"] and row["measured_images_per_s"] > 0 for row in rows)
    assert "the 90 % of the intervals are nominal. Of measured passes they held " in told.err
    assert "These are the same 9 passes each time, of 9 models, 1 size, 1 device" in told.err
    assert "in the interval of linear: 1 of 1 with its model, 1 of 1 with everything" in told.err
    assert run(project.main, *TINY, "--records", str(path)) == 0
    assert "calibrated on 9 passes on H200 SXM5 141GB" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--to", "rtx4900"], "--to rtx4900: no such GPU; did you mean RTX 4090?"),
        (["--to", "a100"], "--to a100: may be several GPUs: A100 SXM4 40GB or A100 SXM4 80GB; say which"),
        (["--model", "FDCM-XL"], "--model FDCM-XL: no such backbone; did you mean FCDM-XL"),
        (["--res", "100"], "--res: must be a multiple of 8 pixels"),
        (
            ["--precision", "fp16", "--work", "training"],
            "--precision fp16: training in it would need a scaled",
        ),
        (["--show", "all"], "--show: invalid choice"),
        (["--weights", "a.pt"], "--weights a.pt: their values change no size; leave it out"),
        (["--records", "nowhere.jsonl"], "--records nowhere.jsonl: No such file"),
        (["--batch", "0"], "--batch: must be a whole number of at least 1, got '0'"),
    ],
)
def test_bad_input_ends_in_one_line(args: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(project.main, *args) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert told in written.err
    assert len(written.err.splitlines()) == 1


def test_a_gpu_without_the_peak_is_refused_before_anything_is_traced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = load.gpus()
    lacking = {**known, "L40S": replace(known["L40S"], bf16_dense_tflops=None)}
    monkeypatch.setattr(load, "gpus", lambda: lacking)
    monkeypatch.setattr(operators, "traced", None)
    assert run(project.main, "--to", "l40s") == 2
    assert (
        "--to l40s: no bf16 peak is known of it: baselines/gpus.csv leaves it blank"
        in capsys.readouterr().err
    )


# the report


def test_the_report_says_nothing_without_work_and_predicts_from_it() -> None:
    assert report.section([TIMED]) == ("", [])
    works = [replace(zoo()[1], model="FCDM-XL"), replace(zoo()[3], model="DiT-XL/2")]
    fp32 = [replace(work, precision="fp32") for work in works]
    text, (drawing,) = report.section([*works, *fp32])
    again = report.section([*reversed([*works, *fp32])])
    assert again == (text, [drawing])
    assert "are predicted, not measured" in text
    assert "no GPU measured yet" in text
    for name in report.GPUS:
        assert f"### Predicted: {name}" in text
    assert "published images/s" in text
    assert "predicted images/s fp32, A100 SXM4 80GB" in text
    svg = drawing.svg.decode()
    assert "predicted" in drawing.picture.caption
    assert svg.startswith("<?xml")


def test_the_report_calibrates_on_what_was_measured_and_shows_what_was_left_out() -> None:
    work = replace(zoo()[1], model="FCDM-XL")
    text, _ = report.section([work, *on_h200()])
    assert "Basis: calibrated on 9 passes on H200 SXM5 141GB" in text
    assert "### Left out and predicted" in text
    left_out = text.partition("### Left out and predicted")[2].splitlines()
    assert sum(line.startswith("| its model") for line in left_out) == 9
    assert sum(line.startswith("| everything") for line in left_out) == 9
    assert "no GPU measured yet" not in text
