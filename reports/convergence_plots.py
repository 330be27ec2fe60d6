"""Draws the plots of the report's section on training convergence."""

import math
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench import curves
from bench.curves import Axis, Study
from reports.naming import size
from reports.plots import COLOURS, STYLE, Drawing, colour_of, new_figure, saved

DASHES = ("-", "--", ":", "-.")
PANELS: dict[Axis, str] = {
    "steps": "steps of the optimizer",
    "flops": "training FLOPs",
    "seconds": "seconds of training",
    "joules": "joules of the device",
}
Lines = Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]  # table -> model -> (step, FID)


def draw(study: Study, name: str, fids: Mapping[str, float], published: Lines) -> list[Drawing]:
    """Draw the curves of a study, its differences by timestep, and the papers beside it."""
    with matplotlib.rc_context(STYLE):
        drawings = [saved(f"convergence_{name}_loss", *losses(study))]
        if study.others and any(curves.bin_differences(study, model) for model in study.others):
            drawings.append(saved(f"convergence_{name}_timesteps", *timesteps(study)))
        drawings.append(saved(f"convergence_{name}_papers", *papers(study, fids, published)))
    return drawings


def _dashes(study: Study) -> dict[str, str]:
    """Arms of one family share a colour: they differ in the dashes."""
    arms = list(study.arms)
    alike = {model: [other for other in arms if colour_of(other) == colour_of(model)] for model in arms}
    return {model: DASHES[alike[model].index(model) % len(DASHES)] for model in arms}


def _seeds(study: Study) -> str:
    counts = sorted({len(runs) for runs in study.arms.values()})
    return (
        f"{counts[0]} seed{'s' if counts[-1] > 1 else ''}"
        if len(counts) == 1
        else f"{counts[0]} to {counts[-1]} seeds"
    )


def _curve(axes: Axes, study: Study, model: str, axis: Axis, dashes: str) -> list[float]:
    """Draw the mean and the range of the seeds behind step 0; returns the means."""
    points = [point for point in curves.mean_curve(study, model, axis) if point.place > 0]
    places = [point.place for point in points]
    means = [point.loss.mean for point in points]
    colour = colour_of(model)
    axes.plot(places, means, color=colour, linestyle=dashes, linewidth=1.5, label=model, zorder=3)
    axes.fill_between(
        places,
        [min(point.loss.values) for point in points],
        [max(point.loss.values) for point in points],
        color=colour,
        alpha=0.2,
        linewidth=0,
    )
    return means


