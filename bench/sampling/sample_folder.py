"""A folder that samples are collected in, batch by batch, so that a killed run goes on where it was.

    about.json        what determines the samples: parts of other samples are never mixed in
    part-000000.npz   samples of one batch, from the image of that number: samples, labels, seconds, timed_on

Every file is there whole or not at all.
"""

import fcntl
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

from bench.datasets.images import whole

NAME = re.compile(r"part-(\d{6,})\.npz")


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """The samples of one batch."""

    samples: NDArray[Any]  # (n, H, W, C) 8-bit images, or (n, C, H, W) float32 latents
    labels: NDArray[np.int64]  # (n,)
    seconds: float  # of the chain that made them
    timed_on: str  # what the seconds depend on beside about.json: the device and the code


def claim(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Make a folder for samples, or see that it is one for the same samples.

    Args:
        folder: to be made if need be.
        wanted: what determines the samples; values that JSON holds.

    Raises:
        ValueError: it holds other samples, something else, or cannot be written to.
    """
    path = folder / "about.json"
    wanted = json.loads(json.dumps(wanted))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            held = json.loads(path.read_text(encoding="utf-8"))
        elif any(
            other.suffix != ".part" for other in folder.iterdir()
        ):  # a kill may leave that of about.json
            raise ValueError(f"{folder}: holds other files; a new folder would work")
        else:
            with whole(path) as file:
                file.write(json.dumps(wanted, indent=2).encode())
            held = wanted
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder}: cannot be used: {error}") from error
    if not isinstance(held, dict) or held != wanted:
        apart = [
            f"{name} {held.get(name)} there, {value} asked"
            for name, value in wanted.items()
            if isinstance(held, dict) and held.get(name) != value
        ]
        told = "; ".join(apart) or "its about.json is another's"
        raise ValueError(f"{folder}: holds other samples: {told}; another folder would work")


def about(folder: Path) -> dict[str, Any]:
    """What determines the samples of a folder, as `claim` was told; empty where it was never claimed."""
    try:
        held = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError):
        return {}
    return held if isinstance(held, dict) else {}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process alone.

    Raises:
        ValueError: another process is making samples in it.
    """
    descriptor = os.open(folder / "about.json", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ValueError(f"{folder}: another process is making samples in it") from error
    finally:
        os.close(descriptor)


def held(folder: Path) -> set[int]:
    """The first images of the parts there."""
    return {int(match[1]) for path in folder.iterdir() if (match := NAME.fullmatch(path.name))}


def missing(folder: Path, images: int, batch: int) -> list[int]:
    """The first images of the batches that are still to be made for so many images."""
    there = held(folder)
    return [first for first in range(0, images, batch) if first not in there]


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
    """Read the part that begins with an image.

    Raises:
        ValueError: it is not there, or not what `write` wrote.
    """
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
