"""What a projection stands on, and how good it is: measured passes, and published rows beside predictions.

Only passes of this suite's own protocol under default settings calibrate: eager, torch's choice of attention,
no channels last, no checkpointing. Published rows never do. Imports no torch.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from baselines import load
from bench.analysis import projection, roofline
from bench.analysis.projection import (
    ASSUMED,
    COVERAGE,
    EVERYTHING,
    Calibration,
    Error,
    HeldOut,
    Observation,
    Prediction,
    said_left_out,
)
from bench.analysis.roofline import Peaks
from bench.records.record import (
    Ceiling,
    Environment,
    Memory,
    Record,
    Size,
    Throughput,
    Work,
    size_text,
    to_line,
)

QUESTIONS = {"throughput": "inference", "latency": "inference", "train_step": "training"}

R = TypeVar("R", bound=Work | Memory | Throughput)

# of a pass: model, size, batch, precision of its tensors, inference or training
Asked = tuple[str, Size, int, str, str]


def asked(model: str, res: Size, batch: int, precision: str, work: str) -> Asked:
    """What tells one pass's work from another's."""
    return model, res, batch, roofline.tensors_of(precision), work


def asked_of(timed: Throughput) -> Asked:
    run = timed.run
    return asked(run.model, run.res, run.batch, run.precision, QUESTIONS[run.question])


@dataclass(frozen=True, kw_only=True)
class Derived:
    """What predictions are derived from: work and predicted memory of passes, both without checkpointing."""

    works: dict[Asked, Work]
    memories: dict[Asked, Memory]

    def work(self, key: Asked) -> Work | None:
        """The work of a pass, that of a training step with its update; None where it is not known."""
        work = self.works.get(key)
        if work is None or work.work == "inference":
            return work
        memory = self.memories.get(key)
        use = memory.use if memory is not None else None
        return None if use is None else projection.with_update(work, use)


def derived_in(records: Iterable[Record]) -> Derived:
    """What records hold of it, the newest of each."""
    found = Derived(works={}, memories={})
    for record in by_date(record for record in records if isinstance(record, Work | Memory)):
        if isinstance(record, Work):
            key = asked(record.model, record.res, record.batch, record.precision, record.work)
            found.works[key] = record
        elif record.predicted and not record.checkpointing and record.limit_bytes is None:
            found.memories[asked_of_memory(record)] = record
    return found


def by_date(records: Iterable[R]) -> list[R]:
    """The oldest first; by content where dates are equal, so that their order does not matter."""

    def date(record: R) -> str:
        return record.environment.date if isinstance(record, Work) else record.run.environment.date

    return sorted(set(records), key=lambda record: (date(record), to_line(record)))


# measured passes


def usable(records: Iterable[Record]) -> tuple[list[Throughput], Counter[str]]:
    """Timings that could calibrate, the newest of each case, and how many others there are, by reason."""
    others: Counter[str] = Counter()
    newest: dict[tuple[object, ...], Throughput] = {}
    for record in by_date(record for record in records if isinstance(record, Throughput)):
        run = record.run
        switched = run.compile or run.cuda_graphs or run.channels_last or run.checkpointing
        if run.question not in QUESTIONS:
            others["of another question"] += 1
        elif switched or run.attention != "auto" or run.protocol != "suite":
            others["under settings that are not predicted"] += 1
        else:
            case = (run.environment.device, asked_of(record), run.precision)
            others["measured again since"] += case in newest
            newest[case] = record
    return list(newest.values()), +others


def observations(
    timed: Sequence[Throughput], records: Sequence[Record], derived: Derived
) -> tuple[list[Observation], Counter[str]]:
    """Timings with their work and the peaks of their devices, and how many lack something, by reason.

    Args:
        timed: as `usable` gives them.
        records: hold ceilings, which stand for the peaks of a CPU and of an unknown GPU.
        derived: holds the work of the passes that were timed.
    """
    found: list[Observation] = []
    lacking: Counter[str] = Counter()
    ceilings = [record for record in records if isinstance(record, Ceiling)]
    for record in timed:
        run = record.run
        device, peaks = peaks_of(run.environment, ceilings)
        work = derived.work(asked_of(record))
        if peaks is None:
            lacking[f"on {device}, which has no ceilings yet: python -m bench.ceilings"] += 1
        elif (reason := projection.why_not(peaks, [run.precision])) is not None:
            lacking[f"on {device}: {reason}"] += 1
        elif work is None:
            lacking["of passes whose work is not known here"] += 1
        else:
            floor = roofline.floor(work, peaks, run.precision, "fused")
            if floor is not None and record.median_s < floor.total_s:
                lacking[f"on {device}, faster than its peaks allow: measure its ceilings again"] += 1
                continue
            seen = Observation(
                model=run.model,
                res=run.res,
                batch=run.batch,
                precision=run.precision,
                work=work,
                peaks=peaks,
                device=device,
                device_type=run.environment.device_type,
                seconds=record.median_s,
                date=run.environment.date,
            )
            found.append(seen)
    order = sorted(
        found, key=lambda s: (s.device, s.model, size_text(s.res), s.batch, s.precision, s.work.work)
    )
    return order, lacking


def peaks_of(environment: Environment, ceilings: Sequence[Ceiling]) -> tuple[str, Peaks | None]:
    """A device's name, that of baselines/gpus.csv if it is in there, and its peaks, the maker's if known."""
    name = roofline.gpu_named(environment.device) if environment.device_type == "cuda" else None
    if name is not None:
        return name, roofline.of_gpu(name)
    return environment.device, roofline.measured_peaks(ceilings, environment.device)


# peaks of memory


@dataclass(frozen=True, kw_only=True)
class Peak:
    """A peak of memory measured on a GPU, beside the one predicted of the same pass.

    Nothing of a prediction of memory is calibrated, so every measured peak was held out.
    """

    model: str
    work: str
    measured_bytes: int
    predicted_bytes: int

    @property
    def error(self) -> float:
        """log(predicted / measured)."""
        return math.log(self.predicted_bytes / self.measured_bytes)


def measured_memory(records: Iterable[Record]) -> dict[tuple[str, Asked, str], Memory]:
    """Peaks measured on GPUs of passes as they are predicted here; the newest of each."""
    return {
        (record.run.environment.device, asked_of_memory(record), record.run.precision): record
        for record in by_date(record for record in records if isinstance(record, Memory))
        if record.use is not None
        and not record.predicted
        and not record.checkpointing
        and record.limit_bytes is None
        and record.run.environment.device_type == "cuda"
    }


def asked_of_memory(memory: Memory) -> Asked:
    run = memory.run
    return asked(run.model, run.res, run.batch, run.precision, memory.work)


def peaks_seen(records: Iterable[Record], derived: Derived) -> list[Peak]:
    """Measured peaks whose passes' memory is predicted, too."""
    found = []
    for (_, key, _), measured in measured_memory(records).items():
        predicted = derived.memories.get(key)
        if predicted is not None and predicted.use is not None and measured.use is not None:
            peak = Peak(
                model=measured.run.model,
                work=measured.work,
                measured_bytes=measured.use.peak_bytes,
                predicted_bytes=predicted.use.peak_bytes,
            )
            found.append(peak)
    return found


