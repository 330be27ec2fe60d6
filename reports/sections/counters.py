"""The report's section on counters: the same models under each counter."""

from collections.abc import Iterator, Sequence

from bench.analysis.costs.counts import RATIOS, TABLE, ModelCounts, ratios, side_by_side
from bench.records.base import Record, height_width
from bench.records.counts import COUNTERS, MacCount
from bench.store.codec import newest
from reports.markdown import stamp, table
from reports.naming import order
from reports.sections import Part, of_parts

PLACE = "counting.md", 2


@of_parts
def section(records: Sequence[Record]) -> Iterator[Part]:
    """The newest counts for one image, of models with two counters at a size; else empty."""
    counts = newest(record for record in records if isinstance(record, MacCount))
    counts.sort(key=lambda one: (-one.case.batch, one.environment.date))
    rows = [row for row in side_by_side(counts) if len(row.counts) > 1]
    rows.sort(key=lambda row: (order(row.model), height_width(row.res)))
    if rows:
        yield from ("## The same model under every counter", _reading(rows), table(TABLE, rows))
    if pairs := ratios(rows):
        yield from (f"### {RATIOS.title}", table(RATIOS, pairs))


def _reading(rows: Sequence[ModelCounts]) -> str:
    shown = [counter for counter in COUNTERS if any(counter in row.counts for row in rows)]
    counts = [count for row in rows for count in row.counts.values()]
    stamps = sorted({stamp(count.environment) for count in counts})
    return (
        "GMACs of one forward pass and one image; 1 MAC = 2 FLOPs. `python -m bench.flops --explain` names "
        "every difference to torch's count. "
        + "; ".join(f"*{counter}*: {COUNTERS[counter]}" for counter in shown)
        + f". Counted with {'; '.join(stamps)}."
    )
