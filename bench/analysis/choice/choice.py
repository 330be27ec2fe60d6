"""Backbones kept or dropped by limits on speed, memory and published FID, ranked by an objective. No torch.

A figure meets a limit by its estimate. Where its interval includes the limit, or the intervals of two kept
backbones overlap, the text says so.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from bench.analysis.choice.published_fid import Fid
from bench.tables.numbers import gibibytes, giga, interval, significant
from bench.tables.table import Column, Table, fields

MEASURED, PREDICTED = "measured", "predicted"
Bounds = tuple[float, float]

NO_FID = "no FID of this kind is published"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number of one backbone on one GPU, with its interval if it has one."""

    value: float
    interval: Bounds | None
    status: str  # MEASURED or PREDICTED

    def includes(self, limit: float) -> bool:
        return self.interval is not None and self.interval[0] < limit < self.interval[1]

    def overlaps(self, other: "Figure") -> bool:
        """Whether the intervals overlap; without one nothing says that two figures differ."""
        if self.interval is None or other.interval is None:
            return True
        return self.interval[0] <= other.interval[1] and other.interval[0] <= self.interval[1]

    def text(self, number: Callable[[float], str]) -> str:
        """predicted 321 [141, 662]."""
        bounds = f" [{', '.join(map(number, self.interval))}]" if self.interval else ""
        return f"{self.status} {number(self.value)}{bounds}"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What is known of one backbone; None is unknown."""

    model: str
    images_per_s: Figure | None = None
    peak_bytes: Figure | None = None
    macs: float | None = None  # counted, of a forward pass of one image
    fid: Fid | None = None
    unknown: str = ""  # why speed or memory is unknown


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits that every kept backbone meets; None is no limit."""

    images_per_s: float | None
    peak_bytes: float
    fid: float | None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A row: a backbone with its rank, or dropped."""

    candidate: Candidate
    rank: int | None  # None: dropped
    remarks: tuple[str, ...]  # reasons of a dropped backbone, doubts about a kept one

    @property
    def is_kept(self) -> bool:
        return self.rank is not None


@dataclass(frozen=True)
class Objective:
    """What kept backbones are ranked by."""

    text: str
    value: Callable[[Candidate], float | None]
    highest_first: bool = False


def _value(figure: Figure | Fid | None) -> float | None:
    return None if figure is None else figure.value


OBJECTIVES = {
    "images-per-s": Objective("images/s, highest first", lambda c: _value(c.images_per_s), True),
    "memory": Objective("peak memory, lowest first", lambda c: _value(c.peak_bytes)),
    "macs": Objective("counted MACs, lowest first", lambda c: c.macs),
    "fid": Objective("published FID, lowest first", lambda c: _value(c.fid)),
}
_FIGURES = {"images-per-s": "images_per_s", "memory": "peak_bytes"}  # objectives with intervals


def against_fid(fid: Fid | None, limits: Limits, objective: str) -> str:
    """Why a published FID, or the lack of one, drops a backbone; blank if it does not."""
    if fid is None:
        needed = limits.fid is not None or objective == "fid"
        return NO_FID if needed else ""
    if limits.fid is not None and fid.value > limits.fid:
        return f"published FID {fid.as_printed}, above {limits.fid:g}"
    return ""


def choose(candidates: Sequence[Candidate], limits: Limits, objective: str) -> list[Choice]:
    """Kept backbones in the order of the objective, then the dropped ones in their given order."""
    rank_by = OBJECTIVES[objective]
    kept: list[tuple[float, Choice]] = []
    dropped = []
    for candidate in candidates:
        reasons, doubts = _judge(candidate, limits, objective)
        value = rank_by.value(candidate)
        if value is None and not reasons:
            reasons = [f"{objective} unknown, so it has no rank"]
        if reasons or value is None:
            dropped.append(Choice(candidate=candidate, rank=None, remarks=tuple(reasons)))
        else:
            kept.append((value, Choice(candidate=candidate, rank=0, remarks=tuple(doubts))))
    kept.sort(key=lambda pair: pair[0], reverse=rank_by.highest_first)
    return [*(replace(row, rank=rank) for rank, (_, row) in enumerate(kept, start=1)), *dropped]


def _judge(candidate: Candidate, limits: Limits, objective: str) -> tuple[list[str], list[str]]:
    """Reasons to drop a backbone, and doubts about keeping it."""
    if reason := against_fid(candidate.fid, limits, objective) or candidate.unknown:
        return [reason], []
    reasons: list[str] = []
    doubts: list[str] = []
    speed, peak, limit = candidate.images_per_s, candidate.peak_bytes, limits.images_per_s
    if speed is not None and limit is not None:
        side = "below" if speed.value < limit else "at or above"
        text = f"{speed.text(significant)} images/s, {side} {limit:g}"
        _add(text, speed.value < limit, speed.includes(limit), reasons, doubts)
    if peak is not None:
        side = "above" if peak.value > limits.peak_bytes else "within"
        text = f"{peak.text(gibibytes)} GiB, {side} {gibibytes(limits.peak_bytes)} usable"
        _add(text, peak.value > limits.peak_bytes, peak.includes(limits.peak_bytes), reasons, doubts)
    return reasons, doubts


def _add(text: str, fails: bool, is_open: bool, reasons: list[str], doubts: list[str]) -> None:
    text += ": cannot tell, the interval includes the limit" if is_open else ""
    if fails:
        reasons.append(text)
    elif is_open:
        doubts.append(text)


def undecided(rows: Sequence[Choice], objective: str, decided: Collection[frozenset[str]]) -> list[list[str]]:
    """Groups of kept backbones whose order is not known: the first against each of the others.

    Args:
        rows: result of `choose`.
        objective: that ranked them; only speed and memory have intervals.
        decided: pairs of models that an interleaved comparison decided.
    """
    groups: list[list[str]] = []
    if objective not in _FIGURES:
        return groups
    kept = [row.candidate for row in rows if row.is_kept]
    for i, first in enumerate(kept):
        figure: Figure = getattr(first, _FIGURES[objective])
        others = [
            other.model
            for other in kept[i + 1 :]
            if figure.overlaps(getattr(other, _FIGURES[objective]))
            and frozenset((first.model, other.model)) not in decided
        ]
        if others and not any({first.model, *others} <= set(group) for group in groups):
            groups.append([first.model, *others])
    return groups


# the table


def _columns(
    field: str, heading: str, number: Callable[[float | None], str], status: str
) -> tuple[Column[Choice], Column[Choice]]:
    """The value and the interval of a figure with one status; hidden if no row has one."""

    def figure(row: Choice) -> Figure | None:
        found: Figure | None = getattr(row.candidate, field)
        return found if found is not None and found.status == status else None

    def value(row: Choice) -> float | None:
        return found.value if (found := figure(row)) else None

    def bounds(row: Choice) -> Bounds | None:
        return found.interval if (found := figure(row)) else None

    def both(of: Bounds | None) -> str:
        return interval(None) if of is None else " to ".join(map(number, of))

    key = f"{field}_{status}"
    return (
        Column(f"{heading}, {status}", value, number, key=key, optional=True),
        Column(f"{status} interval", bounds, both, key=f"{key}_interval", optional=True),
    )


TABLE = Table[Choice](
    title="Backbones kept and dropped",
    columns=(
        *fields("rank", "candidate.model"),
        Column("kept", lambda r: r.is_kept, raw=True),
        *_columns("images_per_s", "images/s", significant, MEASURED),
        *_columns("images_per_s", "images/s", significant, PREDICTED),
        *_columns("peak_bytes", "GiB", gibibytes, MEASURED),
        *_columns("peak_bytes", "GiB", gibibytes, PREDICTED),
        Column("GMACs, counted", "candidate.macs", giga, key="macs_counted", optional=True),
        Column("FID, published", "candidate.fid.value", key="fid_published", optional=True),
        Column("published in", "candidate.fid.conditions", key="fid_conditions", optional=True),
        Column("remarks", lambda r: "; ".join(r.remarks)),
    ),
    records=lambda row: (),
)
