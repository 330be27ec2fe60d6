"""Style of the report's figures: colours, marks, label placement, SVG files."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from reports.markdown import Picture
from reports.naming import COLOURS as COLOURS
from reports.naming import family

OTHER = "#666666"  # colour of families without their own
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "diffusion-backbone-bench",  # equal ids in every run
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana"],  # the first comes with matplotlib, both are as wide
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
# marker and size; overlapping markers stay visible
PAPER_MARKS = {"FCDM": ("s", 5), "DiCo": ("D", 8), "MPDiT": ("^", 7)}
DOT = 40.0  # cost of a dot under a name, in square pixels of overlap


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A picture with its text and its file."""

    picture: Picture
    svg: bytes


def saved(name: str, figure: Figure, title: str, caption: str) -> Drawing:
    """Make the file of a figure drawn with STYLE; the bytes are reproducible."""
    settle(figure)
    svg = io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return Drawing(picture=Picture(name=name, title=title, caption=caption), svg=svg.getvalue())


def colour_of(model: str) -> str:
    return COLOURS.get(family(model), OTHER)


def dot(colour: str, label: str, width: float) -> Line2D:
    return Line2D([], [], linestyle="", marker="o", color=colour, markersize=width, label=label)


def hollow(paper: str, colour: str) -> Line2D:
    """The hollow mark of published numbers."""
    marker, width = PAPER_MARKS[paper]
    return Line2D(
        [], [], linestyle="", marker=marker, markerfacecolor="white", markeredgecolor=colour,
        markersize=width, label=f"published by {paper}", zorder=2 + (paper == "FCDM"),
    )  # fmt: skip


def label_points(
    figure: Figure,
    axes: Axes,
    points: Sequence[tuple[str, float, float, float]],
    obstacles: Sequence[tuple[float, float]] = (),
    colours: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Label points without overlaps: each label takes the nearest free place, the most crowded first.

    Args:
        points: (text, x, y, area in square points).
        obstacles: (x, y) of other marks and of points along lines, which labels avoid.
        colours: colours by text; other labels are nearly black.
    """
    canvas: Any = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()
    scale = figure.dpi / 72  # pixels a point
    places = [(*axes.transData.transform((x, y)), area**0.5 / 2 * scale) for _, x, y, area in points]
    taken = np.asarray([(x - r, y - r, x + r, y + r) for x, y, r in places])
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
                cost = _shared(place, np.delete(taken, i, axis=0)) + gap * 0.01
                inside = (dots > (place.x0 - 4, place.y0 - 4)) & (dots < (place.x1 + 4, place.y1 + 4))
                cost += DOT * int(inside.all(axis=1).sum())
                if best is None or cost < best[0]:
                    best = (cost, left, low)
        assert best is not None
        _, left, low = best
        taken = np.vstack([taken, (left, low, left + box.width, low + box.height)])
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


def _shared(place: Bbox, others: NDArray[np.float64]) -> float:
    """The area that a box shares with others, rows of (left, low, right, high)."""
    low, high = (place.x0, place.y0), (place.x1, place.y1)
    sides = np.minimum(others[:, 2:], high) - np.maximum(others[:, :2], low)
    return float(np.prod(np.maximum(sides, 0), axis=1).sum())


def new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def settle(figure: Figure) -> None:
    """Lay the figure out once and round positions, since the solver's last bits differ between processes."""
    figure.draw_without_rendering()
    figure.set_layout_engine(None)  # with "none" every file would be drawn twice
    for axes in figure.axes:
        left, bottom, width, height = (round(float(edge), 6) for edge in axes.get_position().bounds)
        axes.set_position((left, bottom, width, height))
