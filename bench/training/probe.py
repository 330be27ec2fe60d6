"""Trained networks on validation images at chosen levels of noise: what their analyses share."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from bench.cli import options
from bench.datasets.archives import digest
from bench.datasets.datasets import IMAGES, MOST_CLASSES, Dataset, load
from bench.jobs.worker import memory_reason
from bench.machine import device, environment
from bench.records.record import ChannelScores, Probe, Run, Size, Skipped, Spectrum
from bench.training import checkpoint, diffusion, flow, objective, rng, validation
from models.contract import build, condition_width
from models.registry import family_of, is_plugin, published_task
from models.task import Task
from models.weights import load_official, read_weights

R = TypeVar("R", Spectrum, ChannelScores)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A trained network and what it is to be shown."""

    run: Run
    probe: Probe
    model: nn.Module  # in eval mode, on its device
    objective: objective.Objective


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Images and the noise that is laid over them, the same for every network and at every level."""

    x0: Tensor  # (N, C, H, W), noise likewise
    y: Tensor
    noise: Tensor


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One call of a network."""

    x: Tensor  # what it was given, (N, C, H, W)
    t: Tensor  # (N,)
    out: Tensor  # (N, C or 2C, H, W)
    noise: Tensor  # what is in x


@dataclass(frozen=True, kw_only=True)
class _Trained:
    """A network before it is known what it will be shown."""

    model: nn.Module
    run: Run
    objective: str
    task: Task
    words: str
    data: str | None  # what it was trained on; None: not known
    data_sha256: str | None


def subjects(args: argparse.Namespace, question: str) -> tuple[list[Subject], Shown, list[str]]:
    """Load every network that the options of `bench.cli.probe_options` name, and what they are all shown.

    Returns:
        The networks; images and noise, on the same device; notes on what a reader should know.

    Raises:
        UsageError: no network, one that does not fit its file or the data, or no data.
    """
    where = args.device or device.default()
    if (reason := device.why_not(where, "fp32")) is not None:
        raise options.UsageError(reason)
    device.set_precision("fp32")
    try:
        found = [_from_checkpoint(path, args, question, where) for path in args.checkpoint or ()]
        name = args.data or _agreed([one.data for one in found if one.data])
        if args.data is None and name not in IMAGES:
            raise ValueError(f"--data: trained on latents called {name}; give their path")
        data = load(name, args.data_dir, max([MOST_CLASSES, *(one.task.num_classes for one in found)]))
        if args.model is not None:
            found.append(_from_weights(args, question, where, data))
        for one in found:
            _check_fit(one, data)
    except ValueError as error:
        raise options.UsageError(str(error)) from error
    notes = [
        f"{one.run.model}, {one.words}: trained on {one.data} (sha256 {one.data_sha256}), shown {data.name} "
        f"(sha256 {data.sha256})"
        for one in found
        if one.data_sha256 not in (None, data.sha256)
    ]
    images = min(args.images, len(data.validation))
    if images < args.images:
        notes.append(f"{data.name} has {images} validation images; all of them are shown")
    x0, y = data.validation_batch(validation.chosen(data, images))
    noise = torch.randn(x0.shape, generator=rng.generator("cpu", "noise of analyses"))
    made = [
        Subject(
            run=one.run,
            probe=Probe(
                trained=one.words,
                objective=one.objective,
                data=data.name,
                data_sha256=data.sha256,
                images=images,
                levels=tuple(dict.fromkeys(args.levels)),
            ),
            model=one.model,
            objective=objective.find(one.objective),
        )
        for one in found
    ]
    return made, Shown(x0=x0.to(where), y=y.to(where), noise=noise.to(where)), notes


def _agreed(names: Sequence[str]) -> str:
    if len(set(names)) > 1:
        raise ValueError(f"--data: the networks were trained on {' and '.join(sorted(set(names)))}; name one")
    return names[0] if names else "digits"


