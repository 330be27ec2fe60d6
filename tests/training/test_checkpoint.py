"""Checkpoints: complete or absent, refused by other runs, and loaded as networks."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.records.training import Evaluation, TrainingCase
from bench.training import checkpoint, rng
from bench.training.checkpoint import CheckpointError, State
from bench.training.identity import Identity
from bench.training.objectives import task_of
from models.contract import build
from tests.records import examples

ROOT = Path(__file__).resolve().parents[2]
RECIPE = replace(
    examples.RECIPE,
    validation_draws=1,
    batch=4,
    steps=8,
    learning_rate=1e-4,
    ema_decays=(0.9999, 0.9),
    flip=True,
    evaluate_every=4,
)
CASE = TrainingCase(
    **{**examples.MODEL, "model": "tests.tiny:Tiny", "res": 8, "latent_size": 8},
    recipe=RECIPE,
    seed=3,
    processes=1,
)
IDENTITY = Identity(case=CASE, environment=examples.ENVIRONMENT)
EVALUATION = Evaluation(
    step=4,
    seconds=0.5,
    joules=None,
    train_loss=1.5,
    loss=1.25,
    ema_losses=(1.5, 1.375),
    bin_losses=(2.0, 1.0),
)


def state_at(step: int, identity: Identity = IDENTITY) -> State:
    """A state whose tensors are those of a fresh network, all shifted by the step."""
    model = build("tests.tiny:Tiny", task_of(RECIPE, 8), device="cpu")
    weights = {name: value.detach() + step for name, value in model.state_dict().items()}
    return State(
        identity=identity,
        step=step,
        model=weights,
        ema={"0.9999": {name: 0 * value for name, value in weights.items()}, "0.9": weights},
        optimizer=torch.optim.AdamW(model.parameters()).state_dict(),
        rng=[rng.state("cpu")],
        evaluations=(EVALUATION,),
        losses=torch.tensor([1.0, 0.5]),
        seconds=12.5,
        joules=None,
    )


def test_checkpoint_restores_the_state_that_was_saved(tmp_path: Path) -> None:
    given = state_at(6)
    checkpoint.save(tmp_path, given)
    found, notes = checkpoint.latest(tmp_path, IDENTITY)
    assert found is not None
    assert notes == []
    assert (found.identity, found.step, found.seconds) == (IDENTITY, 6, 12.5)
    assert found.evaluations == (EVALUATION,)
    assert found.optimizer == given.optimizer
    assert torch.equal(found.losses, given.losses)
    for name, value in given.model.items():
        assert torch.equal(found.model[name], value)
        assert torch.equal(found.ema["0.9"][name], value)


def test_global_generators_continue_from_their_state() -> None:
    rng.seed_global("a", 1)
    held = rng.state("cpu")
    drawn = torch.rand(3), random.random(), np.random.rand()
    rng.seed_global("b", 2)
    assert random.random() != drawn[1]
    rng.restore(held, "cpu")
    again = torch.rand(3), random.random(), np.random.rand()
    assert torch.equal(drawn[0], again[0])
    assert drawn[1:] == again[1:]


def test_newest_two_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        checkpoint.save(tmp_path, state_at(step))
    assert [path.name[:13] for path in checkpoint.paths(tmp_path)] == ["step-00000006", "step-00000004"]
    checkpoint.save(tmp_path, state_at(8), keep=1)
    assert [path.name[:13] for path in checkpoint.paths(tmp_path)] == ["step-00000008"]


@pytest.mark.parametrize("damage", ["cut off", "changed", "empty"])
def test_damaged_checkpoint_is_skipped_for_the_one_before(tmp_path: Path, damage: str) -> None:
    checkpoint.save(tmp_path, state_at(2))
    path = checkpoint.save(tmp_path, state_at(4))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    cut = {"cut off": content[:-100], "changed": content, "empty": b""}[damage]
    path.write_bytes(cut)
    found, notes = checkpoint.latest(tmp_path, IDENTITY)
    assert found is not None
    assert found.step == 2
    assert len(notes) == 1
    assert str(path) in notes[0]


def test_only_damaged_checkpoints_are_refused_and_kept(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, state_at(2))
    path.write_bytes(path.read_bytes()[:-100])
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="move it away to train from the start, or name another folder"):
        checkpoint.latest(tmp_path, IDENTITY)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(CASE, model="DiT-S/2"), "model is tests.tiny:Tiny in the checkpoint, DiT-S/2 requested"),
        (replace(CASE, recipe=replace(RECIPE, data_sha256="9")), "data_sha256 is 0123 in the checkpoint, 9"),
        (replace(CASE, recipe=replace(RECIPE, steps=9)), "steps is 8 in the checkpoint, 9 requested"),
        (replace(CASE, seed=4), "seed is 3 in the checkpoint, 4 requested"),
    ],
)
def test_checkpoint_of_another_run_is_refused_with_differences(
    tmp_path: Path, other: TrainingCase, message: str
) -> None:
    checkpoint.save(tmp_path, state_at(2))
    with pytest.raises(CheckpointError, match="has a checkpoint of another run") as refused:
        checkpoint.check(tmp_path, replace(IDENTITY, case=other))
    assert message in str(refused.value)
    assert checkpoint.check(tmp_path, IDENTITY) == (2, [])


def test_run_resumes_under_another_commit_date_and_driver(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state_at(2))
    later = replace(IDENTITY.environment, commit="def", date="2027-01-01T00:00:00Z", driver="600")
    assert checkpoint.check(tmp_path, replace(IDENTITY, environment=later))[0] == 2


def test_empty_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path, IDENTITY) == (None, [])


def test_network_is_built_with_trained_or_averaged_weights(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, state_at(2))
    trained, state = checkpoint.load_model(path)
    averaged, _ = checkpoint.load_model(tmp_path, decay=0.9999)
    assert state.identity == IDENTITY
    assert not trained.training
    assert torch.equal(trained.state_dict()["stem.bias"], state.model["stem.bias"])
    assert not any(parameter.any() for parameter in averaged.parameters())
    with pytest.raises(CheckpointError, match=r"no average of decay 0\.5; it has 0\.9999, 0\.9"):
        checkpoint.load_model(path, decay=0.5)


def with_decays(*decays: float, names: Sequence[str]) -> State:
    """A state whose averages have the given names, each filled with its index."""
    case = replace(CASE, recipe=replace(RECIPE, ema_decays=decays))
    given = state_at(2, replace(IDENTITY, case=case))
    return replace(
        given,
        ema={
            called: {name: torch.full_like(value, float(place)) for name, value in given.model.items()}
            for place, called in enumerate(names)
        },
        evaluations=(),
    )


def test_averages_of_decays_that_differ_in_a_late_digit_differ(tmp_path: Path) -> None:
    decays = (0.9999999, 0.99999999)
    path = checkpoint.save(tmp_path, with_decays(*decays, names=[checkpoint.decay_name(d) for d in decays]))
    for place, decay in enumerate(decays):
        model, _ = checkpoint.load_model(path, decay)
        assert all((value == place).all() for value in model.state_dict().values())


def test_averages_named_with_six_digits_are_found(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, with_decays(0.123456789, 0.9, names=["0.123457", "0.9"]))
    for place, decay in enumerate((0.123456789, 0.9)):
        model, _ = checkpoint.load_model(path, decay)
        assert all((value == place).all() for value in model.state_dict().values())


def test_ambiguous_average_of_an_old_checkpoint_is_refused(
    tmp_path: Path,
) -> None:
    given = with_decays(0.9999999, 0.99999999, 0.9, names=["1", "0.9"])
    path = checkpoint.save(tmp_path, given)
    with pytest.raises(
        CheckpointError, match=r"no average of decay 0\.9999999, 0\.99999999: .*another folder"
    ):
        checkpoint.check(tmp_path, given.identity)
    with pytest.raises(CheckpointError, match=r"no average of decay 0\.9999999; it has 0\.9"):
        checkpoint.load_model(path, 0.9999999)
    model, _ = checkpoint.load_model(path, 0.9)
    assert all((value == 1).all() for value in model.state_dict().values())


@pytest.mark.parametrize("content", [b"", b"nonsense", {"format": 1}, {"format": 2}, {"model": {}}, [1, 2]])
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: object) -> None:
    path = tmp_path / "other.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"other\.pt: not a checkpoint") as refused:
        checkpoint.read(path)
    assert "\n" not in str(refused.value)


def test_run_folder_is_locked_by_one_process(tmp_path: Path) -> None:
    with (
        checkpoint.locked(tmp_path / "run"),
        pytest.raises(CheckpointError, match="another process is training in it"),
        checkpoint.locked(tmp_path / "run"),
    ):
        pass
    with checkpoint.locked(tmp_path / "run"):
        pass


WRITER = """
import sys
from pathlib import Path
from bench.training import checkpoint
from tests.training.test_checkpoint import state_at
print("ready", flush=True)
for step in range(1, 100000):
    checkpoint.save(Path(sys.argv[1]), state_at(step))
    print(step, flush=True)
