"""Data sets in memory: images or latents with labels, in a fixed training and validation split."""

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.datasets import latents
from bench.datasets.archives import Begin, Images, digest, ignore, read_npz
from bench.datasets.names import DECODED, IMAGES, checked

Array = NDArray[Any]

FOLDER = Path("data")  # decoded data, relative to the current directory; git ignores it
CLASSES = 10  # of all three data sets of images
DIGITS_TOP = 16  # grey levels of the digits are 0 to 16
SIDE = 32  # px; smaller images are padded, except the digits
MAX_HELD_OUT = 10_000  # validation latents: a tenth, at most this many
MAX_CLASSES = 1000  # default for latents, as in ImageNet; a larger label is an error


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Images or latents with their labels; `train_batch` and `validation_batch` give floats."""

    name: str
    train: Tensor  # (n, C, H, W), as stored: uint8 levels of images, floats of latents
    train_labels: Tensor  # (n,) int64
    validation: Tensor
    validation_labels: Tensor
    classes: int
    top: int | None  # the level scaled to 1, while 0 becomes -1; None: latents, not scaled
    sha256: str  # head of the SHA-256 over the arrays as stored, with their types and shapes

    @property
    def kind(self) -> str:
        return "latents" if self.top is None else "pixels"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        C, H, W = self.train.shape[1:]
        return C, H, W

    def train_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Training images and labels: (n,) -> (n, C, H, W) float32, images in [-1, 1], and (n,) int64."""
        return self._floats(self.train[indices]), self.train_labels[indices]

    def validation_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Like `train_batch`, for the validation images."""
        return self._floats(self.validation[indices]), self.validation_labels[indices]

    def _floats(self, stored: Tensor) -> Tensor:
        return stored.float() if self.top is None else stored.float() / (self.top / 2) - 1


def load(
    name_or_path: str, data_dir: Path | None = None, max_classes: int = MAX_CLASSES, begin: Begin = ignore
) -> Dataset:
    """Read a data set into memory. Nothing is downloaded.

    Args:
        name_or_path: digits, fashion-mnist, cifar10, or a path of latents: a folder of .npy files, an .npz
            or a zarr store.
        data_dir: the folder of `python -m bench.data`; by default `data` in the current directory.
        max_classes: upper bound of latents' labels; the largest label defines the number of classes.
        begin: called with the name of each file of a folder of latents.

    Raises:
        ValueError: the data is missing, truncated or contradictory.
    """
    folder = FOLDER if data_dir is None else data_dir
    if name_or_path == "digits":
        return _digits()
    if name_or_path in DECODED:
        return from_images(name_or_path, read_decoded(name_or_path, folder))
    return _latents(Path(checked(name_or_path)), max_classes, begin)


def decoded_path(name: str, folder: Path) -> Path:
    return folder / f"{name}.npz"


def read_decoded(name: str, folder: Path) -> Images:
    """Read a data set that `python -m bench.data` decoded. ValueError: a bad or missing file."""
    path = decoded_path(name, folder)
    if not path.exists():
        raise ValueError(f"{name}: not in {folder}; {_prepares(name, folder)} prepares it")
    parts = ("train", "train_labels", "validation", "validation_labels")
    try:
        arrays = read_npz(path)
        return Images(**{part: arrays[part] for part in parts})
    except (ValueError, KeyError) as error:
        works = f"{_prepares(name, folder)} --again"
        raise ValueError(f"{path}: not a decoded data set: {error}; {works}") from error


def _prepares(name: str, folder: Path) -> str:
    """The shell command that prepares a data set in a folder."""
    return f"python -m bench.data {name}" + ("" if folder == FOLDER else f" --dir {folder}")


def from_images(name: str, images: Images) -> Dataset:
    """Make a data set of images: channels first, padded to 32 x 32. ValueError: contradictions in them."""

    def planes(of: Array, what: str) -> Array:
        if of.ndim != 4 or of.dtype != np.uint8 or max(of.shape[1:3]) > SIDE:
            raise ValueError(f"{name}: {what} images must be uint8 (n, H, W, C), got {of.dtype} {of.shape}")
        rows, columns = (SIDE - side for side in of.shape[1:3])
        halves = [(0, 0), (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0)]
        return np.pad(of, halves).transpose(0, 3, 1, 2)

    return _dataset(
        name,
        (planes(images.train, "training"), images.train_labels),
        (planes(images.validation, "validation"), images.validation_labels),
        classes=CLASSES,
        top=255,
    )


def held_out(labels: Array, every: int) -> NDArray[np.bool_]:
    """Mark one image in `every` for validation, stratified by class; the choice is fixed."""
    # NumPy guarantees the legacy generator's stream; sorted by class, every n-th is a stratified sample
    order = np.random.RandomState(0).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    marked = np.zeros(len(labels), dtype=bool)
    marked[order[::every]] = True
    return marked


def _digits() -> Dataset:
    if importlib.util.find_spec("sklearn") is None:
        raise ValueError("digits: needs scikit-learn, which is not installed; pip install scikit-learn")
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images.astype(np.uint8).reshape(-1, 1, 8, 8)
    marked = held_out(labels, 5)
    return _dataset(
        "digits",
        (images[~marked], labels[~marked]),
        (images[marked], labels[marked]),
        classes=CLASSES,
        top=DIGITS_TOP,
    )


def _latents(path: Path, max_classes: int, begin: Begin) -> Dataset:
    features, labels = latents.read(path, begin)
    if len(labels) < 2:
        raise ValueError(
            f"{path}: needs at least one latent for training and one for validation, got {len(labels)}"
        )
    if (largest := int(labels.max())) >= max_classes:
        raise ValueError(
            f"{path}: labels must be from 0 to {max_classes - 1}, got {largest} at {int(labels.argmax())}; "
            f"--classes {largest + 1} would work"
        )
    marked = held_out(labels, max(10, -(-len(labels) // MAX_HELD_OUT)))
    name = Path(os.path.abspath(path)).name  # works for "." and ".."; keeps the name of a link
    return _dataset(
        name if name not in IMAGES else f"{name} (latents)",
        (features[~marked], labels[~marked]),
        (features[marked], labels[marked]),
        classes=int(labels.max()) + 1,
        top=None,
    )


def _dataset(
    name: str, train: tuple[Array, Array], validation: tuple[Array, Array], *, classes: int, top: int | None
) -> Dataset:
    for what, (images, labels) in (("training", train), ("validation", validation)):
        if len(images) != len(labels) or not len(images):
            raise ValueError(f"{name}: {len(images)} {what} images and {len(labels)} labels")
        if labels.min() < 0 or labels.max() >= classes:
            wrong = labels[(labels < 0) | (labels >= classes)][0]
            raise ValueError(f"{name}: {what} labels must be from 0 to {classes - 1}, got {wrong}")
    if train[0].shape[1:] != validation[0].shape[1:]:
        raise ValueError(f"{name}: images of {train[0].shape[1:]} and of {validation[0].shape[1:]}")
    arrays = [
        np.ascontiguousarray(array)
        for images, labels in (train, validation)
        for array in (images, labels.astype(np.int64))
    ]
    tensors = [torch.from_numpy(array) for array in arrays]
    return Dataset(
        name=name,
        train=tensors[0],
        train_labels=tensors[1],
        validation=tensors[2],
        validation_labels=tensors[3],
        classes=classes,
        top=top,
        sha256=digest(arrays)[:12],
    )