def _from_checkpoint(path: Path, args: argparse.Namespace, question: str, where: str) -> _Trained:
    model, state = checkpoint.load_model(path, args.ema, where)
    trained = state.identity
    weights = "weights as trained" if args.ema is None else f"EMA {checkpoint.decay_name(args.ema)}"
    run = replace(
        trained.run,
        question=question,
        batch=args.batch,
        precision="fp32",
        compile=False,
        channels_last=False,
        checkpointing=False,
        weights=_named(path, model),
        environment=environment.gather(where, trained.run.model),
    )
    return _Trained(
        model=model,
        run=run,
        objective=trained.recipe.objective,
        task=trained.task,
        words=f"step {state.step:,}, seed {trained.seed}, {weights}",
        data=trained.recipe.data,
        data_sha256=trained.recipe.data_sha256,
    )


def _from_weights(args: argparse.Namespace, question: str, where: str, data: Dataset) -> _Trained:
    (name,) = options.model_names([args.model], default=())
    weights = _read_weights(args.weights)
    published = published_task(name)
    channels, height, width = data.shape
    plugin = is_plugin(name)
    task = replace(
        published,
        latent_size=height if height == width else (height, width),
        in_channels=channels,
        num_classes=data.classes if plugin else published.num_classes,
        learn_sigma=args.objective == "iddpm" if plugin else published.learn_sigma,
    )
    model = build(name, task, device=where)
    load_official(model, weights)
    if condition_width(model) is not None:
        raise ValueError(f"--model {name}: takes vectors in the place of labels, which no data here has")
    pixels = 256 // published.height
    run = Run(
        question=question,
        model=name,
        family=family_of(name),
        res=_size(height * pixels, width * pixels),
        latent_size=_size(height, width),
        batch=args.batch,
        precision="fp32",
        weights=_named(args.weights, model),
        environment=environment.gather(where, name),
    )
    return _Trained(
        model=model.eval(),
        run=run,
        objective=args.objective,
        task=task,
        words=args.weights.name,
        data=None,
        data_sha256=None,
    )


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of an authors' checkpoint; what belongs to --checkpoint is told so."""
    try:
        return read_weights(path)
    except ValueError:
        if checkpoint.is_one(path):
            raise ValueError(
                f"--weights {path}: a checkpoint of bench.convergence; give it to --checkpoint"
            ) from None
        raise


def _size(height: int, width: int) -> Size:
    return height if height == width else (height, width)


def _named(path: Path, model: nn.Module) -> str:
    """The file's name with the head of the SHA-256 of the weights that were taken out of it."""
    return f"{path.name} sha256:{digest(t.detach().cpu().numpy() for t in model.state_dict().values())[:12]}"


def _check_fit(one: _Trained, data: Dataset) -> None:
    wanted = (one.task.in_channels, one.task.height, one.task.width)
    if data.shape != wanted or data.classes > one.task.num_classes:
        raise ValueError(
            f"--data {data.name}: {data.classes} classes of {data.shape}; {one.run.model} is built for "
            f"{one.task.num_classes} of {wanted}"
        )


def guarded(subject: Subject, look: Callable[[], R | Skipped]) -> R | Skipped:
    """What looking into a network gives; running out of memory is a result."""
    try:
        return look()
    except (RuntimeError, MemoryError) as error:
        told = f"at batch {subject.run.batch}: {memory_reason(error)}"
        return Skipped(run=subject.run, status="out of memory", reason=told)


@torch.inference_mode()
def passes(subject: Subject, shown: Shown, level: int) -> Iterator[Pass]:
    """Show a network all images at one level of noise, in batches of its run.

    Args:
        subject: the network.
        shown: images and noise on its device.
        level: in thousandths, as in Probe.levels.
    """
    for start in range(0, len(shown.y), subject.run.batch):
        x0, y, noise = (of[start : start + subject.run.batch] for of in (shown.x0, shown.y, shown.noise))
        if subject.probe.objective == "iddpm":
            t = torch.full(y.shape, level, device=y.device)
        else:
            t = torch.full(y.shape, 1 - level / diffusion.STEPS, device=y.device)
        x = subject.objective.q_sample(x0, t, noise)
        yield Pass(x=x, t=t, out=subject.model(x, t, y), noise=noise)


def predicted_noise(subject: Subject, one: Pass) -> Tensor:
    """The noise (N, C, H, W) that a network's output says is in x; of a velocity, x - t v."""
    if subject.probe.objective == "iddpm":
        return diffusion.split(one.out, one.x)[0]
    return one.x - one.t[:, None, None, None] * flow.velocity(one.out, one.x)
