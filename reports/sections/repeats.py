"""Writes the report's section on repeats: whether sessions of measuring the same cases agree."""

import math
import re
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from bench.analysis import agreement
from bench.analysis.agreement import AGREE, DIFFER, OPEN, WITHIN, Agreement, Matched, Pair
from bench.records import labels
from bench.records.record import Record, to_line
from reports.figures.plots import OTHER, STYLE, Drawing, new_figure, saved
from reports.overview import BLANK, Columns, markdown

LISTED = 60  # pairs of a device in its table at the most, the farthest apart first
NAMED = 40  # pairs of a plot at the most that have their names beside them
COLOURS = {AGREE: "#009E73", DIFFER: "#D55E00", OPEN: OTHER}
MARKS = {AGREE: "o", DIFFER: "D", OPEN: "o"}
WIDEST = math.log(2)  # of the plot's axis to either side
LIMIT = f"{100 * WITHIN:g} %"


def section(records: Sequence[Record]) -> tuple[str, list[Drawing]]:
    """Write the section; empty where no case was measured twice. Records may be in any order."""
    by_device: dict[str, list[Matched]] = {}
    for both in agreement.repeats(sorted(records, key=to_line)):
        here = labels.environment(both.b)
        by_device.setdefault(here.device if here is not None else "", []).append(both)
    parts: list[str] = []
    drawings: list[Drawing] = []
    for device in sorted(by_device):
        compared = agreement.compare(by_device[device], WITHIN)
        if not compared.pairs:
            continue
        drawing = _drawing(device, compared)
        picture = drawing.picture
        drawings.append(drawing)
        parts += [
            f"### {device}",
            _conditions(by_device[device]),
            "\n".join(f"- {one}" for one in compared.findings()),
            f"![{picture.title}]({picture.name}.png)\n\n{picture.caption} ([SVG]({picture.name}.svg))",
            markdown(_table(compared)),
            *_left_out(compared),
        ]
    return ("\n\n".join(["## Repeats", _reading(), *parts]) if parts else ""), drawings


def _reading() -> str:
    return (
        f"Cases that were measured more than once on a device, on another day or machine or again: B is the "
        f"newest, which counts everywhere else in this report, A an older one. B/A is the ratio of medians "
        f"with its bootstrapped 95 % interval, which knows the noise within the two records only. *agree*: "
        f"all of the interval is within {LIMIT} of 1; *differ*: none of it is; *cannot tell*: it straddles "
        f"the limit, or there are fewer than {agreement.MIN_SAMPLES} samples. Why is what the records hold; "
        "`python -m bench.agree` says the same of two files."
    )


def _conditions(matched: Sequence[Matched]) -> str:
    def told(side: str, records: Sequence[Record]) -> str:
        here = [one for one in map(labels.environment, records) if one is not None]
        dates = sorted({one.date for one in here})
        software = ", ".join(sorted({one.torch for one in here}))
        commits = ", ".join(sorted({one.commit or BLANK for one in here}))
        return (
            f"{side}: {' to '.join(dict.fromkeys((dates[0], dates[-1])))}, torch {software}, commit {commits}"
        )

    return f"{told('A', [both.a for both in matched])}. {told('B', [both.b for both in matched])}."


def _farthest(compared: Agreement) -> list[Pair]:
    """As many pairs as are listed: those farthest from 1 first, those with too few samples last."""

    def place(pair: Pair) -> tuple[object, ...]:
        return pair.interval is None, -abs(math.log(pair.ratio)), pair.case, pair.quantity, pair.dates

    return sorted(compared.pairs, key=place)[:LISTED]


def _left_out(compared: Agreement) -> list[str]:
    shown = _farthest(compared)
    rest = [pair for pair in compared.pairs if pair not in shown]
    if not rest:
        return []
    verdicts = [sum(compared.verdict(pair) == verdict for pair in rest) for verdict in agreement.VERDICTS]
    told = ", ".join(f"{n} {verdict}" for n, verdict in zip(verdicts, agreement.VERDICTS, strict=True))
    nearest = agreement.percent(max(pair.off for pair in rest))
    return [f"Not listed: {len(rest)} more, at most {nearest} from 1 ({told})."]


