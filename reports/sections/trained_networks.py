"""The report's section on trained networks: spectra of predicted noise, use of channels."""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.records.base import Record
from bench.records.probes import BANDS, CHANNELS, DEAD, SPECTRA, ChannelScores, Level, Probe, Spectrum, layers
from bench.store.codec import newest
from reports import objectives
from reports.figures.plots import Drawing, colour_of, lay_out, legend, new_figure, saved, styled
from reports.markdown import stamp, table
from reports.naming import OTHER, order
from reports.sections import Part, of_parts
from reports.selection import grouped

PLACE = "training.md", 4
A = TypeVar("A", Spectrum, ChannelScores)

DASHES = ("-", "--", ":", "-.")
MARKS = ("o", "s", "^", "D", "v", "P")
OTHERS = (OTHER, "#56B4E9", "#000000", "#8C6D31")  # colours of networks without a family colour
LEGEND_LETTERS = 120  # width of a legend; a line sample counts as 8 letters
TABLE_LEVELS = 5  # maximum levels in a table, evenly spaced
FLOOR = 1e-4  # smallest plotted score, relative to the layer's mean; unused channels lie on it
THIRDS = {"low": "below 1/6", "mid": "1/6 to 1/3", "high": "above 1/3"}  # cycles per pixel
ABOUT_SPECTRA = (
    "Power of the predicted noise, and of its error, in three bands of frequency, by level of noise; the "
    "plot has all levels. FCDM's appendix F (Figure 8) shows such energies over the diffusion "
    "process; it prints no numbers. Here validation images are noised to each level and nothing is "
    "sampled, which is our reading of the paper."
)
ABOUT_CHANNELS = (
    f"Near-dead channels score below {100 * DEAD:g} % of their layer's mean. All but the counts are "
    "means over the layers. FCDM's Figure 7 shows such scores and prints no numbers."
)


@of_parts
def section(records: Sequence[Record]) -> Iterator[Part]:
    """Write the section; empty without such records. They may be in any order; the newest count."""
    spectra = _groups([record for record in records if isinstance(record, Spectrum)])
    scores = _groups([record for record in records if isinstance(record, ChannelScores)])
    if spectra or scores:
        yield "## Inside trained networks"
    for number, (group, about) in enumerate(zip(spectra, _names(spectra), strict=True), start=1):
        yield from (f"### Spectral energy of the predicted noise: {about}", ABOUT_SPECTRA)
        yield from (table(SPECTRA, _levels(group)), _inputs(group))
        yield _spectrum_figure(f"spectrum_{number}", group, about)
    for number, (scored, about) in enumerate(zip(scores, _names(scores), strict=True), start=1):
        yield from (f"### Use of hidden channels: {about}", ABOUT_CHANNELS)
        yield table(CHANNELS, [row for one in scored for row in layers(one, by_layer=False)])
        yield f"Levels of noise: {', '.join(map(str, scored[0].case.probe.levels))}. {_inputs(scored)}"
        yield _channels_figure(f"channels_{number}", scored, about)


def _groups(analyses: Sequence[A]) -> list[list[A]]:
    """The newest analysis of every network, grouped by equal inputs."""

    def inputs(one: A) -> tuple[object, ...]:
        probe: Probe = one.case.probe
        of_probe: tuple[object, ...] = (
            probe.data,
            probe.data_sha256,
            probe.images,
            probe.levels,
            probe.objective,
        )
        return *of_probe, one.environment.device

    groups = grouped(newest(analyses), inputs)
    return [
        sorted(groups[key], key=lambda r: (order(r.case.model), r.case.probe.trained, r.case.weights))
        for key in sorted(groups, key=repr)
    ]


def _names(groups: Sequence[Sequence[A]]) -> list[str]:
    """Name of each group from its inputs; groups with equal data and objective are numbered."""
    found = [
        f"{group[0].case.probe.data}, {objectives.NAMES[group[0].case.probe.objective]}" for group in groups
    ]
    return [
        name if found.count(name) == 1 else f"{name} ({found[: i + 1].count(name)})"
        for i, name in enumerate(found)
    ]


def _labels(group: Sequence[A]) -> list[str]:
    """Label of each network; with its checkpoint if several have the same name."""
    models = [one.case.model for one in group]
    return [
        one.case.model if models.count(one.case.model) == 1 else f"{one.case.model}, {one.case.probe.trained}"
        for one in group
    ]


def _inputs(group: Sequence[A]) -> str:
    """Note below a table: data, device, precision, batch, software."""
    probe, first = group[0].case.probe, group[0]
    batches = ", ".join(sorted({str(one.case.batch) for one in group}, key=int))
    return (
        f"{probe.images} validation images of {probe.data} (sha256 {probe.data_sha256}), the same images and "
        f"noise for all, objective {probe.objective}; {first.environment.device}, {first.case.precision}, "
        f"batch {batches}, {'; '.join(dict.fromkeys(stamp(one.environment) for one in group))}."
    )


