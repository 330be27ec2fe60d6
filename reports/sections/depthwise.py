"""Writes the report's section on depthwise convolutions: implementations beside each other and the floor."""

from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from bench.analysis import depthwise, roofline
from bench.analysis.depthwise import PRECISIONS
from bench.analysis.roofline import Peaks
from bench.records.record import Implemented, Record, height_width, size_text
from reports.figures.plots import STYLE, Drawing, new_figure, placed, saved
from reports.overview import BLANK, Columns, markdown, significant

# Okabe and Ito's, as in reports.figures.plots; in the order in which the command has its variants
COLOURS = {
    "nchw": "#999999",
    "nchw-cudnn": "#56B4E9",
    "channels-last": "#0072B2",
    "channels-last-searched": "#CC79A7",
    "compiled": "#E69F00",
    "triton": "#D55E00",
}
WHAT = {
    "conv": "convolution with its bias",
    "block": "convolution, layer norm and modulation",
}
BARS = 0.84  # of the room of a group


def section(records: Sequence[Record]) -> tuple[str, list[Drawing]]:
    """Write the section; empty without records of its kind. They may be in any order; the newest count."""
    found = depthwise.newest(records)
    if not found:
        return "", []
    names = dict.fromkeys(one.run.environment.device for one in found)
    peaks = {name: roofline.measured_peaks(records, name) for name in names}
    drawings = []
    with matplotlib.rc_context(STYLE):
        for number, group in enumerate(_groups(found), start=1):
            about = peaks[group[0].run.environment.device]
            drawings.append(saved(f"depthwise_{number}", *_figure(group, about)))
    pictures = [line for drawing in drawings for line in placed(drawing)]
    sums = depthwise.passes(found)
    return "\n\n".join(
        [
            "## Depthwise convolutions by implementation",
            _words(),
            markdown(_timed(found, peaks)),
            *_absent(found),
            "All of them in one pass of the model, ms: medians times the calls of each size.",
            markdown(_sums(sums)),
            *pictures,
        ]
    ), drawings


def _words() -> str:
    return (
        "*nchw* is what a plain model runs, and the reference of the ratios: above 1, a variant is faster. "
        "*conv* is the convolution with its bias; *block* is layer norm, shift and scale behind it as well, "
        "as in FCDM. Interleaved rounds; median visit with its 95 % interval, ratio of speeds with its 99 % "
        "interval. The floors are the bytes that must be read and written at the measured copy ceiling, and "
        "2 K² FLOPs an output value at the measured fp32 ceiling, the zeros around the image counted; norm "
        "and modulation count as nothing."
    )


def _timed(found: Sequence[Implemented], peaks: dict[str, Peaks | None]) -> Columns:
    rows = [(one, arm) for one in found for arm in range(len(one.timed))]
    shares = [_shares(one, arm, peaks[one.run.environment.device]) for one, arm in rows]
    return {
        **_settings([one for one, _ in rows]),
        "channels": [str(one.channels) for one, _ in rows],
        "sides": [_sides(one) for one, _ in rows],
        "variant": [one.timed[arm].name for one, arm in rows],
        "ran": [one.timed[arm].ran for one, arm in rows],
        "ms": [_ms(one, arm) for one, arm in rows],
        "G elements/s": [significant(one.elements / one.median_s(arm) / 1e9) for one, arm in rows],
        "GB/s": [significant(one.least_bytes / one.median_s(arm) / 1e9) for one, arm in rows],
        "% of bytes floor": [by_bytes for by_bytes, _ in shares],
        "% of FLOPs floor": [by_flops for _, by_flops in shares],
        "ratio to nchw": [_ratio(one, arm) for one, arm in rows],
        "verdict": [one.verdict(arm) if arm else "reference" for one, arm in rows],
        "rel. error": [f"{one.timed[arm].error:.1e}" for one, arm in rows],
        **_software([one for one, _ in rows]),
    }


def _settings(found: Sequence[Implemented]) -> Columns:
    return {
        "model": [one.run.model for one in found],
        "px": [size_text(one.run.res) for one in found],
        "batch": [str(one.run.batch) for one in found],
        "precision": [one.run.precision for one in found],
        "operation": [one.operation for one in found],
        "K": [str(one.kernel) for one in found],
    }


def _software(found: Sequence[Implemented]) -> Columns:
    here = [one.run.environment for one in found]
    return {
        "device": [one.device for one in here],
        "torch; commit; date": [f"{one.torch}; {one.commit or BLANK}; {one.date}" for one in here],
    }


def _sides(one: Implemented) -> str:
    return "x".join(map(str, height_width(one.size)))


def _ms(one: Implemented, arm: int) -> str:
    interval = one.interval_s(arm)
    ends = f" [{significant(1e3 * interval[0])}, {significant(1e3 * interval[1])}]" if interval else ""
    return significant(1e3 * one.median_s(arm)) + ends


