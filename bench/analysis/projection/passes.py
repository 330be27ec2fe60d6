"""Measured passes for the calibration, and the costs behind predictions.

The calibration uses only passes of the suite's own protocol under default settings: eager, torch's choice of
attention, no channels last, no checkpointing. It never uses published throughputs.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench.analysis.projection.calibrate import Observation
from bench.analysis.projection.formula import why_not, with_update
from bench.analysis.rooflines import roofline
from bench.analysis.rooflines.roofline import Peaks
from bench.records.base import Environment, Record, Size, size_text
from bench.records.ceiling import Ceiling
from bench.records.memory import Memory, MemoryCase
from bench.records.operators import OperatorCase, OperatorCosts
from bench.records.throughput import Throughput, ThroughputCase

R = TypeVar("R", bound=Record)

# of a pass: model, size, batch, precision of its tensors, inference or training
PassKey = tuple[str, Size, int, str, str]


def pass_key(model: str, res: Size, batch: int, precision: str, work: str) -> PassKey:
    """The fields that the costs of a pass depend on."""
    return model, res, batch, roofline.tensors_of(precision), work


def key_of(case: OperatorCase | MemoryCase | ThroughputCase) -> PassKey:
    return pass_key(case.model, case.res, case.batch, case.precision, case.work)


@dataclass(frozen=True, kw_only=True)
class PassCosts:
    """Operator costs and predicted memory of passes, without checkpointing."""

    operators: dict[PassKey, OperatorCosts]
    memory: dict[PassKey, Record]  # Memory, or Skipped

    def work(self, key: PassKey) -> OperatorCosts | None:
        """The costs of a pass, including the update for a training step; None if unknown."""
        costs = self.operators.get(key)
        if costs is None or costs.case.work == "inference":
            return costs
        memory = self.memory.get(key)
        return with_update(costs, memory.use) if isinstance(memory, Memory) else None


def costs_in(records: Iterable[Record]) -> PassCosts:
    """The newest operator costs and predicted memory of every pass."""
    found = PassCosts(operators={}, memory={})
    for record in by_date(records):
        case = record.case
        if isinstance(record, OperatorCosts):
            found.operators[key_of(record.case)] = record
        elif isinstance(case, MemoryCase) and case.is_predicted and is_plain(case):
            found.memory[key_of(case)] = record
    return found


def is_plain(case: MemoryCase) -> bool:
    return not case.checkpointing and case.limit_bytes is None


def by_date(records: Iterable[R]) -> list[R]:
    """Distinct records, oldest first; the input order does not matter."""
    return list({record.age: record for record in sorted(records, key=lambda record: record.age)}.values())


# measured passes


def usable(records: Iterable[Record]) -> tuple[list[Throughput], Counter[str]]:
    """The newest usable timing of each case, and the number of unusable timings by reason."""
    others: Counter[str] = Counter()
    newest: dict[tuple[object, ...], Throughput] = {}
    for record in by_date(record for record in records if isinstance(record, Throughput)):
        case = record.case
        if case.nondefault_settings:
            others["under settings that are not predicted"] += 1
        else:
            key = (record.environment.device, key_of(case), case.precision)
            others["measured again since"] += key in newest
            newest[key] = record
    return list(newest.values()), +others


def observations(
    timed: Sequence[Throughput], records: Sequence[Record], costs: PassCosts
) -> tuple[list[Observation], Counter[str]]:
    """Timings of `usable` with their work and peaks, and the number of incomplete ones by reason."""
    found: list[Observation] = []
    lacking: Counter[str] = Counter()
    ceilings = [record for record in records if isinstance(record, Ceiling)]
    for record in timed:
        precision = record.case.precision
        device, peaks = peaks_of(record.environment, ceilings)
        work = costs.work(key_of(record.case))
        if peaks is None:
            lacking[f"on {device}, which has no ceilings: python -m bench.roofline measures them"] += 1
        elif (reason := why_not(peaks, [precision])) is not None:
            lacking[f"on {device}: {reason}"] += 1
        elif work is None:
            lacking["whose operator costs are unknown"] += 1
        elif (floor := roofline.floor(work, peaks, precision, "fused")) and record.median_s < floor.total_s:
            lacking[f"on {device}, faster than its peaks allow: measure its ceilings again"] += 1
        else:
            found.append(
                Observation(
                    work=work,
                    precision=precision,
                    peaks=peaks,
                    device=device,
                    device_type=record.environment.device_type,
                    seconds=record.median_s,
                )
            )
    found.sort(key=lambda s: (s.device, s.model, size_text(s.res), s.batch, s.precision, s.work.case.work))
    return found, lacking


def peaks_of(environment: Environment, ceilings: Sequence[Ceiling]) -> tuple[str, Peaks | None]:
    """A device's name and peaks: the maker's for a GPU in baselines/gpus.csv, else measured ceilings."""
    name = roofline.gpu_named(environment.device) if environment.device_type == "cuda" else None
    if name is not None:
        return name, roofline.of_gpu(name)
    return environment.device, roofline.measured_peaks(ceilings, environment.device)
