"""Writes the report's section on what trained networks do: spectra of their noise, use of their channels."""

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.records.record import (
    BANDS,
    DEAD,
    ChannelScores,
    Environment,
    Probe,
    Record,
    Spectrum,
    key,
    to_line,
)
from reports import objectives
from reports.figures.plots import OTHER, STYLE, Drawing, colour_of, new_figure, placed, saved
from reports.naming import order
from reports.overview import BLANK, Columns, markdown

A = TypeVar("A", Spectrum, ChannelScores)

DASHES = ("-", "--", ":", "-.")
MARKS = ("o", "s", "^", "D", "v", "P")
OTHERS = (OTHER, "#56B4E9", "#000000", "#8C6D31")  # of networks that no family has a colour for
LEGEND_LETTERS = 120  # side by side under a figure, a line's sample being 8
TABLE_LEVELS = 5  # in a table at the most, evenly out of all
FLOOR = 1e-4  # of a plotted score, in means of its layer; a channel that is never used lies on it
THIRDS = {"low": "below 1/6", "mid": "1/6 to 1/3", "high": "above 1/3"}  # cycles a pixel


def section(records: Sequence[Record]) -> tuple[str, list[Drawing]]:
    """Write the section; empty without records of these kinds. They may be in any order; the newest count."""
    spectra = _groups([record for record in records if isinstance(record, Spectrum)])
    scores = _groups([record for record in records if isinstance(record, ChannelScores)])
    parts: list[str] = []
    drawings: list[Drawing] = []
    with matplotlib.rc_context(STYLE):
        for number, (group, about) in enumerate(zip(spectra, _names(spectra), strict=True), start=1):
            drawing = saved(f"spectrum_{number}", *_spectrum_figure(group, about))
            parts += _spectrum_text(group, about, drawing)
            drawings.append(drawing)
        for number, (scored, about) in enumerate(zip(scores, _names(scores), strict=True), start=1):
            drawing = saved(f"channels_{number}", *_channels_figure(scored, about))
            parts += _channels_text(scored, about, drawing)
            drawings.append(drawing)
    return ("\n\n".join(["## Inside trained networks", *parts]) if parts else ""), drawings


def _groups(analyses: Sequence[A]) -> list[list[A]]:
    """The newest analysis of every network, those together that were shown the same."""
    newest: dict[str, A] = {}
    for one in sorted(analyses, key=lambda one: (one.run.environment.date, to_line(one))):
        newest[key(one)] = one
    groups: dict[tuple[object, ...], list[A]] = {}
    for one in newest.values():
        probe, here = one.probe, one.run.environment
        shown = (probe.data, probe.data_sha256, probe.images, probe.levels, probe.objective, here.device)
        groups.setdefault(shown, []).append(one)
    return [
        sorted(groups[shown], key=lambda one: (order(one.run.model), one.probe.trained, one.run.weights))
        for shown in sorted(groups, key=repr)
    ]


def _names(groups: Sequence[Sequence[A]]) -> list[str]:
    """What each group was shown, in words; those that differ in less than data and objective are numbered."""
    found = [f"{group[0].probe.data}, {objectives.NAMES[group[0].probe.objective]}" for group in groups]
    return [
        name if found.count(name) == 1 else f"{name} ({found[: i + 1].count(name)})"
        for i, name in enumerate(found)
    ]


def _labels(group: Sequence[A]) -> list[str]:
    """A network's name; with its checkpoint where there are several of the name."""
    models = [one.run.model for one in group]
    return [
        one.run.model if models.count(one.run.model) == 1 else f"{one.run.model}, {one.probe.trained}"
        for one in group
    ]


def _shown(group: Sequence[A]) -> str:
    """What stands under a table: data, device, precision, batch, software."""
    probe, run = group[0].probe, group[0].run
    batches = ", ".join(sorted({str(one.run.batch) for one in group}, key=int))
    return (
        f"{probe.images} validation images of {_data(probe)}, the same images and noise for all, objective "
        f"{probe.objective}; {run.environment.device}, {run.precision}, batch {batches}, "
        f"{_software(one.run.environment for one in group)}."
    )


