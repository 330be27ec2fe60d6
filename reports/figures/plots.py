"""Draws the report's figures: records and published tables in, matplotlib figures out."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from baselines import load
from bench.records.record import Size, Throughput, height_width, size_text
from reports.naming import SIZES, family, order, size
from reports.overview import Picture, images, measured_ratio, published_ratios
from reports.selection import Evidence, Setting, Timing

# Okabe and Ito's palette: told apart under every common colour blindness
COLOURS = {
    "FCDM": "#D55E00",
    "DiT": "#0072B2",
    "DiCo": "#009E73",
    "DiC": "#CC79A7",
    "DiG": "#E69F00",
}
OTHER = "#666666"
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "diffusion-backbone-bench",  # the same ids in every run
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
PAPER_MARKS = {"FCDM": ("s", 5), "DiCo": ("D", 8)}  # marker, its size: one shows around the other
RATIO_TABLES = {256: ("fcdm_table03", "dico_table01"), 512: ("fcdm_table05", "dico_table02")}


DOT = 40.0  # square pixels of overlap that a dot in a name's way counts as


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A picture's words and its two files."""

    picture: Picture
    png: bytes
    svg: bytes


def draw(evidence: Evidence) -> list[Drawing]:
    """Draw everything that the records give something for; MACs against FID always."""
    with matplotlib.rc_context(STYLE):
        drawings = [saved("macs_fid", *macs_against_fid(evidence))]
        for setting in evidence.settings:
            if any(evidence.images_per_s(setting, t.run.model, t.run.res) for t in evidence.timings):
                drawings.append(saved(f"throughput_{_slug(setting)}", *throughput_bars(evidence, setting)))
            ratios = _ratios(evidence, setting)
            if ratios:
                drawings.append(saved(f"speed_ratio_{_slug(setting)}", *speed_ratios(setting, ratios)))
    return drawings


def saved(name: str, figure: Figure, title: str, caption: str) -> Drawing:
    """Make both files of a figure that was drawn under STYLE: the same bytes every time."""
    settle(figure)
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return Drawing(
        picture=Picture(name=name, title=title, caption=caption), png=png.getvalue(), svg=svg.getvalue()
    )


def placed(drawing: Drawing) -> list[str]:
    """The markdown that shows a drawing and its caption."""
    picture = drawing.picture
    return [f"![{picture.title}]({picture.name}.png)", f"*{picture.caption}* ([SVG]({picture.name}.svg))"]


def _slug(setting: Setting) -> str:
    return re.sub(r"[^a-z0-9]+", "-", str(setting).lower()).strip("-")


def colour_of(model: str) -> str:
    return COLOURS.get(family(model), OTHER)


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
                _dot(colour, name, 8.0)
                for name, colour in COLOURS.items()
                if any(family(p.model) == name for p in points)
            ),
            *(_dot("#bbbbbb", f"{m} M params", _area(m * 1_000_000) ** 0.5) for m in (30, 130, 700)),
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
        gmacs = count.macs / count.batch / 1e9 if count else published
        points.append(_Point(model=model, gmacs=gmacs, counted=count is not None, fid=fid, params=params))
    return sorted(points, key=lambda point: order(point.model))


def _area(params: int | None) -> float:
    """Square points of a bubble; a small fixed one where the parameters are not known."""
    return 36.0 if params is None else params / 1e6 * 0.9


def _dot(colour: str, label: str, width: float) -> Line2D:
    return Line2D([], [], linestyle="", marker="o", color=colour, markersize=width, label=label)


def _diamond() -> Line2D:
    return Line2D(
        [], [], linestyle="", marker="D", markersize=6, markerfacecolor="white", markeredgecolor=OTHER,
        label="params not known",
    )  # fmt: skip


