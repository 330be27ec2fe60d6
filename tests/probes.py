"""Networks for tests of analyses, their images, and a run folder of a briefly trained network."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench.datasets.datasets import load
from bench.machine import environment
from bench.records.probes import Probe
from bench.records.training import Recipe, TrainingCase
from bench.training import objectives
from bench.training.identity import Identity
from bench.training.loop import train
from bench.training.probes.probe import Images, Subject
from bench.training.processes import Processes

_RANDOM = torch.Generator().manual_seed(0)
IMAGES = Images(
    x0=torch.randn(6, 2, 8, 8, generator=_RANDOM),
    y=torch.arange(6),
    noise=torch.randn(6, 2, 8, 8, generator=_RANDOM),
)


def fields_of(model: str, batch: int) -> dict[str, Any]:
    """The fields of a ModelCase."""
    return {
        "device": "cpu",
        "model": model,
        "family": "tests",
        "res": 64,
        "latent_size": 8,
        "batch": batch,
        "precision": "fp32",
    }


def subject(network: Callable[[], nn.Module], *, objective_name: str = "iddpm") -> Subject:
    """A network that is applied to all of IMAGES at once, at three levels."""
    return Subject(
        fields=fields_of("FCDM-S", batch=6),
        environment=environment.gather("cpu", "FCDM-S"),
        probe=Probe(
            trained="by hand",
            objective=objective_name,
            data="made up",
            data_sha256="0123",
            images=6,
            levels=(0, 500, 999),
        ),
        model=network(),
        objective=objectives.find(objective_name),
    )


def trained_run(parent: Path, model: str, steps: int = 2, called: str = "digits") -> Path:
    """A run folder of bench.convergence: a network trained on the digits under a given name of the data."""
    data = load("digits")
    recipe = Recipe(
        objective="iddpm",
        data=called,
        data_sha256=data.sha256,
        channels=1,
        classes=10,
        train_images=len(data.train),
        validation_images=8,
        validation_draws=1,
        batch=8,
        steps=steps,
        learning_rate=1e-2,
        weight_decay=0.0,
        ema_decays=(0.5,),
        flip=False,
        label_dropout=0.1,
        evaluate_every=steps,
    )
    train(
        Identity(
            case=TrainingCase(**fields_of(model, batch=8), recipe=recipe, seed=0, processes=1),
            environment=environment.gather("cpu", model),
        ),
        data,
        parent / "run",
        processes=Processes("cpu"),
        checkpoint_every=steps,
        train_macs=1,
    )
    return parent / "run"


def command(
    main: Callable[[Sequence[str]], int], argv: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> tuple[list[dict[str, Any]], str]:
    """The rows that a command prints, and its stderr."""
    assert main([*argv, "--format", "json"]) == 0
    shown = capsys.readouterr()
    return json.loads(shown.out), shown.err
