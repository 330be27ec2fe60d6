"""The report's section on golden outputs: devices compared with the released code."""

from collections.abc import Iterator, Sequence
from typing import Any

from bench.records.base import Record
from bench.records.golden import REPRODUCED, TABLE, Golden, GoldenCase
from reports.markdown import table
from reports.naming import order
from reports.sections import Part, of_parts
from reports.selection import dated, latest

PLACE = "speed.md", 6


@of_parts
def section(records: Sequence[Record]) -> Iterator[Part]:
    """Write the section; empty without golden records. The newest record of a case on a device counts."""
    rows = sorted(latest(record for record in records if isinstance(record.case, GoldenCase)), key=_order)
    if rows:
        yield from ("## Golden outputs", _reading(rows), table(dated(TABLE), rows))


def _order(record: Record) -> tuple[Any, ...]:
    case = record.case
    assert isinstance(case, GoldenCase)
    return (record.environment.device, case.precision, case.nondefault_settings, order(case.model))


def _reading(rows: Sequence[Record]) -> str:
    reproduced = sum(isinstance(row, Golden) and row.verdict == REPRODUCED for row in rows)
    return (
        f"{reproduced} of {len(rows)} cases reproduced the outputs of the authors' released code for the "
        "same weights and inputs. An error is the root mean square of the difference as a share of that of "
        "the released output; in parentheses is the largest error that rounding explains in that precision "
        "(docs/golden.md). out_n is the call with weights that make errors in attention more visible; other "
        "inputs are those of a later call, compared with the same model run eagerly. fp32 excludes TF32."
    )
