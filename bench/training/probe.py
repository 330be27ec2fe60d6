"""Trained networks on validation images at chosen levels of noise."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.datasets.archives import digest
from bench.datasets.datasets import IMAGES, MAX_CLASSES, Dataset, load
from bench.machine import device
from bench.machine.failures import memory_reason
from bench.records.base import Environment, Record, Size, SizedCase, Skipped
from bench.records.probes import Probe
from bench.training import checkpoint, diffusion, flow, objectives, rng, validation
from bench.training.objective import Objective
from models.contract import build, condition_width
from models.registry import family_of, is_plugin, published_task
from models.task import Task
from models.weights import load_official, read_weights


@dataclass(frozen=True, kw_only=True)
class Request:
    """Which networks to load, and the images and levels of noise to give them."""

    checkpoints: tuple[Path, ...]  # of bench.convergence
    ema: float | None  # decay of the average to take from them; None: the trained weights
    model: str | None  # whose authors' checkpoint `weights` is
    weights: Path | None
    objective: str  # of `weights`
    data: str | None  # None: what the checkpoints were trained on
    data_dir: Path | None
    images: int
    levels: tuple[int, ...]
    batch: int
    device: str | None  # None: the one at hand


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A trained network and how it is probed."""

    fields: dict[str, Any]  # of a ModelCase
    probe: Probe
    model: nn.Module  # in eval mode, on its device
    objective: Objective


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Images and the noise that is added to them, the same for every network and at every level."""

    x0: Tensor  # (N, C, H, W), noise likewise
    y: Tensor
    noise: Tensor


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One call of a network."""

    x: Tensor  # its input, (N, C, H, W)
    t: Tensor  # (N,)
    out: Tensor  # (N, C or 2C, H, W)
    noise: Tensor  # that x contains


@dataclass(frozen=True, kw_only=True)
class _Trained:
    """A network before its inputs are known."""

    model: nn.Module
    fields: dict[str, Any]
    objective: str
    task: Task
    words: str
    data: str | None  # that it was trained on; None: not known
    data_sha256: str | None


def load_subjects(request: Request) -> tuple[list[Subject], Inputs, list[str]]:
    """Load every network of a request, and the inputs of all of them.

    Returns:
        The networks; images and noise, on the same device; notes on what a reader should know.

    Raises:
        ValueError: a network that does not fit its file or the data, or no data; names the option.
    """
    where = request.device or device.default()
    if (reason := device.why_not(where, "fp32")) is not None:
        raise ValueError(reason)
    device.set_precision("fp32")
    found = [_from_checkpoint(path, request, where) for path in request.checkpoints]
    name = request.data or _common_data([one.data for one in found if one.data])
    if request.data is None and name not in IMAGES:
        raise ValueError(f"--data: trained on latents called {name}; give their path")
    data = load(name, request.data_dir, max([MAX_CLASSES, *(one.task.num_classes for one in found)]))
    if request.model is not None:
        found.append(_from_weights(request, where, data))
    for one in found:
        _check_fit(one, data)
    notes = [
        f"{one.fields['model']}, {one.words}: trained on {one.data} (sha256 {one.data_sha256}), probed with "
        f"{data.name} (sha256 {data.sha256})"
        for one in found
        if one.data_sha256 not in (None, data.sha256)
    ]
    images = min(request.images, len(data.validation))
    if images < request.images:
        notes.append(f"{data.name} has {images} validation images; all of them are used")
    x0, y = data.validation_batch(validation.validation_indices(data, images))
    noise = torch.randn(x0.shape, generator=rng.generator("cpu", "noise of analyses"))
    subjects = [
        Subject(
            fields=one.fields,
            probe=Probe(
                trained=one.words,
                objective=one.objective,
                data=data.name,
                data_sha256=data.sha256,
                images=images,
                levels=request.levels,
            ),
            model=one.model,
            objective=objectives.find(one.objective),
        )
        for one in found
    ]
    return subjects, Inputs(x0=x0.to(where), y=y.to(where), noise=noise.to(where)), notes


