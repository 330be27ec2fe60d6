"""Resolution scaling: known exponents and cross-overs, batches that shrink, the command, the report."""

import json
import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench import scaling
from bench.analysis import resolution
from bench.records import record
from bench.records.record import Record, Run, Size, Skipped, Throughput, Work, height_width, read
from bench.stats import power_law
from bench.stats.power_law import Curve, Drift, Point, counted, cross_overs, exponent
from reports.sections import resolution as report
from tests.cli.test_cli import run
from tests.records.test_record import HERE, RUN, TIMED, WORK

SIDES = (128.0, 256.0, 512.0, 1024.0)


def curve(slope: float, *, at: float = 1.0, noise: float = 0.02, drift: float = 0.0, seed: int = 0) -> Curve:
    """Two visits of fifteen samples at every side of a cost that is 1 at one side."""
    draw = random.Random(seed)
    points = []
    for side in SIDES:
        visits = []
        for _ in range(2):
            level = (side / at) ** slope * math.exp(draw.gauss(0, drift))
            visits.append(tuple(level * math.exp(draw.gauss(0, noise)) for _ in range(15)))
        points.append(Point(side=side, visits=tuple(visits)))
    return Curve(points=tuple(points), drift=power_law.drift_of(points))


def inside(value: float, interval: power_law.Interval | None) -> bool:
    assert interval is not None
    return interval[0] <= value <= interval[1]


# exponents


def test_the_exponent_of_a_power_law_is_found() -> None:
    exact = Curve(points=tuple(counted(side, 3 * side**2.5) for side in SIDES), exact=True)
    fit = exponent(exact)
    assert fit is not None
    assert fit.slope == pytest.approx(2.5)
    assert fit.per_doubling == pytest.approx(2**2.5)
    assert fit.interval is None
    assert fit.by_residuals is None
    assert fit.local == pytest.approx((2.5,) * 3)
    assert fit.misfit == pytest.approx(0)


def test_a_bent_count_has_exponents_from_size_to_size_and_no_interval() -> None:
    bent = of_counts(*(side + side**2 / 200 for side in SIDES))
    fit = exponent(bent)
    assert fit is not None
    assert (fit.interval, fit.by_residuals) == (None, None)
    assert list(fit.local) == sorted(fit.local)
    assert fit.local[0] < fit.slope < fit.local[-1]
    assert 0.01 < fit.misfit < 0.2


@pytest.mark.parametrize(("noise", "drift"), [(0.01, 0.0), (0.1, 0.0), (0.02, 0.05)])
def test_intervals_cover_a_known_exponent_as_often_as_they_say(noise: float, drift: float) -> None:
    fits = [exponent(curve(2.1, noise=noise, drift=drift, seed=seed)) for seed in range(60)]
    assert sum(inside(2.1, fit.interval) for fit in fits if fit) >= 50
    assert sum(inside(2.1, fit.by_residuals) for fit in fits if fit) >= 50


def test_intervals_of_two_sizes_visited_twice_cover_as_often_as_those_of_many() -> None:
    covered = 0
    for seed in range(150):
        two = curve(2.1, drift=0.1, seed=seed).points[:2]
        fit = exponent(Curve(points=two, drift=power_law.drift_of(two)))
        assert fit is not None
        covered += inside(2.1, fit.interval)
    assert covered >= 135  # of 150; with a normal instead of Student's t: 127


def test_one_visit_of_each_size_gives_no_interval_however_many_samples() -> None:
    points = tuple(replace(point, visits=point.visits[:1]) for point in curve(2).points)
    once = Curve(points=points, drift=power_law.drift_of(points))
    assert power_law.drift_of(points) is None
    assert power_law.intervals(once) == [None] * len(SIDES)
    fit = exponent(once)
    assert fit is not None
    assert fit.interval is None


def test_visits_that_differ_widen_the_interval() -> None:
    quiet, drifting = exponent(curve(2)), exponent(curve(2, drift=0.1))
    assert quiet is not None
    assert drifting is not None
    assert quiet.interval is not None
    assert drifting.interval is not None
    assert drifting.interval[1] - drifting.interval[0] > 3 * (quiet.interval[1] - quiet.interval[0])


