"""Draws samples from one backbone, batch by batch, and times every chain: the engine under bench.sample."""

import importlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.datasets import datasets
from bench.datasets.images import to_levels
from bench.machine import device, telemetry
from bench.measure import passes, prepared
from bench.records.record import Run, Sampled, Skipped, height_width
from bench.sampling import sample_folder, samplers
from bench.sampling.sample_folder import Part
from bench.training import checkpoint
from models.contract import build, condition_width
from models.registry import published_task, task_at
from models.task import Task
from models.weights import load_official, randomise_zeros, read_weights

WARM_UP = 3  # passes of the network before the first chain

Decode = Callable[[Tensor], Tensor]  # latents (N, C, H, W) -> images (N, 1 or 3, H', W') in [-1, 1]


@dataclass(frozen=True, kw_only=True)
class Chain:
    """What is drawn, from what and how."""

    run: Run
    objective: str
    sampler: str
    steps: int
    guidance: float
    guided_channels: int
    images: int
    seed: int
    classes: tuple[int, ...]  # of the images in turn; empty: all there are
    weights: str | None  # the path of a checkpoint
    trained_here: bool  # by bench.convergence: the checkpoint then says what the network is built for
    ema: float | None  # decay of the average to take from it; None: the trained weights
    decoder: str | None  # "my_pkg.my_mod:factory"
    folder: str | None  # that samples are written to; None: they are only timed


def task_of(run: Run, weights: Path | None, trained_here: bool) -> Task:
    """What the network is built for."""
    if trained_here:
        assert weights is not None
        return checkpoint.read(weights, whole=False).identity.task
    return task_at(run.model, *height_width(run.res))


def are_images(run: Run, weights: Path | None, trained_here: bool) -> bool:
    """Whether what comes out are images, not latents."""
    if trained_here:
        assert weights is not None
        return checkpoint.read(weights, whole=False).identity.recipe.data in datasets.IMAGES
    return published_task(run.model).height == 256  # of images of 256 pixels