def _grid(axes: Axes) -> None:
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _log_loss(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis of losses whose ticks are plain numbers, some five of them."""
    low, high = min(values), max(values)
    axes.set_yscale("log")
    axes.set_ylim(low / (high / low) ** 0.06, high * (high / low) ** 0.06)
    axes.set_yticks(_ticks(low, high))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.yaxis.set_minor_locator(LogLocator(subs=()))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers within a range, of the coarsest kind that gives four or more."""
    span = high - low
    for mantissas in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [m * 10.0**p for p in powers for m in mantissas if low <= m * 10.0**p <= high]
        if len(found) >= 4:
            return found
    step = 10.0 ** math.floor(math.log10(span / 3))
    step *= next((m for m in (5, 2, 1) if span / (m * step) >= 3), 1)
    first = math.ceil(low / step)
    return [i * step for i in range(first, math.floor(high / step) + 1)]


def losses(study: Study) -> tuple[Figure, str, str]:
    """Draw the validation loss against steps, training FLOPs, seconds and, where they were read, joules."""
    axes_of = [axis for axis in PANELS if all(curves.mean_curve(study, model, axis) for model in study.arms)]
    recipe = study.setting.recipe
    figure = new_figure(1.2 + 3.3 * len(axes_of), 4.0)
    dashes = _dashes(study)
    panels = figure.subplots(1, len(axes_of), sharey=True, squeeze=False)[0]
    for axes, axis in zip(panels, axes_of, strict=True):
        axes.set_xscale("log")
        means = [mean for model in study.arms for mean in _curve(axes, study, model, axis, dashes[model])]
        _log_loss(axes, means)
        text = f"{PANELS[axis]}, each of {recipe.batch} images" if axis == "steps" else PANELS[axis]
        axes.set_xlabel(f"{text} (log)", fontsize=8)
        _grid(axes)
    panels[0].set_ylabel("validation loss (log)")
    title = f"Validation loss on {recipe.data}: mean of {_seeds(study)}, {study.setting.precision}"
    figure.suptitle(title, fontsize=10, weight="bold", x=0.01, ha="left")
    figure.legend(
        handles=panels[0].get_legend_handles_labels()[0],
        loc="outside lower center",
        ncols=min(6, len(study.arms)),
        frameon=False,
    )
    caption = (
        f"Line: mean of {_seeds(study)}; band: from the lowest to the highest seed. Trained weights, "
        f"measured here on {study.setting.device}; seconds are that device's. Step 0 has no place on a "
        "logarithmic axis."
    )
    return figure, title, caption


def timesteps(study: Study) -> tuple[Figure, str, str]:
    """Draw each arm's difference to the reference by range of timesteps, in per cent."""
    found = {model: curves.bin_differences(study, model) for model in study.others}
    found = {model: bins for model, bins in found.items() if bins}
    count = min(len(bins) for bins in found.values())
    figure = new_figure(max(6.0, 2.0 + 0.16 * count * (len(found) + 1)), 3.6)
    axes = figure.add_subplot()
    wide = 0.8 / len(found)
    dashes = _dashes(study)
    for i, (model, bins) in enumerate(found.items()):
        estimates = [bins[k].percent for k in range(count)]
        places = [k + (i - (len(found) - 1) / 2) * wide for k in range(count)]
        means = [estimate.mean for estimate in estimates]
        colour = colour_of(model)
        filled = dashes[model] == DASHES[0]
        axes.bar(
            places, means, wide * 0.9, label=model, zorder=2, edgecolor=colour, linewidth=0.8,
            color=colour if filled else "white",
        )  # fmt: skip
        intervals = [estimate.interval for estimate in estimates]
        for place, mean, interval in zip(places, means, intervals, strict=True):
            if interval is not None:
                axes.errorbar(
                    place, mean, yerr=[[mean - interval[0]], [interval[1] - mean]],
                    color="#333333", capsize=1.5, linewidth=0.8, fmt="none", zorder=3,
                )  # fmt: skip
    axes.axhline(0, color="#333333", linewidth=0.8, zorder=2)
    axes.set_xticks(range(count), [f"{k / count:.3g} to\n{(k + 1) / count:.3g}" for k in range(count)])
    axes.tick_params(axis="x", labelsize=8, length=0)
    axes.set_xlabel("timesteps, from little noise (0) to much (1)", fontsize=8)
    axes.set_ylabel(f"loss less {study.reference}'s, % of it")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    recipe = study.setting.recipe
    title = f"Where in the noise the losses differ: {recipe.data}, step {recipe.steps:,}"
    axes.set_title(title, loc="left", weight="bold", fontsize=10)
    figure.legend(loc="outside lower center", ncols=min(6, len(found)), frameon=False)
    caption = (
        f"Below zero a model's loss is lower than that of {study.reference} at the same step. Whiskers: 95 % "
        "interval of the mean over seeds, differences taken within a seed (none below three seeds)."
    )
    return figure, title, caption


def papers(study: Study, fids: Mapping[str, float], published: Lines) -> tuple[Figure, str, str]:
    """Draw the published FID by step, our loss by step, and the one's end against the other's."""
    figure = new_figure(12.0, 4.4)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.25, 1.0, 1.0))
    _published(left, published)
    dashes = _dashes(study)
    means = [mean for model in study.arms for mean in _curve(middle, study, model, "steps", dashes[model])]
    middle.set_xscale("log")
    _log_loss(middle, means)
    middle.set_xlabel("steps (log)", fontsize=8)
    middle.set_ylabel("validation loss (log)")
    middle.set_title("Measured here: loss", loc="left", fontsize=9, weight="bold")
    middle.legend(frameon=False, fontsize=8, loc="lower left")
    _grid(middle)
    _ends(right, study, fids)
    recipe = study.setting.recipe
    title = f"Published FID by step, and the loss of a short run on {recipe.data}"
    figure.suptitle(title, fontsize=10, weight="bold", x=0.01, ha="left")
    caption = (
        "Left: FID on ImageNet at 256 px without guidance, as FCDM Table 8 (diffusion), FCDM Table 9 (flow "
        "matching, dashed) and DiCo Table 7 print it. Middle: validation loss measured here, mean and range "
        "of seeds. Right: that loss at the last step (whiskers: range of seeds) against the published FID "
        "after 400K steps (FCDM Table 3)"
        + (", of the family's S where a size is ours." if any(size(model) == "Ti" for model in fids) else ".")
    )
    return figure, title, caption


