"""Weights of --weights: where they are, and the model and objective that they were trained for."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cli import models, options
from bench.records.training import TrainingCase


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights that --weights names."""

    path: Path | None
    trained: TrainingCase | None  # by bench.convergence; None: released checkpoint, or random weights


def read(args: argparse.Namespace) -> Weights:
    from bench.training import checkpoint

    path: Path | None = args.weights
    state = None
    if path is not None and path.is_dir():
        found = checkpoint.paths(path)
        if not found:
            raise options.UsageError(f"--weights {path}: holds no checkpoint of bench.convergence")
        path = found[0]
    if path is not None and path.is_file() and path.suffix != ".safetensors":
        try:
            state = checkpoint.read(path)
        except checkpoint.CheckpointError as error:
            if checkpoint.NAME.fullmatch(path.name):
                raise options.UsageError(f"--weights {error}") from error
            state = None  # not of bench.convergence: `check_models` validates it as a released checkpoint
    if state is None and args.ema is not None:
        raise options.UsageError(
            f"--ema {args.ema}: belongs to --weights of a checkpoint of bench.convergence"
        )
    if state is not None and args.ema is not None and checkpoint.decay_name(args.ema) not in state.ema:
        raise options.UsageError(f"--ema {args.ema}: {path} has {', '.join(state.ema) or 'none'}")
    return Weights(path=path, trained=None if state is None else state.identity.case)


def names(args: argparse.Namespace, weights: Weights, default: Sequence[str]) -> list[str]:
    if weights.trained is None:
        return models.model_names(args.model, default)
    name = weights.trained.model
    for other in models.model_names(args.model, (name,)):
        if other != name:
            raise options.UsageError(f"--model {other}: {args.weights} holds {name}")
    return [name]


def objective(args: argparse.Namespace, weights: Weights, name: str) -> str:
    """The requested objective, that of the checkpoint, or that of the model's own prediction."""
    from bench.training import objectives
    from models.registry import published_task

    requested: str | None = args.objective
    if weights.trained is None:
        task = published_task(name)
        objective = requested or objectives.of_task(task)
        with options.usage_errors(f"--objective {objective}: "):
            objectives.check_noise(name, task, objective)
        return objective
    trained = weights.trained.recipe.objective
    if requested not in (None, trained):
        raise options.UsageError(f"--objective {requested}: {args.weights} was trained under {trained}")
    return trained


def check_guidance(args: argparse.Namespace, weights: Weights) -> None:
    """Refuse guidance by an untrained null class: its embedding still has its random initial values."""
    if weights.trained is not None and args.guidance != 1 and not weights.trained.recipe.label_dropout:
        raise options.UsageError(
            f"--guidance {args.guidance:g}: {args.weights} was trained with --label-dropout 0 and "
            "does not know the null class; --guidance 1 would work"
        )
