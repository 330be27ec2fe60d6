"""Trained networks applied to noised validation images; shared by the spectrum and channel analyses."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.datasets.archives import digest
from bench.datasets.datasets import MAX_CLASSES, Dataset, load
from bench.datasets.names import IMAGES
from bench.machine import device, environment
from bench.machine.failures import memory_reason
from bench.records.base import Environment, ModelCase, Record, Size, Skipped
from bench.records.probes import Probe
from bench.training import checkpoint, objectives, rng, validation
from bench.training.objectives import Objective
from models.contract import build, condition_width
from models.registry import family_of, is_plugin, printed, published_task
from models.task import Task
from models.weights import load_official, read_weights


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A checkpoint of a backbone's authors."""

    model: str
    file: Path
    objective: str  # of bench.records.training.OBJECTIVES


@dataclass(frozen=True, kw_only=True)
class Request:
    """The networks, images and noise levels of an analysis."""

    device: str
    checkpoints: Sequence[Path] = ()  # files or run folders of bench.convergence
    ema: float | None = None  # decay of the averaged weights of the checkpoints; None: the trained weights
    weights: Weights | None = None
    data: str | None = None  # name or path; None: the checkpoints' training data, else digits
    data_dir: Path | None = None
    images: int
    levels: Sequence[int]  # as in Probe.levels
    batch: int


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A trained network with the fields of its case."""

    fields: Mapping[str, Any]  # keyword arguments of a ModelCase
    environment: Environment
    probe: Probe
    model: nn.Module  # in eval mode, on its device
    objective: Objective

    @property
    def batch(self) -> int:
        return int(self.fields["batch"])


@dataclass(frozen=True, kw_only=True)
class Images:
    """Validation images and noise, equal for every network and level."""

    x0: Tensor  # (N, C, H, W), noise likewise
    y: Tensor
    noise: Tensor


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One call of a network."""

    x: Tensor  # noised images, (N, C, H, W)
    t: Tensor  # (N,)
    out: Tensor  # (N, C or 2C, H, W)
    noise: Tensor  # the noise in x


@dataclass(frozen=True, kw_only=True)
class _Network:
    """A trained network and its origin."""

    model: nn.Module
    fields: Mapping[str, Any]
    objective: str
    task: Task
    trained: str  # the checkpoint or file, in words
    data: str | None  # training data; None: unknown
    data_sha256: str | None


def subjects(request: Request) -> tuple[list[Subject], Images, list[str]]:
    """Load the networks of a request, images and noise on one device, and notes; or ValueError."""
    if (reason := device.why_not(request.device, "fp32")) is not None:
        raise ValueError(reason)
    device.set_precision("fp32")
    networks = [_from_checkpoint(path, request) for path in request.checkpoints]
    data = _data(request, networks)
    if request.weights is not None:
        networks.append(_from_weights(request.weights, request, data))
    for network in networks:
        _check_fit(network, data)
    notes = [
        f"{network.fields['model']}, {network.trained}: trained on {network.data} (sha256 "
        f"{network.data_sha256}), applied to {data.name} (sha256 {data.sha256})"
        for network in networks
        if network.data_sha256 not in (None, data.sha256)
    ]
    images = min(request.images, len(data.validation))
    if images < request.images:
        notes.append(f"{data.name} has {images} validation images; all of them are used")
    x0, y = data.validation_batch(validation.validation_indices(data, images))
    noise = torch.randn(x0.shape, generator=rng.generator("cpu", "noise of analyses"))
    found = [
        Subject(
            fields=network.fields,
            environment=environment.gather(request.device, network.fields["model"]),
            probe=Probe(
                trained=network.trained,
                objective=network.objective,
                data=data.name,
                data_sha256=data.sha256,
                images=images,
                levels=tuple(dict.fromkeys(request.levels)),
            ),
            model=network.model,
            objective=objectives.find(network.objective),
        )
        for network in networks
    ]
    place = request.device
    return found, Images(x0=x0.to(place), y=y.to(place), noise=noise.to(place)), notes


