"""The report's section on training steps: their speed, and the cost of a whole training."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from bench.analysis.costs import training_cost
from bench.analysis.costs.training_cost import COUNTED, MEASURED, Cost
from bench.records.base import Record, height_width
from bench.records.columns import BATCH, MODEL, PRECISION, PROVENANCE, RES, on_off
from bench.records.throughput import Throughput, ThroughputCase
from bench.tables.table import Column, Table
from reports.markdown import BLANK, images, stamp, table
from reports.naming import order
from reports.sections import Part, of_parts
from reports.selection import latest

PLACE = "training.md", 1
STEPS = Table[Throughput](
    title="Training steps",
    columns=(
        *(MODEL, RES, BATCH, PRECISION),
        Column("checkpointing", lambda r: r.case.checkpointing, on_off, of_case=True),
        Column("images/s, measured here", lambda r: r, images),
        Column("J/image", lambda r: r.joules_per_image),
        Column("settings", lambda r: training_cost.settings(r.case), of_case=True, optional=True),
        *PROVENANCE,
    ),
)
ABOUT_STEPS = (
    "One step is the forward pass, the squared error of the noise, the backward pass, AdamW and the "
    "average of the weights, in float32; bf16 is autocast. Loading data and averaging gradients across "
    "devices are not included. Median step with its 95 % interval; † marks a case whose budget ended "
    "before the median was known to 1 %."
)


@of_parts
def section(records: Sequence[Record]) -> Iterator[Part]:
    """Write the section; empty without timed steps and without counts of the models of FCDM Table 17."""
    steps = _newest(records)
    costs = training_cost.costs(training_cost.published(), records)
    known = [one for one in costs if one.train_macs is not None or one.steps]
    if steps or known:
        yield "## Training steps and the cost of a training"
    if steps:
        yield from (ABOUT_STEPS, table(STEPS, steps))
    if known:
        rows = training_cost.rows(replace(one, steps=()) for one in costs)
        yield from (f"### {COUNTED.title}", _of_costs(costs), table(COUNTED, rows))
        if measured := [row for row in training_cost.rows(costs) if row.step]:
            yield from ("At the measured speed of a step, on one device:", table(MEASURED, measured))


def _newest(records: Sequence[Record]) -> list[Record]:
    """The newest record of every training-step case on a device."""
    steps = [r for r in records if isinstance(r.case, ThroughputCase) and r.case.work == "training"]
    return sorted(latest(steps), key=_position)


def _position(record: Record) -> tuple[Any, ...]:
    case = record.case
    assert isinstance(case, ThroughputCase)
    setting = (record.environment.device, case.precision, case.checkpointing, training_cost.settings(case))
    return (order(case.model), height_width(case.res), case.batch, setting, repr(case))


def _of_costs(costs: Sequence[Cost]) -> str:
    stamps = sorted({stamp(counted.environment) for one in costs for counted in one.counted})
    return (
        "ZMACs (1e21 MACs) are what the papers print as training FLOPs: 3 x MACs of a forward pass x steps x "
        "batch 256. *From printed* uses the MACs that the table prints, *from counted* those counted here "
        "by torchprofile's rules. ZFLOPs are twice the MACs of every forward and backward pass: with "
        "activations kept, with every block recomputed, and as released: only FCDM's release "
        "recomputes. MDT's second pass, over masked tokens, is not counted: its cost as released is a lower "
        f"bound. Counted with {'; '.join(stamps) or BLANK}."
    )
