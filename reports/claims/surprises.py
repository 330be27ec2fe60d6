"""Ranks what is farthest from what was to be expected: each a pair of numbers from records and tables.

Expected is one of: what a paper prints, for what was measured or counted; the ratio of MACs, for that of
times, since FLOPs are not speed; what was predicted of memory, for what was measured; and for models under
one roof, that they reach like shares of their floors.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from baselines.load import Claim
from bench.analysis.memory_fit import GIB
from bench.records.record import Memory, Record, Size, size_text
from reports.claims.verdicts import COUNTS, FAILS, Finding, Measured
from reports.overview import significant
from reports.sections import memory, roofline
from reports.selection import OUR_RULES, Evidence, gather

MOST = 8
OF_A_KIND = 3  # so that no kind hides the others
AGAINST_PAPER, AGAINST_MACS, MISCOUNTED, MISPREDICTED, APART = (
    "measured against published",
    "time against MACs",
    "counted against published",
    "measured against predicted memory",
    "shares of the floor",
)


@dataclass(frozen=True, kw_only=True)
class Surprise:
    """Two numbers that were to be alike."""

    kind: str
    about: str
    expected: str  # in words, with its number
    found: str
    factor: float  # found / expected
    where: str  # device and setting; blank for counts


def ranked(records: Sequence[Record], findings: Sequence[Finding]) -> list[Surprise]:
    """The largest deviations, at the most three of a kind, and of a kind one of the same models."""
    evidence = gather(records)
    found = [
        *_against_papers(findings),
        *_against_macs(findings, evidence),
        *_memory(records),
        *_shares(records),
    ]
    by_size = sorted(found, key=lambda one: (-abs(math.log(one.factor)), one.kind, one.about, one.where))
    kept: list[Surprise] = []
    for one in by_size:
        alike = [_models_of(other) for other in kept if other.kind == one.kind]
        if len(alike) < OF_A_KIND and _models_of(one) not in alike:
            kept.append(one)
    return kept[:MOST]


def _models_of(one: Surprise) -> str:
    """What it is about, at whatever size."""
    return one.about.rpartition(", ")[0]


def _against_papers(findings: Iterable[Finding]) -> list[Surprise]:
    """Numbers that do not hold."""
    found = []
    for finding in findings:
        claimed, here = finding.claim.value, finding.here
        if finding.verdict == FAILS and claimed and here:
            measured = finding.measured
            found.append(
                Surprise(
                    kind=MISCOUNTED if finding.claim.quantity in COUNTS else AGAINST_PAPER,
                    about=subject(finding),
                    expected=f"{finding.claim.paper} {finding.claim.where}: {significant(claimed, 3)}",
                    found=significant(here, 3) if measured is None else with_interval(measured),
                    factor=here / claimed,
                    where="" if measured is None else conditions(measured),
                )
            )
    return found


def subject(finding: Finding) -> str:
    """What a finding is about, in words."""
    (first, *rest), of = finding.claim.sizes, finding.model
    beside = f" / {finding.reference}" if finding.reference else ""
    px = f"{first} to {rest[0]} px" if rest else f"{first} px"
    return f"{finding.claim.quantity} of {of}{beside}, {px}"


def with_interval(measured: Measured) -> str:
    """A measured value with its interval."""
    text = significant(measured.value, 3)
    if measured.interval is None:
        return f"{text} (no interval)"
    low, high = measured.interval
    places = len(text.partition(".")[2])
    if f"{low:.{places}f}" == f"{high:.{places}f}":
        places += 1
    return f"{measured.value:.{places}f} [{low:.{places}f}, {high:.{places}f}]"


def conditions(measured: Measured) -> str:
    """Device and setting of a measured value, and what else to know of it."""
    return ", ".join(filter(None, (str(measured.setting), measured.remark)))


def conditions_beside(measured: Measured, claim: Claim) -> str:
    """As `conditions`, with the published ones in brackets where they differ."""
    here = measured.setting
    said = (
        (here.device, claim.device, claim.device and claim.device in here.device),
        (here.precision, claim.precision, here.precision == claim.precision),
        (f"batch {here.batch}", claim.batch, str(here.batch) == claim.batch),
    )
    words = [ours if same else f"{ours} ({theirs or 'not stated'})" for ours, theirs, same in said]
    return ", ".join(filter(None, (*words, *here.switches, measured.remark)))


def macs_ratio(evidence: Evidence, finding: Finding) -> float | None:
    """What MACs would make of a finding's ratio if they were time; None where they are not counted."""

    def macs(model: str, res: Size) -> float | None:
        count = evidence.count(model, res, OUR_RULES[:1])
        return count.macs / count.batch if count else None

    def divided(a: float | None, b: float | None) -> float | None:
        return a / b if a and b else None

    sizes = finding.claim.sizes
    if finding.claim.quantity == "speed":
        return divided(macs(finding.reference, sizes[0]), macs(finding.model, sizes[0]))
    if finding.claim.quantity not in ("slow-down", "relative slow-down"):
        return None
    grown = divided(macs(finding.model, sizes[1]), macs(finding.model, sizes[0]))
    if finding.claim.quantity == "slow-down":
        return grown
    return divided(grown, divided(macs(finding.reference, sizes[1]), macs(finding.reference, sizes[0])))


