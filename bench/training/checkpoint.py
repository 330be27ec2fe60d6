"""Checkpoints of a training run: whole on disk or not there at all, and never taken for another run's.

A run folder holds the newest two, `step-00000500.<head of its SHA-256>.pt`. Each is written under another
name, brought to the disk and then renamed, so that a kill at any moment leaves the ones before. A file whose
content is not that of its name is damaged, and the one before it is taken. Such a file is what torch.save
wrote of names, numbers, text and tensors; torch.load reads it with weights_only=True:

    format          FORMAT
    about           JSON: the run, the recipe, the seed and the processes (Identity)
    step            optimizer steps done; the data's position follows from it and the seed
    model           name -> tensor, the network's state_dict
    ema             "0.9999" -> name -> tensor, the averaged parameters for each of the recipe's decays
    optimizer       state_dict of AdamW
    rng             what torch, CUDA, Python and NumPy draw next, of every process
    evaluations     JSON: a list of Evaluation
    losses          (k,) float32, of the steps since the last evaluation
    seconds, joules of training so far
"""

import fcntl
import hashlib
import io
import json
import os
import pickle
import re
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.records.record import Evaluation, StoreError, decode
from bench.training.identity import Identity, differences
from models.contract import build

FORMAT = 1
KEPT = 2
HEAD = 16  # hex digits of the SHA-256 in a name
NAME = re.compile(rf"step-(\d{{8,}})\.([0-9a-f]{{{HEAD}}})\.pt")


class CheckpointError(ValueError):
    """A run folder or a file in it that training cannot go on from: told in one line, nothing overwritten."""


@dataclass(frozen=True, kw_only=True)
class State:
    """A training run between two steps."""

    identity: Identity
    step: int
    model: dict[str, Tensor]
    ema: dict[str, dict[str, Tensor]]  # by `decay_name`, then by parameter
    optimizer: dict[str, Any]
    rng: list[dict[str, Any]]  # of every process, as `bench.training.rng.state` gives it
    evaluations: tuple[Evaluation, ...]
    losses: Tensor  # (k,) float32, of the steps since the last evaluation
    seconds: float
    joules: float | None


def decay_name(decay: float) -> str:
    """What a checkpoint calls the average with this decay: 0.9999, with all of its digits."""
    return repr(decay)


def _averages(held: dict[str, dict[str, Tensor]], decays: Sequence[float]) -> dict[str, dict[str, Tensor]]:
    """The averages that a checkpoint holds, by `decay_name`.

    Names had six digits once: what two decays of one such name share is not known to be of either, and left
    out.
    """
    if all(decay_name(decay) in held for decay in decays):
        return held
    cut = [f"{decay:g}" for decay in decays]
    return {
        decay_name(decay): held[name]
        for decay, name in zip(decays, cut, strict=True)
        if name in held and cut.count(name) == 1
    }


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a run folder if need be, and hold it for this process alone.

    Raises:
        CheckpointError: another process trains in it, or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written to: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise CheckpointError(f"{folder}: another process is training in it") from error
    try:
        yield
    finally:
        os.close(descriptor)


class _Hashed(io.RawIOBase):
    """Passes on what is written to a file, and hashes it on the way."""

    def __init__(self, file: typing.BinaryIO) -> None:
        super().__init__()
        self.file = file
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - any buffer, as for any file
        self.digest.update(data)
        return self.file.write(data)


def save(folder: Path, state: State, keep: int = KEPT) -> Path:
    """Write a checkpoint, return when it is on disk, and let go of all but the newest.

    Args:
        folder: of the run, held by `locked`.
        state: of the run.
        keep: how many stay, this one among them.
    """
    content = {
        "format": FORMAT,
        "about": json.dumps(asdict(state.identity)),
        "step": state.step,
        "model": state.model,
        "ema": state.ema,
        "optimizer": state.optimizer,
        "rng": state.rng,
        "evaluations": json.dumps([asdict(one) for one in state.evaluations]),
        "losses": state.losses,
        "seconds": state.seconds,
        "joules": state.joules,
    }
    unfinished = folder / "unfinished"
    with unfinished.open("wb") as file:
        hashed = _Hashed(file)
        torch.save(content, typing.cast(typing.BinaryIO, hashed))
        file.flush()
        os.fsync(file.fileno())
    path = folder / f"step-{state.step:08d}.{hashed.digest.hexdigest()[:HEAD]}.pt"
    unfinished.rename(path)
    _sync(folder)
    for old in [other for other in paths(folder) if other != path][keep - 1 :]:
        old.unlink()
    return path


