"""Trains one backbone from one seed: steps, evaluations between them, checkpoints, and the record of it all.

A run is a function of its Identity: what a step needs is determined by the seed and the step's number
(`bench.training.feed`), and what layers draw by themselves comes from global generators, which checkpoints
hold. On a CPU it is the same to the last bit however often it was killed and went on.

The clock stands still in evaluations, while checkpoints are written, and in the first pass, which compiles
and loads kernels; so do the joules. Nothing waits for a GPU between two checks of the losses.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.checkpointing import checkpointed
from bench.datasets.datasets import Dataset
from bench.machine import device, telemetry
from bench.records.record import Evaluation, Trained
from bench.training import checkpoint, objective, rng
from bench.training.checkpoint import CheckpointError, State, decay_name
from bench.training.feed import Feed
from bench.training.identity import Identity
from bench.training.processes import Processes
from bench.training.validation import Losses, Validation
from models.contract import build
from models.layers import LabelDropout

CHECK_EVERY = 50  # steps between looks at the losses where looking means to wait for others


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is."""

    step: int
    steps: int
    loss: float  # of the last step looked at, in training
    seconds: float  # of training so far

    @property
    def left_s(self) -> float:
        """Of training, at the pace so far; evaluations come on top."""
        return self.seconds / self.step * (self.steps - self.step) if self.step else math.nan


