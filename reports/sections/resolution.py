"""Writes the report's section on resolution: how costs grow with it, beside what is published."""

import re
from collections.abc import Sequence
from statistics import geometric_mean

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from bench.analysis import resolution
from bench.analysis.resolution import COSTS, MARGIN, Fall, Sized, Study
from bench.records.record import Record, size_text
from bench.stats import power_law
from bench.stats.power_law import Exponent, Interval
from reports.figures.plots import STYLE, Drawing, colour_of, new_figure, saved
from reports.naming import order
from reports.overview import BLANK, Columns, markdown, sentence, significant

MIB = 2**20
AXES = {
    "time": ("time, measured", "ms per image", 1e-3),
    "MACs": ("MACs, counted", "GMACs per image", 1e9),
    "bytes": ("bytes moved, eager, counted", "MB per image", 1e6),
    "memory": ("memory", "MiB per image", MIB),
}
TAKEN_OVER = "‡"  # beside a published ratio
MARKERS = "osD^v<>Pp*"
APART = 0.04  # doublings of the side between the points of two models at one size


def section(records: Sequence[Record]) -> tuple[str, list[Drawing]]:
    """Write the section; empty without timed cases of bench.scaling, which may be in any order."""
    studies = resolution.studies(sorted(records, key=repr))
    studies = [study for study in studies if any(sized.visits for sized in study.sizes)]
    if not studies:
        return "", []
    parts, drawings = ["## Resolution", _reading()], []
    for study in studies:
        drawing = _drawing(study)
        drawings.append(drawing)
        picture = drawing.picture
        parts += [
            f"### {study.setting}",
            _conditions(study),
            f"![{picture.title}]({picture.name}.png)",
            picture.caption,
            markdown(_sizes(study)),
            "**Exponents of the side**",
            markdown(_exponents(study)),
        ]
        grown = _doublings(study)
        if grown["model"]:
            parts += ["**When the side doubles**", _of_falls(), markdown(grown)]
        contrasts = _contrasts(study)
        if contrasts["slow-down of"]:
            parts += [
                "**Slow-down of DiT as a multiple of another's**",
                markdown(contrasts),
            ]
        crossed = _crossings(study)
        if crossed["models"]:
            parts += ["**Where one becomes faster than another**", markdown(crossed)]
    return "\n\n".join(parts), drawings


def _reading() -> str:
    return (
        "All of one image. Exponents are those of the side of a square of as many pixels: cost ~ side^e; in "
        "pixels they are half as large. Sizes with as many pixels are one point, the geometric mean. Every "
        "case was visited in a process of its own, all cases before any again, in the reverse order. "
        "Intervals are 95 %, bootstrapped from the samples of every size and widened by what visits of one "
        "case differ by, as far as that is known from so many visits. *By residuals* is the interval that "
        "noise and misfit give together; *off the line* is how far the farthest size lies from the fitted "
        "power, and the exponents *from size to size* say where a cost bends. Counts have no noise, and so "
        "no interval. MACs and bytes are counted, bytes for an eager pass; memory is what the passes hold "
        "beside parameters, moments and EMA, **measured** or **predicted** as the column says. Where memory "
        "ran out the batch was halved: each size says the batch that ran, and what is fitted to or judged "
        "over sizes of several says so (batch 16 to 2), since a smaller batch may cost more an image."
    )


def _conditions(study: Study) -> str:
    first, last = study.runs[0].environment, study.runs[-1].environment
    dates = first.date if first.date == last.date else f"{first.date} to {last.date}"
    return (
        f"{last.device}; torch {last.torch}; {last.threads} CPU threads; commit {last.commit or BLANK}; "
        f"{dates}. {sentence(resolution.of_visits(study.drift))}"
    )


def _models(study: Study) -> list[str]:
    return sorted(study.models, key=order)


def _interval(interval: Interval | None, scale: float = 1.0, digits: int = 3) -> str:
    if interval is None:
        return BLANK
    return "[" + ", ".join(f"{end / scale:.{digits}f}" for end in interval) + "]"


