"""Roofline floors of a denoising pass on a device, what bounds it, and measured times.

    python -m bench.roofline --model FCDM-XL DiT-XL/2 --precision bf16 --device-peaks "H200 SXM5 141GB" here
    python -m bench.roofline --model FCDM-S DiT-S/2 --batch 4 --by kind --profile
    python -m bench.roofline --model FCDM-S --batch 4 --trace pass.json
    python -m bench.roofline --measure-ceilings --out records.jsonl

Floors are computed from operators and peaks, not measured. Method: docs/roofline.md
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.analysis.rooflines import floors, roofline
from bench.analysis.rooflines.floors import PassFloor
from bench.analysis.rooflines.roofline import NO_PEAKS, Peaks
from bench.cli import options, values
from bench.cli.models import check_models, model_names
from bench.cli.records import check_output, known_records, run_jobs, show
from bench.cli.settings import device_for, sized_fields
from bench.jobs.job import Job
from bench.records import ceiling
from bench.records.base import Record, Size, Skipped
from bench.records.operators import OperatorCosts
from bench.records.profile import Profile, ProfileCase
from bench.records.throughput import TimedPasses
from bench.tables.numbers import milliseconds

if TYPE_CHECKING:
    from torch import nn

HERE, NONE = "here", "none"
PARTS_OF = ("FCDM-XL", "DiT-XL/2", "DiCo-XL", "DiC-XL")  # models whose parts are shown by default
BUDGET_S = 2.0


def jobs(args: argparse.Namespace) -> list[Job]:
    """Ceilings with --measure-ceilings; otherwise operator counts, with --profile profiles too."""
    _check(args)
    if args.measure_ceilings:
        from bench.machine import device

        where = _device(args)
        return _ceiling_jobs(args, args.precision or device.in_hardware(where, ceiling.PRECISIONS[where]))
    return [*_operator_jobs(args), *(_profile_jobs(args) if _profiles(args) else [])]


def _check(args: argparse.Namespace) -> None:
    """Refuse options that contradict each other or the device."""
    if args.weights:
        raise options.UsageError(
            f"--weights {args.weights}: weights change no size and no floor; leave it out"
        )
    if _profiles(args) and (args.by == "op" or args.work != "inference"):
        raise options.UsageError(
            f"--profile: goes with --by kind or module and --work inference, got --by {args.by} "
            f"--work {args.work}"
        )
    if args.measure_ceilings or _profiles(args):
        known = ceiling.PRECISIONS[device_for(args.device, args.precision or ())]
        for precision in args.precision or ():
            if args.measure_ceilings and precision not in known:
                raise options.UsageError(
                    f"--precision {precision}: has no ceiling on {_device(args)}; {', '.join(known)} have"
                )


def _profiles(args: argparse.Namespace) -> bool:
    """Whether passes run under the profiler: a trace is of one of them."""
    return args.profile or args.trace is not None


def _device(args: argparse.Namespace) -> str:
    return device_for(args.device, ())


def _precisions(args: argparse.Namespace) -> list[str]:
    return list(dict.fromkeys(args.precision or ["fp32"]))


def _models(args: argparse.Namespace) -> "dict[tuple[str, Size], nn.Module | None]":
    default = PARTS_OF if args.by or _profiles(args) else ["*"]
    return check_models(model_names(args.model, default=default), args.res, None)


def _operator_jobs(args: argparse.Namespace) -> list[Job]:
    """Operator counts, one for each distinct pass: fp32, tf32 and torch-default share one."""
    from bench.counting.work import operator_case
    from bench.jobs.roofline import operator_job

    return [
        operator_job(operator_case(name, res, args.batch, tensors, args.work), model)
        for (name, res), model in _models(args).items()
        for tensors in dict.fromkeys(map(roofline.tensors_of, _precisions(args)))
    ]


def _profile_jobs(args: argparse.Namespace) -> list[Job]:
    """Profiles of every pass under torch's default settings."""
    from bench.jobs.roofline import profile_job

    cases = [
        ProfileCase(
            **sized_fields(name, res, _device(args)),
            batch=args.batch,
            precision=precision,
            by=args.by or "kind",
        )
        for name, res in _models(args)
        for precision in _precisions(args)
    ]
    if args.trace is not None and len(cases) != 1:
        raise options.UsageError(
            f"--trace {args.trace}: traces one pass, got {len(cases)}; name one --model, --res, --precision"
        )
    return [profile_job(case, args.trace) for case in cases]


