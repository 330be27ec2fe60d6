"""A folder of samples that is written batch by batch, so that a killed run can resume.

    about.json        everything that determines the samples; a folder has samples of one kind only
    part-000000.npz   one batch, named by its first image number: samples, labels, seconds, timed_on

Every file is complete or absent.
"""

import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.store.files import whole
from bench.store.locks import lock

NAME = re.compile(r"part-(\d{6,})\.npz")


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """The samples of one batch."""

    samples: NDArray[Any]  # (n, H, W, C) 8-bit images, or (n, C, H, W) float32 latents
    labels: NDArray[np.int64]  # (n,)
    seconds: float  # of the chain
    timed_on: str  # device and code, on which the seconds also depend


def claim(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Create a folder for samples, or check that one is for the same samples. ValueError: it is not."""
    path = folder / "about.json"
    wanted = json.loads(json.dumps(wanted))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
        elif any(other.suffix != ".part" for other in folder.iterdir()):  # .part: left by a kill
            raise ValueError(f"{folder}: holds other files; a new folder would work")
        else:
            with whole(path) as file:
                file.write(json.dumps(wanted, indent=2).encode())
            found = wanted
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder}: cannot be used: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{folder}: its about.json has another form; another folder would work")
    differences = [
        f"{name} is {found.get(name)} in the folder, {wanted.get(name)} requested"
        for name in {**wanted, **found}  # a missing name is None: some versions had no --decoder
        if found.get(name) != wanted.get(name)
    ]
    if differences:
        raise ValueError(
            f"{folder}: holds other samples: {'; '.join(differences)}; another folder would work"
        )


def description(folder: Path) -> dict[str, Any]:
    """The content of about.json, written by `claim`; empty if it is missing."""
    try:
        found = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder for this process. ValueError: another process is writing samples to the folder."""
    descriptor = os.open(folder / "about.json", os.O_RDONLY)
    try:
        lock(descriptor)
        yield
    except BlockingIOError as error:
        raise ValueError(f"{folder}: another process is making samples in it") from error
    finally:
        os.close(descriptor)


def stored(folder: Path) -> set[int]:
    return {int(match[1]) for path in folder.iterdir() if (match := NAME.fullmatch(path.name))}


def missing(folder: Path, images: int, batch: int) -> list[int]:
    """First image number of each missing batch, for this number of images."""
    present = stored(folder)
    return [first for first in range(0, images, batch) if first not in present]


def write(folder: Path, first: int, part: Part) -> None:
    with whole(folder / f"part-{first:06d}.npz") as file:
        np.savez(
            file,
            samples=part.samples,
            labels=part.labels,
            seconds=np.array(part.seconds),
            timed_on=np.array(part.timed_on),
        )


def read(folder: Path, first: int) -> Part:
    """Read the part with a given first image number. ValueError: missing, or not written by `write`."""
    path = folder / f"part-{first:06d}.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            return Part(
                samples=found["samples"],
                labels=found["labels"],
                seconds=float(found["seconds"]),
                timed_on=str(found["timed_on"]),
            )
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: not a part of samples: {error}; remove it to make it again") from error
