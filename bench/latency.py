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

from bench.cli import options, settings, tables
from bench.jobs.job import Unit

COLUMNS: list[tables.Column] = [
    ("p50 ms", lambda row: row["status"] if row["p50_s"] is None else tables.milliseconds(row["p50_s"])),
    ("p90 ms", lambda row: tables.milliseconds(row["p90_s"])),
    ("p99 ms", lambda row: tables.milliseconds(row["p99_s"])),
]


def parser() -> options.Parser:
    made = options.parser("bench.latency", __doc__)
    options.add_models(made, default="all on a GPU, the S sizes on a CPU")
    options.add_res(made, default=(256,))
    settings.add_options(made, batch=1)
    options.add_output(made)
    return made


def units(args: argparse.Namespace) -> list[Unit]:
    return settings.units(args, "latency")


def _body(args: argparse.Namespace) -> int:
    return settings.show(args, "latency", COLUMNS, "percentiles of single passes")


def main(argv: Sequence[str] | None = None) -> int:
    return options.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
