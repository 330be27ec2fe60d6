"""What trained networks do with noised validation images: their spectra and their channels."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, ClassVar

from bench.records.base import ModelCase, Record, register
from bench.stats import intervals
from bench.tables.numbers import BLANK, fixed, percent
from bench.tables.table import Column, Table


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The validation images that a trained network is given, noised to several levels."""

    trained: str  # in words: which checkpoint or file, and which of its weights
    objective: str  # iddpm or flow
    data: str  # as of Recipe
    data_sha256: str
    images: int  # the same ones at every level and for every network, with the same noise
    levels: tuple[int, ...]  # of noise, in thousandths: a timestep of iddpm; of flow 1000 (1 - t)

    def __post_init__(self) -> None:
        if self.images < 1 or not self.levels:
            raise ValueError("probe: needs at least one image and one level of noise")


BANDS = (
    ("low", 0.0, 1 / 6),
    ("mid", 1 / 6, 1 / 3),
    ("high", 1 / 3, 1.0),
)  # cycles a pixel, up to the corners
DEAD = 0.01  # of the mean score of a layer: a channel below it counts as near-dead


@dataclass(frozen=True, kw_only=True)
class SpectrumCase(ModelCase):
    """Measuring the power of predicted noise by frequency."""

    kind: ClassVar[str] = "spectrum"

    probe: Probe


@register
@dataclass(frozen=True, kw_only=True)
class Spectrum(Record):
    """Power by spatial frequency of the noise that a network predicts in noised images.

    Powers are means of squared coefficients of an orthonormal Fourier transform, over images, channels and
    the coefficients of a ring: 1 for standard normal noise at every frequency.
    """

    case: SpectrumCase
    radii: tuple[float, ...]  # mean frequency of every ring, in cycles a pixel
    counts: tuple[int, ...]  # coefficients in every ring
    predicted: tuple[tuple[float, ...], ...]  # for every level, the power in every ring: of the prediction,
    added: tuple[tuple[float, ...], ...]  # of the noise that was added,
    error: tuple[tuple[float, ...], ...]  # and of their difference

    def __post_init__(self) -> None:
        levels = len(self.case.probe.levels)
        for powers in (self.predicted, self.added, self.error):
            if len(powers) != levels or {len(rings) for rings in powers} != {len(self.radii)}:
                raise ValueError(f"{self.case.model}: needs a power for every level and ring")

    def energy(self, powers: tuple[float, ...], band: str) -> float:
        """Sum of the squared coefficients of an image's channel in a band, from the powers in the rings."""
        low, high = next((low, high) for name, low, high in BANDS if name == band)
        rings = zip(self.radii, self.counts, powers, strict=True)
        return sum(count * power for radius, count, power in rings if low <= radius < high)

    def power(self, powers: tuple[float, ...], band: str) -> float:
        """Mean squared coefficient in a band; nan where the images are too small to have it."""
        count = self.energy((1.0,) * len(self.radii), band)
        return self.energy(powers, band) / count if count else float("nan")


@dataclass(frozen=True, kw_only=True)
class ChannelCase(ModelCase):
    """Measuring how much every hidden channel is used."""

    kind: ClassVar[str] = "channels"

    probe: Probe
    pattern: str  # regular expression that the names of the layers match


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How much every channel of one hidden layer is used."""

    layer: str  # name of the module that reads these channels
    scores: tuple[float, ...]  # of every channel: the mean over images, levels and places of max(0, value)

    def __post_init__(self) -> None:
        if not self.scores or min(self.scores) < 0:
            raise ValueError(f"{self.layer}: needs scores of 0 and above")

    @property
    def mean(self) -> float:
        return fmean(self.scores)

    @property
    def dead_share(self) -> float:
        """Share of the channels that are near-dead: below DEAD of the layer's mean score, or all zero."""
        return sum(score < DEAD * self.mean or score == 0 for score in self.scores) / len(self.scores)

    @property
    def gini(self) -> float:
        return intervals.gini(self.scores)

    @property
    def effective_share(self) -> float:
        """Equally used channels with the entropy of these, as a share of the channels."""
        return intervals.effective_count(self.scores) / len(self.scores)


@register
@dataclass(frozen=True, kw_only=True)
class ChannelScores(Record):
    """How evenly a network uses its hidden channels, layer by layer."""

    case: ChannelCase
    layers: tuple[Scores, ...]  # in the order in which the network has them

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError(f"{self.case.model}: needs the scores of at least one layer")


# tables


@dataclass(frozen=True)
class Level:
    """A spectrum at one level of noise: a row."""

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
    """Channel scores of some layers of a network: a row."""

    record: ChannelScores
    name: str
    layers: Sequence[Scores]

    @property
    def case(self) -> ChannelCase:
        return self.record.case

    def mean(self, statistic: str) -> float:
        """Mean over the layers of a property of Scores."""
        return fmean(getattr(layer, statistic) for layer in self.layers)


def _power(what: str, band: str) -> Column[Any]:
    return Column(
        f"{what} {band}",
        lambda row: row.power(what, band),
        lambda value: BLANK if value is None else fixed(4, value),
    )


_MODEL: tuple[Column[Any], ...] = (
    Column("model", lambda row: row.case.model, of_case=True),
    Column("weights", lambda row: row.case.weights, of_case=True, raw=True),
    Column("trained", lambda row: row.case.probe.trained, of_case=True),
)
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
        Column("layers", lambda row: row.name, key="layer"),
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
    """The rows of a record in SPECTRA; a skipped case is one by itself."""
    if not isinstance(record, Spectrum):
        return [record]
    return [Level(record, number) for number in range(len(record.case.probe.levels))]


def layers(record: Record, *, by_layer: bool) -> list[Any]:
    """The rows of a record in CHANNELS: one, or one a layer; a skipped case is one by itself."""
    if not isinstance(record, ChannelScores):
        return [record]
    if by_layer:
        return [Layers(record, layer.layer, (layer,)) for layer in record.layers]
    return [Layers(record, f"all {len(record.layers)}", record.layers)]
