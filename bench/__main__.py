"""The study that the report is made from, sized to the device at hand.

    python -m bench --out reports/out/records.jsonl

Counts every model at 256, 512 and 1024 px, by torch's rules and by torchprofile's, then times what the
device can bear: without a GPU the S-size models at 256 and 512 px with batches of 4, in fp32 and bf16
(about four minutes on two cores); with one the models that the papers tabulate at 256 and 512 px with
batches of 64, in fp32 and bf16. Records are appended to --out, where earlier ones stay.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench import cli, flops, throughput

TABULATED = ("FCDM-*", "DiT-*/2", "DiCo-*", "DiC-*")


def _body(args: argparse.Namespace) -> int:
    cli.check_output(args.out, force=False)
    from bench import device

    counting = ["--counter", "torch", "torchprofile-meta"]
    if device.default() == "cuda":
        timing = ["--model", *TABULATED, "--batch", "64", "--budget", "8s"]
    else:
        timing = ["--model", *throughput.CPU_MODELS, "--batch", "4", "--budget", "15s"]
    timing += ["--res", "256", "512", "--precision", "fp32", "bf16"]
    out = ["--out", str(args.out)]
    return flops.main([*counting, *out]) or throughput.main([*timing, *out])


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser("bench", __doc__)
    parser.add_argument(
        "--out",
        type=_records,
        default=Path("reports/out/records.jsonl"),
        metavar="FILE.jsonl",
        help="default: reports/out/records.jsonl",
    )
    return cli.run(parser, _body, argv)


def _records(text: str) -> Path:
    if not cli.keeps_records(Path(text)):
        raise argparse.ArgumentTypeError(f"must end in .jsonl, got {text!r}")
    return Path(text)


if __name__ == "__main__":
    raise SystemExit(main())
