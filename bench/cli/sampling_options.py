"""Options for drawing samples and for comparing files of samples."""

import argparse
from pathlib import Path

from bench.cli import options
from bench.records.pictures import AUTOENCODERS
from bench.records.training import OBJECTIVES

CPU_BATCH, CPU_STEPS = 4, 25
BATCH, STEPS = 64, 250
GUIDED = 3  # guided channels, as in the samplers of DiT and its successors


def default_batch(device: str) -> int:
    return CPU_BATCH if device == "cpu" else BATCH


def default_steps(device: str) -> int:
    return CPU_STEPS if device == "cpu" else STEPS


def add_chain(parser: options.Parser) -> None:
    """Add the options of a sampling chain."""
    chain = parser.add_argument_group("the chain")
    chain.add_argument(
        "--ema",
        type=options.decay_or_none,
        metavar="DECAY",
        help="an average of a checkpoint",
    )
    chain.add_argument(
        "--objective",
        choices=OBJECTIVES,
        metavar="NAME",
        help=f"{', '.join(OBJECTIVES)} (default: as trained)",
    )
    chain.add_argument("--sampler", metavar="NAME", help="ancestral, ddim; sde, euler, heun; heun-euler")
    chain.add_argument(
        "--steps", type=options.positive_int, help=f"default: {STEPS} on a GPU, {CPU_STEPS} on a CPU"
    )
    chain.add_argument(
        "--guidance",
        type=options.guidance_scale,
        default=1.5,
        metavar="SCALE",
        help="1 is none (default: 1.5)",
    )
    chain.add_argument(
        "--guided-channels", type=options.positive_int, metavar="C", help=f"default: the first {GUIDED}"
    )
    chain.add_argument("--n", type=options.positive_int, help="images (default: one batch)")
    chain.add_argument("--seed", type=options.whole_number, default=0, help="of the noise (default: 0)")
    chain.add_argument(
        "--classes",
        nargs="+",
        type=options.whole_number,
        default=[],
        metavar="LABEL",
        help="in turn (default: all)",
    )
    chain.add_argument("--out-dir", type=Path, metavar="DIR", help="write samples there (default: only time)")
    chain.add_argument("--decoder", metavar="PKG.MOD:FACTORY", help="makes images of latents, untimed")
    chain.add_argument(
        "--autoencoder",
        choices=AUTOENCODERS,
        metavar="NAME",
        help="sd-f8: decodes too, stages timed",
    )


def add_comparison(parser: options.Parser) -> None:
    """Add the options of a comparison of files."""
    compare = parser.add_argument_group("comparing files of samples")
    compare.add_argument("--compare", nargs="+", type=Path, metavar="FILE", help=".npz of 8-bit images")
    compare.add_argument(
        "--reference", metavar="DATA|FILE", help="digits, fashion-mnist, cifar10, or an .npz"
    )
    compare.add_argument("--split", choices=("train", "validation"), default="train", help="default: train")
    compare.add_argument("--features", metavar="inception|DATA", help="default: inception if installed")
    compare.add_argument("--data-dir", type=Path, metavar="DIR", help="of bench.data (default: data)")
    compare.add_argument("--limit", type=options.positive_int, metavar="N", help="images of each set")
    compare.add_argument(
        "--kid-subset", type=options.positive_int, default=1000, metavar="N", help="images (default: 1000)"
    )
    compare.add_argument(
        "--kid-subsets", type=options.positive_int, default=100, metavar="N", help="default: 100"
    )
    compare.add_argument("--neighbours", type=options.positive_int, default=3, metavar="K", help="default: 3")
    compare.add_argument(
        "--compared", type=options.positive_int, default=10_000, metavar="N", help="default: 10000"
    )


def check_decoding(args: argparse.Namespace) -> None:
    """Refuse a decoder that cannot be imported, and options that do not go together.

    Raises:
        UsageError: --decoder without --out-dir, or --autoencoder with --decoder, --out-dir or --attention.
    """
    if args.autoencoder is not None:
        for flag, value in (("--decoder", args.decoder), ("--out-dir", args.out_dir)):
            if value is not None:
                raise options.UsageError(
                    f"--autoencoder {args.autoencoder}: is timed only, its images are noise; "
                    f"leave out {flag} {value}"
                )
        for attention in args.attention:
            if attention != "auto":
                raise options.UsageError(
                    f"--attention {attention}: torch chooses the kernels with --autoencoder; leave it out"
                )
    if args.decoder is None:
        return
    from bench.sampling import chains

    try:
        chains.decoder_of(args.decoder)
    except ValueError as error:
        raise options.UsageError(f"--decoder {error}") from error
    if args.out_dir is None:
        raise options.UsageError(
            f"--decoder {args.decoder}: belongs to --out-dir; without it nothing is kept"
        )
