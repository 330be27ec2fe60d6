"""The roofline figure: intensity against FLOP/s of every model under the roof of a device."""

import itertools
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from bench.analysis.rooflines.floors import PassFloor
from bench.analysis.rooflines.roofline import Peaks
from bench.records.base import size_text
from bench.tables.numbers import significant
from models.registry import size_place
from reports.figures.plots import Drawing, label_points, lay_out, legend, mark, new_figure, saved, styled
from reports.naming import COLOURS, family, in_papers, order, size, sizes_of, slug
from reports.selection import grouped

NAMED = 10  # maximum families labelled in a panel; beyond it only the papers', the rest in the legend
SHAPES = ("o", "s", "^", "v", "P", "X", "p")  # of families that share a colour; diamonds are measurements
# of families without their own: paler than those
MORE_COLOURS = ("#666666", "#7DA3C4", "#B98A8A", "#8DAE88", "#C0AE78", "#9C8CBB")

Style = tuple[str, str]  # colour and shape
Place = tuple[float, float]  # FLOP/byte and FLOP/s


def has_place(one: PassFloor) -> bool:
    """Whether a pass has a place in the figure: it computes something, and its operators move bytes."""
    return bool(one.intensity("eager"))


@styled
def draw(peaks: Peaks, floors: Sequence[PassFloor], missing: str) -> Drawing:
    """Draw one device at the bytes of an eager pass, a panel for each precision; every pass has a place."""
    precisions = [name for name in ("fp32", "tf32", "bf16", "fp16") if name in {p.precision for p in floors}]
    case = floors[0].case
    styles = family_styles(chains(floors))
    handles = _legend(floors, styles)
    figure = new_figure(max(7.6, 0.6 + 4.4 * len(precisions)), 4.6 + 0.18 * math.ceil(len(handles) / 6))
    grid = figure.subplots(1, len(precisions), squeeze=False)[0]
    panels = [
        Panel(axes=axes, floors=[one for one in floors if one.precision == precision], styles=styles)
        for axes, precision in zip(grid, precisions, strict=True)
    ]
    for panel in panels:
        panel.draw()
    origin = "measured ceilings" if peaks.measured else "peaks as sold"
    title = f"Roofline: {peaks.device}, {origin}; {case.size}"
    lay_out(figure, title, left=0.65, bottom=0.5 + legend(figure, handles, 6), across=0.65)
    for panel in panels:
        panel.label(figure)
    measured = "Diamonds are measured. " if any(one.measured for one in floors) else ""
    caption = (
        "Computed: the FLOPs of a pass over its floor, at the bytes of an eager pass; those under ideal "
        "fusion are in the table of floors. A pass lies below the roof where memory bounds some of its "
        f"operators and arithmetic others. {measured}A line joins the sizes of one family; every panel "
        f"has its own axes. {missing}{peaks.device}: {peaks.source}."
    )
    name = f"roofline_{slug(peaks.device, size_text(case.res), 'px', case.batch)}"
    return saved(name, figure, title, caption)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The roof of one precision, and every model at the bytes of an eager pass."""

    axes: Axes
    floors: Sequence[PassFloor]
    styles: Mapping[str, Style]  # by family

    def place(self, one: PassFloor, seconds: float | None = None) -> Place:
        """The point of a pass at its floor, or at other seconds."""
        x, seconds = one.intensity("eager"), seconds or one.seconds("eager")
        assert x
        assert seconds
        return x, 2 * one.costs.macs / seconds

    @property
    def measured(self) -> list[tuple[PassFloor, Place]]:
        timed = [(one, one.measured) for one in self.floors if one.measured]
        return [(one, self.place(one, measured.median_s)) for one, measured in timed]

    @property
    def roof(self) -> tuple[float, float]:
        """Peak FLOP/s and bytes/s."""
        one = self.floors[0]
        flops_per_s, bytes_per_s = one.peaks.flops_per_s(one.precision, "linear"), one.peaks.bytes_per_s
        assert flops_per_s is not None
        assert bytes_per_s is not None
        return flops_per_s, bytes_per_s

    def roof_points(self) -> list[Place]:
        """Dense points on the roof over the whole panel, which labels avoid."""
        flops_per_s, bytes_per_s = self.roof
        left, right = self.axes.get_xlim()
        xs = sorted([flops_per_s / bytes_per_s, *(left * (right / left) ** (i / 120) for i in range(121))])
        return [(x, min(x * bytes_per_s, flops_per_s)) for x in xs]

    def draw(self) -> None:
        axes, (flops_per_s, bytes_per_s) = self.axes, self.roof
        places, ridge = [self.place(one) for one in self.floors], flops_per_s / bytes_per_s
        xs = [x for x, _ in places]
        ys = [y for _, y in (*places, *(place for _, place in self.measured))]
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(min(*xs, ridge) / 1.6, max(*xs, ridge) * 1.6)
        top = max(y for _, y in self.roof_points())
        low, high = min(*ys, top / 2), max(*ys, top)
        axes.set_ylim(low / (high / low) ** 0.08 / 1.03, high * (high / low) ** 0.12 * 1.03)
        axes.plot(*zip(*self.roof_points(), strict=True), color="black", linewidth=1.4, zorder=1)
        for name, chain in chains(self.floors).items():
            colour, shape = self.styles[name]
            places = [self.place(one) for one in chain]
            axes.plot(*zip(*places, strict=True), color=colour, linewidth=0.8, alpha=0.5, zorder=2)
            for one, place in zip(chain, places, strict=True):
                axes.plot(
                    *place, shape, color=colour, markersize=_width(size(one.case.model)),
                    markeredgecolor="white", markeredgewidth=0.4, zorder=3,
                )  # fmt: skip
        for one, place in self.measured:
            colour, _ = self.styles[sizes_of(one.case.model)]
            axes.plot(
                *zip(self.place(one), place, strict=True),
                color="#777777", linewidth=0.8, linestyle=":", zorder=2,
            )  # fmt: skip
            axes.plot(
                *place, "D", color=colour, markersize=_width(size(one.case.model)),
                markeredgecolor="black", markeredgewidth=0.6, zorder=4,
            )  # fmt: skip
        scale, unit = (1e12, "TFLOP/s") if flops_per_s >= 1e12 else (1e9, "GFLOP/s")
        number = f"{len(self.floors)} model{'s' if len(self.floors) > 1 else ''}"
        rates = f"{significant(flops_per_s / scale)} {unit}, {significant(bytes_per_s / 1e9)} GB/s"
        axes.set_title(f"{self.floors[0].precision}: {number}; {rates}", fontsize=8.5)
        _tick(axes.xaxis, *axes.get_xlim(), 1.0)
        _tick(axes.yaxis, *axes.get_ylim(), scale)
        axes.grid(color="#e2e2e2")
        axes.set_xlabel("FLOP/byte of the whole pass, eager (log)")
        axes.set_ylabel(f"{unit} (log)")

    def label(self, figure: Figure) -> None:
        """Label families at their largest model, after the figure is laid out."""
        named: list[tuple[str, float, float, float]] = []
        marks = [*self.roof_points(), *(place for _, place in self.measured)]
        colours: dict[str, str] = {}
        for name, chain in chains(self.floors).items():
            marks += [self.place(one) for one in chain[:-1]]
            model = chain[-1].case.model
            if len(self.styles) <= NAMED or in_papers(model):
                text = name if len(chain) > 1 else model
                named.append((text, *self.place(chain[-1]), _width(size(model)) ** 2))
                colours[text] = self.styles[name][0]
            else:
                marks.append(self.place(chain[-1]))
        label_points(figure, self.axes, named, marks, colours)


def chains(floors: Sequence[PassFloor]) -> dict[str, list[PassFloor]]:
    """The sizes of one family and patch, from small to large, by names such as DiT-*/2."""
    ordered = sorted(floors, key=lambda one: order(one.case.model))
    return grouped(ordered, lambda one: sizes_of(one.case.model))


def family_styles(families: Collection[str]) -> dict[str, Style]:
    """Distinct colour and shape for each family, as far as they suffice; the papers' families are fixed."""
    styles: dict[str, Style] = {}
    used: Counter[str] = Counter()
    further = itertools.cycle(MORE_COLOURS)
    for name in families:
        colour = COLOURS.get(family(name)) or next(further)
        styles[name] = colour, SHAPES[used[colour] % len(SHAPES)]
        used[colour] += 1
    return styles


def _width(letters: str) -> float:
    """Diameter in points of a model's mark: larger for larger sizes, medium without a size."""
    return 3.4 + 0.6 * size_place(letters or "B")


def _tick(axis: Axis, low: float, high: float, unit: float) -> None:
    """Ticks at 1, 2 and 5 times powers of ten, or linear ticks if the axis is too short."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    if sum(low <= tick <= high for tick in ticks) < 3:
        ticks = list(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(low, high))
    axis.set_ticks([tick for tick in ticks if low <= tick <= high])
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / unit:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(NullLocator())


def _legend(floors: Sequence[PassFloor], styles: Mapping[str, Style]) -> list[Line2D]:
    handles = [mark("floor (computed)", marker="o", color="#444444")]
    if any(one.measured for one in floors):
        handles.append(mark("measured", marker="D", color="#444444", markeredgecolor="black"))
    drawn = {size(one.case.model) for one in floors}
    handles += [
        mark(letters, marker="o", color="#999999", markersize=_width(letters))
        for letters in sorted(drawn - {""}, key=size_place)
    ]
    shown = styles.items() if len(styles) > NAMED else ()
    return handles + [mark(name, marker=shape, color=colour) for name, (colour, shape) in shown]
