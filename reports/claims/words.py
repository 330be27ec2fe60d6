"""Findings in words: the claim, the published and the measured value, the setting, the verdict."""

from collections.abc import Sequence

from baselines.claims import Claim
from bench.analysis.memory.memory_claims import Verdict
from bench.analysis.memory.memory_fit import GIB
from reports.claims.timed import Measured
from reports.claims.verdicts import FAILS, OPEN, Finding
from reports.markdown import BLANK, significant


def _with_interval(measured: Measured) -> str:
    """A measured value with its interval."""
    text = significant(measured.value, 3)
    if measured.interval is None:
        return f"{text} (no interval)"
    low, high = measured.interval
    places = len(text.partition(".")[2])
    if f"{low:.{places}f}" == f"{high:.{places}f}":
        places += 1
    return f"{measured.value:.{places}f} [{low:.{places}f}, {high:.{places}f}]"


def conditions_beside(measured: Measured, claim: Claim) -> str:
    """Device, setting and remark of a measured value; in brackets the published conditions that differ."""
    here = measured.setting
    said = (
        (here.device, claim.device, claim.device and claim.device in here.device),
        (here.precision, claim.precision, here.precision == claim.precision),
        (f"batch {here.batch}", claim.batch, str(here.batch) == claim.batch),
    )
    words = [ours if same else f"{ours} ({theirs or 'not stated'})" for ours, theirs, same in said]
    return ", ".join(filter(None, (*words, *here.switches, measured.remark)))


def where(finding: Finding) -> str:
    if finding.measured is not None:
        return conditions_beside(finding.measured, finding.claim)
    return finding.device or ("counted" if finding.counted is not None else BLANK)


def claim_text(finding: Finding) -> str:
    which = f" ({finding.model}{' / ' + finding.reference if finding.reference else ''})"
    return finding.claim.claim + (which if "*" in finding.claim.model and _known(finding) else "")


def _known(finding: Finding) -> bool:
    return finding.here is not None or bool(finding.fits or finding.predicted)


def published(claim: Claim) -> str:
    """The published number; for a stated number also the one from the tables."""
    if claim.value is None:
        return "fits"
    if claim.stated.value is None:
        return significant(claim.value, 4 if claim.quantity == "parameters" else 3)
    tables = "" if claim.by_cells is None else f" (XL from the tables: {significant(claim.by_cells, 3)})"
    return f"{claim.stated.as_printed}{tables}"


def value(finding: Finding) -> str:
    if finding.counted is not None:
        return significant(finding.counted, 4)
    if finding.measured is not None:
        return _with_interval(finding.measured)
    return fits(finding.fits) if finding.fits else BLANK


def verdict_text(finding: Finding) -> str:
    """The verdict, with the reason if it is open and the factor if the claim does not hold."""
    verdict = f"**{finding.verdict}**"
    measured, claimed, here = finding.measured, finding.claim.value, finding.here
    if finding.verdict == FAILS and claimed and here:
        return f"{verdict}: {significant(here / claimed, 3)} times the published value"
    if finding.verdict == OPEN and measured is not None:
        reason = "too few samples" if measured.interval is None else "the interval crosses an end of the band"
        return f"{verdict}: {measured.refused or reason}"
    return verdict


def fits(verdict: Verdict) -> str:
    """A measured memory case in words."""
    recomputing = "with checkpointing" if verdict.case.checkpointing else "without checkpointing"
    usable = f"{verdict.device.usable_bytes / GIB:.1f}"
    return f"{verdict.case.precision}, {recomputing}: {_needed(verdict)} of {usable} GiB, {verdict.text}"


def _needed(verdict: Verdict) -> str:
    return BLANK if verdict.needed_bytes is None else f"{verdict.needed_bytes / GIB:.1f}"


def predicted(verdicts: Sequence[Verdict]) -> str:
    """Predicted memory cases in words, with checkpointing and without."""
    texts = []
    for checkpointing, how in ((True, "with"), (False, "without")):
        of = [verdict for verdict in verdicts if verdict.case.checkpointing == checkpointing]
        if of:
            cases = ", ".join(f"{one.case.precision} {_needed(one)}" for one in of)
            ends = " or ".join(dict.fromkeys(one.text for one in of))
            usable = f"{of[0].device.usable_bytes / GIB:.1f}"
            needed = max((one.needed_bytes for one in of if one.needed_bytes), default=None)
            margin = f", margin x {of[0].device.usable_bytes / needed:.2f}" if needed else ""
            texts.append(f"{ends} {how} checkpointing ({cases} of {usable} GiB{margin})")
    return "; ".join(texts) or BLANK
