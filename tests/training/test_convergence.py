"""bench.convergence: refused before anything is trained, resumed from any kill, one row a model."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from bench import convergence, convergence_rows
from bench.convergence import Arm
from bench.jobs import worker
from bench.records import record
from bench.records.record import Evaluation, Skipped, Trained
from bench.records.store import open_store
from bench.training import checkpoint

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--batch", "8", "--steps", "6", "--evaluate-every", "3", "--validation-images", "20"]


def run(*args: str) -> int:
    try:
        return convergence.main(list(args))
    except SystemExit as end:
        return int(end.code or 0)


def arms(*args: str) -> list[Arm]:
    return convergence.planned(convergence.parser().parse_args(args))


def in_this_process(measure: str, case: Arm, timeout_s: float) -> Trained | Skipped:
    """What a worker does, without its start."""
    assert measure == "bench.convergence:measure"
    return convergence.measure(case)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "run", in_this_process)


def kept(path: Path) -> list[Trained]:
    return [one for one in record.read(path) if isinstance(one, Trained)]


def curve(trained: Trained) -> list[tuple[Any, ...]]:
    """All that a record says of the losses, without the time it took."""
    return [(at.step, at.train_loss, at.loss, at.ema_losses, at.bin_losses) for at in trained.evaluations]


# planning


def test_all_models_of_a_seed_come_before_the_next_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = ("tests.tiny:Tiny", "tests.tiny:DropsLabels")
    planned = arms("--model", *models, "--seeds", "2", "--first-seed", "4", "--dir", str(tmp_path / "runs"))
    assert [(arm.run.model, arm.seed) for arm in planned] == [(m, seed) for seed in (4, 5) for m in models]
    args = ["--model", *models, "--seeds", "2", "--dir", str(tmp_path / "runs"), "--dry-run"]
    assert run(*args, "--format", "json", "--out", str(tmp_path / "runs.jsonl")) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [row["step"] for row in plan] == [0, 0, 0, 0]
    assert plan[0]["case"].startswith("tests.tiny:Tiny seed 0, digits iddpm, 300 steps of 256, fp32")
    assert plan[0]["folder"] == str(tmp_path / "runs" / "tests.tiny-Tiny-seed0")
    assert list(tmp_path.iterdir()) == []


def test_the_recipe_and_the_task_are_what_was_asked_for() -> None:
    (arm,) = arms("--model", "tests.tiny:Tiny", "--objective", "flow", "--seeds", "1", "--steps", "50")
    recipe, task = arm.identity.recipe, arm.identity.task
    assert (recipe.learning_rate, recipe.weight_decay, recipe.batch) == (1e-4, 0.0, 256)
    assert (recipe.label_dropout, recipe.ema_decays, recipe.flip) == (0.1, (0.9999, 0.99), False)
    assert (recipe.steps, recipe.evaluate_every, arm.checkpoint_every) == (50, 5, 5)
    assert (task.latent_size, task.in_channels, task.num_classes, task.learn_sigma) == (8, 1, 10, False)
    assert arm.run.res == 8
    assert arm.train_macs > 0


def test_runs_of_another_recipe_have_folders_of_their_own_by_default() -> None:
    def folders(*args: str) -> set[str]:
        return {arm.folder for arm in arms("--model", "tests.tiny:Tiny", *args)}

    assert len(folders()) == 3
    assert not folders() & folders("--batch", "128")
    assert all(folder.startswith("reports/out/convergence/digits-iddpm-300/") for folder in folders())


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--model", "FDCM-S"], "did you mean FCDM-S"),
        (["--model", "tests.tiny:WrongShape", "--data", "latents"], "must return"),
        (["--model", "tests.tiny:TakesVectors"], "takes float vectors for y"),
        (
            ["--model", "tests.tiny:RaisesInBackward"],
            "pass on the meta device raised RuntimeError",
        ),
        (["--model", "DiT-S/8", "--data", "latents"], "latent_size: must be a multiple of patch 8, got 12"),
        (["--data", "cifar10", "--data-dir", "nowhere"], "python -m bench.data cifar10"),
        (["--data", "no/such/latents"], "no such data"),
        (["--steps", "0"], "--steps: must be a whole number of at least 1"),
        (["--label-dropout", "1"], "--label-dropout: must be from 0 to below 1"),
        (["--ema-decay", "nan"], "--ema-decay: must be from 0 to below 1"),
        (["--micro-batch", "some"], "--micro-batch: must be a whole number"),
        (["--precision", "tf32", "--device", "cpu"], "only a CUDA device has it"),
        (["--validation-images", "3"], "--validation-draws 4 would work"),
        (
            ["--data", "latents", "--classes", "2"],
            "labels must be from 0 to 1, got 2 at 2; --classes 3 would",
        ),
        (["--classes", "9"], "--classes 9: digits has 10"),
        (["--out", "."], "is a folder"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2_before_anything_is_trained(
    args: list[str],
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "run", lambda *_: pytest.fail("something was trained"))
    if "latents" in args:
        args = [str(_latents(tmp_path)) if word == "latents" else word for word in args]
    usual = [] if "--model" in args else ["--model", "tests.tiny:Tiny"]
    assert run(*usual, *args, "--dir", str(tmp_path / "runs")) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def _latents(folder: Path) -> Path:
    import numpy as np

    path = folder / "latents.npz"
    draw = np.random.default_rng(0)
    np.savez(
        path, latents=draw.standard_normal((120, 4, 12, 12), dtype=np.float32), labels=np.arange(120) % 3
    )
    return path


@pytest.mark.usefixtures("here")
def test_latents_are_trained_on_too(tmp_path: Path) -> None:
    out = tmp_path / "runs.jsonl"
    args = ["--model", "tests.tiny:Tiny", "--data", str(_latents(tmp_path)), "--seeds", "1", *SMALL]
    assert (
        run(
            *args,
            "--validation-images",
            "4",
            "--validation-draws",
            "5",
            "--dir",
            str(tmp_path),
            "--out",
            str(out),
        )
        == 0
    )
    (trained,) = kept(out)
    assert (trained.recipe.channels, trained.recipe.classes) == (4, 3)
    (wider,) = arms(*args, "--classes", "1000", "--dir", str(tmp_path / "wider"))
    assert (wider.identity.recipe.classes, wider.identity.task.num_classes) == (1000, 1000)
    assert (trained.run.res, trained.run.latent_size) == (96, 12)
    assert trained.status == "ok"


def test_several_processes_must_share_the_batch_evenly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert run("--model", "tests.tiny:Tiny", "--batch", "256") == 2
    assert "--batch 256: must be a multiple of the 3 processes; 258 would work" in capsys.readouterr().err


class _Ended(BaseException):
    """What torchrun does to a process when another has failed."""


@pytest.mark.parametrize("wrong", [["--steps", "0"], ["--data", "no/such/latents"]])
def test_what_cannot_be_is_told_by_the_first_process_of_a_machine_and_by_others_if_it_does_not(
    wrong: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(seconds: float) -> None:
        raise _Ended

    monkeypatch.setattr("time.sleep", ended)
    for name, value in (("WORLD_SIZE", "4"), ("RANK", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    assert run(*wrong) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(_Ended):
        run(*wrong)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert run(*wrong) == 2
    assert capsys.readouterr().err == told


def test_the_first_of_several_processes_alone_prints_the_plan(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        assert run("--model", "tests.tiny:Tiny", "--seeds", "1", "--dry-run") == 0
        assert capsys.readouterr().out.count("tests.tiny:Tiny seed 0") == lines


def test_several_processes_have_no_batch_that_halves_when_memory_runs_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run("--model", "tests.tiny:Tiny", "--micro-batch", "auto") == 2
    assert "--micro-batch auto: one of 2 processes" in capsys.readouterr().err


# running


@pytest.mark.usefixtures("here")
def test_a_study_gives_a_row_a_model_with_differences_within_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs.jsonl"
    models = ["--model", "tests.tiny:Tiny", "tests.tiny:DrawsByItself"]
    args = [*models, *SMALL, "--dir", str(tmp_path / "runs"), "--out", str(out), "--format", "json"]
    assert run(*args) == 0
    first, second = json.loads(capsys.readouterr().out)
    trained = kept(out)
    assert [(one.run.model, one.seed) for one in trained][:3] == [
        ("tests.tiny:Tiny", 0),
        ("tests.tiny:DrawsByItself", 0),
        ("tests.tiny:Tiny", 1),
    ]
    by_model = [[one.evaluations[-1].loss for one in trained[at::2]] for at in (0, 1)]
    apart = [b - a for a, b in zip(*by_model, strict=True)]
    assert (first["losses"], second["losses"]) == tuple(by_model)
    assert second["difference"] == pytest.approx(sum(apart) / 3)
    assert second["difference_interval"][0] < min(apart)
    assert second["difference_interval"][1] > max(apart)
    assert first["difference"] is None
    assert second["reference"] == "tests.tiny:Tiny"
    assert first["train_flops"] == 2 * first["train_macs"] * 8 * 6
    assert run(*args[:-2]) == 0
    told = capsys.readouterr()
    assert "loss - tests.tiny:Tiny's" in told.out
    assert "6 of 6 were in" in told.err
    assert kept(out) == trained


@pytest.mark.usefixtures("here")
def test_averages_with_decays_close_to_1_have_columns_that_tell_them_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--model", "tests.tiny:Tiny", *SMALL, "--seeds", "1", "--dir", str(tmp_path)]
    assert run(*args, "--ema-decay", "0.9999999", "0.99999999") == 0
    (head, *_) = capsys.readouterr().out.splitlines()
    assert "EMA 0.9999999  EMA 0.99999999" in head


@pytest.mark.usefixtures("here")
def test_a_checkpoint_of_another_run_in_the_folder_is_refused_and_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--model", "tests.tiny:Tiny", *SMALL, "--seeds", "1", "--dir", str(tmp_path / "runs")]
    assert run(*args) == 0
    folder = tmp_path / "runs" / "tests.tiny-Tiny-seed0"
    before = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    capsys.readouterr()
    assert run(*args, "--learning-rate", "1e-3") == 2
    err = capsys.readouterr().err
    assert "holds a checkpoint of another run: recipe.learning_rate 0.0001 there, 0.001 asked" in err
    assert err.count("\n") == 1
    assert {path: path.read_bytes() for path in sorted(folder.iterdir())} == before


def test_force_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun_at = []

    def watched(measure: str, case: Arm, timeout_s: float) -> Trained | Skipped:
        begun_at.append(checkpoint.check(Path(case.folder), case.identity)[0])
        return in_this_process(measure, case, timeout_s)

    monkeypatch.setattr(worker, "run", watched)
    args = ["--model", "tests.tiny:Tiny", *SMALL, "--seeds", "1", "--dir", str(tmp_path)]
    for more in ([], [], ["--force"]):
        assert run(*args, *more) == 0
    assert begun_at == [0, 6, 0]


@pytest.mark.usefixtures("here")
def test_a_budget_stops_a_run_and_the_same_command_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "runs.jsonl"
    args = ["--model", "tests.tiny:Tiny", *SMALL, "--seeds", "2"]
    assert run(*args, "--dir", str(tmp_path / "a"), "--out", str(whole)) == 0
    capsys.readouterr()
    assert run(*args, "--dir", str(tmp_path / "b"), "--out", str(out), "--budget", "0.000001s") == 0
    err = capsys.readouterr().err
    assert "stopped by --budget with 2 of 2 runs not begun" in err
    # as if time were up in the run, not before it
    monkeypatch.setattr(convergence, "_ask", lambda *_: ("train", None))
    assert run(*args, "--dir", str(tmp_path / "b"), "--out", str(out), "--budget", "0.000001s") == 0
    told = capsys.readouterr()
    assert "seed 0 stopped: at step 1 of 6: the time was up" in told.out
    assert "the same command goes on where it was stopped" in told.err
    assert kept(out) == []
    monkeypatch.undo()
    monkeypatch.setattr(worker, "run", in_this_process)
    assert run(*args, "--dir", str(tmp_path / "b"), "--out", str(out)) == 0
    assert [curve(one) for one in kept(out)] == [curve(one) for one in kept(whole)]


@pytest.mark.usefixtures("here")
def test_a_run_that_is_not_finite_is_a_row_beside_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs.jsonl"
    args = ["--model", "tests.tiny:Tiny", "tests.tiny:BlowsUp", *SMALL, "--seeds", "1"]
    assert run(*args, "--dir", str(tmp_path / "runs"), "--out", str(out)) == 0
    assert [one.status for one in kept(out)] == ["ok", "not finite"]
    *_, stopped = capsys.readouterr().out.splitlines()
    assert "seed 0 not finite: the training loss is nan in step 5" in stopped
    first, second = convergence_rows.rows(kept(out), "tests.tiny:Tiny")
    assert first["train_flops"] == 2 * first["train_macs"] * 8 * 6
    assert second["train_flops"] is None  # it did not take them all
    assert set(stopped.split()[2:6]) == {"-"}


def test_a_worker_that_crashes_is_a_row_and_is_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out = tmp_path / "runs.jsonl"
    args = ["--model", "tests.tiny:KilledWhenReal", *SMALL, "--seeds", "1"]
    args += ["--dir", str(tmp_path / "runs"), "--out", str(out)]
    assert run(*args) == 0
    assert "seed 0 crashed: the worker died of SIGKILL" in capsys.readouterr().out
    asked = []

    def ends(measure: str, case: Arm, timeout_s: float) -> Trained:
        asked.append(case.seed)
        return convergence.blank(case)

    monkeypatch.setattr(worker, "run", ends)
    monkeypatch.setattr(convergence_rows, "rows", lambda records, reference: [{"ended": len(records)}])
    monkeypatch.setattr(convergence_rows, "columns", lambda rows: [("ended", lambda row: str(row["ended"]))])
    assert run(*args) == 0
    assert asked == [0]


def test_half_as_many_images_a_pass_are_tried_when_memory_runs_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def too_small(measure: str, case: Arm, timeout_s: float) -> Trained | Skipped:
        tried.append(case.run.batch)
        if case.run.batch > 2:
            return Skipped(run=case.run, status="out of memory", reason="no more")
        return in_this_process(measure, case, timeout_s)

    monkeypatch.setattr(worker, "run", too_small)
    out = tmp_path / "runs.jsonl"
    args = ["--model", "tests.tiny:Tiny", *SMALL, "--seeds", "1", "--out", str(out), "--dir", str(tmp_path)]
    assert run(*args) == 0
    assert tried == [8]
    assert [one.status for one in kept(out)] == ["out of memory"]
    assert run(*args, "--micro-batch", "auto") == 0
    assert tried == [8, 8, 4, 2]
    assert (kept(out)[-1].run.batch, kept(out)[-1].status) == (2, "ok")
    assert run(*args, "--micro-batch", "auto") == 0
    assert len(tried) == 4


def test_a_sweep_gets_an_estimate_and_a_measure_for_every_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "run", in_this_process)
    args = ["--model", "tests.tiny:Tiny", *SMALL, "--seeds", "2", "--dir", str(tmp_path)]
    units = convergence.units(convergence.parser().parse_args(args))
    assert len({unit.label for unit in units}) == 2
    assert all(unit.estimate_s > 0 for unit in units)
    done = units[1].measure()
    assert isinstance(done, Trained)
    assert isinstance(units[1].about, Trained)
    assert record.key(done) == record.key(units[1].about)
    assert record.key(done) != record.key(units[0].about)  # type: ignore[arg-type]
    with open_store(tmp_path / "runs.jsonl") as store:
        store.append(replace(done, status="crashed", reason="the worker died of SIGKILL"))
        assert units[1].held(store) is None  # what failed is tried again
        store.append(done)
        assert units[1].held(store) == done
    assert units[1].forget
    units[1].forget()
    again = units[1].measure()
    assert isinstance(again, Trained)
    assert [one.step for one in again.evaluations] == [one.step for one in done.evaluations]
    assert again != done  # trained anew, not read from the checkpoint


def test_the_record_of_several_processes_is_not_that_of_one() -> None:
    (arm,) = arms("--model", "tests.tiny:Tiny", "--seeds", "1")
    alone = convergence.blank(arm)
    assert record.key(alone) != record.key(replace(alone, processes=2))
    at = Evaluation(step=0, seconds=0.0, joules=None, train_loss=None, loss=1.0, ema_losses=(), bin_losses=())
    assert record.key(alone) == record.key(replace(alone, evaluations=(at,)))


# killed and resumed

# one start for many kills: children of a process that has imported everything and computed nothing yet
TRAINING = """
import json, os, signal, sys
import torch._dynamo  # the optimizer's first step would import it, in every child
from pathlib import Path
from bench.convergence import Arm
from bench.record import decode, to_line
from bench.training import datasets, processes, trainer

