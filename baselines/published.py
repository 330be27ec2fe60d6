"""Tables that the papers print: cells with their printed text, remarks on them, ablations."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from baselines._files import rows, unknown

_NUMBER = re.compile(r"([-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)([KMB]?)")
POWER = {"": 0, "K": 3, "M": 6, "B": 9}
_TAKEN_OVER = 18  # the remark on cells that are another paper's


@dataclass(frozen=True, kw_only=True)
class Published:
    """A printed cell: blank is "", and a text that is no number has no value."""

    value: float | None
    as_printed: str

    @property
    def decimals(self) -> int:
        """Digits after the point of the printed number."""
        return len(self.as_printed.partition(".")[2].rstrip("KMB"))


Row = Mapping[str, Published]  # column -> cell; `source` is the table's


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """One table of a paper; conditions are as the paper states them, blank where it says nothing."""

    id: str  # fcdm_table03
    source: str  # fcdm:table3
    paper: str
    title: str
    arxiv: str
    number: int
    subject: str
    res_px: str  # "256", "512" or "256 and 512"
    device: str
    precision: str
    batch: str
    conditions_of: str  # what device, precision and batch belong to: throughput, training or nothing
    note: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Remark:
    """Something that a reader of certain cells should know."""

    id: int
    kind: str  # contradiction (numbers that disagree) or provenance (where they seem to come from)
    source: str
    cells: tuple[str, ...]  # table:column:model or table:column:model:steps; * stands for any text
    statement: str

    def touches(self, table: str, column: str, row: Row) -> bool:
        """Say whether the remark is about this column of this row."""
        name = row_name(row)
        steps = row["train_steps"].as_printed if "train_steps" in row else ""
        return any(
            fnmatchcase(cell, pattern)
            for pattern in self.cells
            for cell in (f"{table}:{column}:{name}", f"{table}:{column}:{name}:{steps}")
        )


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """What one row of a table of ablations was, as far as its printed numbers tell."""

    source: str  # of the counts
    table: str  # fcdm_table06
    row: int  # from 1
    model: str | None  # ours; None where no configuration is known
    grade: str  # sure, likely, guess or open; README.md says what they mean
    params_m: Published  # counted, millions, trainable; blank without a model
    gmacs: Published  # counted under torchprofile's rules at latent side 32; blank without a model
    note: str
    published: Row  # as the paper prints it


def number(text: str) -> float | None:
    """Read a printed number: 12.20, 1e-4, 400K, 1.3M, 1.0B; None for any other text."""
    match = _NUMBER.fullmatch(text)
    return float(Decimal(match[1]).scaleb(POWER[match[2]])) if match else None


def read_cell(text: str) -> Published:
    return Published(value=number(text), as_printed=text)


def row_name(row: Row) -> str:
    """The model or the variant a row is about."""
    return next(row[column].as_printed for column in ("model", "variant") if column in row)


def backbone_name(row: Row) -> str:
    """The backbone of this suite that a row is about, where tables print another name for it."""
    name = row_name(row)
    return {"DiM-H": "DiM-H/2"}.get(name, name)


def tables() -> tuple[PublishedTable, ...]:
    """Read every published table, FCDM's first."""
    return tuple(_table(entry) for entry in rows("published/tables.csv"))


@cache
def table(id: str) -> PublishedTable:  # noqa: A002 - it is the table's id
    """Read one published table, such as "fcdm_table03".

    Raises:
        ValueError: no such table.
    """
    entries = {entry["id"]: entry for entry in rows("published/tables.csv")}
    if id not in entries:
        raise unknown("published table", id, entries)
    return _table(entries[id])


def _table(entry: Mapping[str, str]) -> PublishedTable:
    printed = [
        {column: read_cell(text) for column, text in row.items()}
        for row in rows(f"published/{entry['id']}.csv")
    ]
    for row in printed:
        assert row.pop("source").as_printed == entry["source"], entry["id"]
    numbered: dict[str, Any] = {**entry, "number": int(entry["number"])}
    return PublishedTable(**numbered, columns=tuple(printed[0]), rows=tuple(printed))


def half_a_digit(printed: Published) -> float:
    """Half a unit of the last printed digit."""
    unit = POWER.get(printed.as_printed[-1], 0)
    return 0.5 * 10.0 ** (unit - printed.decimals)


def remark(number: int) -> Remark:
    """The remark of that id."""
    (found,) = (one for one in remarks() if one.id == number)
    return found


def taken_over(table: str, column: str, row: Row) -> bool:
    """Whether a printed number is probably another paper's, and so not measured with those beside it."""
    return remark(_TAKEN_OVER).touches(table, column, row)


@cache
def remarks() -> tuple[Remark, ...]:
    """Read what contradicts what in the published tables."""
    return tuple(
        Remark(
            id=int(entry["id"]),
            kind=entry["kind"],
            source=entry["source"],
            cells=tuple(entry["cells"].split("; ")),
            statement=entry["statement"],
        )
        for entry in rows("published/remarks.csv")
    )


def ablations() -> tuple[Ablation, ...]:
    """Read what became of every row of FCDM's Tables 6, 10, 12 to 15 and DiCo's 3 and 4."""
    read = []
    for entry in rows("ablations.csv"):
        published = table(entry["table"]).rows[int(entry["row"]) - 1]
        assert row_name(published) == entry["variant"], entry
        read.append(
            Ablation(
                source=entry["source"],
                table=entry["table"],
                row=int(entry["row"]),
                model=entry["model"] or None,
                grade=entry["grade"],
                params_m=read_cell(entry["params_m"]),
                gmacs=read_cell(entry["gmacs"]),
                note=entry["note"],
                published=published,
            )
        )
    return tuple(read)
