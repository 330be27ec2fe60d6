"""Options of how a model is built, called and timed, and the cases that they make."""

import argparse
import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.cli import options
from bench.records.base import ModelCase, Size, height_width

CPU_MODELS = ("FCDM-S", "DiT-S/2", "DiCo-S", "DiC-S")
CPU_BUDGET_S = 45.0  # for each case: four of them and their start-up stay under five minutes
CUDA_BUDGET_S = 30.0
STARTUP_S = 300.0  # at the most, for building the largest model and compiling it
TYPICAL_STARTUP_S = 5.0
COMPILE_S = 60.0  # of torch.compile: an allowance in estimates, not measured
ATTENTION = ("auto", "flash", "cudnn", "efficient", "math", "flash-attn")


def add_settings(parser: options.Parser, batch: int, *, cpu_batch: int | None = None) -> None:
    """How a model is built and called; settings that take several values are all combined.

    Args:
        parser: gets the options.
        batch: by default.
        cpu_batch: where a CPU gets another one, which the command then fills in.
    """
    several = "; several are combined with the rest"
    on_cpu = "" if cpu_batch is None else f" on a GPU, {cpu_batch} on a CPU"
    parser.add_argument(
        "--batch",
        nargs="+",
        type=options.positive_int,
        default=[batch] if cpu_batch is None else None,
        help=f"images a pass (default: {batch}{on_cpu}){several}",
    )
    options.add_device(parser)
    parser.add_argument(
        "--precision", nargs="+", choices=options.PRECISIONS, default=["fp32"], help=f"default: fp32{several}"
    )
    options.add_switch(parser, "--compile", f"run under torch.compile{several}")
    options.add_switch(parser, "--cuda-graphs", f"replay the pass as a CUDA graph{several}")
    options.add_switch(parser, "--channels-last", f"lay images and kernels out channels last{several}")
    options.add_switch(
        parser, "--checkpointing", f"wrap every block as FCDM's release does, in inference too{several}"
    )
    parser.add_argument(
        "--attention",
        nargs="+",
        choices=ATTENTION,
        default=["auto"],
        help=f"the kernel under scaled_dot_product_attention, by default torch's choice{several}",
    )


def add_options(
    parser: options.Parser, batch: int, *, cpu_batch: int | None = None, cpu_budget_s: float = CPU_BUDGET_S
) -> None:
    """The settings of a timed case, and when its sampling ends."""
    add_settings(parser, batch, cpu_batch=cpu_batch)
    parser.add_argument(
        "--protocol",
        nargs="+",
        choices=("suite", "dico"),
        default=["suite"],
        help="dico replays the released timing of DiCo: 20 + 20 passes, clock stopped without synchronising, "
        "one timestep and label for the batch; --precision torch-default is as it was run",
    )
    parser.add_argument(
        "--budget",
        type=options.positive_seconds,
        metavar="SECONDS",
        help="of each case, warm-up and samples: 90, 90s or 2m (default: "
        f"{CUDA_BUDGET_S:g} s on a GPU, {cpu_budget_s:g} s on a CPU)",
    )
    parser.add_argument(
        "--precision-target",
        type=options.share,
        default=0.01,
        metavar="SHARE",
        help="stop when the 95 %% interval of the median is within this share of it (default: 0.01)",
    )
    parser.add_argument(
        "--soak",
        type=options.positive_seconds,
        default=0.0,
        metavar="SECONDS",
        help="work on for so long after the burst samples, then take sustained ones; with 5 and more the "
        "energy of a GPU is known too (default: none)",
    )


def startup_s(case: ModelCase) -> float:
    """Seconds that building a model takes as a rule, and compiling it."""
    return TYPICAL_STARTUP_S + COMPILE_S * case.compile


def device_of(args: argparse.Namespace) -> str:
    """The device asked for, or the one at hand, checked against the settings that go with it.

    Raises:
        UsageError: the device is not there, or cannot do what a setting asks.
    """
    from bench.machine import device

    where: str = args.device or device.default()
    for precision in args.precision:
        if (reason := device.why_not(where, precision)) is not None:
            raise options.UsageError(reason)
    _check_contradictions(args, where)
    return where


def model_fields(
    args: argparse.Namespace, device: str, names: Sequence[str], weights: str = "random"
) -> list[tuple[dict[str, Any], ...]]:
    """For every combination of the settings of `add_settings`, the fields of a ModelCase of every model."""
    swept = ("batch", "precision", "compile", "cuda_graphs", "channels_last", "attention", "checkpointing")
    products = itertools.product(args.res, *(getattr(args, name) for name in swept))
    return [
        tuple(
            {
                **sized_fields(name, res, device),
                **dict(zip(swept, settings, strict=True)),
                "weights": weights,
            }
            for name in names
        )
        for res, *settings in dict.fromkeys(products)
    ]


def sized_fields(model: str, res: Size, device: str) -> dict[str, Any]:
    """The fields of a SizedCase but for the batch."""
    from models.registry import family_of, task_at

    return {
        "device": device,
        "model": model,
        "family": family_of(model),
        "res": res,
        "latent_size": task_at(model, *height_width(res)).latent_size,
    }


def check_graphs(cuda_graphs: Sequence[bool], where: str) -> None:
    """Refuse CUDA graphs on a CPU.

    Raises:
        UsageError: they were asked for there.
    """
    if where == "cpu" and any(cuda_graphs):
        raise options.UsageError(
            "--cuda-graphs: needs a CUDA device, got --device cpu; leave one of them out"
        )


def _check_contradictions(args: argparse.Namespace, where: str) -> None:
    check_graphs(args.cuda_graphs, where)
    if where == "cpu":
        for kernel in set(args.attention) - {"auto", "flash", "math"}:
            raise options.UsageError(f"--attention {kernel}: a CPU has auto, flash and math only")
    if "flash-attn" in args.attention:
        from bench.machine.device import DTYPES
        from models.kernels.flash_attn import why_not

        for precision in args.precision:
            if reason := why_not(DTYPES[precision]):
                raise options.UsageError(f"--attention flash-attn: {reason}")


def weights_name(file: Path | None) -> str:
    """How a case names its weights: a file with the head of its SHA-256, or random."""
    if file is None:
        return "random"
    with file.open("rb") as opened:
        return f"{file.name} sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()[:12]}"
