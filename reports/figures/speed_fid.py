"""The figure of README.md: speed as a multiple of DiT's against published FID, with measured points."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from reports.figures.plots import OTHER, STYLE, Drawing, colour_of, label_points, lay_out, new_figure, saved

MARKERS = "osD^v"  # by device


@dataclass(frozen=True, kw_only=True)
class Row:
    """A model with its published, counted and measured numbers; None is unknown."""

    model: str
    params_m: float | None  # counted, trainable
    gmacs: float | None  # counted by torchprofile's rules
    published_gmacs: str
    published_fid: float | None  # after 400K steps, without guidance
    published_ratio: float | None  # speed, as a multiple of that of the DiT of equal size
    measured: Mapping[str, tuple[float, float, float]]  # by device, the same ratio and its interval


def draw(rows: Sequence[Row]) -> Drawing:
    """Draw published ratios hollow and measured ones filled, at the published FID of their model."""
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7.2, 3.9)
        axes = figure.add_subplot()
        axes.set_yscale("log")
        labels, marks = [], []
        devices = sorted({device for row in rows for device in row.measured})
        marker_of = dict(zip(devices, itertools.cycle(MARKERS), strict=False))
        for row in rows:
            if row.published_fid is None or row.published_ratio is None:
                continue
            colour = colour_of(row.model)
            axes.plot(
                row.published_ratio, row.published_fid, "o", markerfacecolor="white", markeredgecolor=colour,
                markersize=7, zorder=3,
            )  # fmt: skip
            labels.append((row.model, row.published_ratio, row.published_fid, 49.0))
            for device, (value, low, high) in row.measured.items():
                axes.errorbar(
                    value, row.published_fid, xerr=[[value - low], [high - value]], color=colour,
                    fmt=marker_of[device], markersize=6, capsize=3, zorder=2,
                )  # fmt: skip
                marks += [(value, row.published_fid), (low, row.published_fid), (high, row.published_fid)]
        axes.yaxis.set_major_locator(FixedLocator([10, 15, 20, 30, 50, 70]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("speed as a multiple of the DiT of equal size")
        axes.set_ylabel("published FID after 400K steps, log scale")
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlim(0.3, 3.8)
        figure.legend(
            handles=[
                _mark("published", marker="o", markerfacecolor="white", markeredgecolor=OTHER),
                *(_mark(device, marker=marker_of[device], color=OTHER) for device in devices),
            ],
            loc="upper center",
            ncols=1 + len(devices),
            frameon=False,
            fontsize=8,
        )
        lay_out(figure, left=0.6, top=0.35)
        label_points(figure, axes, labels, marks)
        return saved(
            "speed_fid",
            figure,
            "Speed against published FID",
            "Hollow: published. Filled: measured on the CPUs of the table, with their 99 % intervals.",
        )


def _mark(label: str, **style: Any) -> Line2D:  # noqa: ANN401 - matplotlib's own keywords
    return Line2D([], [], linestyle="", label=label, **style)
