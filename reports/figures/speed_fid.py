"""The figure of README.md: speed as a multiple of DiT's against published FID, with measured points."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
)
from reports.naming import OTHER

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


@styled
def draw(rows: Sequence[Row]) -> Drawing:
    """Draw published ratios hollow and measured ones filled, at the published FID of their model."""
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
    log_axis(axes, "y", *axes.get_ylim(), places=[10, 15, 20, 30, 50, 70])
    axes.set_xlabel("speed as a multiple of the DiT of equal size")
    axes.set_ylabel("published FID after 400K steps, log scale")
    axes.grid(color="#e4e4e4")
    axes.set_xlim(0.3, 3.8)
    handles = [mark("published", marker="o", markerfacecolor="white", markeredgecolor=OTHER)]
    handles += [mark(device, marker=marker_of[device], color=OTHER) for device in devices]
    figure.legend(handles=handles, loc="upper center", ncols=len(handles))
    lay_out(figure, left=0.6, top=0.35)
    label_points(figure, axes, labels, marks)
    return saved(
        "speed_fid",
        figure,
        "Speed against published FID",
        "Hollow: published. Filled: measured on the CPUs of the table, with their 99 % intervals.",
    )
