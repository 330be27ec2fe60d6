"""How fast would a backbone be on a GPU that is not at hand, and does it fit? Predicted, never measured.

    python -m bench.project --to rtx4090 a100-80 h100-sxm
    python -m bench.project --to h200 --model FCDM-XL DiT-XL/2 --res 256 512 --precision bf16 tf32
    python -m bench.project --to "A100 PCIe 40GB" --work training --batch 32 64
    python -m bench.project --show shares
    python -m bench.project --show held-out
    python -m bench.project --show published --to a100-80 rtx4090

Predicted: an eager pass model(x, t, y), or a training step with AdamW and an average of the weights, without
activation checkpointing; torch's own kernels, no torch.compile, no CUDA graphs, no channels last. Seconds are
those of bench.operators' work: every operator takes max(FLOPs / (peak x u), bytes / (bandwidth x v)), the GPU
all of them or the host's time to start them, whichever is longer. Peaks are the dense ones of
baselines/gpus.csv; u and v, the shares of them that kernels reach, are calibrated by kind of operator on
measured passes of GPUs, held to stated priors (--show shares). What was measured on a CPU says nothing of a
GPU's kernels, only how far off such a formula is. "At most" are rates at the full peaks: of an eager pass,
where the interval ends at the latest, and of one with ideal fusion, which nothing exceeds that is timed well.
What a cache keeps from one operator for the next counts as read again. Memory is that of bench.memory on the
meta device; it has an interval where the records hold peaks measured on a GPU (bench.memory --device cuda),
made of their errors by model, and none else.

The interval holds what is uncertain in the shares and, beside it, the error for what was left out of the
calibration: sizes, models and devices in turn, and everything, where a prediction is made from the priors
alone, as a GPU's is until one is measured. Passes of a group are off alike, so Student's t counts groups, not
passes. They are few, and a GPU is not among them until one is measured: the 90 % are nominal. --show held-out
and the notes say how many of the passes left out were in their interval, and of which models too few.

--show published sets the papers' throughputs (batch 64) beside predictions for fp32, TF32 and PyTorch's
default, TF32 in convolutions only; nothing is calibrated on them. A row cannot be a precision whose fused
"at most" it exceeds by more than 10 % of the time, slack for a clock that does not wait for the device; a row
within the slack says so.

Read: --records, by default reports/out/records.jsonl and the records that come with the suite; only passes
under default settings calibrate, a CPU's only with its ceilings (bench.ceilings). A prediction is not stored:
an --out FILE.jsonl keeps what it is derived from, work and memory, from which the report predicts again.
A name of --to may be a part that says which GPU; the SXM module is taken unless PCIe is said.
"""

import argparse
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from bench import memory, operators
from bench.analysis import calibration as validation
from bench.analysis import memory_fit, projection, roofline
from bench.analysis.calibration import Asked, Basis, Derived, Judged, MemoryBars
from bench.analysis.memory_fit import GIB
from bench.analysis.projection import HeldOut, Observation, Prediction, Share
from bench.cli import options, tables
from bench.memory import MemoryCase
from bench.records.record import Ceiling, Memory, Record, Run, Work, height_width

if TYPE_CHECKING:
    from bench.records.store import Store

MODELS = ("FCDM-XL", "DiT-XL/2", "DiCo-XL", "DiC-XL")
TO = ("rtx4090", "a100-80", "h100-sxm", "h200")
SHOW = ("predictions", "shares", "held-out", "published")
R = TypeVar("R", Work, Memory)


# what a prediction is derived from


class _Source:
    """Gives work and memory of passes: from records where they hold them, else traced; stores all of it."""

    def __init__(self, records: Sequence[Record], store: "Store | None", force: bool) -> None:
        self.derived = Derived(works={}, memories={}) if force else validation.derived_in(records)
        self._store = store
        self._force = force

    def work(self, key: Asked) -> Work:
        """The work of a pass; that of a training step with its update.

        Raises:
            ValueError: the model cannot be built, or its memory in training not be predicted.
        """
        model, res, batch, precision, work = key
        if work == "training":
            self.memory(key)
        if key not in self.derived.works:
            blank = operators.blank(model, res, batch, precision, work)
            self.derived.works[key] = self._held(blank, Work) or _traced(blank)
        self._keep(self.derived.works[key])
        found = self.derived.work(key)
        if found is None:
            raise ValueError(f"{model}: {self.memory(key).reason}")
        return found

    def memory(self, key: Asked) -> Memory:
        """Its memory without checkpointing, predicted."""
        model, res, batch, precision, work = key
        if key not in self.derived.memories:
            case = MemoryCase(
                model=model,
                res=res,
                batch=batch,
                device="meta",
                precision=precision,
                work=work,
                checkpointing=False,
                limit_bytes=None,
            )
            self.derived.memories[key] = self._held(case.run, Memory) or memory.result_of(case)
        self._keep(self.derived.memories[key])
        return self.derived.memories[key]

    def _held(self, about: Run | Work, kind: type[R]) -> R | None:
        held = None if self._store is None or self._force else self._store.held(about)
        return held if isinstance(held, kind) else None

    def _keep(self, record: Work | Memory) -> None:
        if self._store is not None and self._store.held(record) is not record:
            self._store.append(record)


