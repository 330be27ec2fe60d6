"""Resolution scaling: batches that shrink, studies from records, the command, the report."""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench import scaling
from bench.analysis.scaling import resolution, scaling_tables, slowdowns
from bench.jobs import visits
from bench.records.base import Record, Size, Skipped, height_width
from bench.records.operators import OperatorCosts
from bench.records.scaling import ScalingCase, ScalingVisit
from bench.store.codec import key, read
from reports.sections import resolution as report
from tests.analysis import builders
from tests.analysis.builders import CPU, PART, res_fields
from tests.commands import run
from tests.records.examples import PASS

# visits and batches


def answer(case: ScalingCase, seconds: Callable[[ScalingCase], float]) -> ScalingVisit:
    return builders.visit(case, tuple(seconds(case) * (1 + i / 1000) for i in range(10)))


def out_of_memory(case: ScalingCase) -> Skipped:
    return Skipped(case=case, environment=CPU, status="out of memory", reason="asked for 9 TiB")


def asked(model: str, res: Size, batch: int = 8, work: str = "inference") -> ScalingCase:
    fields = {**PASS, **res_fields(res), "model": model, "family": model.partition("-")[0], "batch": batch}
    return ScalingCase(**{**fields, "work": work}, from_batch=batch, visit=1)


def case_of(record: Record) -> ScalingCase:
    assert isinstance(record.case, ScalingCase)
    return record.case


def test_a_batch_shrinks_until_it_fits_and_every_attempt_is_kept() -> None:
    def measure(case: ScalingCase) -> Record:
        return answer(case, lambda case: case.batch) if case.batch <= 2 else out_of_memory(case)

    attempts, last = visits.run([asked("DiT-S/2", 512)], 2, measure)
    assert [case_of(one).batch for one in attempts] == [8, 4, 2, 2]
    assert [case.batch for case in last] == [2]
    assert [case_of(one).visit for one in attempts] == [1, 1, 1, 2]
    (study,) = resolution.studies(attempts)
    (sized,) = study.sizes
    assert (sized.batch, len(sized.visits)) == (2, 2)
    assert [case_of(one).batch for one in sized.failed] == [8, 4]
    table = json.loads(scaling.rendered([study], ["sizes"], "json"))["sizes"]
    assert [(row["batch"], row["status"]) for row in table] == [
        (8, "out of memory"),
        (4, "out of memory"),
        (2, "ok"),
    ]
    assert table[0]["s_per_image"] is None


def test_a_case_that_never_fits_or_breaks_is_a_row_and_no_point() -> None:
    def measure(case: ScalingCase) -> Record:
        if case.res == 512:
            return out_of_memory(case)
        if case.res == 256:
            return Skipped(case=case, environment=CPU, status="crashed", reason="died of SIGSEGV")
        return answer(case, lambda case: 1.0)

    attempts, last = visits.run([asked("DiT-S/2", res, 2) for res in (128, 256, 512)], 2, measure)
    assert [case.batch for case in last] == [2, 2, 1]
    (study,) = resolution.studies(attempts)
    assert study.curve("DiT-S/2", "time").sides == (128,)
    assert [row.status for row in scaling_tables.size_rows(study)] == [
        "ok", "crashed", "out of memory", "out of memory",
    ]  # fmt: skip
    assert study.exponents("DiT-S/2") == {}


def test_cases_are_visited_forwards_and_then_backwards() -> None:
    cases = [asked("DiT-S/2", res) for res in (128, 256, 512)]
    assert [index for index, _ in visits.visited(cases, 3)] == [0, 1, 2, 2, 1, 0, 0, 1, 2]


# studies from records


