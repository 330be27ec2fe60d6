"""Speeds of implementations of a model's convolutions, products and norms, and the roofline floor.

    python -m bench.kernels
    python -m bench.kernels --res 256 --precision bf16 --operation conv --out records.jsonl
    python -m bench.kernels --model FCDM-S --operation gelu-product scaled-product shuffled-product
    python -m bench.kernels --operation conv --kernel-size 3 5 7 9 31 --res 256 --budget 10
    python -m bench.kernels --model DiCo-XL --device cuda --precision bf16

Widths, sides and kernel sizes are those of the model. Every output is checked against float64 before timing.
Method and implementations: docs/kernels.md
"""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING

from bench.analysis.rooflines import kernels, roofline
from bench.analysis.rooflines.kernels import NOT_HERE, PRECISIONS
from bench.analysis.rooflines.roofline import Peaks
from bench.cli import options, settings, values
from bench.cli.models import check_models, model_names
from bench.cli.records import check_output, known_records, run_jobs, show
from bench.jobs import timed
from bench.jobs.job import Job, in_worker
from bench.records.base import Record, Size, height_width
from bench.records.kernels import (
    DEPTHWISE,
    NORMS,
    OPERATIONS,
    DepthwiseCase,
    KernelCase,
    NormCase,
    OperatorComparison,
    ProductCase,
)
from bench.tables.numbers import milliseconds

if TYPE_CHECKING:
    from torch import nn

    from bench.measure.operations.kernels import Layer

MODEL = "FCDM-XL"
DEFAULT_PRECISIONS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "tf32", "bf16")}
BATCH = {"cpu": 4, "cuda": 64}
BUDGET_S = {"cpu": 20.0, "cuda": 6.0}
COMPILE_S = 10.0  # typical, of torch.compile or of Triton autotuning


def jobs(args: argparse.Namespace) -> list[Job]:
    """Jobs of every operation, layer and setting, ordered by image size."""
    return [
        in_worker(
            "bench.measure.operations.kernels:measure",
            case,
            estimate_s=settings.TYPICAL_STARTUP_S + COMPILE_S + case.budget_s,
            timeout_s=timed.MAX_STARTUP_S + 4 * case.budget_s,
        )
        for case in _cases(args)
    ]


def _cases(args: argparse.Namespace) -> Iterator[KernelCase]:
    """Cases of every combination of settings."""
    from bench.machine import device

    where = settings.device_for(args.device, ())
    precisions = list(dict.fromkeys(args.precision or device.in_hardware(where, DEFAULT_PRECISIONS[where])))
    settings.device_for(where, precisions)
    operations = dict.fromkeys(args.operation)
    if "fp16" in precisions and where == "cpu":
        raise options.UsageError("--precision fp16: is measured on CUDA only; bf16 would work")
    if args.kernel_size and not operations.keys() & set(DEPTHWISE):
        raise options.UsageError(
            f"--kernel-size: applies to {', '.join(DEPTHWISE)}; add one of them to --operation"
        )
    names = model_names(args.model, default=[MODEL])
    for (name, res), model in check_models(names, args.res, None).items():
        found = _layers(name, res, model)
        if not operations.keys() & found.keys():
            raise options.UsageError(f"--model {name}: has none of {', '.join(operations)}; {MODEL} has")
        product = itertools.product(dict.fromkeys(args.batch or [BATCH[where]]), precisions, operations)
        for batch, precision, operation in product:
            for layer in found.get(operation, ()):
                fields = {
                    **settings.sized_fields(name, res, where),
                    "batch": batch,
                    "precision": precision,
                    "operation": operation,
                    "channels": layer.channels,
                    "image_size": layer.image_size,
                    "calls_per_pass": layer.calls_per_pass,
                    "budget_s": args.budget or BUDGET_S[where],
                    "precision_target": args.margin,
                }
                if operation in NORMS:
                    yield NormCase(**fields, groups=layer.groups)
                    continue
                if operation not in DEPTHWISE:
                    yield ProductCase(**fields, out_channels=layer.out_channels)
                    continue
                for kernel in dict.fromkeys(args.kernel_size or [layer.kernel]):
                    yield DepthwiseCase(**fields, kernel=kernel)


@cache
def _layers(name: str, res: Size, model: "nn.Module | None") -> "dict[str, list[Layer]]":
    """Layers of a model, built if it is None; once in a process."""
    from bench.measure.operations.kernels import layers
    from models.contract import build
    from models.registry import task_at

    task = task_at(name, *height_width(res))
    return layers(build(name, task) if model is None else model, task)


def _body(args: argparse.Namespace) -> int:
    check_output(args.out, args.force)
    known = known_records(args.records)
    found, notes = run_jobs(jobs(args), args.out, force=args.force)
    peaks = roofline.measured_peaks(known, found[0].environment.device)
    rows: list[kernels.Line | Record] = []
    for record in found:
        rows += kernels.lines(record, peaks) if isinstance(record, OperatorComparison) else [record]
    if args.format not in ("json", "csv"):
        # half of the implementations cannot run on a CPU: a note names them once
        absent = [row for row in rows if isinstance(row, kernels.Line) and row.status == NOT_HERE]
        rows = [row for row in rows if row not in absent]
        reasons = dict.fromkeys(f"{row.implementation.name}: {row.reason}" for row in absent)
        notes += [f"not run: {reason}" for reason in reasons]
    show(kernels.TABLE, rows, [*notes, *_notes(found, peaks)], args)
    return 0


def _notes(found: Sequence[Record], peaks: Peaks | None) -> list[str]:
    notes = []
    for total in kernels.pass_sums(found):
        case = total.case
        times = ", ".join(f"{name} {milliseconds(s)}" for name, s in total.seconds.items())
        notes.append(
            f"all {case.operation_name} of one pass of {case.model}, {case.settings}, in ms: {times}"
        )
    command = "python -m bench.roofline --measure-ceilings"
    floors = f"floors: {peaks.source}" if peaks else f"no ceilings of this device: {command}"
    return [*notes, f"{found[0].environment.describe()}; median visits; {floors}"]


def odd(text: str) -> int:
    """Parse a kernel size."""
    value = values.positive_int(text)
    if value % 2 == 0:
        raise ValueError(f"must be odd, got {value}; {value + 1} would work")
    return value


def parser() -> options.Parser:
    made = options.parser("bench.kernels", __doc__)
    several = "; several are combined with the rest"
    options.add_model(made, f"default: {MODEL}{several}")
    options.add_res(made, default=(256, 512))
    text = f"images (default: 64 on a GPU, 4 on a CPU){several}"
    options.add(made, "--batch", values.positive_int, text, several=True)
    options.add_device(made)
    text = f"default: fp32 tf32 bf16, as far as the device has them{several}"
    options.add(made, "--precision", PRECISIONS, text, several=True)
    text = f"{', '.join(OPERATIONS)}: docs/kernels.md (default: those of the model)"
    options.add(made, "--operation", OPERATIONS, text, default=list(OPERATIONS), several=True)
    text = f"window of {', '.join(DEPTHWISE)} (default: the model's own){several}"
    options.add(made, "--kernel-size", odd, text, several=True, metavar="K")
    default = f"{BUDGET_S['cuda']:g}s on a GPU, {BUDGET_S['cpu']:g}s on a CPU"
    settings.add_stopping(made, default)
    options.add_records(made, "with ceilings of this device")
    options.add_output(made)
    return made


main = options.command(parser, _body)

if __name__ == "__main__":
    raise SystemExit(main())
