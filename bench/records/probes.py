"""Spectra and channel use of trained networks on noised validation images."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, ClassVar

from bench.records.base import ModelCase, Record, file_name
from bench.records.registry import register
from bench.stats import intervals
from bench.tables.numbers import BLANK, fixed, percent
from bench.tables.table import Column, Table, fields


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Validation images for a trained network, noised to several levels."""

    trained: str  # checkpoint or file, and which of its weights, in words
    objective: str  # of bench.records.training.OBJECTIVES
    data: str  # as in Recipe
    data_sha256: str
    images: int  # equal at every level and for every network, with equal noise
    levels: tuple[int, ...]  # of noise, in thousandths: a timestep of iddpm; of flow 1000 (1 - t)

    def __post_init__(self) -> None:
        if self.images < 1 or not self.levels:
            raise ValueError("probe: needs at least one image and one level of noise")


BANDS = (
    ("low", 0.0, 1 / 6),
    ("mid", 1 / 6, 1 / 3),
    ("high", 1 / 3, 1.0),
)  # cycles a pixel, up to the corners
DEAD = 0.01  # share of a layer's mean score below which a channel counts as near-dead


@dataclass(frozen=True, kw_only=True)
class ProbeCase(ModelCase):
    """Applying a trained network to the images of a probe."""

    probe: Probe

    @property
    def command(self) -> tuple[object, ...]:
        """Of the checkpoint or file, and of a file of latents, by their names."""
        file, probe = file_name(self.weights), self.probe
        ema = probe.trained.partition(", EMA ")[2]
        words: list[object] = ["bench.analyse", self.kind]
        if probe.trained == file:
            words += ["--model", self.model, "--weights", file, "--objective", probe.objective]
        else:
            words += ["--checkpoint", file, *["--ema", ema] * bool(ema)]
        words += ["--data", probe.data, "--images", probe.images, "--levels", *probe.levels]
        return *words, "--batch", self.batch, "--device", self.device


@dataclass(frozen=True, kw_only=True)
class SpectrumCase(ProbeCase):
    """Measuring the power of predicted noise by frequency."""

    kind: ClassVar[str] = "spectrum"


@register
@dataclass(frozen=True, kw_only=True)
class Spectrum(Record):
    """Power of the predicted noise by spatial frequency.

    Powers are means of squared coefficients of an orthonormal Fourier transform, over images, channels and
    the coefficients of a ring. Standard normal noise has power 1 at every frequency.
    """

    case: SpectrumCase
    radii: tuple[float, ...]  # mean frequency of every ring, in cycles a pixel
    counts: tuple[int, ...]  # coefficients in every ring
    predicted: tuple[tuple[float, ...], ...]  # power of the prediction, [level][ring]
    added: tuple[tuple[float, ...], ...]  # power of the added noise
    error: tuple[tuple[float, ...], ...]  # power of their difference

    def __post_init__(self) -> None:
        levels = len(self.case.probe.levels)
        for powers in (self.predicted, self.added, self.error):
            if len(powers) != levels or {len(rings) for rings in powers} != {len(self.radii)}:
                raise ValueError(f"{self.case.model}: needs a power for every level and ring")

    def energy(self, powers: tuple[float, ...], band: str) -> float:
        """Sum of the squared coefficients in a band, for one channel of an image."""
        low, high = next((low, high) for name, low, high in BANDS if name == band)
        rings = zip(self.radii, self.counts, powers, strict=True)
        return sum(count * power for radius, count, power in rings if low <= radius < high)

    def power(self, powers: tuple[float, ...], band: str) -> float:
        """Mean squared coefficient in a band; nan if the images are too small for the band."""
        count = self.energy((1.0,) * len(self.radii), band)
        return self.energy(powers, band) / count if count else float("nan")