"""


def test_killed_writer_leaves_a_complete_checkpoint(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    said = [writer.stdout.readline() for _ in range(4)]
    time.sleep(0.017)
    os.kill(writer.pid, signal.SIGKILL)
    last = int(([*said, *writer.stdout.read().splitlines()])[-1])
    writer.wait()
    writer.stdout.close()
    found, notes = checkpoint.latest(tmp_path, IDENTITY)
    assert found is not None
    assert notes == []
    assert found.step in (last, last + 1)  # killed between the rename and the print


def test_checkpoint_of_format_1_is_read(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, state_at(2))
    content = torch.load(path, weights_only=True)
    case, environment = asdict(CASE), asdict(IDENTITY.environment)
    about = {name: case.pop(name) for name in ("recipe", "seed", "processes")}
    del case["device"]
    about["run"] = {"question": "convergence", **case, "environment": environment}
    old = {**content, "format": 1, "about": json.dumps(about)}
    del old["identity"]
    torch.save(old, tmp_path / "old.pt")
    assert checkpoint.read(tmp_path / "old.pt").identity == IDENTITY


def test_a_full_disk_leaves_the_earlier_checkpoints(tmp_path: Path) -> None:
    kept = checkpoint.save(tmp_path, state_at(1))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in (100, kept.stat().st_size - 100):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            with pytest.raises(OSError, match=f"File too large: '{tmp_path}'"):
                checkpoint.save(tmp_path, state_at(2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert list(tmp_path.iterdir()) == [kept]
