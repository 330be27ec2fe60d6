"""The claims board: every claim with its rule, its evidence, and the published cells it rests on."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from baselines import load
from baselines.claims import Claim
from bench.records.base import Record
from reports.claims import words
from reports.claims.commands import commands
from reports.claims.verdicts import (
    BAND,
    COUNT_BAND,
    COUNTS,
    FAILS,
    HOLDS,
    NEARLY,
    OPEN,
    UNCOUNTED,
    UNMEASURED,
    Finding,
    band,
)
from reports.selection import grouped

TONES = {
    HOLDS: "holds",
    NEARLY: "nearly",
    FAILS: "fails",
    OPEN: "open",
    UNMEASURED: "none",
    UNCOUNTED: "none",
}
TITLES = {
    "fails": "Does not hold",
    "open": "Cannot tell",
    "nearly": "Holds within 5 %, not to its digits",
    "holds": "Holds",
    "none": "Not counted or measured here",
}
SHOWN = 6  # maximum records that are linked from a finding


@dataclass(frozen=True, kw_only=True)
class Bar:
    """Places in per cent on a logarithmic axis: the band, the published value, the value here."""

    low: float
    high: float
    published: float
    here: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One finding of a claim, in words."""

    pair: str
    value: str
    where: str
    verdict: str
    tone: str
    note: str
    bar: Bar | None
    records: tuple[str, ...]  # ids
    more: int  # records that are not linked


@dataclass(frozen=True, kw_only=True)
class Item:
    """One claim, with the tone of its least favourable verdict."""

    number: int  # from 1, in the order of baselines/claims.csv
    claim: Claim
    published: str
    here: str  # the value of the least favourable finding
    rule: str
    cells: tuple[str, ...]
    tone: str
    findings: tuple[Evidence, ...]
    predicted: str
    commands: tuple[str, ...]


def items(found: Sequence[Finding], ids: Mapping[tuple[str, str], str]) -> list[Item]:
    """The items of all findings, in the order of the claims."""
    by_claim = grouped(found, lambda one: one.claim.id)
    return [
        _item(number, claim, by_claim[claim.id], ids) for number, claim in enumerate(load.claims(), start=1)
    ]


def _item(number: int, claim: Claim, of: Sequence[Finding], ids: Mapping[tuple[str, str], str]) -> Item:
    judged = [one for one in of if one.here is not None or one.fits]
    judged.sort(key=lambda one: [*TITLES].index(TONES[one.verdict]))
    return Item(
        number=number,
        claim=claim,
        published=words.published(claim),
        here=words.value(judged[0]) if judged else "",
        rule=_rule(claim),
        cells=tuple(filter(None, re.split(r" [/*] ", claim.cells))),
        tone=TONES[judged[0].verdict] if judged else "none",
        findings=tuple(_evidence(one, ids) for one in judged),
        predicted="; ".join(words.predicted(one.predicted) for one in of if one.predicted),
        commands=tuple(commands([claim]) if not judged else ()),
    )


def _rule(claim: Claim) -> str:
    if claim.value is None:
        return "Holds if the measured peak of a training step fits the GPU, less the driver's share."
    if claim.bounds is None:
        return ""
    if claim.quantity in ("FID", "training steps"):
        return "No verdict here: it needs networks trained on ImageNet."
    low, high = band(claim)
    if claim.quantity in COUNTS:
        least, most = claim.bounds
        low, high = claim.value * (1 - COUNT_BAND), claim.value * (1 + COUNT_BAND)
        holds = f"Counted: holds from {least:.4g} to {most:.4g}, which round to the printed digits"
        wider = least <= low and high <= most  # few printed digits
        return f"{holds}." if wider else f"{holds}; nearly holds from {low:.4g} to {high:.4g}."
    return (
        f"Measured: holds if the whole interval lies from {low:.4g} to {high:.4g} ({100 * BAND:.0f} %, or "
        "the printed digits), does not hold if all of it lies outside; else: cannot tell."
    )


def _evidence(one: Finding, ids: Mapping[tuple[str, str], str]) -> Evidence:
    records = list(dict.fromkeys(ids[record.age] for record in one.records if record.age in ids))
    return Evidence(
        pair=f"{one.model} / {one.reference}" if one.reference else one.model,
        value=words.value(one),
        where=words.where(one),
        verdict=words.verdict_text(one).replace("**", ""),
        tone=TONES[one.verdict],
        note=one.note,
        bar=_bar(one),
        records=tuple(records[:SHOWN]),
        more=max(0, len(records) - SHOWN),
    )


def _bar(one: Finding) -> Bar | None:
    here, claimed = one.here, one.claim.value
    if not here or not claimed or one.claim.bounds is None:
        return None
    interval = one.measured.interval if one.measured else None
    low, high = band(one.claim)
    ends = [low, high, here, claimed, *(interval or ())]
    if min(ends) <= 0:
        return None
    least, most = math.log(min(ends) / 1.1), math.log(max(ends) * 1.1)

    def place(value: float) -> float:
        return round(100 * (math.log(value) - least) / (most - least), 2)

    return Bar(
        low=place(low),
        high=place(high),
        published=place(claimed),
        here=place(here),
        interval=interval and (place(interval[0]), place(interval[1])),
    )


def record_ids(records: Sequence[Record]) -> dict[tuple[str, str], str]:
    """The id of every record on the page, by its age: r- and the head of the digest of its content."""
    return {record.age: f"r-{record.age[1][:10]}" for record in records}
