"""What the records say: the newest of every case, counts by model, timings by setting."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.records import labels
from bench.records.record import Counted, Environment, Record, Run, Size, Skipped, Throughput, to_line

Timing = Throughput | Skipped

PAPERS_RULES = ("torchprofile-meta", "torchprofile", "torch", "fvcore")  # what the papers count with, first
OUR_RULES = (
    "torch",
    "torchprofile-meta",
    "torchprofile",
    "fvcore",
)  # what also counts a training step, first


@dataclass(frozen=True, kw_only=True, order=True)
class Setting:
    """What timings must share to stand in one column."""

    device: str
    precision: str
    batch: int
    switches: tuple[str, ...]  # what is not as usual, in words

    @property
    def but_device(self) -> str:
        """All but the device, in words."""
        return ", ".join([self.precision, f"batch {self.batch}", *self.switches])

    def __str__(self) -> str:
        return f"{self.device}, {self.but_device}"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Records, one a case; order and repetition of the input do not matter."""

    counted: tuple[Counted, ...]
    timings: tuple[Timing, ...]
    older: int  # records that a newer one of the same case replaced

    @property
    def settings(self) -> tuple[Setting, ...]:
        return tuple(sorted({setting_of(timing.run) for timing in self.timings}))

    def count(self, model: str, res: Size, counters: Sequence[str] = PAPERS_RULES) -> Counted | None:
        """Find a model's count: by the first of the counters that has one, at the smallest batch."""
        found = [c for c in self.counted if (c.model, c.res) == (model, res) and c.counter in counters]
        return min(found, key=lambda c: (counters.index(c.counter), c.batch), default=None)

    def timing(self, setting: Setting, model: str, res: Size) -> Timing | None:
        """Find a model's timing under a setting."""
        for timing in self.timings:
            if (timing.run.model, timing.run.res) == (model, res) and setting_of(timing.run) == setting:
                return timing
        return None

    def images_per_s(self, setting: Setting, model: str, res: Size) -> float | None:
        """Images a second, None where the case gave no number."""
        timing = self.timing(setting, model, res)
        return timing.images_per_s if isinstance(timing, Throughput) else None


def setting_of(run: Run) -> Setting:
    return Setting(
        device=run.environment.device,
        precision=run.precision,
        batch=run.batch,
        switches=labels.switches(run),
    )


def environment_of(record: Counted | Timing) -> Environment:
    return record.environment if isinstance(record, Counted) else record.run.environment


def gather(records: Iterable[Record]) -> Evidence:
    """Keep the newest count and throughput of every case: by date, then by content."""
    distinct = {
        record
        for record in records
        if isinstance(record, Counted)
        or (isinstance(record, Throughput | Skipped) and record.run.question == "throughput")
    }
    newest: dict[tuple[object, ...], Counted | Timing] = {}
    for record in sorted(distinct, key=lambda record: (environment_of(record).date, to_line(record))):
        newest[_case(record)] = record
    kept = [newest[case] for case in sorted(newest, key=repr)]
    return Evidence(
        counted=tuple(record for record in kept if isinstance(record, Counted)),
        timings=tuple(record for record in kept if not isinstance(record, Counted)),
        older=len(distinct) - len(kept),
    )


def _case(record: Counted | Timing) -> tuple[object, ...]:
    if isinstance(record, Counted):
        return ("counted", record.model, record.res, record.batch, record.counter)
    return ("timed", record.run.model, record.run.res, setting_of(record.run))
