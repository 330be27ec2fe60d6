"""Cost of a whole training: in the papers' unit, in FLOPs, device-hours and joules.

The papers' unit is 3 x MACs of a forward pass x steps x batch in zetta (1e21), printed as FLOPs. A training
step takes the MACs of its forward and backward pass; where a release recomputes blocks, their forward MACs
count twice. One MAC is two FLOPs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from baselines import load
from baselines.load import Published
from bench.records.base import Record
from bench.records.counts import MacCount
from bench.records.throughput import Throughput, ThroughputCase
from bench.tables.numbers import significant
from bench.tables.table import Column, Table, fields, unit
from models.registry import ENTRIES

ZETTA = 1e21
PUBLISHED_TABLE = "fcdm_table17"
RES = 256  # px, of all rows of the table
BATCH = 256
STEPS = 400_000  # default of a training that is in no table
STEPS_PER_EPOCH = 5000  # ImageNet, 1.28 million images, batch 256
IMAGES_PER_EPOCH = STEPS_PER_EPOCH * BATCH
PAPERS_COUNTERS = ("torchprofile-meta", "torchprofile")  # by preference; the papers' MACs follow these rules
COUNTERS = ("torch", "torchprofile-meta")  # the counters that a cost needs


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training from a paper's table, or one given by options."""

    model: str
    steps: int
    batch: int
    source: str = ""  # of the printed numbers; blank if none
    printed_macs: float | None = None  # of one forward pass
    printed: Published | None = None  # zetta-MACs of the whole training

    @property
    def images(self) -> int:
        return self.steps * self.batch


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The costs of a training; None for a number that was not printed, counted or measured."""

    training: Training
    macs: int | None  # of one forward pass, by the papers' rules
    train_macs: int | None  # of one image's forward and backward pass, by torch's rules
    recomputed_macs: int | None  # the same with every block recomputed
    recomputes: bool  # the release recomputes blocks
    is_lower_bound: bool  # the release has passes that are not counted
    steps: tuple[Throughput, ...]  # timed steps, one for each setting on a device
    counted: tuple[MacCount, ...]  # records of the MACs

    @property
    def from_printed(self) -> float | None:
        """Zetta-MACs in the papers' unit, from the MACs that the table prints."""
        macs = self.training.printed_macs
        return None if macs is None else papers_zetta(macs, self.training.images)

    @property
    def from_counted(self) -> float | None:
        return None if self.macs is None else papers_zetta(self.macs, self.training.images)

    def flops(self, recomputing: bool) -> float | None:
        """FLOPs of the forward and backward passes of all steps."""
        macs = self.recomputed_macs if recomputing else self.train_macs
        return None if macs is None else 2 * macs * self.training.images

    @property
    def release_flops(self) -> float | None:
        """FLOPs of the training as the release runs it; a lower bound if `is_lower_bound`."""
        return self.flops(self.recomputes)

    @property
    def verdict(self) -> str:
        """Whether the printed cost agrees to its last digit with the printed and with the counted MACs."""
        printed = self.training.printed
        if printed is None or printed.value is None:
            return ""
        found = (("printed MACs", self.from_printed), ("counted MACs", self.from_counted))
        return "; ".join(
            f"{what}: {'yes' if rounds_to(value, printed) else 'no'}"
            for what, value in found
            if value is not None
        )


def papers_zetta(macs: float, images: float) -> float:
    """Cost in the papers' unit, in zetta: 3 x MACs of one image's forward pass x images."""
    return 3 * macs * images / ZETTA


def rounds_to(value: float, printed: Published) -> bool:
    return f"{value:.{printed.decimals}f}" == printed.as_printed


def published() -> tuple[Training, ...]:
    """The trainings of FCDM's Table 17; epochs are those of batch 256."""
    table = load.table(PUBLISHED_TABLE)
    found = []
    for row in table.rows:
        epochs, gmacs = row["train_epochs"].value, row["gflops"].value
        assert epochs is not None
        assert gmacs is not None
        found.append(
            Training(
                model=load.backbone_name(row),
                steps=round(epochs * STEPS_PER_EPOCH),
                batch=BATCH,
                source=table.source,
                printed_macs=gmacs * 1e9,
                printed=row["training_zflops"],
            )
        )
    return tuple(found)


def remarks() -> list[str]:
    """Remarks on the costs of the published table."""
    rows = load.table(PUBLISHED_TABLE).rows
    return [
        remark.statement
        for remark in load.remarks()
        if any(remark.touches(PUBLISHED_TABLE, "training_zflops", row) for row in rows)
    ]


def costs(trainings: Sequence[Training], records: Iterable[Record]) -> list[Cost]:
    """Costs of trainings at 256 px from counts and timed steps; the newest record of a case counts."""
    counted: list[MacCount] = []
    timed: list[Throughput] = []
    for record in records:
        if isinstance(record, MacCount) and record.case.res == RES:
            counted.append(record)
        elif isinstance(record, Throughput) and record.case.work == "training" and record.case.res == RES:
            timed.append(record)
    counted.sort(key=lambda record: record.age)
    timed.sort(key=lambda record: record.age)
    return [_cost(training, counted, timed) for training in trainings]