@dataclass(frozen=True, kw_only=True)
class MemoryBars:
    """How far off predictions of memory are, from measured peaks: a group is a model, as for speed."""

    peaks: tuple[Peak, ...]

    def interval(self, predicted_bytes: int, work: str) -> tuple[float, float] | None:
        """Nominally of COVERAGE; None where no peak of such work was measured."""
        error = self._error(work)
        if error is None:
            return None
        factor = math.exp(error.reach)
        return predicted_bytes / factor, predicted_bytes * factor

    def _error(self, work: str) -> Error | None:
        by_model: dict[str, list[float]] = {}
        for peak in self.peaks:
            if peak.work == work:
                by_model.setdefault(peak.model, []).append(peak.error)
        return projection.error_of(by_model.values(), at_least=0.0) if by_model else None

    def words(self, work: str) -> str:
        """What an interval of memory stands on, or why there is none."""
        error = self._error(work)
        if error is None:
            return f"memory has no interval: no GPU peak of {work} is measured yet beside its prediction"
        count = sum(peak.work == work for peak in self.peaks)
        return (
            f"the interval of memory is a factor of {math.exp(error.reach):.3g}, nominally of "
            f"{100 * COVERAGE:.0f} %: from {_counted(count, f'GPU peak of {work}')} measured, by Student's t "
            f"over {_counted(error.groups, 'model')}"
        )


