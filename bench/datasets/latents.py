"""Latents and labels of an encoder: a folder of .npy files, an .npz, or a zarr store."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.datasets.archives import Begin, ignore, read_npy, read_npz
from bench.machine.device import free_host_bytes
from models.guard import reading

Array = NDArray[Any]

NAMES = ("latents", "features")  # name of the array or folder of latents; labels are next to it
SUFFIXES = (*NAMES, "labels")  # suffixes of subfolder names
CHUNK = 4096  # latents checked at a time
SMOOTHER = 0.95  # ratio of roughnesses below which the first axis is smoother; noise gives about 1
LAYOUTS = (
    "a folder with subfolders *features and *labels of .npy files, one with latents.npy and labels.npy, an "
    ".npz or a zarr store with latents and labels"
)


def read(path: Path, begin: Begin = ignore) -> tuple[Array, Array]:
    """Read latents (n, C, H, W) as stored and their labels (n,) int64; `begin` gets the name of each file.

    ValueError: unknown layout, truncated file, mismatched counts, wrong shapes, nonfinite values, labels.
    """
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    if path.is_file() and path.suffix == ".npz":
        latents, labels = _npz(path)
    elif (path / "zarr.json").exists() or (path / ".zgroup").exists():
        latents, labels = _zarr(path)
    elif path.is_dir():
        latents, labels = _folder(path, begin)
    else:
        raise ValueError(f"{path}: not latents; known layouts are {LAYOUTS}")
    latents, labels = _latents(latents, path), _labels(labels, path)
    if len(latents) != len(labels):
        raise ValueError(f"{path}: {len(latents)} latents and {len(labels)} labels")
    return latents, labels


def _labels(labels: Array, path: Path) -> Array:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iuf":
        raise ValueError(f"{path}: labels must be whole numbers (n,), got {labels.dtype} {labels.shape}")
    whole = labels.astype(np.int64) if np.isfinite(labels).all() else np.full(labels.shape, -1)
    odd = np.flatnonzero((whole != labels) | (whole < 0))
    if len(odd):
        raise ValueError(f"{path}: labels must be classes from 0, got {labels[odd[0]]} at {odd[0]}")
    return whole


def _latents(latents: Array, path: Path) -> Array:
    if latents.ndim != 4 or 0 in latents.shape or latents.dtype.kind != "f":
        raise ValueError(f"{path}: latents must be floats (n, C, H, W), got {latents.dtype} {latents.shape}")
    for start in range(0, len(latents), CHUNK):
        finite = np.isfinite(latents[start : start + CHUNK]).all(axis=(1, 2, 3))
        if not finite.all():
            raise ValueError(f"{path}: latent {start + int(np.argmin(finite))} is not finite")
    if _channels_last(latents[:CHUNK]):
        raise ValueError(f"{path}: latents {latents.shape} look like (n, H, W, C); must be (n, C, H, W)")
    native = latents.dtype.newbyteorder("=") if latents.dtype.itemsize <= 4 else np.float32
    return latents.astype(native, copy=False)


def _channels_last(latents: Array) -> bool:
    """Whether latents are probably squares with channels last, (n, H, W, C).

    A latent (n, C, H, W) that is not square may have C = H. Then its last dimension is smoother, since
    neighbouring pixels differ less than channels do.
    """
    _, first, second, last = latents.shape
    if first != second or second == last:
        return False
    return not _roughness(latents, axis=3) < SMOOTHER * _roughness(latents, axis=1)


def _roughness(latents: Array, axis: int) -> float:
    """Mean squared difference of neighbours along an axis; infinite for an axis of length 1."""
    steps = np.diff(latents.astype(np.float32), axis=axis)
    return float(np.square(steps).mean()) if steps.size else np.inf


def _npz(path: Path) -> tuple[Array, Array]:
    arrays = read_npz(path)
    name = next((name for name in NAMES if name in arrays), None)
    if name is None or "labels" not in arrays:
        raise ValueError(f"{path}: contains {', '.join(arrays) or 'nothing'}; needs latents and labels")
    return arrays[name], arrays["labels"]


def _zarr(path: Path) -> tuple[Array, Array]:
    if importlib.util.find_spec("zarr") is None:
        raise ValueError(f"{path}: needs zarr, which is not installed; pip install zarr")
    import zarr

    with reading(path, "a whole zarr store of latents"):
        store = zarr.open_group(path, mode="r")
        name = next((name for name in NAMES if name in store), None)
        if name is None or "labels" not in store:
            raise ValueError(f"contains {', '.join(store) or 'nothing'}; needs latents and labels")
        latents, labels = store[name], store["labels"]
        if not isinstance(latents, zarr.Array) or not isinstance(labels, zarr.Array):
            raise ValueError("latents and labels must be arrays, not groups")
        free = free_host_bytes()
        if free is not None and latents.nbytes + labels.nbytes > free:
            raise ValueError(f"{latents.nbytes + labels.nbytes:,} bytes, and {free:,} are free")
        # a missing chunk reads as zeros, which are valid labels but not valid latents
        if latents.nchunks_initialized != latents.nchunks:
            missing = latents.nchunks - latents.nchunks_initialized
            raise ValueError(f"{missing} of the {latents.nchunks} chunks of {name} are missing")
        return np.asarray(latents[:]), np.asarray(labels[:])


def _folder(path: Path, begin: Begin) -> tuple[Array, Array]:
    folders = {
        suffix: [d for d in path.iterdir() if d.is_dir() and d.name.endswith(suffix)] for suffix in SUFFIXES
    }
    of_latents, of_labels = folders["latents"] + folders["features"], folders["labels"]
    if not of_latents and not of_labels:
        name = next((name for name in NAMES if (path / f"{name}.npy").exists()), None)
        if name is None:
            raise ValueError(f"{path}: not latents; known layouts are {LAYOUTS}")
        return read_npy(path / f"{name}.npy"), read_npy(path / "labels.npy")
    if len(of_latents) != 1 or len(of_labels) != 1:
        found = ", ".join(sorted(d.name for d in (*of_latents, *of_labels)))
        raise ValueError(f"{path}: needs one subfolder *features and one *labels, got {found}")
    return _pairs(of_latents[0], of_labels[0], begin)


def _pairs(of_latents: Path, of_labels: Path, begin: Begin) -> tuple[Array, Array]:
    """Files with one latent (1, C, H, W) and one label (1,) each, paired by file name."""
    names = {path.name for path in of_latents.glob("*.npy")}
    labelled = {path.name for path in of_labels.glob("*.npy")}
    if names != labelled or not names:
        alone = f"; {min(names ^ labelled)} has no counterpart" if names ^ labelled else ""
        raise ValueError(f"{of_latents}: {len(names)} .npy files, {len(labelled)} in {of_labels.name}{alone}")
    ordered = sorted(names, key=lambda name: (len(name), name))  # 2.npy before 10.npy
    first = read_npy(of_latents / ordered[0])
    latents = np.empty((len(ordered), *first.shape[1:]), first.dtype)
    labels = np.empty((len(ordered), 1), np.float64)
    for at, name in enumerate(ordered):
        begin(f"{at + 1} of {len(ordered)}: {name}")
        latent, label = read_npy(of_latents / name), read_npy(of_labels / name)
        if latent.shape != (1, *latents.shape[1:]) or latent.dtype != latents.dtype or latents.ndim != 4:
            wanted = f"{latents.dtype} {(1, *latents.shape[1:]) if latents.ndim == 4 else '(1, C, H, W)'}"
            raise ValueError(f"{of_latents / name}: must be {wanted}, got {latent.dtype} {latent.shape}")
        if label.shape != (1,) or label.dtype.kind not in "iuf":
            raise ValueError(f"{of_labels / name}: must be one label (1,), got {label.dtype} {label.shape}")
        latents[at], labels[at] = latent[0], label
    return latents, labels