def test_residuals_tell_a_bent_curve_where_samples_do_not() -> None:
    points = tuple(Point(side=s, visits=((s + s**2 / 200,) * 20,) * 2) for s in SIDES)
    bent = Curve(points=points, drift=power_law.drift_of(points))
    fit = exponent(bent)
    assert fit is not None
    assert fit.interval is not None
    assert fit.by_residuals is not None
    assert fit.interval[1] - fit.interval[0] < 1e-6
    assert fit.by_residuals[1] - fit.by_residuals[0] > 0.1


def test_one_size_has_no_exponent_and_few_samples_no_interval() -> None:
    few = Curve(
        points=tuple(Point(side=s, visits=((s, s * 1.01),)) for s in SIDES[:2]),
        drift=Drift(sd=0.01, freedom=4),
    )
    assert exponent(few.among(SIDES[:1])) is None
    fit = exponent(few)
    assert fit is not None
    assert (fit.interval, fit.by_residuals) == (None, None)


def test_a_doubling_is_found_between_non_square_sizes_too() -> None:
    sides = [resolution.side_of(res) for res in ((128, 256), 256, (256, 512))]
    costs = Curve(points=tuple(counted(side, side**2) for side in sides), exact=True)
    (growth,) = power_law.doublings(costs)
    assert (growth.from_side, growth.to_side) == (sides[0], sides[2])
    assert growth.ratio == pytest.approx(4)


def test_the_same_curves_give_the_same_intervals() -> None:
    assert exponent(curve(2)) == exponent(curve(2))


# cross-overs


def test_a_known_cross_over_is_found_within_its_interval() -> None:
    found = 0
    for seed in range(30):
        (crossing,) = cross_overs(curve(2.2, at=300, seed=seed), curve(1.8, at=300, seed=100 + seed))
        assert crossing.below == "first"
        assert crossing.certain
        found += inside(300, crossing.interval)
    assert found >= 26


def test_curves_that_do_not_meet_say_so_and_where_they_would() -> None:
    (apart,) = cross_overs(curve(2), curve(2, at=50, seed=1))
    assert (apart.side, apart.certain, apart.extrapolated) == (None, True, None)
    (later,) = cross_overs(curve(2.2, at=2000), curve(1.8, at=2000, seed=1))
    assert later.side is None
    assert later.extrapolated == pytest.approx(2000, rel=0.1)
    (far,) = cross_overs(curve(2.2, at=50_000), curve(1.8, at=50_000, seed=1))
    assert far.extrapolated is None


def test_curves_too_close_to_tell_give_no_certain_answer() -> None:
    for crossing in cross_overs(curve(2), curve(2.001, seed=1)):
        assert not crossing.certain


def of_counts(*costs: float) -> Curve:
    return Curve(
        points=tuple(counted(side, cost) for side, cost in zip(SIDES, costs, strict=False)), exact=True
    )


def test_two_equal_counts_are_equal_and_neither_is_the_smaller_one() -> None:
    (found,) = cross_overs(of_counts(3, 12, 48), of_counts(3, 12, 48))
    assert (found.below, found.side, found.extrapolated) == ("neither", None, None)
    assert found.equal == SIDES[:3]


@pytest.mark.parametrize(
    ("costs", "below", "side", "equal"),
    [
        ((2, 4, 9), "first", 256, (256,)),
        ((2, 4, 8, 17), "first", math.sqrt(256 * 512), (256, 512)),
        ((2, 4, 7), "first", None, (256,)),
        ((3, 4, 9), "second", None, (128, 256)),
        ((2, 3, 8), "first", None, (512,)),
    ],
    ids=["at a size", "over two sizes", "touching", "parting", "meeting at the end"],
)
def test_curves_that_are_equal_at_a_size_cross_there_if_they_change_sides(
    costs: tuple[float, ...], below: str, side: float | None, equal: tuple[float, ...]
) -> None:
    (found,) = cross_overs(of_counts(*costs), of_counts(3, 4, 8, 16))
    assert (found.below, found.equal, found.extrapolated) == (below, equal, None)
    assert found.side == (None if side is None else pytest.approx(side))


