"""Samples as files: 8-bit levels, PNG grids, and the .npz of samples that papers evaluate."""

import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.uint8]  # (n, H, W, C), C of 1 or 3
Floats = NDArray[np.float32]

GAP = 2  # white pixels between the images of a grid
PNG_COLOURS = {1: 0, 3: 2}  # channels -> colour type: grey, RGB


def to_levels(x: Floats) -> Levels:
    """Images (n, C, H, W) in [-1, 1], what lies beyond cut off, as the nearest of 256 levels (n, H, W, C)."""
    return np.round((x.clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)


def grid(images: Levels) -> Levels:
    """Lay images out row by row, as near to a square as their number allows: (n, H, W, C) -> (H', W', C)."""
    n, H, W, C = images.shape
    columns = int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    laid = np.full((rows * (H + GAP) - GAP, columns * (W + GAP) - GAP, C), 255, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (H + GAP), i % columns * (W + GAP)
        laid[top : top + H, left : left + W] = image
    return laid


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write that appears under its name when all of it is on disk, or not at all."""
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def write_png(path: Path, image: Levels) -> None:
    """Write one image (H, W, C), grey or RGB."""
    H, W, C = image.shape
    lines = np.concatenate([np.zeros((H, 1), np.uint8), image.reshape(H, W * C)], axis=1)  # filter 0: none
    header = struct.pack(">IIBBBBB", W, H, 8, PNG_COLOURS[C], 0, 0, 0)
    with whole(path) as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b"")):
            file.write(struct.pack(">I", len(body)) + kind + body)
            file.write(struct.pack(">I", zlib.crc32(kind + body)))


def write_samples(
    path: Path,
    parts: Iterable[NDArray[np.uint8] | Floats],
    shape: tuple[int, ...],
    labels: NDArray[np.int64],
) -> None:
    """Write the .npz of samples in the form that ADM's evaluation reads: arr_0, and arr_1 the labels.

    Args:
        path: of the file, which is there whole or not at all.
        parts: one after another along the first axis; only one of them is in memory at a time.
        shape: of all of them together.
        labels: (n,).
    """
    with whole(path) as file, zipfile.ZipFile(file, "w", allowZip64=True) as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as member:
            written = 0
            for part in parts:
                if not written:
                    descr = np.lib.format.dtype_to_descr(part.dtype)
                    header = {"descr": descr, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(member, header)
                member.write(np.ascontiguousarray(part).tobytes())
                written += len(part)
            assert written == shape[0], (written, shape)
        with archive.open("arr_1.npy", "w") as member:
            np.lib.format.write_array(member, labels)


def read_samples(path: Path) -> Levels:
    """Read arr_0 of such a file as images.

    Raises:
        ValueError: no such file, cut off, no arr_0, or no 8-bit images in it.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            if not isinstance(held, np.lib.npyio.NpzFile):
                raise ValueError("a single array, not an .npz")
            samples = held["arr_0"]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        told = str(error).strip("'").partition("\n")[0]
        raise ValueError(f"{path}: not an .npz with images as arr_0: {told}") from error
    if samples.ndim != 4 or samples.dtype != np.uint8 or samples.shape[3] not in PNG_COLOURS:
        raise ValueError(
            f"{path}: arr_0 must be uint8 images (n, H, W, 1 or 3), got {samples.dtype} {samples.shape}"
        )
    return samples
