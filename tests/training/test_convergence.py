"""bench.convergence: errors before training, resume after any kill, one row a model."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from bench import convergence
from bench.analysis.learning import training_table
from bench.jobs import worker
from bench.records.base import Environment, Skipped
from bench.records.training import TrainingCase, TrainingRun
from bench.store.codec import decode, from_dict, key, read
from bench.store.store import open_store
from bench.training import checkpoint, study
from bench.training.identity import Identity
from bench.training.objectives import task_of
from bench.training.study import PlannedRun, Setup
from tests import commands

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--batch", "8", "--steps", "6", "--evaluate-every", "3", "--validation-images", "20"]


def run(*args: str) -> int:
    return commands.run(convergence.main, *args)


def planned(*args: str) -> list[PlannedRun]:
    return convergence.planned(convergence.parser().parse_args(args))


def in_this_process(
    measure: str, case: TrainingCase, environment: Environment, timeout_s: float, setup: dict[str, Any]
) -> TrainingRun | Skipped:
    """The work of a worker, in this process."""
    assert measure == "bench.training.study:measure"
    return study.measure(case, environment, decode(Setup, setup))


@pytest.fixture
def no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "run", in_this_process)


def stored(path: Path) -> list[TrainingRun | Skipped]:
    return [record for record in read(path).records if isinstance(record, TrainingRun | Skipped)]


def curve(record: TrainingRun | Skipped) -> list[tuple[Any, ...]]:
    """The losses of a record, without the time."""
    assert isinstance(record, TrainingRun)
    return [(at.step, at.train_loss, at.loss, at.ema_losses, at.bin_losses) for at in record.evaluations]


# planning


def test_all_models_of_a_seed_come_before_the_next_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = ("tests.tiny:Tiny", "tests.tiny:DropsLabels")
    runs = planned("--model", *models, "--seeds", "2", "--first-seed", "4", "--dir", str(tmp_path / "runs"))
    assert [(run.case.model, run.case.seed) for run in runs] == [(m, seed) for seed in (4, 5) for m in models]
    args = ["--model", *models, "--seeds", "2", "--dir", str(tmp_path / "runs"), "--dry-run"]
    assert run(*args, "--format", "json", "--out", str(tmp_path / "runs.jsonl")) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [row["step"] for row in plan] == [0, 0, 0, 0]
    assert plan[0]["case"].startswith("tests.tiny:Tiny seed 0, digits iddpm, 300 steps of 256, fp32")
    assert plan[0]["folder"] == str(tmp_path / "runs" / "tests.tiny-Tiny-seed0")
    assert list(tmp_path.iterdir()) == []


def test_recipe_and_task_follow_the_options() -> None:
    (only,) = planned("--model", "tests.tiny:Tiny", "--objective", "flow", "--seeds", "1", "--steps", "50")
    recipe = only.case.recipe
    task = task_of(recipe, only.case.latent_size)
    assert (recipe.learning_rate, recipe.weight_decay, recipe.batch) == (1e-4, 0.0, 256)
    assert (recipe.label_dropout, recipe.ema_decays, recipe.flip) == (0.1, (0.9999, 0.99), False)
    assert (recipe.steps, recipe.evaluate_every, only.setup.checkpoint_every) == (50, 5, 5)
    assert (task.latent_size, task.in_channels, task.num_classes, task.learn_sigma) == (8, 1, 10, False)
    assert only.case.res == 8
    assert only.setup.train_macs > 0


def test_runs_of_another_recipe_have_their_own_folders() -> None:
    def folders(*args: str) -> set[str]:
        return {run.setup.folder for run in planned("--model", "tests.tiny:Tiny", *args)}

    assert len(folders()) == 3
    assert not folders() & folders("--batch", "128")
    assert all(folder.startswith("reports/out/convergence/digits-iddpm-300/") for folder in folders())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model", "FDCM-S"], "did you mean FCDM-S"),
        (["--model", "tests.tiny:WrongShape", "--data", "latents"], "must return"),
        (["--model", "tests.tiny:TakesVectors"], "takes float vectors for y"),
        (
            ["--model", "tests.tiny:RaisesInBackward"],
            "a training pass raised ValueError: no gradient in the output",
        ),
        (["--model", "DiT-S/8", "--data", "latents"], "latent_size: must be a multiple of patch 8, got 12"),
        (["--data", "cifar10", "--data-dir", "nowhere"], "python -m bench.data cifar10"),
        (["--data", "no/such/latents"], "no such data"),
        (["--steps", "0"], "--steps: must be a whole number of at least 1"),
        (["--label-dropout", "1"], "--label-dropout: must be from 0 to below 1"),
        (["--ema-decay", "nan"], "--ema-decay: must be from 0 to below 1"),
        (
            ["--micro-batch", "some"],
            "--micro-batch: must be a whole number of at least 1, got 'some'; auto would work",
        ),
        (["--precision", "tf32", "--device", "cpu"], "only a CUDA device has it"),
        (["--validation-images", "3"], "--validation-draws 4 would work"),
        (
            ["--data", "latents", "--classes", "2"],
            "labels must be from 0 to 1, got 2 at 2; --classes 3 would work",
        ),
        (["--classes", "9"], "--classes 9: digits has 10"),
        (["--out", "."], "is a folder"),
    ],
)
def test_error_is_one_line_and_exit_code_2_before_training(
    args: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "run", lambda *_, **__: pytest.fail("something was trained"))
    if "latents" in args:
        args = [str(_latents(tmp_path)) if word == "latents" else word for word in args]
    usual = [] if "--model" in args else ["--model", "tests.tiny:Tiny"]
    assert run(*usual, *args, "--dir", str(tmp_path / "runs")) == 2
    err = capsys.readouterr().err
    assert message in err
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


@pytest.mark.usefixtures("no_workers")
def test_latents_can_be_trained_on(tmp_path: Path) -> None:
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
    (trained,) = stored(out)
    assert isinstance(trained, TrainingRun)
    assert (trained.case.recipe.channels, trained.case.recipe.classes) == (4, 3)
    (wider,) = planned(*args, "--classes", "1000", "--dir", str(tmp_path / "wider"))
    assert wider.case.recipe.classes == task_of(wider.case.recipe, 12).num_classes == 1000
    assert (trained.case.res, trained.case.latent_size) == (96, 12)
    assert trained.status == "ok"


def test_processes_must_share_the_batch_evenly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert run("--model", "tests.tiny:Tiny", "--batch", "256") == 2
    assert "--batch 256: must be a multiple of the 3 processes; 258 would work" in capsys.readouterr().err


class _Ended(BaseException):
    """Torchrun ends a process when another has failed."""


@pytest.mark.parametrize("wrong", [["--steps", "0"], ["--data", "no/such/latents"]])
def test_error_is_printed_once_by_the_processes_of_a_machine(
    wrong: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(seconds: float) -> None:
        raise _Ended

    monkeypatch.setattr("time.sleep", ended)
    for name, value in (("WORLD_SIZE", "4"), ("RANK", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    assert run(*wrong) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(_Ended):
        run(*wrong)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert run(*wrong) == 2
    assert capsys.readouterr().err == err


def test_only_the_first_process_prints_the_plan(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        assert run("--model", "tests.tiny:Tiny", "--seeds", "1", "--dry-run") == 0
        assert capsys.readouterr().out.count("tests.tiny:Tiny seed 0") == lines


def test_several_processes_cannot_halve_the_batch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run("--model", "tests.tiny:Tiny", "--micro-batch", "auto") == 2
    assert "--micro-batch auto: one of 2 processes" in capsys.readouterr().err


# running


@pytest.mark.usefixtures("no_workers")
def test_study_has_a_row_a_model_with_differences_within_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs.jsonl"
    models = ["--model", "tests.tiny:Tiny", "tests.tiny:DrawsByItself"]
    args = [*models, *SMALL, "--dir", str(tmp_path / "runs"), "--out", str(out), "--format", "json"]
    assert run(*args) == 0
    first, second = json.loads(capsys.readouterr().out)
    trained = [record for record in stored(out) if isinstance(record, TrainingRun)]
    assert [(run.case.model, run.case.seed) for run in trained][:3] == [
        ("tests.tiny:Tiny", 0),
        ("tests.tiny:DrawsByItself", 0),
        ("tests.tiny:Tiny", 1),
    ]
    by_model = [[run.last.loss for run in trained[at::2]] for at in (0, 1)]
    differences = [b - a for a, b in zip(*by_model, strict=True)]
    assert (first["losses"], second["losses"]) == tuple(by_model)
    assert second["difference"] == pytest.approx(sum(differences) / 3)
    assert second["difference_interval"][0] < min(differences)
    assert second["difference_interval"][1] > max(differences)
    assert first["difference"] is None
    assert second["reference"] == "tests.tiny:Tiny"
    assert first["train_flops"] == 2 * first["train_macs"] * 8 * 6
    assert run(*args[:-2]) == 0
    printed = capsys.readouterr()
    assert "loss - tests.tiny:Tiny's" in printed.out
    assert "6 of 6 were in" in printed.err
    assert stored(out) == trained


@pytest.mark.usefixtures("no_workers")
def test_averages_of_similar_decays_have_different_headings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--model", "tests.tiny:Tiny", *SMALL, "--seeds", "1", "--dir", str(tmp_path)]
    assert run(*args, "--ema-decay", "0.9999999", "0.99999999") == 0
    (head, *_) = capsys.readouterr().out.splitlines()
    assert "EMA 0.9999999  EMA 0.99999999" in head


@pytest.mark.usefixtures("no_workers")
def test_folder_of_another_run_is_refused_and_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--model", "tests.tiny:Tiny", *SMALL, "--seeds", "1", "--dir", str(tmp_path / "runs")]
    assert run(*args) == 0
    folder = tmp_path / "runs" / "tests.tiny-Tiny-seed0"
    before = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    capsys.readouterr()
    assert run(*args, "--learning-rate", "1e-3") == 2
    err = capsys.readouterr().err
    assert "another run: case.recipe.learning_rate is 0.0001 in the checkpoint, 0.001 requested" in err
    assert err.count("\n") == 1
    assert {path: path.read_bytes() for path in sorted(folder.iterdir())} == before


def test_force_trains_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started_at = []

    def watched(
        measure: str, case: TrainingCase, environment: Environment, timeout_s: float, setup: dict[str, Any]
    ) -> TrainingRun | Skipped:
        identity = Identity(case=case, environment=environment)
        started_at.append(checkpoint.check(Path(setup["folder"]), identity)[0])
        return in_this_process(measure, case, environment, timeout_s, setup)

    monkeypatch.setattr(worker, "run", watched)
    args = ["--model", "tests.tiny:Tiny", *SMALL, "--seeds", "1", "--dir", str(tmp_path)]
    for more in ([], [], ["--force"]):
        assert run(*args, *more) == 0
    assert started_at == [0, 6, 0]


@pytest.mark.usefixtures("no_workers")
def test_budget_stops_a_run_and_the_same_command_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "runs.jsonl"
    args = ["--model", "tests.tiny:Tiny", *SMALL, "--seeds", "2"]
    assert run(*args, "--dir", str(tmp_path / "a"), "--out", str(whole)) == 0
    capsys.readouterr()
    assert run(*args, "--dir", str(tmp_path / "b"), "--out", str(out), "--budget", "0.000001s") == 0
    err = capsys.readouterr().err
    assert "stopped by --budget; 2 of 2 runs not started" in err
    # the time limit is reached during the run, not before it
    monkeypatch.setattr(convergence, "_decide", lambda *_: ("train", None))
    assert run(*args, "--dir", str(tmp_path / "b"), "--out", str(out), "--budget", "0.000001s") == 0
    printed = capsys.readouterr()
    assert "seed 0 stopped: at step 1 of 6: time limit reached" in printed.out
    assert "the same command resumes the study" in printed.err
    assert stored(out) == []
    monkeypatch.undo()
    monkeypatch.setattr(worker, "run", in_this_process)
    assert run(*args, "--dir", str(tmp_path / "b"), "--out", str(out)) == 0
    assert [curve(run) for run in stored(out)] == [curve(run) for run in stored(whole)]


@pytest.mark.usefixtures("no_workers")
def test_run_that_diverges_is_a_row_of_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs.jsonl"
    args = ["--model", "tests.tiny:Tiny", "tests.tiny:BlowsUp", *SMALL, "--seeds", "1"]
    assert run(*args, "--dir", str(tmp_path / "runs"), "--out", str(out)) == 0
    assert [run.status for run in stored(out)] == ["ok", "not finite"]
    *_, stopped = capsys.readouterr().out.splitlines()
    assert "seed 0 not finite: the training loss is nan in step 5" in stopped
    first, second = training_table.results(stored(out), "tests.tiny:Tiny")
    assert first.train_macs is not None
    assert first.train_flops == 2 * first.train_macs * 8 * 6
    assert second.train_flops is None  # not all steps were taken
    assert set(stopped.split()[2:6]) == {"-"}


def test_worker_that_crashes_is_a_row_and_is_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out = tmp_path / "runs.jsonl"
    args = ["--model", "tests.tiny:KilledWhenReal", *SMALL, "--seeds", "1"]
    args += ["--dir", str(tmp_path / "runs"), "--out", str(out)]
    assert run(*args) == 0
    assert "seed 0 crashed: the worker died of SIGKILL" in capsys.readouterr().out
    tried = []

    def crashes(
        measure: str, case: TrainingCase, environment: Environment, timeout_s: float, setup: dict[str, Any]
    ) -> Skipped:
        tried.append(case.seed)
        return Skipped(case=case, environment=environment, status="crashed", reason="again")

    monkeypatch.setattr(worker, "run", crashes)
    assert run(*args) == 0
    assert tried == [0]


def test_batch_of_a_pass_halves_when_memory_runs_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def too_small(
        measure: str, case: TrainingCase, environment: Environment, timeout_s: float, setup: dict[str, Any]
    ) -> TrainingRun | Skipped:
        tried.append(case.batch)
        if case.batch > 2:
            return Skipped(case=case, environment=environment, status="out of memory", reason="no more")
        return in_this_process(measure, case, environment, timeout_s, setup)

    monkeypatch.setattr(worker, "run", too_small)
    out = tmp_path / "runs.jsonl"
    args = ["--model", "tests.tiny:Tiny", *SMALL, "--seeds", "1", "--out", str(out), "--dir", str(tmp_path)]
    assert run(*args) == 0
    assert tried == [8]
    assert [run.status for run in stored(out)] == ["out of memory"]
    assert run(*args, "--micro-batch", "auto") == 0
    assert tried == [8, 8, 4, 2]
    last = stored(out)[-1]
    assert (last.status, last.case) == ("ok", replace(last.case, batch=2))
    assert run(*args, "--micro-batch", "auto") == 0
    assert len(tried) == 4


def test_sweep_gets_a_job_for_every_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "run", in_this_process)
    args = ["--model", "tests.tiny:Tiny", *SMALL, "--seeds", "2", "--dir", str(tmp_path)]
    jobs = convergence.jobs(convergence.parser().parse_args(args))
    assert len({job.case.label for job in jobs}) == 2
    assert all(job.estimate_s > 0 for job in jobs)
    done = jobs[1].measure()
    assert isinstance(done, TrainingRun)
    keys = [key(job.case, job.environment) for job in jobs]
    assert key(done.case, done.environment) == keys[1] != keys[0]
    with open_store(tmp_path / "runs.jsonl") as store:
        store.append(replace(done, status="crashed", reason="the worker died of SIGKILL"))
        assert jobs[1].stored(store) is None  # a failed run is tried again
        store.append(done)
        assert jobs[1].stored(store) == done
    assert jobs[1].discard_checkpoint
    jobs[1].discard_checkpoint()
    again = jobs[1].measure()
    assert isinstance(again, TrainingRun)
    assert [at.step for at in again.evaluations] == [at.step for at in done.evaluations]
    assert again != done  # trained from the start, not read from the checkpoint


def test_number_of_processes_is_part_of_the_key() -> None:
    (only,) = planned("--model", "tests.tiny:Tiny", "--seeds", "1")
    several = replace(only.case, processes=2)
    assert key(only.case, only.environment) != key(several, only.environment)


# killed and resumed

# children are forked from one process that has imported everything and computed nothing yet
TRAINING = """
import json, os, signal, sys
import torch._dynamo  # the optimizer's first step would import it, in every child
from bench.datasets import datasets
from bench.store.codec import decode, to_line
from bench.training import loop, processes
from bench.training.study import PlannedRun

