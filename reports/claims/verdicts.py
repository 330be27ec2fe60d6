"""Verdicts on the papers' claims by counted and measured values.

A claim is a number, as stated or computed from printed cells. *Counted* values are exact: a claim holds if
the count rounds to the printed digits, and nearly holds within 5 %. *Measured* values have an interval: a
claim holds if the whole interval is within 10 % of it, or within its printed digits if these are coarser
("2 times" is 1.5 to 2.5). It does not hold if the whole interval is outside; otherwise the verdict is open.
The band is 10 % because published settings are not known precisely: precision, batch and timing function
change the ratios of these papers by at least as much. Predictions give no verdict.

Interleaved models whose clocks drifted give no verdict. Clocks that differed steadily, as under a power cap,
are a remark. Of several settings on a device the one nearest to the published setting decides: in switches,
then precision if one is published, then batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from baselines import load
from baselines.claims import Claim, printed_epochs
from bench.analysis.costs import training_cost
from bench.analysis.memory import memory_claims
from bench.analysis.memory.memory_claims import Verdict
from bench.records.base import Record
from bench.records.counts import MacCount
from bench.stats.power_law import Interval
from reports.claims import growth, losses, steps, timed
from reports.claims.timed import METHODS, Measured, Timings
from reports.naming import size
from reports.sections import memory
from reports.selection import PAPERS_RULES, Evidence, gather

BAND = 0.10  # relative band around a claimed ratio in which the claim holds
COUNT_BAND = 0.05  # the same for counts, which are exact
HOLDS, NEARLY, FAILS = "holds", "holds within 5 %, not to its digits", "does not hold"
OPEN, UNMEASURED, UNCOUNTED = "cannot tell", "not measured here", "not counted here"
COUNTS = ("MACs", "training MACs", "parameters")
# possible meanings of a published precision, the likeliest first; blank: torch's default switches
_PRECISIONS = {
    "fp32": ("fp32", "torch-default", "tf32", "bf16", "fp16"),
    "": ("torch-default", "tf32", "fp32", "bf16", "fp16"),
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One claim for one model on one device, with its counted, measured and predicted values."""

    claim: Claim
    model: str  # for a claim on a family, one of its models
    reference: str
    counted: float | None = None
    counter: str = ""
    counted_in: tuple[MacCount, ...] = ()
    measured: Measured | None = None
    others: tuple[Measured, ...] = ()  # values under other settings of the device
    fits: Verdict | None = None  # measured memory
    other_fits: tuple[Verdict, ...] = ()
    predicted: tuple[Verdict, ...] = ()
    note: str = ""

    @property
    def here(self) -> float | None:
        """The counted or the measured value."""
        if self.counted is not None:
            return self.counted
        return None if self.measured is None else self.measured.value

    @property
    def device(self) -> str:
        """The device of the measured values; blank for counts and predictions."""
        if self.measured is not None:
            return self.measured.setting.device
        return self.fits.memory.environment.device if self.fits else ""

    @property
    def records(self) -> tuple[Record, ...]:
        """The records of memory, and of counts and times, behind the verdict."""
        fits = (self.fits.memory,) if self.fits else ()
        return (*fits, *self.counted_in, *(self.measured.records if self.measured else ()))

    @property
    def verdict(self) -> str:
        if self.claim.quantity == "training memory":
            if self.fits is None or self.fits.text not in ("fits", "does not fit"):
                return UNMEASURED
            return HOLDS if self.fits.text == "fits" else FAILS
        if self.claim.quantity in COUNTS:
            return UNCOUNTED if self.counted is None else judge_count(self.claim, self.counted)
        if self.measured is None:
            return UNMEASURED
        return OPEN if self.measured.refused else judge(self.claim, self.measured.interval)


def devices(found: Sequence[Finding]) -> list[str]:
    return sorted({finding.device for finding in found} - {""})


def band(claim: Claim) -> Interval:
    """The range of measured values in which a claim holds."""
    assert claim.value is not None
    assert claim.bounds is not None
    low, high = claim.bounds
    return min(low, claim.value * (1 - BAND)), max(high, claim.value * (1 + BAND))