def made(
    seconds: dict[str, Callable[[float], float]], sizes: Sequence[int] = (256, 512), batch: int = 4
) -> list[Record]:
    """Two visits and a count of every model at every size."""
    found: list[Record] = []
    for model, cost in seconds.items():
        for res in sizes:
            case = asked(model, res, batch)
            for visit in (1, 2):
                seconds_of = lambda case, cost=cost, res=res: case.batch * cost(res)  # noqa: E731
                found.append(answer(replace(case, visit=visit), seconds_of))
            part = replace(PART, macs=batch * res**2, eager_bytes=batch * 100 * res**2)
            sized = {"model": model, "family": case.family, "batch": batch, **res_fields(res)}
            found.append(builders.operators((part,), **sized))
    return found


AS_MACS: dict[str, Callable[[float], float]] = {
    "DiT-XL/2": lambda side: 1e-6 * side**2.1,
    "FCDM-XL": lambda side: 3e-7 * side**2,
}


def test_a_published_slowdown_is_ruled_out() -> None:
    (study,) = resolution.studies(made(AS_MACS))
    ours, dit = (slowdowns.doublings(study, model)[0] for model in ("FCDM-XL", "DiT-XL/2"))
    assert ours.time == pytest.approx(4)
    assert ours.count("MACs") == pytest.approx(4)
    assert [(one.paper, round(one.ratio, 2)) for one in ours.published] == [("FCDM", 2.10)]
    assert ours.verdict == "above FCDM (FCDM-XL); equal to its MACs"
    assert [(one.paper, round(one.ratio, 2)) for one in dit.published] == [("DiCo", 4.14), ("FCDM", 4.33)]
    # FCDM's own 80.5 at 256 px over a 512 px number that is DiCo's
    assert [one.taken_over for one in (*ours.published, *dit.published)] == [False, False, True]
    (contrast,) = slowdowns.relative_slowdowns(study)
    assert contrast.time == pytest.approx(2**0.1)
    assert contrast.published[0].ratio == pytest.approx(4.33 / 2.10, rel=0.01)
    assert contrast.verdict == "FCDM's 2.06 ruled out; DiT-XL/2 slows down more"


def test_published_squares_are_compared_with_squares_only() -> None:
    cases = [asked("FCDM-XL", res) for res in (256, (128, 512), 512)]
    attempts, _ = visits.run(cases, 2, lambda case: answer(case, lambda case: 1.0))
    (study,) = resolution.studies(attempts)
    (grown,) = slowdowns.doublings(study, "FCDM-XL")
    assert grown.published == ()
    squares = [one for one in attempts if isinstance(case_of(one).res, int)]
    assert slowdowns.doublings(resolution.studies(squares)[0], "FCDM-XL")[0].published != ()


def test_a_published_slowdown_is_reached() -> None:
    slower = {**AS_MACS, "FCDM-XL": lambda side: 3e-7 * side**1.07}
    (study,) = resolution.studies(made(slower))
    assert slowdowns.doublings(study, "FCDM-XL")[0].verdict == "equal to FCDM (FCDM-XL); below its MACs"
    assert slowdowns.relative_slowdowns(study)[0].verdict == "FCDM's 2.06 reached; DiT-XL/2 slows down more"


def test_a_disturbed_machine_gives_no_verdict() -> None:
    records = [
        replace(one, times_s=tuple(2 * time for time in one.times_s))
        if isinstance(one, ScalingVisit) and one.case.visit == 2
        else one
        for one in made(AS_MACS)
    ]
    (study,) = resolution.studies(records)
    verdicts = [
        slowdowns.doublings(study, "FCDM-XL")[0].verdict,
        slowdowns.relative_slowdowns(study)[0].verdict,
    ]
    verdicts.append(slowdowns.crossings(study)[0].verdict)
    assert verdicts == ["not judged: visits of one case differ by 49 %"] * 3
    assert slowdowns.crossings(study, "MACs")[0].verdict == "none: equal at every size"


def test_equal_counts_are_listed_with_their_sizes() -> None:
    macs = {"DiT-S/2": (10, 50, 200), "SiT-S/2": (10, 50, 200), "FCDM-S": (10, 40, 160)}
    records = [
        builders.operators((replace(PART, macs=count * 10**9),), model=model, **res_fields(res))
        for model, counts in macs.items()
        for res, count in zip((128, 256, 512), counts, strict=True)
    ]
    (study,) = resolution.counts(records)
    assert [one.verdict for one in slowdowns.crossings(study, "MACs")] == [
        "none: equal at every size",
        "none in the range: FCDM-S fewer MACs, equal at 128 px",
        "none in the range: FCDM-S fewer MACs, equal at 128 px",
    ]


