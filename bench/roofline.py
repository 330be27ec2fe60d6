"""How fast could a pass be on a device, and how near does a measured one come?

    python -m bench.roofline
    python -m bench.roofline --model FCDM-XL DiT-XL/2 --precision bf16 --device-peaks "H200 SXM5 141GB" here
    python -m bench.roofline --model 'FCDM-*' --res 256 512 --precision fp32 tf32 --device-peaks "RTX 4090"
    python -m bench.roofline --model FCDM-XL --precision bf16 --device-peaks "H200 SXM5 141GB" --by kind
    python -m bench.roofline --model FCDM-S DiT-S/2 --batch 4 --records runs.jsonl --format json

Computed, not measured: the floor, the least time of a pass, is max(FLOPs / peak, bytes / bandwidth) of every
operator, summed. Eager: every kernel reads its inputs and writes its outputs. Fused: only products move
anything, ideally; bench.operators says what is counted and shows it by operator. No launches, no caches, one
kernel at a time: nothing eager on that device should be faster than its eager floor, unless caches hold much
of a pass, and nothing at all faster than the fused one. One MAC is two FLOPs. Bound by: the share of the
floor in operators that their FLOPs hold up (compute) or their bytes (memory).

Peaks: a GPU's are those of baselines/gpus.csv, dense and as sold, from the sources named there; what no
source says stays blank, and so do its floors. "here" is the device at hand with the ceilings that
bench.ceilings measured of it: those of the records if they are there, measured now if not. fp32 has no tensor
cores in it, tf32 has; torch-default is TF32 in convolutions and fp32 in the rest. Depthwise convolutions are
held to the same peak, which no kernel of theirs reaches.

Achieved: floor / measured median, where the records hold a throughput of the same model, resolution, batch,
precision and device; the fastest of them, whatever its other settings. Training steps, which hold a loss and
an update, are not set beside the floor of their two passes. --records names the files; by default those that
python -m reports reads.

--by shows the floor of every kind of operator, of every module or of every operator, which add up to that of
the pass. Beside kinds and modules stand the milliseconds that a profile in the records (bench.operators
--profile) saw of the same pass on the same device, the median of its passes, what these differ by and, where
that is too much to rely on, a word on it; the profiler slows a pass.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench import ceilings, operators
from bench.analysis import roofline
from bench.analysis.roofline import Floor, Peaks
from bench.cli import options, settings, tables
from bench.records import labels
from bench.records.record import Ceiling, Part, Profiled, Record, Size, Skipped, Throughput, Work, size_text
from bench.stats import noise

if TYPE_CHECKING:
    from torch import nn

HERE = "here"
WHOLE = "all"  # the part of a pass that is all of it


@dataclass(frozen=True, kw_only=True)
class Point:
    """One pass under one roof."""

    work: Work
    precision: str  # of the arithmetic
    peaks: Peaks
    eager: Floor | None
    fused: Floor | None
    measured: Throughput | None


def point(work: Work, precision: str, peaks: Peaks, records: Sequence[Record]) -> Point:
    return Point(
        work=work,
        precision=precision,
        peaks=peaks,
        eager=roofline.floor(work, peaks, precision, "eager"),
        fused=roofline.floor(work, peaks, precision, "fused"),
        measured=roofline.fastest(records, work, precision, peaks.device),
    )


def row(point: Point) -> tables.Row:
    """One object of the JSON output; what is not known is None."""
    work, peaks, measured = point.work, point.peaks, point.measured

    def of(floor: Floor | None) -> dict[str, float | None]:
        if floor is None:
            return dict.fromkeys(("floor_s", "images_per_s", "compute_share", "achieved"))
        return {
            "floor_s": floor.total_s,
            "images_per_s": work.batch / floor.total_s,
            "compute_share": floor.compute_share,
            "achieved": floor.total_s / measured.median_s if measured else None,
        }

    return {
        "model": work.model,
        "family": work.family,
        "res": tables.size(work.res),
        "latent_size": tables.size(work.latent_size),
        "batch": work.batch,
        "precision": point.precision,
        "work": work.work,
        "device": peaks.device,
        "peaks": "measured" if peaks.measured else "as sold",
        "peaks_source": peaks.source,
        "matmul_flops_per_s": peaks.flops_per_s(point.precision, "linear"),
        "convolution_flops_per_s": peaks.flops_per_s(point.precision, "convolution"),
        "bytes_per_s": peaks.bytes_per_s,
        "flops": 2 * work.macs,
        "eager_bytes": work.eager_bytes,
        "fused_bytes": work.fused_bytes,
        "eager_intensity": roofline.intensity(work, "eager"),
        "fused_intensity": roofline.intensity(work, "fused"),
        **{f"eager_{key}": value for key, value in of(point.eager).items()},
        **{f"fused_{key}": value for key, value in of(point.fused).items()},
        "measured_images_per_s": measured and measured.images_per_s,
        "measured_on": measured and measured.run.environment.device,
        "measured_date": measured and measured.run.environment.date,
    }


def _bound(key: str) -> Callable[[tables.Row], str]:
    def write(row: tables.Row) -> str:
        share = row[key]
        if share is None:
            return "-"
        return f"compute {100 * share:.0f} %" if share > 0.5 else f"memory {100 * (1 - share):.0f} %"

    return write


def _significant(key: str) -> Callable[[tables.Row], str]:
    return lambda row: tables.significant(row[key])


def _percent(key: str) -> Callable[[tables.Row], str]:
    return lambda row: tables.fixed(1, None if row[key] is None else 100 * row[key])


def _milliseconds(key: str) -> Callable[[tables.Row], str]:
    return lambda row: tables.milliseconds(row[key])


def part_rows(point: Point, by: str, profiled: Profiled | None) -> list[tables.Row]:
    """One object for every part of a pass under a roof, and one for the whole.

    Args:
        point: the pass.
        by: kind, module or op.
        profiled: of the same pass, by the same names; None without.
    """
    work, peaks, precision = point.work, point.peaks, point.precision
    seconds = profiled.medians if profiled else None
    samples = profiled.samples if profiled else {}
    named = operators.grouped(work, by)
    beside: list[tuple[str, list[Part]]] = [(name, []) for name in seconds or () if name not in named]
    rows: list[tables.Row] = []
    for name, parts in [*named.items(), *beside, (WHOLE, work.parts)]:
        of_part = replace(work, parts=tuple(parts))
        eager, fused = (roofline.floor(of_part, peaks, precision, form) for form in roofline.FORMS)
        spent = None
        if seconds is not None:
            spent = sum(seconds.values()) if name == WHOLE else seconds.get(name)
        sampled = profiled.whole_s if profiled and name == WHOLE else samples.get(name, ())
        rows.append(
            {
                "model": work.model,
                "family": work.family,
                "res": tables.size(work.res),
                "latent_size": tables.size(work.latent_size),
                "batch": work.batch,
                "precision": precision,
                "work": work.work,
                "device": peaks.device,
                "peaks": "measured" if peaks.measured else "as sold",
                "peaks_source": peaks.source,
                "part": name,
                "calls": sum(part.calls for part in parts),
                "flops": 2 * of_part.macs,
                "eager_bytes": of_part.eager_bytes,
                "fused_bytes": of_part.fused_bytes,
                "eager_intensity": 2 * of_part.macs / of_part.eager_bytes if of_part.eager_bytes else None,
                "eager_floor_s": eager and eager.total_s,
                "eager_floor_share": eager.total_s / point.eager.total_s if eager and point.eager else None,
                "eager_compute_share": eager.compute_share if eager and eager.total_s else None,
                "fused_floor_s": fused and fused.total_s,
                "fused_floor_share": fused.total_s / point.fused.total_s if fused and point.fused else None,
                "profiled_s": spent,
                "profiled_spread": noise.spread(sampled),
                "eager_achieved": eager.total_s / spent if eager and spent else None,
                "profiled_date": profiled.run.environment.date if profiled else None,
                "noise": list(profiled.noise) if profiled else [],
            }
        )
    return rows


_COLUMNS: list[tables.Column] = [
    ("model", lambda row: row["model"]),
    ("res", lambda row: str(row["res"])),
    ("precision", lambda row: row["precision"]),
    ("device", lambda row: row["device"]),
    ("peaks", lambda row: row["peaks"]),
    ("FLOP/B eager", _significant("eager_intensity")),
    ("FLOP/B fused", _significant("fused_intensity")),
    ("floor ms eager", _milliseconds("eager_floor_s")),
    ("floor ms fused", _milliseconds("fused_floor_s")),
    ("images/s eager", _significant("eager_images_per_s")),
    ("images/s fused", _significant("fused_images_per_s")),
    ("bound by eager", _bound("eager_compute_share")),
    ("bound by fused", _bound("fused_compute_share")),
]
_MEASURED: list[tables.Column] = [
    ("images/s measured", _significant("measured_images_per_s")),
    ("achieved % eager", _percent("eager_achieved")),
    ("achieved % fused", _percent("fused_achieved")),
]


_OF_PARTS: list[tables.Column] = [
    *_COLUMNS[:5],
    ("part", lambda row: row["part"]),
    ("kernels", lambda row: str(row["calls"])),
    ("GFLOPs", lambda row: tables.significant(row["flops"] / 1e9)),
    ("GB eager", lambda row: tables.significant(row["eager_bytes"] / 1e9)),
    ("GB fused", lambda row: tables.significant(row["fused_bytes"] / 1e9)),
    ("FLOP/B eager", _significant("eager_intensity")),
    ("floor ms eager", _milliseconds("eager_floor_s")),
    ("eager %", _percent("eager_floor_share")),
    ("bound by eager", _bound("eager_compute_share")),
    ("floor ms fused", _milliseconds("fused_floor_s")),
    ("fused %", _percent("fused_floor_share")),
]
_PROFILED: list[tables.Column] = [
    ("ms profiled", _milliseconds("profiled_s")),
    ("spread %", _percent("profiled_spread")),
    ("achieved % eager", _percent("eager_achieved")),
]


# the command


def planned(args: argparse.Namespace) -> list[tuple[Work, "nn.Module"]]:
    """Every pass that is asked for, each once: fp32, tf32 and torch-default share one.

    Raises:
        UsageError: names or sizes that cannot be.
    """
    models = options.meta_models(options.model_names(args.model, default=["*"]), args.res, args.weights)
    plan: dict[tuple[str, Size, str], tuple[Work, nn.Module]] = {}
    for (name, res), model in models.items():
        for precision in args.precision:
            work = operators.blank(name, res, args.batch, precision, args.work)
            plan.setdefault((name, res, work.precision), (work, model))
    return list(plan.values())


def _here(args: argparse.Namespace, records: Sequence[Record]) -> tuple[Peaks | None, list[str]]:
    """The ceilings of the device at hand, those that no record holds measured now; and notes on that."""
    from bench.machine import device as device
    from bench.machine import environment as environment

    where = device.default()
    name = environment.gather(where, "").device
    known = roofline.measured_peaks(records, name)
    possible = [
        key
        for key in roofline.needed(args.precision)
        if device.why_not(where, key) is None and key in ceilings.DEFAULT[where]
    ]
    missing = [key for key in possible if known is None or known.flops_per_s(key, "linear") is None]
    if not missing and known is not None and known.bytes_per_s is not None:
        return known, []
    found, notes = ceilings.each(ceilings.planned(where, missing, ceilings.BUDGET_S), args)
    notes += [f"no ceiling: {one.run.model}: {one.reason}" for one in found if isinstance(one, Skipped)]
    seen = [one for one in found if isinstance(one, Ceiling)]
    return roofline.measured_peaks([*records, *seen], name), notes


def _specified(asked: Sequence[str] | None) -> list[Peaks]:
    """The peaks as sold that are asked for; by default those of the GPU at hand, if its name tells which.

    Raises:
        UsageError: no such GPU.
    """
    if asked is None:
        from bench.machine import device as device
        from bench.machine import environment as environment

        where = device.default()
        named = roofline.gpu_named(environment.gather(where, "").device) if where == "cuda" else None
        return [roofline.of_gpu(named)] if named else []
    try:
        return [roofline.of_gpu(name) for name in dict.fromkeys(asked) if name != HERE]
    except ValueError as error:
        raise options.UsageError(f"--device-peaks {error} ({HERE} is the device at hand)") from error


def _body(args: argparse.Namespace) -> int:
    options.check_output(args.out, args.force)
    if args.weights:
        raise options.UsageError(f"--weights {args.weights}: their values change no floor; leave it out")
    roofs = _specified(args.device_peaks)
    records = options.known_records(args.records)
    plan = planned(args)
    notes: list[str] = []
    if args.device_peaks is None or HERE in args.device_peaks:
        here, notes = _here(args, records)
        roofs += [here] if here else []
    works, found = operators.all_traced(plan, args)
    points = [
        point(work, precision, peaks, records)
        for work in works
        for precision in dict.fromkeys(args.precision)
        if roofline.tensors_of(precision) == work.precision
        for peaks in roofs
    ]
    if args.by:
        profiles = [_profile(one, records, args.by) for one in points]
        rows = [
            line
            for one, profiled in zip(points, profiles, strict=True)
            for line in part_rows(one, args.by, profiled)
        ]
        disturbed = [settings.NOISE] if any(line["noise"] for line in rows) else []
        columns = [*_OF_PARTS, *_PROFILED, *disturbed] if any(profiles) else _OF_PARTS
        found += dict.fromkeys(
            f"profiled: {one.run.model} on {one.run.environment.device}, {labels.passes(one)}; "
            f"torch {one.run.environment.torch}; {one.run.environment.date}"
            for one in profiles
            if one is not None
        )
    else:
        rows = [row(one) for one in points]
        columns = [*_COLUMNS, *_MEASURED] if any(one.measured for one in points) else _COLUMNS
    text = tables.render(rows, columns, args.format)
    notes = [*notes, *found, *_notes(works, roofs, args.precision)]
    if not args.by and not any(one.measured for one in points):
        notes += _timed_otherwise(points, records)
    tables.emit(text, notes, None if options.keeps_records(args.out) else args.out)
    return 0


def _profile(point: Point, records: Sequence[Record], by: str) -> Profiled | None:
    return roofline.profile(records, point.work, point.precision, point.peaks.device, by)


def _notes(works: Sequence[Work], roofs: Sequence[Peaks], precisions: Sequence[str]) -> list[str]:
    first = works[0]
    notes = [
        f"floors are computed, not measured: {first.work}, batch {first.batch}; 1 MAC = 2 FLOPs; "
        f"torch {first.environment.torch}; {first.environment.date}"
    ]
    for peaks in roofs:
        rates = [
            f"{key} {tables.significant(rate / 1e12)} TFLOP/s"
            for key in roofline.needed(precisions)
            if (rate := peaks.flops_per_s(key, "linear")) is not None
        ]
        if peaks.bytes_per_s is not None:
            rates.append(f"{tables.significant(peaks.bytes_per_s / 1e9)} GB/s")
        lacking = roofline.unknown(peaks, precisions)
        blank = f"; not known, and its floors blank: {', '.join(lacking)}" if lacking else ""
        notes.append(f"{peaks.device}: {', '.join(rates)}{blank}; {peaks.source}")
    return notes


def _timed_otherwise(points: Sequence[Point], records: Sequence[Record]) -> list[str]:
    """Where no point was measured: at which sizes its models were, on its devices."""
    models, devices = ({one.work.model for one in points}, {one.peaks.device for one in points})
    sizes = {
        f"{size_text(run.res)} px, batch {run.batch}, {run.precision}"
        for record in records
        if isinstance(record, Throughput)
        and (run := record.run).work == "inference"
        and run.model in models
        and {run.environment.device, roofline.gpu_named(run.environment.device)} & devices
    }
    return [
        f"nothing measured of these passes; of their models there are: {'; '.join(sorted(sizes))}"
    ] * bool(sizes)


def parser() -> options.Parser:
    made = options.parser("bench.roofline", __doc__)
    options.add_models(made, default="all of them")
    options.add_res(made, default=(256,))
    made.add_argument("--batch", type=options.positive_int, default=64, help="images a pass (default: 64)")
    made.add_argument(
        "--precision", nargs="+", choices=options.PRECISIONS, default=["fp32"], help="default: fp32"
    )
    made.add_argument("--work", choices=operators.WORK, default="inference", help="default: inference")
    made.add_argument("--by", choices=("kind", "module", "op"), help="the floor of every part too")
    made.add_argument(
        "--device-peaks",
        nargs="+",
        metavar="DEVICE",
        help="GPUs of baselines/gpus.csv by their full names, as 'H200 SXM5 141GB', and here, the device at "
        "hand with its measured ceilings (default: here; on a GPU its peaks as sold as well, where its name "
        "says which it is)",
    )
    options.add_records(made, "with ceilings and throughputs")
    options.add_output(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return options.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
