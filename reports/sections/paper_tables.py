"""The report's section on the papers' tables: published columns followed by counted and measured ones."""

from collections.abc import Sequence

from baselines import load
from bench.records.base import Record
from reports import overview, published
from reports.figures.plots import Drawing
from reports.selection import gather


def section(records: Sequence[Record]) -> tuple[str, list[Drawing]]:
    """Write the section; without records only the published columns are filled."""
    evidence = gather(records)
    marks = overview.setting_marks(evidence)
    parts = [
        published.READING,
        *(published.section(load.table(name), res, evidence, marks) for name, res in published.SHOWN.items()),
        published.hidden_macs(evidence),
    ]
    return "\n\n".join(parts), []
