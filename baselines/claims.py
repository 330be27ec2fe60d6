"""The papers' claims: stated numbers, and numbers computed from printed cells."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from baselines._files import rows
from baselines.published import Published, half_a_digit, read_cell, row_name, table

QUANTITIES = (
    "MACs",
    "speed",
    "slow-down",
    "relative slow-down",
    "training memory",
    "training steps/s",
    "training MACs",
    "training steps",
    "parameters",
    "FID",
)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim of a paper in our words; conditions are blank if not stated."""

    id: str
    paper: str
    where: str  # text, or the tables
    claim: str
    quantity: str  # one of QUANTITIES; a ratio if there is a reference
    model: str  # or a pattern such as FCDM-*, a claim about all sizes of a family
    reference: str  # a model or pattern of the same size; blank without a reference
    res_px: str  # "256", or "256 to 512" for a growth between two sizes
    batch: str
    precision: str
    device: str
    stated: Published  # number in the text; blank if only cells give one
    # table:column:row, or followed by other cells of the row, as :steps; joined by " / " and " * "; constants
    cells: str
    headline: bool
    source: str

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(map(int, self.res_px.split(" to ")))

    @property
    def by_cells(self) -> float | None:
        """The value computed from the printed cells; None without cells."""
        return None if not self.cells else _computed(self.cells)[0]

    @property
    def value(self) -> float | None:
        """The claimed number: as stated, else from the cells; None for a claim without a number."""
        return self.by_cells if self.stated.value is None else self.stated.value

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The range of values that round to the printed digits of the stated number or of every cell."""
        if self.stated.value is None:
            return None if not self.cells else _computed(self.cells)[1:]
        half = half_a_digit(self.stated)
        return self.stated.value - half, self.stated.value + half


@cache
def claims() -> tuple[Claim, ...]:
    """Read the papers' claims, FCDM's first."""
    read = []
    for entry in rows("claims.csv"):
        fields_of: dict[str, Any] = {
            **entry,
            "stated": read_cell(entry["stated"]),
            "headline": entry["headline"] == "yes",
        }
        claim = Claim(**fields_of)
        assert claim.quantity in QUANTITIES, claim.id
        read.append(claim)
    return tuple(read)


@cache
def _computed(cells: str) -> tuple[float, float, float]:
    """The value of cells joined by " / " and " * ", left to right, and its bounds by rounding."""
    first, *others = re.split(r" ([/*]) ", cells)
    value, low, high = _cell(first)
    for sign, text in zip(others[::2], others[1::2], strict=True):
        by, least, most = _cell(text)
        if sign == "*":
            value, low, high = value * by, low * least, high * most
        else:
            value, low, high = value / by, low / most, high / least
    return value, low, high


def _cell(reference: str) -> tuple[float, float, float]:
    """A printed number, such as fcdm_table03:gflops:FCDM-S, with its bounds by rounding; or a constant."""
    if reference.isdigit():
        return float(reference), float(reference), float(reference)
    name, column = reference.split(":")[:2]
    for row in table(name).rows:
        whole = f"{name}:{column}:{row_name(row)}:"
        others = f"{reference}:".removeprefix(whole).removesuffix(":")
        printed = {cell.as_printed for cell in row.values()}
        if f"{reference}:".startswith(whole) and set(filter(None, others.split(":"))) <= printed:
            value = row[column].value
            assert value is not None, reference
            half = half_a_digit(row[column])
            return value, value - half, value + half
    raise ValueError(f"{reference}: no such cell")


def printed_epochs(claim: Claim) -> tuple[float, ...]:
    """The numbers of epochs among the cells of a claim."""
    return tuple(_cell(cell)[0] for cell in re.split(r" [/*] ", claim.cells) if ":train_epochs:" in cell)