def test_one_visit_of_each_case_gives_no_verdict() -> None:
    once = [one for one in made(AS_MACS) if not isinstance(one, ScalingVisit) or one.case.visit == 1]
    (study,) = resolution.studies(once)
    verdicts = [
        slowdowns.doublings(study, "FCDM-XL")[0].verdict,
        slowdowns.relative_slowdowns(study)[0].verdict,
    ]
    verdicts.append(slowdowns.crossings(study)[0].verdict)
    assert verdicts == ["not judged: one visit of each case does not show how much visits differ"] * 3
    text, _ = report.section(once)
    assert "One visit of each case does not show how much visits differ: no intervals" in text


def test_results_over_several_batches_name_them() -> None:
    def measure(case: ScalingCase) -> Record:
        if case.res == 1024 and case.model == "DiT-XL/2" and case.batch > 2:
            return out_of_memory(case)
        return answer(case, lambda case: case.batch * 1e-6 * height_width(case.res)[0] ** 2.1)

    cases = [asked(model, res, 16) for model in ("DiT-XL/2", "FCDM-XL") for res in (256, 512, 1024)]
    attempts, _ = visits.run(cases, 2, measure)
    counts = [one for one in made(AS_MACS, sizes=(256, 512, 1024)) if isinstance(one, OperatorCosts)]
    (study,) = resolution.studies([*attempts, *counts])
    marked = "; batch 16 to 2"
    dit = [one.verdict for one in slowdowns.doublings(study, "DiT-XL/2")]
    assert [verdict.endswith(marked) for verdict in dit] == [False, True]
    beside = [one.verdict for one in slowdowns.relative_slowdowns(study)]
    assert [verdict.endswith(marked) for verdict in beside] == [False, True]
    assert [one.verdict.endswith(marked) for one in slowdowns.crossings(study)] == [True]
    fitted = json.loads(scaling.rendered([study], ["exponents"], "json"))["exponents"]
    fits = {(row["model"], row["cost"]): row["batches"] for row in fitted}
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
    assert "batches differ between sizes: DiT-XL/2 batch 16 to 2." in drawing.picture.caption
    assert " 16 to 2 |" in text


def test_other_sizes_of_a_family_use_its_published_ones() -> None:
    assert {one.model for one in slowdowns.slowdowns_of("FCDM-S", "FCDM")} == {"FCDM-XL"}
    assert {one.model for one in slowdowns.slowdowns_of("DiC-S", "DiC")} == {"DiC-XL", "DiC-H"}
    assert slowdowns.slowdowns_of("tests.tiny:Tiny", "tests.tiny") == ()


def test_newest_visits_count_and_settings_are_separate_studies() -> None:
    records = made({"FCDM-XL": lambda side: side**2})
    newer = replace(CPU, date="2027-01-01T00:00:00Z")
    again = [
        replace(one, environment=newer, times_s=(9.0,) * 10)
        for one in records
        if isinstance(one, ScalingVisit)
    ]
    (study,) = resolution.studies([*again, *records])
    assert study.curve("FCDM-XL", "time").points[0].cost == pytest.approx(9 / 4)
    half = [replace(one, case=replace(one.case, precision="bf16")) for one in again]
    assert len(resolution.studies([*records, *half])) == 2


