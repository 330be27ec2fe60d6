"""Checkpoints: whole or not there, never another run's, and the network comes back out of them."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.records.record import Evaluation
from bench.training import checkpoint, rng
from bench.training.checkpoint import CheckpointError, State
from bench.training.identity import Identity
from models.contract import build
from tests.records.test_record import RECIPE as A_RECIPE
from tests.records.test_record import RUN

ROOT = Path(__file__).resolve().parents[2]
RECIPE = replace(
    A_RECIPE,
    validation_draws=1,
    batch=4,
    steps=8,
    learning_rate=1e-4,
    ema_decays=(0.9999, 0.9),
    flip=True,
    evaluate_every=4,
)
IDENTITY = Identity(
    run=replace(RUN, question="convergence", model="tests.tiny:Tiny", res=8, latent_size=8),
    recipe=RECIPE,
    seed=3,
    processes=1,
)
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
    model = build("tests.tiny:Tiny", IDENTITY.task, device="cpu")
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


def test_what_goes_into_a_checkpoint_comes_out(tmp_path: Path) -> None:
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


def test_the_global_generators_go_on_where_they_stood() -> None:
    rng.seed_global("a", 1)
    held = rng.state("cpu")
    drawn = torch.rand(3), random.random(), np.random.rand()
    rng.seed_global("b", 2)
    assert random.random() != drawn[1]
    rng.restore(held, "cpu")
    again = torch.rand(3), random.random(), np.random.rand()
    assert torch.equal(drawn[0], again[0])
    assert drawn[1:] == again[1:]


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        checkpoint.save(tmp_path, state_at(step))
    assert [path.name[:13] for path in checkpoint.paths(tmp_path)] == ["step-00000006", "step-00000004"]
    checkpoint.save(tmp_path, state_at(8), keep=1)
    assert [path.name[:13] for path in checkpoint.paths(tmp_path)] == ["step-00000008"]


@pytest.mark.parametrize("damage", ["cut off", "changed", "empty"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, damage: str) -> None:
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


def test_damaged_checkpoints_alone_are_refused_and_left_as_they_are(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, state_at(2))
    path.write_bytes(path.read_bytes()[:-100])
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="move it away to begin anew, or name another folder"):
        checkpoint.latest(tmp_path, IDENTITY)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (
            replace(IDENTITY, run=replace(IDENTITY.run, model="DiT-S/2")),
            "model tests.tiny:Tiny there, DiT-S/2",
        ),
        (replace(IDENTITY, recipe=replace(RECIPE, data_sha256="9")), "data_sha256 0123 there, 9 asked"),
        (replace(IDENTITY, recipe=replace(RECIPE, steps=9)), "steps 8 there, 9 asked"),
        (replace(IDENTITY, seed=4), "seed 3 there, 4 asked"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_what_differs(
    tmp_path: Path, other: Identity, told: str
) -> None:
    checkpoint.save(tmp_path, state_at(2))
    with pytest.raises(CheckpointError, match="holds a checkpoint of another run") as refused:
        checkpoint.check(tmp_path, other)
    assert told in str(refused.value)
    assert checkpoint.check(tmp_path, IDENTITY) == (2, [])


def test_a_run_goes_on_under_another_commit_date_and_driver(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state_at(2))
    later = replace(IDENTITY.run.environment, commit="def", date="2027-01-01T00:00:00Z", driver="600")
    assert checkpoint.check(tmp_path, replace(IDENTITY, run=replace(IDENTITY.run, environment=later)))[0] == 2


def test_an_empty_folder_is_the_beginning(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path, IDENTITY) == (None, [])


def test_the_network_of_a_checkpoint_is_built_with_the_weights_asked_for(tmp_path: Path) -> None:
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
    """A state whose averages are called so, each filled with its place."""
    given = state_at(2, replace(IDENTITY, recipe=replace(RECIPE, ema_decays=decays)))
    return replace(
        given,
        ema={
            called: {name: torch.full_like(value, float(place)) for name, value in given.model.items()}
            for place, called in enumerate(names)
        },
        evaluations=(),
    )


def test_averages_whose_decays_differ_in_the_seventh_digit_are_kept_apart(tmp_path: Path) -> None:
    decays = (0.9999999, 0.99999999)
    path = checkpoint.save(tmp_path, with_decays(*decays, names=[checkpoint.decay_name(d) for d in decays]))
    for place, decay in enumerate(decays):
        model, _ = checkpoint.load_model(path, decay)
        assert all((value == place).all() for value in model.state_dict().values())


def test_averages_under_the_six_digits_of_older_checkpoints_are_found(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, with_decays(0.123456789, 0.9, names=["0.123457", "0.9"]))
    for place, decay in enumerate((0.123456789, 0.9)):
        model, _ = checkpoint.load_model(path, decay)
        assert all((value == place).all() for value in model.state_dict().values())


def test_an_older_checkpoint_in_which_one_average_took_the_place_of_two_is_not_gone_on_from(
    tmp_path: Path,
) -> None:
    given = with_decays(0.9999999, 0.99999999, 0.9, names=["1", "0.9"])
    path = checkpoint.save(tmp_path, given)
    with pytest.raises(
        CheckpointError, match=r"no average of decay 0\.9999999, 0\.99999999: .*another --dir"
    ):
        checkpoint.check(tmp_path, given.identity)
    with pytest.raises(CheckpointError, match=r"no average of decay 0\.9999999; it has 0\.9"):
        checkpoint.load_model(path, 0.9999999)
    model, _ = checkpoint.load_model(path, 0.9)
    assert all((value == 1).all() for value in model.state_dict().values())


@pytest.mark.parametrize("content", [b"", b"nonsense", {"format": 1}, {"model": {}}, [1, 2]])
def test_what_is_no_checkpoint_of_ours_is_told_in_one_line(tmp_path: Path, content: object) -> None:
    path = tmp_path / "other.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"other\.pt: not a checkpoint") as refused:
        checkpoint.read(path)
    assert "\n" not in str(refused.value)


def test_a_folder_is_one_process_s_at_a_time(tmp_path: Path) -> None:
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


def test_a_writer_that_is_killed_leaves_a_whole_checkpoint_whenever_that_is(tmp_path: Path) -> None:
    for delay in (0.0, 0.013, 0.037):
        folder = tmp_path / str(delay)
        folder.mkdir()
        command = [sys.executable, "-c", WRITER, str(folder)]
        writer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(4)]
        try:
            writer.wait(delay)
        except subprocess.TimeoutExpired:
            os.kill(writer.pid, signal.SIGKILL)
        last = int(([*said, *writer.stdout.read().splitlines()])[-1])
        writer.wait()
        writer.stdout.close()
        found, notes = checkpoint.latest(folder, IDENTITY)
        assert found is not None
        assert notes == []
        assert found.step in (last, last + 1)  # killed between the rename and the word
