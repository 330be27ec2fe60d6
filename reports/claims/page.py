"""Writes the page on what the papers claim: verdicts, the numbers they rest on, what surprised, a plot."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from baselines import load
from baselines.load import Claim, Remark
from bench.analysis.memory_fit import GIB, Verdict
from bench.records.record import Environment, Record, height_width, size_text
from reports.claims import surprises
from reports.claims.surprises import Surprise, conditions, conditions_beside, macs_ratio, with_interval
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
    Measured,
    band,
    commands,
    findings,
)
from reports.figures.plots import OTHER, PAPER_MARKS, STYLE, Drawing, colour_of, hollow, new_figure, saved
from reports.naming import order
from reports.overview import BLANK, Columns, markdown, significant
from reports.sections import roofline
from reports.sections.roofline import Point
from reports.selection import Evidence, gather

FILE = "claims.md"
PARTS = (
    ("Slow-down at double resolution", ("slow-down", "relative slow-down")),
    ("Speed", ("speed",)),
    ("Memory of training", ("training memory",)),
    ("MACs", COUNTS),
    ("Steps of training", ("training steps/s", "training steps")),
)
TOLD = 3  # surprises at the top of the report
MARKS = {HOLDS: "#009E73", FAILS: "#D55E00", OPEN: "#999999"}  # of verdicts, beside the plot's rows
TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30)


@dataclass(frozen=True, kw_only=True)
class Page:
    """The page claims.md, what of it stands at the top of the report, and the page's drawings."""

    text: str
    summary: str
    drawings: list[Drawing]


def page(records: Sequence[Record]) -> Page:
    """Judge every claim; records may be in any order, and none leaves all claims open."""
    found = findings(records)
    evidence = gather(records)
    drawings = _drawings(found, evidence)
    parts = ["# What holds of the papers' claims", _reading(), _tally(found)]
    ranked = surprises.ranked(records, found)
    parts += _surprises(ranked)
    parts += [
        f"![{d.picture.title}]({d.picture.name}.png)\n\n{d.picture.caption} ([SVG]({d.picture.name}.svg))"
        for d in drawings
    ]
    for heading, quantities in PARTS:
        parts += [f"## {heading}", *_part(_of(found, quantities), quantities, evidence)]
    parts += _shares(records)
    stamps = _stamps(found)
    if stamps["of"]:
        parts += ["## Where the values come from", markdown(stamps)]
    summary = _summary(found, ranked)
    return Page(text="\n\n".join(parts) + "\n", summary=summary, drawings=drawings)


def _of(found: Sequence[Finding], quantities: Sequence[str]) -> list[Finding]:
    return [finding for finding in found if finding.claim.quantity in quantities]


# words


def _reading() -> str:
    return (
        "Claims are in our words (baselines/claims.csv, with the cells of the tables behind every number). "
        "*Published* is the number as the text states it, or what the printed cells give. **Holds**: of a "
        "count, it rounds to what is printed; of a measured ratio, its whole interval lies within "
        f"{100 * BAND:.0f} % of the published, or within its printed digits where they are coarser (4 times "
        "is 3.5 to 4.5). **Does not hold**: the whole interval lies outside. **Cannot tell**: it straddles "
        "an end, or there are too few samples, or the machine was disturbed, or nothing was visited twice, "
        "so that what visits differ by is not known. A ratio of speeds is that of "
        "interleaved rounds (bench.versus, 99 % interval; of several runs the median, and all that any of "
        "them holds), or else of two models timed apart under one "
        "setting (95 %, widened by what repeated visits of a case differ by); clocks that differed steadily, "
        "as under a power cap, are told with it, and where they drifted apart it judges nothing. A slow-down "
        "is that of bench.scaling, or else of two sizes timed apart. Of a device's settings the one nearest "
        "to the published decides, and brackets say what is published where that is another; *other "
        "settings* are the least and the most of the rest. Predictions stand in a column of their own and "
        "decide nothing. A device without a row for a claim measured nothing of it."
    )


def _tally(found: Sequence[Finding]) -> str:
    """How many claims came out how, counted and by device."""
    counted = [one for one in found if one.claim.quantity in COUNTS and one.counted is not None]
    lines = [f"- Counted: {_verdicts(counted)}." if counted else ""]
    for device in _devices(found):
        of = [one for one in found if _device(one) == device]
        lines.append(f"- Measured on {device}: {_verdicts(of)}.")
    open_claims = {one.claim.id for one in found if one.verdict in (UNMEASURED, UNCOUNTED)}
    lines.append(f"- Neither counted nor measured here: {len(open_claims)} of {len(load.claims())} claims.")
    return "\n".join(filter(None, lines))


