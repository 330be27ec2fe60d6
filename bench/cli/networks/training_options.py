"""Options of a training study, and the data and recipe that they describe."""

import argparse
import math
import sys
from typing import TYPE_CHECKING

from bench.cli import options, progress, values
from bench.cli.values import positive_int
from bench.datasets import names
from bench.machine import torchrun
from bench.records.training import OBJECTIVES, Recipe
from models.registry import IMPLEMENTATIONS

if TYPE_CHECKING:
    from bench.datasets.datasets import Dataset

FLIPPED = ("cifar10", "fashion-mnist")  # by default; mirrored digits and latents are not valid data
EVALUATIONS = 10  # by default, without that of step 0
PRECISIONS = ("fp32", "tf32", "bf16")  # fp16 needs loss scaling


def add_options(parser: options.Parser, *, default: str) -> None:
    """Add the options of models, data, recipe, settings and limits."""
    parser.usage = "%(prog)s [--model NAME ...] [--data NAME|PATH] [options]"
    options.add_model(parser, f"FCDM-S, 'FCDM-*', your net.py:Net (default: {default})")
    _add_data(parser.add_argument_group("data"))
    _add_recipe(parser.add_argument_group("recipe"))
    _add_settings(parser.add_argument_group("settings"))
    _add_limits(parser.add_argument_group("folders and limits"))


Group = argparse._ArgumentGroup


def _add_data(group: Group) -> None:
    data = "digits (default), fashion-mnist, cifar10, or latents"
    options.add(group, "--data", names.checked, data, default="digits", metavar="NAME|PATH")
    options.add(group, "--data-dir", values.folder, "data folder of bench.data (default: data)")
    options.add(group, "--classes", positive_int, "classes of latents (default: from the labels, up to 1000)")
    options.add(group, "--validation-images", positive_int, "maximum number", default=2000)
    options.add(group, "--validation-draws", positive_int, "timesteps for each validation image", default=1)


def _add_recipe(group: Group) -> None:
    rate = values.number_in(0, math.inf, "0 or above")
    share = values.number_in(0, 1, "from 0 to below 1")
    options.add(group, "--objective", OBJECTIVES, default="iddpm")
    options.add(group, "--steps", positive_int, default=300)
    options.add(group, "--seeds", values.repetitions, "runs of each model", default=3)
    options.add(group, "--first-seed", values.whole_number, default=0)
    options.add(group, "--batch", positive_int, "images of an optimizer step", default=256)
    options.add(group, "--learning-rate", rate, default=1e-4, metavar="LR")
    options.add(group, "--weight-decay", rate, default=0.0, metavar="W")
    group.add_argument(
        "--ema-decay", nargs="*", type=options.checked(share), default=[0.9999, 0.99], metavar="D",
        help="decays of the averaged weights (default: 0.9999 0.99)",
    )  # fmt: skip
    options.add(group, "--label-dropout", share, default=0.1, metavar="SHARE")
    group.add_argument(
        "--flip", nargs="?", const=True, type=options.checked(values.on_or_off), metavar="on|off",
        help="mirror half of the images (default: off for digits, latents)",
    )  # fmt: skip
    every = "default: a tenth of the steps"
    options.add(group, "--evaluate-every", positive_int, every, metavar="STEPS")


def _add_settings(group: Group) -> None:
    options.add_device(group)
    options.add(group, "--precision", PRECISIONS, default="fp32")
    options.add(group, "--impl", IMPLEMENTATIONS, default="reference")
    options.add_flag(group, "--compile", "train under torch.compile")
    options.add_flag(group, "--channels-last", "channels-last memory format")
    options.add_flag(group, "--checkpointing", "recompute activations in the backward pass")
    text = "of one pass; auto: halve when out of memory"
    options.add(group, "--micro-batch", _micro_batch, text, metavar="N|auto")


def _add_limits(group: Group) -> None:
    options.add(group, "--dir", values.folder, "folder of the runs (default: in reports/out/convergence)")
    every = "default: at each evaluation"
    options.add(group, "--checkpoint-every", positive_int, every, metavar="STEPS")
    options.add(group, "--budget", values.positive_seconds, "stop after 90s, 8m or 1h, to be resumed")
    options.add_flag(group, "--dry-run", "print the runs; train nothing")


def _micro_batch(text: str) -> int | str:
    try:
        return text if text == "auto" else positive_int(text)
    except ValueError as error:
        raise ValueError(f"{error}; auto would work") from error


def device_of(args: argparse.Namespace) -> str:
    from bench.machine import device

    chosen: str = args.device or device.default()
    for reason in (device.why_not(chosen, args.precision), torchrun.why_not(torchrun.world_size())):
        if reason is not None:
            raise options.UsageError(reason)
    return chosen


def pass_batch(args: argparse.Namespace) -> int:
    """Number of images in one pass on one process."""
    count = torchrun.world_size()
    share, rest = divmod(args.batch, count)
    if count > 1 and args.micro_batch == "auto":
        raise options.UsageError(
            f"--micro-batch auto: one of {count} processes that runs out of memory ends all; give a number"
        )
    if rest:
        raise options.UsageError(
            f"--batch {args.batch}: must be a multiple of the {count} processes; "
            f"{(share + 1) * count} would work"
        )
    return share if args.micro_batch in ("auto", None) else min(args.micro_batch, share)


def load_data(args: argparse.Namespace) -> "Dataset":
    from bench.datasets import datasets, doubts

    with options.usage_errors("--data "), progress.live_progress("reading", 1) as (_, show):
        data = datasets.load(args.data, args.data_dir, args.classes or datasets.MAX_CLASSES, show)
    if args.classes is not None and args.classes < data.classes:
        raise options.UsageError(f"--classes {args.classes}: {data.name} has {data.classes}")
    for doubt in [] if torchrun.local_rank() else doubts.doubts(data):
        print(f"--data {args.data}: {doubt}", file=sys.stderr)
    return data


def recipe_of(args: argparse.Namespace, data: "Dataset") -> Recipe:
    from bench.training.validation import BINS

    images = min(args.validation_images, len(data.validation))
    if images * args.validation_draws < BINS:
        raise options.UsageError(
            f"--validation-images {images}: {images * args.validation_draws} pairs with --validation-draws "
            f"{args.validation_draws} are fewer than the {BINS} ranges of noise; "
            f"--validation-draws {math.ceil(BINS / images)} would work"
        )
    return Recipe(
        objective=args.objective,
        data=data.name,
        data_sha256=data.sha256,
        channels=data.shape[0],
        classes=args.classes or data.classes,
        train_images=len(data.train),
        validation_images=images,
        validation_draws=args.validation_draws,
        batch=args.batch,
        steps=args.steps,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        ema_decays=tuple(dict.fromkeys(args.ema_decay)),
        flip=data.name in FLIPPED if args.flip is None else args.flip,
        label_dropout=args.label_dropout,
        evaluate_every=args.evaluate_every or max(1, args.steps // EVALUATIONS),
    )
