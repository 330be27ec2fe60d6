"""The description of a table: which columns a kind of row has, for people and for machines."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from bench.tables.numbers import BLANK, significant


class Answer(Protocol):
    """Anything that answers a case."""

    @property
    def name(self) -> str: ...


Row = TypeVar("Row")


def plain(value: Any) -> str:  # noqa: ANN401 - a cell holds any value
    """Numbers to four digits, yes and no, a dash for nothing, sequences separated by "; "."""
    if value is None or value == "":
        return BLANK
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return significant(value)
    if isinstance(value, int):
        return f"{value:,}" if value >= 10_000 else str(value)
    if isinstance(value, list | tuple):
        return "; ".join(map(plain, value)) or BLANK
    return str(value)


@dataclass(frozen=True)
class Column(Generic[Row]):
    """One column.

    Attributes:
        heading: with its unit; for people.
        value: the raw value of a row, for CSV and JSON; None where there is none.
        text: how people read the value.
        key: the name in CSV and JSON; by default the heading in lower case with underscores.
        of_case: the value is one of the case, which a skipped row has too.
        optional: shown to people only if some row has a value that is not `usual`.
        usual: the value that an optional column need not show.
        raw: in CSV and JSON only.
    """

    heading: str
    value: Callable[[Any], Any]
    text: Callable[[Any], str] = plain
    key: str = ""
    of_case: bool = False
    optional: bool = False
    usual: Any = None
    raw: bool = False

    @property
    def name(self) -> str:
        return self.key or re.sub(r"\W+", "_", self.heading.lower()).strip("_")

    def is_shown(self, rows: Sequence[Any]) -> bool:
        if self.raw:
            return False
        return not self.optional or any(self.value(row) not in (self.usual, None, (), [], "") for row in rows)


@dataclass(frozen=True, kw_only=True)
class Table(Generic[Row]):
    """What a kind of row shows; rendered by `bench.tables.render`, printed by commands and by the report.

    Attributes:
        title: a noun phrase.
        columns: in order.
        records: the records that a row's cells come from; by default the row itself is one.
    """

    title: str
    columns: tuple[Column[Row], ...]
    records: Callable[[Row], Sequence[Any]] = field(default=lambda row: (row,))


def unit(text: Callable[[Any], str], scale: float) -> Callable[[Any], str]:
    """Write a value in another unit: `unit(significant, 1e3)` writes seconds as milliseconds."""
    return lambda value: BLANK if value is None else text(scale * value)