def _verdicts(of: Sequence[Finding]) -> str:
    counts = {verdict: sum(one.verdict == verdict for one in of) for verdict in (HOLDS, NEARLY, FAILS, OPEN)}
    return "; ".join(f"{verdict}: {count}" for verdict, count in counts.items() if count)


def _devices(found: Sequence[Finding]) -> list[str]:
    return sorted({device for one in found if (device := _device(one))})


def _device(finding: Finding) -> str:
    if finding.measured is not None:
        return finding.measured.setting.device
    return finding.fits.memory.run.environment.device if finding.fits else ""


def _summary(found: Sequence[Finding], ranked: Sequence[Surprise]) -> str:
    """The main claims and what came of them, for the top of the report."""
    by_claim: dict[tuple[str, str], list[Finding]] = {}
    for _, quantities in PARTS:
        for one in _of(found, quantities):
            if one.claim.headline:
                by_claim.setdefault((one.claim.id, _device(one)), []).append(one)
    # of a claim about a family the largest, and how many of the others came out how
    of_each = [sorted(held, key=lambda one: order(one.model)) for held in by_claim.values()]
    shown = [held[-1] for held in of_each]
    columns: Columns = {
        "claim": [_claim(one) for one in shown],
        "px": [one.claim.res_px for one in shown],
        "published": [_published(one.claim) for one in shown],
        "counted or measured here": [_here(one) for one in shown],
        "on": [_where(one) for one in shown],
        "verdict": [
            _verdict(held[-1]) + (f"; other sizes: {_verdicts(held[:-1])}" if held[1:] else "")
            for held in of_each
        ],
        "predicted, not measured": [_predicted(one.predicted) for one in shown],
    }
    parts = [
        "## What holds of the papers' claims",
        f"The main ones; all {len(load.claims())}, with settings, rules and a plot, are in [{FILE}]({FILE}). "
        "Only what was counted or measured is judged.",
        _tally(found),
        markdown(columns),
    ]
    if ranked:
        lines = [
            f"{i}. {one.kind}: {one.about}: {one.expected}, found {one.found}"
            f"{f' ({one.where})' if one.where else ''}"
            for i, one in enumerate(ranked[:TOLD], start=1)
        ]
        parts.append("\n".join(["**What surprised most**", "", *lines]))
    stamps = zip(*_stamps(shown).values(), strict=True)
    if told := "; ".join(f"{what}: {stamp.replace(';', ',')}" for what, stamp in stamps):
        parts.append(f"Torch, commit and date of the table's values: {told}.")
    return "\n\n".join(parts)


def _where(finding: Finding) -> str:
    if finding.measured is not None:
        return conditions(finding.measured)
    return _device(finding) or ("counted" if finding.counted is not None else BLANK)


def _claim(finding: Finding) -> str:
    which = f" ({finding.model}{' / ' + finding.reference if finding.reference else ''})"
    return finding.claim.claim + (which if "*" in finding.claim.model and _known(finding) else "")


def _known(finding: Finding) -> bool:
    return finding.here is not None or bool(finding.fits or finding.predicted)


def _published(claim: Claim) -> str:
    """The number, and beside a stated one what the tables give."""
    if claim.value is None:
        return "fits"
    if claim.stated.value is None:
        return significant(claim.value, 3)
    tables = "" if claim.by_cells is None else f" (XL by the tables {significant(claim.by_cells, 3)})"
    return f"{claim.stated.as_printed}{tables}"


def _here(finding: Finding) -> str:
    if finding.counted is not None:
        return significant(finding.counted, 4)
    if finding.measured is not None:
        return with_interval(finding.measured)
    return _fits(finding.fits) if finding.fits else BLANK


def _verdict(finding: Finding) -> str:
    """The verdict, with why nothing is told and by how much a claim is missed."""
    told = f"**{finding.verdict}**"
    measured, claimed, here = finding.measured, finding.claim.value, finding.here
    if finding.verdict == FAILS and claimed and here:
        return f"{told}: {significant(here / claimed, 3)} times the published"
    if finding.verdict == OPEN and measured is not None:
        reason = "too few samples" if measured.interval is None else "the interval straddles an end"
        return f"{told}: {measured.refused or reason}"
    return told