def _cost(training: Training, counted: Sequence[MacCount], timed: Sequence[Throughput]) -> Cost:
    entries = [entry for name, entry in ENTRIES.items() if training.model.startswith(f"{name}-")]
    counts = [one for one in counted if one.case.model == training.model]
    papers = [one for name in reversed(PAPERS_COUNTERS) for one in counts if one.case.counter == name]
    steps = [one for one in counts if one.train_macs is not None]
    step = steps[-1] if steps else None
    # the newest of each setting
    newest = {
        (
            one.environment.device,
            one.case.precision,
            one.case.batch,
            one.case.checkpointing,
            settings(one.case),
        ): one
        for one in timed
        if one.case.model == training.model
    }
    return Cost(
        training=training,
        macs=papers[-1].macs // papers[-1].case.batch if papers else None,
        train_macs=_per_image(step, step.train_macs) if step else None,
        recomputed_macs=_per_image(step, step.train_macs_checkpointed) if step else None,
        recomputes=any(entry.recomputes for entry in entries),
        is_lower_bound=any(entry.masks for entry in entries),
        steps=tuple(newest[setting] for setting in sorted(newest)),
        counted=tuple(one[-1] for one in (papers, steps) if one),
    )


def _per_image(count: MacCount, macs: int | None) -> int | None:
    return None if macs is None else macs // count.case.batch


def settings(case: ThroughputCase) -> str:
    """The nondefault settings of a timed step except checkpointing, in words."""
    return ", ".join(replace(case, checkpointing=False).nondefault_settings)


@dataclass(frozen=True, kw_only=True)
class CostRow:
    """A training's cost, with its time and energy under one setting where its steps were timed."""

    cost: Cost
    step: Throughput | None

    @property
    def hours(self) -> float | None:
        """Device-hours of all steps."""
        return self.cost.training.images / self.step.images_per_s / 3600 if self.step else None

    @property
    def joules(self) -> float | None:
        """Energy of all steps; None if the device's energy is unknown."""
        each = self.step.joules_per_image if self.step else None
        return None if each is None else each * self.cost.training.images

    @property
    def records(self) -> tuple[Record, ...]:
        return (*self.cost.counted, *([self.step] if self.step else []))


def rows(found: Iterable[Cost]) -> list[CostRow]:
    """One row for each training and setting with timed steps, or one row for a training without any."""
    return [CostRow(cost=one, step=step) for one in found for step in one.steps or (None,)]


_zetta = unit(significant, 1 / ZETTA)
_TRAINING: tuple[Column[CostRow], ...] = (
    *fields("cost.training.model"),
    Column("steps", "cost.training.steps", str),
    Column("batch", "cost.training.batch", str),
)
_COST: tuple[Column[CostRow], ...] = (
    *fields("cost.training.source", raw=True),
    Column("printed zetta MACs", "cost.training.printed.value", key="printed_zetta_macs", raw=True),
    Column(
        "published ZMACs",
        lambda row: row.cost.training.printed.as_printed if row.cost.training.printed else "",
        key="as_printed",
    ),
    Column("from printed", "cost.from_printed", key="zetta_macs_from_printed"),
    Column("from counted", "cost.from_counted", key="zetta_macs_from_counted"),
    Column("published equals", "cost.verdict"),
    Column("ZFLOPs kept", lambda row: row.cost.flops(False), _zetta, key="flops_kept"),
    Column("recomputed", lambda row: row.cost.flops(True), _zetta, key="flops_recomputed"),
    Column("as released", "cost.release_flops", _zetta, key="flops_as_released"),
    Column("release recomputes", lambda row: row.cost.recomputes, raw=True),
    Column("released passes not counted", lambda row: row.cost.is_lower_bound, optional=True, usual=False),
)
_MEASURED: tuple[Column[CostRow], ...] = (
    Column("device", "step.environment.device", optional=True),
    Column("precision", "step.case.precision", optional=True),
    Column("step batch", "step.case.batch", key="step_batch", optional=True),
    Column("checkpointing", "step.case.checkpointing", optional=True),
    Column("settings", lambda row: settings(row.step.case) if row.step else None, optional=True),
    Column("torch", "step.environment.torch", optional=True),
    Column("date", "step.environment.date", optional=True),
    Column("images/s", "step.images_per_s", optional=True),
    Column("device-hours", "hours", key="device_hours", optional=True),
    Column("MJ", "joules", unit(significant, 1e-6), optional=True),
)
TABLE = Table[CostRow](
    title="Cost of a training", columns=(*_TRAINING, *_COST, *_MEASURED), records=lambda row: row.records
)
COUNTED = replace(TABLE, title="Cost of a training, with FCDM's Table 17", columns=(*_TRAINING, *_COST))
MEASURED = replace(TABLE, title="Time and energy of a training", columns=(*_TRAINING, *_MEASURED))