def _line(group: Sequence[A], at: int) -> dict[str, object]:
    """Style of a network's line: colour by family, dashes and marker within the family."""
    same_colour = [one for one in group if colour_of(one.case.model) == colour_of(group[at].case.model)]
    place = same_colour.index(group[at])
    colour = colour_of(group[at].case.model)
    return {
        "color": OTHERS[place % len(OTHERS)] if colour == OTHER else colour,
        "linestyle": DASHES[place % len(DASHES)],
        "marker": MARKS[place % len(MARKS)],
        "markersize": 3.5,
        "linewidth": 1.4,
    }


def _legend(figure: Figure, axes: Axes) -> float:
    """Draw one legend below all panels, in as many columns as fit; its height in inches."""
    handles, labels = axes.get_legend_handles_labels()
    columns = LEGEND_LETTERS // (max(map(len, labels)) + 8)
    return legend(figure, handles, max(1, min(4, columns)))


# spectra


@styled
def _spectrum_figure(file: str, group: Sequence[Spectrum], about: str) -> Drawing:
    """Plot power in each band against the level of noise: prediction above, its error below."""
    figure = new_figure(9.6, 5.8)
    rows = (("power of the predicted noise", "predicted"), ("power of its error", "error"))
    panels = figure.subplots(2, len(BANDS), sharex=True, sharey="row", squeeze=False)
    for row, (what, powers) in enumerate(rows):
        for column, (band, _, _) in enumerate(BANDS):
            axes = panels[row][column]
            for at, (one, label) in enumerate(zip(group, _labels(group), strict=True)):
                axes.plot(one.case.probe.levels, _band(one, powers, band), label=label, **_line(group, at))
            if row == 0:
                axes.axhline(1, color="#999999", linewidth=0.8, zorder=0)
                axes.set_title(f"{band}: {THIRDS[band]} cycle a pixel")
            else:
                axes.set_yscale("log")
                axes.set_xlabel(f"level of noise: {objectives.THOUSANDTHS[group[0].case.probe.objective]}")
            axes.grid(color="#dddddd")
        panels[row][0].set_ylabel(what)
    title = f"Spectral energy of the predicted noise, by level of noise: {about}"
    below = _legend(figure, panels[0][0])
    lay_out(figure, title, left=0.75, bottom=0.5 + below, across=0.2, down=0.25)
    caption = (
        "Mean squared Fourier coefficient in a band, 1 being standard normal noise at every frequency (grey "
        "line). Below the line a network predicts less noise of these frequencies than was added. The low "
        "band includes the mean, the high one the corners beyond half a cycle a pixel."
    )
    return saved(file, figure, title, caption)


def _band(one: Spectrum, powers: str, band: str) -> list[float]:
    levels = one.predicted if powers == "predicted" else one.error
    return [one.power(rings, band) for rings in levels]


def _levels(group: Sequence[Spectrum]) -> list[Level]:
    """Rows of at most TABLE_LEVELS evenly spaced levels for every network."""
    count = len(group[0].case.probe.levels)
    shown = min(TABLE_LEVELS, count)
    numbers = [round(i * (count - 1) / max(1, shown - 1)) for i in range(shown)]
    return [Level(one, number) for one in group for number in dict.fromkeys(numbers)]


# channels


@styled
def _channels_figure(file: str, group: Sequence[ChannelScores], about: str) -> Drawing:
    """Plot all sorted scores relative to their layer's mean, and the effective channels of each layer."""
    figure = new_figure(9.6, 4.2)
    ranked, used = figure.subplots(1, 2)
    for at, (one, label) in enumerate(zip(group, _labels(group), strict=True)):
        style = _line(group, at)
        scores = sorted((score for layer in one.layers for score in _relative(layer.scores)), reverse=True)
        places = [100 * (i + 0.5) / len(scores) for i in range(len(scores))]
        ranked.plot(places, [max(score, FLOOR) for score in scores], label=label, **{**style, "marker": ""})
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
        axes.grid(color="#dddddd")
    title = f"Use of hidden channels: {about}"
    lay_out(figure, title, left=0.75, top=0.4, bottom=0.5 + _legend(figure, ranked), across=0.75)
    caption = (
        "A channel's score is the mean of max(0, value) over images, positions and levels of noise, at the "
        "input of the layer that contracts the hidden channels. Lower scores are drawn at "
        f"{FLOOR:g} of the mean. Effective: number of equally used channels with the entropy of the scores."
    )
    return saved(file, figure, title, caption)


def _relative(scores: Sequence[float]) -> list[float]:
    """Scores relative to the layer's mean; all zero if no channel is used."""
    mean = fmean(scores)
    return [score / mean if mean else 0.0 for score in scores]
