"""Writes the report's section on golden outputs: whether devices compute what the released code computes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.records.base import Record, Skipped
from bench.records.columns import ENVIRONMENT
from bench.records.golden import REPRODUCED, TABLE, Golden, GoldenCase
from bench.tables.render import render
from reports.naming import order

if TYPE_CHECKING:
    from reports.figures.plots import Drawing

# the environment, which commands print below a table, in columns
SHOWN = replace(TABLE, columns=(*TABLE.columns[: -len(ENVIRONMENT)], *(replace(c, raw=False) for c in ENVIRONMENT)))


def section(records: Sequence[Record]) -> tuple[str, "list[Drawing]"]:
    """Write the section; empty without records of goldens. The newest record of a case on a device stands."""
    dated = sorted(records, key=lambda record: record.environment.date)
    newest = {(r.case, r.environment.device): r for r in dated if isinstance(r.case, GoldenCase)}
    if not newest:
        return "", []
    rows = sorted(newest.values(), key=_order)
    return "\n\n".join(["## Golden outputs", _reading(rows), render(SHOWN, rows, "md").rstrip()]), []


def _order(record: Record) -> tuple[Any, ...]:
    case = record.case
    assert isinstance(case, GoldenCase)
    return (record.environment.device, case.precision, case.nondefault_settings, order(case.model))


def _reading(rows: Sequence[Record]) -> str:
    reproduced = sum(isinstance(row, Golden) and row.verdict == REPRODUCED for row in rows)
    return (
        f"{reproduced} of {len(rows)} cases reproduced the outputs of the authors' released code for the same "
        "weights and inputs. An error is the root mean square of the difference as a share of that of the "
        "released output; in brackets is the largest error that rounding explains in that precision "
        "(docs/golden.md). out_n is the call with sharper weights; other inputs are those of a later call, "
        "compared with the same model run eagerly. fp32 has no TF32 in it."
    )