data = datasets.load("digits")
whole, killed = (decode(Arm, json.loads(text)) for text in sys.argv[1:])


def begin(arm):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        done = trainer.train(
            arm.identity, data, Path(arm.folder), processes=processes.Alone("cpu"),
            checkpoint_every=arm.checkpoint_every, train_macs=1,
            progress=lambda progress: os.write(writing, b"%d\\n" % progress.step),
        )
        os.write(writing, to_line(done).encode())
        os._exit(0)
    os.close(writing)
    return child, os.fdopen(reading)


def end(arm):
    child, said = begin(arm)
    *_, last = said
    sys.stdout.write(last)
    os.waitpid(child, 0)


for at in (1, 2, 4, 12, 16, 21, 27, 29):
    child, said = begin(killed)
    for line in said:
        if int(line) >= at:
            os.kill(child, signal.SIGKILL)
            break
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, status
    sys.stderr.write(line)
end(killed)
end(whole)
"""


def test_a_run_that_was_killed_again_and_again_ends_with_the_same_losses_to_the_last_bit(
    tmp_path: Path,
) -> None:
    settings = ["--batch", "8", "--steps", "30", "--evaluate-every", "7", "--validation-images", "20"]
    model = ["--model", "tests.tiny:DrawsByItself", "--seeds", "1", "--checkpoint-every", "4"]
    asked = [
        json.dumps(asdict(arm))
        for name in ("whole", "killed")
        for arm in arms(*model, *settings, "--dir", str(tmp_path / name))
    ]
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, *asked],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    killed_at = [int(line) for line in done.stderr.splitlines()]
    assert killed_at == sorted(killed_at)
    assert len(killed_at) == 8
    killed, whole = (record.from_dict(json.loads(line)) for line in done.stdout.splitlines())
    assert isinstance(killed, Trained)
    assert isinstance(whole, Trained)
    assert [at.step for at in whole.evaluations] == [0, 7, 14, 21, 28, 30]
    assert curve(killed) == curve(whole)