class OutOfTimeError(Exception):
    """The time for a run is up; its checkpoint is written."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped at step {step}")
        self.step = step


class _NotFiniteError(ArithmeticError):
    """A loss is inf or NaN."""


class Trainer:
    """A run between two steps; made fresh from its seed, and put where a checkpoint left off by `resume`.

    Args:
        identity: what is trained, and how.
        data: its images and labels.
        processes: that train together.
    """

    def __init__(self, identity: Identity, data: Dataset, processes: Processes) -> None:
        run, recipe = identity.run, identity.recipe
        self.identity = identity
        self.processes = processes
        self.objective = objective.find(recipe.objective)
        device.set_precision(run.precision)
        self._synchronise = device.synchronise(processes.device)

        rng.seed_global(identity.seed, "initialisation")
        # on the CPU, so that every device begins with the same weights
        self.model = build(run.model, identity.task, device="cpu").to(processes.device)
        if run.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in its stub
        self.parameters = dict(self.model.named_parameters())
        self.ema = [
            {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
            for _ in recipe.ema_decays
        ]
        self.optimizer = torch.optim.AdamW(
            [parameter for parameter in self.parameters.values() if parameter.requires_grad],
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        self.feed = Feed(data, self.objective, recipe, identity.seed, processes.device)
        self.validation = Validation(
            data,
            self.objective,
            images=recipe.validation_images,
            draws=recipe.validation_draws,
            chunk=run.batch,
            processes=processes,
        )
        rng.seed_global(identity.seed, "layers", processes.rank)

        self.step = 0
        self.evaluations: tuple[Evaluation, ...] = ()
        self.seconds = 0.0
        self.joules = 0.0  # of the devices of all processes; nan where nothing reads them
        self._losses: list[Tensor] = []  # of the steps since the last evaluation, looked at, each (k,)
        self._unseen: list[Tensor] = []  # and since the last look, each this process's share of the mean
        self._wrapped = self.model
        self._monitor = telemetry.monitor(processes.device)

    def resume(self, state: State) -> None:
        """Go on from a checkpoint of the same run."""
        self.model.load_state_dict(state.model)
        for averages, decay in zip(self.ema, self.identity.recipe.ema_decays, strict=True):
            for name, value in state.ema[decay_name(decay)].items():
                averages[name].copy_(value)
        self.optimizer.load_state_dict(state.optimizer)
        self.step = state.step
        self.evaluations = state.evaluations
        self.seconds = state.seconds
        self.joules = math.nan if state.joules is None else state.joules
        self._losses = [state.losses]
        rng.restore(state.rng[self.processes.rank], self.processes.device)

    def state(self) -> State:
        """What a checkpoint holds; all processes must ask for it together, with no loss unseen."""
        assert not self._unseen
        return State(
            identity=self.identity,
            step=self.step,
            model=dict(self.model.state_dict()),
            ema={
                decay_name(decay): averages
                for decay, averages in zip(self.identity.recipe.ema_decays, self.ema, strict=True)
            },
            optimizer=self.optimizer.state_dict(),
            rng=self.processes.gather(rng.state(self.processes.device)),
            evaluations=self.evaluations,
            losses=torch.cat([torch.empty(0), *self._losses]),
            seconds=self.seconds,
            joules=self._known_joules,
        )

    @property
    def _known_joules(self) -> float | None:
        return None if math.isnan(self.joules) else self.joules

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Within it steps can be taken: blocks recompute, graphs are compiled, processes are joined."""
        run = self.identity.run
        with ExitStack() as settings:
            if run.checkpointing:
                settings.enter_context(checkpointed(self.model))
            if run.compile:
                self.model.compile()
            all_used = self._first_pass()
            self._wrapped = self.processes.wrap(self.model, all_used)
            yield

    def _first_pass(self) -> bool:
        """Run forwards and backwards once without a trace; tells whether every parameter got a gradient."""
        held = rng.state(self.processes.device)
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        self._passes(self.model, self.step)
        self._synchronise()
        all_used = all(p.grad is not None for p in self.parameters.values() if p.requires_grad)
        self.optimizer.zero_grad()
        for buffer, before in zip(self.model.buffers(), buffers, strict=True):
            buffer.copy_(before)
        rng.restore(held, self.processes.device)
        return all_used

    def _called(self, model: nn.Module) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """The network as the objective calls it: in this run's precision and layout."""
        run, kind = self.identity.run, torch.device(self.processes.device).type

        def called(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            if run.channels_last:
                x = x.to(memory_format=torch.channels_last)
            with torch.autocast(kind, torch.bfloat16, enabled=run.precision == "bf16"):
                out: Tensor = model(x, t, y)
            return out

        return called

    def _passes(self, model: nn.Module, step: int) -> Tensor:
        """Add up the gradients of a step; returns this process's share of the mean loss, ()."""
        total = self.identity.recipe.batch
        share = total // self.processes.count
        micro = self.identity.run.batch
        begin = self.processes.rank * share
        model.train()
        for module in model.modules():
            if isinstance(module, LabelDropout):
                module.eval()  # the feed drops labels, the same ones for all arms
        batch = self.feed.batch(step, begin, begin + share)
        called = self._called(model)
        loss = torch.zeros((), device=batch.x0.device)
        for start in range(0, share, micro):
            last = start + micro >= share
            part = batch.part(start, start + micro)
            with nullcontext() if last else self.processes.unsynchronised(model):
                losses = self.objective.losses(called, part.x0, part.t, part.y, part.noise).sum() / total
                # gradients are averaged over the processes, and each has its share of the mean only
                (losses * self.processes.count).backward()
            loss += losses.detach()
        return loss

    def train_step(self) -> None:
        """One step of the optimizer and of the averages. Waits for no device."""
        self._unseen.append(self._passes(self._wrapped, self.step))
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            new = [parameter.detach() for parameter in self.parameters.values()]
            for averages, decay in zip(self.ema, self.identity.recipe.ema_decays, strict=True):
                torch._foreach_lerp_(list(averages.values()), new, 1 - decay)
        self.step += 1

    def look(self) -> float | None:
        """Wait for the losses of the steps since the last look; gives the last of them, None without any.

        Raises:
            _NotFiniteError: one of them is inf or NaN; it names the step.
        """
        if not self._unseen:
            return None
        losses = self.processes.sum(torch.stack(self._unseen)).cpu()
        first = self.step - len(self._unseen) + 1
        self._unseen.clear()
        for step, loss in enumerate(losses.tolist(), start=first):
            if not math.isfinite(loss):
                raise _NotFiniteError(f"the training loss is {loss} in step {step}")
        self._losses.append(losses)
        return float(losses[-1])

    def evaluate(self) -> None:
        """Measure the trained and the averaged weights on the validation set.

        Raises:
            _NotFiniteError: a loss is inf or NaN.
        """
        self.look()
        self.model.eval()
        trained = self._validated("trained")
        averaged = []
        for averages, decay in zip(self.ema, self.identity.recipe.ema_decays, strict=True):
            with self._exchanged(averages):
                averaged.append(self._validated(f"averaged ({decay_name(decay)})"))
        seen = torch.cat([torch.empty(0), *self._losses])
        self._losses.clear()
        self.evaluations += (
            Evaluation(
                step=self.step,
                seconds=self.seconds,
                joules=self._known_joules if self.seconds >= telemetry.SHORTEST_ENERGY_WINDOW_S else None,
                train_loss=float(seen.double().mean()) if len(seen) else None,
                loss=trained.mean,
                ema_losses=tuple(losses.mean for losses in averaged),
                bin_losses=trained.bins,
            ),
        )

    def _validated(self, weights: str) -> Losses:
        losses = self.validation.losses(self._called(self.model))
        if not math.isfinite(losses.mean):
            raise _NotFiniteError(
                f"the validation loss of the {weights} weights is {losses.mean} at step {self.step}"
            )
        return losses

    @contextmanager
    def _exchanged(self, averages: dict[str, Tensor]) -> Iterator[None]:
        """Within it the network has averaged weights."""
        own = [parameter.detach() for parameter in self.parameters.values()]
        held = [value.clone() for value in own]
        torch._foreach_copy_(own, list(averages.values()))
        try:
            yield
        finally:
            torch._foreach_copy_(own, held)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Within it the clock and the joules run on."""
        self._synchronise()
        energy = self._energy_j()
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._synchronise()
            self.seconds += time.perf_counter() - begin
            used = torch.tensor(self._energy_j() - energy, device=self.processes.device)
            self.joules += float(self.processes.sum(used))

    def _energy_j(self) -> float:
        """Of this process's device since some moment; nan where nothing reads it."""
        read = self._monitor.energy_j() if self._monitor else None
        return math.nan if read is None else read


def train(
    identity: Identity,
    data: Dataset,
    folder: Path,
    *,
    processes: Processes,
    checkpoint_every: int,
    train_macs: int,
    progress: Callable[[Progress], None] = lambda _: None,
    out_of_time: Callable[[], bool] = lambda: False,
) -> Trained:
    """Train in a run folder from its newest checkpoint, or from the start, to the end.

    Args:
        identity: what is trained, and how.
        data: images and labels, those that the recipe names.
        folder: of the run; the first process alone writes to it.
        processes: that train together, all of which call this.
        checkpoint_every: steps.
        train_macs: for the record.
        progress: called by the first process at every look at the losses.
        out_of_time: asked by the first process at every look at the losses.

    Returns:
        The record; with status "not finite" where a loss was inf or NaN.

    Raises:
        CheckpointError: the folder holds another run's checkpoints or damaged ones only, or is in use.
        OutOfTimeError: `out_of_time` said so.
    """
    with checkpoint.locked(folder) if processes.rank == 0 else nullcontext():
        processes.first(lambda: None)  # none reads before the first process has the folder
        state, _ = checkpoint.latest(folder, identity)
        steps = set(processes.gather(state.step if state else 0))
        if len(steps) > 1:
            raise CheckpointError(
                f"{folder}: the processes find steps {', '.join(map(str, sorted(steps)))} there; "
                "it must be a folder that all machines share"
            )
        if state is not None and state.step == identity.recipe.steps:
            return _record(state.identity, train_macs, state.evaluations)
        trainer = Trainer(identity if state is None else state.identity, data, processes)
        if state is not None:
            trainer.resume(state)
        try:
            _run(trainer, folder, checkpoint_every, progress, out_of_time)
        except _NotFiniteError as error:
            return _record(trainer.identity, train_macs, trainer.evaluations, "not finite", str(error))
        return _record(trainer.identity, train_macs, trainer.evaluations)


def _record(
    identity: Identity,
    train_macs: int,
    evaluations: tuple[Evaluation, ...],
    status: str = "ok",
    reason: str = "",
) -> Trained:
    return Trained(
        run=identity.run,
        recipe=identity.recipe,
        seed=identity.seed,
        processes=identity.processes,
        train_macs=train_macs,
        evaluations=evaluations,
        status=status,
        reason=reason,
    )


def _run(
    trainer: Trainer,
    folder: Path,
    checkpoint_every: int,
    progress: Callable[[Progress], None],
    out_of_time: Callable[[], bool],
) -> None:
    recipe, processes = trainer.identity.recipe, trainer.processes
    alone_on_cpu = processes.count == 1 and processes.device == "cpu"
    look_every = 1 if alone_on_cpu else CHECK_EVERY

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
                for every in (recipe.evaluate_every, checkpoint_every, look_every)
            ]
            with trainer.timed():
                while trainer.step < min(*stops, recipe.steps):
                    trainer.train_step()
                loss = trainer.look()
            done = trainer.step == recipe.steps
            if trainer.step % recipe.evaluate_every == 0 or done:
                trainer.evaluate()
            if processes.rank == 0 and loss is not None:
                progress(Progress(step=trainer.step, steps=recipe.steps, loss=loss, seconds=trainer.seconds))
            late = not done and processes.first(out_of_time)
            if done or late or trainer.step % checkpoint_every == 0:
                save(keep=1 if done else checkpoint.KEPT)
            if late:
                raise OutOfTimeError(trainer.step)
