"""Options for building, calling and timing models, and the fields of their cases."""

import argparse
import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli import models, options, values
from bench.records.base import ENGINES, ModelCase, Size, height_width
from models.registry import IMPLEMENTATIONS

if TYPE_CHECKING:
    from bench.analysis.rooflines.roofline import Peaks

CPU_MODELS = ("FCDM-S", "DiT-S/2", "DiCo-S", "DiC-S")
CPU_BUDGET_S = 45.0  # for each case: four cases with start-up take less than five minutes
CUDA_BUDGET_S = 30.0
PROCESSES = 3  # of a case by default
MOST_PROCESSES = 99
LEAST_PROCESS_S = 1.0  # budget of a model in a process below which the default is one process
TYPICAL_STARTUP_S = 5.0
COMPILE_S = 60.0  # of torch.compile: an allowance in estimates, not measured
ATTENTION = ("auto", "flash", "cudnn", "efficient", "math", "flash-attn")


def add_settings(parser: options.Parser, batch: int, *, cpu_batch: int | None = None) -> None:
    """Add the settings of models, combined with each other; the command fills in a CPU's default batch."""
    on_cpu = "" if cpu_batch is None else f", on a CPU {cpu_batch}"
    options.add_device(parser)
    group = parser.add_argument_group("settings, of which lists are combined")
    text = f"images a pass (default: {batch}{on_cpu})"
    default = [batch] if cpu_batch is None else None
    options.add(group, "--batch", values.positive_int, text, default=default, several=True)
    text = f"fp32 (default), {', '.join(options.PRECISIONS[1:])}"
    options.add(group, "--precision", options.PRECISIONS, text, default=["fp32"], several=True)
    add_impl(group)
    add_engine(group)
    options.add_switch(group, "--cuda-graphs", "replay the pass as a CUDA graph")
    options.add_switch(group, "--channels-last", "lay images and kernels out channels last")
    options.add_switch(group, "--checkpointing", "checkpoint every block, as FCDM's release does")
    options.add(group, "--attention", ATTENTION, default=["auto"], several=True)


def add_impl(group: argparse._ActionsContainer) -> None:
    text = "reference (default), fast: docs/fast.md"
    options.add(group, "--impl", IMPLEMENTATIONS, text, default=["reference"], several=True)


def add_engine(group: argparse._ActionsContainer) -> None:
    """Add --engine, a list, and --compile, which sets it too."""
    text = "eager (default), compile or --compile, aoti"
    options.add(group, "--engine", ENGINES, text, default=["eager"], several=True)
    group.add_argument(
        "--compile",
        nargs="*",
        type=options.checked(lambda text: "compile" if values.on_or_off(text) else "eager"),
        action=options.Switch,
        const="compile",
        dest="engine",
        help=argparse.SUPPRESS,  # --compile [off on]: as --engine compile, or eager compile
    )


def add_options(parser: options.Parser, batch: int) -> None:
    """Add the settings of a timed case and its stopping rules."""
    add_settings(parser, batch)
    group = parser.add_argument_group("how long, and by which protocol")
    budget = f"time for each case, as 2m (default: {CUDA_BUDGET_S:g}s on a GPU, {CPU_BUDGET_S:g}s on a CPU)"
    options.add(group, "--budget", values.positive_seconds, budget)
    add_processes(group, PROCESSES)
    half_width = "half-width of the median's 95 %% interval at which a process stops"
    options.add(group, "--precision-target", values.share, half_width, default=0.01, metavar="SHARE")
    soak = "run so long before sustained samples; from 5s on, a GPU's energy too"
    options.add(group, "--soak", values.positive_seconds, soak, default=0.0)
    protocol = "suite (default), or dico: replay the released timing of DiCo"
    options.add(group, "--protocol", ("suite", "dico"), protocol, default=["suite"], several=True)


def add_stopping(group: argparse._ActionsContainer, default: str) -> None:
    """Add the budget, whose default is in words, and the margin of interleaved rounds."""
    options.add(group, "--budget", values.positive_seconds, f"time for each case (default: {default})")
    margin = "speeds within this share of the reference's are the same"
    options.add(group, "--margin", values.share, margin, default=0.01, metavar="SHARE")


