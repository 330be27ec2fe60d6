"""The page on the papers' claims: verdicts, the numbers behind them, a plot."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from baselines import load
from baselines.claims import Claim
from baselines.published import Remark
from bench.records.base import Environment, Record
from reports.claims import figure, libraries, limits, steps, words
from reports.claims.commands import commands
from reports.claims.figure import PARTS, macs_ratio
from reports.claims.timed import Measured
from reports.claims.verdicts import (
    BAND,
    COUNTS,
    FAILS,
    HOLDS,
    NEARLY,
    OPEN,
    UNCOUNTED,
    UNMEASURED,
    Finding,
    devices,
    findings,
)
from reports.figures.plots import Drawing
from reports.markdown import BLANK, Columns, markdown, significant
from reports.naming import order
from reports.selection import Evidence, gather

FILE = "claims.md"
VERDICTS = (FAILS, OPEN, NEARLY, HOLDS)
SUMMED = 60  # maximum rows in the summary


@dataclass(frozen=True, kw_only=True)
class Page:
    """The page claims.md, its summary for the top of the report, and its drawings."""

    text: str
    summary: str
    drawings: list[Drawing]
    findings: list[Finding] = field(compare=False)  # in the order of the records


def page(records: Sequence[Record]) -> Page:
    """Judge every claim. Records may be in any order; without records all claims are open."""
    found = findings(records)
    evidence = gather(records)
    drawings = figure.draw(found, evidence)
    parts = [
        "# Verdicts on the papers' claims",
        _reading(),
        _tally(found),
        *filter(None, [limits.section(found)]),
    ]
    parts += [drawing.picture.markdown for drawing in drawings]
    for heading, quantities in PARTS:
        of = [finding for finding in found if finding.claim.quantity in quantities]
        parts += [f"## {heading}", *_part(of, quantities, evidence, records)]
    stamps = _stamps(found)
    if stamps["values"]:
        parts += ["## Software and dates of the values", markdown(stamps)]
    return Page(text="\n\n".join(parts) + "\n", summary=_summary(found), drawings=drawings, findings=found)


# words


def _reading() -> str:
    band = f"{100 * BAND:.0f} %"
    rules = {
        HOLDS: "a count rounds to what is printed; the whole interval of a measured ratio lies within "
        f"{band} of the published, or within its printed digits where they are coarser",
        NEARLY: "counts only: the count differs by at most 5 % but does not round to what is printed",
        FAILS: "the whole interval of a measured ratio lies outside that band; a count "
        "differs by more than 5 %",
        OPEN: "the interval crosses an end of the band, there are too few samples, clocks drifted, or no "
        "case was visited twice, so that the difference between visits is unknown",
    }
    lines = [
        "Claims are paraphrased; baselines/claims.csv names the printed cells behind each. *Published* is "
        "the number as the text states it, or what these cells give.",
        markdown({"verdict": list(rules), "rule": list(rules.values())}),
        "- A ratio of speeds comes from interleaved rounds (bench.versus, 99 % interval over processes, or "
        "over three or more runs; one process gives no verdict), else from products of such ratios "
        "through shared models, else from two models timed separately under one setting (95 %, with the "
        "variation between visits).",
        "- A slow-down comes from bench.scaling, else from comparisons at two sizes (with the variation "
        "between hours), else from two sizes timed separately.",
        "- Of the settings of a device that give a verdict, the one nearest to the published setting "
        "decides; parentheses name the published setting if it differs. *Other settings*: the range of "
        "the rest.",
        "- *Matrix products and convolutions*: the rates that the libraries of the device reach. Where they "
        "differ, the ratio of a transformer and a convolutional network says little about other devices. The "
        "ratio in bf16 has its own column.",
        "- Parameters are counted in millions, without fixed position tables. A ratio of FID has no verdict: "
        "nothing here trains on ImageNet; the mean difference of validation losses of small trainings of the "
        "same families has its own column.",
        "- Predictions have their own column and give no verdict. Clocks that differed steadily, as under a "
        "power cap, are a remark.",
    ]
    return "\n\n".join([*lines[:2], "\n".join(lines[2:])])


def _tally(found: Sequence[Finding]) -> str:
    """Lines with the number of each verdict: of counts, and of measurements by device; claims add up."""
    counted = [one for one in found if one.claim.quantity in COUNTS and one.counted is not None]
    lines = [f"- Counted, {_rows(counted)}: {_verdicts(counted)}." if counted else ""]
    measured = {device: [one for one in found if one.device == device] for device in devices(found)}
    if measured:
        claims = {one.claim.id for of in measured.values() for one in of}
        lines.append(f"- Measured on one device or more, {len(claims)} claims:")
    lines += [f"    - on {device}, {_rows(of)}: {_verdicts(of)}." for device, of in measured.items()]
    open_claims = {one.claim.id for one in found if one.verdict in (UNMEASURED, UNCOUNTED)}
    lines.append(f"- Neither counted nor measured here: {len(open_claims)} of {len(load.claims())} claims.")
    return "\n".join(filter(None, lines))


def _rows(of: Sequence[Finding]) -> str:
    """A claim on a family of models has a row for each of them."""
    claims = len({one.claim.id for one in of})
    return f"{claims} claims" + (f" in {len(of)} rows" if len(of) > claims else "")


def _verdicts(of: Sequence[Finding]) -> str:
    counts = {verdict: sum(one.verdict == verdict for one in of) for verdict in (HOLDS, NEARLY, FAILS, OPEN)}
    return "; ".join(f"{verdict}: {count}" for verdict, count in counts.items() if count)


def _summary(found: Sequence[Finding]) -> str:
    """The judged claims by verdict, for the report: all of them, or the main ones if they are many."""
    judged = [one for one in found if one.verdict not in (UNMEASURED, UNCOUNTED)]
    shown = judged if len(judged) <= SUMMED else [one for one in judged if one.claim.headline][:SUMMED]
    shown.sort(key=lambda one: (VERDICTS.index(one.verdict), one.device != "", order(one.model)))
    columns: Columns = {
        "verdict": [words.verdict_text(one) for one in shown],
        "claim": [words.claim_text(one) for one in shown],
        "px": [one.claim.res_px for one in shown],
        "published": [words.published(one.claim) for one in shown],
        "counted or measured": [words.value(one) for one in shown],
        "device and setting (published)": [words.where(one) for one in shown],
    }
    parts = [
        "## The papers' claims by verdict",
        f"One row for each model and device of a claim that is judged; {len(load.claims())} claims, their "
        f"rules, evidence and the commands for missing values are in [{FILE}]({FILE}).",
        _tally(found),
    ]
    if shown:
        parts.append(markdown(columns, [one.records for one in shown]))
    if len(shown) < len(judged):
        parts.append(f"{len(judged) - len(shown)} more rows are in [{FILE}]({FILE}).")
    return "\n\n".join(parts)


# parts of the page


def _part(
    of: Sequence[Finding], quantities: Sequence[str], evidence: Evidence, records: Sequence[Record]
) -> list[str]:
    remarks = load.remarks()
    touching = {one.claim.id: _remarks(one.claim, remarks) for one in of}
    behind = [one.records for one in of]
    columns: Columns = {
        "claim": [words.claim_text(one) for one in of],
        "paper": [f"{one.claim.paper}, {one.claim.where}{_marks(touching[one.claim.id])}" for one in of],
        "px": [one.claim.res_px for one in of],
        "published": [words.published(one.claim) for one in of],
    }
    if quantities == COUNTS:
        columns["counted"] = [words.value(one) for one in of]
        columns["counter"] = [one.counter or BLANK for one in of]
        columns["remark"] = [one.note or BLANK for one in of]
    elif "FID" in quantities:
        columns["losses of small trainings here"] = [one.note or BLANK for one in of]
    elif "training memory" in quantities:
        columns["measured"] = [words.value(one) for one in of]
        columns["device"] = [one.device or BLANK for one in of]
        columns["other settings, measured"] = [
            "; ".join(map(words.fits, one.other_fits)) or BLANK for one in of
        ]
        columns["predicted, not measured"] = [words.predicted(one.predicted) for one in of]
    else:
        columns["measured"] = [words.value(one) for one in of]
        columns["method"] = [one.measured.how if one.measured else BLANK for one in of]
        columns["setting (published)"] = [
            words.conditions_beside(one.measured, one.claim) if one.measured else BLANK for one in of
        ]
        if "speed" in quantities:
            rates = libraries.rates(records)
            columns["in bf16"] = [libraries.in_bf16(one.others, one.measured) for one in of]
            columns["matrix products and convolutions, GFLOP/s"] = [
                libraries.text(one.measured, rates) for one in of
            ]
        if "training steps/s" in quantities:
            expected = [steps.predicted(one.claim, records) for one in of]
            columns["predicted, not measured"] = [one.text for one in expected]
            behind = [(*one.records, *more.records) for one, more in zip(of, expected, strict=True)]
        columns["other settings"] = [_range(one) for one in of]
        ratios = [macs_ratio(evidence, one) for one in of]
        columns["ratio of MACs"] = [BLANK if ratio is None else significant(ratio, 3) for ratio in ratios]
    columns["verdict"] = [words.verdict_text(one) for one in of]
    shown = {head: cells for head, cells in columns.items() if set(cells) - {BLANK}}
    parts = [markdown(shown, behind)]
    if "training steps/s" in quantities:
        parts.append(
            "Steps a second are those of one GPU of the published type with its share of the batch, "
            "checkpointing on, without averaging gradients across GPUs. They are judged if they were "
            "measured twice (the same command with --force), or with a bench.scaling --work training "
            "of that device and precision. A prediction adds the update of AdamW and the EMA, and leaves out "
            "loading data and averaging gradients; it needs operator costs of the step, which "
            "`python -m bench.project --work training --checkpointing on --out` records. Claims on "
            "training time concern the mean over a whole run. Steps to an FID are not predicted."
        )
    said = {remark.id: remark.statement for found in touching.values() for remark in found}
    if said:
        parts.append("\n".join(f"- [r{number}] {said[number]}" for number in sorted(said)))
    missing = [one.claim for one in of if one.verdict in (UNMEASURED, UNCOUNTED)]
    wanted = [f"- `{text}`" for text in commands(missing)]
    if wanted:
        parts.append("\n".join(["Commands for the missing values:", "", *wanted]))
    if any(not commands([claim]) for claim in missing):
        parts.append(
            "No command measures FID after training on ImageNet: bench.convergence compares losses of small "
            "trainings, bench.sample --compare compares samples of your own weights with real images."
        )
    return parts


def _range(finding: Finding) -> str:
    """The lowest and the highest value under the device's other settings."""
    others = sorted(finding.others, key=lambda one: (one.value, one.setting.precision, one.setting.batch))
    if not others:
        return BLANK
    ends = " to ".join(map(_setting, dict.fromkeys((others[0], others[-1]))))
    return f"{ends}; of {len(others)}" if len(others) > 2 else ends


