"""Sampling chains of one backbone, drawn batch by batch and timed."""

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.datasets import names
from bench.datasets.images import to_levels
from bench.machine import device, telemetry
from bench.machine.failures import NotFiniteError
from bench.measure.prepared import engine, prepared
from bench.records.base import Environment, ModelCase, Skipped, height_width
from bench.records.sampling import SamplingCase, SamplingRun
from bench.records.training import TrainingCase
from bench.sampling import sample_folder, samplers
from bench.sampling.sample_folder import Part
from bench.training import checkpoint, objectives
from bench.training.losses.diffusion import IDDPM
from bench.training.losses.flow import Flow
from models.contract import build, condition_width
from models.guard import users_code
from models.registry import published_task, task_at
from models.task import TIMES, Task
from models.weights import load_official, randomise_zeros, read_weights

WARM_UP = 3  # passes of the network before the first chain

Decode = Callable[[Tensor], Tensor]  # latents (N, C, H, W) -> images (N, 1 or 3, H', W') in [-1, 1]


@dataclass(frozen=True, kw_only=True)
class Source:
    """The weights, the decoder and the output folder."""

    weights: str | None  # path of a checkpoint; None: random weights
    trained_here: bool  # by bench.convergence: the checkpoint then defines the task
    ema: float | None  # decay of the checkpoint's average; None: the trained weights
    decoder: str | None  # "my_pkg.my_mod:factory"
    folder: str | None  # path for samples; None: samples are only timed

    @property
    def trained(self) -> TrainingCase | None:
        """The case of a checkpoint of bench.convergence."""
        if not self.trained_here or self.weights is None:
            return None
        return checkpoint.read(Path(self.weights), whole=False).identity.case


def task_of(case: ModelCase, source: Source) -> Task:
    """The task that the network is built for."""
    if (trained := source.trained) is not None:
        return objectives.task_of(trained.recipe, trained.latent_size)
    return task_at(case.model, *height_width(case.res))


def draws_images(case: SamplingCase, source: Source) -> bool:
    """Whether the network generates images rather than latents."""
    if (trained := source.trained) is not None:
        return trained.recipe.data in names.IMAGES
    return published_task(case.model).space == "pixels"


def decoder_of(name: str) -> Callable[[], Decode]:
    """The factory of a decoder, "my_pkg.my_mod:factory". ValueError: no such module or callable."""
    module_name, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(f"{name}: must be my_pkg.my_mod:factory")
    with users_code(name):
        factory = getattr(importlib.import_module(module_name), attribute, None)
    if not callable(factory):
        raise ValueError(f"{name}: {module_name} has no callable {attribute!r}")
    made: Callable[[], Decode] = factory
    return made


@dataclass(frozen=True, kw_only=True)
class Made:
    """The samples of one chain."""

    samples: Tensor  # (N, C, H, W) float32
    labels: NDArray[np.int64]  # (N,); zeros for a network conditioned on vectors
    seconds: float


def _from_noise_to_data(network: Callable[..., Tensor], task: Task) -> Callable[..., Tensor]:
    """The velocity data - noise of a network that predicts noise - data, whose t is 0 at the data."""
    if task.prediction != "reverse-velocity":
        return network
    return lambda x, t, y: -network(x, 1 - t, y)


class Drawer:
    """A backbone with a sampler. It draws full batches, each identified by its first image number."""

    def __init__(
        self, case: SamplingCase, network: Callable[..., Tensor], task: Task, width: int | None
    ) -> None:
        self._case = case
        self._network = _from_noise_to_data(network, task)
        self._objective = objectives.find(case.objective)
        self._task = task
        self._width = width  # width of the condition vectors that replace labels
        self._device = case.device

    def begin(self, first: int) -> tuple[samplers.ImageNoise, Tensor, NDArray[np.int64]]:
        """The noise, the condition and the labels of a batch."""
        case, task = self._case, self._task
        numbers = range(first, first + case.batch)
        noise = samplers.ImageNoise(
            case.seed, numbers, (task.in_channels, task.height, task.width), self._device
        )
        if self._width is not None:
            # a seed outside the range of options, so that the vectors differ from the noise
            vectors = samplers.ImageNoise(-1 - case.seed, numbers, (1, 1, self._width), self._device).draw()
            return noise, vectors[:, 0, 0], np.zeros(len(numbers), dtype=np.int64)
        classes = case.classes or range(task.num_classes)
        labels = np.array([classes[number % len(classes)] for number in numbers], dtype=np.int64)
        return noise, torch.from_numpy(labels).to(self._device), labels

    def predict(self, y: Tensor) -> samplers.Predict:
        """The guided prediction, or the velocity that follows from it."""
        null = self._task.num_classes if self._width is None else 0
        case = self._case
        guided = samplers.guided(
            self._network, y, scale=case.guidance, null=null, channels=case.guided_channels
        )
        objective = self._objective
        if isinstance(objective, Flow):
            return lambda x, t: objective.velocity(guided(x, t), x, t)
        if isinstance(objective, IDDPM) and self._task.space == "pixels":  # as ADM's release samples
            return lambda x, t: objective.diffusion.clipped(guided(x, t), x, t)
        return guided

    def warm_up(self) -> float:
        """Call the network as a chain does; return the seconds of the first call, which may compile."""
        noise, y, _ = self.begin(0)
        predict, x = self.predict(y), noise.draw()
        middle = {"steps": 500, "unit": 0.5, "sigma": 1.0}[TIMES[self._objective.prediction]]
        t = torch.full((len(x),), middle, device=self._device)
        synchronise = device.synchronise(self._device)
        begin = time.perf_counter()
        predict(x, t)
        synchronise()
        first = time.perf_counter() - begin
        for _ in range(WARM_UP - 1):
            predict(x, t)
        synchronise()
        return first

    def chain(self, first: int) -> Made:
        """Draw one batch, timed from its noise to the device's end. NotFiniteError: inf or NaN."""
        synchronise = device.synchronise(self._device)
        synchronise()
        begin = time.perf_counter()
        noise, y, labels = self.begin(first)
        sampler = samplers.SAMPLERS[self._case.sampler]
        samples = sampler.draw(self.predict(y), noise.draw(), noise, self._case.steps)
        synchronise()
        seconds = time.perf_counter() - begin
        if not bool(torch.isfinite(samples).all()):
            case = self._case
            raise NotFiniteError(
                f"samples from image {first} on in {case.precision} hold inf or NaN after {case.steps} steps"
            )
        return Made(samples=samples, labels=labels, seconds=seconds)


