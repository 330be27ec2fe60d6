"""The figure of ranks: families in order of speed under every setting, ties joined by brackets."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from bench.analysis.speed.fairness import MeasuredRanks, Ranks, place
from bench.analysis.speed.rank_changes import PublishedRanks
from bench.analysis.speed.settings import Setting
from reports.figures.plots import Drawing, lay_out, new_figure, saved, styled
from reports.naming import COLOURS, OTHER, slug

# by family, so that they differ in grey too; wide enough for a rank
MARKS = "osDhp8"
DASHES: tuple[Any, ...] = ("-", (0, (6, 1.5)), (0, (2, 1)), "-.", ":")
PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85}  # behind words on lines
GAP = 0.45  # between the papers and the measured settings, in columns


@styled
def draw(
    base: Setting, measured: Sequence[MeasuredRanks], printed: Sequence[PublishedRanks], finding: str
) -> Drawing:
    """Draw the rankings of one device: a panel for each size, a column for each setting, papers at the left,
    a line for each family.
    """
    sizes = list(dict.fromkeys(one.size for one in measured))
    settings = sorted({one.setting for one in measured}, key=lambda one: (one != base, one.place))
    families = sorted({name for one in measured for name in one.speeds}, key=place)
    papers = sorted({(one.paper, one.res) for one in printed if one.size in sizes})
    places: dict[object, float] = {key: float(at) for at, key in enumerate(papers)}
    places |= {setting: len(papers) + GAP * bool(papers) + at for at, setting in enumerate(settings)}
    names = {(paper, res): f"{paper}\npublished\n{res} px" for paper, res in papers}
    labels = [*names.values(), *(_label(setting, base) for setting in settings)]
    columns = {size: _columns(size, measured, printed, places) for size in sizes}
    heights = [max(len(ranks.speeds) for _, ranks in columns[size]) for size in sizes]
    below = 0.14 * (1 + max(label.count("\n") for label in labels)) + 0.12
    rows = [0.36 * (height + 0.2) for height in heights]
    figure = new_figure(
        0.2 + 1.15 * (max(places.values()) + 1.9), 0.55 + below + sum(rows) + 0.4 * (len(rows) - 1)
    )
    grid = figure.add_gridspec(len(sizes), 1, height_ratios=rows)
    for i, size in enumerate(sizes):
        axes = figure.add_subplot(grid[i])
        _panel(axes, columns[size], families, heights[i], len(papers))
        axes.set_title(f"Size {size}", weight="bold")
        axes.set_xlim(-0.95, max(places.values()) + 0.95)
        axes.set_xticks(
            list(places.values()), labels if i == len(sizes) - 1 else [""] * len(labels), fontsize=8
        )
    title = f"Ranks by speed under every setting: {base.device}"
    lay_out(figure, title, left=0.1, right=0.1, bottom=below, down=0.4)
    caption = (
        f"{finding} Fastest at the top. In a marker: rank; at its right: speed / DiT's speed, or the "
        "first family's where there is no DiT. Brackets join tied families (the 99 % interval of their ratio "
        "contains 1). Hollow: printed by the paper, without intervals. The baseline is "
        f"{base.but_device}; other columns name what differs from it."
    )
    return saved(f"fairness_{slug(base.device)}", figure, title, caption)


def _columns(
    size: str,
    measured: Sequence[MeasuredRanks],
    printed: Sequence[PublishedRanks],
    places: dict[object, float],
) -> list[tuple[float, Ranks]]:
    """The rankings of a size with their places, from the left."""
    found: list[tuple[float, Ranks]] = [
        (places[one.paper, one.res], one) for one in printed if one.size == size
    ]
    found += [(places[one.setting], one) for one in measured if one.size == size]
    return sorted(found, key=lambda column: column[0])


def _label(setting: Setting, base: Setting) -> str:
    """What differs from the baseline, a line each."""
    if setting == base:
        return "\n".join(("baseline", *setting.words))
    changed = [word for word in setting.words if word not in base.words]
    return "\n".join(changed).replace(" implementation", "\nimplementation") or setting.but_device


def _panel(
    axes: Axes, columns: Sequence[tuple[float, Ranks]], families: Sequence[str], height: int, papers: int
) -> None:
    """Draw one size; the first `papers` places are published columns."""
    for at, ranks in columns:
        _brackets(axes, at, ranks)
    for number, name in enumerate(families):
        points = [(at, [*ranks.speeds].index(name), ranks) for at, ranks in columns if name in ranks.speeds]
        if not points:
            continue
        colour = COLOURS.get(name, OTHER)
        for (x, y, _), (to_x, to_y, _) in pairwise(points):
            printed = x < papers
            axes.plot(
                [x, to_x], [y, to_y], color=colour, linestyle=DASHES[number % len(DASHES)],
                linewidth=1 if printed else 2.2, alpha=0.5 if printed else 0.7, zorder=2,
            )  # fmt: skip
        for fill, drawn in (
            ("white", [(x, y) for x, y, _ in points if x < papers]),
            (colour, [(x, y) for x, y, _ in points if x >= papers]),
        ):
            axes.plot(
                [x for x, _ in drawn], [y for _, y in drawn], MARKS[number % len(MARKS)], markersize=14,
                color=fill, markeredgecolor=colour, markeredgewidth=1.5, zorder=3,
            )  # fmt: skip
        for x, y, ranks in points:
            printed = x < papers
            axes.text(
                x, y, ranks.text(name), ha="center", va="center_baseline", fontsize=7, weight="bold",
                color=colour if printed else "#222222" if _is_light(colour) else "white", zorder=4,
            )  # fmt: skip
            axes.text(
                x + 0.17, y, f"{ranks.speeds[name]:.2f}", ha="left", va="center", fontsize=6.5,
                color="#333333", zorder=3,
                bbox=PAPER,
            )  # fmt: skip
        x, y, _ = points[-1]
        # a line that ends early has its name below its last speed, clear of the next column
        right, below, points_high = (0.52, 0, 8) if x == columns[-1][0] else (0.17, 0.3, 7)
        axes.text(
            x + right, y + below, name, ha="left", va="center", fontsize=points_high, weight="bold",
            color=colour, zorder=3, bbox=PAPER,
        )  # fmt: skip
        x, y, _ = points[0]
        if x == columns[0][0] and len(points) > 1:
            axes.text(x - 0.3, y, name, ha="right", va="center", fontsize=8, weight="bold", color=colour)
    axes.set_ylim(height - 0.4, -0.6)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0)
    axes.set_axisbelow("line")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _is_light(colour: str) -> bool:
    red, green, blue = to_rgb(colour)
    return 0.3 * red + 0.59 * green + 0.11 * blue > 0.55


def _brackets(axes: Axes, at: float, ranks: Ranks) -> None:
    """Join every longest run of neighbours in which no two are separated."""
    names = [*ranks.speeds]
    drawn = -1
    offset = 0
    for first in range(len(names)):
        last = first
        while last + 1 < len(names) and not any(
            ranks.order(names[last + 1], one) for one in names[first : last + 1]
        ):
            last += 1
        if last > max(first, drawn):
            x = at - 0.2 - 0.05 * (offset % 2)
            axes.plot(
                [x + 0.03, x, x, x + 0.03], [first - 0.12, first - 0.12, last + 0.12, last + 0.12],
                color="#444444", linewidth=1.2, zorder=1,
            )  # fmt: skip
            drawn, offset = last, offset + 1
