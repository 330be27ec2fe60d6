"""Comparison of two runs: verdicts, likely causes, notes, and the report's section on repeats."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import compare as command
from bench.analysis.repeats.agreement import AGREE, DIFFER, OPEN, Pair, compare
from bench.analysis.repeats.pairing import match, repeats
from bench.records.base import Environment, Record, Skipped
from bench.records.comparison import Comparison
from bench.records.telemetry import Telemetry
from bench.records.throughput import Throughput
from bench.stats.processes import ratio_interval
from bench.stats.series import effective_size
from bench.store.codec import from_dict, read, to_line
from reports.sections import notes
from reports.sections.repeats import section
from tests.records import examples
from tests.records.examples import CASE, CEILING, COMPARISON, COUNT, MEMORY, SKIPPED, THROUGHPUT

MODELS = ("FCDM-S", "FCDM-B", "FCDM-L", "DiT-S/2", "DiT-B/2", "DiCo-S", "DiCo-B", "DiC-S", "DiC-B", "DiG-S/2")
# a GPU: on a CPU the difference between hours hides 5 %
ENVIRONMENT = replace(examples.ENVIRONMENT, device_type="cuda")
LATER = replace(ENVIRONMENT, date="2026-12-01T00:00:00Z")


def run(*args: str) -> int:
    try:
        return command.main(list(args))
    except SystemExit as end:
        return int(end.code or 0)


def noisy(median: float, seed: int, n: int = 40, spread: float = 0.002) -> tuple[float, ...]:
    draw = random.Random(seed)
    return tuple(median * (1 + draw.gauss(0, spread)) for _ in range(n))


def timed(
    model: str = "FCDM-S",
    median: float = 0.1,
    seed: int = 0,
    *,
    n: int = 40,
    processes: int = 3,
    environment: Environment = ENVIRONMENT,
    **case: Any,  # noqa: ANN401 - fields of any type
) -> Throughput:
    return replace(
        THROUGHPUT,
        case=replace(CASE, model=model, **case),
        environment=environment,
        times_s=tuple(t for i in range(processes) for t in noisy(median, 1000 * seed + i, n)),
        process_starts=tuple(n * i for i in range(1, processes)),
        warmup_stationary=True,
        stopped_by="precision",
    )


def session(factor: Callable[[int], float], seed: int, **run: Any) -> list[Record]:  # noqa: ANN401
    """The same ten cases, their times multiplied by a factor."""
    return [timed(model, (0.1 + 0.02 * i) * factor(i), seed + i, **run) for i, model in enumerate(MODELS)]


MONDAY = session(lambda i: 1.0, 100)


def friday(factor: Callable[[int], float], **run: Any) -> list[Record]:  # noqa: ANN401
    return session(factor, 900, **{"environment": LATER, **run})


def verdicts(second: list[Record], first: list[Record] = MONDAY, *, within: float = 0.02) -> list[str]:
    return [pair.verdict for pair in pairs(first, second, within)]


def pairs(first: list[Record], second: list[Record], within: float = 0.02) -> list[Pair]:
    """The pairs in the order of the first run."""
    place = {record.name: number for number, record in enumerate(first)}
    found = compare(match(first, second, across=False), within).pairs
    return sorted(found, key=lambda pair: place[pair.case])


def stored(path: Path, records: list[Record]) -> str:
    path.write_text("".join(map(to_line, records)))
    return str(path)


def test_half_a_per_cent_agrees_and_five_differ() -> None:
    assert verdicts(friday(lambda i: 1.005)) == [AGREE] * 10
    assert verdicts(friday(lambda i: 1.05 if i == 3 else 1.0)) == [AGREE] * 3 + [DIFFER] + [AGREE] * 6
    assert verdicts(friday(lambda i: 1 / 1.05)) == [DIFFER] * 10


def test_straddling_or_few_samples_give_no_verdict() -> None:
    assert verdicts([timed(median=0.102, seed=1, environment=LATER)], [timed()]) == [OPEN]
    assert verdicts([timed(seed=1, n=5, environment=LATER)], [timed()]) == [OPEN]
    assert verdicts([timed(median=0.102, seed=1, environment=LATER)], [timed()], within=0.05) == [AGREE]


def test_intervals_cover_the_ratio_of_correlated_passes() -> None:
    def waves(seed: int) -> tuple[float, ...]:
        draw, now, times = random.Random(seed), 0.0, []
        for _ in range(100):
            now = 0.8 * now + draw.gauss(0, 0.01)
            times.append(1 + now)
        return tuple(times)

    for n in (1, 2, 3):
        runs = [[waves(n * run + process) for process in range(n)] for run in range(200)]
        bounds = [ratio_interval(*pair, process_sd=0.0) for pair in zip(runs[::2], runs[1::2], strict=True)]
        assert sum(low <= 1 <= high for low, high in bounds) >= 95
    assert effective_size(waves(0)) < 50
    assert effective_size(noisy(1.0, 0, 100)) == 100


def gpu(median: float, clock: float, heat: float, seed: int) -> Throughput:
    read_out = Telemetry(
        clocks_mhz=(clock,) * 5,
        power_w=(600.0,) * 5,
        temperature_c=(heat,) * 5,
        window_s=1.0,
        energy_j=None,
        idle_w=None,
        calls=5,
        held_back=(),
    )
    return replace(timed(median=median, seed=seed), telemetry=read_out)


def test_clocks_and_heat_that_changed_are_likely_causes() -> None:
    def cases(clock: float, heat: float, seed: int) -> list[Record]:
        records = [gpu(0.1 * (i + 1) * 1980 / clock, clock, heat, seed + i) for i in range(6)]
        return [replace(one, case=replace(one.case, batch=i + 1)) for i, one in enumerate(records)]

    compared = compare(match(cases(1980, 50, 0), cases(1890, 62, 50), across=False), 0.02)
    assert compared.shared == ("clock 1980 -> 1890 MHz (-4.5 %)", "temperature 50 -> 62 °C")


def test_shared_differences_are_named_once() -> None:
    other = replace(LATER, torch="2.14.0", driver="600.1", commit="def", code="4567")
    compared = compare(match(MONDAY, friday(lambda i: 1.1, environment=other), across=False), 0.02)
    assert set(compared.shared) == {"driver - -> 600.1", "torch 2.13.0 -> 2.14.0", "commit abc -> def"}
    assert all(pair.causes == () for pair in compared.pairs)
    one = [*friday(lambda i: 1.1)[:9], timed(MODELS[9], 0.5, 1, environment=other)]
    compared = compare(match(MONDAY, one, across=False), 0.02)
    assert compared.shared == ()
    assert "torch 2.13.0 -> 2.14.0" in pairs(MONDAY, one)[9].likely_causes
    same_code = replace(LATER, commit="def")
    compared = compare(match(MONDAY, friday(lambda i: 1.1, environment=same_code), across=False), 0.02)
    assert compared.shared == ("commit abc -> def (the same code)",)


def test_noise_warm_up_and_budget_are_likely_causes() -> None:
    slow = timed(median=0.2, seed=1, environment=LATER, budget_s=8.0)
    drifting = tuple(0.2 * (1 + i / 100) for i in range(40))
    disturbed = replace(
        slow, times_s=drifting, process_starts=(), warmup_stationary=False, stopped_by="budget"
    )
    compared = compare(match([timed()], [disturbed], across=False), 0.02)
    why = compared.pairs[0].likely_causes
    assert why[0] == "budget 30 -> 8 s"
    assert why[1].startswith("noise in B: drift +")
    assert why[2:] == ("warm-up of B not stationary", "sampling of B stopped by its budget")
    calm = compare(match([timed()], [timed(seed=1, environment=LATER)], across=False), 0.02)
    assert calm.pairs[0].likely_causes == ()


def test_sustained_passes_and_ceilings_are_paired() -> None:
    soaked = replace(timed(soak_s=60.0), sustained_times_s=noisy(0.11, 5))
    hot = replace(timed(seed=1, soak_s=60.0, environment=LATER), sustained_times_s=noisy(0.15, 6))
    first = [soaked, replace(CEILING, work=100, times_s=noisy(1.0, 7))]
    second = [hot, replace(CEILING, size=8192, work=800, times_s=noisy(8.0, 8), environment=LATER)]
    compared = compare(match(first, second, across=False), 0.02)
    found = pairs(first, second)
    assert [pair.quantity for pair in found] == ["median", "sustained median", "median of 1 GFLOP"]
    assert [pair.verdict for pair in found] == [AGREE, DIFFER, AGREE]
    assert found[2].causes == ("size 4096 -> 8192",)
    assert "sustained times: 1 pair, 0 agree, 1 differ, 0 cannot tell" in " ".join(compared.findings())


def versus(slower: float, seed: int) -> Comparison:
    draw = random.Random(seed)
    order = (1, 0, 0, 1) * 20  # FCDM-S, DiT-S/2
    seconds = (0.05, 0.1)
    return replace(
        COMPARISON,
        environment=ENVIRONMENT,
        order=order,
        visits_s=tuple(slower * seconds[arm] * (1 + draw.gauss(0, 0.002)) for arm in order),
        stopped_by="precision",
        unmet=(),
    )


def test_speed_ratios_can_agree_where_times_differ() -> None:
    compared = compare(match([versus(1.0, 0)], [versus(1.4, 1)], across=False), 0.02)
    found = {pair.quantity: pair.verdict for pair in compared.pairs}
    assert found == {
        "median of FCDM-S": DIFFER,
        "median of DiT-S/2": DIFFER,
        "speed of DiT-S/2 / FCDM-S": AGREE,
    }
    assert compared.pairs[2].medians[0] == pytest.approx(0.5, rel=0.01)


def test_failures_in_one_run_are_named_and_counts_ignored() -> None:
    first = [timed(), COUNT]
    second = [replace(SKIPPED, environment=LATER), replace(COUNT, macs=7)]
    compared = compare(match(first, second, across=False), 0.02)
    assert compared.pairs == ()
    case = "throughput FCDM-S 256 px, batch 4, fp32: A measured, B out of memory"
    assert compared.findings() == [f"a number in one run only: {case}"]
    assert compared.lost == (case,)
    assert compare(match(second, first, across=False), 0.02).lost == ()


def test_repeats_pair_the_newest_with_every_older_record() -> None:
    middle = replace(ENVIRONMENT, date="2026-11-25T00:00:00Z")
    history: list[Record] = [
        timed(median=0.3, seed=1, environment=LATER),
        timed(median=0.1, seed=2),
        timed(median=0.2, seed=3, environment=middle),
        timed("DiT-S/2", 0.5, 4),
    ]
    found = repeats([*history, *(from_dict(json.loads(to_line(one))) for one in history)])
    assert [(one.a, one.b) for one in found] == [(history[1], history[0]), (history[2], history[0])]
    again = timed(median=0.3, seed=9)
    (both,) = match([again], history, across=False)
    assert both.b == history[0]


def test_measured_memory_is_compared_and_predictions_are_not() -> None:
    case = replace(MEMORY.case, device="cuda")
    stored = replace(MEMORY, case=case)
    more = replace(stored, use=replace(stored.use, passes_peak_bytes=309))
    full = Skipped(case=case, environment=LATER, status="out of memory", reason="asked for more")
    compared = compare(match([stored], [more], across=False), 0.02)
    assert [pair.verdict for pair in compared.pairs] == [DIFFER]
    assert compared.slower(0.02) == []  # memory is no speed
    failed = compare(match([stored], [full], across=False), 0.02)
    assert failed.differs
    assert "A measured, B out of memory" in failed.one_sided[0]
    assert match([MEMORY], [replace(MEMORY, use=more.use)], across=False) == []


# the command


def test_exit_code_is_1_if_a_pair_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = stored(tmp_path / "a.jsonl", MONDAY)
    b = stored(tmp_path / "b.jsonl", friday(lambda i: 1.05 if i == 3 else 1.0))
    assert run(a, b) == 1
    shown = capsys.readouterr()
    assert "9 of 10 pairs agree within 2 %" in shown.err
    (row,) = [line for line in shown.out.splitlines() if "differ" in line]
    assert row.startswith("throughput DiT-S/2 256 px, batch 4, fp32")
    assert run(a, b, "--within", "10%", "--format", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["verdict"] for row in rows} == {AGREE}
    (slow,) = [row for row in rows if "DiT-S/2" in row["case"]]
    assert slow["interval"][0] < 1.05 < slow["interval"][1]


def test_a_case_that_failed_in_both_files_is_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = stored(tmp_path / "a.jsonl", [THROUGHPUT, *MONDAY[1:]])
    b = stored(tmp_path / "b.jsonl", [SKIPPED, *friday(lambda i: 1.0)[2:]])
    c = stored(tmp_path / "c.jsonl", [replace(SKIPPED, reason="again")])
    assert run(a, b) == 1
    err = capsys.readouterr().err
    assert "8 of 8 pairs agree" in err
    assert "A measured, B out of memory" in err
    assert "cases without a partner: 1 only in a.jsonl" in err
    assert run(b, c) == 2
    assert "no shared case gave a number" in capsys.readouterr().err


def test_one_file_is_compared_with_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = stored(tmp_path / "both.jsonl", [*MONDAY, *friday(lambda i: 1.0)])
    assert run(both) == 0
    shown = capsys.readouterr()
    assert "10 of 10 pairs agree" in shown.err
    assert ENVIRONMENT.date in shown.out
    assert LATER.date in shown.out


def test_another_device_is_refused_without_across(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = stored(tmp_path / "a.jsonl", MONDAY)
    b = stored(tmp_path / "b.jsonl", friday(lambda i: 1.0, environment=replace(LATER, device="another")))
    assert run(a, b) == 2
    assert "is of a device, " in capsys.readouterr().err
    assert run(a, b, "--across") == 0
    assert "differs in all pairs: device a device -> another" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a", "a"], "a.jsonl: named twice; name it once"),
        (["a"], "a.jsonl: has no repeated case; name a second file"),
        (["a", "copy"], "no timed case in common"),
        (["a", "other"], "no timed case in common"),
        (["a", "broken"], "broken.jsonl, line 1: not a record"),
        (["a", "missing"], "missing.jsonl: No such file"),
        (["a", "other", "copy"], "FILE: must be one or two files, got 3"),
        (["a", "copy", "--within", "0%"], "--within: must be above 0 and below 100 %"),
        (["a", "copy", "--out", "x.jsonl"], "--out x.jsonl: a comparison makes no records"),
    ],
)
def test_bad_input_ends_in_one_line(
    files: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(tmp_path / "a.jsonl", MONDAY)
    stored(tmp_path / "copy.jsonl", MONDAY)
    stored(tmp_path / "other.jsonl", [replace(THROUGHPUT, case=replace(CASE, batch=9))])
    (tmp_path / "broken.jsonl").write_text("{}\n")
    names = ("a", "copy", "other", "broken", "missing")
    args = [str(tmp_path / f"{file}.jsonl") if file in names else file for file in files]
    assert run(*args) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_note_without_text_appends_the_summary(
    tmp_path: Path,
) -> None:
    a = stored(tmp_path / "a.jsonl", MONDAY)
    b = stored(tmp_path / "b.jsonl", friday(lambda i: 1.05))
    before = Path(b).read_bytes()
    assert run(a, b, "--note") == 1
    after = Path(b).read_bytes()
    assert after.startswith(before)
    (written,) = read(Path(b)).notes
    assert written.author == "bench.compare"
    assert written.devices == ("a device",)
    assert "0 of 10 pairs agree within 2 %" in written.text
    assert str(tmp_path) not in written.text
    assert run(a, b) == 1  # a note is no case


def test_fail_if_slower_fails_only_on_regressions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = stored(tmp_path / "a.jsonl", MONDAY)
    faster = stored(tmp_path / "faster.jsonl", friday(lambda i: 0.9))
    slower = stored(tmp_path / "slower.jsonl", friday(lambda i: 1.05 if i == 3 else 0.9))
    failed = stored(
        tmp_path / "failed.jsonl", [*friday(lambda i: 1.0)[1:], replace(SKIPPED, environment=LATER)]
    )
    assert run(a, faster, "--fail-if-slower", "3%") == 0
    assert "no case is slower by more than 3 %" in capsys.readouterr().err
    assert run(a, slower, "--fail-if-slower", "6%") == 0
    capsys.readouterr()
    assert run(a, slower, "--fail-if-slower", "3%", "--format", "md") == 1
    shown = capsys.readouterr()
    assert "- slower by more than 3 %: throughput DiT-S/2 256 px, batch 4, fp32, median: B/A 1.0" in shown.out
    assert shown.err == ""
    assert run(a, failed, "--fail-if-slower", "3%") == 1
    assert "failed in B: throughput FCDM-S" in capsys.readouterr().err


# notes


def test_a_note_is_appended_and_shown_under_its_devices(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    other = timed("DiT-S/2", environment=replace(ENVIRONMENT, device="another"))
    stored(path, [THROUGHPUT, other])
    before = path.read_bytes()
    remark = ["--note", "another job ran", "--about", "throughput DiT*", "--author", "me"]
    assert run(str(path), *remark) == 0
    assert run(str(path), "--note", "warm room") == 0
    assert path.read_bytes().startswith(before)
    first, second = read(path).notes
    assert (first.text, first.devices, first.author) == ("another job ran", ("another",), "me")
    assert second.devices == ("a device", "another")
    text = notes.section([second, first, second])
    on_first, on_other = text.split("### another")
    assert "warm room" in on_first
    assert "another job" not in on_first
    assert "me on `throughput DiT*`: another job ran" in on_other
    assert on_other.count("warm room") == 1
    assert notes.section([]) == ""


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["runs.jsonl", "--note", " "], "--note: must be a text, got"),
        (["none.jsonl", "--note", "x"], "none.jsonl: No such file"),
        (["runs.txt", "--note", "x"], "must end in .jsonl"),
        (
            ["runs.jsonl", "--note", "x", "--about", "latency*"],
            "--about 'latency*': names no case",
        ),
        (["empty.jsonl", "--note", "x"], "FILE: holds no records"),
    ],
)
def test_a_note_without_text_file_or_case_is_refused(
    args: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(tmp_path / "runs.jsonl", [THROUGHPUT])
    stored(tmp_path / "empty.jsonl", [])
    before = (tmp_path / "runs.jsonl").read_bytes()
    assert run(str(tmp_path / args[0]), *args[1:]) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "runs.jsonl").read_bytes() == before
    assert not (tmp_path / "none.jsonl").exists()


# the report


def test_repeats_have_equal_bytes_in_any_order() -> None:
    records = [*MONDAY, *friday(lambda i: 1.05 if i == 3 else 1.0), COUNT]
    text, _ = section(records)
    assert text == section(records[::-1])[0]
    assert "### a device" in text
    assert "10 pairs, 9 agree, 1 differ, 0 cannot tell" in text
    (row,) = [line for line in text.splitlines() if line.startswith("|") and "differ" in line]
    assert "DiT-S/2" in row
    assert "torch 2.13.0, commit abc" in text


def test_repeats_list_the_largest_differences() -> None:
    assert section([*MONDAY, *MONDAY]) == ("", [])
    many = [
        timed(batch=i + 1, seed=i, environment=where, median=0.1 * (1.1 if where is LATER and i == 60 else 1))
        for where in (ENVIRONMENT, LATER)
        for i in range(61)
    ]
    text, _ = section(many)
    rows = [line for line in text.splitlines() if line.startswith("| throughput")]
    assert len(rows) == 60
    assert "batch 61," in rows[0]
    assert "Not listed: 1 more" in text