def _traced(blank: Work) -> Work:
    from models.contract import build
    from models.registry import task_at

    task = task_at(blank.model, *height_width(blank.res))
    return operators.traced(blank, build(blank.model, task, device="meta"))


def _seen(records: Sequence[Record], source: _Source) -> tuple[list[Observation], Counter[str]]:
    """Every measured pass that can calibrate, its work traced where no record holds it."""
    timed, others = validation.usable(records)
    ceilings = [record for record in records if isinstance(record, Ceiling)]
    for one in timed:
        if validation.peaks_of(one.run.environment, ceilings)[1] is not None:
            try:
                source.work(validation.asked_of(one))
            except ValueError:
                continue  # a model that is not here any more: counted below
    seen, lacking = validation.observations(timed, records, source.derived)
    return seen, others + lacking


def _memory_bars(
    records: Sequence[Record], source: _Source, works: Iterable[str]
) -> tuple[MemoryBars, list[str]]:
    """From every peak of such work measured on a GPU, its prediction made where no record holds it.

    Returns:
        The bars, and a note on the peaks that are not among them: of a model that is not here any more, say.
    """
    lacking: Counter[str] = Counter()
    for _, key, _ in validation.measured_memory(records):
        if key[4] not in works:
            continue
        try:
            known = source.memory(key).use is not None
        except ValueError:
            known = False
        lacking[key[0]] += not known
    told = "; ".join(f"{count} of {model}" for model, count in lacking.items() if count)
    notes = [f"measured peaks of memory that cannot be predicted here: {told}"] if told else []
    return MemoryBars(peaks=tuple(validation.peaks_seen(records, source.derived))), notes


# one row a prediction


def _row(
    work: Work,
    gpu: str,
    precision: str,
    predicted: Prediction,
    needs: Memory,
    bars: MemoryBars,
    basis: str,
) -> tables.Row:
    batch = work.batch
    device = memory_fit.device(gpu)
    peak = needs.use.peak_bytes if needs.use is not None else None
    interval = None if peak is None else bars.interval(peak, work.work)
    return {
        "predicted": True,
        "gpu": gpu,
        "model": work.model,
        "family": work.family,
        "work": work.work,
        "res": tables.size(work.res),
        "latent_size": tables.size(work.latent_size),
        "batch": batch,
        "precision": precision,
        "images_per_s": batch / predicted.seconds,
        "images_per_s_interval": [batch / predicted.high_s, batch / predicted.low_s],
        "interval_nominal_share": projection.COVERAGE,
        "seconds": predicted.seconds,
        "seconds_interval": [predicted.low_s, predicted.high_s],
        "images_per_s_at_most_eager": batch / predicted.eager_floor_s,
        "images_per_s_at_most_fused": batch / predicted.fused_floor_s,
        "memory_peak_bytes": peak,
        "memory_peak_bytes_interval": interval and list(interval),
        "memory_status": needs.status,
        "usable_bytes": device.usable_bytes,
        "fits": None if peak is None else validation.fits(peak, interval, device.usable_bytes),
        "basis": basis,
        "torch": work.environment.torch,
        "commit": work.environment.commit,
        "date": work.environment.date,
    }


def _interval(row: tables.Row) -> str:
    low, high = row["images_per_s_interval"]
    return f"{tables.significant(low)} to {tables.significant(high)}"


def _fits(row: tables.Row) -> str:
    if row["fits"] is None:
        return row["memory_status"]
    said: str = row["fits"]
    return said if said == "yes" else f"{said}, {row['usable_bytes'] / GIB:g} GiB usable"


