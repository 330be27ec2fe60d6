"""Options of a training study, and the data and recipe that they describe."""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli import options, progress
from bench.machine import torchrun
from bench.records.training import OBJECTIVES, Recipe
from models.registry import IMPLEMENTATIONS

if TYPE_CHECKING:
    from bench.datasets.datasets import Dataset

FLIPPED = ("cifar10", "fashion-mnist")  # by default; mirrored digits and latents are not valid data
EVALUATIONS = 10  # by default, without that of step 0
PRECISIONS = ("fp32", "tf32", "bf16")  # fp16 needs loss scaling


def add_options(parser: options.Parser, *, default: str) -> None:
    """Add the options of models, data, recipe, settings and limits.

    Args:
        parser: gets the options.
        default: default models, in words.
    """
    parser.usage = "%(prog)s [--model NAME ...] [--data NAME|PATH] [options]"
    parser.add_argument(
        "--model", nargs="+", action="extend", metavar="NAME",
        help=f"names, 'FCDM-*' or my_pkg.my_mod:factory (default: {default})",
    )  # fmt: skip
    _add_data(parser.add_argument_group("data"))
    _add_recipe(parser.add_argument_group("recipe"))
    _add_settings(parser.add_argument_group("settings"))
    _add_limits(parser.add_argument_group("folders and limits"))


Group = argparse._ArgumentGroup


def _add_data(group: Group) -> None:
    group.add_argument(
        "--data", default="digits", metavar="NAME|PATH",
        help="digits (default), fashion-mnist, cifar10, or latents",
    )  # fmt: skip
    group.add_argument("--data-dir", type=Path, metavar="DIR", help="of python -m bench.data (default: data)")
    group.add_argument(
        "--classes",
        type=options.positive_int,
        metavar="N",
        help="of latents (default: as the labels, up to 1000)",
    )
    group.add_argument(
        "--validation-images",
        type=options.positive_int,
        default=2000,
        metavar="N",
        help="at most (default: 2000)",
    )
    group.add_argument(
        "--validation-draws",
        type=options.positive_int,
        default=1,
        metavar="N",
        help="timesteps per image (default: 1)",
    )


def _add_recipe(group: Group) -> None:
    rate, share = _number(0, math.inf, "0 or above"), _number(0, 1, "from 0 to below 1")
    group.add_argument(
        "--objective",
        choices=OBJECTIVES,
        default="iddpm",
        metavar="NAME",
        help=f"{', '.join(OBJECTIVES)} (default: iddpm)",
    )
    group.add_argument("--steps", type=options.positive_int, default=300, metavar="N", help="default: 300")
    group.add_argument(
        "--seeds",
        type=options.repetitions,
        default=3,
        metavar="N",
        help="runs of each model (default: 3)",
    )
    group.add_argument("--first-seed", type=options.whole_number, default=0, metavar="K", help="default: 0")
    group.add_argument(
        "--batch",
        type=options.positive_int,
        default=256,
        metavar="N",
        help="images of an optimizer step (default: 256)",
    )
    group.add_argument("--learning-rate", type=rate, default=1e-4, metavar="LR", help="default: 1e-4")
    group.add_argument("--weight-decay", type=rate, default=0.0, metavar="W", help="default: 0")
    group.add_argument(
        "--ema-decay",
        nargs="*",
        type=share,
        default=[0.9999, 0.99],
        metavar="D",
        help="of averaged weights (default: 0.9999 0.99)",
    )
    group.add_argument("--label-dropout", type=share, default=0.1, metavar="SHARE", help="default: 0.1")
    group.add_argument(
        "--flip", nargs="?", const=True, type=options.on_or_off, metavar="on|off",
        help="mirror half of the images (default: as the data)",
    )  # fmt: skip
    group.add_argument(
        "--evaluate-every", type=options.positive_int, metavar="STEPS", help="default: a tenth of the steps"
    )


def _add_settings(group: Group) -> None:
    group.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where torch sees one")
    group.add_argument("--precision", choices=PRECISIONS, default="fp32", help="default: fp32")
    group.add_argument("--impl", choices=IMPLEMENTATIONS, default="reference", help="default: reference")
    group.add_argument("--compile", action="store_true", help="train under torch.compile")
    group.add_argument("--channels-last", action="store_true", help="channels-last memory format")
    group.add_argument(
        "--checkpointing", action="store_true", help="recompute activations in the backward pass"
    )
    group.add_argument(
        "--micro-batch", type=_micro_batch, metavar="N|auto",
        help="of one pass; auto: halve when out of memory",
    )  # fmt: skip


def _add_limits(group: Group) -> None:
    group.add_argument("--dir", type=Path, help="of the runs (default: in reports/out/convergence)")
    group.add_argument(
        "--checkpoint-every", type=options.positive_int, metavar="STEPS", help="default: at each evaluation"
    )
    group.add_argument(
        "--budget",
        type=options.positive_seconds,
        metavar="TIME",
        help="stop after 90s, 8m or 1h, to be resumed",
    )
    group.add_argument("--dry-run", action="store_true", help="print the runs; train nothing")


def _micro_batch(text: str) -> int | str:
    return text if text == "auto" else options.positive_int(text)


def _number(low: float, high: float, what: str) -> Callable[[str], float]:
    """Argument type of numbers in [low, high)."""

    def parse(text: str) -> float:
        try:
            value = options.number(text)
        except ValueError:
            value = math.nan
        if not low <= value < high:
            raise argparse.ArgumentTypeError(f"must be {what}, got {text!r}")
        return value

    return parse


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

    try:
        with progress.live_progress("reading", 1) as (_, show):
            data = datasets.load(args.data, args.data_dir, args.classes or datasets.MAX_CLASSES, show)
    except ValueError as error:
        raise options.UsageError(f"--data {error}") from error
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
