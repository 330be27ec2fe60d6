"""Options for drawing samples and for comparing files of samples."""

import argparse
import math

from bench.cli import options, values
from bench.cli.values import positive_int
from bench.datasets import names
from bench.records.pictures import AUTOENCODERS
from bench.records.training import OBJECTIVES

DEFAULTS = BATCH, STEPS = 64, 250  # on a GPU
CPU_DEFAULTS = CPU_BATCH, CPU_STEPS = 4, 25
GUIDED = 3  # guided channels, as in the samplers of DiT and its successors


def add_chain(parser: options.Parser) -> None:
    """Add the options of a sampling chain."""
    chain = parser.add_argument_group("the chain")
    guidance = values.number_in(0, math.inf, "a number of at least 0, as 1.5; 1 is none")
    steps = f"default: {STEPS} on a GPU, {CPU_STEPS} on a CPU"
    options.add(
        chain, "--ema", values.decay_or_none, "EMA decay of the weights (default: no EMA)", metavar="DECAY"
    )
    options.add(chain, "--objective", OBJECTIVES, f"{', '.join(OBJECTIVES)} (default: as trained)")
    options.add(chain, "--sampler", str, "ancestral ddim; sde euler heun heun-euler; edm")
    options.add(chain, "--steps", positive_int, steps)
    options.add(chain, "--guidance", guidance, "1 is none", default=1.5, metavar="SCALE")
    options.add(chain, "--guided-channels", positive_int, f"default: the first {GUIDED}", metavar="C")
    options.add(chain, "--n", positive_int, "images (default: one batch)")
    options.add(chain, "--seed", values.whole_number, "seed of the noise", default=0)
    labels = "class labels, repeated in order (default: all)"
    options.add(chain, "--classes", values.whole_number, labels, default=[], several=True, metavar="LABEL")
    options.add(chain, "--out-dir", values.folder, "write samples there (default: only time)")
    options.add(chain, "--decoder", str, "your decoder of latents, not timed", metavar="PKG.MOD:FACTORY")
    options.add(chain, "--autoencoder", AUTOENCODERS, "sd-f8: decode, and time each stage")


def add_comparison(parser: options.Parser) -> None:
    """Add the options of a comparison of files."""
    compare = parser.add_argument_group("comparing files of samples")
    reference = "digits, fashion-mnist, cifar10, or an .npz"
    options.add(compare, "--compare", values.file, ".npz of 8-bit images", several=True)
    options.add(compare, "--reference", names.checked, reference, metavar="DATA|FILE")
    options.add(compare, "--split", ("train", "validation"), default="train")
    options.add(compare, "--features", str, "default: inception if installed", metavar="inception|DATA")
    options.add(compare, "--data-dir", values.folder, "data folder of bench.data (default: data)")
    options.add(compare, "--limit", positive_int, "images of each set")
    options.add(compare, "--kid-subset", positive_int, "images of a subset", default=1000)
    options.add(compare, "--kid-subsets", positive_int, "subsets of KID", default=100)
    options.add(compare, "--neighbours", positive_int, "k of precision and recall", default=3)
    options.add(compare, "--compared", positive_int, "images for precision and recall", default=10_000)


def check_decoding(args: argparse.Namespace) -> None:
    """Refuse a decoder that cannot be imported, and options that do not go together."""
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

    with options.usage_errors("--decoder "):
        chains.decoder_of(args.decoder)
    if args.out_dir is None:
        raise options.UsageError(
            f"--decoder {args.decoder}: belongs to --out-dir; without it nothing is kept"
        )