def test_a_cross_over_needs_two_sizes_of_both() -> None:
    with pytest.raises(ValueError, match="needs two sizes that both curves have"):
        cross_overs(curve(2).among(SIDES[:2]), curve(2).among(SIDES[1:]))


# visits and batches


def answer(run: Run, seconds: Callable[[Run], float]) -> Throughput:
    return replace(TIMED, run=run, times_s=tuple(seconds(run) * (1 + i / 1000) for i in range(10)))


def out_of_memory(run: Run) -> Skipped:
    return Skipped(run=run, status="out of memory", reason="asked for 9 TiB")


def asked(model: str, res: Size, batch: int = 8, work: str = "inference") -> Run:
    return replace(
        RUN,
        model=model,
        family=model.partition("-")[0],
        res=res,
        batch=batch,
        question=resolution.question(work, batch, 1),
    )


def test_a_batch_shrinks_until_it_fits_and_every_attempt_is_kept() -> None:
    def keep(run: Run) -> Throughput | Skipped:
        return answer(run, lambda run: run.batch) if run.batch <= 2 else out_of_memory(run)

    runs = [asked("DiT-S/2", 512)]
    attempts, batches = scaling.timed(runs, 2, keep)
    assert [one.run.batch for one in attempts] == [8, 4, 2, 2]
    assert batches == [2]
    assert [one.run.question[-7:] for one in attempts] == ["visit 1"] * 3 + ["visit 2"]
    (study,) = resolution.studies(attempts)
    (sized,) = study.sizes
    assert (sized.batch, len(sized.visits), [one.run.batch for one in sized.failed]) == (2, 2, [8, 4])
    rows = scaling.size_rows(study)
    assert [(row["batch"], row["status"]) for row in rows] == [
        (8, "out of memory"),
        (4, "out of memory"),
        (2, "ok"),
    ]


def test_a_case_that_never_fits_or_breaks_is_a_row_and_no_point() -> None:
    def keep(run: Run) -> Throughput | Skipped:
        if run.res == 512:
            return out_of_memory(run)
        if run.res == 256:
            return Skipped(run=run, status="crashed", reason="died of SIGSEGV")
        return answer(run, lambda run: 1.0)

    attempts, batches = scaling.timed([asked("DiT-S/2", res, 2) for res in (128, 256, 512)], 2, keep)
    assert batches == [2, 2, 1]
    (study,) = resolution.studies(attempts)
    assert study.curve("DiT-S/2", "time").sides == (128,)
    assert [row["status"] for row in scaling.size_rows(study)] == [
        "ok", "crashed", "out of memory", "out of memory",
    ]  # fmt: skip
    assert resolution.fitted(study, "DiT-S/2") == {}


def test_cases_are_visited_forwards_and_then_backwards() -> None:
    runs = [asked("DiT-S/2", res) for res in (128, 256, 512)]
    assert [at for at, _ in scaling.visited(runs, 3)] == [0, 1, 2, 2, 1, 0, 0, 1, 2]


# studies from records


def made(
    seconds: dict[str, Callable[[float], float]], sizes: Sequence[int] = (256, 512), batch: int = 4
) -> list[Record]:
    """Two visits and a count of every model at every size."""
    found: list[Record] = []
    for model, cost in seconds.items():
        for res in sizes:
            run = asked(model, res, batch)
            for visit in (1, 2):
                asking = replace(run, question=resolution.question("inference", batch, visit))
                found.append(answer(asking, lambda run, cost=cost, res=res: run.batch * cost(res)))
            found.append(
                replace(
                    WORK,
                    model=model,
                    family=run.family,
                    res=res,
                    batch=batch,
                    precision="fp32",
                    work="inference",
                    parts=(replace(WORK.parts[0], macs=batch * res**2, eager_bytes=batch * 100 * res**2),),
                )
            )
    return found