def _against_macs(findings: Iterable[Finding], evidence: Evidence) -> list[Surprise]:
    """Ratios whose interval leaves out what MACs would make of them."""
    found = []
    for finding in findings:
        expected = macs_ratio(evidence, finding)
        for measured in filter(None, (finding.measured, *finding.others)):
            interval = measured.interval
            if expected and interval and not measured.refused and not interval[0] <= expected <= interval[1]:
                one = Surprise(
                    kind=AGAINST_MACS,
                    about=subject(finding),
                    expected=f"by MACs {significant(expected, 3)}",
                    found=with_interval(measured),
                    factor=measured.value / expected,
                    where=conditions(measured),
                )
                found.append(one)
    return found


def _memory(records: Sequence[Record]) -> list[Surprise]:
    """Cases whose memory was predicted and measured."""
    cases = memory.newest([record for record in records if isinstance(record, Memory)])
    predicted = {_memory_case(case): case for case in cases if case.predicted}
    found = []
    for case in cases:
        other = predicted.get(_memory_case(case))
        if case.predicted or other is None or case.use is None or other.use is None:
            continue
        run = case.run
        recomputing = ", checkpointing" if case.checkpointing else ""
        found.append(
            Surprise(
                kind=MISPREDICTED,
                about=f"peak of {case.work} of {run.model}, {size_text(run.res)} px",
                expected=f"predicted {_gib(other.use.peak_bytes)}",
                found=_gib(case.use.peak_bytes),
                factor=case.use.peak_bytes / other.use.peak_bytes,
                where=f"{run.environment.device}, {run.precision}, batch {run.batch}{recomputing}",
            )
        )
    return found


def _memory_case(case: Memory) -> tuple[object, ...]:
    run = case.run
    return run.model, case.work, run.res, run.batch, run.precision, case.checkpointing


def _gib(value: int) -> str:
    return f"{significant(value / GIB, 3)} GiB"


def _shares(records: Sequence[Record]) -> list[Surprise]:
    """The best and the worst share of the floor of an eager pass, on every device at hand."""
    found = []
    for peaks in roofline.at_hand(records):
        groups: dict[tuple[str, int, str], list[tuple[float, str]]] = {}
        for point in roofline.every_point(peaks, records):
            share = point.achieved("eager")
            if share is not None:
                work = point.work
                group = size_text(work.res), work.batch, point.precision
                groups.setdefault(group, []).append((share, work.model))
        for (text, batch, precision), shares in groups.items():
            (low, worst), (high, best) = min(shares), max(shares)
            if low < high:
                one = Surprise(
                    kind=APART,
                    about=f"{worst} beside {best}, {text} px",
                    expected=f"{best} reaches {100 * high:.0f} % of its eager floor",
                    found=f"{worst} {100 * low:.0f} %",
                    factor=low / high,
                    where=f"{peaks.device}, {precision}, batch {batch}",
                )
                found.append(one)
    return found
