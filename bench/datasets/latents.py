"""Latents and labels that an encoder left: a folder of .npy files, an .npz, or a zarr store."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.cli import options
from bench.datasets.archives import read_npz

Array = NDArray[Any]

NAMES = ("latents", "features")  # of the array, or of the folder of files, beside labels
ENDS = (*NAMES, "labels")  # of the names of subfolders
READ_AT_ONCE = 4096
CLEARLY = 0.95  # as rough: more alike than chance makes the two of noise
LAYOUTS = (
    "a folder with subfolders *features and *labels of .npy files, one with latents.npy and labels.npy, an "
    ".npz or a zarr store with latents and labels"
)


def read(path: Path) -> tuple[Array, Array]:
    """Read latents (n, C, H, W) as stored and their labels (n,) int64.

    Raises:
        ValueError: not one of the layouts, cut off, of mismatched counts or wrong shapes, not finite, or with
            labels that are no classes.
    """
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    if path.is_file() and path.suffix == ".npz":
        latents, labels = _npz(path)
    elif (path / "zarr.json").exists() or (path / ".zgroup").exists():
        latents, labels = _zarr(path)
    elif path.is_dir():
        latents, labels = _folder(path)
    else:
        raise ValueError(f"{path}: not latents; they are {LAYOUTS}")
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
    for start in range(0, len(latents), READ_AT_ONCE):
        finite = np.isfinite(latents[start : start + READ_AT_ONCE]).all(axis=(1, 2, 3))
        if not finite.all():
            raise ValueError(f"{path}: latent {start + int(np.argmin(finite))} is not finite")
    if _channels_last(latents[:READ_AT_ONCE]):
        raise ValueError(f"{path}: latents {latents.shape} look like (n, H, W, C); must be (n, C, H, W)")
    native = latents.dtype.newbyteorder("=") if latents.dtype.itemsize <= 4 else np.float32
    return latents.astype(native, copy=False)


def _channels_last(latents: Array) -> bool:
    """Whether latents look like squares with their channels last, (n, H, W, C).

    A latent that is not square may have as many channels as rows; but then neighbours in its last dimension
    are pixels, which are more alike than channels are.
    """
    _, first, second, last = latents.shape
    if first != second or second == last:
        return False
    return not _roughness(latents, axis=3) < CLEARLY * _roughness(latents, axis=1)


def _roughness(latents: Array, axis: int) -> float:
    """Mean squared difference of neighbours; infinite where there are none."""
    steps = np.diff(latents.astype(np.float32), axis=axis)
    return float(np.square(steps).mean()) if steps.size else np.inf


def _npz(path: Path) -> tuple[Array, Array]:
    held = read_npz(path)
    name = next((name for name in NAMES if name in held), None)
    if name is None or "labels" not in held:
        raise ValueError(f"{path}: holds {', '.join(held) or 'nothing'}; needs latents and labels")
    return held[name], held["labels"]


def _zarr(path: Path) -> tuple[Array, Array]:
    if importlib.util.find_spec("zarr") is None:
        raise ValueError(f"{path}: needs zarr, which is not installed here; pip install zarr")
    import zarr

    try:
        store = zarr.open_group(path, mode="r")
        name = next((name for name in NAMES if name in store), None)
        if name is None or "labels" not in store:
            raise ValueError(f"holds {', '.join(store) or 'nothing'}; needs latents and labels")
        latents, labels = store[name], store["labels"]
        if not isinstance(latents, zarr.Array) or not isinstance(labels, zarr.Array):
            raise ValueError("latents and labels must be arrays, not groups")
        # a chunk that is not there reads as zeros; labels may be zeros, latents are not
        if latents.nchunks_initialized != latents.nchunks:
            missing = latents.nchunks - latents.nchunks_initialized
            raise ValueError(f"{missing} of the {latents.nchunks} chunks of {name} are missing")
        return np.asarray(latents[:]), np.asarray(labels[:])
    except (OSError, ValueError, TypeError, LookupError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path}: not a whole zarr store of latents: {error}") from error


def _folder(path: Path) -> tuple[Array, Array]:
    folders = {end: [d for d in path.iterdir() if d.is_dir() and d.name.endswith(end)] for end in ENDS}
    of_latents, of_labels = folders["latents"] + folders["features"], folders["labels"]
    if not of_latents and not of_labels:
        name = next((name for name in NAMES if (path / f"{name}.npy").exists()), None)
        if name is None:
            raise ValueError(f"{path}: not latents; they are {LAYOUTS}")
        return _npy(path / f"{name}.npy"), _npy(path / "labels.npy")
    if len(of_latents) != 1 or len(of_labels) != 1:
        found = ", ".join(sorted(d.name for d in (*of_latents, *of_labels)))
        raise ValueError(f"{path}: needs one subfolder *features and one *labels, got {found}")
    return _pairs(of_latents[0], of_labels[0])


def _pairs(of_latents: Path, of_labels: Path) -> tuple[Array, Array]:
    """One latent (1, C, H, W) and one label (1,) a file, paired by the files' names."""
    names = {path.name for path in of_latents.glob("*.npy")}
    labelled = {path.name for path in of_labels.glob("*.npy")}
    if names != labelled or not names:
        alone = f"; {min(names ^ labelled)} is in one of them only" if names ^ labelled else ""
        raise ValueError(f"{of_latents}: {len(names)} .npy files, {len(labelled)} in {of_labels.name}{alone}")
    ordered = sorted(names, key=lambda name: (len(name), name))  # 2.npy before 10.npy
    first = _npy(of_latents / ordered[0])
    latents = np.empty((len(ordered), *first.shape[1:]), first.dtype)
    labels = np.empty((len(ordered), 1), np.float64)
    with options.progress("reading", len(ordered)) as begin:
        for at, name in enumerate(ordered):
            begin(name)
            latent, label = _npy(of_latents / name), _npy(of_labels / name)
            if latent.shape != (1, *latents.shape[1:]) or latent.dtype != latents.dtype or latents.ndim != 4:
                wanted = f"{latents.dtype} {(1, *latents.shape[1:]) if latents.ndim == 4 else '(1, C, H, W)'}"
                raise ValueError(f"{of_latents / name}: must be {wanted}, got {latent.dtype} {latent.shape}")
            if label.shape != (1,) or label.dtype.kind not in "iuf":
                raise ValueError(
                    f"{of_labels / name}: must be one label (1,), got {label.dtype} {label.shape}"
                )
            latents[at], labels[at] = latent[0], label
    return latents, labels


def _npy(path: Path) -> Array:
    try:
        held = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a whole .npy file: {error}") from error
    if not isinstance(held, np.ndarray):
        raise ValueError(f"{path}: an .npz under the name of an .npy")
    return held