def _data(probe: Probe) -> str:
    return f"{probe.data} (sha256 {probe.data_sha256})"


def _software(environments: Iterable[Environment]) -> str:
    held = list(environments)
    versions = ", ".join(sorted({one.torch for one in held}))
    commits = ", ".join(sorted({one.commit or BLANK for one in held}))
    dates = sorted({one.date[:10] for one in held})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"torch {versions}, commit {commits}, {when}"


def _line(group: Sequence[A], at: int) -> dict[str, object]:
    """How the line of a network looks: a colour for its family, dashes and a mark within it."""
    alike = [one for one in group if colour_of(one.run.model) == colour_of(group[at].run.model)]
    place = alike.index(group[at])
    colour = colour_of(group[at].run.model)
    return {
        "color": OTHERS[place % len(OTHERS)] if colour == OTHER else colour,
        "linestyle": DASHES[place % len(DASHES)],
        "marker": MARKS[place % len(MARKS)],
        "markersize": 3.5,
        "linewidth": 1.4,
    }


def _legend(figure: Figure, axes: Axes) -> None:
    """Name the lines of one of the panels below all of them, in as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    columns = LEGEND_LETTERS // (max(map(len, labels)) + 8)
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, min(4, columns)), frameon=False)


# spectra


def _spectrum_figure(group: Sequence[Spectrum], about: str) -> tuple[Figure, str, str]:
    """Plot the power in each band against the level of noise: of the prediction above, of its error below."""
    figure = new_figure(9.6, 5.8)
    rows = (("power of the predicted noise", "predicted"), ("power of its error", "error"))
    panels = figure.subplots(2, len(BANDS), sharex=True, sharey="row", squeeze=False)
    for row, (what, powers) in enumerate(rows):
        for column, (band, _, _) in enumerate(BANDS):
            axes = panels[row][column]
            for at, (one, label) in enumerate(zip(group, _labels(group), strict=True)):
                axes.plot(one.probe.levels, _band(one, powers, band), label=label, **_line(group, at))
            if row == 0:
                axes.axhline(1, color="#999999", linewidth=0.8, zorder=0)
                axes.set_title(f"{band}: {THIRDS[band]} cycle a pixel", loc="left", fontsize=9)
            else:
                axes.set_yscale("log")
                axes.set_xlabel(f"level of noise: {objectives.THOUSANDTHS[group[0].probe.objective]}")
            axes.grid(color="#dddddd", linewidth=0.6)
            axes.set_axisbelow(True)
        panels[row][0].set_ylabel(what)
    _legend(figure, panels[0][0])
    title = f"Spectral energy of the predicted noise, by level of noise: {about}"
    figure.suptitle(title, fontsize=10, weight="bold", x=0.01, ha="left")
    caption = (
        "Mean squared Fourier coefficient in a band, 1 being standard normal noise at every frequency (grey "
        "line). Below the line a network predicts less noise of these frequencies than was added. The low "
        "band includes the mean, the high one the corners beyond half a cycle a pixel."
    )
    return figure, title, caption


def _band(one: Spectrum, powers: str, band: str) -> list[float]:
    held = one.predicted if powers == "predicted" else one.error
    return [one.power(rings, band) for rings in held]


def _spectrum_text(group: Sequence[Spectrum], about: str, drawing: Drawing) -> list[str]:
    return [
        f"### Spectral energy of the predicted noise: {about}",
        "Power of the predicted noise in the low / mid / high band, and of its error, by level of noise; the "
        "picture has all levels. FCDM's appendix F (Figure 8) shows such energies over the diffusion "
        "process; no numbers of it are at hand. That validation images are noised to each level here, and "
        "none sampled, is our reading.",
        markdown(_powers(group, "predicted")),
        "The error's power:",
        markdown(_powers(group, "error")),
        _shown(group),
        *placed(drawing),
    ]


def _powers(group: Sequence[Spectrum], powers: str) -> Columns:
    columns: Columns = {"model": _labels(group), "weights": [one.probe.trained for one in group]}
    levels = group[0].probe.levels
    shown = min(TABLE_LEVELS, len(levels))
    for at in (round(i * (len(levels) - 1) / max(1, shown - 1)) for i in range(shown)):
        columns[f"level {levels[at]}"] = [
            " / ".join(_number(_band(one, powers, band)[at]) for band, _, _ in BANDS) for one in group
        ]
    return columns


def _number(value: float) -> str:
    if value != value:
        return BLANK
    return f"{value:.3f}" if value >= 0.01 else f"{value:.1e}"


# channels


def _channels_figure(group: Sequence[ChannelScores], about: str) -> tuple[Figure, str, str]:
    """Plot all scores in order, in means of their layers, and how many channels each layer uses."""
    figure = new_figure(9.6, 4.2)
    ranked, used = figure.subplots(1, 2)
    for at, (one, label) in enumerate(zip(group, _labels(group), strict=True)):
        style = _line(group, at)
        scores = sorted((score for layer in one.layers for score in _relative(layer.scores)), reverse=True)
        places = [100 * (i + 0.5) / len(scores) for i in range(len(scores))]
        ranked.plot(
            places,
            [max(score, FLOOR) for score in scores],
            label=label,
            **{**style, "marker": ""},
        )
        used.plot(
            range(1, len(one.layers) + 1), [100 * layer.effective_share for layer in one.layers], **style
        )
    ranked.axhline(DEAD, color="#999999", linewidth=0.8, zorder=0)
    ranked.text(1, DEAD, "near-dead below", fontsize=7.5, color="#666666", va="bottom")
    ranked.set_yscale("log")
    ranked.set_ylim(FLOOR * 0.8, None)
    ranked.set_xlim(0, 100)
    ranked.set_xlabel("channels of all layers, most used first, %")
    ranked.set_ylabel("score, in means of the channel's layer (log)")
    used.set_xlabel("layer, from input to output")
    used.set_ylabel("effective channels of the layer, %")
    used.set_ylim(0, 100)
    used.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (ranked, used):
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    _legend(figure, ranked)
    title = f"Use of hidden channels: {about}"
    figure.suptitle(title, fontsize=10, weight="bold", x=0.01, ha="left")
    caption = (
        "A channel's score is the mean of max(0, value) over images, places and levels of noise, read where "
        f"the hidden channels are contracted. Scores below {FLOOR:g} of the mean are drawn there. Effective: "
        "as many equally used channels would have the entropy of the scores."
    )
    return figure, title, caption


def _relative(scores: Sequence[float]) -> list[float]:
    """Scores in means of their layer; all zero where nothing is used."""
    mean = fmean(scores)
    return [score / mean if mean else 0.0 for score in scores]


def _channels_text(group: Sequence[ChannelScores], about: str, drawing: Drawing) -> list[str]:
    return [
        f"### Use of hidden channels: {about}",
        f"Near-dead channels score below {100 * DEAD:g} % of their layer's mean. All but the counts are "
        "means over the layers. FCDM's Figure 7 shows such scores; no numbers of it are at hand.",
        markdown(_uses(group)),
        f"Levels of noise: {', '.join(map(str, group[0].probe.levels))}. {_shown(group)}",
        *placed(drawing),
    ]


def _uses(group: Sequence[ChannelScores]) -> Columns:
    def mean(read: Callable[[ChannelScores], list[float]], digits: int) -> list[str]:
        return [f"{fmean(read(one)):.{digits}f}" for one in group]

    return {
        "model": _labels(group),
        "weights": [one.probe.trained for one in group],
        "layers": [str(len(one.layers)) for one in group],
        "channels": [str(sum(len(layer.scores) for layer in one.layers)) for one in group],
        "near-dead, %": mean(lambda one: [100 * layer.dead_share for layer in one.layers], 1),
        "Gini": mean(lambda one: [layer.gini for layer in one.layers], 3),
        "effective, %": mean(lambda one: [100 * layer.effective_share for layer in one.layers], 1),
    }
