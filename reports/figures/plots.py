"""Style of the report's figures: colours, marks, label placement, SVG files."""

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from baselines import load
from bench.tables.text import plain
from models.registry import family_place
from reports.markdown import Picture
from reports.naming import COLOURS, OTHER, family

MOST = 2  # maximum figures of a section that has one for each device, setting or study

T = TypeVar("T")

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "diffusion-backbone-bench",  # equal ids in every run
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana"],  # the first comes with matplotlib, both are as wide
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titley": 1.0,  # else every drawing measures the axes to find a place for the title
    "axes.titlelocation": "left",
    "axes.titlesize": 9.0,
    "axes.axisbelow": True,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
}
styled = matplotlib.rc_context(STYLE)  # decorates functions that draw and save a figure
PAPER_MARKS = (("s", 5), ("D", 8), ("^", 7), ("v", 7))  # marker and size; overlapping markers stay visible
DOT = 40.0  # cost of a dot under a name, in square pixels of overlap
# places of a name: the side of its point and the gap in points, the preferred ones first
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
GAPS = np.repeat([4.0, 9.0, 16.0, 25.0, 36.0], len(_SIDES))
SIDES = np.tile(np.asarray(_SIDES, float), (len(GAPS) // len(_SIDES), 1))


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A picture with its text and its file."""

    picture: Picture
    svg: bytes


def fullest(of: Sequence[T], weight: Callable[[T], int], what: str) -> tuple[list[T], list[str]]:
    """The MOST entries with the most marks, in order, and a sentence on the others, if any."""
    ranked = sorted(range(len(of)), key=lambda at: -weight(of[at]))
    drawn = [of[at] for at in sorted(ranked[:MOST])]
    return drawn, [f"Drawn are {MOST} of {len(of)} {what}, those with most data."] * (len(of) > MOST)


def saved(name: str, figure: Figure, title: str, caption: str) -> Drawing:
    """Make the file of a figure drawn with STYLE; the bytes are reproducible.

    Texts may hold names of others: they are drawn as they read, without control characters or formulas.
    """
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        words = text.get_text()
        if not words.replace("\n", "").isprintable():
            text.set_text("\n".join(map(plain, words.split("\n"))))
        if "$" in words and r"\mathdefault" not in words:  # not a power on a logarithmic axis
            text.set_parse_math(False)
    svg = io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return Drawing(picture=Picture(name=name, title=title, caption=caption), svg=svg.getvalue())


def colour_of(model: str) -> str:
    return COLOURS.get(family(model), OTHER)


def mark(label: str, **style: Any) -> Line2D:  # noqa: ANN401 - matplotlib's own options
    """A mark of a legend."""
    return Line2D([], [], linestyle="", label=label, **style)


@cache
def papers() -> list[str]:
    """The papers with claims, in the order of the families that they introduce."""
    return sorted({claim.paper for claim in load.claims()}, key=family_place)


def hollow(paper: str, colour: str) -> Line2D:
    """The hollow mark of published numbers."""
    place = papers().index(paper)
    marker, width = PAPER_MARKS[place % len(PAPER_MARKS)]
    return mark(
        f"published by {paper}", marker=marker, markerfacecolor="white", markeredgecolor=colour,
        markersize=width, zorder=2 + (place == 0),
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
    probe = axes.text(0.5, 0.5, "", fontsize=8, transform=axes.transAxes)
    scale = figure.dpi / 72  # pixels a point
    places = [(*axes.transData.transform((x, y)), area**0.5 / 2 * scale) for _, x, y, area in points]
    taken = np.asarray([(x - r, y - r, x + r, y + r) for x, y, r in places])
    dots = axes.transData.transform(np.asarray(obstacles, float).reshape(-1, 2))

    def crowd(i: int) -> float:
        x, y, _ = places[i]
        return sum(1 / (1 + (x - u) ** 2 + (y - v) ** 2) for u, v, _ in places)

    for i in sorted(range(len(points)), key=lambda i: (-crowd(i), i)):
        x, y, radius = places[i]
        probe.set_text(points[i][0])
        box = probe.get_window_extent(renderer)
        extent, margin = np.asarray([box.width, box.height]), np.asarray([2, 1])
        reach = (radius + GAPS * scale) * np.where(SIDES.all(axis=1), 0.7, 1.0)
        lows = np.asarray([x, y]) + SIDES * reach[:, None] - extent * (0.5 - 0.5 * SIDES)
        boxes = np.hstack([lows - margin, lows + extent + margin])
        inside = (dots > boxes[:, None, :2] - 4) & (dots < boxes[:, None, 2:] + 4)
        cost = _shared(boxes, np.delete(taken, i, axis=0)) + GAPS * 0.01
        cost += DOT * inside.all(axis=2).sum(axis=1)
        left, low = map(float, lows[cost.argmin()])
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
    probe.remove()


def _shared(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """The area that each box shares with all others; boxes are rows of (left, low, right, high)."""
    sides = np.minimum(boxes[:, None, 2:], others[:, 2:]) - np.maximum(boxes[:, None, :2], others[:, :2])
    areas: NDArray[np.float64] = np.maximum(sides, 0).prod(axis=2).sum(axis=1)
    return areas


def new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=150)
    FigureCanvasAgg(figure)
    return figure


def lay_out(
    figure: Figure,
    title: str = "",
    *,
    left: float,
    right: float = 0.12,
    top: float = 0.55,
    bottom: float = 0.52,
    across: float = 0.0,
    down: float = 0.0,
) -> None:
    """Set the title, the room around the panels of a grid and the gaps between them, in inches.

    Labels of axes stand at the outer ends of this room. Nothing is measured, as a layout engine would do in
    as much time as the drawing takes.
    """
    width, height = map(float, figure.get_size_inches())
    grid = figure.axes[0].get_gridspec()
    assert grid is not None
    column = (width - left - right - across * (grid.ncols - 1)) / grid.ncols
    row = (height - top - bottom - down * (grid.nrows - 1)) / grid.nrows
    figure.subplots_adjust(
        left=left / width, right=1 - right / width, bottom=bottom / height, top=1 - top / height,
        wspace=across / column, hspace=down / row,
    )  # fmt: skip
    if title:
        x, y = 0.08 / width, 1 - 0.06 / height
        figure.suptitle(title, fontsize=10, weight="bold", x=x, y=y, ha="left", va="top")
    for axes in figure.axes:
        box, where = axes.get_position(), axes.get_subplotspec()
        assert where is not None
        room = across if where.colspan.start else left
        axes.yaxis.set_label_coords(-(room - 0.2) / (box.width * width), 0.5)
        axes.xaxis.set_label_coords(0.5, -0.32 / (box.height * height))


def width_of(texts: Iterable[str], points: float) -> float:
    """Inches of the widest of some texts of one line."""
    font = FontProperties(family=STYLE["font.sans-serif"][:1], size=points)
    wide = (text_to_path.get_text_width_height_descent(plain(text), font, ismath=False)[0] for text in texts)
    return max(wide, default=0.0) / 72


def legend(figure: Figure, handles: Sequence[Artist], columns: int) -> float:
    """Draw the legend of all panels below them; its height in inches."""
    figure.legend(handles=handles, loc="lower center", ncols=columns)
    return 0.18 * math.ceil(len(handles) / columns) + 0.08


def log_axis(
    axes: Axes,
    which: Literal["x", "y"],
    low: float,
    high: float,
    text: Callable[[float], str] = "{:g}".format,
    places: Sequence[float] = (),
) -> None:
    """Make an axis logarithmic, from `low` to `high`, with round numbers as ticks or those of `places`."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    shown = [place for place in places if low <= place <= high] or ticks(low, high)
    axis.set_ticks(shown, [text(place) for place in shown])
    axis.set_minor_locator(NullLocator())


def ticks(low: float, high: float) -> list[float]:
    """Round numbers within a range: the coarsest series with at least four, or at least three."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for mantissas in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        found = [m * 10.0**p for p in powers for m in mantissas if low <= m * 10.0**p <= high]
        if len(found) >= 4:
            return found
    spacing = 10.0 ** math.floor(math.log10(high - low))
    spacing *= next(m for m in (1, 0.5, 0.2, 0.1) if (high - low) / (m * spacing) >= 3)
    return [i * spacing for i in range(math.ceil(low / spacing), math.floor(high / spacing) + 1)]