@dataclass(frozen=True, kw_only=True)
class ChannelCase(ProbeCase):
    """Measuring the use of every hidden channel."""

    kind: ClassVar[str] = "channels"

    pattern: str  # regular expression of layer names

    @property
    def command(self) -> tuple[object, ...]:
        return *super().command, "--layer", self.pattern


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Use of every channel of one hidden layer."""

    layer: str  # name of the module that reads these channels
    scores: tuple[float, ...]  # by channel: mean of max(0, value) over images, levels and positions

    def __post_init__(self) -> None:
        if not self.scores or min(self.scores) < 0:
            raise ValueError(f"{self.layer}: needs scores of 0 and above")

    @property
    def mean(self) -> float:
        return fmean(self.scores)

    @property
    def dead_share(self) -> float:
        """Share of near-dead channels: score zero, or below DEAD times the mean score of the layer."""
        return sum(score < DEAD * self.mean or score == 0 for score in self.scores) / len(self.scores)

    @property
    def gini(self) -> float:
        return intervals.gini(self.scores)

    @property
    def effective_share(self) -> float:
        """Effective number of channels (by entropy) as a share of all channels."""
        return intervals.effective_count(self.scores) / len(self.scores)


@register
@dataclass(frozen=True, kw_only=True)
class ChannelScores(Record):
    """Scores of the hidden channels of a network, by layer."""

    case: ChannelCase
    layers: tuple[Scores, ...]  # in the order of the network's modules

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError(f"{self.case.model}: needs the scores of at least one layer")


# tables


@dataclass(frozen=True)
class Level:
    """A row: a spectrum at one noise level."""

    record: Spectrum
    number: int

    @property
    def case(self) -> SpectrumCase:
        return self.record.case

    def power(self, what: str, band: str) -> float | None:
        """Mean squared coefficient of the prediction or its error in a band; None without one."""
        power = self.record.power(getattr(self.record, what)[self.number], band)
        return None if power != power else power


@dataclass(frozen=True)
class Layers:
    """A row: channel scores of some layers of a network."""

    record: ChannelScores
    name: str
    layers: Sequence[Scores]

    @property
    def case(self) -> ChannelCase:
        return self.record.case

    def mean(self, statistic: str) -> float:
        return fmean(getattr(layer, statistic) for layer in self.layers)


def _power(what: str, band: str) -> Column[Any]:
    return Column(
        f"{what} {band}",
        lambda row: row.power(what, band),
        lambda value: BLANK if value is None else fixed(4, value),
    )


_MODEL = (*fields("case.model"), *fields("case.weights", raw=True), *fields("case.probe.trained"))
SPECTRA = Table[Level](
    title="Power of the predicted noise by frequency",
    columns=(
        *_MODEL,
        Column("level", lambda row: row.case.probe.levels[row.number], str),
        *(_power(what, band) for what in ("predicted", "error") for band, _, _ in BANDS),
    ),
    records=lambda row: (row.record,),
)
CHANNELS = Table[Layers](
    title="Use of the hidden channels",
    columns=(
        *_MODEL,
        Column("layers", "name", key="layer"),
        Column("channels", lambda row: sum(len(layer.scores) for layer in row.layers)),
        Column("mean score", lambda row: row.mean("mean"), lambda value: fixed(4, value)),
        Column("near-dead %", lambda row: row.mean("dead_share"), lambda v: percent(v, 1), key="dead_share"),
        Column("Gini", lambda row: row.mean("gini"), lambda value: fixed(3, value)),
        Column(
            "effective %",
            lambda row: row.mean("effective_share"),
            lambda value: percent(value, 1),
            key="effective_share",
        ),
    ),
    records=lambda row: (row.record,),
)


def levels(record: Record) -> list[Any]:
    """Rows of a record in SPECTRA; a skipped case is one row."""
    if not isinstance(record, Spectrum):
        return [record]
    return [Level(record, number) for number in range(len(record.case.probe.levels))]


def layers(record: Record, *, by_layer: bool) -> list[Any]:
    """Rows of a record in CHANNELS: one, or one for each layer; a skipped case is one row."""
    if not isinstance(record, ChannelScores):
        return [record]
    if by_layer:
        return [Layers(record, layer.layer, (layer,)) for layer in record.layers]
    return [Layers(record, f"all {len(record.layers)}", record.layers)]
