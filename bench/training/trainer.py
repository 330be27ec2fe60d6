"""The state of one training run: steps, averages, evaluations, clock.

A run is a function of its Identity. Seed and step number determine the batch (`bench.training.feed`). Layers
draw from the global generators, whose states are in the checkpoints. On a CPU a resumed run is therefore
bitwise equal to an uninterrupted one.

Seconds and joules do not include evaluations, checkpoints and the first pass, which compiles and loads
kernels. Nothing waits for a GPU between two reads of the losses.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from bench.datasets.datasets import Dataset
from bench.machine import device, telemetry
from bench.records.training import Evaluation
from bench.training import objectives, rng
from bench.training.checkpoint import State, decay_name
from bench.training.feed import Feed
from bench.training.identity import Identity
from bench.training.processes import Processes
from bench.training.validation import Losses, Validation
from models.checkpointing import checkpointed
from models.contract import build
from models.layers.conditions import LabelDropout


class NotFiniteError(ArithmeticError):
    """A loss is inf or NaN."""


class Trainer:
    """A run between two steps, initialised from its seed; `resume` sets it to a checkpoint."""

    def __init__(self, identity: Identity, data: Dataset, processes: Processes) -> None:
        case, recipe = identity.case, identity.case.recipe
        self.identity = identity
        self.processes = processes
        self.objective = objectives.find(recipe.objective)
        device.set_precision(case.precision)
        self._synchronise = device.synchronise(processes.device)

        rng.seed_global(case.seed, "initialisation")
        # built on the CPU, so that the initial weights are equal on every device
        self.model = build(
            case.model, objectives.task_of(recipe, case.latent_size), device="cpu", impl=case.impl
        ).to(processes.device)
        if case.channels_last:
            device.lay_channels_last(self.model)
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
        self.feed = Feed(data, self.objective, recipe, case.seed, processes.device)
        self.validation = Validation(
            data,
            self.objective,
            images=recipe.validation_images,
            draws=recipe.validation_draws,
            chunk=case.batch,
            processes=processes,
        )
        rng.seed_global(case.seed, "layers", processes.rank)

        self.step = 0
        self.evaluations: tuple[Evaluation, ...] = ()
        self.seconds = 0.0
        self.joules = 0.0  # sum over the devices of all processes; nan if unavailable
        self._losses: list[Tensor] = []  # read losses since the last evaluation, each (k,)
        # losses since the last read, each this process's share of the mean, ()
        self._unread: list[Tensor] = []
        self._wrapped = self.model
        self._monitor = telemetry.monitor(processes.device)

    def resume(self, state: State) -> None:
        """Set the run to one of its checkpoints."""
        self.model.load_state_dict(state.model)
        for averages, decay in zip(self.ema, self.identity.case.recipe.ema_decays, strict=True):
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
        """The content of a checkpoint. All processes must call this after `read_losses`."""
        assert not self._unread
        return State(
            identity=self.identity,
            step=self.step,
            model=dict(self.model.state_dict()),
            ema={
                decay_name(decay): averages
                for decay, averages in zip(self.identity.case.recipe.ema_decays, self.ema, strict=True)
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
        """Context manager for `train_step`: sets up checkpointing, compile and the process group."""
        case = self.identity.case
        with ExitStack() as settings:
            if case.checkpointing:
                settings.enter_context(checkpointed(self.model))
            if case.is_compiled:
                self.model.compile()
            all_used = self._first_pass()
            self._wrapped = self.processes.wrap(self.model, all_used)
            yield

    def _first_pass(self) -> bool:
        """Run forward and backward once, undo the effects, return whether every parameter got a gradient."""
        generators = rng.state(self.processes.device)
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        self._passes(self.model, self.step)
        self._synchronise()
        all_used = all(p.grad is not None for p in self.parameters.values() if p.requires_grad)
        self.optimizer.zero_grad()
        for buffer, before in zip(self.model.buffers(), buffers, strict=True):
            buffer.copy_(before)
        rng.restore(generators, self.processes.device)
        return all_used

    def _called(self, model: nn.Module) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """The network, called with inputs in the precision and memory format of the case."""
        case, kind = self.identity.case, torch.device(self.processes.device).type

        def called(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            if case.channels_last:
                x = x.to(memory_format=torch.channels_last)
            with torch.autocast(kind, torch.bfloat16, enabled=case.precision == "bf16"):
                out: Tensor = model(x, t, y)
            return out

        return called

    def _passes(self, model: nn.Module, step: int) -> Tensor:
        """Accumulate the gradients of a step; return this process's share of the mean loss, ()."""
        total = self.identity.case.recipe.batch
        share = total // self.processes.count
        micro = self.identity.case.batch
        begin = self.processes.rank * share
        model.train()
        for module in model.modules():
            if isinstance(module, LabelDropout):
                module.eval()  # no label dropout in the model: the feed drops the same labels for all models
        batch = self.feed.batch(step, begin, begin + share)
        called = self._called(model)
        loss = torch.zeros((), device=batch.x0.device)
        for start in range(0, share, micro):
            last = start + micro >= share
            part = batch.part(start, start + micro)
            with nullcontext() if last else self.processes.unsynchronised(model):
                losses = self.objective.losses(called, part.x0, part.t, part.y, part.noise).sum() / total
                # DDP averages gradients over the processes, but the losses of the processes must be summed
                (losses * self.processes.count).backward()
            loss += losses.detach()
        return loss

    def train_step(self) -> None:
        """Run one step of the optimizer and of the averages. Does not wait for the device."""
        self._unread.append(self._passes(self._wrapped, self.step))
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            new = [parameter.detach() for parameter in self.parameters.values()]
            for averages, decay in zip(self.ema, self.identity.case.recipe.ema_decays, strict=True):
                torch._foreach_lerp_(list(averages.values()), new, 1 - decay)
        self.step += 1

    def read_losses(self) -> float | None:
        """Wait for the losses since the last read: the last one, or None. NotFiniteError: names the step."""
        if not self._unread:
            return None
        losses = self.processes.sum(torch.stack(self._unread)).cpu()
        first = self.step - len(self._unread) + 1
        self._unread.clear()
        for step, loss in enumerate(losses.tolist(), start=first):
            if not math.isfinite(loss):
                raise NotFiniteError(f"the training loss is {loss} in step {step}")
        self._losses.append(losses)
        return float(losses[-1])

    def evaluate(self) -> None:
        """Evaluate the trained and the averaged weights on the validation set, or NotFiniteError."""
        self.read_losses()
        self.model.eval()
        trained = self._validate("trained")
        averaged = []
        for averages, decay in zip(self.ema, self.identity.case.recipe.ema_decays, strict=True):
            with self._exchanged(averages):
                averaged.append(self._validate(f"averaged ({decay_name(decay)})"))
        losses = torch.cat([torch.empty(0), *self._losses])
        self._losses.clear()
        self.evaluations += (
            Evaluation(
                step=self.step,
                seconds=self.seconds,
                joules=self._known_joules if self.seconds >= telemetry.SHORTEST_ENERGY_WINDOW_S else None,
                train_loss=float(losses.double().mean()) if len(losses) else None,
                loss=trained.mean,
                ema_losses=tuple(average.mean for average in averaged),
                bin_losses=trained.bins,
            ),
        )

    def _validate(self, weights: str) -> Losses:
        losses = self.validation.losses(self._called(self.model))
        if not math.isfinite(losses.mean):
            raise NotFiniteError(
                f"the validation loss of the {weights} weights is {losses.mean} at step {self.step}"
            )
        return losses

    @contextmanager
    def _exchanged(self, averages: dict[str, Tensor]) -> Iterator[None]:
        """Context manager in which the network has the averaged weights."""
        own = [parameter.detach() for parameter in self.parameters.values()]
        trained = [value.clone() for value in own]
        torch._foreach_copy_(own, list(averages.values()))
        try:
            yield
        finally:
            torch._foreach_copy_(own, trained)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Context manager that counts seconds and joules."""
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
        """The energy counter of this process's device in joules; nan if unavailable."""
        read = self._monitor.energy_j() if self._monitor else None
        return math.nan if read is None else read
