"""The head of the report and the tables of all counts and all speeds."""

from collections.abc import Iterator, Sequence

from baselines import load
from bench.analysis.speed.settings import Setting
from bench.records.base import Record, Size, Skipped, height_width, size_text
from bench.records.counts import MacCount
from reports.answers import QUESTIONS, Answer
from reports.claims.timed import Timings, timings
from reports.conditions import command, counted_line, per_image, setting_line
from reports.markdown import BLANK, BRACKETS, Columns, markdown, significant
from reports.naming import STATUSES, dit_of, order
from reports.papers.published import speed_columns
from reports.sections import Part, of_parts
from reports.selection import OUR_RULES, Evidence, Timing, gather

ANSWERS = 16  # maximum rows of the answers in report.md
HEADLINES = {256: "fcdm_table03", 512: "fcdm_table05"}  # resolution, and the table with published rows
MEASURED = 3  # maximum measured settings in a headline table, those of most models first


def setting_marks(evidence: Evidence) -> dict[Setting, str]:
    """Short names for the columns of measured settings: M1, M2, ..."""
    return {setting: f"M{i}" for i, setting in enumerate(evidence.settings, start=1)}


def head(records: Sequence[Record], evidence: Evidence, left_out: int = 0) -> str:
    """Title, conventions and the number of records; `left_out` are of other sizes than a network's own."""
    lines = [
        "# Diffusion backbones: published, counted and measured",
        "*Published*: as the papers print it. *Counted*, *measured*: by this suite. *Predicted*: from a "
        "model of the hardware, not run. One multiply-accumulate (MAC) is two FLOPs; what the papers print "
        "as FLOPs is a count of MACs, headed GMACs here. "
        f"{BLANK} is a missing number.",
    ]
    if not records:
        lines.append(f"**Records.** None: nothing is counted or measured here yet. {command(())}")
        return "\n\n".join(lines)
    kinds: dict[str, int] = {}
    for record in records:
        kind = "without a number" if record.is_skipped else record.case.kind
        kinds[kind] = kinds.get(kind, 0) + 1
    older = (
        f"; {evidence.older} of them are superseded by a newer record of the same case"
        if evidence.older
        else ""
    )
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    others = (
        f" {left_out} more are left out: networks on pixels, at sizes other than their own."
        if left_out
        else ""
    )
    lines.append(f"**Records.** {len(records)}: {counts}{older}.{others}")
    return "\n\n".join(lines)


def answers(found: Sequence[Answer]) -> str:
    """The answers as a table: at most ANSWERS rows, the questions in turn."""
    if not found:
        return "## Answers\n\nNone yet: an answer needs two models of one size under one setting."
    of_question = {question: [one for one in found if one.question == question] for question in QUESTIONS}
    turns = sorted(
        (place, QUESTIONS.index(question), one)
        for question, of in of_question.items()
        for place, one in enumerate(of)
    )  # fmt: skip
    shown = sorted((one for *_, one in turns[:ANSWERS]), key=found.index)
    columns: Columns = {
        "where": [one.where for one in shown],
        "question": [one.question for one in shown],
        "answer": [one.text for one in shown],
        **{
            f"number, {status}": texts
            for status in STATUSES
            if any(texts := [one.number(status) for one in shown])
        },
        "among": [str(len(one.among)) for one in shown],
    }
    rest = f"\n\n{len(found) - len(shown)} more are in report.html." if len(found) > len(shown) else ""
    text = (
        "Each row compares models of one size under one setting; *among*: their number. "
        f"{BRACKETS}; multiples of a speed have 99 % intervals, from interleaved rounds. † marks a case "
        "whose time budget ended before the interval was as narrow as requested. *Best published "
        "FID for the measured speed*, from the two numbers of its row: no other model has both a lower "
        "FID and a shorter pass. "
        "*Cannot tell*: the difference is within the spread between processes, or the "
        "interleaved comparison has no verdict."
    )
    return f"## Answers\n\n{text}\n\n{markdown(columns, [one.records for one in shown])}{rest}"


def headlines(evidence: Evidence, known: Timings) -> str:
    """Counts, speeds and published numbers of the papers' families, one table for each resolution."""
    return "\n\n".join(_headline(res, evidence, known) for res in HEADLINES)


def _headline(res: int, evidence: Evidence, known: Timings) -> str:
    marks = setting_marks(evidence)
    rows = {
        row["model"].as_printed: row
        for row in load.table(HEADLINES[res]).rows
        if row["train_steps"].as_printed == "400K"
    }
    counted = {c.case.model for c in evidence.counted if c.case.res == res and "@" not in c.case.model}
    timed = {t.case.model for t in evidence.timings if t.case.res == res}
    names = sorted({*rows, *(counted & timed)}, key=order)
    counts = [evidence.count(name, res, OUR_RULES) for name in names]
    columns: Columns = {
        "model": names,
        "params, M, counted": [significant(c.params / 1e6) if c else BLANK for c in counts],
        "GMACs, counted": [per_image(c, c.macs if c else None) for c in counts],
    }
    cases: list[tuple[str, Size]] = [(name, res) for name in names]
    shown = evidence.fullest(cases, MEASURED)
    for setting in shown:
        where = f", measured ({marks[setting]})"
        columns |= speed_columns(evidence, known, setting, cases, [*map(dit_of, names)], where)
    for heading, key in (("images/s, published", "throughput"), ("FID, published", "fid")):
        columns[heading] = [rows[name][key].as_printed or BLANK if name in rows else BLANK for name in names]
    table = load.table(HEADLINES[res])
    lines = [
        f"{table.paper} Table {table.number} is the source of the published columns: 400K steps. Counted: "
        "all parameters, fixed position tables included; MACs by the counter torch (claims and README.md "
        "use torchprofile's rules). M numbers are the settings of speed.md."
    ]
    lines += [f"{marks[setting]}: {setting}, {_dates(evidence.by_setting[setting])}." for setting in shown]
    if any(setting.is_interleaved for setting in shown):
        lines.append(INTERLEAVED)
    table_text = markdown(columns, evidence.behind(cases, shown, counts))
    return f"## Backbones at {res} px\n\n{' '.join(lines)}\n\n{table_text}"


