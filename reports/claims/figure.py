"""The figure of the claims: published ratios beside measured ones."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from bench.records.base import Size
from reports.claims.verdicts import COUNTS, FAILS, HOLDS, OPEN, Finding, band
from reports.figures.plots import (
    Drawing,
    colour_of,
    hollow,
    lay_out,
    legend,
    log_axis,
    mark,
    new_figure,
    papers,
    saved,
    styled,
    width_of,
)
from reports.naming import OTHER, slug
from reports.selection import OUR_RULES, Evidence

PARTS = (
    ("Slow-down at double resolution", ("slow-down", "relative slow-down")),
    ("Speed", ("speed",)),
    ("Memory of training", ("training memory",)),
    ("MACs and parameters", COUNTS),
    ("Steps of training", ("training steps/s", "training steps")),
    ("Quality after training", ("FID",)),
)
DRAWN = 3  # maximum figures
MARKS = {HOLDS: "#009E73", FAILS: "#D55E00", OPEN: "#999999"}  # colours by verdict
TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30)


def macs_ratio(evidence: Evidence, finding: Finding) -> float | None:
    """The ratio of MACs that corresponds to a finding; None if they are not counted."""

    def macs(model: str, res: Size) -> float | None:
        count = evidence.count(model, res, OUR_RULES[:1])
        return count.macs / count.case.batch if count else None

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


def draw(found: Sequence[Finding], evidence: Evidence) -> list[Drawing]:
    """Draw a figure for each of the DRAWN devices with most measured ratios."""
    counts = Counter(one.device for one in found if one.measured is not None)
    most = sorted(counts, key=lambda device: (-counts[device], device))[:DRAWN]
    measured = [one for one in found if one.measured is not None]
    return [_dots(device, [one for one in measured if one.device == device], evidence) for device in most]


@styled
def _dots(device: str, shown: Sequence[Finding], evidence: Evidence) -> Drawing:
    """Plot published and measured ratios: a row for each claim, a panel for each quantity."""
    groups = [
        (heading, rows)
        for heading, quantities in PARTS
        if (rows := [one for one in shown if one.claim.quantity in quantities])
    ]
    heights = [0.29 * (len(rows) + 0.2) for _, rows in groups]
    figure = new_figure(9.6, 1.12 + sum(heights) + 0.6 * (len(groups) - 1))
    grid = figure.add_gridspec(len(groups), 1, height_ratios=heights)
    for i, (heading, rows) in enumerate(groups):
        _panel(figure.add_subplot(grid[i]), heading, rows, evidence)
    title = f"Claims and measurements: {device}"
    drawn = [paper for paper in papers() if any(one.claim.paper == paper for one in shown)]
    handles = [
        mark("measured here", marker="o", color=OTHER, markersize=6),
        *(hollow(paper, OTHER) for paper in drawn),
        mark("ratio of MACs", marker="|", color="black", markersize=9),
        Patch(color="#e4e4e4", label="where a claim holds"),
    ]
    beside = width_of(map(_label, shown), 8) + 0.15, width_of(map(_verdict, shown), 7.5) + 0.2
    lay_out(
        figure, title, left=beside[0], right=beside[1], bottom=0.3 + legend(figure, handles, len(handles)),
        down=0.6,
    )  # fmt: skip
    caption = (
        "Filled: measured, with its interval. Hollow: published; the band around it: where a claim holds. "
        "Stroke: ratio of MACs. Right: verdict and setting, the nearest to the published one. All axes are "
        "logarithmic."
    )
    return saved(f"claims_{slug(device)}", figure, title, caption)


class _Marks(NamedTuple):
    """Places (x, row) of marks that are drawn at once."""

    published: list[tuple[float, int]]
    measured: list[tuple[float, int]]
    intervals: list[tuple[float, int]]  # both ends, then a gap


def _split(places: Sequence[tuple[float, int]]) -> tuple[list[float], list[int]]:
    return [x for x, _ in places], [row for _, row in places]


def _panel(axes: Axes, heading: str, rows: Sequence[Finding], evidence: Evidence) -> None:
    values: list[float] = []
    marks: dict[tuple[str, str], _Marks] = {}  # by paper and colour
    bands = [band(one.claim) for one in rows]
    for at, one in enumerate(rows):
        measured, claimed = one.measured, one.claim.value
        assert measured is not None
        assert claimed is not None
        of = marks.setdefault((one.claim.paper, colour_of(one.model)), _Marks([], [], []))
        of.published.append((claimed, at))
        of.measured.append((measured.value, at))
        of.intervals.extend((end, at) for end in (*(measured.interval or ()), math.nan))
        values += [*bands[at], measured.value, claimed, *(measured.interval or ())]
        axes.text(
            1.012, at, _verdict(one), transform=axes.get_yaxis_transform(), va="center", fontsize=7.5,
            color=MARKS[one.verdict],
        )  # fmt: skip
    widths = [high - low for low, high in bands]
    axes.barh(
        range(len(rows)), widths, left=[low for low, _ in bands], height=0.62, color="#e4e4e4", zorder=1
    )
    for (paper, colour), of in marks.items():
        axes.plot(*_split(of.intervals), "-|", color=colour, linewidth=1.6, markersize=6, zorder=3)
        printed = hollow(paper, colour)
        printed.set_data(*_split(of.published))
        axes.add_line(printed)
        axes.plot(*_split(of.measured), "o", color=colour, markersize=5.5, zorder=5)
    expected = [(ratio, at) for at, one in enumerate(rows) if (ratio := macs_ratio(evidence, one))]
    if expected:
        axes.plot(*_split(expected), "|", color="black", markersize=10, zorder=4)
    values += [ratio for ratio, _ in expected]
    least, most = min(values) / 1.12, max(values) * 1.12
    log_axis(axes, "x", least, most, places=TICKS)
    if least < 1 < most:
        axes.axvline(1, color="#666666", linewidth=0.8, linestyle=":", zorder=2)
    axes.set_yticks(range(len(rows)), [_label(one) for one in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", color="#eeeeee")
    axes.set_title(f"{heading} (ratio, log)", weight="bold")


def _label(finding: Finding) -> str:
    beside = f" / {finding.reference}" if finding.reference else ""
    text = " stated" if finding.claim.stated.value is not None else ""
    return f"{finding.model}{beside}, {finding.claim.res_px} px ({finding.claim.paper}{text})"


def _verdict(finding: Finding) -> str:
    measured = finding.measured
    assert measured is not None
    return f"{finding.verdict} ({measured.setting.but_device})"
