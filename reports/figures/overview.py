"""The figures of the overview: MACs against FID, images/s, speed relative to DiT."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from baselines import load
from bench.records.base import Size, Skipped, height_width, size_text
from reports.figures.plots import (
    OTHER,
    PAPER_MARKS,
    STYLE,
    Drawing,
    colour_of,
    dot,
    hollow,
    label_points,
    new_figure,
    saved,
    settle,
)
from reports.markdown import images
from reports.naming import COLOURS, SIZES, family, order, size
from reports.published import measured_ratio, published_ratios
from reports.selection import Evidence, Setting, Timing

RATIO_TABLES = {256: ("fcdm_table03", "dico_table01"), 512: ("fcdm_table05", "dico_table02")}


def draw(evidence: Evidence) -> list[Drawing]:
    """Draw the figures with data in the records; the figure of MACs against FID needs none."""
    with matplotlib.rc_context(STYLE):
        drawings = [saved("macs_fid", *macs_against_fid(evidence))]
        for setting in evidence.settings:
            if any(evidence.images_per_s(setting, t.case.model, t.case.res) for t in evidence.timings):
                drawings.append(saved(f"throughput_{_slug(setting)}", *throughput_bars(evidence, setting)))
            ratios = _ratios(evidence, setting)
            if ratios:
                drawings.append(saved(f"speed_ratio_{_slug(setting)}", *speed_ratios(setting, ratios)))
    return drawings


def _slug(setting: Setting) -> str:
    return re.sub(r"[^a-z0-9]+", "-", str(setting).lower()).strip("-")


# MACs against FID


@dataclass(frozen=True, kw_only=True)
class _Point:
    model: str
    gmacs: float
    counted: bool
    fid: float
    params: int | None


def macs_against_fid(evidence: Evidence) -> tuple[Figure, str, str]:
    """Plot FCDM Table 3's rows at 400K steps: work on x, published FID on y, parameters as area."""
    points = _points(evidence)
    figure = new_figure(8.4, 6.0)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_yscale("log")
    for name in sorted({family(point.model) for point in points}):
        line = sorted((point.gmacs, point.fid) for point in points if family(point.model) == name)
        axes.plot(*zip(*line, strict=True), color=COLOURS.get(name, OTHER), linewidth=1, alpha=0.35, zorder=1)
    for point in points:
        colour = colour_of(point.model)
        axes.scatter(
            point.gmacs,
            point.fid,
            s=_area(point.params),
            facecolor=colour if point.counted else "white",
            edgecolor=colour,
            linewidth=1.5,
            alpha=0.85 if point.counted else 1.0,
            marker="o" if point.params else "D",
            zorder=2,
        )
    axes.set_xlim(2, 330)
    axes.set_ylim(9, 80)
    axes.set_xticks([2, 5, 10, 20, 50, 100, 200], ["2", "5", "10", "20", "50", "100", "200"])
    axes.set_yticks([10, 15, 20, 30, 40, 50, 60, 70], ["10", "15", "20", "30", "40", "50", "60", "70"])
    axes.minorticks_off()
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(
        "GMACs of one forward pass, 256 px, one image (log; filled: counted here, hollow: published)"
    )
    axes.set_ylabel("FID after 400K steps, published (log; lower is better)")
    title = "GMACs against published FID: 256 px, 400K steps, no guidance"
    axes.set_title(title, loc="left", weight="bold")
    axes.legend(
        handles=[
            *(
                dot(colour, name, 8.0)
                for name, colour in COLOURS.items()
                if any(family(p.model) == name for p in points)
            ),
            *(dot("#bbbbbb", f"{m} M params", _area(m * 1_000_000) ** 0.5) for m in (30, 130, 700)),
            *([_diamond()] if any(p.params is None for p in points) else []),
        ],
        loc="lower left",
        frameon=False,
        ncols=2,
        labelspacing=1.1,
        columnspacing=2.0,
    )
    settle(figure)
    label_points(figure, axes, [(p.model, p.gmacs, p.fid, _area(p.params)) for p in points])
    counted = sum(point.counted for point in points)
    caption = (
        f"FID as FCDM Table 3 prints it. {counted} of {len(points)} models are placed by GMACs counted here "
        "(filled), the others by the published number (hollow). "
        "Bubble area: parameters, counted here or on the released code; a diamond where neither has them. "
        "FCDM-XL's FID is with EQ-VAE, which the others do not use; with SD-VAE it is 11.57 (FCDM Table 11)."
    )
    return figure, title, caption