def _ceiling_jobs(args: argparse.Namespace, precisions: Sequence[str]) -> list[Job]:
    from bench.jobs.roofline import ceiling_job

    return [ceiling_job(case, args.budget) for case in ceiling.cases(_device(args), precisions)]


# peaks


def _sold(args: argparse.Namespace, here: str) -> list[Peaks]:
    """Nominal peaks of --device-peaks; by default those of this machine's GPU, if its name is known."""
    if args.device_peaks is None:
        named = roofline.gpu_named(here)
        return [roofline.of_gpu(named)] if named else []
    names = [name for name in dict.fromkeys(args.device_peaks) if name not in (HERE, NONE)]
    with options.usage_errors("--device-peaks ", f" ({HERE} is this device)"):
        return [roofline.of_gpu(name) for name in names]


def _measured(
    args: argparse.Namespace, here: str, records: Sequence[Record]
) -> tuple[list[Peaks], list[str]]:
    """Ceilings of this device, from records or measured now, and notes."""
    from bench.machine import device

    peaks = roofline.measured_peaks(records, here)
    where = _device(args)
    missing = [
        precision
        for precision in roofline.needed(_precisions(args))
        if device.why_not(where, precision) is None
        and precision in ceiling.PRECISIONS[where]
        and (peaks is None or peaks.flops_per_s(precision, "linear") is None)
    ]
    if peaks is not None and not missing and peaks.bytes_per_s is not None:
        return [peaks], []
    found, notes = run_jobs(_ceiling_jobs(args, missing), args.out, force=args.force)
    notes += [
        f"no ceiling: {record.case.label}: {record.reason}" for record in found if isinstance(record, Skipped)
    ]
    peaks = roofline.measured_peaks([*records, *found], here)
    return [peaks] if peaks else [], notes


# the command


def _body(args: argparse.Namespace) -> int:
    check_output(args.out, args.force)
    check_output(args.trace, args.force, "--trace")
    _check(args)
    if args.measure_ceilings:
        found, notes = run_jobs(jobs(args), args.out, force=args.force)
        notes.append(f"{found[0].environment.describe()}; median of the samples of the fastest size")
        show(floors.CEILINGS, found, notes, args)
        return 0
    from bench.machine import environment

    here = environment.gather(_device(args), "").device
    sold = _sold(args, here)
    records = known_records(args.records)
    planned = _operator_jobs(args)
    to_profile = _profile_jobs(args) if _profiles(args) else []
    uses_here = args.device_peaks is None or HERE in args.device_peaks
    measured, notes = _measured(args, here, records) if uses_here else ([], [])
    roofs = [*sold, *measured] or [NO_PEAKS]
    counted, found_notes = run_jobs(planned, args.out, force=args.force)
    # a trace is of a pass that runs now
    profiled, profile_notes = run_jobs(to_profile, args.out, force=args.force or args.trace is not None)
    costs = [cost for cost in counted if isinstance(cost, OperatorCosts)]
    timed = roofline.inference_passes(records)
    passes = [
        floors.pass_floor(cost, precision, peaks, timed)
        for cost in costs
        for precision in _precisions(args)
        if roofline.tensors_of(precision) == cost.case.precision
        for peaks in roofs
    ]
    failed = [record for record in counted if isinstance(record, Skipped)]
    notes += [*found_notes, *profile_notes, *(_notes(costs[0], roofs, _precisions(args)) if costs else [])]
    if args.by or _profiles(args):
        by = args.by or "kind"
        profiles = [_profile(floor, by, here, profiled, records) for floor in passes]
        pairs = zip(passes, profiles, strict=True)
        rows = [part for floor, profile in pairs for part in floors.part_floors(floor, by, profile)]
        show(floors.PARTS, [*rows, *failed], [*notes, *_profile_notes(profiles, profiled)], args)
    else:
        show(floors.PASSES, [*passes, *failed], [*notes, *_other_sizes(passes, records)], args)
    return 0


