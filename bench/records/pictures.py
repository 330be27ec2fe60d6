"""Whole pictures: times of sampling chains whose latents an autoencoder decodes, by stage."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import ClassVar

from bench.records.registry import register
from bench.records.sampling import CHAIN, EFFORT, SamplingCase, TimedChains
from bench.stats import processes
from bench.tables.numbers import fixed, giga, percent
from bench.tables.numbers import interval as interval_text
from bench.tables.table import Column, Table, fields

AUTOENCODERS = ("sd-f8",)  # by the latents that they decode
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class PictureCase(SamplingCase):
    """Drawing samples of one network and decoding them; `batch` is the number of images of a chain."""

    kind: ClassVar[str] = "picture"

    autoencoder: str  # of AUTOENCODERS; its weights are random

    @property
    def command(self) -> tuple[object, ...]:
        return *super().command, "--autoencoder", self.autoencoder

    @property
    def chain(self) -> str:
        return f"{super().chain}, decoded by {self.autoencoder}"


@register
@dataclass(frozen=True, kw_only=True)
class PictureRun(TimedChains):
    """Times of chains, from the noise to decoded images, and of their stages, device synchronised."""

    case: PictureCase
    noise_s: tuple[float, ...]  # of each chain: labels and all of its noise
    passes_s: tuple[tuple[float, ...], ...]  # of each chain: every guided prediction
    decoder_s: tuple[float, ...]  # of each chain: its batch
    decoder_params: int
    decoder_macs: int  # of one image, counted
    diffusers: str  # version of the package with the autoencoder

    def __post_init__(self) -> None:
        super().__post_init__()
        stages = self.noise_s, self.passes_s, self.decoder_s
        if any(len(times) != len(self.times_s) for times in stages):
            raise ValueError(f"{self.case.model}: needs a time of every stage for every chain")
        if any(len(times) != self.passes for times in self.passes_s):
            raise ValueError(f"{self.case.model}: needs a time for each of {self.passes} passes")
        if min(self.rest_s) < 0:
            raise ValueError(f"{self.case.model}: the stages of a chain take longer than the chain")

    @property
    def network_s(self) -> tuple[float, ...]:
        """Seconds of all passes of each chain."""
        return tuple(map(math.fsum, self.passes_s))

    @property
    def rest_s(self) -> tuple[float, ...]:
        """Seconds of each chain outside of its stages: the sampler's arithmetic."""
        stages = zip(self.times_s, self.noise_s, self.network_s, self.decoder_s, strict=True)
        return tuple(total - noise - network - decoder for total, noise, network, decoder in stages)

    @property
    def step_s(self) -> float:
        """Seconds of the passes of one step."""
        return median(self.network_s) / self.case.steps

    def share(self, stage_s: Sequence[float]) -> float:
        """Share of a stage, given by its time in each chain, in the time of all chains."""
        return math.fsum(stage_s) / math.fsum(self.times_s)


TABLE = Table[PictureRun](
    title="Speed of whole pictures, and shares of their time",
    columns=(
        *CHAIN,
        Column("noise, %", lambda r: r.share(r.noise_s), lambda v: percent(v, 2), key="noise_share"),
        Column("network, %", lambda r: r.share(r.network_s), lambda v: percent(v, 1), key="network_share"),
        Column("decoder, %", lambda r: r.share(r.decoder_s), lambda v: percent(v, 1), key="decoder_share"),
        Column("rest, %", lambda r: r.share(r.rest_s), lambda v: percent(v, 2), key="rest_share"),
        Column("s/step", "step_s"),
        Column("s/decoding", lambda r: median(r.decoder_s), key="decoding_s"),
        *fields("case.autoencoder", "decoder_params", "decoder_macs", "diffusers", "noise_s", raw=True),
        Column("passes_s", lambda r: list(map(list, r.passes_s)), raw=True),
        *fields("decoder_s", raw=True),
        *EFFORT,
    ),
)


def about_decoder(run: PictureRun) -> str:
    """What the autoencoder is, in words."""
    return (
        f"{run.case.autoencoder}: the decoder of AutoencoderKL of diffusers {run.diffusers} with random "
        f"weights, {run.decoder_params:,} parameters, {giga(run.decoder_macs, 1)} GMACs an image (counted)"
    )


@dataclass(frozen=True, kw_only=True)
class PictureRatio:
    """Ratio of the speeds of two models, of their networks alone and of whole pictures.

    The decoder does the same work for both models, and counts with the median of the chains of both.
    """

    run: PictureRun
    reference: PictureRun

    @property
    def network(self) -> float:
        """Speed of the network / speed of the reference's."""
        return median(self.reference.network_s) / median(self.run.network_s)

    @property
    def network_interval(self) -> Interval:
        """95 %, with the spread between processes."""
        return processes.ratio_interval([self.run.network_s], [self.reference.network_s])

    @property
    def whole(self) -> float:
        """Pictures a second / pictures a second of the reference."""
        return median(self._whole_s(self.reference)) / median(self._whole_s(self.run))

    @property
    def whole_interval(self) -> Interval:
        """95 %, with the spread between processes."""
        return processes.ratio_interval([self._whole_s(self.run)], [self._whole_s(self.reference)])

    def _whole_s(self, run: PictureRun) -> list[float]:
        decoder_s = median((*self.run.decoder_s, *self.reference.decoder_s))
        return [time - own + decoder_s for time, own in zip(run.times_s, run.decoder_s, strict=True)]


_ratio = partial(fixed, 3)
RATIOS = Table[PictureRatio](
    title="Ratios of speeds, of networks alone and of whole pictures",
    columns=(
        Column("model", lambda row: str(row.run.case.arm)),
        Column("reference", lambda row: str(row.reference.case.arm)),
        *fields("run.case.settings", "run.case.steps"),
        Column("guidance", "run.case.guidance", "{:g}".format),
        Column("speed ratio, network", lambda row: row.network, _ratio),
        Column("95 % interval, network", lambda row: row.network_interval, interval_text),
        Column("speed ratio, whole pictures", lambda row: row.whole, _ratio),
        Column("95 % interval, whole pictures", lambda row: row.whole_interval, interval_text),
        Column("decoder, % of the model's time", lambda row: row.run.share(row.run.decoder_s), percent),
        *fields("run.environment.device"),
    ),
    records=lambda row: (row.run, row.reference),
)
