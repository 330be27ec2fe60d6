"""Train one run in its folder: steps, evaluations, checkpoints, time limit, record."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from bench.datasets.datasets import Dataset
from bench.records.training import Evaluation, TrainingRun
from bench.training import checkpoint
from bench.training.checkpoint import CheckpointError
from bench.training.identity import Identity
from bench.training.processes import Processes
from bench.training.progress import Progress
from bench.training.trainer import NotFiniteError, Trainer

READ_EVERY = 50  # steps between reads of losses if a read waits for a GPU or other processes


class OutOfTimeError(Exception):
    """A run exceeded its time limit; a checkpoint is written."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped at step {step}")
        self.step = step


def train(
    identity: Identity,
    data: Dataset,
    folder: Path,
    *,
    processes: Processes,
    checkpoint_every: int,
    train_macs: int,
    on_progress: Callable[[Progress], None] = lambda _: None,
    out_of_time: Callable[[], bool] = lambda: False,
) -> TrainingRun:
    """Train to the end of the recipe, from the newest checkpoint in a run folder or from the start.

    All processes call this; the first one alone writes to the folder, and calls `on_progress` and
    `out_of_time` (true stops the run) after each read of the losses. A loss of inf or
    NaN ends the run with the status "not finite".

    Raises:
        CheckpointError: the folder has checkpoints of another run, only damaged ones, or is locked.
        OutOfTimeError: `out_of_time` returned true.
    """
    with checkpoint.locked(folder) if processes.rank == 0 else nullcontext():
        processes.broadcast(lambda: None)  # barrier: the first process locks the folder before others read
        state, _ = checkpoint.latest(folder, identity)
        steps = set(processes.gather(state.step if state else 0))
        if len(steps) > 1:
            raise CheckpointError(
                f"{folder}: the processes find checkpoints of steps {', '.join(map(str, sorted(steps)))}; "
                "it must be a folder that all machines share"
            )
        if state is not None and state.step == identity.case.recipe.steps:
            return _record(state.identity, train_macs, state.evaluations)
        trainer = Trainer(identity if state is None else state.identity, data, processes)
        if state is not None:
            trainer.resume(state)
        try:
            _run(trainer, folder, checkpoint_every, on_progress, out_of_time)
        except NotFiniteError as error:
            return _record(trainer.identity, train_macs, trainer.evaluations, "not finite", str(error))
        return _record(trainer.identity, train_macs, trainer.evaluations)


def _record(
    identity: Identity,
    train_macs: int,
    evaluations: tuple[Evaluation, ...],
    status: str = "ok",
    reason: str = "",
) -> TrainingRun:
    return TrainingRun(
        case=identity.case,
        environment=identity.environment,
        train_macs=train_macs,
        evaluations=evaluations,
        status=status,
        reason=reason,
    )


def _run(
    trainer: Trainer,
    folder: Path,
    checkpoint_every: int,
    on_progress: Callable[[Progress], None],
    out_of_time: Callable[[], bool],
) -> None:
    recipe, processes = trainer.identity.case.recipe, trainer.processes
    single_cpu = processes.count == 1 and processes.device == "cpu"
    read_every = 1 if single_cpu else READ_EVERY

    def save(keep: int = checkpoint.KEPT) -> None:
        state = trainer.state()
        if processes.rank == 0:
            checkpoint.save(folder, state, keep)

    if not trainer.evaluations:
        trainer.evaluate()
    with trainer.ready():
        while trainer.step < recipe.steps:
            stops = [
                (trainer.step // every + 1) * every
                for every in (recipe.evaluate_every, checkpoint_every, read_every)
            ]
            with trainer.timed():
                while trainer.step < min(*stops, recipe.steps):
                    trainer.train_step()
                loss = trainer.read_losses()
            done = trainer.step == recipe.steps
            if trainer.step % recipe.evaluate_every == 0 or done:
                trainer.evaluate()
            if processes.rank == 0 and loss is not None:
                on_progress(
                    Progress(step=trainer.step, steps=recipe.steps, loss=loss, seconds=trainer.seconds)
                )
            late = not done and processes.broadcast(out_of_time)
            if done or late or trainer.step % checkpoint_every == 0:
                save(keep=1 if done else checkpoint.KEPT)
            if late:
                raise OutOfTimeError(trainer.step)
