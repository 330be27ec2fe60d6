"""Agreement of two sessions: what differs is found, what does not is not, and the records say why."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench import agree, note
from bench.analysis import agreement
from bench.analysis.agreement import AGREE, DIFFER, OPEN, compare, match, repeats
from bench.records.record import (
    Comparison,
    Memory,
    MemoryUse,
    Note,
    Record,
    Run,
    Telemetry,
    Throughput,
    from_dict,
    read,
    to_line,
)
from reports.sections import notes
from reports.sections.repeats import section
from tests.cli.test_cli import run
from tests.records.test_record import CEILING, COUNTED, HERE, RUN, SKIPPED, TIMED

MODELS = ("FCDM-S", "FCDM-B", "FCDM-L", "DiT-S/2", "DiT-B/2", "DiCo-S", "DiCo-B", "DiC-S", "DiC-B", "DiG-S/2")
LATER = replace(HERE, date="2026-12-01T00:00:00Z")


def noisy(median: float, seed: int, n: int = 40, spread: float = 0.002) -> tuple[float, ...]:
    draw = random.Random(seed)
    return tuple(median * (1 + draw.gauss(0, spread)) for _ in range(n))


def timed(
    model: str = "FCDM-S", median: float = 0.1, seed: int = 0, *, n: int = 40, **run: object
) -> Throughput:
    asked: Run = replace(RUN, model=model, **{"environment": HERE, **run})  # type: ignore[arg-type]
    return replace(
        TIMED, run=asked, times_s=noisy(median, seed, n), warmup_stationary=True, stopped_by="precision"
    )


def session(factor: Callable[[int], float], seed: int, **run: object) -> list[Record]:
    """The same ten cases; times are those of the case by the factor of its place."""
    return [timed(model, (0.1 + 0.02 * i) * factor(i), seed + i, **run) for i, model in enumerate(MODELS)]


MONDAY = session(lambda i: 1.0, 100)


def friday(factor: Callable[[int], float], **run: object) -> list[Record]:
    return session(factor, 900, **{"environment": LATER, **run})


def verdicts(second: list[Record], first: list[Record] = MONDAY, *, within: float = 0.02) -> list[str]:
    compared = compare(match(first, second, across=False), within)
    return [compared.verdict(pair) for pair in compared.pairs]


def stored(path: Path, records: list[Record]) -> str:
    path.write_text("".join(map(to_line, records)))
    return str(path)


def test_half_a_per_cent_agrees_and_five_do_not() -> None:
    assert verdicts(friday(lambda i: 1.005)) == [AGREE] * 10
    assert verdicts(friday(lambda i: 1.05 if i == 3 else 1.0)) == [AGREE] * 3 + [DIFFER] + [AGREE] * 6
    assert verdicts(friday(lambda i: 1 / 1.05)) == [DIFFER] * 10


def test_what_straddles_the_limit_or_has_too_few_samples_is_not_told() -> None:
    assert verdicts([timed(median=0.102, seed=1, environment=LATER)], [timed()]) == [OPEN]
    assert verdicts([timed(seed=1, n=5, environment=LATER)], [timed()]) == [OPEN]
    assert verdicts([timed(median=0.102, seed=1, environment=LATER)], [timed()], within=0.05) == [AGREE]


def test_intervals_hold_the_true_ratio_also_where_neighbouring_passes_are_alike() -> None:
    def waves(seed: int) -> tuple[float, ...]:
        draw, now, times = random.Random(seed), 0.0, []
        for _ in range(100):
            now = 0.8 * now + draw.gauss(0, 0.01)
            times.append(1 + now)
        return tuple(times)

    for samples in (waves, lambda seed: noisy(1.0, seed, 12)):
        bounds = [agreement.ratio_interval(samples(2 * i), samples(2 * i + 1)) for i in range(100)]
        held = sum(low <= 1 <= high for low, high in filter(None, bounds))
        assert 85 <= held <= 100
    assert agreement.independent(waves(0)) < 50
    assert agreement.independent(noisy(1.0, 0, 100)) == 100


def test_a_common_factor_is_found_and_what_is_left_agrees() -> None:
    compared = compare(match(MONDAY, friday(lambda i: 1.05), across=False), 0.02)
    common = compared.common
    assert common is not None
    assert common.explains
    assert common.interval[0] < 1.05 < common.interval[1]
    assert common.interval[1] - common.interval[0] < 0.01
    assert common.verdicts == {AGREE: 10}
    assert all(compared.why(pair)[0] == "the common factor" for pair in compared.pairs)


def test_one_odd_case_is_more_than_the_common_factor_and_scatter_has_none() -> None:
    odd = compare(match(MONDAY, friday(lambda i: 1.2 if i == 0 else 1.05), across=False), 0.02)
    assert odd.why(odd.pairs[0]) == ["more than the common factor"]
    scattered = compare(match(MONDAY, friday(lambda i: 1 + 0.05 * (-1) ** i), across=False), 0.02)
    assert scattered.common is not None
    assert not scattered.common.explains
    assert scattered.why(scattered.pairs[0]) == ["nothing in the records"]
    slower = (1.03, 1.04, 1.05, 1.06, 1.08, 1.2, 1.4, 1.6, 1.8, 2.0)
    uneven = compare(match(MONDAY, friday(lambda i: slower[i]), across=False), 0.02)
    assert uneven.common is not None
    assert uneven.common.interval[0] > 1
    assert not uneven.common.explains
    still = compare(match(MONDAY, friday(lambda i: 1.0), across=False), 0.02)
    assert still.common is not None
    assert not still.common.explains


def gpu(median: float, clock: float, heat: float, seed: int) -> Throughput:
    read_out = Telemetry(
        clocks_mhz=(clock,) * 5,
        power_w=(600.0,) * 5,
        temperature_c=(heat,) * 5,
        window_s=1.0,
        energy_j=None,
        idle_w=None,
    )
    return replace(timed(median=median, seed=seed), telemetry=read_out)


def test_clocks_that_moved_as_much_are_told_as_the_cause() -> None:
    def cases(clock: float, heat: float, seed: int) -> list[Record]:
        records = [gpu(0.1 * (i + 1) * 1980 / clock, clock, heat, seed + i) for i in range(6)]
        return [replace(one, run=replace(one.run, batch=i + 1)) for i, one in enumerate(records)]

    compared = compare(match(cases(1980, 50, 0), cases(1890, 62, 50), across=False), 0.02)
    told = " ".join(compared.findings())
    assert "clocks moved by as much: 1980 -> 1890 MHz (-4.5 %)" in told
    assert [str(reason) for reason in compared.shared] == [
        "clock 1980 -> 1890 MHz (-4.5 %)",
        "temperature 50 -> 62 °C",
    ]


def test_differences_of_the_environment_are_named_once_if_all_pairs_have_them() -> None:
    other = replace(LATER, torch="2.14.0", driver="600.1", commit="def", code="4567")
    compared = compare(match(MONDAY, friday(lambda i: 1.1, environment=other), across=False), 0.02)
    told = {str(reason) for reason in compared.shared}
    assert told == {"driver - -> 600.1", "torch 2.13.0 -> 2.14.0", "commit abc -> def"}
    assert all(pair.reasons == () for pair in compared.pairs)
    one = [*friday(lambda i: 1.1)[:9], timed(MODELS[9], 0.5, 1, environment=other)]
    compared = compare(match(MONDAY, one, across=False), 0.02)
    assert compared.shared == ()
    assert "torch 2.13.0 -> 2.14.0" in compared.why(compared.pairs[9])
    same_code = replace(LATER, commit="def")
    compared = compare(match(MONDAY, friday(lambda i: 1.1, environment=same_code), across=False), 0.02)
    assert [str(reason) for reason in compared.shared] == ["commit abc -> def (the same code)"]


def test_noise_warm_up_and_budget_stand_beside_a_pair_that_differs() -> None:
    slow = timed(median=0.2, seed=1, environment=LATER, budget_s=8.0)
    drifting = tuple(0.2 * (1 + i / 100) for i in range(40))
    disturbed = replace(slow, times_s=drifting, warmup_stationary=False, stopped_by="budget")
    compared = compare(match([timed()], [disturbed], across=False), 0.02)
    (why,) = map(compared.why, compared.pairs)
    assert why[0] == "budget 30 -> 8 s"
    assert why[1].startswith("noise in B: drift +")
    assert why[2:] == ["warm-up of B not stationary", "sampling of B stopped by its budget"]
    calm = compare(match([timed()], [timed(seed=1, environment=LATER)], across=False), 0.02)
    assert calm.why(calm.pairs[0]) == []


def test_sustained_passes_and_ceilings_of_another_size_are_paired_too() -> None:
    soaked = replace(timed(soak_s=60.0), sustained_times_s=noisy(0.11, 5))
    hot = replace(timed(seed=1, soak_s=60.0, environment=LATER), sustained_times_s=noisy(0.12, 6))
    first = [soaked, replace(CEILING, work=100, times_s=noisy(1.0, 7))]
    second = [hot, replace(CEILING, size=8192, work=800, times_s=noisy(8.0, 8), environment=LATER)]
    compared = compare(match(first, second, across=False), 0.02)
    assert [pair.quantity for pair in compared.pairs] == ["median", "sustained median", "median of 1 GFLOP"]
    assert [compared.verdict(pair) for pair in compared.pairs] == [AGREE, DIFFER, AGREE]
    assert [str(reason) for reason in compared.pairs[2].reasons] == ["size 4096 -> 8192"]
    assert "sustained times: 1 pair, 0 agree, 1 differ, 0 cannot tell" in " ".join(compared.findings())


def versus(slower: float, seed: int) -> Comparison:
    draw = random.Random(seed)
    rounds = 20
    order = (0, 1, 1, 0) * rounds
    seconds = (0.1, 0.05)
    return Comparison(
        runs=tuple(replace(RUN, question="versus", model=model) for model in ("DiT-S/2", "FCDM-S")),
        order=order,
        visits_s=tuple(slower * seconds[arm] * (1 + draw.gauss(0, 0.002)) for arm in order),
        calls=(1, 1),
        clocks_mhz=(),
        warmup_times_s=((0.1,), (0.1,)),
        warmup_stationary=(True, True),
        margin=0.01,
        stopped_by="verdicts",
        unmet=(),
        build_s=(1.0, 1.0),
        compile_s=(None, None),
        matmul_tf32=False,
        conv_tf32=False,
    )


def test_ratios_of_speeds_may_agree_although_the_times_do_not() -> None:
    compared = compare(match([versus(1.0, 0)], [versus(1.2, 1)], across=False), 0.02)
    found = {pair.quantity: compared.verdict(pair) for pair in compared.pairs}
    assert found == {
        "median of DiT-S/2": DIFFER,
        "median of FCDM-S": DIFFER,
        "speed of FCDM-S / DiT-S/2": AGREE,
    }
    assert agreement.STEADY in compared.findings()
    assert compared.pairs[2].a == pytest.approx(2.0, rel=0.01)


def test_a_case_that_failed_on_one_side_is_told_and_counts_and_notes_are_not_compared() -> None:
    remark = Note(text="quiet", about="", devices=(), author="", date=HERE.date)
    first = [timed(), COUNTED, remark]
    second = [replace(SKIPPED, run=replace(SKIPPED.run, environment=LATER)), replace(COUNTED, macs=7)]
    compared = compare(match(first, second, across=False), 0.02)
    assert compared.pairs == ()
    assert compared.findings() == [
        "a number on one side only: throughput FCDM-S 256 px, batch 4, fp32: A measured, B out of memory"
    ]


def test_the_newest_of_a_case_counts_and_repeats_pair_it_with_every_older_one() -> None:
    middle = replace(HERE, date="2026-11-25T00:00:00Z")
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


def test_measured_memory_is_compared_and_running_out_of_it_on_one_side_is_told() -> None:
    use = MemoryUse(
        passes_peak_bytes=1000,
        passes_peak_phase="forward",
        passes_gradients_bytes=0,
        update_peak_bytes=None,
        parameters_bytes=500,
        gradients_bytes=0,
        optimizer_bytes=0,
        ema_bytes=0,
        reserved_bytes=None,
        process_bytes=None,
    )
    held = Memory(
        run=replace(RUN, question="memory of inference"),
        work="inference",
        checkpointing=False,
        predicted=False,
        limit_bytes=None,
        status="ok",
        reason="",
        use=use,
    )
    more = replace(held, use=replace(use, passes_peak_bytes=1030))
    full = replace(held, use=None, status="out of memory", reason="asked for more")
    compared = compare(match([held], [more], across=False), 0.02)
    assert [compared.verdict(pair) for pair in compared.pairs] == [DIFFER]
    failed = compare(match([held], [full], across=False), 0.02)
    assert failed.differs
    assert "A measured, B out of memory" in failed.lacking[0]
    assert match([replace(held, predicted=True)], [replace(more, predicted=True)], across=False) == []


# the command


def test_two_files_are_compared_and_the_exit_code_says_whether_any_pair_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = stored(tmp_path / "a.jsonl", MONDAY)
    b = stored(tmp_path / "b.jsonl", friday(lambda i: 1.05 if i == 3 else 1.0))
    assert run(agree.main, a, b) == 1
    shown = capsys.readouterr()
    assert "9 of 10 pairs agree within 2 %" in shown.err
    (row,) = [line for line in shown.out.splitlines() if "differ" in line]
    assert row.startswith("throughput DiT-S/2 256 px, batch 4, fp32")
    assert run(agree.main, a, b, "--within", "10%", "--format", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["verdict"] for row in rows} == {AGREE}
    assert rows[3]["interval"][0] < 1.05 < rows[3]["interval"][1]


def test_a_case_that_failed_on_one_side_differs_and_one_that_failed_on_both_is_no_case(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = stored(tmp_path / "a.jsonl", [TIMED, *MONDAY[1:]])
    b = stored(tmp_path / "b.jsonl", [SKIPPED, *friday(lambda i: 1.0)[2:]])
    c = stored(tmp_path / "c.jsonl", [replace(SKIPPED, reason="again")])
    assert run(agree.main, a, b) == 1
    told = capsys.readouterr().err
    assert "8 of 8 pairs agree" in told
    assert "A measured, B out of memory" in told
    assert "cases without a partner: 1 only in a.jsonl" in told
    assert run(agree.main, b, c) == 2
    assert "no case in common gave a number on any side" in capsys.readouterr().err


def test_one_file_alone_is_compared_with_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = stored(tmp_path / "both.jsonl", [*MONDAY, *friday(lambda i: 1.0)])
    assert run(agree.main, both) == 0
    shown = capsys.readouterr()
    assert "10 of 10 pairs agree" in shown.err
    assert HERE.date in shown.out
    assert LATER.date in shown.out


def test_another_device_is_refused_without_across(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = stored(tmp_path / "a.jsonl", MONDAY)
    b = stored(tmp_path / "b.jsonl", friday(lambda i: 1.0, environment=replace(LATER, device="another")))
    assert run(agree.main, a, b) == 2
    assert "is of a device, " in capsys.readouterr().err
    assert run(agree.main, a, b, "--across") == 0
    assert "differs in all pairs: device a device -> another" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["a", "a"], "a.jsonl: named twice; alone it is compared with itself"),
        (["a"], "a.jsonl: no case is in it twice; name a second file"),
        (["a", "copy"], "no timed case in common but what is the same record"),
        (["a", "other"], "no timed case in common"),
        (["a", "broken"], "broken.jsonl, line 1: not a record"),
        (["a", "missing"], "missing.jsonl: No such file"),
        (["a", "other", "copy"], "compares two files, or one with itself, got 3"),
        (["a", "copy", "--within", "0%"], "--within: must be above 0 and below 100 %"),
        (["a", "copy", "--out", "x.jsonl"], "--out x.jsonl: no record comes of this; --note"),
    ],
)
def test_bad_input_is_told_in_one_line(
    files: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(tmp_path / "a.jsonl", MONDAY)
    stored(tmp_path / "copy.jsonl", MONDAY)
    stored(tmp_path / "other.jsonl", [replace(one, run=replace(one.run, batch=9)) for one in [TIMED]])
    (tmp_path / "broken.jsonl").write_text("{}\n")
    names = ("a", "copy", "other", "broken", "missing")
    args = [str(tmp_path / f"{file}.jsonl") if file in names else file for file in files]
    assert run(agree.main, *args) == 2
    shown = capsys.readouterr()
    assert told in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_the_finding_becomes_a_note_at_the_end_of_the_last_file_and_nothing_else_changes(
    tmp_path: Path,
) -> None:
    a = stored(tmp_path / "a.jsonl", MONDAY)
    b = stored(tmp_path / "b.jsonl", friday(lambda i: 1.05))
    before = Path(b).read_bytes()
    assert run(agree.main, a, b, "--note") == 1
    after = Path(b).read_bytes()
    assert after.startswith(before)
    (written,) = [record for record in read(Path(b)) if isinstance(record, Note)]
    assert written.author == "bench.agree"
    assert written.devices == ("a device",)
    assert "0 of 10 pairs agree within 2 %" in written.text
    assert "a common factor, 1.05" in written.text
    assert str(tmp_path) not in written.text
    assert run(agree.main, a, b) == 1  # a note is no case


# notes


def test_a_remark_is_appended_and_shown_under_its_devices(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    other = replace(TIMED, run=replace(RUN, model="DiT-S/2", environment=replace(HERE, device="another")))
    stored(path, [TIMED, other])
    before = path.read_bytes()
    assert run(note.main, str(path), "another job ran", "--about", "throughput DiT*", "--author", "me") == 0
    assert run(note.main, str(path), "warm room") == 0
    assert path.read_bytes().startswith(before)
    first, second = read(path)[2:]
    assert isinstance(first, Note)
    assert isinstance(second, Note)
    assert (first.text, first.devices, first.author) == ("another job ran", ("another",), "me")
    assert second.devices == ("a device", "another")
    text, drawings = notes.section([second, TIMED, first, second])
    assert drawings == []
    here, there = text.split("### another")
    assert "warm room" in here
    assert "another job" not in here
    assert "me on `throughput DiT*`: another job ran" in there
    assert there.count("warm room") == 1
    assert notes.section([TIMED]) == ("", [])


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["runs.jsonl", " "], "TEXT: must say something"),
        (["none.jsonl", "x"], "none.jsonl: No such file"),
        (["runs.txt", "x"], "must end in .jsonl"),
        (["runs.jsonl", "x", "--about", "latency*"], "--about 'latency*': names no case of the file"),
        (["empty.jsonl", "x"], "holds no record to say anything about"),
    ],
)
def test_a_note_without_text_file_or_case_is_refused(
    args: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(tmp_path / "runs.jsonl", [TIMED])
    stored(tmp_path / "empty.jsonl", [])
    before = (tmp_path / "runs.jsonl").read_bytes()
    assert run(note.main, str(tmp_path / args[0]), *args[1:]) == 2
    assert told in capsys.readouterr().err
    assert (tmp_path / "runs.jsonl").read_bytes() == before
    assert not (tmp_path / "none.jsonl").exists()


# the report


def test_the_report_shows_repeats_by_device_whatever_the_order_with_the_same_bytes() -> None:
    records = [*MONDAY, *friday(lambda i: 1.05 if i == 3 else 1.0), COUNTED]
    text, (drawing,) = section(records)
    again, (same,) = section(records[::-1])
    assert text == again
    assert (drawing.png, drawing.svg) == (same.png, same.svg)
    assert "### a device" in text
    assert "10 pairs, 9 agree, 1 differ, 0 cannot tell" in text
    (row,) = [line for line in text.splitlines() if line.startswith("|") and "differ" in line]
    assert "DiT-S/2" in row
    assert "torch 2.13.0, commit abc" in text


def test_the_report_has_no_section_without_repeats_and_lists_the_farthest_of_many() -> None:
    assert section([*MONDAY, *MONDAY]) == ("", [])
    many = [
        timed(batch=i + 1, seed=i, environment=where, median=0.1 * (1.1 if where is LATER and i == 60 else 1))
        for where in (HERE, LATER)
        for i in range(61)
    ]
    text, _ = section(many)
    rows = [line for line in text.splitlines() if line.startswith("| throughput")]
    assert len(rows) == 60
    assert "batch 61," in rows[0]
    assert "Not listed: 1 more" in text