data = datasets.load("digits")
whole, killed = (decode(PlannedRun, json.loads(text)) for text in sys.argv[1:])


def begin(run):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        done = loop.train(
            run.identity, data, run.folder, processes=processes.Processes("cpu"),
            checkpoint_every=run.setup.checkpoint_every, train_macs=1,
            on_progress=lambda progress: os.write(writing, b"%d\\n" % progress.step),
        )
        os.write(writing, to_line(done).encode())
        os._exit(0)
    os.close(writing)
    return child, os.fdopen(reading)


def end(run):
    child, lines = begin(run)
    *_, last = lines
    sys.stdout.write(last)
    os.waitpid(child, 0)


for at in (1, 2, 4, 12, 16, 21, 27, 29):
    child, lines = begin(killed)
    for line in lines:
        if int(line) >= at:
            os.kill(child, signal.SIGKILL)
            break
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, status
    sys.stderr.write(line)
end(killed)
end(whole)
"""


def test_killed_run_ends_with_the_same_losses_to_the_last_bit(tmp_path: Path) -> None:
    settings = ["--batch", "8", "--steps", "30", "--evaluate-every", "7", "--validation-images", "20"]
    model = ["--model", "tests.tiny:DrawsByItself", "--seeds", "1", "--checkpoint-every", "4"]
    runs = [
        json.dumps(asdict(run))
        for name in ("whole", "killed")
        for run in planned(*model, *settings, "--dir", str(tmp_path / name))
    ]
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, *runs],
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
    killed, whole = (from_dict(json.loads(line)) for line in done.stdout.splitlines())
    assert isinstance(killed, TrainingRun)
    assert isinstance(whole, TrainingRun)
    assert [at.step for at in whole.evaluations] == [0, 7, 14, 21, 28, 30]
    assert curve(killed) == curve(whole)