def _gib(row: tables.Row) -> str:
    if row["memory_peak_bytes"] is None:
        return "-"
    text = f"{row['memory_peak_bytes'] / GIB:.1f}"
    if row["memory_peak_bytes_interval"] is None:
        return text
    low, high = row["memory_peak_bytes_interval"]
    return f"{text} ({low / GIB:.1f} to {high / GIB:.1f})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


_NOMINAL = f"nominal {_percent(projection.COVERAGE)} interval"
_COLUMNS: list[tables.Column] = [
    ("GPU", lambda row: row["gpu"]),
    ("model", lambda row: row["model"]),
    ("work", lambda row: row["work"]),
    ("res", lambda row: str(row["res"])),
    ("batch", lambda row: str(row["batch"])),
    ("precision", lambda row: row["precision"]),
    ("predicted images/s", lambda row: tables.significant(row["images_per_s"])),
    (_NOMINAL, _interval),
    ("predicted ms", lambda row: tables.milliseconds(row["seconds"])),
    ("at most images/s eager", lambda row: tables.significant(row["images_per_s_at_most_eager"])),
    ("at most images/s fused", lambda row: tables.significant(row["images_per_s_at_most_fused"])),
    ("predicted GiB", _gib),
    ("fits", _fits),
]


# one row a share of the peaks


def _share_row(device_type: str, share: Share) -> tables.Row:
    return {
        "predicted": True,
        "device_type": device_type,
        "share": share.prior.name,
        "prior": share.prior.median,
        "value": share.value,
        "interval": [share.low, share.high],
        "why": share.prior.why,
    }


def _share_text(row: tables.Row, value: float) -> str:
    return f"{1e6 * value:.3g} us" if row["share"] == "launch" else f"{value:.3g}"


_SHARE_COLUMNS: list[tables.Column] = [
    ("on a", lambda row: {"cuda": "GPU", "cpu": "CPU"}[row["device_type"]]),
    ("share of the peak", lambda row: row["share"]),
    ("prior", lambda row: _share_text(row, row["prior"])),
    ("calibrated", lambda row: _share_text(row, row["value"])),
    (
        _NOMINAL,
        lambda row: " to ".join(_share_text(row, end) for end in row["interval"]),
    ),
    ("prior from", lambda row: row["why"]),
]


# one row a measured pass that was left out


def _held_row(held: HeldOut) -> tables.Row:
    seen, predicted = held.observation, held.prediction
    return {
        "left_out": held.left_out,
        "device": seen.device,
        "model": seen.model,
        "work": seen.work.work,
        "res": tables.size(seen.res),
        "batch": seen.batch,
        "precision": seen.precision,
        "measured_images_per_s": seen.batch / seen.seconds,
        "predicted": True,
        "predicted_images_per_s": seen.batch / predicted.seconds,
        "predicted_images_per_s_interval": [seen.batch / predicted.high_s, seen.batch / predicted.low_s],
        "error": math.exp(-held.error) - 1,
        "covered": held.covered,
        "measured_on": seen.date,
    }


def _held_interval(row: tables.Row) -> str:
    low, high = row["predicted_images_per_s_interval"]
    return f"{tables.significant(low)} to {tables.significant(high)}"


_HELD_COLUMNS: list[tables.Column] = [
    ("left out", lambda row: projection.said_left_out(row["left_out"])),
    ("device", lambda row: row["device"]),
    ("model", lambda row: row["model"]),
    ("work", lambda row: row["work"]),
    ("res", lambda row: str(row["res"])),
    ("batch", lambda row: str(row["batch"])),
    ("precision", lambda row: row["precision"]),
    ("measured images/s", lambda row: tables.significant(row["measured_images_per_s"])),
    ("predicted images/s", lambda row: tables.significant(row["predicted_images_per_s"])),
    (_NOMINAL, _held_interval),
    ("error", lambda row: f"{100 * row['error']:+.0f} %"),
    ("in it", lambda row: "yes" if row["covered"] else "no"),
]


# one row a published throughput on one GPU


def _judged_row(judged: Judged) -> tables.Row:
    row = judged.row
    of = {reading.precision: reading for reading in judged.readings}
    per_reading: dict[str, object] = {}
    for precision in validation.READINGS:
        reading = of.get(precision)
        predicted = reading and reading.prediction
        batch = validation.PUBLISHED_BATCH
        name = precision.replace("-", "_")
        per_reading |= {
            f"predicted_{name}": predicted and batch / predicted.seconds,
            f"predicted_{name}_interval": predicted and [batch / predicted.high_s, batch / predicted.low_s],
            f"at_most_{name}": predicted and batch / predicted.fused_floor_s,
        }
    return {
        "source": row.source,
        "model": row.model,
        "res": row.res,
        "batch": validation.PUBLISHED_BATCH,
        "published_images_per_s": row.images_per_s,
        "published_as_printed": row.as_printed,
        "published_device": row.device,
        "published_precision": row.precision,
        "predicted": True,
        "predicted_for": judged.gpu,
        **per_reading,
        "verdict": judged.verdict,
    }