def _profile(
    floor: PassFloor, by: str, here: str, profiled: Sequence[Record], records: Sequence[Record]
) -> Profile | None:
    """Profile of a pass on the device of its floor: from this session, otherwise the newest stored."""
    device = floor.peaks.device or here
    return roofline.profile(profiled, floor.costs, floor.precision, device, by) or roofline.profile(
        records, floor.costs, floor.precision, floor.peaks.device, by
    )


def _profile_notes(profiles: Sequence[Profile | None], profiled: Sequence[Record]) -> list[str]:
    notes = [
        f"profiled: {profile.case.model} on {profile.environment.device}, {profile.describe_passes()}; "
        f"{milliseconds(profile.median_wall_s)} ms of wall clock; torch {profile.environment.torch}; "
        f"{profile.environment.date}"
        for profile in profiles
        if profile
    ]
    failed = [record for record in profiled if isinstance(record, Skipped)]
    return [
        *dict.fromkeys(notes),
        *(f"not profiled: {record.case.label}: {record.status}: {record.reason}" for record in failed),
    ]


def _notes(costs: OperatorCosts, roofs: Sequence[Peaks], precisions: Sequence[str]) -> list[str]:
    case, environment = costs.case, costs.environment
    notes = [
        f"computed, not measured: {case.work}, batch {case.batch}; 1 MAC = 2 FLOPs; GB are 10^9 bytes; "
        f"kernels and bytes as of CUDA; torch {environment.torch}; {environment.date}"
    ]
    return [*notes, *(roofline.describe(peaks, precisions) for peaks in roofs if peaks.device)]


def _other_sizes(passes: Sequence[PassFloor], records: Sequence[Record]) -> list[str]:
    """Note on the sizes at which these models were measured; empty if one of the passes was."""
    if any(floor.measured for floor in passes):
        return []
    models, devices = {floor.case.model for floor in passes}, {floor.peaks.device for floor in passes}
    sizes = {
        f"{record.case.size}, {record.case.precision}"
        for record in records
        if isinstance(record, TimedPasses)
        and record.case.work == "inference"
        and record.case.model in models
        and {record.environment.device, roofline.gpu_named(record.environment.device)} & devices
    }
    note = f"none of these passes is measured; their models are at: {'; '.join(sorted(sizes))}"
    return [note] if sizes else []


def parser() -> options.Parser:
    made = options.parser("bench.roofline", __doc__)
    options.add_models(made, default=f"all; with --by {' '.join(PARTS_OF)}")
    options.add_res(made, default=(256,))
    options.add(made, "--batch", values.positive_int, "images a pass", default=64)
    text = f"{', '.join(options.PRECISIONS)} (default: fp32)"
    options.add(made, "--precision", options.PRECISIONS, text, several=True)
    options.add(made, "--work", options.WORKS, default="inference")
    made.add_argument("--by", choices=("kind", "module", "op"), help="a row for every part of a pass")
    options.add_flag(made, "--profile", "run the passes on this device under torch.profiler")
    text = "with --profile, of one model: a trace of one pass, for ui.perfetto.dev (.json, .json.gz)"
    options.add(made, "--trace", Path, text)
    text = (
        f"GPUs of baselines/gpus.csv, as 'H200 SXM5 141GB'; {HERE}: this device by its ceilings, measured if "
        f"no record has them; {NONE}: no floors (default: {HERE}, and a known GPU as sold)"
    )
    options.add(made, "--device-peaks", str, text, several=True, metavar="DEVICE")
    options.add_device(made)
    options.add_flag(made, "--measure-ceilings", "only measure the ceilings of this device, and print them")
    text = f"time for each ceiling (default: {BUDGET_S:g}s)"
    options.add(made, "--budget", values.positive_seconds, text, default=BUDGET_S)
    options.add_records(made, "with ceilings, timings and profiles")
    options.add_output(made)
    return made


main = options.command(parser, _body)

if __name__ == "__main__":
    raise SystemExit(main())