def test_sizes_with_as_many_pixels_are_two_rows_and_one_point() -> None:
    cases = [asked("FCDM-S", res) for res in (64, (64, 256), (256, 64))]
    attempts, _ = visits.run(cases, 2, lambda case: answer(case, lambda case: 1.0 + (case.res == (256, 64))))
    (study,) = resolution.studies(attempts)
    found = study.curve("FCDM-S", "time")
    assert found.sides == (64, 128)
    wide, tall = (study.curve("FCDM-S", "time", [res]).points[0].cost for res in ((64, 256), (256, 64)))
    assert tall == pytest.approx(2 * wide)
    assert found.points[1].cost == pytest.approx(math.sqrt(wide * tall))
    first = sorted(attempts, key=lambda one: case_of(one).res == (64, 256))
    (swapped,) = resolution.studies(first)
    assert [sized.res for sized in swapped.sizes] == [64, (256, 64), (64, 256)]
    slopes = [of.exponents("FCDM-S")["time"].slope for of in (study, swapped)]
    assert slopes[0] == pytest.approx(slopes[1])
    rows = {row.of.res: study.interval(row.of) for row in scaling_tables.size_rows(study)}
    tall_interval, wide_interval = rows[256, 64], rows[64, 256]
    assert tall_interval is not None
    assert wide_interval is not None
    assert tall_interval[0] > 1.5 * wide_interval[1]


# the command


QUICK = ["--model", "tests.tiny:Tiny", "--res", "32", "64", "32x64", "--device", "cpu"]


def test_a_users_backbone_goes_through_inference_and_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs.jsonl"
    args = [*QUICK[:4], "64", "--work", "training", "--budget", "0.2", "--visits", "1"]
    assert run(scaling.main, *args, "--format", "json", "--out", str(out)) == 0
    tables = json.loads(capsys.readouterr().out)
    assert [(row["work"], row["res"], row["status"]) for row in tables["sizes"]] == [
        ("training", 32, "ok"),
        ("training", 64, "ok"),
    ]
    assert all(row["memory"] == "predicted" and row["passes_bytes_per_image"] > 0 for row in tables["sizes"])
    assert {row["cost"] for row in tables["exponents"]} == set(resolution.COSTS)
    size = out.stat().st_size
    assert run(scaling.main, *args, "--out", str(out)) == 0
    printed = capsys.readouterr()
    assert out.stat().st_size == size
    assert "6 records were in" in printed.err
    assert "Exponents" in printed.out
    assert "predicted" in printed.out
    _, (drawing,) = report.section(read(out).records)
    assert (
        b"memory of the passes, predicted" in drawing.svg
    )  # in the picture, which travels without its caption
    assert b"time, measured" in drawing.svg


def test_counts_alone_need_no_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(scaling.main, *QUICK[:6], "--no-measure", "--format", "json") == 0
    tables = json.loads(capsys.readouterr().out)
    assert [row["res"] for row in tables["sizes"]] == [32, "32x64", 64]
    assert all(row["s_per_image"] is None for row in tables["sizes"])
    (macs,) = (row for row in tables["exponents"] if row["cost"] == "MACs")
    assert 1.5 < macs["exponent_of_side"] < 2
    (grown,) = tables["claim"]
    small, _, large = (row["macs_per_image"] for row in tables["sizes"])
    assert grown["macs_ratio"] == pytest.approx(large / small)