def _points(evidence: Evidence) -> list[_Point]:
    released = load.macs()
    points = []
    for row in load.table("fcdm_table03").rows:
        model, fid, published = row["model"].as_printed, row["fid"].value, row["gflops"].value
        if row["train_steps"].as_printed != "400K" or fid is None or published is None:
            continue
        count = evidence.count(model, 256)
        params = count.params if count else released[model, 32][0] if (model, 32) in released else None
        gmacs = count.macs / count.case.batch / 1e9 if count else published
        points.append(_Point(model=model, gmacs=gmacs, counted=count is not None, fid=fid, params=params))
    return sorted(points, key=lambda point: order(point.model))


def _area(params: int | None) -> float:
    """Area of a bubble in square points; small and fixed if the parameters are unknown."""
    return 36.0 if params is None else params / 1e6 * 0.9


def _diamond() -> Line2D:
    return Line2D(
        [], [], linestyle="", marker="D", markersize=6, markerfacecolor="white", markeredgecolor=OTHER,
        label="params not known",
    )  # fmt: skip


# throughput

Panel = tuple[bool, int, str]  # whether the patch exceeds 2, rank of the size, its letters
Speeds = dict[tuple[Size, Panel], list[Timing]]


def _speeds(evidence: Evidence, setting: Setting) -> Speeds:
    speeds: Speeds = {}
    names = sorted({timing.case.model for timing in evidence.timings}, key=order)
    sizes = sorted({timing.case.res for timing in evidence.timings}, key=height_width)
    for res in sizes:
        for name in names:
            timing = evidence.timing(setting, name, res)
            if timing is not None:
                speeds.setdefault((res, _panel(name)), []).append(timing)
    return speeds


def _panel(model: str) -> Panel:
    """Panel of a model: one for each size, and separate ones for models with larger patches."""
    letters, patch = size(model), re.search(r"/(\d+)", model)
    coarse = patch is not None and patch[1] != "2"
    return coarse, SIZES.index(letters) if letters in SIZES else len(SIZES), letters


def throughput_bars(evidence: Evidence, setting: Setting) -> tuple[Figure, str, str]:
    """Draw one panel for each resolution and size, each with its own scale."""
    speeds = _speeds(evidence, setting)
    columns = sorted({res for res, _ in speeds}, key=height_width)
    rows = sorted({panel for _, panel in speeds})
    heights = [max(len(speeds.get((res, panel), [])) for res in columns) for panel in rows]
    figure = new_figure(1.2 + 5.0 * len(columns), 1.1 + 0.30 * sum(heights) + 0.45 * len(rows))
    grid = figure.add_gridspec(len(rows), len(columns), height_ratios=[h + 0.6 for h in heights])
    for i, panel in enumerate(rows):
        for j, res in enumerate(columns):
            timings = speeds.get((res, panel), [])
            axes = figure.add_subplot(grid[i, j])
            _bars(axes, timings, heights[i])
            if i == 0:
                axes.set_title(f"{size_text(res)} px", loc="left", fontsize=9, weight="bold")
    title = f"Images/s measured here: {setting}"
    figure.suptitle(title, fontsize=10, weight="bold", x=0.01, ha="left")
    figure.supxlabel(
        "images/s, median of one forward pass; whiskers: 95 % interval; every panel has its own scale",
        fontsize=8,
    )
    caption = (
        "Median of the timed passes; whiskers and brackets: its 95 % interval. Every panel has its own scale."
    )
    return figure, title, caption