def measure(case: SamplingCase, environment: Environment, source: Source) -> SamplingRun | Skipped:
    """Draw and time every batch that is missing in the folder; the times are of all these images.

    A failure is an error of `bench.machine.failures`: samples were not finite, torch recompiled, memory ran
    out or a kernel is missing.
    """
    folder = None if source.folder is None else Path(source.folder)
    monitor = telemetry.monitor(case.device)
    if monitor:
        monitor.measure_idle()
    matmul_tf32, conv_tf32 = device.set_precision(case.precision)
    times: list[float] = []
    timed_on = f"{environment.device}, {environment.code}"
    missing = list(range(0, case.images, case.batch))
    if folder is not None:
        missing = sample_folder.missing(folder, case.images, case.batch)
        for first in sorted(first for first in sample_folder.stored(folder) if first < case.images):
            part = sample_folder.read(folder, first)
            times += [part.seconds] if part.timed_on == timed_on else []
    if not missing and not times:
        reason = f"all samples were in {folder} already, made by other code or on another device"
        return Skipped(case=case, environment=environment, status="not timed", reason=reason)
    decode = None if source.decoder is None else decoder_of(source.decoder)()
    images = source.decoder is not None or draws_images(case, source)
    first_s = 0.0
    with ready(case, source) as (drawer, build_s), ExitStack() as settings:
        if missing:
            first_s = drawer.warm_up()
        settings.enter_context(engine.compiled_already(case))
        if monitor:
            monitor.restart()
        for first in missing:
            made = drawer.chain(first)
            times.append(made.seconds)
            if monitor:
                monitor.between_passes()
            if folder is not None:
                part = Part(
                    samples=_to_store(made.samples, decode, images),
                    labels=made.labels,
                    seconds=made.seconds,
                    timed_on=timed_on,
                )
                sample_folder.write(folder, first, part)
        readings = monitor.finish() if monitor and missing else None
    return SamplingRun(
        case=case,
        environment=environment,
        passes=samplers.SAMPLERS[case.sampler].calls(case.steps),
        times_s=tuple(times),
        build_s=build_s,
        compile_s=first_s if case.is_compiled and missing else None,
        matmul_tf32=matmul_tf32,
        conv_tf32=conv_tf32,
        telemetry=readings,
    )


@contextmanager
def ready(case: SamplingCase, source: Source) -> Iterator[tuple[Drawer, float]]:
    """Context manager that builds the network under its case's settings: a drawer, and its seconds."""
    begin = time.perf_counter()
    model, task = _load(case, source)
    device.synchronise(case.device)()
    build_s = time.perf_counter() - begin
    with ExitStack() as settings:
        prepared.enter(settings, case, model)
        settings.enter_context(torch.no_grad())
        settings.enter_context(_autocast(case))
        called = torch.compile(model) if case.is_compiled else model
        yield Drawer(case, _laid_out(case, called), task, condition_width(model)), build_s


def _load(case: SamplingCase, source: Source) -> tuple[nn.Module, Task]:
    """The network in float32 and eval mode; random weights leave no layer at zero."""
    task = task_of(case, source)
    weights = None if source.weights is None else Path(source.weights)
    torch.manual_seed(0)
    if source.trained_here and weights is not None:
        model, _ = checkpoint.load_model(weights, source.ema, case.device)
    else:
        model = build(case.model, task, device=case.device, impl=case.impl)
        if weights is not None:
            load_official(model, read_weights(weights))
        else:
            randomise_zeros(model)
    if case.channels_last:
        device.lay_channels_last(model)
    return model.eval(), task


def _laid_out(case: SamplingCase, network: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Give the network x in the same memory format at every step, since another one would recompile."""
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    return lambda x, t, y: network(x.contiguous(memory_format=layout), t, y)


def _autocast(case: SamplingCase) -> AbstractContextManager[object]:
    """Autocast around all chains, so that only the first pass casts parameters; none for fp32 and tf32.

    Autocast caches casts of tensors that require a gradient, also under no_grad, but not under
    inference_mode. A compiled network has the casts in its graph, so every pass makes them.
    """
    dtype = device.DTYPES[case.precision]
    return nullcontext() if dtype == torch.float32 else torch.autocast(case.device, dtype)


def _to_store(samples: Tensor, decode: Decode | None, images: bool) -> NDArray[Any]:
    """Convert samples to the stored type: 8-bit images, or latents in float32."""
    if decode is not None:
        with torch.autocast(samples.device.type, enabled=False):  # autocast is for the network only
            samples = decode(samples)
    values = samples.float().cpu().contiguous().numpy()
    if not images:
        return values
    if values.ndim != 4 or values.shape[1] not in (1, 3):
        raise ValueError(f"images: must be (N, 1 or 3, H, W), got {values.shape}")
    return to_levels(values)