def _counted(count: int, what: str) -> str:
    """`3 GPU peaks of inference`: the plural of what stands before any of."""
    noun, of, rest = what.partition(" of ")
    return f"{count} {noun}{'s' if count != 1 else ''}{of}{rest}"


def fits(predicted_bytes: int, interval: Sequence[float] | None, usable_bytes: int) -> str:
    """Whether a predicted peak fits: yes, no, or perhaps where the ends of its interval disagree."""
    if interval is not None and interval[0] <= usable_bytes < interval[1]:
        return "perhaps"
    return "yes" if predicted_bytes <= usable_bytes else "no"


# predictions and their bars


@dataclass(frozen=True, kw_only=True, eq=False)
class Basis:
    """Calibrations of both types of device, and what they were worth for passes they were not shown."""

    calibrations: Mapping[str, Calibration]
    held_out: tuple[HeldOut, ...]

    def predict(self, work: Work, peaks: Peaks, precision: str, device_type: str = "cuda") -> Prediction:
        return projection.predict(
            self.calibrations[device_type], work, peaks, precision, peaks.device, self.error(device_type)
        )

    def tests(self, device_type: str) -> list[HeldOut]:
        """The passes that say how far off a prediction for this type of device may be.

        Once the type is calibrated they are those left out on it; else those of any type that were
        predicted from priors alone, as its own are.
        """
        alone = [held for held in self.held_out if held.left_out == EVERYTHING]
        if not self.calibrations[device_type].devices:
            return alone
        own = [held for held in self.held_out if held.observation.device_type == device_type]
        return [held for held in own if held.left_out != EVERYTHING] or alone

    def error(self, device_type: str) -> Error:
        """That of the sort of group left out which reaches farthest."""
        return max((error for _, error in self._errors(device_type)), key=lambda e: e.reach, default=ASSUMED)

    def _errors(self, device_type: str) -> list[tuple[str, Error]]:
        """By sort of group left out."""
        sorts: dict[str, dict[tuple[str, str], list[float]]] = {}
        for held in self.tests(device_type):
            group = held.observation.device_type, held.group
            sorts.setdefault(held.left_out, {}).setdefault(group, []).append(held.error)
        return [(left_out, projection.error_of(groups.values())) for left_out, groups in sorts.items()]

    def words(self, device_type: str = "cuda") -> str:
        """Where the shares come from and what the bars hold, for the reader of a prediction."""
        calibration = self.calibrations[device_type]
        kind = _KINDS[device_type]
        where = " and ".join(sorted({held.observation.device for held in self.tests(device_type)}))
        off = [
            f"{_factor(error)} for {error.groups} {_GROUPS[left_out]} on {where}"
            for left_out, error in self._errors(device_type)
        ]
        found = f"{' or '.join(off)}{', the larger one' if len(off) > 1 else ''}, by Student's t over so many"
        bars = (
            "the interval holds what is uncertain in the shares and an error of "
            f"{found if off else f'{_factor(ASSUMED)} that is assumed of the formula'}"
        )
        if not calibration.devices:
            text = f"no {kind} measured yet: its shares of the peaks are the priors, none calibrated; {bars}"
            return f"{text}; the error of a {kind} left out is not known"
        devices = " and ".join(calibration.devices)
        text = f"calibrated on {len(calibration.observations)} passes on {devices}; {bars}"
        if len(calibration.devices) > 1:
            return text
        return f"{text}; no second {kind} is measured: how two differ is assumed, not known"

    @property
    def coverages(self) -> list["Coverage"]:
        """How often the bars held what was left out, by sort of group and model."""
        found: dict[tuple[str, str], list[bool]] = {}
        for held in self.held_out:
            found.setdefault((held.left_out, held.observation.model), []).append(held.covered)
        return [
            Coverage(left_out=left_out, model=model, covered=sum(covered), passes=len(covered))
            for (left_out, model), covered in found.items()
        ]

    def _widths(self, left_out: str) -> str:
        """How far the bars reach from what was predicted, in words; to the slow side, where no floor is."""
        reached = [
            held.prediction.high_s / held.prediction.seconds
            for held in self.held_out
            if held.left_out == left_out
        ]
        low, high = f"{min(reached):.2g}", f"{max(reached):.2g}"
        return low if low == high else f"{low} to {high}"

    def priors_held(self) -> str:
        """What became of priors that measured passes could test; blank without any."""
        return "; ".join(
            f"of a {_KINDS[device_type]}'s {len(projection.PRIORS[device_type])} shares, calibration put "
            f"{', '.join(calibration.refuted) or 'none'} outside the interval of the prior"
            for device_type, calibration in self.calibrations.items()
            if calibration.devices
        )

    def level(self) -> str:
        """What the level of the intervals was worth where something was left out, and what that proves."""
        nominal = f"the {100 * COVERAGE:.0f} % of the intervals are nominal"
        if not self.held_out:
            return f"{nominal}: nothing measured was left out to test them"
        by_sort: dict[str, list[Coverage]] = {}
        for one in self.coverages:
            by_sort.setdefault(one.left_out, []).append(one)
        told = []
        for left_out, of in by_sort.items():
            total = f"{sum(one.covered for one in of)} of {sum(one.passes for one in of)}"
            short = [f"only {one.text} of {one.model}" for one in of if one.falls_short]
            bars = ", ".join([f"bars of a factor of {self._widths(left_out)}", *short])
            told.append(f"{total} with {said_left_out(left_out)} left out ({bars})")
        seen = {held.observation for held in self.held_out}
        models = len({one.model for one in seen})
        sizes, devices = len({size_text(one.res) for one in seen}), len({one.device for one in seen})
        groups = f"{_counted(models, 'model')}, {_counted(sizes, 'size')}, {_counted(devices, 'device')}"
        possible = f"{100 * 0.05 ** (1 / models):.0f} %"  # so many groups are all inside once in 20 times
        return (
            f"{nominal}. Of measured passes they held {'; '.join(told)}. These are the same {len(seen)} "
            f"passes each time, of {groups}, too few to prove a level: even with every model inside, "
            f"{possible} could be true"
        )