def _fits(verdict: Verdict) -> str:
    """A case of memory in words."""
    of = verdict.memory
    recomputing = "with checkpointing" if of.checkpointing else "without checkpointing"
    usable = f"{verdict.device.usable_bytes / GIB:.1f}"
    return f"{of.run.precision}, {recomputing}: {_needed(verdict)} of {usable} GiB, {verdict.text}"


def _needed(verdict: Verdict) -> str:
    return BLANK if verdict.needed_bytes is None else f"{verdict.needed_bytes / GIB:.1f}"


def _predicted(verdicts: Sequence[Verdict]) -> str:
    """Cases that were predicted, with checkpointing and without."""
    texts = []
    for checkpointing, how in ((True, "with"), (False, "without")):
        of = [verdict for verdict in verdicts if verdict.memory.checkpointing == checkpointing]
        if of:
            cases = ", ".join(f"{one.memory.run.precision} {_needed(one)}" for one in of)
            ends = " or ".join(dict.fromkeys(one.text for one in of))
            usable = f"{of[0].device.usable_bytes / GIB:.1f}"
            texts.append(f"{ends} {how} checkpointing ({cases} of {usable} GiB)")
    return "; ".join(texts) or BLANK


# parts of the page


def _part(of: Sequence[Finding], quantities: Sequence[str], evidence: Evidence) -> list[str]:
    remarks = load.remarks()
    touching = {one.claim.id: _remarks(one.claim, remarks) for one in of}
    columns: Columns = {
        "claim": [_claim(one) for one in of],
        "paper": [f"{one.claim.paper}, {one.claim.where}{_marks(touching[one.claim.id])}" for one in of],
        "px": [one.claim.res_px for one in of],
        "published": [_published(one.claim) for one in of],
    }
    if quantities == COUNTS:
        columns["counted"] = [_here(one) for one in of]
        columns["counter"] = [one.counter or BLANK for one in of]
        columns["also"] = [one.note or BLANK for one in of]
    elif "training memory" in quantities:
        columns["measured"] = [_here(one) for one in of]
        columns["on"] = [_device(one) or BLANK for one in of]
        columns["other settings, measured"] = ["; ".join(map(_fits, one.other_fits)) or BLANK for one in of]
        columns["predicted, not measured"] = [_predicted(one.predicted) for one in of]
    else:
        columns["measured"] = [_here(one) for one in of]
        columns["how"] = [one.measured.how if one.measured else BLANK for one in of]
        columns["here (published)"] = [
            conditions_beside(one.measured, one.claim) if one.measured else BLANK for one in of
        ]
        columns["other settings"] = [_range(one) for one in of]
        ratios = [macs_ratio(evidence, one) for one in of]
        columns["by MACs"] = [BLANK if ratio is None else significant(ratio, 3) for ratio in ratios]
    columns["verdict"] = [_verdict(one) for one in of]
    parts = [markdown({head: cells for head, cells in columns.items() if set(cells) - {BLANK}})]
    if "training steps/s" in quantities:
        parts.append(
            "Steps a second are those of one GPU of the published sort with its share of the batch, "
            "checkpointing on; averaging gradients across GPUs is not in them. They are judged once they "
            "were measured twice (the same command with --force), or beside a bench.scaling --work training "
            "of that device and precision."
        )
    said = {remark.id: remark.statement for found in touching.values() for remark in found}
    if said:
        parts.append("\n".join(f"- [r{number}] {said[number]}" for number in sorted(said)))
    missing = [one.claim for one in of if one.verdict in (UNMEASURED, UNCOUNTED)]
    wanted = [f"- `{text}`" for text in commands(missing)]
    if wanted:
        parts.append("\n".join(["What is missing here would come from:", "", *wanted]))
    if any(not commands([claim]) for claim in missing):
        parts.append(
            "FID after training on ImageNet is measured by nothing here: bench.convergence compares losses "
            "of small trainings, bench.quality the samples of weights that you bring."
        )
    return parts