def decoder(name: str) -> Callable[[], Decode]:
    """The factory of a decoder, "my_pkg.my_mod:factory".

    Raises:
        ValueError: a module that cannot be imported, or no callable of that name in it.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(f"{name}: must be my_pkg.my_mod:factory")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError, SyntaxError) as error:
        raise ValueError(f"{name}: cannot import {module_name!r}: {error}") from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise ValueError(f"{name}: {module_name} has no callable {attribute!r}")
    made: Callable[[], Decode] = factory
    return made


@dataclass(frozen=True, kw_only=True)
class Made:
    """What one chain gave."""

    samples: Tensor  # (N, C, H, W) float32
    labels: NDArray[np.int64]  # (N,); zeros for a network that takes vectors
    seconds: float


class Drawer:
    """A backbone with a sampler: draws the batch that begins with an image, always a full one."""

    def __init__(self, case: Chain, network: Callable[..., Tensor], task: Task, width: int | None) -> None:
        self._case = case
        self._network = network
        self._task = task
        self._width = width  # of the vectors that it takes in the place of labels
        self._where = case.run.environment.device_type

    def begin(self, first: int) -> tuple[samplers.ImageNoise, Tensor, NDArray[np.int64]]:
        """The noise, the condition and the labels of a batch."""
        case, task = self._case, self._task
        numbers = range(first, first + case.run.batch)
        noise = samplers.ImageNoise(
            case.seed, numbers, (task.in_channels, task.height, task.width), self._where
        )
        if self._width is not None:
            # by a seed that no one gives: the vectors must not be the noise once more
            vectors = samplers.ImageNoise(-1 - case.seed, numbers, (1, 1, self._width), self._where).draw()
            return noise, vectors[:, 0, 0], np.zeros(len(numbers), dtype=np.int64)
        classes = case.classes or range(task.num_classes)
        labels = np.array([classes[number % len(classes)] for number in numbers], dtype=np.int64)
        return noise, torch.from_numpy(labels).to(self._where), labels

    def predict(self, y: Tensor) -> samplers.Predict:
        null = self._task.num_classes if self._width is None else 0
        case = self._case
        return samplers.guided(
            self._network, y, scale=case.guidance, null=null, channels=case.guided_channels
        )

    def warm_up(self) -> float:
        """Call the network as a chain does; the seconds of the first call, which may compile it."""
        noise, y, _ = self.begin(0)
        predict, x = self.predict(y), noise.draw()
        t = torch.full((len(x),), 0.5 if self._case.objective == "flow" else 500, device=self._where)
        synchronise = device.synchronise(self._where)
        begin = time.perf_counter()
        predict(x, t)
        synchronise()
        first = time.perf_counter() - begin
        for _ in range(WARM_UP - 1):
            predict(x, t)
        synchronise()
        return first

    def chain(self, first: int) -> Made:
        """Draw one batch, timed from before its noise to after the device has finished.

        Raises:
            NotFiniteError: a sample holds inf or NaN.
        """
        synchronise = device.synchronise(self._where)
        synchronise()
        begin = time.perf_counter()
        noise, y, labels = self.begin(first)
        sampler = samplers.SAMPLERS[self._case.sampler]
        samples = sampler.draw(self.predict(y), noise.draw(), noise, self._case.steps)
        synchronise()
        seconds = time.perf_counter() - begin
        if not bool(torch.isfinite(samples).all()):
            case = self._case
            raise prepared.NotFiniteError(
                f"samples from image {first} on in {case.run.precision} hold inf or NaN "
                f"after {case.steps} steps"
            )
        return Made(samples=samples, labels=labels, seconds=seconds)


def measure(case: Chain) -> Sampled | Skipped:
    """Draw every batch that is not in the folder yet, and time it.

    Returns:
        The times of all chains for these images by this code on this device, those that the folder held
        among them. Skipped where samples were not finite, torch recompiled, memory ran out or a kernel is
        missing.
    """
    try:
        return _drawn(case)
    except (RuntimeError, ArithmeticError, MemoryError) as error:
        row = passes.skipped(case.run, error)
        if row is None:
            raise
        return row


def _drawn(case: Chain) -> Sampled | Skipped:
    run = case.run
    folder = None if case.folder is None else Path(case.folder)
    monitor = telemetry.monitor(run.environment.device_type)
    if monitor:
        monitor.measure_idle()
    matmul_tf32, conv_tf32 = device.set_precision(run.precision)
    times: list[float] = []
    timed_on = f"{run.environment.device}, {run.environment.code}"
    todo = list(range(0, case.images, run.batch))
    if folder is not None:
        todo = sample_folder.missing(folder, case.images, run.batch)
        for first in sorted(held for held in sample_folder.held(folder) if held < case.images):
            part = sample_folder.read(folder, first)
            times += [part.seconds] if part.timed_on == timed_on else []
    if not todo and not times:
        reason = f"all samples were in {folder} already, made by other code or on another device"
        return Skipped(run=run, status="not timed", reason=reason)
    begin = time.perf_counter()
    model, task = _built(case)
    device.synchronise(run.environment.device_type)()
    build_s = time.perf_counter() - begin
    decode = None if case.decoder is None else decoder(case.decoder)()
    images = case.decoder is not None or are_images(run, _path(case), case.trained_here)
    first_s = 0.0
    with ExitStack() as settings:
        prepared.enter(settings, run, model)
        settings.enter_context(torch.no_grad())
        settings.enter_context(_autocast(run))
        called = torch.compile(model) if run.compile else model
        drawer = Drawer(case, _laid_out(run, called), task, condition_width(model))
        if todo:
            first_s = drawer.warm_up()
        settings.enter_context(prepared.compiled_already(run))
        if monitor:
            monitor.restart()
        for first in todo:
            made = drawer.chain(first)
            times.append(made.seconds)
            if monitor:
                monitor.between_passes()
            if folder is not None:
                part = Part(
                    samples=_kept(made.samples, decode, images),
                    labels=made.labels,
                    seconds=made.seconds,
                    timed_on=timed_on,
                )
                sample_folder.write(folder, first, part)
        seen = monitor.finish() if monitor and todo else None
    return Sampled(
        run=run,
        objective=case.objective,
        sampler=case.sampler,
        steps=case.steps,
        passes=case.steps * samplers.SAMPLERS[case.sampler].passes,
        guidance=case.guidance,
        guided_channels=case.guided_channels,
        images=case.images,
        seed=case.seed,
        times_s=tuple(times),
        build_s=build_s,
        compile_s=first_s if run.compile and todo else None,
        matmul_tf32=matmul_tf32,
        conv_tf32=conv_tf32,
        telemetry=seen,
    )


def _path(case: Chain) -> Path | None:
    return None if case.weights is None else Path(case.weights)


def _built(case: Chain) -> tuple[nn.Module, Task]:
    """The network with its weights in float32, in eval mode; random ones without layers left at zero."""
    run, weights = case.run, _path(case)
    where = run.environment.device_type
    task = task_of(run, weights, case.trained_here)
    torch.manual_seed(0)
    if case.trained_here:
        assert weights is not None
        model, _ = checkpoint.load_model(weights, case.ema, where)
    else:
        model = build(run.model, task, device=where)
        if weights is not None:
            load_official(model, read_weights(weights))
        else:
            randomise_zeros(model)
    if run.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in its stub
    return model.eval(), task


def _laid_out(run: Run, network: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A network that gets x in the same layout at every step: another would be compiled anew."""
    layout = torch.channels_last if run.channels_last else torch.contiguous_format
    return lambda x, t, y: network(x.contiguous(memory_format=layout), t, y)


def _autocast(run: Run) -> AbstractContextManager[object]:
    """Around all chains, so that parameters are cast in the first pass alone; fp32 and its kin have none.

    autocast keeps its copies of what requires a gradient, under no_grad too; under inference_mode it keeps
    none. What is compiled has the casts in its graph: there every pass makes them.
    """
    dtype = device.DTYPES[run.precision]
    return nullcontext() if dtype == torch.float32 else torch.autocast(run.environment.device_type, dtype)


def _kept(samples: Tensor, decode: Decode | None, images: bool) -> NDArray[Any]:
    """What is written of samples: 8-bit images, or latents as they are."""
    if decode is not None:
        with torch.autocast(samples.device.type, enabled=False):  # that is the network's
            samples = decode(samples)
    values = samples.float().cpu().contiguous().numpy()
    if not images:
        return values
    if values.ndim != 4 or values.shape[1] not in (1, 3):
        raise ValueError(f"images: must be (N, 1 or 3, H, W), got {values.shape}")
    return to_levels(values)
