"""The report's section on depthwise convolutions: implementations compared with each other and the floor."""

from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from bench.analysis import depthwise, roofline
from bench.analysis.depthwise import NOT_HERE, PRECISIONS
from bench.analysis.roofline import Peaks
from bench.records.base import Record, height_width, size_text
from bench.records.depthwise import OperatorComparison
from reports.figures.plots import STYLE, Drawing, new_figure, placed, saved
from reports.markdown import table

# Okabe and Ito's colours, as in reports.figures.plots, in the order of bench.depthwise
COLOURS = {
    "nchw": "#999999",
    "nchw-cudnn": "#56B4E9",
    "channels-last": "#0072B2",
    "channels-last-searched": "#CC79A7",
    "compiled": "#E69F00",
    "triton": "#D55E00",
}
OPERATIONS = {
    "conv": "convolution with its bias",
    "block": "convolution, layer norm and modulation",
}
GROUP = 0.84  # total width of the bars of one size
TEXT = (
    "*nchw* is torch's kernel on contiguous images, the reference of the ratios: above 1 an implementation "
    "is faster. *conv* is the convolution with its bias; *block* adds layer norm, shift and scale, as in "
    "FCDM. Interleaved rounds; median visit with its 95 % interval, ratio of speeds with its 99 % interval. "
    "The floors are the least bytes at the measured copy ceiling, and 2 K² FLOPs an output value at the "
    "measured fp32 ceiling, zeros around the image included; norm and modulation count as nothing."
)


def section(records: Sequence[Record]) -> tuple[str, list[Drawing]]:
    """Write the section from the newest records, in any order; empty without records of its kind."""
    found = depthwise.newest(records)
    if not found:
        return "", []
    devices = dict.fromkeys(one.environment.device for one in found)
    peaks = {device: roofline.measured_peaks(records, device) for device in devices}
    with matplotlib.rc_context(STYLE):
        drawings = [
            saved(f"depthwise_{number}", *_figure(group, peaks[group[0].environment.device]))
            for number, group in enumerate(_groups(found), start=1)
        ]
    lines = [line for one in found for line in depthwise.lines(one, peaks[one.environment.device])]
    absent = dict.fromkeys(
        f"- {line.implementation.name} on {line.environment.device}, torch {line.environment.torch}: "
        f"{line.reason}"
        for line in lines
        if line.status == NOT_HERE
    )
    lines = [line for line in lines if line.status != NOT_HERE]
    sums = depthwise.pass_sums(found)
    parts = [f"## {depthwise.TABLE.title}", TEXT, table(depthwise.TABLE, lines)]
    parts += ["Implementations that cannot run:", "\n".join(absent)] if absent else []
    parts += [
        "All of them in one pass of the model: medians times the calls of each size.",
        table(depthwise.sums_table(sums), sums),
    ]
    return "\n\n".join([*parts, *(line for one in drawings for line in placed(one))]), drawings


def _groups(found: Sequence[OperatorComparison]) -> list[list[OperatorComparison]]:
    """Comparisons grouped by figure: by device, model, batch, operation and window."""
    groups: dict[tuple[object, ...], list[OperatorComparison]] = {}
    for one in found:
        case = one.case
        shown = (one.environment.device, case.model, case.batch, case.operation, case.kernel)
        groups.setdefault(shown, []).append(one)
    return list(groups.values())


def _figure(group: Sequence[OperatorComparison], peaks: Peaks | None) -> tuple[Figure, str, str]:
    """Plot output values per second: a panel for each precision, a group of bars for each size."""
    precisions = [name for name in PRECISIONS if any(one.case.precision == name for one in group)]
    names = [name for name in COLOURS if any(name in one.arms for one in group)]
    width = GROUP / len(names)
    figure = new_figure(9.6, 0.9 + 2.5 * len(precisions))
    panels = figure.subplots(len(precisions), 1, squeeze=False)[:, 0]
    for axes, precision in zip(panels, precisions, strict=True):
        sizes = [one for one in group if one.case.precision == precision]
        for place, name in enumerate(names):
            rates = {
                i + (place + 0.5) * width - GROUP / 2: one.case.elements
                / one.median_s(one.arms.index(name))
                / 1e9
                for i, one in enumerate(sizes)
                if name in one.arms
            }
            bars = axes.bar(
                list(rates), list(rates.values()), width=0.94 * width, color=COLOURS[name], label=name
            )
            axes.bar_label(bars, labels=[_short(rate) for rate in rates.values()], fontsize=6.5, padding=1)
        axes.set_xticks(range(len(sizes)), [_tick(one, peaks) for one in sizes])
        axes.tick_params(axis="x", length=0)
        axes.set_ylabel("G output values/s")
        axes.set_title(precision, loc="left", fontsize=9)
        axes.margins(y=0.12)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(names), frameon=False)
    case, here = group[0].case, group[0].environment
    window = f"{case.kernel}x{case.kernel}"
    title = f"Depthwise {window} of {case.model}, batch {case.batch}: {OPERATIONS[case.operation]}"
    figure.suptitle(f"{title}\n{here.device}", fontsize=10, weight="bold", x=0.01, ha="left")
    floors = (
        "Under each size: the most that both floors allow, from measured ceilings."
        if peaks
        else "No ceilings of the device are known, so no floors are drawn."
    )
    caption = (
        f"Output values a second, median visit; higher is faster. {here.device}, batch {case.batch}, torch "
        f"{here.torch}, {here.date[:10]}. {floors}"
    )
    return figure, title, caption


def _short(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"


def _tick(one: OperatorComparison, peaks: Peaks | None) -> str:
    case = one.case
    known = [floor for floor in depthwise.floors_s(case, peaks) if floor is not None]
    side = "x".join(map(str, height_width(case.image_size)))
    label = f"{size_text(case.res)} px: {case.channels} ch\n{side}"
    return f"{label}, at most {_short(case.elements / max(known) / 1e9)}" if known else label
