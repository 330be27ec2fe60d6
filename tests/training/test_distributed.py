"""Several processes under torchrun learn what one does, and only the first of them writes."""

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
from bench.records import record
from bench.records.record import Trained
from bench.training import checkpoint
from bench.training.processes import Together

ROOT = Path(__file__).resolve().parents[2]
# one whose every parameter is used and one with an idle one, from one seed each
ASKED = [
    *("--model", "tests.tiny:Tiny", "tests.tiny:PartlyUnused"),
    *("--steps", "8", "--batch", "12", "--seeds", "1", "--evaluate-every", "4", "--validation-images", "30"),
    *("--learning-rate", "0.01"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[Trained]]]:
    """The records of one process, and of two whose shares are split unevenly into passes.

    The two have an agent of torchrun each, which meet as those of two machines do.
    """
    folder = tmp_path_factory.mktemp("processes")

    def out(name: str) -> list[str]:
        return ["--dir", str(folder / name), "--out", str(folder / f"{name}.jsonl")]

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
    torchrun += ["--rdzv_backend", "c10d", "--rdzv_id", "study", "--rdzv_endpoint", f"localhost:{port}"]
    torchrun += ["--local_addr", "localhost"]
    two = [
        subprocess.Popen(
            [*torchrun, "-m", "bench.convergence", *ASKED, "--micro-batch", "4", *out("two")],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        said = [node.communicate(timeout=200) for node in two]
    finally:
        for node in two:
            node.kill()
    assert [node.returncode for node in two] == [0, 0], said
    # a row, printed by the first
    assert sorted(stdout.count("tests.tiny:PartlyUnused") for stdout, _ in said) == [0, 1]
    for arm in convergence.planned(convergence.parser().parse_args([*ASKED, *out("one")])):
        with (folder / "one.jsonl").open("a") as file:
            file.write(record.to_line(convergence.measure(arm)))
    return {
        name: (
            folder / name,
            [one for one in record.read(folder / f"{name}.jsonl") if isinstance(one, Trained)],
        )
        for name in ("one", "two")
    }


def test_two_processes_learn_what_one_does(trained: dict[str, tuple[Path, list[Trained]]]) -> None:
    (_, alone), (_, together) = trained["one"], trained["two"]
    assert [one.processes for one in alone] == [1, 1]
    assert [one.processes for one in together] == [2, 2]
    assert [one.run.model for one in together] == [one.run.model for one in alone]
    for a, b in zip(alone, together, strict=True):
        assert (a.status, b.status) == ("ok", "ok")
        assert [at.step for at in b.evaluations] == [at.step for at in a.evaluations] == [0, 4, 8]
        assert a.evaluations[-1].loss < 0.99 * a.evaluations[0].loss
        for here, there in zip(a.evaluations, b.evaluations, strict=True):
            assert there.loss == pytest.approx(here.loss, rel=1e-4)
            assert there.ema_losses == pytest.approx(here.ema_losses, rel=1e-4)
            assert there.bin_losses == pytest.approx(here.bin_losses, rel=1e-4)
            assert (there.train_loss is None) == (here.train_loss is None)
            if here.train_loss is not None:
                assert there.train_loss == pytest.approx(here.train_loss, rel=1e-4)


def test_the_first_process_alone_writes(trained: dict[str, tuple[Path, list[Trained]]]) -> None:
    folder, together = trained["two"]
    assert len(together) == 2
    for run in folder.iterdir():
        (only,) = checkpoint.paths(run)
        state = checkpoint.read(only)
        assert state.step == 8
        assert state.identity.processes == 2
        assert len(state.rng) == 2
        assert not (run / "unfinished").exists()


def test_what_two_processes_trained_is_not_gone_on_with_by_one(
    trained: dict[str, tuple[Path, list[Trained]]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = trained["two"]
    assert convergence.main([*ASKED, "--micro-batch", "4", "--dir", str(folder)]) == 2
    assert "processes 2 there, 1 asked" in capsys.readouterr().err


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Iterator[Together]:
    """Of this process alone, as a config of accelerate's that wants bf16 finds it."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Together("cpu")
    AcceleratorState._reset_state(reset_partial_state=True)


def test_the_precision_is_the_run_s_and_not_that_of_accelerate_s_config(together: Together) -> None:
    seen = []
    layer = nn.Linear(2, 2)
    layer.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    model = nn.Sequential(layer)  # whose own output accelerate would cast back
    together.wrap(model, True)(torch.ones(1, 2))
    assert seen == [torch.float32]


def test_the_engine_lets_go_of_one_arm_for_the_next(together: Together) -> None:
    arm = nn.Linear(2, 2)
    gone = weakref.ref(together.wrap(arm, True))
    del arm
    together.wrap(nn.Linear(2, 2), True)
    gc.collect()
    assert gone() is None
