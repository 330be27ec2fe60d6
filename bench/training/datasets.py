"""Images or latents with their labels, in memory, that backbones are trained on; always split alike."""

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.generic]

FOLDER = Path("data")  # of decoded data, under the current directory; git ignores it
NAMED = ("digits", "fashion-mnist", "cifar10")
LATENTS = ("latents", "features")  # what an array or a folder of them may be called
HELD_OUT = 10_000  # latents at the most, of a tenth, for validation
DIGITS_TOP = 16  # their grey levels run from 0


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Images or latents with their labels; batches of them are floats."""

    name: str
    train: Tensor  # (n, C, H, W), as stored: uint8 levels of images, floats of latents
    train_labels: Tensor  # (n,) int64
    validation: Tensor
    validation_labels: Tensor
    classes: int
    kind: str  # pixels or latents
    top: int | None  # the level that becomes 1, as 0 becomes -1; None: latents, taken as they are
    sha256: str  # head of the SHA-256 over the arrays as stored, with their types and shapes

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        C, H, W = self.train.shape[1:]
        return C, H, W

    def train_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Training images and labels: (n,) -> (n, C, H, W) float32, images in [-1, 1], and (n,) int64."""
        return self._floats(self.train[indices]), self.train_labels[indices]

    def validation_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """As `train_batch`, of the validation images."""
        return self._floats(self.validation[indices]), self.validation_labels[indices]

    def _floats(self, stored: Tensor) -> Tensor:
        return stored.float() if self.top is None else stored.float() / (self.top / 2) - 1


def load(name_or_path: str, data_dir: Path | None = None) -> Dataset:
    """Read a data set into memory. Nothing is ever fetched here.

    Args:
        name_or_path: digits, fashion-mnist or cifar10; or latents: a folder of .npy files, an .npz or a zarr
            store.
        data_dir: where `python -m bench.data` left what it decoded; by default `data` under the current
            directory.

    Raises:
        ValueError: missing, truncated or contradictory data, told in one line with what would work.
    """
    if name_or_path == "digits":
        return _digits()
    if name_or_path in NAMED:
        return _decoded(name_or_path, (data_dir or FOLDER) / f"{name_or_path}.npz")
    raise ValueError(f"{name_or_path}: no such data; known are {', '.join(NAMED)}")


def held_out(labels: Array, every: int) -> NDArray[np.bool_]:
    """Mark one image of so many for validation, each class in proportion; the same ones every time."""
    # the legacy generator's stream is frozen; sorted by class, every n-th is a stratified sample
    order = np.random.RandomState(0).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    marked = np.zeros(len(labels), dtype=bool)
    marked[order[::every]] = True
    return marked


def _digits() -> Dataset:
    if importlib.util.find_spec("sklearn") is None:
        raise ValueError("digits: need scikit-learn, which is not installed here; pip install scikit-learn")
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images.astype(np.uint8).reshape(-1, 1, 8, 8)
    marked = held_out(labels, 5)
    return _dataset(
        "digits",
        (images[~marked], labels[~marked]),
        (images[marked], labels[marked]),
        classes=10,
        top=DIGITS_TOP,
    )


def _dataset(
    name: str,
    train: tuple[Array, Array],
    validation: tuple[Array, Array],
    *,
    classes: int,
    top: int | None,
) -> Dataset:
    arrays = [
        np.ascontiguousarray(images if at % 2 == 0 else images.astype(np.int64))
        for at, images in enumerate((*train, *validation))
    ]
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape} ".encode())
        digest.update(array.data)
    tensors = [torch.from_numpy(array) for array in arrays]
    return Dataset(
        name=name,
        train=tensors[0],
        train_labels=tensors[1],
        validation=tensors[2],
        validation_labels=tensors[3],
        classes=classes,
        kind="latents" if top is None else "pixels",
        top=top,
        sha256=digest.hexdigest()[:12],
    )


def _decoded(name: str, path: Path) -> Dataset:
    raise ValueError(f"{name}: not at {path}; python -m bench.data {name} fetches it")