AS_MACS: dict[str, Callable[[float], float]] = {
    "DiT-XL/2": lambda side: 1e-6 * side**2.1,
    "FCDM-XL": lambda side: 3e-7 * side**2,
}


def test_a_published_slow_down_that_is_not_measured_is_told() -> None:
    (study,) = resolution.studies(made(AS_MACS))
    ours, dit = (resolution.doublings(study, model)[0] for model in ("FCDM-XL", "DiT-XL/2"))
    assert ours.time is not None
    assert ours.time.ratio == pytest.approx(4)
    assert ours.other("MACs") == pytest.approx(4)
    assert [(fall.paper, round(fall.ratio, 2)) for fall in ours.falls] == [("FCDM", 2.10)]
    assert ours.verdict == "more than FCDM (FCDM-XL); as its MACs"
    assert [(fall.paper, round(fall.ratio, 2)) for fall in dit.falls] == [("DiCo", 4.14), ("FCDM", 4.33)]
    # FCDM's own 80.5 at 256 px over a 512 px number that is DiCo's
    assert [fall.taken_over for fall in (*ours.falls, *dit.falls)] == [False, False, True]
    (contrast,) = resolution.contrasts(study)
    assert contrast.ratio == pytest.approx(2**0.1)
    assert contrast.published[0].ratio == pytest.approx(4.33 / 2.10, rel=0.01)
    assert contrast.verdict == "FCDM's 2.06 ruled out; DiT-XL/2 slows more"


def test_what_is_published_of_squares_stands_beside_squares_only() -> None:
    runs = [asked("FCDM-XL", res) for res in (256, (128, 512), 512)]
    attempts, _ = scaling.timed(runs, 2, lambda run: answer(run, lambda run: 1.0))
    (study,) = resolution.studies(attempts)
    (grown,) = resolution.doublings(study, "FCDM-XL")
    assert grown.falls == ()
    squares = [one for one in attempts if isinstance(one.run.res, int)]
    assert resolution.doublings(resolution.studies(squares)[0], "FCDM-XL")[0].falls != ()


def test_a_published_slow_down_that_is_measured_is_told() -> None:
    slower = {**AS_MACS, "FCDM-XL": lambda side: 3e-7 * side**1.07}
    (study,) = resolution.studies(made(slower))
    assert resolution.doublings(study, "FCDM-XL")[0].verdict == "as FCDM (FCDM-XL); less than its MACs"
    assert resolution.contrasts(study)[0].verdict == "FCDM's 2.06 reached; DiT-XL/2 slows more"


def test_a_disturbed_machine_judges_nothing() -> None:
    records = [
        replace(one, times_s=tuple(2 * time for time in one.times_s))
        if isinstance(one, Throughput) and one.run.question.endswith("visit 2")
        else one
        for one in made(AS_MACS)
    ]
    (study,) = resolution.studies(records)
    told = [resolution.doublings(study, "FCDM-XL")[0].verdict, resolution.contrasts(study)[0].verdict]
    told.append(resolution.crossings(study)[0].verdict)
    assert told == ["not judged: visits of one case differ by 49 %"] * 3
    assert resolution.crossings(study, "MACs")[0].verdict == "none: equal at every size"


def test_equal_counts_are_said_to_be_equal_and_where() -> None:
    macs = {"DiT-S/2": (10, 50, 200), "SiT-S/2": (10, 50, 200), "FCDM-S": (10, 40, 160)}
    records = [
        replace(WORK, model=model, res=res, parts=(replace(WORK.parts[0], macs=count * 10**9),))
        for model, counts in macs.items()
        for res, count in zip((128, 256, 512), counts, strict=True)
    ]
    (study,) = resolution.counts(records)
    assert [one.verdict for one in resolution.crossings(study, "MACs")] == [
        "none: equal at every size",
        "none in the range: FCDM-S fewer MACs, equal at 128 px",
        "none in the range: FCDM-S fewer MACs, equal at 128 px",
    ]


