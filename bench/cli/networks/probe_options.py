"""Options of commands that analyse trained networks. Imports no torch."""

import argparse

from bench.cli import options, values
from bench.datasets import names
from bench.records.training import OBJECTIVES

LEVELS = (0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 999)
IMAGES = 256
BATCH = 64


def add_options(parser: options.Parser) -> None:
    """Add the options of networks and their inputs."""
    text = "files or run folders of bench.convergence, of which the newest checkpoint is taken"
    options.add(parser, "--checkpoint", values.file_or_folder, text, several=True)
    text = "EMA decay of the weights (default: no EMA)"
    decay = values.number_in(0, 1, "from 0 to below 1, as 0.9999")
    options.add(parser, "--ema", decay, text, metavar="DECAY")
    options.add(parser, "--model", str, "backbone of --weights")
    options.add(parser, "--weights", values.file, "released checkpoint, .pt or .safetensors")
    options.add(
        parser,
        "--objective",
        OBJECTIVES,
        f"training objective of --weights: {', '.join(OBJECTIVES)}",
        default="iddpm",
    )
    text = (
        "digits, fashion-mnist, cifar10 or a path of latents (default: what the checkpoints were trained on, "
        "else digits)"
    )
    options.add(parser, "--data", names.checked, text, metavar="NAME|PATH")
    options.add(parser, "--data-dir", values.folder, "data folder of bench.data (default: data)")
    options.add(parser, "--images", values.positive_int, "validation images", default=IMAGES)
    text = "timesteps from 0 to 999; else thousandths of noise (default: 0, every 100th, 999)"
    options.add(parser, "--levels", level, text, default=list(LEVELS), several=True, metavar="T")
    options.add(parser, "--batch", values.positive_int, "images a pass", default=BATCH)
    options.add_device(parser)


def check(args: argparse.Namespace) -> None:
    """Refuse options without a network, before loading data."""
    if (args.model is None) != (args.weights is None):
        given, other = ("--model", "--weights") if args.weights is None else ("--weights", "--model")
        raise options.UsageError(f"{given}: needs {other}; only trained networks are analysed")
    if args.model is None and not args.checkpoint:
        works = "--checkpoint PATH of bench.convergence, or --model NAME --weights FILE"
        raise options.UsageError(f"no network: give {works}")


def level(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 3:
        raise ValueError(f"must be a whole number from 0 to 999, got {text!r}")
    return int(text)
