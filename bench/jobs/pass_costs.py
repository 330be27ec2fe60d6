"""Operator costs and predicted memory of passes, from records or counted here, for predictions."""

from collections import Counter
from collections.abc import Iterable, Sequence

from bench.analysis.projection.formula import with_recomputation
from bench.analysis.projection.passes import (
    PassCosts,
    PassKey,
    costs_in,
    key_of,
    observations,
    peaks_of,
    usable,
)
from bench.analysis.projection.predictions import MemoryErrors, measured_memory, memory_errors
from bench.analysis.projection.projector import Projector, projector
from bench.cli import settings
from bench.jobs import runner
from bench.jobs.job import Job
from bench.records.base import Record
from bench.records.ceiling import Ceiling
from bench.records.memory import Memory, MemoryCase
from bench.records.operators import OperatorCosts
from bench.store.store import Store


class CostSource:
    """Operator costs and memory of passes, from records or counted here; a store gets all of them."""

    def __init__(self, known: Sequence[Record], store: Store | None, force: bool) -> None:
        self.costs = PassCosts(operators={}, memory={}) if force else costs_in(known)
        self._store = store
        self._force = force

    def work(self, key: PassKey, *, checkpointing: bool = False) -> OperatorCosts:
        """Operator costs of a pass; of a training step with the update. ValueError: unknown."""
        if key not in self.costs.operators:
            record = self._count(_operator_job(key))
            if not isinstance(record, OperatorCosts):
                raise ValueError(f"{key[0]}: {getattr(record, 'reason', '')}")
            self.costs.operators[key] = record
        self._keep(self.costs.operators[key])
        needs = self.memory(key) if key[-1] == "training" else None
        work = self.costs.work(key)
        if work is None:
            raise ValueError(f"{key[0]}: {getattr(needs, 'reason', '')}")
        return with_recomputation(work) if checkpointing else work

    def memory(self, key: PassKey, *, checkpointing: bool = False) -> Record:
        """Predicted memory of a pass."""
        if checkpointing:
            return self._count(_memory_job(key, checkpointing=True))
        if key not in self.costs.memory:
            self.costs.memory[key] = self._count(_memory_job(key))
        self._keep(self.costs.memory[key])
        return self.costs.memory[key]

    def calibrated(self, known: Sequence[Record]) -> tuple[Projector, Counter[str]]:
        """Calibrate on every measured pass; operator costs missing from the records are counted."""
        timed, others = usable(known)
        ceilings = [record for record in known if isinstance(record, Ceiling)]
        for record in timed:
            if peaks_of(record.environment, ceilings)[1] is not None:
                try:
                    self.work(key_of(record.case))
                except ValueError:
                    continue  # the model no longer exists
        seen, lacking = observations(timed, known, self.costs)
        return projector(seen), others + lacking

    def memory_errors(self, known: Sequence[Record], works: Iterable[str]) -> tuple[MemoryErrors, list[str]]:
        """Errors of predicted memory against every measured GPU peak of the same work, and a note."""
        lacking: Counter[str] = Counter()
        for _, key, _ in measured_memory(known):
            if key[-1] in works:
                try:
                    lacking[key[0]] += not isinstance(self.memory(key), Memory)
                except ValueError:
                    lacking[key[0]] += 1
        of_models = "; ".join(f"{count} of {model}" for model, count in sorted(lacking.items()) if count)
        notes = [f"measured peaks of memory that cannot be predicted: {of_models}"] if of_models else []
        return memory_errors(known, self.costs), notes

    def _count(self, job: Job) -> Record:
        return runner.run([job], self._store, force=self._force, begin=lambda name: None).records[0]

    def _keep(self, record: Record) -> None:
        if self._store is not None and self._store.find(record.case, record.environment) is None:
            self._store.append(record)


def _operator_job(key: PassKey) -> Job:
    from bench.counting.work import operator_case
    from bench.jobs.roofline import operator_job

    return operator_job(operator_case(*key))


def _memory_job(key: PassKey, *, checkpointing: bool = False) -> Job:
    from bench.jobs import memory

    model, res, batch, precision, work = key
    case = MemoryCase(
        **settings.sized_fields(model, res, "meta"),
        batch=batch,
        precision=precision,
        work=work,
        checkpointing=checkpointing,
        limit_bytes=None,
    )
    return memory.job(case)