def judge(claim: Claim, interval: Interval | None) -> str:
    """The verdict for a measured interval."""
    if interval is None:
        return OPEN
    least, most = band(claim)
    low, high = interval
    if least <= low and high <= most:
        return HOLDS
    return FAILS if high < least or most < low else OPEN


def judge_count(claim: Claim, counted: float) -> str:
    """The verdict for an exact count."""
    assert claim.bounds is not None
    low, high = claim.bounds
    if low <= counted <= high:
        return HOLDS
    assert claim.value is not None
    return NEARLY if abs(counted / claim.value - 1) <= COUNT_BAND else FAILS


# claims


def findings(records: Sequence[Record]) -> list[Finding]:
    """Each claim on each device with a value for it; one finding without values if no device has one."""
    evidence, timings = gather(records), timed.timings(records)
    return [
        finding
        for claim in load.claims()
        for finding in _findings(claim, records, evidence, timings)
        or [Finding(claim=claim, model=claim.model, reference=claim.reference)]
    ]


def _findings(claim: Claim, records: Sequence[Record], evidence: Evidence, timings: Timings) -> list[Finding]:
    match claim.quantity:
        case "MACs":
            return _of_counts(claim, evidence)
        case "training MACs":
            return _of_training_macs(claim, records)
        case "parameters":
            return _of_parameters(claim, evidence)
        case "training memory":
            return _of_memory(claim, records)
        case "training steps/s":
            return _by_device(claim, claim.model, "", steps.measured(timings, claim))
        case "training steps":
            return []
        case "FID":
            return _of_losses(claim, records)
    found = []
    for model, reference in _named(claim, timings.models):
        if claim.quantity == "speed":
            measured = timed.speeds(timings, model, reference, claim.sizes[0])
        elif claim.quantity == "slow-down":
            measured = growth.slow_downs(timings, model, claim.sizes)
        else:
            measured = growth.relative_slow_downs(timings, model, reference, claim.sizes)
        found += _by_device(claim, model, reference, measured)
    return found


def _named(claim: Claim, names: Sequence[str]) -> list[tuple[str, str]]:
    """The model and its reference; for a claim on families, all pairs of equal size."""
    if "*" not in claim.model:
        return [(claim.model, claim.reference)]
    ours = [name for name in names if fnmatchcase(name, claim.model) and "@" not in name]
    if not claim.reference:
        return [(name, "") for name in ours]
    theirs = {size(n): n for n in names if fnmatchcase(n, claim.reference) and "@" not in n}
    return [(name, theirs[size(name)]) for name in ours if size(name) in theirs]


def _by_device(claim: Claim, model: str, reference: str, measured: Sequence[Measured]) -> list[Finding]:
    found = []
    for device in sorted({one.setting.device for one in measured}):
        ranked = sorted(
            (one for one in measured if one.setting.device == device), key=lambda one: _far(claim, one)
        )
        found.append(
            Finding(
                claim=claim, model=model, reference=reference, measured=ranked[0], others=tuple(ranked[1:])
            )
        )
    return found


def _far(claim: Claim, one: Measured) -> tuple[object, ...]:
    """Sorting key: values that give a verdict, by distance from the published setting, the newest first."""
    likely = _PRECISIONS[claim.precision]
    published = int(claim.batch.split()[0]) if claim.batch else 64
    batch, how = abs(math.log(one.setting.batch / published)), METHODS.index(one.how)
    precision = likely.index(one.setting.precision)
    return (
        len(one.setting.switches),
        precision if claim.precision else 0,
        one.interval is None or one.refused != "",
        # growth with size hardly depends on the batch, but needs alternating visits
        (batch, how) if claim.quantity == "speed" else (how, batch),
        precision,
        [-ord(letter) for letter in one.environment.date],
        one.value,
    )


