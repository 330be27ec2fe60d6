"""The report's section on repeats: cases measured more than once on a device."""

import math
import re
from collections import Counter
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from bench.analysis import agreement
from bench.analysis.agreement import AGREE, DIFFER, OPEN, WITHIN, Agreement, Matched, Pair
from bench.records.base import Record
from bench.stats.median_ratios import MIN_SAMPLES
from bench.store.codec import to_line
from reports.figures.plots import OTHER, STYLE, Drawing, new_figure, saved
from reports.markdown import BLANK, table

LISTED = 60  # maximum pairs in a device's table, the largest differences first
NAMED = 40  # maximum pairs with names in a plot
COLOURS = {AGREE: "#009E73", DIFFER: "#D55E00", OPEN: OTHER}
MARKS = {AGREE: "o", DIFFER: "D", OPEN: "o"}
WIDEST = math.log(2)  # largest |log ratio| on the plot's axis
LIMIT = f"{100 * WITHIN:g} %"


def section(records: Sequence[Record]) -> tuple[str, list[Drawing]]:
    """Write the section; empty if no case was measured twice. Records may be in any order."""
    by_device: dict[str, list[Matched]] = {}
    for both in agreement.repeats(sorted(records, key=to_line)):
        by_device.setdefault(both.b.environment.device, []).append(both)
    parts: list[str] = []
    drawings: list[Drawing] = []
    for device in sorted(by_device):
        compared = agreement.compare(by_device[device], WITHIN)
        if not compared.pairs:
            continue
        with matplotlib.rc_context(STYLE):
            slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
            drawings.append(saved(f"repeats_{slug}", *draw(device, compared)))
        ordered = sorted(compared.pairs, key=_place)
        parts += [
            f"### {device}",
            _conditions(by_device[device]),
            "\n".join(f"- {finding}" for finding in compared.findings()),
            drawings[-1].picture.markdown,
            table(agreement.table(dated=True), ordered[:LISTED]),
            *_not_listed(ordered[LISTED:]),
        ]
    return ("\n\n".join(["## Repeats", _reading(), *parts]) if parts else ""), drawings


def _reading() -> str:
    return (
        "Cases that were measured more than once on a device: B is the newest record, which the rest of this "
        "report shows, A an older one. B/A is the ratio of medians; its bootstrapped 95 % interval covers "
        f"the noise within the two records. *agree*: the whole interval is within {LIMIT} of 1; *differ*: "
        f"none of it is; *cannot tell*: it straddles the limit, or there are fewer than {MIN_SAMPLES} "
        "samples. Likely causes are differences between the two records; `python -m bench.compare` compares "
        "two files in the same way."
    )


def _conditions(matched: Sequence[Matched]) -> str:
    def describe(side: str, records: Sequence[Record]) -> str:
        environments = [record.environment for record in records]
        dates = sorted({one.date for one in environments})
        software = ", ".join(sorted({one.torch for one in environments}))
        commits = ", ".join(sorted({one.commit or BLANK for one in environments}))
        between = " to ".join(dict.fromkeys((dates[0], dates[-1])))
        return f"{side}: {between}, torch {software}, commit {commits}"

    return f"{describe('A', [both.a for both in matched])}. {describe('B', [both.b for both in matched])}."


def _place(pair: Pair) -> tuple[object, ...]:
    """Sorting key: the largest differences first, pairs with too few samples last."""
    return pair.interval is None, -pair.distance, pair.case, pair.quantity, pair.dates


def _not_listed(rest: Sequence[Pair]) -> list[str]:
    if not rest:
        return []
    counts = agreement.counts_text(Counter(pair.verdict for pair in rest))
    nearest = agreement.percent(max(abs(pair.ratio - 1) for pair in rest))
    return [f"Not listed: {len(rest)} more, at most {nearest} from 1 ({counts})."]


# the plot


