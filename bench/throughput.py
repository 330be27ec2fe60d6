"""How many images a second does a backbone denoise?

    python -m bench.throughput --res 512
    python -m bench.throughput --model FCDM-XL DiT-XL/2 --precision fp32 tf32 bf16 --compile off on
    python -m bench.throughput --res 512 --model FCDM-S --batch 4 --format json
    python -m bench.throughput --model 'DiCo-*' --budget 2m --out runs.jsonl
    python -m bench.throughput --model my_pkg.my_mod:factory

Timed: model(x, t, y), one denoising forward pass, in eval mode under inference_mode, from the call until
the device has finished. x is normal noise, t and y are drawn anew for every image, and layers that start
at zero are given random values first. No guidance: the batch is the number of images.
Not timed: building the model, moving it, compiling it, the warm-up passes.

fp32 means no TF32 anywhere: both of torch's switches are set, and recorded. bf16 and fp16 cast weights
and inputs; the timestep features stay float32. Each case runs in a process of its own: one that runs out
of memory or crashes is a row with its reason. Warm-up ends when passes stop changing; sampling ends
when the 95 % interval of the median is within 1 % of it, with at least 10 samples and 0.5 s, or when the
budget is spent. Without a GPU the default is the S-size models; with one it is all of them.
"""

import argparse
from collections.abc import Sequence

from bench.cli import options, settings, tables
from bench.jobs.job import Unit


def images_per_s(row: tables.Row) -> str:
    if row["images_per_s"] is None:
        return str(row["status"])
    return tables.significant(row["images_per_s"])


def interval(row: tables.Row) -> str:
    bounds = row["images_per_s_interval"]
    return f"{tables.significant(bounds[0])} to {tables.significant(bounds[1])}" if bounds else "-"


COLUMNS: list[tables.Column] = [
    ("images/s", images_per_s),
    ("95 % interval", interval),
    ("ms/pass", lambda row: tables.milliseconds(row["median_s"])),
]


def parser() -> options.Parser:
    made = options.parser("bench.throughput", __doc__)
    options.add_models(made, default="all on a GPU, the S sizes on a CPU")
    options.add_res(made, default=(256,))
    settings.add_options(made, batch=64)
    options.add_output(made)
    return made


def units(args: argparse.Namespace) -> list[Unit]:
    return settings.units(args, "throughput")


def _body(args: argparse.Namespace) -> int:
    return settings.show(args, "throughput", COLUMNS, "median pass with its 95 % interval")


def main(argv: Sequence[str] | None = None) -> int:
    return options.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
