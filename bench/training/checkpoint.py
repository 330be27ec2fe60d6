"""Checkpoints of a training run: complete or absent on disk, and never used for another run.

A run folder contains the newest two, `step-00000500.<head of its SHA-256>.pt`. Each is written under a
temporary name, synced to disk and renamed, so that a kill at any moment leaves the earlier ones intact. A
file whose content does not match the hash in its name is damaged; the previous checkpoint is used.
Files are written by torch.save from names, numbers, text and tensors, and read by torch.load with
weights_only=True:

    format          FORMAT
    identity        JSON: the case and the environment (Identity)
    step            optimizer steps done; with the seed it determines the position in the data
    model           name -> tensor, the network's state_dict
    ema             "0.9999" -> name -> tensor, the averaged parameters for every decay of the recipe
    optimizer       state_dict of AdamW
    rng             states of the generators of torch, CUDA, Python and NumPy, for each process
    evaluations     JSON: a list of Evaluation
    losses          (k,) float32, training losses of the steps since the last evaluation
    seconds, joules of training so far

Format 1 stored the identity under the key `about`; formats 1 and 2 have the cases of such records.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.records.training import Evaluation
from bench.store.codec import decode
from bench.store.files import why_not_regular
from bench.store.locks import lock
from bench.store.migrate import case_from_2, migrate
from bench.training.identity import Identity, differences
from bench.training.objectives import task_of
from models.contract import build
from models.guard import reading

FORMAT = 3
KEPT = 2
HEAD = 16  # hex digits of the SHA-256 in a file name
NAME = re.compile(rf"step-(\d{{8,}})\.([0-9a-f]{{{HEAD}}})\.pt")


class CheckpointError(ValueError):
    """Training cannot resume from a run folder or a file in it. Nothing is overwritten."""


@dataclass(frozen=True, kw_only=True)
class State:
    """A training run between two steps."""

    identity: Identity
    step: int
    model: dict[str, Tensor]
    ema: dict[str, dict[str, Tensor]]  # by `decay_name`, then by parameter
    optimizer: dict[str, Any]
    rng: list[dict[str, Any]]  # one for each process, from `bench.training.rng.state`
    evaluations: tuple[Evaluation, ...]
    losses: Tensor  # (k,) float32, of the steps since the last evaluation
    seconds: float
    joules: float | None


def decay_name(decay: float) -> str:
    """The name of an average in a checkpoint: its decay with all digits."""
    return repr(decay)


def _averages(stored: dict[str, dict[str, Tensor]], decays: Sequence[float]) -> dict[str, dict[str, Tensor]]:
    """The averages by `decay_name`; an early name, of six digits, that fits two decays is left out."""
    if all(decay_name(decay) in stored for decay in decays):
        return stored
    rounded = [f"{decay:g}" for decay in decays]
    return {
        decay_name(decay): stored[name]
        for decay, name in zip(decays, rounded, strict=True)
        if name in stored and rounded.count(name) == 1
    }


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Context manager that makes and locks a run folder. CheckpointError: it is locked, or not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written: {error.strerror}") from error
    try:
        lock(descriptor)
    except BlockingIOError as error:
        os.close(descriptor)
        raise CheckpointError(f"{folder}: another process is training in it") from error
    try:
        yield
    finally:
        os.close(descriptor)


def save(folder: Path, state: State, keep: int = KEPT) -> Path:
    """Write a checkpoint to a locked folder, return once it is on disk; the `keep` newest files remain."""
    content = {
        "format": FORMAT,
        "identity": json.dumps(asdict(state.identity)),
        "step": state.step,
        "model": state.model,
        "ema": state.ema,
        "optimizer": state.optimizer,
        "rng": state.rng,
        "evaluations": json.dumps([asdict(evaluation) for evaluation in state.evaluations]),
        "losses": state.losses,
        "seconds": state.seconds,
        "joules": state.joules,
    }
    unfinished = folder / "unfinished"
    try:
        with unfinished.open("w+b") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            head = hashlib.file_digest(file, "sha256").hexdigest()[:HEAD]
    except BaseException as error:  # a full disk, or a signal
        unfinished.unlink(missing_ok=True)
        written: BaseException | None = error
        while written is not None and not isinstance(written, OSError):
            written = written.__context__  # torch.save ends with an error of its own after that of a write
        if written is not None and written.filename is None:
            raise OSError(written.errno, written.strerror, str(folder)) from error
        raise
    path = folder / f"step-{state.step:08d}.{head}.pt"
    unfinished.rename(path)
    _sync(folder)
    for old in [other for other in paths(folder) if other != path][keep - 1 :]:
        old.unlink()
    return path


def _sync(folder: Path) -> None:
    """Sync the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def paths(folder: Path) -> list[Path]:
    found = [(int(match[1]), path) for path in folder.glob("*.pt") if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def check(folder: Path, identity: Identity) -> tuple[int, list[str]]:
    """The newest checkpoint's step, 0 without any, and notes on damaged ones; hashes are not verified.

    CheckpointError: the folder has checkpoints of another run, one without an average, or only damaged ones.
    """
    state, notes = _first_readable(folder, whole=False)
    if state is None:
        return 0, notes
    if differing := differences(state.identity, identity):
        raise CheckpointError(
            f"{folder}: has a checkpoint of another run: {'; '.join(differing)}; another folder would work"
        )
    if lost := [decay for decay in identity.case.recipe.ema_decays if decay_name(decay) not in state.ema]:
        raise CheckpointError(
            f"{folder}: has no average of decay {', '.join(map(decay_name, lost))}: an older version did not "
            "distinguish decays that differ in the seventh digit; another folder would work"
        )
    return state.step, notes


def latest(folder: Path, identity: Identity) -> tuple[State | None, list[str]]:
    """The newest undamaged checkpoint or None, and notes on damaged ones. CheckpointError: as `check`."""
    check(folder, identity)
    return _first_readable(folder, whole=True)


def _first_readable(folder: Path, whole: bool) -> tuple[State | None, list[str]]:
    damaged: list[str] = []
    for path in paths(folder):
        try:
            return read(path, whole=whole), damaged
        except CheckpointError as error:
            damaged.append(str(error))
    if damaged:
        raise CheckpointError(
            f"{'; '.join(damaged)}; move it away to train from the start, or name another folder"
        )
    return None, []


def read(path: Path, *, whole: bool = True) -> State:
    """Read a checkpoint to the CPU, verified by its SHA-256 if `whole`, else with lazily read tensors.

    CheckpointError: the file is missing, truncated, changed, or no checkpoint of this suite.
    """
    with reading(path, "a checkpoint", CheckpointError):
        if reason := why_not_regular(path):
            raise CheckpointError(f"{path}: {reason}")
        if whole and (match := NAME.fullmatch(path.name)):
            with path.open("rb") as file:
                head = hashlib.file_digest(file, "sha256").hexdigest()[:HEAD]
            if head != match[2]:
                raise CheckpointError(f"{path}: damaged: its SHA-256 begins with {head}, not with {match[2]}")
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=not whole)
    form = stored.get("format") if isinstance(stored, dict) else None
    if not isinstance(form, int) or form not in (1, 2, FORMAT):
        raise CheckpointError(f"{path}: not a checkpoint of bench.convergence: format {form}, not {FORMAT}")
    with reading(path, "a checkpoint of bench.convergence", CheckpointError):
        identity = _identity_from_1(stored["about"]) if form == 1 else _identity(stored["identity"], form)
        return State(
            identity=identity,
            ema=_averages(stored["ema"], identity.case.recipe.ema_decays),
            evaluations=decode(tuple[Evaluation, ...], json.loads(stored["evaluations"])),
            **{
                name: stored[name]
                for name in ("step", "model", "optimizer", "rng", "losses", "seconds", "joules")
            },
        )


