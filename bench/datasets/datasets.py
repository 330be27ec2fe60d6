"""Images or latents with their labels, in memory, that backbones are trained on; always split alike."""

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
from bench.datasets.archives import Images, digest, read_npz

Array = NDArray[Any]

FOLDER = Path("data")  # of decoded data, under the current directory; git ignores it
DECODED = ("fashion-mnist", "cifar10")  # by bench.data, into the folder
IMAGES = ("digits", *DECODED)  # names of data that is images; all other data is latents
CLASSES = 10  # of digits and of both of them
DIGITS_TOP = 16  # their grey levels run from 0
SIDE = 32  # smaller images but the digits are padded to it
HELD_OUT = 10_000  # latents at the most, of a tenth, for validation
MOST_CLASSES = 1000  # of latents unless said, as ImageNet has: a label beyond them is taken for a mistake


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


def load(name_or_path: str, data_dir: Path | None = None, most_classes: int = MOST_CLASSES) -> Dataset:
    """Read a data set into memory. Nothing is ever fetched here.

    Args:
        name_or_path: digits, fashion-mnist or cifar10; or latents: a folder of .npy files, an .npz or a zarr
            store.
        data_dir: where `python -m bench.data` left what it decoded; by default `data` under the current
            directory.
        most_classes: labels of latents must lie below it; there are as many classes as the labels say.

    Raises:
        ValueError: missing, truncated or contradictory data, told in one line with what would work.
    """
    folder = FOLDER if data_dir is None else data_dir
    if name_or_path == "digits":
        return _digits()
    if name_or_path in DECODED:
        return from_images(name_or_path, read_decoded(name_or_path, folder))
    if not Path(name_or_path).exists():
        known = ", ".join(IMAGES)
        raise ValueError(f"{name_or_path}: no such data: neither {known} nor a file or folder of latents")
    return _latents(Path(name_or_path), most_classes)


def decoded_path(name: str, folder: Path) -> Path:
    return folder / f"{name}.npz"


def read_decoded(name: str, folder: Path) -> Images:
    """Read what `python -m bench.data` decoded.

    Raises:
        ValueError: it is not there, cut off, or something else.
    """
    path = decoded_path(name, folder)
    if not path.exists():
        raise ValueError(f"{name}: not in {folder}; {_brings(name, folder)} brings it")
    parts = ("train", "train_labels", "validation", "validation_labels")
    try:
        held = read_npz(path)
        return Images(**{part: held[part] for part in parts})
    except (ValueError, KeyError) as error:
        works = f"{_brings(name, folder)} --again"
        raise ValueError(f"{path}: not what bench.data decoded: {error}; {works}") from error


def _brings(name: str, folder: Path) -> str:
    """The command that brings a data set into a folder."""
    return f"python -m bench.data {name}" + ("" if folder == FOLDER else f" --dir {folder}")


def from_images(name: str, images: Images) -> Dataset:
    """Lay decoded images out for a network: channels first, at least 32 x 32.

    Raises:
        ValueError: counts, shapes or labels that cannot be.
    """

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
        classes=CLASSES,
        top=DIGITS_TOP,
    )


def _latents(path: Path, most_classes: int) -> Dataset:
    features, labels = latents.read(path)
    if len(labels) < 2:
        raise ValueError(f"{path}: needs a latent to train on and one to validate on, got {len(labels)}")
    if (most := int(labels.max())) >= most_classes:
        raise ValueError(
            f"{path}: labels must be from 0 to {most_classes - 1}, got {most} at {int(labels.argmax())}; "
            f"--classes {most + 1} would take it"
        )
    marked = held_out(labels, max(10, -(-len(labels) // HELD_OUT)))
    name = Path(os.path.abspath(path)).name  # of "." and ".." too; a link keeps its own
    return _dataset(
        name if name not in IMAGES else f"{name} (latents)",
        (features[~marked], labels[~marked]),
        (features[marked], labels[marked]),
        classes=int(labels.max()) + 1,
        top=None,
    )


def _dataset(
    name: str,
    train: tuple[Array, Array],
    validation: tuple[Array, Array],
    *,
    classes: int,
    top: int | None,
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
        kind="latents" if top is None else "pixels",
        top=top,
        sha256=digest(arrays)[:12],
    )
