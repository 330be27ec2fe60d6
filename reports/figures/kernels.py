"""The figure of kernels: milliseconds of every implementation over the sizes of a model, beside the floor."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bench.analysis.rooflines.kernels import floor_s
from bench.analysis.rooflines.roofline import Peaks
from bench.records.base import Size, height_width, size_text
from bench.records.kernels import KernelCase, OperatorComparison
from bench.tables.numbers import percent
from reports.figures.plots import Drawing, lay_out, legend, log_axis, mark, new_figure, saved, styled
from reports.naming import slug
from reports.selection import grouped

COLUMNS = 5  # maximum panels in a row
# colour and mark of each implementation; those that a network runs by default are grey
MARKS = {
    "nchw": ("#666666", "o"),
    "eager": ("#666666", "o"),
    "nchw-cudnn": ("#999933", "o"),
    "channels-last": ("#56B4E9", "s"),
    "channels-last-searched": ("#332288", "s"),
    "fast": ("#0072B2", "s"),
    "compiled": ("#E69F00", "^"),
    "triton": ("#D55E00", "D"),
    "triton-fused": ("#009E73", "P"),
}

OTHER_MARK = ("#222222", "x")

Setting = tuple[str, str, str, Size, int, str]  # what one figure shares


def setting(one: OperatorComparison) -> Setting:
    case, environment = one.case, one.environment
    return environment.device, environment.torch, case.model, case.res, case.batch, case.precision


@styled
def draw(found: Sequence[OperatorComparison], peaks: Peaks | None) -> Drawing:
    """Draw the comparisons of one setting, a panel for each operation, with floors of known peaks."""
    panels = grouped(found, lambda one: one.case.operation_name)
    device, torch, model, res, batch, precision = setting(found[0])
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(max(5.0, 0.7 + 2.5 * columns), 0.9 + 3.0 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, (name, of) in zip(grid.flat, panels.items(), strict=False):
        _panel(axes, name, of, peaks)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for row in grid:
        row[0].set_ylabel("ms of one call (log)")
    has_floors = any(floor_s(one.case, peaks) is not None for one in found)
    title = f"Kernels of {model}, {size_text(res)} px, batch {batch}, {precision}: {device}"
    handles = _legend(found, has_floors=has_floors)
    below = legend(figure, handles, 7)
    lay_out(figure, title, left=0.65, bottom=0.55 + below, across=0.5, down=0.85)
    shares = (
        "Bar: the floor, the longer of two least times: of the bytes at the ceiling of a copy, of the FLOPs "
        "at the ceiling of products. Percentage: the floor / the time of the fastest implementation. It is "
        "above 100 % where caches serve what the floor reads from memory, or where an implementation skips "
        "the zeros around the image. "
    )
    caption = (
        f"Measured with torch {torch}: the median visit of each implementation; lower is faster. Labels of "
        f"the horizontal axis: channels, and sides of the image. {shares if has_floors else ''}"
    ).strip()
    words = (model, size_text(res), "px", batch, precision, device, torch)
    return saved(f"kernels_{slug(*words)}", figure, title, caption)


def _panel(axes: Axes, name: str, of: Sequence[OperatorComparison], peaks: Peaks | None) -> None:
    reached: list[float] = []
    labels = []
    for place, one in enumerate(of):
        times = {arm: 1e3 * one.median_s(i) for i, arm in enumerate(one.arms)}
        for i, (arm, ms) in enumerate(times.items()):
            colour, marker = MARKS.get(arm, OTHER_MARK)
            at = place + 0.66 * ((i + 0.5) / len(times) - 0.5)
            axes.plot(at, ms, marker, color=colour, markersize=6, markeredgecolor="white", zorder=3)
        reached += times.values()
        label = _label(one.case)
        if (floor := floor_s(one.case, peaks)) is not None:
            axes.hlines(1e3 * floor, place - 0.36, place + 0.36, color="black", linewidth=1.6, zorder=2)
            reached.append(1e3 * floor)
            label += f"\n{percent(1e3 * floor / min(times.values()))} %"
        labels.append(label)
    log_axis(axes, "y", min(reached) / 1.25, max(reached) * 1.25)
    axes.set_xticks(range(len(of)), labels, fontsize=7.5)
    axes.set_xlim(-0.6, len(of) - 0.4)
    axes.set_title(name, weight="bold")
    axes.grid(axis="y", color="#e2e2e2")


def _label(case: KernelCase) -> str:
    width = f"{case.channels}" if case.out_width == case.channels else f"{case.channels}→{case.out_width}"
    return f"{width}\n{'x'.join(map(str, height_width(case.image_size)))}"


def _legend(found: Sequence[OperatorComparison], *, has_floors: bool) -> list[Line2D]:
    drawn = dict.fromkeys(arm for one in found for arm in one.arms)
    marks = {name: MARKS.get(name, OTHER_MARK) for name in (*MARKS, *drawn) if name in drawn}
    handles = [
        mark(name, color=colour, marker=marker, markeredgecolor="white")
        for name, (colour, marker) in marks.items()
    ]
    floor = Line2D([], [], color="black", linewidth=1.6, label="floor (computed)")
    return [*handles, floor] if has_floors else handles
