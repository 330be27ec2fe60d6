"""The plots of the report's section on training convergence."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bench.analysis.learning import learning_curves
from bench.analysis.learning.learning_curves import Axis, MeanPoint, TrainingStudy
from reports import objectives
from reports.figures.plots import Drawing, colour_of, lay_out, legend, log_axis, new_figure, saved, styled
from reports.naming import size
from reports.selection import grouped

DASHES = ("-", "--", ":", "-.")
PANELS: dict[Axis, str] = {
    "steps": "steps of the optimizer",
    "flops": "training FLOPs",
    "seconds": "seconds of training",
    "joules": "joules of the device",
}
Lines = Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]  # table -> model -> (step, FID)


def _dashes(study: TrainingStudy) -> dict[str, str]:
    """Dashes by model: models of one colour have different dashes."""
    groups = grouped(study.models, colour_of).values()
    return {model: DASHES[n % len(DASHES)] for group in groups for n, model in enumerate(group)}


def _seeds(study: TrainingStudy) -> str:
    counts = sorted({len(study.runs_of(model)) for model in study.models})
    return " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))) + " seed" + "s" * (counts[-1] > 1)


def _points(study: TrainingStudy, model: str, axis: Axis) -> list[MeanPoint]:
    """The points of a model's mean curve that a logarithmic axis can show."""
    return [point for point in learning_curves.mean_curve(study, model, axis) if point.position > 0]


def axes_of(study: TrainingStudy) -> list[Axis]:
    """The axes on which a study is drawn; empty if none has a point."""
    return [
        axis
        for axis in PANELS
        if axis in study.axes and any(_points(study, model, axis) for model in study.models)
    ]


def undrawn(study: TrainingStudy) -> list[str]:
    """The models without a point against steps."""
    return [model for model in study.models if not _points(study, model, "steps")]


def _curves(axes: Axes, study: TrainingStudy, axis: Axis) -> None:
    """Draw the mean and the range of seeds of every model on logarithmic axes, without step 0."""
    positions, reached = [], []
    dashes = _dashes(study)
    for model in study.models:
        points = _points(study, model, axis)
        at = [point.position for point in points]
        lows = [min(point.loss.values) for point in points]
        highs = [max(point.loss.values) for point in points]
        colour = colour_of(model)
        means = [point.loss.mean for point in points]
        axes.plot(at, means, color=colour, linestyle=dashes[model], linewidth=1.5, label=model, zorder=3)
        axes.fill_between(at, lows, highs, color=colour, alpha=0.2, linewidth=0)
        positions += at
        reached += lows + highs
    log_axis(axes, "x", *_with_room(positions), written)
    log_axis(axes, "y", *_with_room(reached), written)
    axes.grid(color="#dddddd")


def _with_room(values: Sequence[float]) -> tuple[float, float]:
    """The ends of a logarithmic axis."""
    low, high = min(values), max(values)
    room = (high / low) ** 0.05 if high > low else 1.1
    return low / room, high * room


def written(value: float) -> str:
    """Format a number as 500, 2K or 30T."""
    for letter, unit in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if value >= unit * 0.999:
            return f"{value / unit:.6g}{letter}"
    return f"{value:.6g}"


@styled
def draw(study: TrainingStudy, name: str) -> Drawing:
    """Draw the validation loss against steps, training FLOPs and, where measured, seconds and joules.

    The study has at least one of `axes_of`.
    """
    drawn = axes_of(study)
    recipe = study.setting.recipe
    figure = new_figure(1.2 + 3.3 * len(drawn), 4.0)
    panels = figure.subplots(1, len(drawn), squeeze=False)[0]
    for axes, axis in zip(panels, drawn, strict=True):
        _curves(axes, study, axis)
        axes.set_ylim(panels[0].get_ylim())  # every evaluation has a step, but not joules
        text = f"{PANELS[axis]}, each of {recipe.batch} images" if axis == "steps" else PANELS[axis]
        axes.set_xlabel(f"{text} (log)", fontsize=8)
    panels[0].set_ylabel("validation loss (log)")
    of = f"{recipe.data}, {objectives.NAMES[recipe.objective]}"
    title = f"Validation loss on {of}: mean of {_seeds(study)}, {study.setting.precision}"
    handles = panels[0].get_legend_handles_labels()[0]
    below = legend(figure, handles, min(6, len(handles)))
    lay_out(figure, title, left=0.75, top=0.4, bottom=0.5 + below, across=0.6)
    caption = (
        f"Line: mean of {_seeds(study)}; band: from the lowest to the highest seed. Trained weights, "
        f"measured on {study.setting.device}. Step 0 is not on a logarithmic axis."
    )
    return saved(f"convergence_{name}_loss", figure, title, caption)


@styled
def draw_published(published: Lines) -> Drawing:
    """Draw the FID by step that the papers print."""
    figure = new_figure(5.4, 4.6)
    axes = figure.add_subplot()
    handles = []
    for table, lines in published.items():
        flow = "flow" in table
        style: Any = {
            "color": colour_of(next(iter(lines))),
            "linestyle": "--" if flow else "-",
            "alpha": 0.7 if flow else 1.0,
        }
        handles.append(Line2D([], [], label=table, **style))
        for line in lines.values():
            axes.plot([step / 1e3 for step, _ in line], [fid for _, fid in line], linewidth=1.3, **style)
    ends = [(size(model), line[-1][1]) for lines in published.values() for model, line in lines.items()]
    for letters, of in grouped(ends, lambda end: end[0]).items():
        middle = math.exp(sum(math.log(fid) for _, fid in of) / len(of))
        axes.annotate(
            letters, (400, middle), xytext=(5, 0), textcoords="offset points", fontsize=8, va="center"
        )
    axes.set_yscale("log")
    log_axis(axes, "y", *axes.get_ylim(), places=[10, 15, 20, 30, 50, 70, 100])
    axes.set_xticks([100, 200, 300, 400], ["100K", "200K", "300K", "400K"])
    axes.set_xlim(35, 440)
    axes.set_xlabel("steps", fontsize=8)
    axes.set_ylabel("FID (log)")
    title = "Published FID by step and size"
    axes.set_title(title, weight="bold")
    axes.legend(handles=handles, loc="upper right")
    axes.grid(color="#dddddd")
    lay_out(figure, left=0.55, right=0.2, top=0.3)
    caption = (
        "FID on ImageNet at 256 px without guidance, as FCDM Table 8 (diffusion), FCDM Table 9 (flow "
        "matching, dashed) and DiCo Table 7 print it."
    )
    return saved("published_fid_by_step", figure, title, caption)