@of_parts
def counts(records: Sequence[Record]) -> Iterator[Part]:
    """Section: parameters and MACs of every model, one table for each resolution."""
    evidence = gather(records)
    yield "## Counts of every model"
    for res in sorted({c.case.res for c in evidence.counted}, key=_by_size):
        names = sorted({c.case.model for c in evidence.counted if c.case.res == res}, key=order)
        found = [count for name in names if (count := evidence.count(name, res, OUR_RULES))]
        columns: Columns = {
            "model": [count.case.model for count in found],
            "params, M": [significant(count.params / 1e6) for count in found],
            "GMACs": [per_image(count, count.macs) for count in found],
            "GFLOPs": [per_image(count, count.flops) for count in found],
            "training step GMACs": [_of_step(count, count.train_macs) for count in found],
            "with checkpointing": [_of_step(count, count.train_macs_checkpointed) for count in found],
        }
        yield f"### {size_text(res)} px, one image"
        yield f"**Counted here**: {counted_line(found, (), res)}"
        yield markdown(columns, [[count] for count in found])
    if not evidence.counted:
        yield f"Nothing is counted yet. {command(())}"


def _dates(timings: Sequence[Timing]) -> str:
    """The day of the records, or the first and the last: 2026-11-21 to 2026-11-29."""
    days = sorted(record.environment.date[:10] for timing in timings for record in timing.records)
    return " to ".join(dict.fromkeys((days[0], days[-1])))


def _of_step(count: MacCount, macs: int | None) -> str:
    """MACs of a training step for an image: over those counted where a release has a second pass."""
    return f"{'over ' * (count.has_more_passes and macs is not None)}{per_image(count, macs)}"


@of_parts
def speeds(records: Sequence[Record]) -> Iterator[Part]:
    """Section: images/s of every model, one table for each setting, and the cases that failed."""
    evidence = gather(records)
    yield "## Images per second"
    yield READING if evidence.timings else f"Nothing is measured yet. {command((), name='throughput')}"
    marks = setting_marks(evidence)
    for setting, mark in marks.items():
        found = [t for t in evidence.by_setting[setting] if not isinstance(t.passes, Skipped)]
        sizes = sorted({t.case.res for t in found}, key=_by_size)
        names = sorted({t.case.model for t in found}, key=order)
        columns: Columns = {"model": names}
        for res in sizes:
            cases = [(name, res) for name in names]
            dits, where = [*map(dit_of, names)], f" at {size_text(res)} px"
            columns |= speed_columns(evidence, timings(records), setting, cases, dits, where)
        if found:
            sources = [[r for t in found if t.case.model == name for r in t.records] for name in names]
            yield from (f"### {mark}: {setting}", setting_line(setting, evidence), markdown(columns, sources))
    yield _without_number(evidence, marks)


INTERLEAVED = (
    "*Interleaved* times are from rounds with other models (bench.versus); their ratios are those of the "
    "rounds, with 99 % intervals, and no column mixes them with models timed alone."
)
READING = (
    "images/s is batch / median pass of one denoising call, model(x, t, y), not of a sampler. "
    f"{BRACKETS}; † marks a case whose time budget ended before the interval was as "
    "narrow as requested. Compare images/s within a table only. Across devices compare the ratio to the DiT "
    "of the same size (÷ DiT), which also depends on precision, batch and attention kernel. "
    f"{INTERLEAVED}"
)


def _without_number(evidence: Evidence, marks: dict[Setting, str]) -> str:
    """The cases that failed, with their reasons."""
    skipped = [(t, t.passes) for t in evidence.timings if isinstance(t.passes, Skipped)]
    if not skipped:
        return ""
    skipped.sort(key=lambda s: (order(s[0].case.model), height_width(s[0].case.res), s[1].reason))
    columns: Columns = {
        "model": [t.case.model for t, _ in skipped],
        "px": [size_text(t.case.res) for t, _ in skipped],
        "setting": [f"{marks[t.setting]}: {t.setting}" for t, _ in skipped],
        "status": [record.status for _, record in skipped],
        "reason": [record.reason for _, record in skipped],
        "date": [record.environment.date[:10] for _, record in skipped],
    }
    return f"## Cases without a number\n\n{markdown(columns, [[record] for _, record in skipped])}"


def _by_size(res: Size) -> tuple[object, ...]:
    return (*height_width(res), size_text(res))
