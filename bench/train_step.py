"""How many images a second does a backbone train on, the whole step counted?

    python -m bench.train_step
    python -m bench.train_step --model FCDM-XL DiT-XL/2 --precision tf32 bf16 --batch 64 --compile off on
    python -m bench.train_step --model FCDM-S --checkpointing on --res 512 --out runs.jsonl
    python -m bench.train_step --model my_pkg.my_mod:factory --format json

Timed: one step from the forward pass to the updated average of the weights: model(x, t, y) in train mode,
the squared error of the noise, the backward pass, AdamW (one fused kernel), and the EMA of all weights.
Gradients are set to None after it. Two parts of a release's loss are left out, the learned variance's and
the weighting of timesteps: they work on tensors as small as x.
Not timed: loading and encoding images, moving a batch, drawing t and noise (one batch is used again and
again), averaging gradients across devices, building, compiling, the warm-up steps.

Parameters, gradients, moments and EMA are float32; bf16 is torch.autocast around the forward pass and the
loss. fp32 and tf32 are as in bench.throughput; fp16 would need a scaled loss. --checkpointing computes every
block again in the backward pass, as FCDM's release does; by default each model is timed without and with.
Sampling, intervals, telemetry and workers are those of bench.throughput: the precision of the median, or
the budget, ends it. bench.memory says how much memory such a step takes.
"""

import argparse
from collections.abc import Sequence

from bench import throughput
from bench.cli import options, settings, tables
from bench.jobs.job import Unit

QUESTION = "train_step"
MODELS = ("FCDM-XL", "DiT-XL/2", "DiCo-XL", "DiC-XL")  # on a GPU
BATCH = 64
CPU_BATCH = 4
CPU_BUDGET_S = 25.0  # each of the S sizes twice, under five minutes in all

COLUMNS: list[tables.Column] = [
    ("images/s", throughput.images_per_s),
    ("95 % interval", throughput.interval),
    ("ms/step", lambda row: tables.milliseconds(row["median_s"])),
]


def refuse(args: argparse.Namespace) -> None:
    """Refuse what a training step cannot be timed under; of the options of `cases.add_settings`.

    Raises:
        UsageError: names the setting, and what would work.
    """
    if any(args.cuda_graphs):
        raise options.UsageError("--cuda-graphs: a training step is not captured as a graph; leave it out")
    if "fp16" in args.precision:
        raise options.UsageError("--precision fp16: training in it would need a scaled loss; bf16 would work")


def _filled(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments with the defaults of the device at hand."""
    refuse(args)
    if set(args.protocol) != {"suite"}:
        raise options.UsageError("--protocol dico: is a protocol of inference; leave it out")
    on_cpu = settings.device_of(args) == "cpu"
    return argparse.Namespace(
        **{
            **vars(args),
            "model": args.model or (settings.CPU_MODELS if on_cpu else MODELS),
            "batch": args.batch or [CPU_BATCH if on_cpu else BATCH],
            "budget": args.budget or (CPU_BUDGET_S if on_cpu else settings.CUDA_BUDGET_S),
        }
    )


def parser() -> options.Parser:
    made = options.parser("bench.train_step", __doc__)
    options.add_models(made, default=f"{', '.join(MODELS)} on a GPU, the S sizes on a CPU")
    options.add_res(made, default=(256,))
    settings.add_options(made, batch=BATCH, cpu_batch=CPU_BATCH, cpu_budget_s=CPU_BUDGET_S)
    options.add_output(made)
    made.set_defaults(checkpointing=[False, True])
    return made


def units(args: argparse.Namespace) -> list[Unit]:
    return settings.units(_filled(args), QUESTION)


def _body(args: argparse.Namespace) -> int:
    options.check_output(args.out, args.force)
    return settings.show(_filled(args), QUESTION, COLUMNS, "median step with its 95 % interval")


def main(argv: Sequence[str] | None = None) -> int:
    return options.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
