"""Records of equal cases paired: of two runs, or the newest record of each case with its older ones."""

from collections.abc import Iterable
from dataclasses import dataclass

from bench.records.base import Record, Skipped
from bench.store.codec import case_key


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Two records of one case."""

    a: Record
    b: Record


def match(first: Iterable[Record], second: Iterable[Record], *, across: bool) -> list[Matched]:
    """Pair the newest records of each case in two runs, if `across` of different devices too."""
    one, other = _newest(first, across), _newest(second, across)
    return [Matched(a=one[name], b=other[name]) for name in one if name in other and one[name] != other[name]]


def repeats(records: Iterable[Record]) -> list[Matched]:
    """Pair the newest record of every case and device with each older one."""
    histories: dict[tuple[str, str], dict[tuple[str, str], Record]] = {}
    for record in _measured(records):
        histories.setdefault(_identity(record, across=False), {})[record.age] = record
    found = []
    for history in histories.values():
        *older, newest = history.values()
        found += [Matched(a=one, b=newest) for one in older]
    return found


def unpaired(first: Iterable[Record], second: Iterable[Record], *, across: bool) -> tuple[int, int]:
    one, other = _newest(first, across).keys(), _newest(second, across).keys()
    return len(one - other), len(other - one)


def devices(records: Iterable[Record]) -> list[str]:
    return sorted({record.environment.device for record in records} - {""})


def _newest(records: Iterable[Record], across: bool) -> dict[tuple[str, str], Record]:
    return {_identity(record, across): record for record in _measured(records)}


def _measured(records: Iterable[Record]) -> list[Record]:
    """Records of measured or failed cases of a device, oldest first."""
    kept = [
        record
        for record in records
        if (record.case.device != "meta" if isinstance(record, Skipped) else record.quantities)
    ]
    return sorted(kept, key=lambda record: record.age)


def _identity(record: Record, across: bool) -> tuple[str, str]:
    return case_key(record.case), "" if across else record.environment.device
