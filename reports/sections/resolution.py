"""The report's section on resolution: growth of costs, compared with published slow-downs."""

from collections.abc import Iterator, Sequence
from statistics import geometric_mean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from bench.analysis.scaling import resolution, slowdowns
from bench.analysis.scaling.resolution import COSTS, Study, batch_range
from bench.analysis.scaling.scaling_tables import (
    IN_STUDY,
    TAKEN_OVER,
    Row,
    crossing_rows,
    exponent_rows,
    size_rows,
    slowdown_rows,
)
from bench.records.base import Record
from bench.stats import power_law
from bench.stats.power_law import Exponent
from bench.tables.render import render
from reports.claims.timed import timings
from reports.figures.plots import Drawing, colour_of, fullest, lay_out, new_figure, saved, styled
from reports.naming import order, slug
from reports.sections import Part, of_parts

PLACE = "scaling.md", 1
MIB = 2**20
AXES = {
    "time": ("time, measured", "ms per image", 1e-3),
    "MACs": ("MACs, counted", "GMACs per image", 1e9),
    "bytes": ("bytes moved, eager, counted", "MB per image", 1e6),
    "memory": ("memory of the passes", "MiB per image", MIB),
}
MARKERS = "osD^v<>Pp*"
OFFSET = 0.04  # horizontal offset between models at one size, in doublings of the side


READING = (
    "All costs are of one image. The side is that of a square of as many pixels: cost ~ side^e; the "
    "exponent in pixels is half of e. Every visit ran in a process of its own, in alternating order. "
    "Intervals are 95 %, with the difference between visits. *By residuals* is the interval of noise "
    "and misfit together; *misfit* is the largest distance of a size from the fitted power. MACs and "
    "bytes are counted, bytes for an eager pass; memory of the passes excludes parameters, moments and "
    "EMA and is **measured** or **predicted**. Where memory ran out the batch was halved; results over "
    "several batches say so (batch 16 to 2)."
)


@of_parts
def section(records: Sequence[Record]) -> Iterator[Part]:
    """Write the section; empty without timed cases of bench.scaling. Records may be in any order."""
    studies = [study for study in timings(records).studies if any(sized.timed for sized in study.sizes)]
    if not studies:
        return
    chosen, left_out = fullest(studies, lambda study: len(study.sizes), "studies")
    yield from ("## Resolution", READING, *left_out)
    for study in studies:
        yield from (f"### {study.setting}", _conditions(study))
        if study in chosen:
            yield draw(study)
        yield from _table("sizes", sorted(size_rows(study), key=lambda r: (order(r.of.model), r.of.side)))
        yield from _table("exponents", sorted(exponent_rows(study), key=lambda r: order(r.of.model)))
        growths = [row for row in slowdown_rows(study) if row.of.time]
        growths.sort(key=lambda row: (len(row.of.models), order(row.of.models[-1]), row.of.from_side))
        if growths:
            yield from (*_table("claim", growths), _published_reading())
        yield from _table("crossovers", [row for row in crossing_rows(study) if row.of.cost == "time"])


def _table(name: str, rows: Sequence[Row[Any]]) -> list[str]:
    """The title and the table; nothing without rows."""
    table = IN_STUDY[name]
    return [f"**{table.title}**", render(table, rows, "md").strip()] if rows else []


def _conditions(study: Study) -> str:
    first, last = study.records[0].environment, study.records[-1].environment
    dates = first.date if first.date == last.date else f"{first.date} to {last.date}"
    summary = resolution.drift_summary(study.drift)
    return (
        f"{last.device}; torch {last.torch}; {last.threads} CPU threads; commit {last.commit or '-'}; "
        f"{dates}. {summary[0].upper()}{summary[1:]}."
    )


def _published_reading() -> str:
    return (
        "*Published* is the ratio of a paper's throughput at 256 px to that at 512 px (FCDM Tables 3 and "
        "5, DiCo Tables 1 and 2); for a model without one, that of its family, by name. The verdict "
        "compares the measured interval with it and with the growth of the MACs; within "
        f"{100 * slowdowns.MARGIN:.0f} % they are equal. {slowdowns.slowdown_remark()} {TAKEN_OVER}: "
        f"{slowdowns.TAKEN_OVER}."
    )


# the plot


