"""The report's section on repeats: cases measured more than once on a device."""

from collections import Counter
from collections.abc import Sequence

from bench.analysis.repeats import agreement
from bench.analysis.repeats.agreement import WITHIN, Matched, Pair
from bench.records.base import Record
from bench.stats.series import FEWEST
from reports.figures.plots import Drawing
from reports.markdown import BLANK, table

PLACE = "speed.md", 5
LISTED = 60  # maximum pairs in a device's table, the largest differences first
LIMIT = f"{100 * WITHIN:g} %"


def section(records: Sequence[Record]) -> tuple[str, list[Drawing]]:
    """Write the section; empty if no case was measured twice. Records may be in any order."""
    by_device: dict[str, list[Matched]] = {}
    for both in agreement.repeats(records):
        by_device.setdefault(both.b.environment.device, []).append(both)
    parts: list[str] = []
    for device in sorted(by_device):
        compared = agreement.compare(by_device[device], WITHIN)
        if not compared.pairs:
            continue
        ordered = sorted(compared.pairs, key=_place)
        parts += [
            f"### {device}",
            _conditions(by_device[device]),
            "\n".join(f"- {finding}" for finding in compared.findings()),
            table(agreement.table(dated=True), ordered[:LISTED]),
            *_not_listed(ordered[LISTED:]),
        ]
    return ("\n\n".join(["## Repeats", _reading(), *parts]) if parts else ""), []


def _reading() -> str:
    return (
        "Cases measured more than once on a device: B is the newest record, A an older one; B/A is the "
        "ratio of medians. The interval *within these runs* covers the noise of their passes; the 95 % "
        "interval also covers the difference between processes, and on a CPU between hours. "
        f"*agree*: the whole interval within the runs lies within {LIMIT} of 1; *differ*: the whole "
        f"95 % interval lies outside; *cannot tell*: neither, or fewer than {FEWEST} samples of a process."
    )


def _conditions(matched: Sequence[Matched]) -> str:
    def describe(side: str, records: Sequence[Record]) -> str:
        environments = [record.environment for record in records]
        dates = sorted({one.date for one in environments})
        software = ", ".join(sorted({one.torch for one in environments}))
        commits = ", ".join(sorted({one.commit or BLANK for one in environments}))
        between = " to ".join(dict.fromkeys((dates[0], dates[-1])))
        return f"{side}: {between}, torch {software}, commit {commits}"

    return f"{describe('A', [both.a for both in matched])}. {describe('B', [both.b for both in matched])}."


def _place(pair: Pair) -> tuple[object, ...]:
    """Sorting key: the largest differences first, pairs with too few samples last."""
    return pair.interval is None, -pair.distance, pair.case, pair.quantity, pair.dates


def _not_listed(rest: Sequence[Pair]) -> list[str]:
    if not rest:
        return []
    counts = agreement.counts_text(Counter(pair.verdict for pair in rest))
    nearest = agreement.percent(max(abs(pair.ratio - 1) for pair in rest))
    return [f"Not listed: {len(rest)} more, at most {nearest} from 1 ({counts})."]