def _bars(axes: Axes, timings: Sequence[Timing], slots: int) -> None:
    highest = max((t.images_per_s or 0.0 for t in timings), default=0.0) or 1.0
    for i, timing in enumerate(timings):
        rate, reach = timing.images_per_s or 0.0, timing.images_per_s or 0.0
        if not isinstance(timing.record, Skipped):
            interval = timing.record.images_per_s_interval
            axes.barh(i, rate, color=colour_of(timing.case.model), height=0.72)
            if interval is not None:
                reach = max(rate, interval[1])
                axes.errorbar(
                    rate, i, xerr=[[rate - interval[0]], [interval[1] - rate]],
                    color="black", capsize=2.5, linewidth=1, fmt="none",
                )  # fmt: skip
        axes.text(reach + highest * 0.02, i, images(timing.record), va="center", fontsize=8)
    axes.set_yticks(range(len(timings)), [timing.case.model for timing in timings])
    axes.set_ylim(slots - 0.4, -0.6)
    axes.set_xlim(0, highest * 1.5)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=7.5)
    if not timings:
        axes.set_axis_off()


# measured against published ratio to DiT


@dataclass(frozen=True, kw_only=True)
class _Ratio:
    res: int
    model: str
    measured: float
    published: tuple[tuple[str, float], ...]  # (paper, ratio)


def _ratios(evidence: Evidence, setting: Setting) -> list[_Ratio]:
    """Collect the models, without DiT, that have a measured and a published ratio to DiT."""
    found = []
    for res, ids in RATIO_TABLES.items():
        published: dict[str, dict[str, float]] = {}
        for table in map(load.table, ids):
            for row, ratio in zip(table.rows, published_ratios(table), strict=True):
                name = load.row_name(row)
                if ratio is not None and family(name) != "DiT":
                    published.setdefault(name, {})[table.paper] = ratio
        for name in sorted(published, key=order):
            measured = measured_ratio(evidence, setting, name, res)
            if measured is not None:
                papers = tuple(sorted(published[name].items()))
                found.append(_Ratio(res=res, model=name, measured=measured, published=papers))
    return found


def speed_ratios(setting: Setting, ratios: Sequence[_Ratio]) -> tuple[Figure, str, str]:
    """Draw the measured and the published ratios to the DiT of the same size."""
    columns = sorted({ratio.res for ratio in ratios})
    most = max(sum(ratio.res == res for ratio in ratios) for res in columns)
    figure = new_figure(2.2 + 4.2 * len(columns), 1.7 + 0.30 * most)
    top = max(value for r in ratios for value in (r.measured, *(v for _, v in r.published)))
    for j, res in enumerate(columns):
        axes = figure.add_subplot(1, len(columns), j + 1)
        chosen = [ratio for ratio in ratios if ratio.res == res]
        for i, ratio in enumerate(chosen):
            colour = colour_of(ratio.model)
            values = [ratio.measured, *(value for _, value in ratio.published)]
            axes.plot([min(values), max(values)], [i, i], color="#cccccc", linewidth=2, zorder=1)
            axes.plot(ratio.measured, i, "o", color=colour, markersize=8, zorder=3)
            for paper, value in ratio.published:
                mark = hollow(paper, colour)
                mark.set_data([value], [i])
                axes.add_line(mark)
        axes.axvline(1, color="#666666", linewidth=0.8, linestyle=":")
        axes.set_yticks(range(len(chosen)), [ratio.model for ratio in chosen])
        axes.set_ylim(most - 0.4, -0.6)
        axes.set_xlim(0, top * 1.08)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_title(f"{res} px", loc="left", fontsize=9, weight="bold")
        axes.set_xlabel("images/s ÷ images/s of that DiT", fontsize=8)
    title = f"Speed relative to the DiT of the same size: {setting}"
    figure.suptitle(title, fontsize=10, weight="bold", x=0.01, ha="left")
    figure.legend(
        handles=[dot(OTHER, "measured here", 8), *(hollow(paper, OTHER) for paper in PAPER_MARKS)],
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=8,
    )
    caption = (
        "Filled: measured here. Hollow: what the papers print, made on other devices and settings; "
        "see the tables. At the dotted line a model is as fast as its DiT."
    )
    return figure, title, caption