def test_one_visit_of_each_case_judges_nothing_and_says_so() -> None:
    once = [
        one
        for one in made(AS_MACS)
        if not isinstance(one, Throughput) or one.run.question.endswith("visit 1")
    ]
    (study,) = resolution.studies(once)
    told = [resolution.doublings(study, "FCDM-XL")[0].verdict, resolution.contrasts(study)[0].verdict]
    told.append(resolution.crossings(study)[0].verdict)
    assert told == ["not judged: one visit of each case does not tell what visits differ by"] * 3
    text, _ = report.section(once)
    assert "One visit of each case does not tell what visits differ by: no intervals" in text


def test_fits_and_verdicts_over_sizes_of_several_batches_say_so() -> None:
    def keep(run: Run) -> Throughput | Skipped:
        if run.res == 1024 and run.model == "DiT-XL/2" and run.batch > 2:
            return out_of_memory(run)
        return answer(run, lambda run: run.batch * 1e-6 * height_width(run.res)[0] ** 2.1)

    runs = [asked(model, res, 16) for model in ("DiT-XL/2", "FCDM-XL") for res in (256, 512, 1024)]
    attempts, _ = scaling.timed(runs, 2, keep)
    counts = [one for one in made(AS_MACS, sizes=(256, 512, 1024)) if isinstance(one, Work)]
    (study,) = resolution.studies([*attempts, *counts])
    marked = "; batch 16 to 2"
    dit = [one.verdict for one in resolution.doublings(study, "DiT-XL/2")]
    assert [verdict.endswith(marked) for verdict in dit] == [False, True]
    beside = [one.verdict for one in resolution.contrasts(study)]
    assert [verdict.endswith(marked) for verdict in beside] == [False, True]
    assert [one.verdict.endswith(marked) for one in resolution.crossings(study)] == [True]
    fits = {(row["model"], row["cost"]): row["batches"] for row in scaling.exponent_rows(study)}
    assert fits["DiT-XL/2", "time"] == [16, 2]
    assert fits["FCDM-XL", "time"] == [16]
    assert fits["DiT-XL/2", "MACs"] == []
    table = scaling.rendered([study], ["exponents"], "table")
    for line in (
        "model .* batch",
        "DiT-XL/2 .* time .* 16 to 2",
        "FCDM-XL .* time .* 16",
        "DiT-XL/2 .* MACs .* -",
    ):
        assert re.search(rf"^{line}$", table, re.MULTILINE)
    text, (drawing,) = report.section(attempts)
    assert "the same at every size: DiT-XL/2 batch 16 to 2." in drawing.picture.caption
    assert "| 16 to 2 |" in " ".join(text.split())


def test_other_sizes_of_a_family_stand_beside_the_published_one_by_name() -> None:
    assert {fall.model for fall in resolution.falls_of("FCDM-S", "FCDM")} == {"FCDM-XL"}
    assert {fall.model for fall in resolution.falls_of("DiC-S", "DiC")} == {"DiC-XL", "DiC-H"}
    assert resolution.falls_of("tests.tiny:Tiny", "tests.tiny") == ()


def test_the_newest_record_of_a_visit_counts_and_settings_are_kept_apart() -> None:
    records = made({"FCDM-XL": lambda side: side**2})
    newer = replace(HERE, date="2027-01-01T00:00:00Z")
    again = [
        replace(one, run=replace(one.run, environment=newer), times_s=(9.0,) * 10)
        for one in records
        if isinstance(one, Throughput)
    ]
    (study,) = resolution.studies([*again, *records])
    assert study.curve("FCDM-XL", "time").points[0].cost == pytest.approx(9 / 4)
    half = [replace(one, run=replace(one.run, precision="bf16")) for one in again]
    assert len(resolution.studies([*records, *half])) == 2