def _reading(precision: str) -> tables.Column:
    name = precision.replace("-", "_")

    def text(row: tables.Row) -> str:
        if row[f"predicted_{name}"] is None:
            return "-"
        low, high = row[f"predicted_{name}_interval"]
        value = tables.significant(row[f"predicted_{name}"])
        return f"{value} ({tables.significant(low)} to {tables.significant(high)})"

    return f"predicted images/s {precision}", text


_JUDGED_COLUMNS: list[tables.Column] = [
    ("source", lambda row: row["source"]),
    ("model", lambda row: row["model"]),
    ("res", lambda row: str(row["res"])),
    ("published images/s", lambda row: row["published_as_printed"]),
    (
        "said",
        lambda row: ", ".join(filter(None, (row["published_device"], row["published_precision"]))) or "-",
    ),
    ("predicted for", lambda row: row["predicted_for"]),
    *map(_reading, validation.READINGS),
    ("fp32 images/s at most", lambda row: tables.significant(row["at_most_fp32"])),
    ("verdict, if on that GPU", lambda row: row["verdict"]),
]


# the command


def _gpus(to: Iterable[str], precisions: Sequence[str]) -> dict[str, str]:
    """GPUs by name, each with what was said of it.

    Raises:
        UsageError: a name that is no GPU's or several GPUs', or one without a peak that is needed.
    """
    found: dict[str, str] = {}
    for said in to:
        try:
            peaks = roofline.of_gpu(said)
        except ValueError as error:
            raise options.UsageError(f"--to {error}") from error
        if (reason := projection.why_not(peaks, precisions)) is not None:
            raise options.UsageError(f"--to {said}: {reason}: baselines/gpus.csv leaves it blank")
        found.setdefault(peaks.device, said)
    return found


def _body(args: argparse.Namespace) -> int:
    options.check_output(args.out, args.force)
    if args.weights:
        raise options.UsageError(f"--weights {args.weights}: their values change no size; leave it out")
    if "training" in args.work and "fp16" in args.precision:
        raise options.UsageError("--precision fp16: training in it would need a scaled loss; bf16 would work")
    published = args.show == "published"
    gpus = _gpus(
        args.to or ([validation.PUBLISHED_ON] if published else TO),
        validation.READINGS if published else args.precision,
    )
    names: list[str] = []
    if args.show == "predictions":
        names = options.model_names(args.model, default=MODELS)
        options.check_models(names, args.res, weights=None)
    records = options.known_records(args.records)
    with options.store(args.out) as store:
        source = _Source(records, store, args.force)
        notes = options.store_notes(store) if store is not None else []
        seen, unused = _seen(records, source)
        basis = validation.basis(seen)
        if args.show == "shares":
            rows = [
                _share_row(device_type, share)
                for device_type, calibration in basis.calibrations.items()
                for share in calibration.described()
            ]
            columns = _SHARE_COLUMNS
        elif args.show == "held-out":
            rows, columns = [_held_row(held) for held in basis.held_out], _HELD_COLUMNS
        elif published:
            rows = [_judged_row(judged) for judged in _judged(basis, source, list(gpus))]
            columns = _JUDGED_COLUMNS
        else:
            bars, lacking = _memory_bars(records, source, args.work)
            rows, columns = _predicted(args, names, gpus, basis, bars, source), _COLUMNS
            notes += [bars.words(work) for work in dict.fromkeys(args.work)] + lacking
    text = tables.render(rows, columns, args.format)
    notes += _notes(args, basis, gpus, unused)
    if rows and args.show == "predictions":
        notes.append(_made_with(rows))
    tables.emit(text, notes, None if options.keeps_records(args.out) else args.out)
    return 0


