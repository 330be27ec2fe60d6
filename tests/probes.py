"""Networks to test analyses on: what they are shown, and a run folder of one that was trained a little."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench.datasets.datasets import load
from bench.machine import environment
from bench.records.record import Probe, Recipe, Run
from bench.training import objective
from bench.training.identity import Identity
from bench.training.probe import Shown, Subject
from bench.training.processes import Alone
from bench.training.trainer import train

_RANDOM = torch.Generator().manual_seed(0)
SHOWN = Shown(
    x0=torch.randn(6, 2, 8, 8, generator=_RANDOM),
    y=torch.arange(6),
    noise=torch.randn(6, 2, 8, 8, generator=_RANDOM),
)


def run_of(question: str, model: str, batch: int) -> Run:
    return Run(
        question=question,
        model=model,
        family="tests",
        res=64,
        latent_size=8,
        batch=batch,
        precision="fp32",
        environment=environment.gather("cpu", model),
    )


def subject(network: Callable[[], nn.Module], *, objective_name: str = "iddpm") -> Subject:
    """A network that is shown all of SHOWN at once, at three levels."""
    return Subject(
        run=run_of("analysis", "FCDM-S", batch=6),
        probe=Probe(
            trained="by hand",
            objective=objective_name,
            data="made up",
            data_sha256="0123",
            images=6,
            levels=(0, 500, 999),
        ),
        model=network(),
        objective=objective.find(objective_name),
    )


def trained_run(parent: Path, model: str, steps: int = 2, called: str = "digits") -> Path:
    """A run folder of bench.convergence: a network trained on the digits, whatever they are called."""
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
        Identity(run=run_of("convergence", model, batch=8), recipe=recipe, seed=0, processes=1),
        data,
        parent / "run",
        processes=Alone("cpu"),
        checkpoint_every=steps,
        train_macs=1,
    )
    return parent / "run"


def command(
    main: Callable[[Sequence[str]], int], argv: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> tuple[list[dict[str, Any]], str]:
    """The rows that a command prints, and its notes."""
    assert main([*argv, "--format", "json"]) == 0
    shown = capsys.readouterr()
    return json.loads(shown.out), shown.err
