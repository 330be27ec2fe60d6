"""The papers' tables: cells with their printed text, remarks, ablations."""

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
_OUR_NAMES = {
    "DiM-H": "DiM-H/2",
    "SiT-XL": "SiT-XL/2",
    "DiG-XL/2-G": "DiG-XL/2",
    "MPDiT-B": "MPDiT-B/4x",
    "MPDiT-XL": "MPDiT-XL/4x",
    "MPDiT-XL-G": "MPDiT-XL/4x",
}
_WITHOUT_SIZE = ("ADM-U",)  # a network for each resolution under one printed name
_TAKEN_OVER = 18  # id of the remark on cells copied from another paper


@dataclass(frozen=True, kw_only=True)
class Published:
    """A printed cell; a blank cell is "", and a cell that is no number has value None."""

    value: float | None
    as_printed: str

    @property
    def decimals(self) -> int:
        """Digits after the point of the printed number."""
        return len(self.as_printed.partition(".")[2].rstrip("KMB"))


Row = Mapping[str, Published]  # column -> cell; `source` is the table's


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """One table of a paper; conditions are as stated in the paper, blank if not stated."""

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
    conditions_of: str  # device, precision and batch are those of throughput, training or nothing
    note: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Remark:
    """A remark on certain cells."""

    id: int
    kind: str  # contradiction (numbers disagree) or provenance (probable origin of numbers)
    source: str
    cells: tuple[str, ...]  # table:column:model or table:column:model:steps; * stands for any text
    statement: str

    def touches(self, table: str, column: str, row: Row) -> bool:
        """Whether the remark is on this column of this row."""
        patterns = _patterns(self.cells, table, column)
        if not patterns:
            return False
        name = row_name(row)
        steps = row["train_steps"].as_printed if "train_steps" in row else ""
        return any(
            fnmatchcase(cell, pattern)
            for pattern in patterns
            for cell in (f"{table}:{column}:{name}", f"{table}:{column}:{name}:{steps}")
        )


@cache
def _patterns(cells: tuple[str, ...], table: str, column: str) -> tuple[str, ...]:
    """The patterns of a remark for a column of a table."""
    return tuple(one for one in cells if fnmatchcase(f"{table}:{column}", ":".join(one.split(":")[:2])))


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """The model behind a row of an ablation table, as far as the printed numbers determine it."""

    source: str  # of the counts
    table: str  # fcdm_table06
    row: int  # from 1
    model: str | None  # our name; None if no configuration is known
    grade: str  # sure, likely, guess or open, as defined in README.md
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
    """The model or variant of a row."""
    return next(row[column].as_printed for column in ("model", "variant") if column in row)


def backbone_name(row: Row, res: int | str = "") -> str:
    """The name in this suite of the backbone in a row; tables may print another, some have its px."""
    name = row_name(row)
    return f"{name}-{res}" if name in _WITHOUT_SIZE and res else _OUR_NAMES.get(name, name)


def tables() -> tuple[PublishedTable, ...]:
    return tuple(_table(entry) for entry in rows("published/tables.csv"))


@cache
def table(id: str) -> PublishedTable:  # noqa: A002 - it is the table's id
    """Read one published table, such as "fcdm_table03". ValueError: no such table."""
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
    """Half a unit in the last printed digit."""
    unit = POWER.get(printed.as_printed[-1], 0)
    return 0.5 * 10.0 ** (unit - printed.decimals)


def remark(number: int) -> Remark:
    (found,) = (one for one in remarks() if one.id == number)
    return found


def taken_over(table: str, column: str, row: Row) -> bool:
    """Whether a printed number was probably copied from another paper, so measured under other conditions."""
    return remark(_TAKEN_OVER).touches(table, column, row)


@cache
def remarks() -> tuple[Remark, ...]:
    """Read the remarks on the published tables."""
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
    """Read the ablations: every row of FCDM's Tables 6, 10, 12 to 15 and DiCo's 3 and 4."""
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
