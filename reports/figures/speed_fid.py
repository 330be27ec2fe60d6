"""The figure of README.md: speed as a multiple of DiT's against published FID, with measured points."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from reports.figures.plots import OTHER, STYLE, Drawing, colour_of, label_points, new_figure, saved


@dataclass(frozen=True, kw_only=True)
class Row:
    """A model with its published, counted and measured numbers; None is unknown."""

    model: str
    params_m: float | None  # counted, trainable
    gmacs: float | None  # counted by torchprofile's rules
    published_gmacs: str
    published_fid: float | None  # after 400K steps, without guidance
    published_ratio: float | None  # speed, as a multiple of that of the DiT of equal size
    interleaved: tuple[float, float, float] | None  # median over runs, and all that a run's interval holds
    separate: float | None  # the same ratio in bf16, from passes timed one model after another


def draw(rows: Sequence[Row]) -> Drawing:
    """Draw published ratios hollow and measured ones filled, at the published FID of their model."""
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7.2, 3.9)
        axes = figure.add_subplot()
        axes.set_yscale("log")
        labels, marks = [], []
        for row in rows:
            if row.published_fid is None or row.published_ratio is None:
                continue
            colour = colour_of(row.model)
            axes.plot(
                row.published_ratio, row.published_fid, "o", markerfacecolor="white", markeredgecolor=colour,
                markersize=7, zorder=3,
            )  # fmt: skip
            labels.append((row.model, row.published_ratio, row.published_fid, 49.0))
            if row.interleaved:
                value, low, high = row.interleaved
                axes.errorbar(
                    value, row.published_fid, xerr=[[value - low], [high - value]], fmt="o", color=colour,
                    markersize=7, capsize=3, zorder=2,
                )  # fmt: skip
                marks += [(value, row.published_fid), (low, row.published_fid), (high, row.published_fid)]
            if row.separate:
                axes.plot(row.separate, row.published_fid, "D", color=colour, markersize=5, zorder=2)
                marks.append((row.separate, row.published_fid))
        axes.yaxis.set_major_locator(FixedLocator([10, 15, 20, 30, 50, 70]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("speed as a multiple of the DiT of equal size")
        axes.set_ylabel("published FID after 400K steps, log scale")
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlim(0.8, 3.8)
        figure.legend(
            handles=[
                _mark("published", marker="o", markerfacecolor="white", markeredgecolor=OTHER),
                _mark("measured, fp32", marker="o", color=OTHER),
                _mark("measured, bf16", marker="D", color=OTHER, markersize=5),
            ],
            loc="outside upper center",
            ncols=3,
            frameon=False,
            fontsize=8,
        )
        label_points(figure, axes, labels, marks)
        return saved(
            "speed_fid",
            figure,
            "Speed against published FID",
            "Hollow: published. Filled: measured on the CPU of the table, with the range of its runs.",
        )


def _mark(label: str, **style: Any) -> Line2D:  # noqa: ANN401 - matplotlib's own keywords
    return Line2D([], [], linestyle="", label=label, **style)