def _setting(measured: Measured) -> str:
    """A value with its setting."""
    how = measured.how.partition(",")[0]
    return f"{significant(measured.value, 3)} ({measured.setting.but_device}, {how})"


def _remarks(claim: Claim, remarks: Sequence[Remark]) -> list[Remark]:
    """The remarks on a claim's cells."""
    cells = re.split(r" [/*] ", claim.cells)
    return [
        remark
        for remark in remarks
        if any(fnmatchcase(cell, pattern) for cell in cells for pattern in remark.cells)
    ]


def _marks(remarks: Sequence[Remark]) -> str:
    return "".join(f" [r{remark.id}]" for remark in remarks)


def _stamp(environment: Environment) -> str:
    return f"{environment.torch}; {environment.commit or BLANK}; {environment.date[:10]}"


def _stamps(found: Sequence[Finding]) -> Columns:
    """Software and dates of the values on the page."""
    stamps: dict[str, set[str]] = {}

    def add(what: str, records: Iterable[Record]) -> None:
        stamps.setdefault(what, set()).update(_stamp(record.environment) for record in records)

    for one in found:
        for measured in filter(None, (one.measured, *one.others)):
            add(f"measured, {measured.setting.device}", measured.records)
        for verdict in filter(None, (one.fits, *one.other_fits)):
            add(f"measured, {verdict.memory.environment.device}", [verdict.memory])
        if one.predicted:
            add("predicted", [verdict.memory for verdict in one.predicted])
        if one.counted_in:
            add("counted", one.counted_in)
    ordered = sorted(stamps)
    return {"values": ordered, "torch; commit; date": [", ".join(sorted(stamps[what])) for what in ordered]}
