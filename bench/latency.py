"""How long does one denoising pass take, and how long at the worst?

    python -m bench.latency
    python -m bench.latency --model FCDM-XL DiT-XL/2 --res 512 --precision bf16 --cuda-graphs off on
    python -m bench.latency --model FCDM-S --batch 1 4 --format json --out runs.jsonl

Timed, and not timed, is what bench.throughput says; the batch is one by default, and at least a hundred
passes are sampled, budget permitting, so that the 99th percentile is one of them and not a guess. The
percentiles are those of the passes in order of time, interpolated between neighbours.
"""

import argparse
from collections.abc import Sequence

from bench import cases, cli, output
from bench.unit import Unit

COLUMNS: list[output.Column] = [
    ("p50 ms", lambda row: row["status"] if row["p50_s"] is None else output.milliseconds(row["p50_s"])),
    ("p90 ms", lambda row: output.milliseconds(row["p90_s"])),
    ("p99 ms", lambda row: output.milliseconds(row["p99_s"])),
]


def parser() -> cli.Parser:
    made = cli.parser("bench.latency", __doc__)
    cli.add_models(made, default="all on a GPU, the S sizes on a CPU")
    cli.add_res(made, default=(256,))
    cases.add_options(made, batch=1)
    cli.add_output(made)
    return made


def units(args: argparse.Namespace) -> list[Unit]:
    return cases.units(args, "latency")


def _body(args: argparse.Namespace) -> int:
    return cases.show(args, "latency", COLUMNS, "percentiles of single passes")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