def _predicted(
    args: argparse.Namespace,
    names: Sequence[str],
    gpus: Iterable[str],
    basis: Basis,
    bars: MemoryBars,
    source: _Source,
) -> list[tables.Row]:
    passes = [
        (name, res, batch, precision, work)
        for work in dict.fromkeys(args.work)
        for precision in dict.fromkeys(args.precision)
        for res in dict.fromkeys(args.res)
        for batch in dict.fromkeys(args.batch)
        for name in names
    ]
    rows: list[tables.Row] = []
    with options.progress("predicting", len(passes)) as begin:
        for name, res, batch, precision, work in passes:
            begin(name)
            key = validation.asked(name, res, batch, precision, work)
            try:
                asked = source.work(key)
            except ValueError as error:
                raise options.UsageError(f"--model {error}") from error
            needs = source.memory(key)
            for gpu in gpus:
                predicted = basis.predict(asked, roofline.of_gpu(gpu), precision)
                rows.append(_row(asked, gpu, precision, predicted, needs, bars, basis.words()))
    return sorted(rows, key=lambda row: list(gpus).index(row["gpu"]))


def _judged(basis: Basis, source: _Source, gpus: Sequence[str]) -> list[Judged]:
    from models.registry import names

    known = set(names("*"))
    rows = [row for row in validation.published_rows() if row.model in known]
    with options.progress("tracing", len(rows)) as begin:
        for row in rows:
            begin(row.model)
            source.work(row.asked)
    return validation.judge(basis, source.derived, gpus)


def _notes(
    args: argparse.Namespace, basis: Basis, gpus: Mapping[str, str], unused: Counter[str]
) -> list[str]:
    notes = []
    if args.show in ("predictions", "published"):
        named = [f"{said}: {gpu}" for gpu, said in gpus.items() if said.lower() != gpu.lower()]
        notes += [f"--to {'; '.join(named)}"] if named else []
        notes.append(f"predicted, not measured; {basis.words()}")
    for device_type, calibration in basis.calibrations.items():
        if calibration.observations:
            off = math.expm1(calibration.misfit)
            where = {"cuda": "GPUs", "cpu": "CPUs"}[device_type]
            notes.append(
                f"calibrated on {len(calibration.observations)} passes of {where}, which the formula then "
                f"misses by {_percent(off)} (root mean square)"
            )
    notes.append(basis.level())
    if args.show == "held-out":
        notes += _held_notes(basis)
    if args.show == "published":
        notes += [validation.LIMIT, validation.CAVEAT]
    if args.show == "shares":
        notes += [basis.words(device_type) for device_type in basis.calibrations]
        notes += filter(None, [basis.priors_held()])
    if args.show == "predictions":
        notes.append("shares of the peaks and where they come from: --show shares; errors: --show held-out")
    if unused:
        reasons = "; ".join(f"{count} {reason}" for reason, count in unused.most_common())
        notes.append(f"measured passes that do not calibrate: {reasons}")
    return notes


def _held_notes(basis: Basis) -> list[str]:
    """How often the intervals held what they were not shown, a line a model."""
    models: dict[str, list[str]] = {}
    for one in basis.coverages:
        models.setdefault(one.model, []).append(f"{one.text} with {projection.said_left_out(one.left_out)}")
    lines = [f"in the interval of {model}: {', '.join(told)}" for model, told in sorted(models.items())]
    return (
        [*lines, "an interval is made of the errors of the other groups, never of its own"] if lines else []
    )


def _made_with(rows: Sequence[tables.Row]) -> str:
    """What the work of the passes was traced with, some of it perhaps long ago."""
    made = {(row["torch"], row["commit"]) for row in rows}
    stamps = ", ".join(f"torch {torch}, commit {commit or '-'}" for torch, commit in sorted(made))
    return f"work traced with {stamps}; {max(row['date'] for row in rows)}"


def parser() -> options.Parser:
    made = options.parser("bench.project", __doc__)
    made.add_argument(
        "--to",
        nargs="+",
        metavar="GPU",
        help="GPUs of baselines/gpus.csv, by name or a part that says which (default: "
        f"{' '.join(TO)}; for --show published {validation.PUBLISHED_ON})",
    )
    options.add_models(made, default=" ".join(MODELS))
    options.add_res(made, default=(256,))
    made.add_argument(
        "--batch", nargs="+", type=options.positive_int, default=[64], help="images a pass (default: 64)"
    )
    made.add_argument(
        "--precision", nargs="+", choices=options.PRECISIONS, default=["bf16"], help="default: bf16"
    )
    made.add_argument(
        "--work", nargs="+", choices=memory.WORK, default=["inference"], help="default: inference"
    )
    made.add_argument("--show", choices=SHOW, default="predictions", help="default: predictions")
    options.add_records(
        made, f"to calibrate on; only these are read (default: {options.REPORTED} and the suite's own)"
    )
    options.add_output(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return options.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