def _range(finding: Finding) -> str:
    """The least and the most of the other settings of the device."""
    others = sorted(finding.others, key=lambda one: (one.value, one.setting.precision, one.setting.batch))
    if not others:
        return BLANK
    ends = " to ".join(map(_setting, dict.fromkeys((others[0], others[-1]))))
    return f"{ends}; of {len(others)}" if len(others) > 2 else ends


def _setting(measured: Measured) -> str:
    """A value with the setting it belongs to."""
    how = measured.how.partition(",")[0]
    return f"{significant(measured.value, 3)} ({measured.setting.but_device}, {how})"


def _remarks(claim: Claim, remarks: Sequence[Remark]) -> list[Remark]:
    """What a reader of the claim's cells should know."""
    cells = re.split(r" [/*] ", claim.cells)
    return [
        remark
        for remark in remarks
        if any(fnmatchcase(cell, pattern) for cell in cells for pattern in remark.cells)
    ]


def _marks(remarks: Sequence[Remark]) -> str:
    return "".join(f" [r{remark.id}]" for remark in remarks)


def _surprises(ranked: Sequence[Surprise]) -> list[str]:
    if not ranked:
        return []
    return [
        "## What surprised",
        "The largest factors between two numbers that were to be alike, at most "
        f"{surprises.OF_A_KIND} of a kind. FLOPs are not speed: *time against MACs* sets the measured ratio "
        "beside the one that MACs would give.",
        markdown(
            {
                "": [str(i) for i in range(1, len(ranked) + 1)],
                "kind": [one.kind for one in ranked],
                "about": [one.about for one in ranked],
                "expected": [one.expected for one in ranked],
                "found": [one.found for one in ranked],
                "found / expected": [significant(one.factor, 3) for one in ranked],
                "where": [one.where or "counted" for one in ranked],
            }
        ),
    ]


def _shares(records: Sequence[Record]) -> list[str]:
    """How much of the floor every timed pass achieves, under the ceilings of the devices at hand."""
    points = [
        point
        for peaks in roofline.at_hand(records)
        for point in roofline.every_point(peaks, records)
        if point.measured is not None
    ]
    if not points:
        return []
    points.sort(key=lambda p: (p.peaks.device, p.precision, height_width(p.work.res), p.work.batch))

    def share(point: Point, form: str) -> str:
        interval, value = point.achieved_interval(form), point.achieved(form)
        assert value is not None
        text = f"{100 * value:.1f} %"
        return text if interval is None else f"{text} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"

    measured = [point.measured for point in points if point.measured]
    return [
        "## Shares of the roofline",
        "Floor / measured median, of the fastest measurement of a pass on a device whose ceilings were "
        "measured, with the 95 % interval of the median; the floors are computed (report.md, *Floors and "
        "rooflines*). Above 100 % are passes that fusion, caches or an algorithm of fewer FLOPs make faster.",
        markdown(
            {
                "device": [p.peaks.device for p in points],
                "precision": [p.precision for p in points],
                "px": [size_text(p.work.res) for p in points],
                "batch": [str(p.work.batch) for p in points],
                "model": [p.work.model for p in points],
                "images/s, measured": [significant(one.images_per_s) for one in measured],
                "of the eager floor": [share(p, "eager") for p in points],
                "of the fused floor": [share(p, "fused") for p in points],
                "torch; commit; date": [_stamp(one.run.environment) for one in measured],
            }
        ),
    ]


def _stamp(here: Environment) -> str:
    return f"{here.torch}; {here.commit or BLANK}; {here.date[:10]}"


def _stamps(found: Sequence[Finding]) -> Columns:
    """Software and dates of the values above."""
    environments: dict[str, set[Environment]] = {}

    def add(what: str, *held: Environment) -> None:
        environments.setdefault(what, set()).update(held)

    for one in found:
        for measured in filter(None, (one.measured, *one.others)):
            add(f"measured, {measured.setting.device}", measured.environment)
        for verdict in filter(None, (one.fits, *one.other_fits)):
            here = verdict.memory.run.environment
            add(f"measured, {here.device}", here)
        for verdict in one.predicted:
            add("predicted", verdict.memory.run.environment)
        if one.counted_in:
            add("counted", *one.counted_in)
    ordered = sorted(environments)
    stamps = [sorted({_stamp(one) for one in environments[what]}) for what in ordered]
    return {"of": ordered, "torch; commit; date": [", ".join(of) for of in stamps]}


# the plot