def draw(device: str, compared: Agreement) -> tuple[Figure, str, str]:
    """Draw a row for each pair, sorted: ratio of medians, interval, and the band of the tolerance."""
    pairs = sorted(compared.pairs, key=lambda pair: (-pair.ratio, pair.case, pair.quantity, pair.dates))
    named = len(pairs) <= NAMED
    reach = min(WIDEST, max(3 * WITHIN, *(1.15 * pair.distance for pair in pairs)))
    ends = math.exp(-reach), math.exp(reach)
    figure = new_figure(10.4 if named else 8.0, 1.5 + (0.2 * len(pairs) if named else 4.5))
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_xlim(*ends)
    axes.axvspan(1 - WITHIN, 1 + WITHIN, color="#009E73", alpha=0.13, linewidth=0, zorder=0)
    axes.axvline(1, color="#666666", linewidth=0.8, zorder=1)
    outside: dict[bool, list[tuple[int, float]]] = {True: [], False: []}  # above, below the range
    for row, pair in enumerate(pairs):
        colour = COLOURS[pair.verdict]
        if pair.interval is not None:
            axes.plot(pair.interval, [row, row], color=colour, linewidth=1.3 if named else 0.8, zorder=2)
        inside = ends[0] < pair.ratio < ends[1]
        mark = MARKS[pair.verdict] if inside else (">" if pair.ratio > 1 else "<")
        axes.plot(
            min(max(pair.ratio, ends[0]), ends[1]), row, mark, color=colour, clip_on=False, zorder=3,
            markersize=5 if named else 3, markerfacecolor="white" if pair.verdict == OPEN else colour,
        )  # fmt: skip
        if not inside:
            outside[pair.ratio > 1].append((row, pair.ratio))
    for above, beyond in outside.items():
        for rows in (
            [[one] for one in beyond] if named else [beyond] * bool(beyond)
        ):  # thin rows share a label
            row, ratio = rows[0 if above else -1]  # the largest difference
            axes.annotate(
                f"{len(rows)} pairs, to {ratio:.2f}" if len(rows) > 1 else f"{ratio:.2f}",
                (ends[above], row), xytext=(-7 if above else 7, 0 if named or above else 5),
                textcoords="offset points", ha="right" if above else "left", va="center", fontsize=6.5,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1} if named else None, zorder=4,
            )  # fmt: skip
    if named:
        axes.set_yticks(range(len(pairs)), _labels(pairs), fontsize=6.5)
    else:
        axes.set_yticks([])
        axes.set_ylabel(f"{len(pairs)} pairs, sorted")
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, pad=7)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(MaxNLocator(9, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("B/A, ratio of medians (log): above 1 the newer is slower; of speeds, faster", fontsize=8)
    title = f"Repeats: {device}"
    figure.suptitle(title, fontsize=10, weight="bold", x=0.01, ha="left")
    figure.legend(handles=_legend(), loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    capped = (
        f"; those beyond a factor of {ends[1]:.2g} at the edge with their ratio" if reach == WIDEST else ""
    )
    caption = (
        f"Every repeated case: the newest median over an older one's with its 95 % interval, sorted{capped}. "
        f"In the band, {LIMIT} to either side, medians agree."
    )
    caption += "" if named else " The table names the largest differences."
    return figure, title, caption


def _labels(pairs: Sequence[Pair]) -> list[str]:
    """Case and quantity of each pair, with the date of A if the case has more than two records."""
    plain = [f"{pair.case}, {pair.quantity}" for pair in pairs]
    return [
        label if plain.count(label) == 1 else f"{label}, A of {pair.dates[0].rstrip('Z').replace('T', ' ')}"
        for label, pair in zip(plain, pairs, strict=True)
    ]


def _legend() -> list[Line2D]:
    return [
        Line2D(
            [], [], linestyle="-", marker=MARKS[verdict], color=COLOURS[verdict], label=verdict, markersize=5,
            markerfacecolor="white" if verdict == OPEN else COLOURS[verdict],
        )
        for verdict in agreement.VERDICTS
    ]  # fmt: skip