def _data(request: Request, networks: Sequence[_Network]) -> Dataset:
    trained_on = sorted({network.data for network in networks if network.data})
    if request.data is None and len(trained_on) > 1:
        raise ValueError(f"--data: the networks were trained on {' and '.join(trained_on)}; name one")
    name = request.data or (trained_on[0] if trained_on else "digits")
    if request.data is None and name not in IMAGES:
        raise ValueError(f"--data: trained on latents called {name}; give their path")
    return load(name, request.data_dir, max([MAX_CLASSES, *(net.task.num_classes for net in networks)]))


def _from_checkpoint(path: Path, request: Request) -> _Network:
    model, state = checkpoint.load_model(path, request.ema, request.device)
    case = state.identity.case
    weights = "weights as trained" if request.ema is None else f"EMA {checkpoint.decay_name(request.ema)}"
    return _Network(
        model=model,
        fields=_fields(case.model, case.res, case.latent_size, request, path, model),
        objective=case.recipe.objective,
        task=objectives.task_of(case.recipe, case.latent_size),
        trained=f"step {state.step:,}, seed {case.seed}, {weights}",
        data=case.recipe.data,
        data_sha256=case.recipe.data_sha256,
    )


def _from_weights(weights: Weights, request: Request, data: Dataset) -> _Network:
    name = printed(weights.model)
    tensors = _read_weights(weights.file)
    published = published_task(name)
    channels, height, width = data.shape
    plugin = is_plugin(name)
    if published.prediction == "reverse-velocity":
        raise ValueError(f"--model {name}: predicts noise - data, which the analyses do not read")
    objectives.check_noise(name, published, weights.objective)
    prediction = objectives.find(weights.objective).prediction
    learn_sigma = prediction == "epsilon" if plugin else published.learn_sigma
    task = replace(
        published,
        latent_size=_size(height, width),
        in_channels=channels,
        num_classes=data.classes if plugin else published.num_classes,
        learn_sigma=learn_sigma,
    )
    model = build(name, task, device=request.device)
    load_official(model, tensors)
    if condition_width(model) is not None:
        raise ValueError(f"--model {name}: takes vectors instead of labels, which no data set has")
    return _Network(
        model=model.eval(),
        fields=_fields(name, task.res, _size(height, width), request, weights.file, model),
        objective=weights.objective,
        task=task,
        trained=weights.file.name,
        data=None,
        data_sha256=None,
    )


def _fields(
    name: str, res: Size, latent_size: Size, request: Request, path: Path, model: nn.Module
) -> dict[str, Any]:
    """The fields of a ModelCase; file name and a hash of the loaded tensors identify the weights."""
    sha256 = digest(tensor.detach().cpu().numpy() for tensor in model.state_dict().values())
    return {
        "device": request.device,
        "model": name,
        "family": family_of(name),
        "res": res,
        "latent_size": latent_size,
        "batch": request.batch,
        "precision": "fp32",
        "weights": f"{path.name} sha256:{sha256[:12]}",
    }


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of an authors' checkpoint."""
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


def _check_fit(network: _Network, data: Dataset) -> None:
    shape = (network.task.in_channels, network.task.height, network.task.width)
    if data.shape != shape or data.classes > network.task.num_classes:
        raise ValueError(
            f"--data {data.name}: {data.classes} classes of {data.shape}; {network.fields['model']} is built "
            f"for {network.task.num_classes} of {shape}"
        )


def guarded(case: ModelCase, environment: Environment, analyse: Callable[[], Record]) -> Record:
    """Analyse a network; if memory runs out, return a Skipped record."""
    try:
        return analyse()
    except (RuntimeError, MemoryError) as error:
        reason = f"at batch {case.batch}: {memory_reason(error)}"
        return Skipped(case=case, environment=environment, status="out of memory", reason=reason)


@torch.inference_mode()
def passes(subject: Subject, images: Images, level: int) -> Iterator[Pass]:
    """Apply a network to all images at one level of noise, in thousandths, in batches."""
    for start in range(0, len(images.y), subject.batch):
        x0, y, noise = (of[start : start + subject.batch] for of in (images.x0, images.y, images.noise))
        t = torch.full(y.shape, subject.objective.at_level(level), device=y.device)
        x = subject.objective.q_sample(x0, t, noise)
        yield Pass(x=x, t=t, out=subject.model(x, t, y), noise=noise)
