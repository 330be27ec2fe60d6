"""The report's section on repeats: cases measured more than once on a device."""

from collections import Counter
from collections.abc import Iterator, Sequence

from bench.analysis.repeats import agreement, pairing
from bench.analysis.repeats.agreement import WITHIN, Pair
from bench.analysis.repeats.pairing import Matched
from bench.records.base import Record
from bench.stats.series import FEWEST
from reports.markdown import BLANK, table
from reports.sections import Part, of_parts
from reports.selection import grouped

PLACE = "speed.md", 5
LISTED = 60  # maximum pairs in a device's table, the largest differences first
LIMIT = f"{100 * WITHIN:g} %"
READING = (
    "Cases measured more than once on a device: B is the newest record, A an older one; B/A is the "
    "ratio of medians. The interval *within these runs* covers the noise of their passes; the 95 % "
    "interval also covers the difference between processes, and on a CPU between hours. "
    f"*agree*: the whole interval within the runs lies within {LIMIT} of 1; *differ*: the whole "
    f"95 % interval lies outside; *cannot tell*: neither, or fewer than {FEWEST} samples of a process."
)


@of_parts
def section(records: Sequence[Record]) -> Iterator[Part]:
    """Write the section; empty if no case was measured twice. Records may be in any order."""
    by_device = grouped(pairing.repeats(records), lambda both: both.b.environment.device)
    compared = {device: agreement.compare(by_device[device], WITHIN) for device in sorted(by_device)}
    if any(one.pairs for one in compared.values()):
        yield from ("## Repeats", READING)
    for device, one in compared.items():
        ordered = sorted(one.pairs, key=_place)
        if ordered:
            yield from (f"### {device}", _conditions(by_device[device]))
            yield "\n".join(f"- {finding}" for finding in one.findings())
            yield table(agreement.table(dated=True), ordered[:LISTED])
        if rest := ordered[LISTED:]:
            counts = agreement.counts_text(Counter(pair.verdict for pair in rest))
            nearest = agreement.percent(max(abs(pair.ratio - 1) for pair in rest))
            yield f"Not listed: {len(rest)} more, at most {nearest} from 1 ({counts})."


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
