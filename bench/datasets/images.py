"""Files of samples: 8-bit images, PNG grids, and the .npz that papers evaluate."""

import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.datasets.archives import read_npz
from bench.store.files import whole

Levels = NDArray[np.uint8]  # (n, H, W, C), C of 1 or 3
Floats = NDArray[np.float32]

GAP = 2  # white pixels between the images of a grid
PNG_COLOURS = {1: 0, 3: 2}  # channels -> colour type: grey, RGB


def to_levels(x: Floats) -> Levels:
    """Round images (n, C, H, W), clipped to [-1, 1], to the nearest of 256 levels (n, H, W, C)."""
    return np.round((x.clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)


def grid(images: Levels) -> Levels:
    """Arrange images row by row in a nearly square grid: (n, H, W, C) -> (H', W', C)."""
    n, H, W, C = images.shape
    columns = int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    canvas = np.full((rows * (H + GAP) - GAP, columns * (W + GAP) - GAP, C), 255, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (H + GAP), i % columns * (W + GAP)
        canvas[top : top + H, left : left + W] = image
    return canvas


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
    path: Path, parts: Iterable[NDArray[np.uint8] | Floats], shape: tuple[int, ...], labels: NDArray[np.int64]
) -> None:
    """Write the .npz of samples in the format of ADM's evaluation: arr_0 the samples, arr_1 the labels.

    The file is complete or absent.

    Args:
        parts: consecutive parts along the first axis; one part at a time is in memory.
        shape: shape of all parts together.
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
    """Read arr_0 of an .npz of samples as images. ValueError: missing, truncated, or no 8-bit images."""
    arrays = read_npz(path, ("arr_0", "mu"))
    if "arr_0" not in arrays:
        why = ": mu and sigma of features are not used; samples of images would work" * ("mu" in arrays)
        raise ValueError(f"{path}: has no array arr_0{why}")
    samples = arrays["arr_0"]
    if samples.ndim != 4 or samples.dtype != np.uint8 or samples.shape[3] not in PNG_COLOURS:
        raise ValueError(
            f"{path}: arr_0 must be uint8 images (n, H, W, 1 or 3), got {samples.dtype} {samples.shape}"
        )
    return samples


def unused_arrays(path: Path) -> list[str]:
    """Names of the statistics of features in an .npz of samples, as of ADM's references."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return [name for name in arrays if name.startswith(("mu", "sigma"))]
