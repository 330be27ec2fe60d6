"""What the papers claim can be expected: stated numbers and those of printed cells."""

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
)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Something that a paper says can be expected, in our words; conditions blank where it states none."""

    id: str
    paper: str
    where: str  # text, or the tables
    claim: str
    quantity: str  # of QUANTITIES; a ratio to the reference's, where there is a reference
    model: str  # or a pattern, FCDM-*: then a claim about a family, of any size
    reference: str  # the same, of the same size; blank where the model stands alone
    res_px: str  # "256", or "256 to 512" for what grows between them
    batch: str
    precision: str
    device: str
    stated: Published  # a number in words or in the text; blank where only cells give one
    cells: str  # of tables, table:column:row or table:column:row:steps, joined by " / " and " * "
    headline: bool
    source: str

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(map(int, self.res_px.split(" to ")))

    @property
    def by_cells(self) -> float | None:
        """What the printed cells give; None without cells."""
        return None if not self.cells else _computed(self.cells)[0]

    @property
    def value(self) -> float | None:
        """What is claimed: as stated, or else as the cells give it; None for a claim without a number."""
        return self.by_cells if self.stated.value is None else self.stated.value

    @property
    def bounds(self) -> tuple[float, float] | None:
        """What rounds to the printed digits, of the stated number or of every cell."""
        if self.stated.value is None:
            return None if not self.cells else _computed(self.cells)[1:]
        half = half_a_digit(self.stated)
        return self.stated.value - half, self.stated.value + half


@cache
def claims() -> tuple[Claim, ...]:
    """Read what the papers claim, FCDM's first."""
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
    """The value of cells joined by " / " and " * ", left to right, and the bounds of what rounds to them."""
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
    """A printed number, such as fcdm_table03:gflops:FCDM-S, with the bounds of what rounds to it."""
    name, column = reference.split(":")[:2]
    for row in table(name).rows:
        whole = f"{name}:{column}:{row_name(row)}"
        steps = row["train_steps"].as_printed if "train_steps" in row else ""
        if reference in (whole, f"{whole}:{steps}"):
            printed = row[column]
            assert printed.value is not None, reference
            half = half_a_digit(printed)
            return printed.value, printed.value - half, printed.value + half
    raise ValueError(f"{reference}: no such cell")