def test_two_sizes_with_as_many_pixels_are_both_rows_and_one_point_between_them() -> None:
    runs = [asked("FCDM-S", res) for res in (64, (64, 256), (256, 64))]
    attempts, _ = scaling.timed(runs, 2, lambda run: answer(run, lambda run: 1.0 + (run.res == (256, 64))))
    (study,) = resolution.studies(attempts)
    found = study.curve("FCDM-S", "time")
    assert found.sides == (64, 128)
    wide, tall = (study.curve("FCDM-S", "time", [res]).points[0].cost for res in ((64, 256), (256, 64)))
    assert tall == pytest.approx(2 * wide)
    assert found.points[1].cost == pytest.approx(math.sqrt(wide * tall))
    first = sorted(attempts, key=lambda one: one.run.res == (64, 256))
    (swapped,) = resolution.studies(first)
    assert [sized.res for sized in swapped.sizes] == [64, (256, 64), (64, 256)]
    slopes = [resolution.fitted(of, "FCDM-S")["time"].slope for of in (study, swapped)]
    assert slopes[0] == pytest.approx(slopes[1])
    rows = {str(row["res"]): row["s_per_image_interval"] for row in scaling.size_rows(study)}
    assert rows["256x64"][0] > 1.5 * rows["64x256"][1]


# the command


QUICK = ["--model", "tests.tiny:Tiny", "--res", "32", "64", "32x64", "--device", "cpu"]


def test_a_users_backbone_goes_through_inference_and_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs.jsonl"
    args = [*QUICK[:4], "64", "--work", "training", "--budget", "0.2", "--visits", "1"]
    assert run(scaling.main, *args, "--format", "json", "--out", str(out)) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(row["work"], row["res"], row["status"]) for row in told["sizes"]] == [
        ("training", 32, "ok"),
        ("training", 64, "ok"),
    ]
    assert all(row["memory_predicted"] and row["held_bytes_per_image"] > 0 for row in told["sizes"])
    assert {row["cost"] for row in told["exponents"]} == set(resolution.COSTS)
    size = out.stat().st_size
    assert run(scaling.main, *args, "--out", str(out)) == 0
    printed = capsys.readouterr()
    assert out.stat().st_size == size
    assert "6 records were in" in printed.err
    assert "Exponents" in printed.out
    assert "predicted" in printed.out
    _, (drawing,) = report.section(read(out))
    assert b"memory, predicted" in drawing.svg  # in the picture, which travels without its caption
    assert b"time, measured" in drawing.svg


