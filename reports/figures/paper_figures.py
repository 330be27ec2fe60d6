"""Figures of the papers whose numbers their tables print: FCDM's Figure 6 and DiCo's Figure 3."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bench.tables.numbers import significant
from reports.figures.plots import (
    Drawing,
    colour_of,
    label_points,
    lay_out,
    log_axis,
    mark,
    new_figure,
    saved,
    styled,
    width_of,
)
from reports.naming import OTHER

SHAPES = ("o", "D")  # of measured settings


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training of FCDM Table 4 at 256 px; costs in 1e21 MACs, None is not printed or not counted."""

    model: str
    epochs: str  # as printed
    cost: float  # from the published MACs
    counted: float | None  # from the MACs counted here
    images_per_s: float | None  # published
    fid: float  # published, with guidance


@styled
def trainings(rows: Sequence[Training]) -> Drawing:
    """Draw FCDM's Figure 6: cost of a training, throughput and FID, the cheapest training first."""
    rows = sorted(rows, key=lambda row: row.cost)
    figure = new_figure(10.4, 1.5 + 0.34 * len(rows))
    left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=(1.25, 1.0, 0.8))
    for at, row in enumerate(rows):
        colour = colour_of(row.model)
        _bar(left, at, row.cost, f"{row.cost:.3f}", colour, end=max(row.cost, row.counted or 0.0))
        if row.counted is not None:
            left.plot([row.counted] * 2, [at - 0.42, at + 0.42], color="black", linewidth=1.6, zorder=3)
        if row.images_per_s is None:
            middle.text(0.01, at, "not printed", transform=middle.get_yaxis_transform(), color="#777777",
                        fontsize=8, va="center")  # fmt: skip
        else:
            _bar(middle, at, row.images_per_s, significant(row.images_per_s), colour)
        right.plot(row.fid, at, "o", color=colour, markersize=7)
        right.annotate(f"{row.fid:.2f}", (row.fid, at), xytext=(7, 0), textcoords="offset points",
                       fontsize=8, va="center")  # fmt: skip
    names = [f"{row.model}, {row.epochs} epochs" for row in rows]
    left.set_yticks(range(len(rows)), names)
    left.set_ylim(len(rows) - 0.45, -0.6)
    heads = ("Training, 1e21 MACs (less is better)", "Images/s (more is better)", "FID with guidance")
    for axes, head in zip((left, middle, right), heads, strict=True):
        axes.set_title(head, weight="bold")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="x", color="#e4e4e4")
        axes.margins(x=0.16)
    left.set_xlim(left=0)
    middle.set_xlim(left=0)
    if any(row.counted is not None for row in rows):
        stroke = mark("counted here", marker="|", color="black", markersize=10)
        left.legend(handles=[stroke], loc="upper right")
    title = "Cost of a training, throughput and FID: 256 px, published"
    lay_out(
        figure, title,
        left=width_of(names, 9) + 0.15, right=0.3, bottom=0.3, across=0.25,
    )  # fmt: skip
    caption = (
        "The rows of FCDM Table 4 with epochs and MACs, as in FCDM's Figure 6. A training is 3 x MACs x "
        "epochs x 1.28 million images, a MAC counted once. Bars: from the published MACs; strokes: from "
        "those counted here. The FIDs are with guidance."
    )
    return saved("fcdm_figure06", figure, title, caption)


def _bar(axes: Axes, at: int, value: float, text: str, colour: str, end: float = 0.0) -> None:
    """Draw a bar with its number after it, or after `end` where that is further."""
    axes.barh(at, value, height=0.62, color=colour, alpha=0.85, zorder=2)
    axes.annotate(
        text, (max(value, end), at), xytext=(5, 0), textcoords="offset points", fontsize=8, va="center"
    )


@dataclass(frozen=True, kw_only=True)
class Pass:
    """The measured time of an image, in ms, with its interval."""

    model: str
    ms: float
    interval: tuple[float, float] | None


@styled
def runtimes(
    published: Sequence[tuple[str, float, float]], device: str, measured: Mapping[str, Sequence[Pass]]
) -> Drawing:
    """Draw DiCo's Figure 3: ms of an image at 512 px against FID, published and measured here."""
    figure = new_figure(10.4 if measured else 6.4, 4.3)
    left, *rest = figure.subplots(1, 1 + bool(measured), squeeze=False)[0]
    for model, ms, fid in published:
        left.plot(ms, fid, "o", markerfacecolor="white", markeredgecolor=colour_of(model), markersize=8,
                  markeredgewidth=1.6)  # fmt: skip
    left.set_xlabel("ms an image, from the published images/s (log)")
    left.set_ylabel("lowest published FID")
    left.set_title("Published: DiCo Table 2", weight="bold")
    left.margins(y=0.14)
    _logarithmic(left, [ms for _, ms, _ in published], room=1.6)
    for axes in rest:
        _measured(axes, device, measured)
    title = "Time of an image at 512 px"
    names = [one.model for of in measured.values() for one in of]
    lay_out(figure, title, left=0.6, across=width_of(names, 9) + 0.3)
    label_points(figure, left, [(model, ms, fid, 64.0) for model, ms, fid in published])
    caption = "The cells of DiCo Table 2, as in DiCo's Figure 3: one denoising pass, batch / images/s."
    if measured:
        caption += " On the right the passes measured here, with their intervals: another device."
    return saved("dico_figure03", figure, title, caption)


def _measured(axes: Axes, device: str, measured: Mapping[str, Sequence[Pass]]) -> None:
    slowest: dict[str, float] = {}
    for one in (one for of in measured.values() for one in of):
        slowest[one.model] = max(one.ms, slowest.get(one.model, 0.0))
    models = sorted(slowest, key=lambda model: slowest[model])
    ends: list[float] = []
    for i, (of, shape) in enumerate(zip(measured.values(), SHAPES, strict=False)):
        for one in of:
            at, (low, high) = models.index(one.model) + 0.3 * i - 0.15, one.interval or (one.ms, one.ms)
            axes.errorbar(one.ms, at, xerr=[[one.ms - low], [high - one.ms]], fmt=shape, markersize=6,
                          color=colour_of(one.model), capsize=3, linewidth=1.2)  # fmt: skip
            ends += [low, high]
    axes.set_yticks(range(len(models)), models)
    axes.set_ylim(len(models) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("ms an image (log)")
    axes.set_title(f"Measured: {device}", weight="bold")
    shapes = zip(measured, SHAPES, strict=False)
    axes.legend(handles=[mark(name, marker=shape, color=OTHER, markersize=6) for name, shape in shapes])
    _logarithmic(axes, ends, room=1.25)


def _logarithmic(axes: Axes, values: Sequence[float], room: float) -> None:
    """Make the horizontal axis logarithmic, with round ticks and a factor of room to either side."""
    log_axis(axes, "x", min(values) / room, max(values) * room, "{:,.10g}".format)
    axes.grid(color="#e4e4e4")
