"""Several processes under the variables of torchrun equal a single one, and only the first writes."""

import gc
import os
import socket
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn

from bench import convergence
from bench.records.training import TrainingRun
from bench.store.codec import read, to_line
from bench.training import checkpoint, study
from bench.training.processes import ProcessGroup

ROOT = Path(__file__).resolve().parents[2]
# a network whose parameters are all used, and one with an unused parameter, from one seed each
OPTIONS = [
    *("--model", "tests.tiny:Tiny", "tests.tiny:PartlyUnused"),
    *("--steps", "8", "--batch", "12", "--seeds", "1", "--evaluate-every", "4", "--validation-images", "30"),
    *("--learning-rate", "0.01"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[TrainingRun]]]:
    """The records of one process, and of two on two machines whose shares are split unevenly into passes."""
    folder = tmp_path_factory.mktemp("processes")

    def out(name: str) -> list[str]:
        return ["--dir", str(folder / name), "--out", str(folder / f"{name}.jsonl")]

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    # what torchrun sets, without its agents, each of which loads torch once more
    both = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    two = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.convergence", *OPTIONS, "--micro-batch", "4", *out("two")],
            cwd=ROOT,
            env={**os.environ, **both, "RANK": str(rank), "LOCAL_RANK": "0", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        printed = [node.communicate(timeout=200) for node in two]
    finally:
        for node in two:
            node.kill()
    assert [node.returncode for node in two] == [0, 0], printed
    # the first prints a row
    assert sorted(stdout.count("tests.tiny:PartlyUnused") for stdout, _ in printed) == [0, 1]
    for run in convergence.planned(convergence.parser().parse_args([*OPTIONS, *out("one")])):
        with (folder / "one.jsonl").open("a") as file:
            file.write(to_line(study.measure(run.case, run.environment, run.setup)))
    return {
        name: (
            folder / name,
            [one for one in read(folder / f"{name}.jsonl").records if isinstance(one, TrainingRun)],
        )
        for name in ("one", "two")
    }


def test_two_processes_train_as_one_does(trained: dict[str, tuple[Path, list[TrainingRun]]]) -> None:
    (_, alone), (_, together) = trained["one"], trained["two"]
    assert [one.case.processes for one in alone] == [1, 1]
    assert [one.case.processes for one in together] == [2, 2]
    assert [one.case.model for one in together] == [one.case.model for one in alone]
    for a, b in zip(alone, together, strict=True):
        assert (a.status, b.status) == ("ok", "ok")
        assert [at.step for at in b.evaluations] == [at.step for at in a.evaluations] == [0, 4, 8]
        assert a.evaluations[-1].loss < 0.99 * a.evaluations[0].loss
        for first, second in zip(a.evaluations, b.evaluations, strict=True):
            assert second.loss == pytest.approx(first.loss, rel=1e-4)
            assert second.ema_losses == pytest.approx(first.ema_losses, rel=1e-4)
            assert second.bin_losses == pytest.approx(first.bin_losses, rel=1e-4)
            assert (second.train_loss is None) == (first.train_loss is None)
            if first.train_loss is not None:
                assert second.train_loss == pytest.approx(first.train_loss, rel=1e-4)


def test_only_the_first_process_writes(trained: dict[str, tuple[Path, list[TrainingRun]]]) -> None:
    folder, together = trained["two"]
    assert len(together) == 2
    for run in folder.iterdir():
        (only,) = checkpoint.paths(run)
        state = checkpoint.read(only)
        assert state.step == 8
        assert state.identity.case.processes == 2
        assert len(state.rng) == 2
        assert not (run / "unfinished").exists()


def test_one_process_does_not_resume_a_run_of_two(
    trained: dict[str, tuple[Path, list[TrainingRun]]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = trained["two"]
    assert convergence.main([*OPTIONS, "--micro-batch", "4", "--dir", str(folder)]) == 2
    assert "case.processes is 2 in the checkpoint, 1 requested" in capsys.readouterr().err


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessGroup]:
    """A process group of this process, under a configuration of accelerate with bf16."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    AcceleratorState._reset_state(reset_partial_state=True)
    yield ProcessGroup("cpu")
    AcceleratorState._reset_state(reset_partial_state=True)


def test_precision_does_not_come_from_the_accelerate_config(group: ProcessGroup) -> None:
    seen = []
    layer = nn.Linear(2, 2)
    layer.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    model = nn.Sequential(layer)  # accelerate would cast the output of the outermost module back
    group.wrap(model, True)(torch.ones(1, 2))
    assert seen == [torch.float32]


def test_group_releases_the_model_of_the_run_before(group: ProcessGroup) -> None:
    model = nn.Linear(2, 2)
    gone = weakref.ref(group.wrap(model, True))
    del model
    group.wrap(nn.Linear(2, 2), True)
    gc.collect()
    assert gone() is None