_KINDS = {"cuda": "GPU", "cpu": "CPU"}
_GROUPS = {
    "size": "sizes left out",
    "model": "models left out",
    "device": "devices left out",
    EVERYTHING: "models predicted from priors alone",
}


def _factor(error: Error) -> str:
    return f"a factor of {math.exp(error.reach):.2g}"


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Of one model's passes that were left out in one way, those that their interval held."""

    left_out: str
    model: str
    covered: int
    passes: int

    @property
    def text(self) -> str:
        return f"{self.covered} of {self.passes}"

    @property
    def falls_short(self) -> bool:
        return self.covered < COVERAGE * self.passes


def basis(observations: Sequence[Observation]) -> Basis:
    """Calibrate on everything, and on all but each group in turn."""
    return Basis(
        calibrations={
            device_type: projection.calibrate(
                device_type, [seen for seen in observations if seen.device_type == device_type]
            )
            for device_type in projection.PRIORS
        },
        held_out=tuple(projection.held_out(observations)),
    )


# published rows

# what each table's throughput was made at; table 2 of DiCo states nothing but its size
PUBLISHED_AT = {"dico_table01": 256, "dico_table02": 512, "fcdm_table03": 256, "fcdm_table05": 512}
PUBLISHED_BATCH = 64
PUBLISHED_ON = "A100 SXM4 80GB"  # an A100, which one is not said
READINGS = ("fp32", "tf32", "torch-default")  # what a printed fp32 may have been
SLACK = 0.1  # of the time: what a clock that does not wait for the device may leave out
SAID_SLACK = f"{100 * SLACK:.0f} % slack"
_ALIKE = 0.02  # of log speed: readings that fit as well


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """A throughput as printed, and the conditions as its table states them; blank where it says nothing."""

    source: str  # a table, as dico:table1
    paper: str
    model: str
    res: int
    as_printed: str
    images_per_s: float
    device: str
    precision: str

    @property
    def asked(self) -> Asked:
        """The pass that it was of, in any precision with the tensors of fp32."""
        return asked(self.model, self.res, PUBLISHED_BATCH, "fp32", "inference")