def _common_data(names: Sequence[str]) -> str:
    if len(set(names)) > 1:
        raise ValueError(f"--data: the networks were trained on {' and '.join(sorted(set(names)))}; name one")
    return names[0] if names else "digits"


def _from_checkpoint(path: Path, request: Request, where: str) -> _Trained:
    model, state = checkpoint.load_model(path, request.ema, where)
    trained = state.identity.case
    average = request.ema
    weights = "weights as trained" if average is None else f"EMA {checkpoint.decay_name(average)}"
    fields = {
        "device": where,
        "model": trained.model,
        "family": trained.family,
        "res": trained.res,
        "latent_size": trained.latent_size,
        "batch": request.batch,
        "precision": "fp32",
        "attention": trained.attention,
        "weights": _weights_name(path, model),
    }
    return _Trained(
        model=model,
        fields=fields,
        objective=trained.recipe.objective,
        task=objectives.task_of(trained.recipe, trained.latent_size),
        words=f"step {state.step:,}, seed {trained.seed}, {weights}",
        data=trained.recipe.data,
        data_sha256=trained.recipe.data_sha256,
    )


def _from_weights(request: Request, where: str, data: Dataset) -> _Trained:
    name, path = request.model, request.weights
    assert name is not None
    assert path is not None
    weights = _read_weights(path)
    published = published_task(name)
    channels, height, width = data.shape
    plugin = is_plugin(name)
    task = replace(
        published,
        latent_size=height if height == width else (height, width),
        in_channels=channels,
        num_classes=data.classes if plugin else published.num_classes,
        learn_sigma=request.objective == "iddpm" if plugin else published.learn_sigma,
    )
    model = build(name, task, device=where)
    load_official(model, weights)
    if condition_width(model) is not None:
        raise ValueError(f"--model {name}: takes vectors in the place of labels, which no data here has")
    pixels = 256 // published.height
    fields = {
        "device": where,
        "model": name,
        "family": family_of(name),
        "res": _size(height * pixels, width * pixels),
        "latent_size": _size(height, width),
        "batch": request.batch,
        "precision": "fp32",
        "weights": _weights_name(path, model),
    }
    return _Trained(
        model=model.eval(),
        fields=fields,
        objective=request.objective,
        task=task,
        words=path.name,
        data=None,
        data_sha256=None,
    )


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of an authors' checkpoint; one of bench.convergence is refused."""
    try:
        return read_weights(path)
    except ValueError:
        if checkpoint.is_checkpoint(path):
            raise ValueError(
                f"--weights {path}: a checkpoint of bench.convergence; give it to --checkpoint"
            ) from None
        raise


def _size(height: int, width: int) -> Size:
    return height if height == width else (height, width)


def _weights_name(path: Path, model: nn.Module) -> str:
    """The file's name with the head of the SHA-256 of the weights that were taken out of it."""
    return f"{path.name} sha256:{digest(t.detach().cpu().numpy() for t in model.state_dict().values())[:12]}"


def _check_fit(one: _Trained, data: Dataset) -> None:
    wanted = (one.task.in_channels, one.task.height, one.task.width)
    if data.shape != wanted or data.classes > one.task.num_classes:
        raise ValueError(
            f"--data {data.name}: {data.classes} classes of {data.shape}; {one.fields['model']} is built for "
            f"{one.task.num_classes} of {wanted}"
        )


def guarded(case: SizedCase, environment: Environment, measure: Callable[[], Record]) -> Record:
    """The record of a measurement; running out of memory is a result."""
    try:
        return measure()
    except (RuntimeError, MemoryError) as error:
        reason = f"at batch {case.batch}: {memory_reason(error)}"
        return Skipped(case=case, environment=environment, status="out of memory", reason=reason)


@torch.inference_mode()
def passes(subject: Subject, inputs: Inputs, level: int) -> Iterator[Pass]:
    """Give a network all images at one level of noise, in batches.

    Args:
        subject: the network.
        inputs: images and noise on its device.
        level: in thousandths, as in Probe.levels.
    """
    for start in range(0, len(inputs.y), subject.fields["batch"]):
        x0, y, noise = (
            of[start : start + subject.fields["batch"]] for of in (inputs.x0, inputs.y, inputs.noise)
        )
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