def _sync(folder: Path) -> None:
    """Bring a folder's names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def paths(folder: Path) -> list[Path]:
    """The checkpoints in a run folder, the newest first."""
    found = [(int(match[1]), path) for path in folder.glob("*.pt") if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def check(folder: Path, asked: Identity) -> tuple[int, list[str]]:
    """Whether a run may begin, or go on, in a folder; the content of its files is not verified yet.

    Returns:
        The step of the newest checkpoint, 0 without any, and notes on damaged ones.

    Raises:
        CheckpointError: it holds those of another run, one without an average, or damaged ones only.
    """
    state, notes = _first_readable(folder, whole=False)
    if state is None:
        return 0, notes
    if apart := differences(state.identity, asked):
        raise CheckpointError(
            f"{folder}: holds a checkpoint of another run: {'; '.join(apart)}; another --dir would work"
        )
    if lost := [decay for decay in asked.recipe.ema_decays if decay_name(decay) not in state.ema]:
        raise CheckpointError(
            f"{folder}: holds no average of decay {', '.join(map(decay_name, lost))}: an older version took "
            "decays for one that differ in their seventh digit; another --dir would work"
        )
    return state.step, notes


def latest(folder: Path, asked: Identity) -> tuple[State | None, list[str]]:
    """The newest checkpoint that is whole, None where there is no file of any, and notes on damaged ones.

    Raises:
        CheckpointError: as for `check`.
    """
    check(folder, asked)
    return _first_readable(folder, whole=True)


def _first_readable(folder: Path, whole: bool) -> tuple[State | None, list[str]]:
    damaged: list[str] = []
    for path in paths(folder):
        try:
            return read(path, whole=whole), damaged
        except CheckpointError as error:
            damaged.append(str(error))
    if damaged:
        raise CheckpointError(f"{'; '.join(damaged)}; move it away to begin anew, or name another folder")
    return None, []


def read(path: Path, *, whole: bool = True) -> State:
    """Read a checkpoint, its tensors on the CPU.

    Args:
        path: of the file.
        whole: compare its content with the SHA-256 in its name; else tensors are read when they are used.

    Raises:
        CheckpointError: no such file, cut off, changed, or not a checkpoint of this suite.
    """
    try:
        if whole and (match := NAME.fullmatch(path.name)):
            with path.open("rb") as file:
                head = hashlib.file_digest(file, "sha256").hexdigest()[:HEAD]
            if head != match[2]:
                raise CheckpointError(
                    f"{path}: damaged: its SHA-256 begins with {head}, not as its name says"
                )
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=not whole)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file or folder") from error
    except (pickle.UnpicklingError, EOFError, RuntimeError, OSError, LookupError) as error:
        raise CheckpointError(f"{path}: not a checkpoint: {type(error).__name__}") from error
    if not isinstance(held, dict) or held.get("format") != FORMAT:
        form = held.get("format") if isinstance(held, dict) else None
        raise CheckpointError(f"{path}: not a checkpoint of bench.convergence: format {form}, not {FORMAT}")
    try:
        identity = decode(Identity, json.loads(held["about"]))
        return State(
            identity=identity,
            ema=_averages(held["ema"], identity.recipe.ema_decays),
            evaluations=decode(tuple[Evaluation, ...], json.loads(held["evaluations"])),
            **{
                name: held[name]
                for name in ("step", "model", "optimizer", "rng", "losses", "seconds", "joules")
            },
        )
    except (KeyError, json.JSONDecodeError, StoreError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of bench.convergence: {error}") from error


def is_one(path: Path) -> bool:
    """Whether this is a checkpoint of ours, or a run folder with some."""
    if path.is_dir():
        return bool(paths(path))
    try:
        read(path, whole=False)
    except CheckpointError:
        return False
    return True


def load_model(where: Path, decay: float | None = None, device: str = "cpu") -> tuple[nn.Module, State]:
    """The network of a run, in eval mode, and all else that the checkpoint says.

    Args:
        where: a checkpoint, or a run folder, of which the newest whole one is taken.
        decay: of the averaged weights to take, one of Recipe.ema_decays; None: the trained ones.
        device: to build it on.

    Raises:
        CheckpointError: no checkpoint there, or none with this decay.
        ValueError: the backbone cannot be built.
    """
    state: State | None
    if where.is_dir():
        state, _ = _first_readable(where, whole=True)
        if state is None:
            raise CheckpointError(f"{where}: holds no checkpoint of bench.convergence")
    else:
        state = read(where)
    weights = dict(state.model)
    if decay is not None:
        name = decay_name(decay)
        if name not in state.ema:
            raise CheckpointError(f"{where}: holds no average of decay {name}; it has {', '.join(state.ema)}")
        weights |= state.ema[name]
    model = build(state.identity.run.model, state.identity.task, device=device)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        told = str(error).partition("\n")[2].strip().partition("\n")[0]
        raise CheckpointError(
            f"{where}: does not fit {state.identity.run.model} as it is now: {told}"
        ) from error
    return model.eval(), state


def forget(folder: Path) -> None:
    """Remove the checkpoints of a run."""
    for path in paths(folder):
        with suppress(FileNotFoundError):
            path.unlink()
