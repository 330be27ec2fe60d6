"""Training: batches, steps, averages, evaluations, resume and the end of a run."""

import itertools
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.datasets import datasets
from bench.datasets.datasets import Dataset
from bench.records.training import Recipe, TrainingRun
from bench.store.codec import from_dict, to_dict
from bench.training import checkpoint, loop, objectives
from bench.training.feed import Batch, Feed
from bench.training.identity import Identity
from bench.training.loop import OutOfTimeError
from bench.training.processes import Processes
from bench.training.progress import Progress
from bench.training.trainer import Trainer
from bench.training.validation import BINS, Validation, stratified, validation_indices
from tests.training.test_checkpoint import CASE, IDENTITY, RECIPE

DIGITS = datasets.load("digits")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of small networks, whose threads would wait for one another
    yield
    torch.set_num_threads(threads)


def recipe(objective: str = "iddpm", **changed: object) -> Recipe:
    usual = replace(
        RECIPE, objective=objective, data_sha256=DIGITS.sha256, batch=8, steps=8, validation_images=40
    )
    return replace(usual, **changed)  # type: ignore[arg-type]


def identity(model: str = "tests.tiny:Tiny", micro: int = 8, seed: int = 3, **changed: object) -> Identity:
    of = recipe(**changed)  # type: ignore[arg-type]
    return replace(IDENTITY, case=replace(CASE, model=model, batch=micro, recipe=of, seed=seed))


def run(of: Identity, folder: Path, *, every: int = 4, data: Dataset = DIGITS) -> TrainingRun:
    return loop.train(of, data, folder, processes=Processes("cpu"), checkpoint_every=every, train_macs=1)


def losses(trained: TrainingRun) -> list[tuple[object, ...]]:
    """The values of a curve without its times."""
    return [(at.step, at.train_loss, at.loss, at.ema_losses, at.bin_losses) for at in trained.evaluations]


def feed(seed: int = 0, **changed: object) -> Feed:
    return Feed(DIGITS, objectives.find("iddpm"), recipe(**changed), seed, "cpu")  # type: ignore[arg-type]


# batches