def _table(compared: Agreement) -> Columns:
    pairs = _farthest(compared)
    residuals = [compared.residual(pair) for pair in pairs]
    columns: Columns = {
        "case": [pair.case for pair in pairs],
        "of": [pair.quantity for pair in pairs],
        "A on": [pair.dates[0] for pair in pairs],
        "B on": [pair.dates[1] for pair in pairs],
        "A": [agreement.value_text(pair.a, pair.unit) for pair in pairs],
        "B": [agreement.value_text(pair.b, pair.unit) for pair in pairs],
        "B/A": [f"{pair.ratio:.4f} {_interval(pair)}" for pair in pairs],
        "without the common factor": [BLANK if one is None else f"{one.ratio:.4f}" for one in residuals],
        f"within {LIMIT}": [compared.verdict(pair) for pair in pairs],
        "why": ["; ".join(compared.why(pair)) or BLANK for pair in pairs],
    }
    if not any(residuals):
        del columns["without the common factor"]
    return columns


def _interval(pair: Pair) -> str:
    if pair.interval is None:
        return f"(n = {min(pair.samples)}, no interval)"
    return "[{:.4f}, {:.4f}]".format(*pair.interval)


# the plot


def _drawing(device: str, compared: Agreement) -> Drawing:
    slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    with matplotlib.rc_context(STYLE):
        return saved(f"repeats_{slug}", *ratios(device, compared))


def ratios(device: str, compared: Agreement) -> tuple[Figure, str, str]:
    """Draw a row for every pair, sorted: the ratio of medians, its interval, and a band of the limit."""
    pairs = sorted(compared.pairs, key=lambda pair: (-pair.ratio, pair.case, pair.quantity, pair.dates))
    named = len(pairs) <= NAMED
    reach = min(WIDEST, max(3 * WITHIN, *(1.15 * abs(math.log(pair.ratio)) for pair in pairs)))
    ends = math.exp(-reach), math.exp(reach)
    figure = new_figure(10.4 if named else 8.0, 1.5 + (0.2 * len(pairs) if named else 4.5))
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_xlim(*ends)
    axes.axvspan(1 - WITHIN, 1 + WITHIN, color="#009E73", alpha=0.13, linewidth=0, zorder=0)
    axes.axvline(1, color="#666666", linewidth=0.8, zorder=1)
    common = compared.common if compared.common is not None and compared.common.explains else None
    if common is not None:
        axes.axvline(common.factor, color="#0072B2", linewidth=1.2, linestyle="--", zorder=1)
    outside: dict[bool, list[tuple[int, float]]] = {True: [], False: []}  # above the range, below it
    for row, pair in enumerate(pairs):
        verdict = compared.verdict(pair)
        colour = COLOURS[verdict]
        if pair.interval is not None:
            axes.plot(pair.interval, [row, row], color=colour, linewidth=1.3 if named else 0.8, zorder=2)
        inside = ends[0] < pair.ratio < ends[1]
        mark = MARKS[verdict] if inside else (">" if pair.ratio > 1 else "<")
        axes.plot(
            min(max(pair.ratio, ends[0]), ends[1]), row, mark, color=colour, clip_on=False, zorder=3,
            markersize=5 if named else 3, markerfacecolor="white" if verdict == OPEN else colour,
        )  # fmt: skip
        if not inside:
            outside[pair.ratio > 1].append((row, pair.ratio))
    for above, there in outside.items():
        for rows in [[one] for one in there] if named else [there] * bool(there):  # thin rows share a label
            row, ratio = rows[0 if above else -1]  # the farthest
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
    figure.legend(
        handles=_legend(common is not None), loc="outside lower center", ncols=5, frameon=False, fontsize=8
    )
    beyond = (
        f", those beyond a factor of {ends[1]:.2g} at the edge with their ratio" if reach == WIDEST else ""
    )
    caption = (
        f"Every case that was measured again: the newest median over an older one's with its 95 % interval, "
        f"sorted{beyond}. In the band, {LIMIT} to either side, medians agree."
    )
    caption += "" if named else " The table names those that are farthest apart."
    return figure, title, caption


def _labels(pairs: Sequence[Pair]) -> list[str]:
    """Case and quantity; with the date of A where it was measured more than twice."""
    plain = [f"{pair.case}, {pair.quantity}" for pair in pairs]
    return [
        label if plain.count(label) == 1 else f"{label}, A of {pair.dates[0].rstrip('Z').replace('T', ' ')}"
        for label, pair in zip(plain, pairs, strict=True)
    ]


def _legend(common: bool) -> list[Line2D]:
    handles = [
        Line2D(
            [], [], linestyle="-", marker=MARKS[verdict], color=COLOURS[verdict], label=verdict, markersize=5,
            markerfacecolor="white" if verdict == OPEN else COLOURS[verdict],
        )
        for verdict in agreement.VERDICTS
    ]  # fmt: skip
    if common:
        handles.append(Line2D([], [], color="#0072B2", linestyle="--", label="the common factor of times"))
    return handles
