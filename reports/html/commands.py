"""The command line that repeats a record's case."""

import shlex
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bench.records.base import Case, ModelCase, size_text
from bench.records.ceiling import CeilingCase
from bench.records.comparison import ComparisonCase
from bench.records.counts import CountCase
from bench.records.golden import GoldenCase
from bench.records.kernels import DepthwiseCase, ProductCase
from bench.records.memory import MemoryCase
from bench.records.operators import OperatorCase
from bench.records.pictures import PictureCase
from bench.records.profile import ProfileCase
from bench.records.sampling import SamplingCase
from bench.records.scaling import ScalingCase
from bench.records.throughput import PassCase, ThroughputCase
from bench.records.training import TrainingCase
from bench.store.store import REPORTED

SWITCHES = ("cuda_graphs", "channels_last", "checkpointing")


def command(case: Case) -> str:
    """The command that measures a case again; blank for one that needs files of yours."""
    for kind, words in _COMMANDS.items():
        if isinstance(case, kind):
            found = list(map(str, words(case)))
            return shlex.join(["python", "-m", *found, "--out", str(REPORTED)]) if found else ""
    return ""


def _sized(case: Any) -> list[object]:  # noqa: ANN401 - a SizedCase of any kind
    return ["--model", case.model, "--res", size_text(case.res), "--batch", case.batch]


def _switches(case: ModelCase, *names: str) -> list[object]:
    words: list[object] = ["--impl", case.impl] if case.runs_fast else []
    words += ["--engine", case.engine] * (case.engine != "eager")
    for name in names or SWITCHES:
        words += [f"--{name.replace('_', '-')}", "on"] * getattr(case, name)
    return [*words, *(["--attention", case.attention] if case.attention != "auto" else [])]


def _passes(case: PassCase) -> list[object]:
    words: list[object] = ["--work", case.work, "--device", case.device, "--precision", case.precision]
    words += _switches(case)
    return words + ["--checkpointing", "off"] * (case.work == "training" and not case.checkpointing)


def _effort(case: ThroughputCase | ComparisonCase, target: str) -> list[object]:
    """The sampling budget; `target` is the option of the precision target, 0.01 by default."""
    words: list[object] = ["--budget", f"{case.budget_s:g}s", "--processes", case.processes]
    return words + [target, f"{case.precision_target:g}"] * (case.precision_target != 0.01)


def _throughput(case: ThroughputCase) -> list[object]:
    words: list[object] = [
        "bench.throughput",
        *_sized(case),
        *_passes(case),
        *_effort(case, "--precision-target"),
    ]
    words += ["--soak", f"{case.soak_s:g}s"] if case.soak_s else []
    return [*words, *(["--protocol", case.protocol] if case.protocol != "suite" else [])]


def _scaling(case: ScalingCase) -> list[object]:
    words: list[object] = [
        "bench.scaling",
        "--model",
        case.model,
        "--res",
        size_text(case.res),
        "--batch",
        case.from_batch,
    ]
    return [*words, *_passes(case)]


def _versus(case: ComparisonCase) -> list[object]:
    first = case.arms[0]
    impls = list(dict.fromkeys(arm.impl for arm in case.arms))  # each model runs under all of them
    models = [arm.model for arm in case.arms[:: len(impls)]]
    words: list[object] = ["bench.versus", *models, "--res", size_text(first.res)]
    words += ["--batch", first.batch, "--device", case.device, "--precision", first.precision]
    words += [*_switches(replace(first, impl="reference")), *["--impl", *impls] * (impls != ["reference"])]
    return words + _effort(case, "--margin")


def _memory(case: MemoryCase) -> list[object]:
    words: list[object] = ["bench.memory", *_sized(case), "--precision", case.precision, "--work", case.work]
    checkpointing = ["--checkpointing", "on" if case.checkpointing else "off"] * (case.work == "training")
    return [*words, *checkpointing, "--device", case.device]


def _sampling(case: SamplingCase) -> list[object]:
    if case.weights != "random":
        return []
    words: list[object] = ["bench.sample", *_sized(case), "--objective", case.objective]
    words += ["--sampler", case.sampler, "--steps", case.steps, "--guidance", f"{case.guidance:g}"]
    words += ["--n", case.images, "--seed", case.seed, "--device", case.device, "--precision", case.precision]
    words += ["--classes", *case.classes] if case.classes else []
    words += ["--autoencoder", case.autoencoder] if isinstance(case, PictureCase) else []
    return words + _switches(case)


def _training(case: TrainingCase) -> list[object]:
    recipe = case.recipe
    words: list[object] = ["bench.convergence", "--model", case.model, "--data", recipe.data]
    words += ["--objective", recipe.objective, "--steps", recipe.steps, "--batch", recipe.batch]
    words += ["--first-seed", case.seed, "--seeds", 1, "--learning-rate", f"{recipe.learning_rate:g}"]
    return [*words, "--device", case.device, "--precision", case.precision]


_COMMANDS: dict[type[Case], Callable[[Any], list[object]]] = {
    ThroughputCase: _throughput,
    ScalingCase: _scaling,
    ComparisonCase: _versus,
    CountCase: lambda case: ["bench.flops", *_sized(case), "--counter", case.counter],
    MemoryCase: _memory,
    GoldenCase: lambda case: [
        *("bench.golden", "--model", case.model, "--device", case.device, "--precision", case.precision),
        *_switches(case, "cuda_graphs", "channels_last"),
    ],
    DepthwiseCase: lambda case: [
        *("bench.kernels", *_sized(case), "--device", case.device, "--precision", case.precision),
        *("--operation", case.operation, "--kernel-size", case.kernel),
    ],
    ProductCase: lambda case: [
        *("bench.kernels", *_sized(case), "--device", case.device, "--precision", case.precision),
        *("--operation", case.operation),
    ],
    CeilingCase: lambda case: ["bench.roofline", "--device", case.device, "--measure-ceilings"],
    OperatorCase: lambda case: [
        *("bench.roofline", *_sized(case), "--precision", case.precision),
        *("--work", case.work, "--device-peaks", "none"),
    ],
    ProfileCase: lambda case: [
        *("bench.roofline", *_sized(case), "--precision", case.precision, "--device", case.device),
        *("--by", case.by, "--profile"),
    ],
    SamplingCase: _sampling,
    TrainingCase: _training,
}
