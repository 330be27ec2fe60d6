"""The pages of the report, section by section: records in, markdown and drawings out."""

from collections.abc import Sequence

from baselines import load
from bench.records.base import Record
from bench.records.note import Note
from reports import overview, published
from reports.claims import page as claims
from reports.figures import overview as figures
from reports.figures.plots import Drawing
from reports.markdown import with_contents
from reports.sections import (
    convergence,
    counters,
    depthwise,
    golden,
    memory,
    notes,
    projection,
    repeats,
    resolution,
    roofline,
    samples,
    trained_networks,
    training_cost,
)
from reports.selection import gather

REPORT = "report.md"
# in page order; section(records) returns markdown, blank without records of its kind, and drawings
SECTIONS = (
    golden,
    counters,
    roofline,
    depthwise,
    resolution,
    memory,
    projection,
    training_cost,
    convergence,
    samples,
    trained_networks,
    repeats,
)


def write(records: Sequence[Record], remarks: Sequence[Note] = ()) -> tuple[dict[str, str], list[Drawing]]:
    """Write every page, by file name, and draw its figures."""
    judged = claims.page(records)
    text, drawings = head(records, judged.summary)
    drawings += judged.drawings
    for section in SECTIONS:
        written, drawn = section.section(records)
        text += f"\n{written}\n" if written else ""
        drawings += drawn
    text += f"\n{written}\n" if (written := notes.section(remarks)) else ""
    pages = {REPORT: text, claims.FILE: judged.text}
    return {name: with_contents(page) for name, page in pages.items()}, drawings


def head(records: Sequence[Record], summary: str = "") -> tuple[str, list[Drawing]]:
    """The report up to the published tables.

    Args:
        records: in any order.
        summary: summary of the claims, which comes first.
    """
    evidence = gather(records)
    marks = overview.setting_marks(evidence)
    drawings = figures.draw(evidence)
    sections = [
        overview.head(evidence),
        summary,
        overview.overview(evidence, marks),
        overview.reading(),
        overview.plots([drawing.picture for drawing in drawings]),
        *(published.section(load.table(name), res, evidence, marks) for name, res in published.SHOWN.items()),
        published.hidden_macs(evidence),
        overview.without_number(evidence, marks),
    ]
    return "\n\n".join(section for section in sections if section) + "\n", drawings
