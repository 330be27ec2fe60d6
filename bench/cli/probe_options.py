"""Options of commands that analyse trained networks. Imports no torch."""

import argparse
from pathlib import Path

from bench.cli import options
from bench.records.base import Environment
from bench.records.probes import Probe
from bench.records.training import OBJECTIVES

LEVELS = (0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 999)
IMAGES = 256
BATCH = 64


def add_options(parser: options.Parser) -> None:
    """Add the options of networks and their inputs."""
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="files or run folders of bench.convergence, of which the newest checkpoint is taken",
    )
    parser.add_argument(
        "--ema", type=decay, metavar="DECAY", help="of their averaged weights (default: those as trained)"
    )
    parser.add_argument("--model", metavar="NAME", help="a backbone whose authors' checkpoint --weights is")
    parser.add_argument("--weights", type=Path, metavar="FILE", help=".pt or .safetensors with their keys")
    parser.add_argument(
        "--objective", choices=OBJECTIVES, default="iddpm", help="of --weights (default: iddpm)"
    )
    parser.add_argument(
        "--data",
        metavar="NAME|PATH",
        help="digits, fashion-mnist, cifar10 or a path of latents (default: what the checkpoints were "
        "trained on, else digits)",
    )
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="of bench.data (default: data)")
    parser.add_argument(
        "--images",
        type=options.positive_int,
        default=IMAGES,
        help=f"of its validation part (default: {IMAGES})",
    )
    parser.add_argument(
        "--levels",
        nargs="+",
        type=level,
        default=list(LEVELS),
        metavar="T",
        help="timesteps from 0 to 999; of flow, thousandths of noise (default: 0, every 100th, 999)",
    )
    parser.add_argument(
        "--batch", type=options.positive_int, default=BATCH, help=f"images a pass (default: {BATCH})"
    )
    options.add_device(parser)


def check(args: argparse.Namespace) -> None:
    """Refuse options without a network, before loading data.

    Raises:
        UsageError: names the missing options.
    """
    if (args.model is None) != (args.weights is None):
        given, other = ("--model", "--weights") if args.weights is None else ("--weights", "--model")
        raise options.UsageError(
            f"{given}: needs {other} beside it, as only trained networks are looked into"
        )
    if args.model is None and not args.checkpoint:
        works = "--checkpoint PATH of bench.convergence, or --model NAME --weights FILE"
        raise options.UsageError(f"nothing to look into: give {works}")


def level(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 3:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 999, got {text!r}")
    return int(text)


def decay(text: str) -> float:
    try:
        value = options.number(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to below 1, as 0.9999, got {text!r}")
    return value


def notes(environment: Environment, precision: str, probe: Probe) -> list[str]:
    """Notes on the settings and the environment of a table."""
    here = environment
    return [
        f"{probe.images} validation images of {probe.data} (sha256 {probe.data_sha256}), the same images and "
        f"noise for every network and level; {precision}; {here.device}; torch {here.torch}; commit "
        f"{here.commit or '-'}; {here.date}"
    ]
