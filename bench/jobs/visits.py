"""Visits of a scaling study: cases in order, then in reverse order, with batches that fit in memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from bench.records.base import Record
from bench.records.scaling import ScalingCase


def visited(cases: Sequence[ScalingCase], visits: int) -> Iterator[tuple[int, ScalingCase]]:
    """Index and case of every visit, alternating between forward and reverse order."""
    for visit in range(1, visits + 1):
        order = range(len(cases)) if visit % 2 else range(len(cases) - 1, -1, -1)
        for index in order:
            yield index, replace(cases[index], visit=visit)


def shrink(case: ScalingCase, measure: Callable[[ScalingCase], Record]) -> list[Record]:
    """Measure a case, halving the batch until it fits in memory; every attempt is a record."""
    attempts = [measure(case)]
    while getattr(attempts[-1], "status", "") == "out of memory" and case.batch > 1:
        case = replace(case, batch=case.batch // 2)
        attempts.append(measure(case))
    return attempts


def run(
    cases: Sequence[ScalingCase], visits: int, measure: Callable[[ScalingCase], Record]
) -> tuple[list[Record], list[ScalingCase]]:
    """Visit every case in turn, without batches that did not fit; all attempts, and the last cases."""
    last = list(cases)
    attempts: list[Record] = []
    for index, case in visited(cases, visits):
        made = shrink(replace(case, batch=last[index].batch), measure)
        attempts += made
        tried = made[-1].case
        assert isinstance(tried, ScalingCase)
        last[index] = tried
    return attempts, last