def equal(a: Batch, b: Batch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


def test_batch_of_a_step_does_not_depend_on_earlier_calls() -> None:
    first, again = feed(), feed()
    wanted = first.batch(300)
    for step in (5, 0, 7):
        again.batch(step)
    assert equal(again.batch(300), wanted)
    assert not equal(again.batch(301), wanted)
    assert not equal(feed(seed=1).batch(300), wanted)


def test_part_of_a_batch_equals_that_part_of_the_whole() -> None:
    whole = feed().batch(2)
    assert equal(feed().batch(2, 3, 7), whole.part(3, 7))


def test_epoch_has_every_image_once_in_an_order_of_its_own() -> None:
    images = len(DIGITS.train)
    given = feed(batch=100)
    indices = torch.cat([torch.from_numpy(given._indices(step)) for step in range(30)])
    first, second = indices[:images], indices[images : 2 * images]
    assert torch.equal(first.sort().values, torch.arange(images))
    assert torch.equal(second.sort().values, torch.arange(images))
    assert not torch.equal(first, second)


def test_half_of_the_images_flip_and_a_share_of_labels_drops() -> None:
    plain = feed(batch=1000, flip=False, label_dropout=0.0).batch(0)
    changed = feed(batch=1000, flip=True, label_dropout=0.3).batch(0)
    mirrored = (changed.x0 == plain.x0.flip(-1)).flatten(1).all(1)
    kept = (changed.x0 == plain.x0).flatten(1).all(1)
    assert bool((mirrored | kept).all())
    assert 0.4 < mirrored.float().mean() < 0.6
    dropped = changed.y == 10
    assert torch.equal(changed.y[~dropped], plain.y[~dropped])
    assert 0.25 < dropped.float().mean() < 0.35
    assert torch.equal(changed.noise, plain.noise)
    assert torch.equal(changed.t, plain.t)


# the validation set


def validation(name: str = "iddpm", chunk: int = 40, images: int = 40, draws: int = 1) -> Validation:
    return Validation(
        DIGITS, objectives.find(name), images=images, draws=draws, chunk=chunk, processes=Processes("cpu")
    )


@pytest.mark.parametrize("name", objectives.NAMES)
def test_validation_timesteps_are_stratified(name: str) -> None:
    of = objectives.find(name)
    t = stratified(of, 200)
    counts = torch.histc(of.noise_level(t).double(), bins=BINS, min=0, max=1)
    assert counts.tolist() == [20.0] * BINS
    assert not torch.equal(t, t.sort().values)
    assert torch.equal(t, stratified(of, 200))


def test_validation_set_is_fixed_and_has_distinct_images() -> None:
    assert equal(validation().batch, validation().batch)
    images = validation_indices(DIGITS, 200)
    assert len(images.unique()) == 200
    twice = validation(draws=2).batch
    assert torch.equal(twice.x0[:40], twice.x0[40:])
    assert not torch.equal(twice.t[:40], twice.t[40:])


def _noise(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    return torch.cat([x * 0.9 + 0.1 * y[:, None, None, None], torch.zeros_like(x)], dim=1)


def test_validation_loss_does_not_depend_on_the_pass_size() -> None:
    whole = validation(chunk=40).losses(_noise)
    part = validation(chunk=7).losses(_noise)
    assert part.mean == pytest.approx(whole.mean, rel=1e-6)
    assert part.bins == pytest.approx(whole.bins, rel=1e-6)


def test_loss_is_the_mean_of_the_losses_by_range_of_noise() -> None:
    found = validation(images=100).losses(_noise)
    counts = validation(images=100).rows[1:].sum(1)
    assert found.mean == pytest.approx(
        sum(b * float(n) for b, n in zip(found.bins, counts, strict=True)) / 100
    )
    t = objectives.find("iddpm").noise_level(validation(images=100).batch.t)
    of = validation(images=100)
    each = of.objective.losses(_noise, of.batch.x0, of.batch.t, of.batch.y, of.batch.noise)
    assert found.bins[0] == pytest.approx(float(each[t < 0.1].mean()), rel=1e-5)


# a step


def after(of: Identity, steps: int = 3) -> Trainer:
    made = Trainer(of, DIGITS, Processes("cpu"))
    with made.ready():
        for _ in range(steps):
            made.train_step()
        made.read_losses()
    return made


def test_gradients_of_several_passes_sum_to_those_of_one() -> None:
    whole, parts = after(identity(micro=8)), after(identity(micro=3))
    assert torch.cat(parts._losses).tolist() == pytest.approx(torch.cat(whole._losses).tolist(), rel=1e-5)
    for name, parameter in whole.parameters.items():
        assert torch.allclose(parts.parameters[name], parameter, atol=1e-6)


def test_activation_checkpointing_does_not_change_training() -> None:
    usual = identity("tests.narrow:fcdm", batch=4, micro=4)
    recomputed = replace(usual, case=replace(usual.case, checkpointing=True))
    a, b = after(usual, 2), after(recomputed, 2)
    for name, parameter in a.parameters.items():
        assert torch.allclose(b.parameters[name], parameter, atol=1e-6), name


def test_averages_follow_the_weights_with_their_decay() -> None:
    of = identity(ema_decays=(0.9, 0.5), learning_rate=0.01)
    made = Trainer(of, DIGITS, Processes("cpu"))
    by_hand = [made.parameters["head.weight"].detach().clone() for _ in range(2)]
    with made.ready():
        for _ in range(4):
            made.train_step()
            new = made.parameters["head.weight"].detach()
            by_hand = [d * old + (1 - d) * new for d, old in zip((0.9, 0.5), by_hand, strict=True)]
    for averages, wanted in zip(made.ema, by_hand, strict=True):
        assert torch.allclose(averages["head.weight"], wanted, atol=1e-6)


def test_first_pass_changes_no_weights() -> None:
    def weights_after(warm: bool) -> list[Tensor]:
        made = Trainer(identity("tests.tiny:DrawsByItself"), DIGITS, Processes("cpu"))
        if warm:
            made._first_pass()
        made.train_step()
        return [p.detach().clone() for p in made.parameters.values()]

    for a, b in zip(weights_after(True), weights_after(False), strict=True):
        assert torch.equal(a, b)


def test_network_drops_no_labels_by_itself() -> None:
    made = Trainer(
        identity("tests.tiny:DropsLabels", label_dropout=0.5, batch=64, micro=64),
        DIGITS,
        Processes("cpu"),
    )
    made.train_step()
    left = made.model.left[-1]  # type: ignore[index, union-attr]
    assert made.model.training
    assert torch.equal(left, made.feed.batch(0).y)  # type: ignore[arg-type]
    assert 10 in left  # type: ignore[operator]


def test_initial_weights_depend_on_the_seed() -> None:
    def weights(seed: int) -> Tensor:
        return Trainer(identity(seed=seed), DIGITS, Processes("cpu")).parameters["stem.weight"]

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_and_losses_are_fp32_in_every_precision(precision: str) -> None:
    of = identity()
    case = replace(of.case, precision=precision)
    made = Trainer(replace(of, case=case), DIGITS, Processes("cpu"))
    computed = set()
    made.model.head.register_forward_hook(lambda _, __, out: computed.add(out.dtype))  # type: ignore[union-attr]
    made.train_step()
    made.read_losses()
    assert computed == {torch.bfloat16 if precision == "bf16" else torch.float32}
    assert {p.dtype for p in made.parameters.values()} == {torch.float32}
    assert made._losses[0].dtype == torch.float32


def test_single_process_needs_no_accelerate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert run(identity(), tmp_path).status == "ok"


# whole runs


def test_evaluations_are_at_step_0_at_intervals_and_at_the_end(tmp_path: Path) -> None:
    trained = run(identity(steps=7, evaluate_every=3), tmp_path)
    assert [at.step for at in trained.evaluations] == [0, 3, 6, 7]
    first = trained.evaluations[0]
    assert (first.train_loss, first.seconds, first.joules) == (None, 0.0, None)
    assert first.ema_losses == (first.loss, first.loss)
    assert len(first.bin_losses) == BINS
    assert from_dict(json.loads(json.dumps(to_dict(trained)))) == trained


@pytest.mark.parametrize(
    ("model", "of"),
    [
        *itertools.product(["tests.narrow:fcdm", "tests.narrow:dit"], ["iddpm", "flow"]),
        ("tests.narrow:dit", "flow-x"),
        ("tests.narrow:hdit", "edm"),
    ],
)
def test_published_network_learns_the_digits(tmp_path: Path, model: str, of: str) -> None:
    learning = identity(
        model,
        objective=of,
        steps=40,
        batch=32,
        micro=32,
        learning_rate=2e-3,
        evaluate_every=20,
        ema_decays=(0.5,),
    )
    trained = run(learning, tmp_path)
    before, _, end = trained.evaluations
    assert end.loss < 0.75 * before.loss
    assert end.ema_losses[0] < 0.75 * before.loss
    assert end.train_loss is not None
    assert end.train_loss < before.loss


def test_a_size_of_ours_trains_for_two_steps(tmp_path: Path) -> None:
    trained = run(
        identity("DiT-Ti/2", steps=2, batch=2, micro=2, evaluate_every=2, validation_images=10), tmp_path
    )
    assert trained.status == "ok"
    before, end = trained.evaluations
    assert end.loss < before.loss


def test_stopped_run_resumes_to_the_same_losses(tmp_path: Path) -> None:
    of = identity("tests.tiny:DrawsByItself", steps=10, evaluate_every=4)
    wanted = losses(run(of, tmp_path / "whole"))
    for stop_at in (1, 4, 6, 9):
        seen: list[int] = []

        def tell(progress: Progress, seen: list[int] = seen) -> None:
            seen.append(progress.step)

        def stop(seen: list[int] = seen, stop_at: int = stop_at) -> bool:
            return seen[-1] >= stop_at

        folder = tmp_path / str(stop_at)
        with pytest.raises(OutOfTimeError, match=f"step {stop_at}"):
            loop.train(
                of,
                DIGITS,
                folder,
                processes=Processes("cpu"),
                checkpoint_every=3,
                train_macs=1,
                on_progress=tell,
                out_of_time=stop,
            )
        assert losses(run(of, folder, every=5)) == wanted


def test_ended_run_is_not_trained_again(tmp_path: Path) -> None:
    trained = run(identity(), tmp_path)
    assert len(checkpoint.paths(tmp_path)) == 1
    assert run(identity(), tmp_path) == trained


def test_loss_that_is_not_finite_ends_the_run_with_the_step(tmp_path: Path) -> None:
    trained = run(identity("tests.tiny:BlowsUp", steps=20, evaluate_every=2), tmp_path, every=1)
    assert trained.status == "not finite"
    assert trained.reason == "the training loss is nan in step 5"
    assert [at.step for at in trained.evaluations] == [0, 2, 4]
    assert all(math.isfinite(at.loss) for at in trained.evaluations)
    assert checkpoint.check(tmp_path, identity("tests.tiny:BlowsUp", steps=20, evaluate_every=2)) == (4, [])


def test_untrained_network_that_gives_nan_has_no_evaluation(tmp_path: Path) -> None:
    trained = run(identity("tests.tiny:Overflows"), tmp_path)
    assert trained.status == "not finite"
    assert trained.evaluations == ()
    assert "at step 0" in trained.reason


def test_evaluations_do_not_count_as_seconds_or_joules(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    class Meter:
        def energy_j(self) -> float:
            return 100 * now

    def worked(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr("bench.training.trainer.time.perf_counter", lambda: now)
    monkeypatch.setattr("bench.training.trainer.telemetry.monitor", lambda device: Meter())
    made = Trainer(identity(), DIGITS, Processes("cpu"))
    looked = made.validation.losses
    monkeypatch.setattr(made.validation, "losses", lambda model: (worked(50.0), looked(model))[1])
    made.evaluate()
    with made.timed():
        worked(4.0)
    made.evaluate()
    with made.timed():
        worked(2.0)
    made.evaluate()
    assert [at.seconds for at in made.evaluations] == [0.0, 4.0, 6.0]
    assert [at.joules for at in made.evaluations] == [
        None,
        None,
        600.0,
    ]  # a meter's steps are coarse below 5 s


def test_without_an_energy_counter_joules_are_none(tmp_path: Path) -> None:
    trained = run(identity(), tmp_path)
    assert {at.joules for at in trained.evaluations} == {None}