def test_jobs_for_a_sweep_are_visits_memory_and_counts() -> None:
    jobs = scaling.jobs(scaling.parser().parse_args([*QUICK, "--batch", "2"]))
    cases = [job.case for job in jobs]
    assert len(jobs) == len({case.name for case in cases}) == 3 * (2 + 1 + 1)
    assert [case.res for case in cases[:6] if isinstance(case, ScalingCase)] == [
        32,
        64,
        (32, 64),
        (32, 64),
        64,
        32,
    ]
    assert len({key(job.case, job.environment) for job in jobs}) == len(jobs)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--res", "256"], "--res 256: an exponent needs two sizes of different areas"),
        (["--res", "256x512", "512x256"], "--res 256x512 512x256: an exponent needs two sizes"),
        (["--res", "0", "256"], "--res: must be a multiple of 8 pixels"),
        (["--res", "8", "64", "--model", "DiT-S/4"], "must be a multiple of patch 4, got 1; 4 would work"),
        (["--model", "FDCM-S"], "--model FDCM-S: no such backbone; did you mean FCDM-S"),
        (["--work", "sampling"], "--work: invalid choice: 'sampling'"),
        (["--visits", "0"], "--visits: must be a whole number of at least 1"),
        (["--work", "training", "--precision", "fp16"], "--precision fp16: training in it would need"),
        (["--show", "sizes", "claim", "--format", "csv"], "csv holds one table"),
        (["--weights", __file__], "weights do not change costs"),
        (["--out", "/"], "--out /: is a folder"),
        (
            ["--no-measure", "--compile", "on"],
            "--engine: has no use with --no-measure, which times nothing",
        ),
        (["--no-measure", "--budget", "5"], "--budget: has no use with --no-measure"),
        (["--no-measure", "--precision-target", "0.01"], "--precision-target: has no use with --no-measure"),
        (["--no-measure", "--visits", "2"], "--visits: has no use with --no-measure"),
        (["--no-measure", "--attention", "auto"], "--attention: has no use with --no-measure"),
        (["--no-measure", "--compile", "off"], "--engine: has no use with --no-measure"),
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
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(scaling.main, *args) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1


# the report's section


def test_report_shows_slowdowns_beside_published_ones() -> None:
    records = made(AS_MACS, sizes=(256, 512, 1024))
    text, (drawing,) = report.section(records)
    assert report.section(list(reversed(records))) == (text, [drawing])
    flat = " ".join(text.split())
    assert "| FCDM-XL | 256 to 512 | 4.00 | 3.989 to 4.011 |" in flat
    assert "| 2.10 (FCDM, FCDM-XL) |" in flat
    assert "above FCDM (FCDM-XL); equal to its MACs" in flat
    assert "FCDM's 2.06 ruled out" in flat
    assert "4.33‡ (FCDM, DiT-XL/2)" in flat
    assert "| 2.06‡ (FCDM, FCDM-XL) |" in flat
    assert "the paper credits the architecture" in flat
    assert "none in the range" in flat
    assert f"![{drawing.picture.title}](plots/{drawing.picture.name}.svg)" in text


def test_fitted_lines_cross_only_where_the_fits_do() -> None:
    costs: dict[str, Callable[[float], float]] = {  # the first is faster up to 1000 px
        "FCDM-XL": lambda side: 1e-6 * side**2.1,
        "DiC-XL": lambda side: 1e-6 * 1000**0.1 * side**2,
    }
    (study,) = resolution.studies(made(costs, sizes=(256, 512)))
    figure = report.curves(study)
    time, macs = figure.axes[:2]
    lines = [line for line in time.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 2]
    first, second = [line for line in lines if list(line.get_xdata()) == [256, 512]]
    assert all(a < b for a, b in zip(first.get_ydata(), second.get_ydata(), strict=True))
    points = [line for line in macs.lines if line.get_linestyle() == "None"]
    assert [list(line.get_xdata()) for line in points] == [[256, 512]] * 2


def test_legend_shows_the_range_of_local_exponents() -> None:
    (study,) = resolution.studies(
        made({"FCDM-XL": lambda side: side + side**2 / 200}, sizes=(256, 512, 1024))
    )
    figure = report.curves(study)
    legends = [axes.get_legend() for axes in figure.axes[:2]]
    time, macs = (legend.get_texts()[0].get_text() for legend in legends if legend is not None)
    assert re.fullmatch(r"FCDM-XL: e = 1\.7\d \[1\.\d\d, 1\.\d\d\] \(1\.64 to 1\.78\)", time)
    assert macs == "FCDM-XL: e = 2.00"


def test_report_shows_failed_attempts() -> None:
    failed = out_of_memory(replace(asked("FCDM-XL", 512, 4), **res_fields(1024)))
    text, _ = report.section([*made({"FCDM-XL": lambda side: side**2}), failed])
    assert "asked for 9 TiB" in text
    assert report.section([failed]) == ("", [])
    assert report.section([]) == ("", [])