def _with(value: float, interval: Interval | None, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text if interval is None else f"{text} {_interval(interval, digits=digits)}"


def _scaled(value: float | None, scale: float) -> str:
    return BLANK if value is None else significant(value / scale)


def _sizes(study: Study) -> Columns:
    ordered = sorted(study.sizes, key=lambda sized: (order(sized.model), sized.side))
    rows = [(sized, study.interval(sized)) for sized in ordered]
    return {
        "model": [sized.model for sized, _ in rows],
        "px": [size_text(sized.res) for sized, _ in rows],
        "batch": [str(sized.batch) for sized, _ in rows],
        "ms/image": [_time(sized, interval) for sized, interval in rows],
        "GMACs": [_scaled(sized.macs, 1e9) for sized, _ in rows],
        "eager MB": [_scaled(sized.eager_bytes, 1e6) for sized, _ in rows],
        "fused MB": [_scaled(sized.fused_bytes, 1e6) for sized, _ in rows],
        "MiB held": [_scaled(sized.held_bytes, MIB) for sized, _ in rows],
        "memory is": [_how(sized) for sized, _ in rows],
        "failed": [
            "; ".join(dict.fromkeys(f"batch {one.run.batch}: {one.status}" for one in sized.failed)) or BLANK
            for sized, _ in rows
        ],
    }


def _time(sized: Sized, interval: Interval | None) -> str:
    point = sized.point("time")
    if point is None:
        return sized.failed[-1].status
    text = significant(1e3 * point.cost)
    if interval is None:
        return f"{text} (n = {sum(map(len, sized.visits))}, no interval)"
    digits = len(text.partition(".")[2])
    return f"{text} {_interval(interval, 1e-3, digits)}"


def _how(sized: Sized) -> str:
    if sized.memory is None:
        return BLANK
    how = "predicted" if sized.memory.predicted else "measured"
    return how if sized.memory.use else f"{how}: {sized.memory.status}"


def _exponents(study: Study) -> Columns:
    rows = [
        (model, cost, fit)
        for model in _models(study)
        for cost, fit in resolution.fitted(study, model).items()
    ]
    return {
        "model": [model for model, _, _ in rows],
        "cost": [cost for _, cost, _ in rows],
        "e, exponent of the side": [_with(fit.slope, fit.interval, 3) for _, _, fit in rows],
        "95 % by residuals": [_interval(fit.by_residuals) for _, _, fit in rows],
        "off the line": [f"{100 * fit.misfit:.1f} %" for _, _, fit in rows],
        "from size to size": [", ".join(f"{one:.2f}" for one in fit.local) for _, _, fit in rows],
        "x per doubled side": [f"{fit.per_doubling:.2f}" for _, _, fit in rows],
        "batch": [
            resolution.spanned(study.batches((model,), cost, fit.sides)) or BLANK for model, cost, fit in rows
        ],
        "px": [f"{fit.sides[0]:.0f} to {fit.sides[-1]:.0f}, {len(fit.sides)} sizes" for _, _, fit in rows],
    }


def _of_falls() -> str:
    return (
        "*Published* is by how many times a paper's throughput falls from 256 to 512 px (FCDM Tables 3 and "
        "5, DiCo Tables 1 and 2), on whatever device and settings stand behind its two tables; where a model "
        "has none, its family's, by name. The verdict sets the measured interval beside it and beside the "
        f"growth of the MACs; within {100 * MARGIN:.0f} % is the same. {resolution.remark_on_falls()} "
        f"{TAKEN_OVER}: {resolution.TAKEN_OVER}."
    )


def _published(falls: Sequence[Fall]) -> str:
    found = [
        f"{fall.ratio:.2f}{TAKEN_OVER if fall.taken_over else ''} ({fall.paper}, {fall.model})"
        for fall in falls
    ]
    return ", ".join(found) or BLANK


def _doublings(study: Study) -> Columns:
    rows = [one for model in _models(study) for one in resolution.doublings(study, model) if one.time]

    def other(cost: str) -> list[str]:
        return [BLANK if (ratio := one.other(cost)) is None else f"{ratio:.2f}" for one in rows]

    return {
        "model": [one.model for one in rows],
        "px": [f"{one.from_side:.0f} to {one.to_side:.0f}" for one in rows],
        "measured: time x": [_with(one.time.ratio, one.time.interval, 2) for one in rows if one.time],
        "MACs x": other("MACs"),
        "bytes x": other("bytes"),
        "memory x": other("memory"),
        "published: time x": [_published(one.falls) for one in rows],
        "measured is": [one.verdict or BLANK for one in rows],
    }


def _contrasts(study: Study) -> Columns:
    rows = sorted(resolution.contrasts(study), key=lambda one: (order(one.model), one.from_side))
    return {
        "slow-down of": [f"{one.reference} / {one.model}" for one in rows],
        "px": [f"{one.from_side:.0f} to {one.to_side:.0f}" for one in rows],
        "measured": [_with(one.ratio, one.interval, 2) for one in rows],
        "of MACs": [BLANK if one.macs is None else f"{one.macs:.2f}" for one in rows],
        "published": [_published(one.published) for one in rows],
        "verdict": [one.verdict for one in rows],
    }


def _crossings(study: Study) -> Columns:
    rows = resolution.crossings(study)
    return {
        "models": [f"{one.first}, {one.second}" for one in rows],
        "cross at px": ["none" if one.at.side is None else f"{one.at.side:.0f}" for one in rows],
        "95 % interval": [_ends(one.at.interval, one.sides) for one in rows],
        "sizes, px": [f"{one.sides[0]:.0f} to {one.sides[1]:.0f}" for one in rows],
        "verdict": [one.verdict for one in rows],
    }


def _ends(interval: Interval | None, sides: tuple[float, float]) -> str:
    if interval is None:
        return BLANK
    low, high = interval
    left = f"below {sides[0]:.0f}" if low < sides[0] else f"{low:.0f}"
    right = f"above {sides[1]:.0f}" if high > sides[1] else f"{high:.0f}"
    return f"{left} to {right}"


# the plot


def _drawing(study: Study) -> Drawing:
    slug = re.sub(r"[^a-z0-9]+", "-", str(study.setting).lower()).strip("-")
    with matplotlib.rc_context(STYLE):
        return saved(f"scaling_{slug}", *curves(study))


def curves(study: Study) -> tuple[Figure, str, str]:
    """Draw a panel for every cost: one image's cost against the side, both logarithmic, and fitted lines."""
    shown = [cost for cost in COSTS if any(len(study.curve(m, cost).points) for m in study.models)]
    figure = new_figure(10.4, 4.4 * -(-len(shown) // 2))
    grid = figure.add_gridspec(-(-len(shown) // 2), min(2, len(shown)))
    for i, cost in enumerate(shown):
        _panel(figure.add_subplot(grid[i // 2, i % 2]), study, cost)
    title = f"Growth with resolution: {study.setting}"
    figure.suptitle(title, fontsize=10, weight="bold", x=0.01, ha="left")
    memory = f", memory is {_memory_is(study)}" if "memory" in shown else ""
    caption = (
        "One image's cost against the side in pixels, both logarithmic; lines are the fitted powers "
        "side^e, brackets the 95 % interval of e from the samples, parentheses the exponents from size to "
        "size, the least to the most, which a bend moves apart, and of times noise too. Whiskers: 95 % "
        "interval of the time. Points with whiskers stand side by side at their size; lines are at the true "
        "sides. "
        f"MACs and bytes are counted{memory}.{_shrunk(study)}"
    )
    return figure, title, caption


def _shrunk(study: Study) -> str:
    """Whose lines run through sizes of several batches."""
    batches = {
        model: study.batches((model,), "time", study.curve(model, "time").sides) for model in _models(study)
    }
    told = [f"{model} {text}" for model, of in batches.items() if (text := resolution.shrunk(of))]
    return (
        f" Memory ran out, so that the batch is not the same at every size: {', '.join(told)}."
        if told
        else ""
    )


def _memory_is(study: Study) -> str:
    """Whether what a picture shows of memory was measured."""
    return " or ".join(sorted({_how(sized) for sized in study.sizes if sized.point("memory")}))


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
        # side by side: whiskers of one size would hide each other
        shift = 2 ** (APART * (i - (len(models) - 1) / 2)) if any(intervals) else 1.0
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
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("side, px (log)")
    axes.set_ylabel(f"{unit} (log)")
    if cost == "memory":
        title += f", {_memory_is(study)}"
    axes.set_title(title, loc="left", fontsize=9, weight="bold")
    axes.legend(loc="upper left", frameon=False, fontsize=7.5, handletextpad=0.3, labelspacing=0.35)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** 0.35)  # room for the legend


def _label(model: str, fit: Exponent | None) -> str:
    if fit is None:
        return model
    least, most = f"{min(fit.local):.2f}", f"{max(fit.local):.2f}"
    bent = f" ({least} to {most})" if least != most else ""
    return f"{model}: e = {_with(fit.slope, fit.interval, 2)}{bent}"


def _line(sides: Sequence[float], costs: Sequence[float], fit: Exponent) -> tuple[list[float], list[float]]:
    """The fitted power through the middle of the points."""
    middle, level = geometric_mean(sides), geometric_mean(costs)
    ends = [min(sides), max(sides)]
    return ends, [level * (end / middle) ** fit.slope for end in ends]