def add_processes(group: argparse._ActionsContainer, default: int) -> None:
    text = f"fresh processes that share the budget (default: {default} where it allows)"
    options.add(group, "--processes", _processes, text, metavar="N")


def _processes(text: str) -> int:
    number = values.positive_int(text)
    if number > MOST_PROCESSES:
        raise ValueError(f"must be at most {MOST_PROCESSES}, got {text!r}")
    return number


def processes_of(asked: int | None, usual: int, budget_s: float, models: int = 1) -> int:
    """The requested number of processes, or as many up to the usual as the budget allows."""
    if asked is not None:
        return asked
    affordable = [n for n in (usual, PROCESSES) if budget_s / (n * models) >= LEAST_PROCESS_S]
    return affordable[0] if affordable else 1


def startup_s(case: ModelCase) -> float:
    """Typical seconds for building and compiling a model."""
    return TYPICAL_STARTUP_S + COMPILE_S * (case.engine != "eager")


def device_for(given: str | None, precisions: Sequence[str]) -> str:
    """The given or the default device, for some precisions."""
    from bench.machine import device

    where = given or device.default()
    for precision in precisions:
        if (reason := device.why_not(where, precision)) is not None:
            raise options.UsageError(reason)
    return where


def device_of(args: argparse.Namespace) -> str:
    """The requested or default device, checked against the other settings."""
    where = device_for(args.device, args.precision)
    _check_contradictions(args, where)
    return where


def model_fields(
    args: argparse.Namespace, device: str, names: Sequence[str], weights: str = "random"
) -> list[tuple[dict[str, Any], ...]]:
    """Fields of a ModelCase for every model and every combination of the settings of `add_settings`.

    Models are grouped by size and settings; a model that is taken at its own size is in the first groups.
    """
    models.check_impl(names, args.impl)
    swept = (
        *("batch", "precision", "impl", "engine", "cuda_graphs", "channels_last", "attention"),
        "checkpointing",
    )
    swept_values = itertools.product(*(dict.fromkeys(getattr(args, name)) for name in swept))
    products = itertools.product(models.by_size(names, args.res), swept_values)
    return [
        tuple(
            {**sized_fields(name, res, device), **dict(zip(swept, settings, strict=True)), "weights": weights}
            for name, res in group
        )
        for group, settings in products
    ]


def sized_fields(model: str, res: Size, device: str) -> dict[str, Any]:
    """Fields of a SizedCase except the batch."""
    from models.registry import family_of, task_at

    return {
        "device": device,
        "model": model,
        "family": family_of(model),
        "res": res,
        "latent_size": task_at(model, *height_width(res)).latent_size,
    }


def check_training(
    cuda_graphs: Sequence[bool], precisions: Sequence[str], engines: Sequence[str] = ()
) -> None:
    """Refuse settings that a training step does not support."""
    if any(cuda_graphs):
        raise options.UsageError("--cuda-graphs: a training step is not captured as a graph; leave it out")
    if "fp16" in precisions:
        raise options.UsageError("--precision fp16: training in it would need a scaled loss; bf16 would work")
    if "aoti" in engines:
        raise options.UsageError("--engine aoti: computes no gradients; compile would work")


def check_graphs(cuda_graphs: Sequence[bool], where: str) -> None:
    """Refuse CUDA graphs on a CPU."""
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


def gpu_peaks(text: str, precisions: Sequence[str], flag: str) -> "Peaks":
    """The peaks of a GPU of baselines/gpus.csv that a prediction in these precisions needs."""
    from bench.analysis.projection.formula import why_not
    from bench.analysis.rooflines import roofline

    with options.usage_errors(f"{flag} "):
        peaks = roofline.of_gpu(text)
    if (reason := why_not(peaks, precisions)) is not None:
        raise options.UsageError(f"{flag} {text}: {reason}: baselines/gpus.csv leaves it blank")
    return peaks


def weights_name(file: Path | None, container: str = "") -> str:
    """Name of weights in a case: the file, the key in it and the head of its SHA-256; or random."""
    if file is None:
        return "random"
    name = f"{file.name}:{container}" if container else file.name
    with file.open("rb") as opened:
        return f"{name} sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()[:12]}"