def label_points(
    figure: Figure,
    axes: Axes,
    points: Sequence[tuple[str, float, float, float]],
    obstacles: Sequence[tuple[float, float]] = (),
    colours: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Name points where nothing overlaps: the nearest free place around each, the most crowded first.

    Args:
        points: (text, x, y, area in square points).
        obstacles: (x, y) of other marks, and along lines, that names keep away from.
        colours: of texts; nearly black for those that it lacks.
    """
    canvas: Any = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()
    scale = figure.dpi / 72  # pixels a point
    places = [(*axes.transData.transform((x, y)), area**0.5 / 2 * scale) for _, x, y, area in points]
    taken = [Bbox([[x - r, y - r], [x + r, y + r]]) for x, y, r in places]
    dots = axes.transData.transform(np.asarray(obstacles, float).reshape(-1, 2))

    def crowd(i: int) -> float:
        x, y, _ = places[i]
        return sum(1 / (1 + (x - u) ** 2 + (y - v) ** 2) for u, v, _ in places)

    for i in sorted(range(len(points)), key=lambda i: (-crowd(i), i)):
        x, y, radius = places[i]
        text = axes.text(0.5, 0.5, points[i][0], fontsize=8, transform=axes.transAxes)
        box = text.get_window_extent(renderer)
        text.remove()
        best: tuple[float, float, float] | None = None
        for gap in (4.0, 9.0, 16.0, 25.0, 36.0):  # points
            for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)):
                reach = radius + gap * scale
                left = x + dx * reach * (0.7 if dx and dy else 1) - box.width * (0.5 - 0.5 * dx)
                low = y + dy * reach * (0.7 if dx and dy else 1) - box.height * (0.5 - 0.5 * dy)
                place = Bbox.from_bounds(left - 2, low - 1, box.width + 4, box.height + 2)
                cost = sum(_shared(place, other) for j, other in enumerate(taken) if j != i) + gap * 0.01
                inside = (dots > (place.x0 - 4, place.y0 - 4)) & (dots < (place.x1 + 4, place.y1 + 4))
                cost += DOT * int(inside.all(axis=1).sum())
                if best is None or cost < best[0]:
                    best = (cost, left, low)
        assert best is not None
        _, left, low = best
        taken.append(Bbox.from_bounds(left, low, box.width, box.height))
        far = (
            abs(left + box.width / 2 - x) > radius + box.width / 2 + 10 * scale
            or abs(low - y) > radius + 14 * scale
        )
        axes.annotate(
            points[i][0],
            (points[i][1], points[i][2]),
            xytext=((left - x) / scale, (low - y) / scale),
            textcoords="offset points",
            fontsize=8,
            color=colours.get(points[i][0], "#222222"),
            va="bottom",
            arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.6} if far else None,
        )


def _shared(a: Bbox, b: Bbox) -> float:
    overlap = Bbox.intersection(a, b)
    return 0.0 if overlap is None else overlap.width * overlap.height


def new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def settle(figure: Figure) -> None:
    """Lay the figure out once and round: the solver's last bits differ between processes."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        left, bottom, width, height = (round(float(edge), 6) for edge in axes.get_position().bounds)
        axes.set_position((left, bottom, width, height))


# throughput

Panel = tuple[bool, int, str]  # larger patches than 2, rank of the size, its letters
Speeds = dict[tuple[Size, Panel], list[Timing]]


def _speeds(evidence: Evidence, setting: Setting) -> Speeds:
    speeds: Speeds = {}
    names = sorted({timing.run.model for timing in evidence.timings}, key=order)
    sizes = sorted({timing.run.res for timing in evidence.timings}, key=height_width)
    for res in sizes:
        for name in names:
            timing = evidence.timing(setting, name, res)
            if timing is not None:
                speeds.setdefault((res, _panel(name)), []).append(timing)
    return speeds


def _panel(model: str) -> Panel:
    """Put one size in one panel; models of larger patches are many times faster and stand apart."""
    letters, patch = size(model), re.search(r"/(\d+)", model)
    coarse = patch is not None and patch[1] != "2"
    return coarse, SIZES.index(letters) if letters in SIZES else len(SIZES), letters


def throughput_bars(evidence: Evidence, setting: Setting) -> tuple[Figure, str, str]:
    """Draw one panel for each resolution and size: S beside S, each with a scale of its own."""
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
    highest = max((t.images_per_s for t in timings if isinstance(t, Throughput)), default=1.0)
    for i, timing in enumerate(timings):
        rate, reach = 0.0, 0.0
        if isinstance(timing, Throughput):
            rate = reach = timing.images_per_s
            interval = timing.images_per_s_interval
            axes.barh(i, rate, color=colour_of(timing.run.model), height=0.72)
            if interval is not None:
                reach = max(rate, interval[1])
                axes.errorbar(
                    rate, i, xerr=[[rate - interval[0]], [interval[1] - rate]],
                    color="black", capsize=2.5, linewidth=1, fmt="none",
                )  # fmt: skip
        axes.text(reach + highest * 0.02, i, images(timing), va="center", fontsize=8)
    axes.set_yticks(range(len(timings)), [timing.run.model for timing in timings])
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
    """Collect the models that have a ratio to DiT both here and in a paper, DiT itself left out."""
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
    """Set the measured ratio to the DiT of the same size beside the published ones."""
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
        handles=[_dot(OTHER, "measured here", 8), *(hollow(paper, OTHER) for paper in PAPER_MARKS)],
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


def hollow(paper: str, colour: str) -> Line2D:
    """The mark of what a paper prints."""
    marker, width = PAPER_MARKS[paper]
    return Line2D(
        [], [], linestyle="", marker=marker, markerfacecolor="white", markeredgecolor=colour,
        markersize=width, label=f"published by {paper}", zorder=2 + (paper == "FCDM"),
    )  # fmt: skip