def curves(study: Study) -> Figure:
    """Plot the cost of one image against the side, log-log, with fitted lines: a panel for each cost."""
    shown = [cost for cost in COSTS if any(len(study.curve(m, cost).points) for m in study.models)]
    figure = new_figure(10.4, 4.4 * -(-len(shown) // 2))
    grid = figure.add_gridspec(-(-len(shown) // 2), min(2, len(shown)))
    for i, cost in enumerate(shown):
        _panel(figure.add_subplot(grid[i // 2, i % 2]), study, cost)
    return figure


@styled
def draw(study: Study) -> Drawing:
    figure = curves(study)
    title = f"Growth with resolution: {study.setting}"
    lay_out(figure, title, left=0.8, across=0.85, down=0.85)
    method = _memory_method(study)
    memory = f", memory is {method}" if method else ""
    caption = (
        "Cost of one image against the side in pixels, log-log. Lines: fitted powers side^e, with the 95 % "
        "interval of e in brackets, and the lowest and highest exponent from size to size in parentheses. "
        f"Whiskers: 95 % interval of the time. MACs and bytes are counted{memory}.{_batches(study)}"
    )
    return saved(f"scaling_{slug(study.setting)}", figure, title, caption)


def _batches(study: Study) -> str:
    """Sentence on the models that ran at several batches."""
    batches = {
        model: study.batches((model,), "time", study.curve(model, "time").sides) for model in _models(study)
    }
    several = [f"{model} batch {batch_range(of)}" for model, of in batches.items() if len(of) > 1]
    return f" Memory ran out, so that batches differ between sizes: {', '.join(several)}." if several else ""


def _models(study: Study) -> list[str]:
    return sorted(study.models, key=order)


def _memory_method(study: Study) -> str:
    """Method of the memory values in a picture: measured, predicted or both."""
    found = {sized.memory_method for sized in study.sizes if sized.point("memory")}
    return " or ".join(sorted(filter(None, found)))


def _panel(axes: Axes, study: Study, cost: str) -> None:
    title, unit, scale = AXES[cost]
    sides: set[float] = set()
    models = _models(study)
    for i, model in enumerate(models):
        curve = study.curve(model, cost)
        if not curve.points:
            continue
        sides |= set(curve.sides)
        costs = [point.cost / scale for point in curve.points]
        intervals = power_law.intervals(curve)
        # shifted, as whiskers at one size would overlap
        shift = 2 ** (OFFSET * (i - (len(models) - 1) / 2)) if any(intervals) else 1.0
        places = [side * shift for side in curve.sides]
        colour, marker = colour_of(model), MARKERS[i % len(MARKERS)]
        for place, value, interval in zip(places, costs, intervals, strict=True):
            if interval is not None:
                reach = [[value - interval[0] / scale], [interval[1] / scale - value]]
                axes.errorbar(place, value, yerr=reach, color=colour, capsize=2.5, linewidth=1, fmt="none")
        fit = power_law.exponent(curve)
        axes.plot(
            places, costs, marker, color=colour, markersize=5, label=_label(model, fit), linestyle="",
            markeredgecolor="white", markeredgewidth=0.6, zorder=3,
        )  # fmt: skip
        if fit is not None:
            axes.plot(*_line(curve.sides, costs, fit), color=colour, linewidth=1, alpha=0.7, zorder=2)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = sorted(sides)
    axes.set_xticks(ticks, [f"{side:.0f}" for side in ticks])
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=20))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.grid(color="#dddddd")
    axes.set_xlabel("side, px (log)")
    axes.set_ylabel(f"{unit} (log)")
    if cost == "memory":
        title += f", {_memory_method(study)}"
    axes.set_title(title, weight="bold")
    axes.legend(loc="upper left", fontsize=7.5, handletextpad=0.3, labelspacing=0.35)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** 0.35)  # room for the legend


def _label(model: str, fit: Exponent | None) -> str:
    if fit is None:
        return model
    least, most = f"{min(fit.local):.2f}", f"{max(fit.local):.2f}"
    interval = f" [{fit.interval[0]:.2f}, {fit.interval[1]:.2f}]" if fit.interval else ""
    local = f" ({least} to {most})" if least != most else ""
    return f"{model}: e = {fit.slope:.2f}{interval}{local}"


def _line(sides: Sequence[float], costs: Sequence[float], fit: Exponent) -> tuple[list[float], list[float]]:
    """Points on the fitted power law through the centre of the data."""
    middle, level = geometric_mean(sides), geometric_mean(costs)
    ends = [min(sides), max(sides)]
    return ends, [level * (end / middle) ** fit.slope for end in ends]
