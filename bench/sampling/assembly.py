"""Combines the batches in a folder of samples into one file and a grid of images."""

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.datasets import images
from bench.sampling import sample_folder
from bench.sampling.sample_folder import Part
from bench.training.progress import polled

GRID = 64  # maximum images of a grid
SAMPLES = re.compile(r"samples-(\d+)x.*\.npz")  # N first
POLL_S = 0.5


def assemble(folder: Path, count: int, batch: int) -> list[str]:
    """Write the samples of all batches to one file, and a grid if they are images; returns notes."""
    firsts = range(0, count, batch)

    def cut(first: int) -> Part:
        part, left = sample_folder.read(folder, first), count - first
        return replace(part, samples=part.samples[:left], labels=part.labels[:left])

    labels = np.concatenate([cut(first).labels for first in firsts])
    one = cut(0).samples
    shape = (count, *one.shape[1:])
    path = folder / f"samples-{'x'.join(map(str, shape))}.npz"
    images.write_samples(path, (cut(first).samples for first in firsts), shape, labels)
    if one.dtype != np.uint8:
        return [
            f"{path}: latents; this package carries no VAE: --decoder my_pkg.my_mod:factory, a callable that "
            "returns decode(latents) -> images, makes images of them"
        ]
    shown = min(GRID, count)
    grid = folder / "grid.png"
    most = max(int(name[1]) for other in folder.iterdir() if (name := SAMPLES.fullmatch(other.name)))
    if shown < min(GRID, most) and grid.exists():
        return [f"{path}: {count} images; {grid} stays that of {most}"]
    pictures = np.concatenate([cut(first).samples for first in range(0, shown, batch)])[:shown]
    images.write_png(grid, images.grid(pictures))
    return [f"{path}: {count} images; {grid}: the first {shown}"]


def watched(
    folder: Path, missing: Sequence[int], begin: Callable[[str], None]
) -> AbstractContextManager[None]:
    """Context manager that calls `begin` for every batch a worker starts to draw."""
    waiting = list(missing)

    def watch() -> None:
        drawn = len(sample_folder.stored(folder).intersection(missing))
        while waiting and len(missing) - len(waiting) <= drawn:
            begin(f"images from {waiting.pop(0)}")

    return polled(watch, POLL_S)


def how_made(path: Path) -> str:
    """The settings with which bench.sample drew the samples of a file, in words; blank for other files."""
    if SAMPLES.fullmatch(path.name) is None:
        return ""
    drawn = sample_folder.description(path.absolute().parent)
    try:
        guided = f"guidance {drawn['guidance']:g} of {drawn['guided_channels']} channels"
        words = [
            f"{drawn['model']}, weights {drawn['weights']}",
            f"{drawn['sampler']} of {drawn['objective']} in {drawn['steps']} steps",
            guided if drawn["guidance"] != 1 else "no guidance",
            f"seed {drawn['seed']}",
            drawn["precision"],
        ]
        words += [f"classes {' '.join(map(str, drawn['classes']))}"] if drawn["classes"] else []
        words += [f"decoded by {drawn['decoder']}"] if drawn.get("decoder") is not None else []
    except KeyError:
        return ""
    return "; ".join(words)