def test_counts_alone_need_no_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(scaling.main, *QUICK[:6], "--no-measure", "--format", "json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["res"] for row in told["sizes"]] == [32, "32x64", 64]
    assert all(row["s_per_image"] is None for row in told["sizes"])
    (macs,) = (row for row in told["exponents"] if row["cost"] == "MACs")
    assert 1.5 < macs["exponent_of_side"] < 2
    (grown,) = told["claim"]
    small, _, large = (row["macs_per_image"] for row in told["sizes"])
    assert grown["macs_ratio"] == pytest.approx(large / small)


def test_units_for_a_sweep_are_visits_counts_and_memory() -> None:
    units = scaling.units(scaling.parser().parse_args([*QUICK, "--batch", "2"]))
    abouts = [unit.about for unit in units]
    assert len(units) == len({unit.label for unit in units}) == 3 * (2 + 1 + 1)
    assert [about.res for about in abouts[:6] if isinstance(about, Run)] == [
        32,
        64,
        (32, 64),
        (32, 64),
        64,
        32,
    ]
    assert len({record.key(about) for about in abouts}) == len(units)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--res", "256"], "--res 256: an exponent needs two sizes of different areas or more"),
        (["--res", "256x512", "512x256"], "--res 256x512 512x256: an exponent needs two sizes"),
        (["--res", "0", "256"], "--res: must be a multiple of 8 pixels"),
        (["--res", "8", "64", "--model", "DiT-S/4"], "must be a multiple of patch 4, got 1; 4 would work"),
        (["--model", "FDCM-S"], "--model FDCM-S: no such backbone; did you mean FCDM-S"),
        (["--work", "sampling"], "--work: invalid choice: 'sampling'"),
        (["--visits", "0"], "--visits: must be a whole number of at least 1"),
        (["--work", "training", "--precision", "fp16"], "--precision fp16: training in it would need"),
        (["--show", "sizes", "claim", "--format", "csv"], "csv holds one table"),
        (["--weights", "a.pt"], "--weights a.pt: their values change no size"),
        (["--out", "/"], "--out /: is a folder"),
        (["--no-measure", "--compile", "on"], "--compile: says how to time, and --no-measure times nothing"),
        (["--no-measure", "--budget", "5"], "--budget: says how to time"),
        (["--no-measure", "--precision-target", "0.1"], "--precision-target: says how to time"),
        (
            ["--no-measure", "--model", "FCDM-S", "--show", "sizes", "crossovers"],
            "--show crossovers: a cross-over needs two models, got --model FCDM-S",
        ),
        (
            ["--no-measure", "--model", "FCDM-S", "--res", "256", "384", "--show", "claim"],
            "--show claim: a slow-down needs a size of twice the side of another, got --res 256 384",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    args: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(scaling.main, *args) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert told in printed.err
    assert printed.err.count("\n") == 1


# the report's section


def test_the_report_sets_slow_downs_beside_published_ones_and_draws_the_curves() -> None:
    records = made(AS_MACS, sizes=(256, 512, 1024))
    text, (drawing,) = report.section(records)
    assert report.section(list(reversed(records))) == (text, [drawing])
    flat = " ".join(text.split())
    assert "| FCDM-XL | 256 to 512 | 4.00 [3.99, 4.01] |" in flat
    assert "| 2.10 (FCDM, FCDM-XL) |" in flat
    assert "more than FCDM (FCDM-XL); as its MACs" in flat
    assert "FCDM's 2.06 ruled out" in flat
    assert "4.33‡ (FCDM, DiT-XL/2)" in flat
    assert "| 2.06‡ (FCDM, FCDM-XL) |" in flat
    assert "the paper credits the architecture" in flat
    assert "none in the range" in flat
    assert f"![{drawing.picture.title}]({drawing.picture.name}.png)" in text
    assert drawing.png.startswith(b"\x89PNG")


def test_fitted_lines_of_a_plot_cross_only_where_the_fits_do() -> None:
    costs: dict[str, Callable[[float], float]] = {  # the first is faster up to 1000 px
        "FCDM-XL": lambda side: 1e-6 * side**2.1,
        "DiC-XL": lambda side: 1e-6 * 1000**0.1 * side**2,
    }
    (study,) = resolution.studies(made(costs, sizes=(256, 512)))
    figure, _, _ = report.curves(study)
    time, macs = figure.axes[:2]
    lines = [line for line in time.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 2]
    first, second = [line for line in lines if list(line.get_xdata()) == [256, 512]]
    assert all(a < b for a, b in zip(first.get_ydata(), second.get_ydata(), strict=True))
    points = [line for line in macs.lines if line.get_linestyle() == "None"]
    assert [list(line.get_xdata()) for line in points] == [[256, 512]] * 2


def test_the_plots_legend_tells_a_cost_that_is_no_power_of_the_side() -> None:
    (study,) = resolution.studies(
        made({"FCDM-XL": lambda side: side + side**2 / 200}, sizes=(256, 512, 1024))
    )
    figure, _, _ = report.curves(study)
    legends = [axes.get_legend() for axes in figure.axes[:2]]
    time, macs = (legend.get_texts()[0].get_text() for legend in legends if legend is not None)
    assert re.fullmatch(r"FCDM-XL: e = 1\.7\d \[1\.\d\d, 1\.\d\d\] \(1\.64 to 1\.78\)", time)
    assert macs == "FCDM-XL: e = 2.00"


def test_the_report_shows_failed_attempts_and_has_nothing_to_say_without_times() -> None:
    run = asked("FCDM-XL", 512, 4)
    failed = out_of_memory(replace(run, res=1024))
    text, _ = report.section([*made({"FCDM-XL": lambda side: side**2}), failed])
    assert "batch 4: out of memory" in text
    assert report.section([failed]) == ("", [])
    assert report.section([]) == ("", [])