def _published(axes: Axes, published: Lines) -> None:
    for table, lines in published.items():
        flow = "flow" in table
        for model, line in lines.items():
            values = [fid for _, fid in line]
            axes.plot(
                [step / 1e3 for step, _ in line], values, color=colour_of(model), linewidth=1.3,
                linestyle="--" if flow else "-", alpha=0.7 if flow else 1.0,
            )  # fmt: skip
    ends: dict[str, list[float]] = {}
    for lines in published.values():
        for model, line in lines.items():
            ends.setdefault(size(model), []).append(line[-1][1])
    for letters, values in ends.items():
        middle = math.exp(sum(map(math.log, values)) / len(values))
        axes.annotate(
            letters, (400, middle), xytext=(5, 0), textcoords="offset points", fontsize=8, va="center"
        )
    axes.set_yscale("log")
    axes.set_yticks([10, 15, 20, 30, 50, 70, 100], ["10", "15", "20", "30", "50", "70", "100"])
    axes.yaxis.set_minor_locator(LogLocator(subs=()))
    axes.set_xticks([100, 200, 300, 400], ["100K", "200K", "300K", "400K"])
    axes.set_xlim(35, 440)
    axes.set_xlabel("steps", fontsize=8)
    axes.set_ylabel("FID (log)")
    axes.set_title("Published: FID by step and size", loc="left", fontsize=9, weight="bold")
    axes.legend(
        handles=[
            Line2D([], [], color=COLOURS["FCDM"], label="FCDM, diffusion"),
            Line2D([], [], color=COLOURS["FCDM"], linestyle="--", alpha=0.7, label="FCDM, flow matching"),
            Line2D([], [], color=COLOURS["DiCo"], label="DiCo, diffusion"),
        ],
        frameon=False,
        fontsize=8,
        loc="upper right",
    )
    _grid(axes)


def _ends(axes: Axes, study: Study, fids: Mapping[str, float]) -> None:
    axes.set_title("Loss here, FID there", loc="left", fontsize=9, weight="bold")
    if not fids:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no arm has a published FID", ha="center", transform=axes.transAxes, fontsize=8)
        return
    found = {model: curves.final_loss(study, model) for model in fids}
    for model, fid in fids.items():
        loss = found[model]
        reach = [[loss.mean - min(loss.values)], [max(loss.values) - loss.mean]]
        axes.errorbar(loss.mean, fid, xerr=reach, fmt="o", color=colour_of(model), capsize=2.5, markersize=6)
    low = min(min(loss.values) for loss in found.values())
    high = max(max(loss.values) for loss in found.values())
    room = (high - low) * 0.15 or 0.1 * high
    axes.set_xlim(low - room, high + room)
    middle = (low + high) / 2
    for model, fid in fids.items():
        onwards = found[model].mean <= middle
        axes.annotate(
            model, (found[model].mean, fid), xytext=(0, 8), textcoords="offset points",
            ha="left" if onwards else "right", va="bottom", fontsize=8, color="#222222",
        )  # fmt: skip
    span = max(fids.values()) - min(fids.values())
    axes.set_ylim(min(fids.values()) - 0.08 * span - 0.5, max(fids.values()) + 0.15 * span + 0.5)
    axes.set_xlabel("validation loss at the last step", fontsize=8)
    axes.set_ylabel("published FID after 400K steps")
    _grid(axes)