def _identity(text: str, form: int) -> Identity:
    stored = json.loads(text)
    if form == 2:
        stored["case"] = case_from_2(stored["case"])
    return decode(Identity, stored)


def _identity_from_1(about: str) -> Identity:
    """The identity of a checkpoint of format 1."""
    record = {"schema": 1, "kind": "trained", **json.loads(about)}
    migrated = migrate(record)
    return decode(Identity, {"case": migrated["case"], "environment": migrated["environment"]})


def is_checkpoint(path: Path) -> bool:
    """Whether a path is a checkpoint of this suite, or a run folder with checkpoints."""
    if path.is_dir():
        return bool(paths(path))
    try:
        read(path, whole=False)
    except CheckpointError:
        return False
    return True


def load_model(path: Path, decay: float | None = None, device: str = "cpu") -> tuple[nn.Module, State]:
    """The network of a run in eval mode, and the state of the checkpoint.

    Args:
        path: a checkpoint, or a run folder, whose newest undamaged checkpoint is read.
        decay: of the averaged weights, one of Recipe.ema_decays; None: the trained weights.
        device: of the network.

    Raises:
        CheckpointError: there is no checkpoint, or none with this decay.
        ValueError: the backbone cannot be built.
    """
    state: State | None
    if path.is_dir():
        state, _ = _first_readable(path, whole=True)
        if state is None:
            raise CheckpointError(f"{path}: has no checkpoint of bench.convergence")
    else:
        state = read(path)
    weights = dict(state.model)
    if decay is not None:
        name = decay_name(decay)
        if name not in state.ema:
            raise CheckpointError(f"{path}: has no average of decay {name}; it has {', '.join(state.ema)}")
        weights |= state.ema[name]
    case = state.identity.case
    model = build(case.model, task_of(case.recipe, case.latent_size), device=device)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).partition("\n")[2].strip().partition("\n")[0]
        raise CheckpointError(f"{path}: does not fit the present {case.model}: {reason}") from error
    return model.eval(), state


def discard(folder: Path) -> None:
    for path in paths(folder):
        with suppress(FileNotFoundError):
            path.unlink()
