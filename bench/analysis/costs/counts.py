"""Counts of one model under several counters, side by side, and the ratio of two models under each."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.records.base import Size, height_width
from bench.records.columns import size
from bench.records.counts import COUNTERS, MacCount
from bench.tables.numbers import fixed, giga
from bench.tables.table import Column, Table

PAIR = ("FCDM-XL", "DiT-XL/2")  # numerator and denominator of the MACs ratio


@dataclass(frozen=True, kw_only=True)
class ModelCounts:
    """MACs of one model at one size under each counter that has a count."""

    model: str
    res: Size
    counts: Mapping[str, MacCount]  # by counter

    def of(self, counter: str) -> float | None:
        """MACs of one image."""
        return self.counts[counter].macs_per_image if counter in self.counts else None


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """MACs of the first model of PAIR divided by those of the second, at one size."""

    above: ModelCounts
    below: ModelCounts

    @property
    def res(self) -> Size:
        return self.above.res

    def of(self, counter: str) -> float | None:
        above, below = self.above.of(counter), self.below.of(counter)
        return above / below if above is not None and below else None


def side_by_side(records: Iterable[MacCount]) -> list[ModelCounts]:
    """The counts of each model and size, in the order of the records; the last record of a counter counts."""
    by_case: dict[tuple[str, Size], dict[str, MacCount]] = {}
    for record in records:
        by_case.setdefault((record.case.model, record.case.res), {})[record.case.counter] = record
    return [ModelCounts(model=model, res=res, counts=counts) for (model, res), counts in by_case.items()]


def ratios(counted: Sequence[ModelCounts]) -> list[Ratio]:
    """The MACs ratio of PAIR at every size with both models, small to large."""
    by_case = {(one.model, one.res): one for one in counted}
    sizes = sorted({one.res for one in counted}, key=height_width)
    pairs = ([by_case.get((model, res)) for model in PAIR] for res in sizes)
    return [Ratio(above=above, below=below) for above, below in pairs if above and below]


def _columns(text: Callable[[float | None], str]) -> tuple[Column[Any], ...]:
    return tuple(_column(counter, text) for counter in COUNTERS)


def _column(counter: str, text: Callable[[float | None], str]) -> Column[Any]:
    return Column(counter, lambda row: row.of(counter), text, optional=True)


_RES: Column[Any] = Column("res", lambda row: size(row.res), str)
TABLE = Table[ModelCounts](
    title="GMACs of one image under each counter",
    columns=(Column("model", "model"), _RES, *_columns(partial(giga, digits=4))),
    records=lambda row: tuple(row.counts.values()),
)
RATIOS = Table[Ratio](
    title=f"{' / '.join(PAIR)} under each counter",
    columns=(_RES, *_columns(partial(fixed, 4))),
    records=lambda row: (*row.above.counts.values(), *row.below.counts.values()),
)