def _drawings(found: Sequence[Finding], evidence: Evidence) -> list[Drawing]:
    drawings = []
    for device in _devices(found):
        shown = [one for one in found if one.measured is not None and _device(one) == device]
        if shown:
            slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
            with matplotlib.rc_context(STYLE):
                drawings.append(saved(f"claims_{slug}", *dots(device, shown, evidence)))
    return drawings


def dots(device: str, shown: Sequence[Finding], evidence: Evidence) -> tuple[Figure, str, str]:
    """Set every published ratio beside the measured one, a row for each claim, and panels by quantity."""
    groups = [
        (heading, rows)
        for heading, quantities in PARTS
        if (rows := [one for one in shown if one.claim.quantity in quantities])
    ]
    figure = new_figure(9.6, 1.7 + sum(0.26 * len(rows) + 0.75 for _, rows in groups))
    grid = figure.add_gridspec(len(groups), 1, height_ratios=[len(rows) + 0.6 for _, rows in groups])
    for i, (heading, rows) in enumerate(groups):
        _panel(figure.add_subplot(grid[i]), heading, rows, evidence)
    title = f"Claims beside what was measured: {device}"
    figure.suptitle(title, fontsize=10, weight="bold", x=0.01, ha="left")
    papers = [paper for paper in PAPER_MARKS if any(one.claim.paper == paper for one in shown)]
    figure.legend(
        handles=[
            Line2D([], [], linestyle="", marker="o", color=OTHER, markersize=6, label="measured here"),
            *(hollow(paper, OTHER) for paper in papers),
            Line2D([], [], linestyle="", marker="|", color="black", markersize=9, label="by MACs"),
            Patch(color="#e4e4e4", label="where a claim holds"),
        ],
        loc="outside lower center",
        ncols=6,
        frameon=False,
        fontsize=8,
    )
    caption = (
        "Filled: measured, with its interval; hollow: what the paper prints; the band: where a measured "
        "ratio agrees with it. The stroke is what the ratio would be if MACs were time. Every row has the "
        "setting nearest to the published one, named on the right with the verdict; all axes are "
        "logarithmic."
    )
    return figure, title, caption


def _panel(axes: Axes, heading: str, rows: Sequence[Finding], evidence: Evidence) -> None:
    values: list[float] = []
    for at, one in enumerate(rows):
        measured, claimed = one.measured, one.claim.value
        assert measured is not None
        assert claimed is not None
        low, high = band(one.claim)
        axes.barh(at, high - low, left=low, height=0.62, color="#e4e4e4", zorder=1)
        colour = colour_of(one.model)
        if measured.interval is not None:
            axes.plot(measured.interval, [at, at], color=colour, linewidth=1.6, zorder=3)
            axes.plot(measured.interval, [at, at], "|", color=colour, markersize=6, zorder=3)
        mark = hollow(one.claim.paper, colour)
        mark.set_data([claimed], [at])
        axes.add_line(mark)
        axes.plot(measured.value, at, "o", color=colour, markersize=5.5, zorder=5)
        expected = macs_ratio(evidence, one)
        if expected is not None:
            axes.plot(expected, at, "|", color="black", markersize=10, zorder=4)
        values += [low, high, measured.value, claimed, *(measured.interval or ())]
        values += [] if expected is None else [expected]
        axes.text(
            1.012, at, _beside(one), transform=axes.get_yaxis_transform(), va="center", fontsize=7.5,
            color=MARKS[one.verdict],
        )  # fmt: skip
    axes.set_xscale("log")
    least, most = min(values) / 1.12, max(values) * 1.12
    axes.set_xlim(least, most)
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in TICKS if least <= tick <= most]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    if least < 1 < most:
        axes.axvline(1, color="#666666", linewidth=0.8, linestyle=":", zorder=2)
    axes.set_yticks(range(len(rows)), [_label(one) for one in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", color="#eeeeee", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_title(f"{heading} (ratio, log)", loc="left", fontsize=9, weight="bold")


def _label(finding: Finding) -> str:
    beside = f" / {finding.reference}" if finding.reference else ""
    text = " stated" if finding.claim.stated.value is not None else ""
    return f"{finding.model}{beside}, {finding.claim.res_px} px ({finding.claim.paper}{text})"


def _beside(finding: Finding) -> str:
    measured = finding.measured
    assert measured is not None
    return f"{finding.verdict} ({measured.setting.but_device})"
