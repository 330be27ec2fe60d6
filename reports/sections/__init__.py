"""Sections of the report, one file each; PLACE is a section's page and its place there."""

from collections.abc import Callable, Iterator, Sequence
from functools import wraps

from bench.records.base import Record
from reports.figures.plots import Drawing

Part = str | Drawing
# a section takes records in any order; its text is blank without records of its kind
Section = Callable[[Sequence[Record]], tuple[str, list[Drawing]]]


def of_parts(parts_of: Callable[[Sequence[Record]], Iterator[Part]]) -> Section:
    """A section from its parts in order: texts, of which blank ones are left out, and drawings."""

    @wraps(parts_of)
    def section(records: Sequence[Record]) -> tuple[str, list[Drawing]]:
        parts = [part for part in parts_of(records) if part]
        texts = [part.picture.markdown if isinstance(part, Drawing) else part for part in parts]
        return "\n\n".join(texts), [part for part in parts if isinstance(part, Drawing)]

    return section