def published_rows() -> list[PublishedRow]:
    """Every printed throughput of these tables, once; cells taken over from the other paper left out."""
    rows: dict[tuple[str, str, str], PublishedRow] = {}
    for name, res in PUBLISHED_AT.items():
        table = load.table(name)
        for row in table.rows:
            rate = row["throughput"]
            if rate.value is None or load.taken_over(name, "throughput", row):
                continue
            model = load.backbone_name(row)
            rows[table.source, model, rate.as_printed] = PublishedRow(
                source=table.source,
                paper=table.paper,
                model=model,
                res=res,
                as_printed=rate.as_printed,
                images_per_s=rate.value,
                device=table.device,
                precision=table.precision,
            )
    return list(rows.values())


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A published throughput read as made in one precision on one GPU."""

    precision: str
    prediction: Prediction
    published_s: float

    @property
    def above(self) -> bool:
        """Faster than the peaks allow with ideal fusion."""
        return self.published_s < self.prediction.fused_floor_s

    @property
    def impossible(self) -> bool:
        """Above by more than a careless clock explains."""
        return self.published_s < (1 - SLACK) * self.prediction.fused_floor_s

    @property
    def inside(self) -> bool:
        return self.prediction.low_s <= self.published_s <= self.prediction.high_s

    @property
    def error(self) -> float:
        """log(predicted speed / published speed)."""
        return math.log(self.published_s / self.prediction.seconds)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A published row under every reading."""

    row: PublishedRow
    gpu: str
    readings: tuple[Reading, ...]

    @property
    def verdict(self) -> str:
        """Which reading fits best, in words: of those whose interval holds the row, if one's does."""
        impossible = [reading.precision for reading in self.readings if reading.impossible]
        possible = [reading for reading in self.readings if not reading.impossible]
        said = f"cannot be {' or '.join(impossible)}" if impossible else ""
        if not possible:
            return said
        fitting = [reading for reading in possible if reading.inside] or possible
        best = min(abs(reading.error) for reading in fitting)
        near = [reading for reading in fitting if abs(reading.error) < best + _ALIKE]
        said += ("; " if said else "") + f"nearest {' or '.join(reading.precision for reading in near)}"
        if above := [reading.precision for reading in possible if reading.above]:
            return f"{said}, above the {' and '.join(above)} limit, within {SAID_SLACK}"
        if any(reading.inside for reading in near):
            return said
        return f"{said}, printed {'slower' if near[0].error > 0 else 'faster'} than its interval"


def judge(basis: Basis, derived: Derived, gpus: Sequence[str]) -> list[Judged]:
    """Set every published row whose work is known beside predictions in each precision, on each GPU."""
    judged = []
    for row in published_rows():
        work = derived.work(row.asked)
        if work is None:
            continue
        for name in gpus:
            peaks = roofline.of_gpu(name)
            readings = [
                Reading(
                    precision=precision,
                    prediction=basis.predict(work, peaks, precision),
                    published_s=PUBLISHED_BATCH / row.images_per_s,
                )
                for precision in READINGS
                if projection.why_not(peaks, [precision]) is None
            ]
            judged.append(Judged(row=row, gpu=peaks.device, readings=tuple(readings)))
    return judged


LIMIT = (
    "At most, the limit: with ideal fusion at the full peaks. A row cannot be a precision whose limit it is "
    f"above by more than {SAID_SLACK}: so much of the time may a clock leave out that does not wait for the "
    "device"
)
CAVEAT = (
    "Published: not measured by this suite, and nothing is calibrated on it, but the prior for fp32 products "
    "was set by someone who knew DiT's rows. Which precision a row was "
    "made in is not certain: DiCo's tables say fp32, but PyTorch lets convolutions use TF32 unless told "
    "otherwise, FlashAttention-2 takes no fp32 at all, and DiCo's released timing stops its clock before the "
    "device has finished; FCDM's tables name neither GPU nor precision"
)