def _of_counts(claim: Claim, evidence: Evidence) -> list[Finding]:
    found = []
    (res,) = claim.sizes
    for model, reference in _named(claim, [c.case.model for c in evidence.counted if c.case.res == res]):
        ours, theirs = (evidence.count(name, res, PAPERS_RULES) for name in (model, reference))
        if ours is not None and theirs is not None and ours.case.counter == theirs.case.counter:
            ratio = (ours.macs / ours.case.batch) / (theirs.macs / theirs.case.batch)
            (one,) = _counted(claim, ratio, ours.case.counter, (ours, theirs))
            found.append(replace(one, model=model, reference=reference))
    return list({(one.model, one.reference): one for one in found}.values())


def _of_parameters(claim: Claim, evidence: Evidence) -> list[Finding]:
    """Millions of parameters; the papers leave out fixed position tables."""
    counted = evidence.count(claim.model, claim.sizes[0], PAPERS_RULES)
    if counted is None:
        return []
    return _counted(claim, counted.params_trainable / 1e6, "trainable parameters, M", (counted,))


def _counted(
    claim: Claim, value: float, counter: str, counted_in: tuple[MacCount, ...], note: str = ""
) -> list[Finding]:
    finding = Finding(claim=claim, model=claim.model, reference=claim.reference, note=note)
    return [replace(finding, counted=value, counter=counter, counted_in=counted_in)]


def _of_losses(claim: Claim, records: Sequence[Record]) -> list[Finding]:
    """Small trainings of the two families, which are evidence beside a FID and no verdict on it."""
    note = losses.text(records, claim.model, claim.reference)
    return [Finding(claim=claim, model=claim.model, reference=claim.reference, note=note)]


def _of_training_macs(claim: Claim, records: Sequence[Record]) -> list[Finding]:
    costs = {one.training.model: one for one in training_cost.costs(training_cost.published(), records)}
    if claim.model not in costs or claim.reference not in costs:
        return _of_epochs(claim, records)
    ours, theirs = costs[claim.model], costs[claim.reference]
    if ours.from_counted is None or theirs.from_counted is None:
        return []
    note = ""
    if ours.release_flops and theirs.release_flops:
        least = "at most " if theirs.is_lower_bound else ""
        ratio = ours.release_flops / theirs.release_flops
        note = f"of FLOPs as the releases run, recomputed blocks included: {least}{ratio:.3f}"
    ratio = ours.from_counted / theirs.from_counted
    return _counted(claim, ratio, "3 x MACs x images", (*ours.counted, *theirs.counted), note)


def _of_epochs(claim: Claim, records: Sequence[Record]) -> list[Finding]:
    """Epochs printed in the claim's cells x counted MACs of an image, as a ratio."""
    evidence = gather(records)
    ours, theirs = (
        evidence.count(name, claim.sizes[0], PAPERS_RULES) for name in (claim.model, claim.reference)
    )
    if ours is None or theirs is None:
        return []
    a, b = printed_epochs(claim)
    ratio = a * ours.macs_per_image / (b * theirs.macs_per_image)
    return _counted(claim, ratio, "published epochs x MACs", (ours, theirs))


def _of_memory(claim: Claim, records: Sequence[Record]) -> list[Finding]:
    found = [
        verdict for verdict in memory_claims.verdicts(memory.newest(records)) if verdict.claim.id == claim.id
    ]
    ranked = sorted(found, key=_far_memory)
    measured = [verdict for verdict in ranked if not verdict.case.is_predicted]
    if not ranked:
        return []
    return [
        Finding(
            claim=claim,
            model=claim.model,
            reference="",
            fits=measured[0] if measured else None,
            other_fits=tuple(measured[1:]),
            predicted=tuple(verdict for verdict in ranked if verdict.case.is_predicted),
        )
    ]


def _far_memory(verdict: Verdict) -> tuple[object, ...]:
    """Sorting key for memory: prefer checkpointing, as in the release, and fp32, as in the paper's table."""
    precisions = ("fp32", "tf32", "bf16")
    case = verdict.case
    return not case.checkpointing, precisions.index(case.precision), verdict.memory.environment.device