def _shares(one: Implemented, arm: int, peaks: Peaks | None) -> tuple[str, str]:
    by_bytes, by_flops = depthwise.floors_s(one, peaks)

    def share(floor: float | None) -> str:
        return BLANK if floor is None else f"{100 * floor / one.median_s(arm):.1f}"

    return share(by_bytes), share(by_flops)


def _ratio(one: Implemented, arm: int) -> str:
    if not arm:
        return BLANK
    interval = one.interval(arm)
    return f"{one.ratio(arm):.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _absent(found: Sequence[Implemented]) -> list[str]:
    """What was not timed, each reason once."""
    told: dict[str, None] = {}
    for one in found:
        run = one.run
        for variant in one.variants:
            if variant.status == "ok":
                continue
            what = f"{variant.name} on {run.environment.device}, torch {run.environment.torch}"
            if variant.status != "not here":
                what += (
                    f", {run.precision}, {one.operation} {one.kernel}x{one.kernel}, {one.channels} channels, "
                    f"{_sides(one)}"
                )
            told[f"- {what}: {variant.status}: {variant.reason}"] = None
    return ["Not timed:", "\n".join(told)] if told else []


def _sums(sums: Sequence[tuple[Implemented, dict[str, float]]]) -> Columns:
    firsts = [first for first, _ in sums]
    names = [name for name in COLOURS if any(name in seconds for _, seconds in sums)]
    return {
        **_settings(firsts),
        **{
            name: [significant(1e3 * seconds[name]) if name in seconds else BLANK for _, seconds in sums]
            for name in names
        },
        **_software(firsts),
    }


# the figures


def _groups(found: Sequence[Implemented]) -> list[list[Implemented]]:
    """What one figure shows: a device, a model, a batch, an operation and a window."""
    groups: dict[tuple[object, ...], list[Implemented]] = {}
    for one in found:
        run = one.run
        shown = (run.environment.device, run.model, run.batch, one.operation, one.kernel)
        groups.setdefault(shown, []).append(one)
    return list(groups.values())


def _figure(group: Sequence[Implemented], peaks: Peaks | None) -> tuple[Figure, str, str]:
    """Plot values a second of every variant, a panel for each precision, bars together for each size."""
    precisions = [name for name in PRECISIONS if any(one.run.precision == name for one in group)]
    names = [name for name in COLOURS if any(name == variant.name for one in group for variant in one.timed)]
    width = BARS / len(names)
    figure = new_figure(9.6, 0.9 + 2.5 * len(precisions))
    panels = figure.subplots(len(precisions), 1, squeeze=False)[:, 0]
    for axes, precision in zip(panels, precisions, strict=True):
        cases = [one for one in group if one.run.precision == precision]
        for place, name in enumerate(names):
            at, rates = [], []
            for case, one in enumerate(cases):
                arms = [arm for arm, variant in enumerate(one.timed) if variant.name == name]
                if arms:
                    at.append(case + (place + 0.5) * width - BARS / 2)
                    rates.append(one.elements / one.median_s(arms[0]) / 1e9)
            bars = axes.bar(at, rates, width=0.94 * width, color=COLOURS[name], label=name)
            axes.bar_label(bars, labels=[_short(rate) for rate in rates], fontsize=6.5, padding=1)
        axes.set_xticks(range(len(cases)), [_tick(one, peaks) for one in cases])
        axes.tick_params(axis="x", length=0)
        axes.set_ylabel("G output values/s")
        axes.set_title(precision, loc="left", fontsize=9)
        axes.margins(y=0.12)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(names), frameon=False)
    first = group[0]
    run = first.run
    title = (
        f"Depthwise {first.kernel}x{first.kernel} of {run.model}, batch {run.batch}: {WHAT[first.operation]}"
    )
    figure.suptitle(f"{title}\n{run.environment.device}", fontsize=10, weight="bold", x=0.01, ha="left")
    caption = (
        f"Output values a second, median visit; higher is faster. {run.environment.device}, batch {run.batch}"
        f", torch {run.environment.torch}, {run.environment.date[:10]}. "
    )
    caption += (
        "Under each size: the most that both floors allow, from measured ceilings."
        if peaks
        else "No ceilings of the device are at hand, so no floors are drawn."
    )
    return figure, title, caption


def _short(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"


def _tick(one: Implemented, peaks: Peaks | None) -> str:
    known = [floor for floor in depthwise.floors_s(one, peaks) if floor is not None]
    label = f"{size_text(one.run.res)} px: {one.channels} ch\n{_sides(one)}"
    return f"{label}, at most {_short(one.elements / max(known) / 1e9)}" if known else label
