"""How do time, MACs, bytes and memory of a backbone grow with resolution?

    python -m bench.scaling
    python -m bench.scaling --res 256 512 1024 2048 --work inference training --precision bf16 --out r.jsonl
    python -m bench.scaling --no-measure --res 256 512 1024 2048
    python -m bench.scaling --model FCDM-S DiT-S/2 --res 128 256 128x256 --show exponents claim
    python -m bench.scaling --model my_pkg.my_mod:factory --format json

For every model and size: seconds, multiply-accumulates (MACs), bytes moved by an eager pass, and memory, all
of one image. An exponent is that of the side, cost ~ side ** e, beside the factor that a doubled side costs;
in pixels it is half as large. The side of 256x512 is that of a square of as many pixels; it and 512x256 are
rows of their own, and one size of a fit and of every verdict, the geometric mean of both. Inference is timed
as by bench.throughput, training as by bench.train_step, counts are those of bench.operators.

Time is taken at one batch for all sizes. Where memory runs out the batch is halved until it fits: each failed
attempt is a row, every size says the batch that ran, and so does every fit and verdict over sizes that ran at
several ("batch 16 to 2"): a smaller batch may cost more time and bytes an image. Memory is what the passes
hold for each image beside parameters, moments and EMA: measured as by bench.memory on a GPU, predicted on a
CPU.

Every case is visited in a process of its own, so that neither memory nor caches of another are in it, and
all cases are visited before any is visited again, in the reverse order: a machine that drifts does so alike
for all sizes. Intervals are 95 %, from a bootstrap of the samples of every size, widened by what two visits
of a case differ by over all cases: with few cases that is hardly known, and intervals are wide. Where visits
differ by more than 20 % nothing is judged; with --visits 1 it is not known, so that there are no intervals,
and nothing is judged either.

How far from a power of the side a cost is, is told by how much the farthest size lies off the fitted line, by
the exponents from each size to the next, and for times by an interval "by residuals": noise and misfit
together. Counts have no noise: their exponents vary with the sizes, and no interval says by how much.

The table "claim" answers, on one device in one run, a paper's "DiT slows 4 times, ours 2 times when the side
doubles": each model's slow-down beside the published one and that of its MACs, and DiT's slow-down as a
multiple of the others'. Cross-overs are interpolated between measured sizes; what lies beyond them is said to
be extrapolated.

Without a GPU the S sizes are timed at 128, 256 and 512 px. Counts alone (--no-measure) are by default those
of all models at four sizes, 16 images each; options that say how to time are refused beside it. A suite of
bench.sweep visits cases as they are given, without halving a batch.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from bench import memory, operators, train_step
from bench.analysis import resolution
from bench.analysis.resolution import Contrast, Crossing, Doubling, Sized, Study
from bench.cli import options, settings
from bench.cli import tables as output
from bench.jobs.job import Unit
from bench.jobs.worker import Case
from bench.memory import MemoryCase
from bench.records.record import Record, Run, Size, Skipped, Throughput, Work, size_text
from bench.records.store import Store
from bench.stats import intervals, power_law

if TYPE_CHECKING:
    from torch import nn

CUDA_MODELS = ("FCDM-XL", "DiT-XL/2", "DiCo-XL", "DiC-XL", "DiG-XL/2")
CUDA_RES = (256, 512, 1024, 2048)
CPU_RES = (128, 256, 512)
BATCH = 16
CPU_BATCH = 1
CUDA_BUDGET_S = 10.0  # of a visit
CPU_BUDGET_S = 5.0
VISITS = 2
WORK = ("inference", "training")
# options that say how to time, and so nothing of counts
TIMING = (
    "device", "compile", "cuda_graphs", "channels_last", "checkpointing", "attention", "budget",
    "precision_target", "visits",
)  # fmt: skip
TABLES = ("sizes", "exponents", "claim", "crossovers")
TAKEN_OVER = "*"  # beside a published ratio
MIB, GIB = 2**20, 2**30

Models = dict[tuple[str, Size], "nn.Module"]
R = TypeVar("R", bound=Record)


def planned(args: argparse.Namespace) -> tuple[list[Run], Models]:
    """What is to be timed, at the batch that was asked for, and its models on meta.

    The question of a run names the first visit.

    Raises:
        UsageError: names, sizes or settings that cannot be.
    """
    if args.no_measure:
        _refuse_timing(args)
    where = settings.device_of(args)
    if "training" in args.work:
        train_step.refuse(args)
    on_cpu = where == "cpu"
    sizes: tuple[Size, ...] = tuple(
        dict.fromkeys(args.res or (CPU_RES if on_cpu and not args.no_measure else CUDA_RES))
    )
    if len({resolution.side_of(res) for res in sizes}) < 2:
        told = " ".join(map(size_text, sizes))
        raise options.UsageError(
            f"--res {told}: an exponent needs two sizes of different areas or more, as --res 256 512"
        )
    default = ("*",) if args.no_measure else settings.CPU_MODELS if on_cpu else CUDA_MODELS
    names = options.model_names(args.model, default=default)
    if args.weights:
        raise options.UsageError(f"--weights {args.weights}: their values change no size; leave it out")
    models = options.meta_models(names, sizes, None)
    filled = argparse.Namespace(
        **{
            **vars(args),
            "res": sizes,
            "batch": args.batch or [CPU_BATCH if on_cpu and not args.no_measure else BATCH],
        }
    )
    runs = [
        replace(
            run,
            question=resolution.question(work, run.batch, 1),
            budget_s=args.budget or (CPU_BUDGET_S if on_cpu else CUDA_BUDGET_S),
            precision_target=args.precision_target,
        )
        for work in dict.fromkeys(args.work)
        for group in settings.runs(filled, "", where, names)
        for run in group
    ]
    return runs, models


def _refuse_timing(args: argparse.Namespace) -> None:
    """Refuse what --no-measure would ignore.

    Raises:
        UsageError: an option that says how to time is not at its default.
    """
    usual = parser()
    for name in TIMING:
        if getattr(args, name) != usual.get_default(name):
            flag = name.replace("_", "-")
            raise options.UsageError(
                f"--{flag}: says how to time, and --no-measure times nothing; leave one of them out"
            )


def _refuse_empty(shown: Sequence[str], runs: Sequence[Run]) -> None:
    """Refuse tables that were asked for and that no measurement could fill.

    Raises:
        UsageError: cross-overs of one model, or slow-downs without a doubled side.
    """
    models = list(dict.fromkeys(run.model for run in runs))
    if "crossovers" in shown and len(models) < 2:
        raise options.UsageError(f"--show crossovers: a cross-over needs two models, got --model {models[0]}")
    sizes = list(dict.fromkeys(run.res for run in runs))
    sides = [resolution.side_of(res) for res in sizes]
    if "claim" in shown and not power_law.doubled(sides):
        told = " ".join(map(size_text, sizes))
        raise options.UsageError(
            f"--show claim: a slow-down needs a size of twice the side of another, got --res {told}"
        )


def visited(runs: Sequence[Run], visits: int) -> Iterator[tuple[int, Run]]:
    """The place in runs and the run of every visit: forwards, then backwards, and so on."""
    for visit in range(1, visits + 1):
        order = range(len(runs)) if visit % 2 else range(len(runs) - 1, -1, -1)
        for at in order:
            work, batch = runs[at].work, runs[at].batch
            yield at, replace(runs[at], question=resolution.question(work, batch, visit))


def shrink(run: Run, keep: Callable[[Run], Throughput | Skipped]) -> tuple[list[Throughput | Skipped], int]:
    """Halve the batch until memory suffices.

    Returns:
        Every attempt, and the batch of the last.
    """
    attempts = [keep(run)]
    while _out_of_memory(attempts[-1]) and run.batch > 1:
        run = replace(run, batch=run.batch // 2)
        attempts.append(keep(run))
    return attempts, run.batch


def _out_of_memory(record: Record) -> bool:
    return isinstance(record, Skipped) and record.status == "out of memory"


def _measure(run: Run) -> Throughput | Skipped:
    return settings.measure(Case(run=run, weights=None))


def timed(
    runs: Sequence[Run], visits: int, keep: Callable[[Run], Throughput | Skipped]
) -> tuple[list[Throughput | Skipped], list[int]]:
    """Visit every case in turn; a batch that was too large once is not tried again.

    Returns:
        Every attempt in order, and the last batch of each case.
    """
    batches = [run.batch for run in runs]
    attempts: list[Throughput | Skipped] = []
    for at, run in visited(runs, visits):
        made, batches[at] = shrink(replace(run, batch=batches[at]), keep)
        attempts += made
    return attempts, batches


def memory_case(run: Run) -> MemoryCase:
    """The memory of a case as it ran; predicted where there is no GPU."""
    return MemoryCase(
        model=run.model,
        res=run.res,
        batch=run.batch,
        device="cuda" if run.environment.device_type == "cuda" else "meta",
        precision=run.precision,
        work=run.work,
        checkpointing=run.checkpointing and run.work == "training",
        limit_bytes=None,
    )


def _blank(run: Run) -> Work:
    return operators.blank(run.model, run.res, run.batch, run.precision, run.work)


def units(args: argparse.Namespace) -> list[Unit]:
    """Every visit for a sweep, then the counts and the memory of the batches as they are given."""
    runs, models = planned(args)
    found = []
    if not args.no_measure:
        found += [
            Unit(
                label=f"{_label(run)}, {run.question.rpartition(', ')[2]}",
                about=run,
                estimate_s=settings.startup_s(run) + run.budget_s,
                measure=partial(_measure, run),
            )
            for _, run in visited(runs, args.visits)
        ]
        found += [
            Unit(
                label=f"memory of {_label(run)}",
                about=memory_case(run).run,
                estimate_s=memory.TYPICAL_S,
                measure=partial(memory.result_of, memory_case(run)),
            )
            for run in runs
        ]
    found += [
        Unit(
            label=f"count of {_label(run)}",
            about=_blank(run),
            estimate_s=1.0,
            measure=partial(operators.traced, _blank(run), models[run.model, run.res]),
        )
        for run in runs
    ]
    return found


def _label(run: Run) -> str:
    return f"{run.work}, {settings.label(Case(run=run, weights=None))}"


def _held(store: Store | None, about: Run | Record, force: bool) -> Record | None:
    return None if store is None or force else store.held(about)


def _records(args: argparse.Namespace, runs: Sequence[Run], models: Models) -> tuple[list[Record], list[str]]:
    """Everything that is asked for, measured or from the store, and notes on that."""
    found: list[Record] = []  # in the store
    notes: list[str] = []
    total = len(runs) * (1 if args.no_measure else args.visits + 2)
    with options.store(args.out) as store, options.progress("measuring", total) as begin:
        notes += options.store_notes(store) if store is not None else []

        def keep(about: Run | Record, label: str, make: Callable[[], R]) -> R:
            begin(label)
            held = _held(store, about, args.force)
            if held is not None:
                found.append(held)
                return cast(R, held)  # its key holds the question, and so the kind of answer
            record = make()
            if store is not None:
                store.append(record)
            return record

        records: list[Record] = []
        batches = [run.batch for run in runs]
        if not args.no_measure:
            attempts, batches = timed(
                runs, args.visits, lambda run: keep(run, _label(run), partial(_measure, run))
            )
            records += attempts
        for run in (replace(run, batch=batch) for run, batch in zip(runs, batches, strict=True)):
            if not args.no_measure:
                case = memory_case(run)
                records.append(keep(case.run, memory.label(case), partial(memory.result_of, case)))
            asked = _blank(run)
            count = partial(operators.traced, asked, models[run.model, run.res])
            records.append(keep(asked, f"count of {_label(run)}", count))
    if found:
        notes.append(f"{len(found)} records were in {args.out} already; --force measures them again")
    return records, notes


# what is printed: rows of four tables


def _setting(study: Study) -> dict[str, object]:
    setting = study.setting
    return {
        "work": setting.work,
        "precision": setting.precision,
        "settings": ", ".join(setting.switches),
        "device": setting.device,
    }


def _px(side: float) -> str:
    return f"{side:.0f}"


def size_rows(study: Study) -> list[output.Row]:
    """One object for every size, and before it one for every attempt that failed."""
    rows: list[output.Row] = []
    for sized in study.sizes:
        blank = replace(sized, visits=(), work=None, memory=None)
        failed = [(one.run.batch, one.status, one.reason) for one in sized.failed]
        rows += [
            {**_of_size(study, blank), "batch": batch, "status": status, "reason": reason}
            for batch, status, reason in dict.fromkeys(failed)
        ]
        if sized.visits or not failed:
            rows.append(_of_size(study, sized))
    return rows


def _of_size(study: Study, sized: Sized) -> output.Row:
    point, held, interval = sized.point("time"), sized.memory, study.interval(sized)
    return {
        "model": sized.model,
        **_setting(study),
        "res": output.size(sized.res),
        "batch": sized.batch,
        "status": "ok" if point or not study.setting.device else "",
        "reason": "",
        "s_per_image": point.cost if point else None,
        "s_per_image_interval": list(interval) if interval else None,
        "visit_medians_s_per_image": [intervals.median(visit) for visit in sized.visits],
        "samples": sum(map(len, sized.visits)),
        "macs_per_image": sized.macs,
        "eager_bytes_per_image": sized.eager_bytes,
        "fused_bytes_per_image": sized.fused_bytes,
        "held_bytes_per_image": sized.held_bytes,
        "peak_bytes": held.use.peak_bytes if held and held.use else None,
        "memory_predicted": held.predicted if held else None,
        "memory_status": held.status if held else "",
    }


def exponent_rows(study: Study) -> list[output.Row]:
    return [
        {
            "model": model,
            **_setting(study),
            "cost": cost,
            "exponent_of_side": fit.slope,
            "interval": list(fit.interval) if fit.interval else None,
            "interval_by_residuals": list(fit.by_residuals) if fit.by_residuals else None,
            "misfit": fit.misfit,
            "local_exponents": list(fit.local),
            "per_doubling": fit.per_doubling,
            "sides": list(fit.sides),
            "batches": list(study.batches((model,), cost, fit.sides)),
        }
        for model in study.models
        for cost, fit in resolution.fitted(study, model).items()
    ]


def claim_rows(study: Study) -> list[output.Row]:
    """One object for every doubling of every model, then those of DiT beside the others."""
    rows = [_of_doubling(study, one) for model in study.models for one in resolution.doublings(study, model)]
    return rows + [_of_contrast(study, one) for one in resolution.contrasts(study)]


def _of_doubling(study: Study, one: Doubling) -> output.Row:
    return {
        "what": one.model,
        **_setting(study),
        "from_side": one.from_side,
        "to_side": one.to_side,
        "time_ratio": one.time.ratio if one.time else None,
        "time_ratio_interval": list(one.time.interval) if one.time and one.time.interval else None,
        "macs_ratio": one.other("MACs"),
        "bytes_ratio": one.other("bytes"),
        "memory_ratio": one.other("memory"),
        "published": [asdict(fall) for fall in one.falls],
        "batches": list(one.batches),
        "verdict": one.verdict,
    }


def _of_contrast(study: Study, one: Contrast) -> output.Row:
    return {
        "what": f"{one.reference} / {one.model}",
        **_setting(study),
        "from_side": one.from_side,
        "to_side": one.to_side,
        "time_ratio": one.ratio,
        "time_ratio_interval": list(one.interval) if one.interval else None,
        "macs_ratio": one.macs,
        "bytes_ratio": None,
        "memory_ratio": None,
        "published": [asdict(fall) for fall in one.published],
        "batches": list(one.batches),
        "verdict": one.verdict,
    }


def crossing_rows(study: Study) -> list[output.Row]:
    costs = ("time", "MACs") if study.setting.device else ("MACs",)
    return [_of_crossing(study, one) for cost in costs for one in resolution.crossings(study, cost)]


def _of_crossing(study: Study, one: Crossing) -> output.Row:
    return {
        "models": f"{one.first}, {one.second}",
        **_setting(study),
        "cost": one.cost,
        "side": one.at.side,
        "interval": _finite(one.at.interval),
        "sides": list(one.sides),
        "extrapolated_side": one.at.extrapolated,
        "equal_sides": list(one.at.equal),
        "certain": one.at.certain,
        "batches": list(one.batches),
        "verdict": one.verdict,
    }


def _finite(interval: power_law.Interval | None) -> list[float | None] | None:
    """The ends of an interval of sides; None for one that the sizes do not bound."""
    return None if interval is None else [end if 0 < end < math.inf else None for end in interval]


def _scaled(key: str, scale: float) -> Callable[[output.Row], str]:
    return lambda row: output.significant(None if row[key] is None else row[key] / scale)


def _time(row: output.Row) -> str:
    if row["s_per_image"] is None:
        return "-" if row["status"] in ("", "ok") else str(row["status"])
    return output.milliseconds(row["s_per_image"])


def _range(key: str, scale: float = 1.0) -> Callable[[output.Row], str]:
    def text(row: output.Row) -> str:
        if row[key] is None:
            return "-"
        return " to ".join(output.significant(end / scale) for end in row[key])

    return text


def _sides(key: str) -> Callable[[output.Row], str]:
    return lambda row: "-" if row[key] is None else " to ".join(map(_px, (row[key][0], row[key][-1])))


def _ends(row: output.Row) -> str:
    """An interval of sides, whose ends may lie beyond the sizes."""
    if row["interval"] is None:
        return "-"
    low, high = row["interval"]
    smallest, largest = map(_px, row["sides"])
    left = f"below {smallest}" if low is None else _px(low)
    right = f"above {largest}" if high is None else _px(high)
    return f"{left} to {right}"


def _how(row: output.Row) -> str:
    if row["memory_predicted"] is None:
        return "-"
    how = "predicted" if row["memory_predicted"] else "measured"
    return how if row["memory_status"] == "ok" else f"{how}: {row['memory_status']}"


def _published(row: output.Row) -> str:
    return (
        ", ".join(
            f"{one['ratio']:.2f}{TAKEN_OVER if one['taken_over'] else ''} ({one['paper']} {one['model']})"
            for one in row["published"]
        )
        or "-"
    )


_USUAL: list[output.Column] = [
    ("work", lambda row: row["work"]),
    ("precision", lambda row: row["precision"]),
    ("settings", lambda row: row["settings"]),
]
_COLUMNS: dict[str, list[output.Column]] = {
    "sizes": [
        ("model", lambda row: row["model"]),
        *_USUAL,
        ("px", lambda row: str(row["res"])),
        ("batch", lambda row: str(row["batch"])),
        ("ms/image", _time),
        ("95 % interval", _range("s_per_image_interval", 1e-3)),
        ("samples", lambda row: str(row["samples"] or "-")),
        ("GMACs/image", _scaled("macs_per_image", 1e9)),
        ("eager MB/image", _scaled("eager_bytes_per_image", 1e6)),
        ("fused MB/image", _scaled("fused_bytes_per_image", 1e6)),
        ("held MiB/image", _scaled("held_bytes_per_image", MIB)),
        ("peak GiB", _scaled("peak_bytes", GIB)),
        ("memory is", _how),
    ],
    "exponents": [
        ("model", lambda row: row["model"]),
        *_USUAL,
        ("cost", lambda row: row["cost"]),
        ("exponent of the side", lambda row: output.fixed(3, row["exponent_of_side"])),
        ("95 % interval", _range("interval")),
        ("95 % by residuals", _range("interval_by_residuals")),
        ("off the line", lambda row: f"{100 * row['misfit']:.1f} %"),
        ("size to size", lambda row: ", ".join(output.fixed(2, one) for one in row["local_exponents"])),
        ("x per doubled side", lambda row: output.fixed(2, row["per_doubling"])),
        ("px", _sides("sides")),
        ("batch", lambda row: resolution.spanned(row["batches"]) or "-"),
    ],
    "claim": [
        ("slow-down of", lambda row: row["what"]),
        *_USUAL,
        ("px", lambda row: f"{_px(row['from_side'])} to {_px(row['to_side'])}"),
        ("time x", lambda row: output.fixed(2, row["time_ratio"])),
        ("95 % interval", _range("time_ratio_interval")),
        ("MACs x", lambda row: output.fixed(2, row["macs_ratio"])),
        ("bytes x", lambda row: output.fixed(2, row["bytes_ratio"])),
        ("memory x", lambda row: output.fixed(2, row["memory_ratio"])),
        ("published x", _published),
        ("verdict", lambda row: row["verdict"] or "-"),
    ],
    "crossovers": [
        ("models", lambda row: row["models"]),
        *_USUAL,
        ("cost", lambda row: row["cost"]),
        ("cross at px", lambda row: "none" if row["side"] is None else _px(row["side"])),
        ("95 % interval", _ends),
        ("sizes, px", _sides("sides")),
        ("verdict", lambda row: row["verdict"]),
    ],
}  # fmt: skip
_ROWS: dict[str, Callable[[Study], list[output.Row]]] = {
    "sizes": size_rows,
    "exponents": exponent_rows,
    "claim": claim_rows,
    "crossovers": crossing_rows,
}
_HEADINGS = {
    "sizes": "Sizes: one image",
    "exponents": "Exponents: cost ~ side ** e",
    "claim": "Slow-downs when the side doubles; DiT's as a multiple of the others'",
    "crossovers": "Cross-overs of any two models",
}


def rendered(studies: Sequence[Study], tables: Sequence[str], form: str) -> str:
    """All tables that were asked for; JSON is an object of them, CSV is one."""
    rows = {table: [row for study in studies for row in _ROWS[table](study)] for table in tables}
    if form == "json":
        return json.dumps(rows, indent=2) + "\n"
    texts = []
    for table in tables:
        columns = [
            (head, write)
            for head, write in _COLUMNS[table]
            if any(write(row) not in ("", "-") for row in rows[table])
        ]
        text = output.render(rows[table], columns, form)
        heading = {"md": f"### {_HEADINGS[table]}\n\n", "latex": f"% {_HEADINGS[table]}\n"}
        if rows[table]:
            texts.append(text if form == "csv" else heading.get(form, f"{_HEADINGS[table]}\n\n") + text)
    return "\n".join(texts)


def _tables(args: argparse.Namespace) -> list[str]:
    """The tables of --show; CSV has room for one.

    Raises:
        UsageError: several tables as CSV.
    """
    shown = list(dict.fromkeys(args.show or ()))
    if args.format == "csv":
        if len(shown) > 1:
            raise options.UsageError(f"--show {' '.join(shown)}: csv holds one table; name one, or take json")
        return shown or ["sizes"]
    # of counts there are as many cross-overs as pairs of models
    return shown or [table for table in TABLES if table != "crossovers" or not args.no_measure]


def _body(args: argparse.Namespace) -> int:
    options.check_output(args.out, args.force)
    tables = _tables(args)
    runs, models = planned(args)
    _refuse_empty(args.show or (), runs)
    records, notes = _records(args, runs, models)
    found = resolution.counts(records) if args.no_measure else resolution.studies(records)
    output.emit(
        rendered(found, tables, args.format),
        [*notes, *_notes(records, found, tables, args)],
        None if options.keeps_records(args.out) else args.out,
    )
    return 0


def _notes(
    records: Sequence[Record], found: Sequence[Study], tables: Sequence[str], args: argparse.Namespace
) -> list[str]:
    works = [record for record in records if isinstance(record, Work)]
    notes = ["1 MAC = 2 FLOPs; the exponent in pixels is half of that in the side; memory is without weights"]
    if args.no_measure:
        here = works[0].environment
    else:
        here = found[0].runs[-1].environment
        notes += [
            f"{study.setting.work} {study.setting.precision}: {resolution.of_visits(study.drift)}"
            for study in found
        ]
    if "claim" in tables and any(row["published"] for study in found for row in claim_rows(study)):
        notes.append(f"published: {resolution.remark_on_falls()}")
        notes.append(f"{TAKEN_OVER}: {resolution.TAKEN_OVER}")
    notes.append(
        f"{here.device or 'counted only'}; torch {here.torch}; {here.threads} CPU threads; "
        f"commit {here.commit or '-'}; {here.date}"
    )
    return notes


def parser() -> options.Parser:
    made = options.parser("bench.scaling", __doc__)
    options.add_models(
        made,
        default=f"{', '.join(CUDA_MODELS)} on a GPU, the S sizes on a CPU; all of them with --no-measure",
    )
    options.add_res(made, default=CUDA_RES)
    made.set_defaults(res=None)
    made.add_argument(
        "--work", nargs="+", choices=WORK, default=["inference"], help="default: inference; or both"
    )
    settings.add_settings(made, batch=BATCH, cpu_batch=CPU_BATCH)
    made.add_argument(
        "--budget",
        type=options.positive_seconds,
        metavar="SECONDS",
        help=f"of each visit, warm-up and samples (default: {CUDA_BUDGET_S:g} s on a GPU, {CPU_BUDGET_S:g} s "
        "on a CPU)",
    )
    made.add_argument(
        "--precision-target",
        type=options.share,
        default=0.01,
        metavar="SHARE",
        help="end a visit when the 95 %% interval of its median is within this share of it (default: 0.01)",
    )
    made.add_argument(
        "--visits", type=options.positive_int, default=VISITS, help=f"of each case (default: {VISITS})"
    )
    made.add_argument("--no-measure", action="store_true", help="counts only: MACs and bytes")
    made.add_argument(
        "--show",
        nargs="+",
        choices=TABLES,
        help="default: all, without the cross-overs of counts; of csv: sizes",
    )
    options.add_output(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return options.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
