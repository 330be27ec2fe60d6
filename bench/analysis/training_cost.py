"""What does a training cost, in the papers' unit, in FLOPs, joules and hours? Imports no torch.

The papers' unit is 3 x MACs of a forward pass x steps x batch, printed as FLOPs: in zetta, 1e21, it is
zetta-MACs. A step really takes the MACs of its forward and backward pass, and those of every block once more
where a release recomputes them; one MAC is two FLOPs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from baselines import load
from baselines.load import Published
from bench.records import labels
from bench.records.record import Counted, Record, Run, Throughput

ZETTA = 1e21
TABLE = "fcdm_table17"
RES = 256  # of its rows
BATCH = 256
STEPS_PER_EPOCH = 5000  # of ImageNet's 1.28 million images, at that batch
# families whose release recomputes every block in the backward pass; none of the others does
RECOMPUTING = ("FCDM",)
# families whose training runs a second pass, over masked tokens, which is not counted
MASKING = ("MDT", "MDTv2")
PAPERS_COUNTERS = ("torchprofile-meta", "torchprofile")  # whose rules the papers' MACs follow, first


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training that a paper reports, or one that a user asks about."""

    model: str
    steps: int
    batch: int
    source: str  # of the printed numbers; blank without
    printed_macs: float | None  # of one forward pass
    printed: Published | None  # zetta-MACs of the whole training

    @property
    def images(self) -> int:
        return self.steps * self.batch


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A training's time and energy, from the throughput of its steps on one device."""

    of: Throughput
    hours: float
    joules: float | None  # None where nothing read the device's energy


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Everything that is known of a training; None is what was neither printed nor counted nor measured."""

    training: Training
    macs: int | None  # of one forward pass, by the papers' rules
    train_macs: int | None  # of one image's forward and backward pass, by torch's rules
    recomputed_macs: int | None  # the same with every block computed twice
    recomputes: bool  # the release does so
    at_least: bool  # the release has passes that are not counted
    measured: tuple[Measured, ...]
    counted: tuple[Counted, ...]  # what the MACs are from

    @property
    def from_printed(self) -> float | None:
        """Zetta-MACs in the papers' unit, from the MACs that the table prints."""
        macs = self.training.printed_macs
        return None if macs is None else papers_zetta(macs, self.training)

    @property
    def from_counted(self) -> float | None:
        """Zetta-MACs in the papers' unit, from the MACs that are counted here."""
        return None if self.macs is None else papers_zetta(self.macs, self.training)

    def flops(self, recomputing: bool) -> float | None:
        """FLOPs of all steps' forward and backward passes."""
        macs = self.recomputed_macs if recomputing else self.train_macs
        return None if macs is None else 2 * macs * self.training.images

    @property
    def release_flops(self) -> float | None:
        """FLOPs as the release runs; a lower bound where `at_least`."""
        return self.flops(self.recomputes)

    @property
    def verdict(self) -> str:
        """Whether the printed cost is that of the printed and of the counted MACs, to its last digit."""
        printed = self.training.printed
        if printed is None or printed.value is None:
            return ""
        found = (("printed MACs", self.from_printed), ("counted MACs", self.from_counted))
        told = [
            f"{'as' if rounds_to(value, printed) else 'not as'} the {what} give"
            for what, value in found
            if value is not None
        ]
        return "; ".join(told)


def papers_zetta(macs: float, training: Training) -> float:
    """The papers' unit, in zetta."""
    return 3 * macs * training.images / ZETTA


def rounds_to(value: float, printed: Published) -> bool:
    return f"{value:.{printed.decimals}f}" == printed.as_printed


def published() -> tuple[Training, ...]:
    """The trainings of FCDM's Table 17; epochs are those of batch 256."""
    table = load.table(TABLE)
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
    """What a reader of the table's costs should know."""
    rows = load.table(TABLE).rows
    return [
        remark.statement
        for remark in load.remarks()
        if any(remark.touches(TABLE, "training_zflops", row) for row in rows)
    ]


def costs(trainings: Sequence[Training], records: Iterable[Record]) -> list[Cost]:
    """Put together what records say of trainings at 256 px; the newest of a case counts."""
    held = list(records)
    counted = sorted(
        (r for r in held if isinstance(r, Counted) and r.res == RES), key=lambda r: r.environment.date
    )
    timed = sorted(
        (
            r
            for r in held
            if isinstance(r, Throughput) and r.run.question == "train_step" and r.run.res == RES
        ),
        key=lambda r: r.run.environment.date,
    )
    return [_cost(training, counted, timed) for training in trainings]


def _cost(training: Training, counted: Sequence[Counted], timed: Sequence[Throughput]) -> Cost:
    mine = [one for one in counted if one.model == training.model]
    papers = [one for name in reversed(PAPERS_COUNTERS) for one in mine if one.counter == name]
    steps = [one for one in mine if one.train_macs is not None]
    step = steps[-1] if steps else None
    # the newest of each setting
    newest = {
        (r.environment.device, r.precision, r.batch, r.checkpointing, settings(r)): one
        for one in timed
        if (r := one.run).model == training.model
    }
    return Cost(
        training=training,
        macs=papers[-1].macs // papers[-1].batch if papers else None,
        train_macs=step.train_macs // step.batch if step and step.train_macs is not None else None,
        recomputed_macs=step.train_macs_checkpointed // step.batch
        if step and step.train_macs_checkpointed is not None
        else None,
        recomputes=_of_family(training.model, RECOMPUTING),
        at_least=_of_family(training.model, MASKING),
        measured=tuple(_measured(training, newest[setting]) for setting in sorted(newest)),
        counted=tuple(one[-1] for one in (papers, steps) if one),
    )


def settings(run: Run) -> str:
    """The settings of a timed step that are not as usual, in words, without checkpointing."""
    return ", ".join(labels.switches(replace(run, checkpointing=False)))


def _of_family(model: str, families: Sequence[str]) -> bool:
    return model.startswith(tuple(f"{family}-" for family in families))


def _measured(training: Training, step: Throughput) -> Measured:
    each = step.joules_per_image
    return Measured(
        of=step,
        hours=training.images / step.images_per_s / 3600,
        joules=None if each is None else each * training.images,
    )
