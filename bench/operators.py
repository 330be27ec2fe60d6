"""What does a pass ask of a device, operator by operator, and where does its time go?

    python -m bench.operators --model FCDM-XL DiT-XL/2 --precision bf16
    python -m bench.operators --model FCDM-XL --by module --precision bf16
    python -m bench.operators --model FCDM-XL --by op --work training --batch 256 --precision bf16
    python -m bench.operators --model FCDM-S DiT-S/2 --batch 4 --profile --out records.jsonl
    python -m bench.operators --model FCDM-S --batch 4 --by module --profile

Counted, from the sizes of meta tensors: nothing is computed. A kind is depthwise, pointwise (1x1) or any
other convolution, linear (products with weights), attention (with its softmax, fused or not), scan (linear
attention and selective scans), norm, elementwise (with reductions and pooling) or movement (copies, casts,
concatenation, padding, pixel shuffles, look-ups). MACs are those of bench.flops; one MAC is two FLOPs.

Eager bytes: each kernel of an eager pass on CUDA reads its inputs and writes its outputs, caches aside; views
are free, and an expanded dimension is read once. One kernel for an operator, but two for a convolution with
bias that is not depthwise (cuDNN has none), a group norm, and a layer norm of rows that do not lie together
(copied first), and one for each gradient of a convolution. Attention is one kernel that writes no scores; an
RMS norm counts as the operators that it falls into on meta, where CUDA may have one kernel for it.

Fused bytes, ideal fusion: only products move anything, convolutions, linear layers, attention and scans: each
reads its operands and its weights and writes its result, once. Norms, elementwise work and movements ride on
the product that their largest input comes from, the latest of equals, and cost nothing, however much of the
image they look at; what they take from elsewhere, a residual, a saved activation, a vector of the condition,
that product reads, once. A softmax between two products rides too, but its scores are written and read:
attention is not fused where the network does not.

Inference: weights and x in the precision itself. Training: forward and backward pass, without loss and
optimizer, in eval mode; bf16 and fp16 are torch.autocast. Gradients of attention cost twice its forward pass.

--profile runs the pass on the device at hand, in a process of its own, five times under torch.profiler, and
sets the median time and its share beside each kind or, with --by module, each module; "other" is time in no
operator, on a CPU that of Python. Spread: from the fastest pass to the slowest, as a share of the median.
Where whole passes differ by more than 20 %, each line says so: such shares are not to be relied on; --force
measures again. What disturbs all passes alike does not show. The profiler slows a pass, and marking modules
slows it more; only the shares are for comparing. The part for CUDA was written without a GPU and has never
run.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from bench.analysis import roofline
from bench.analysis.roofline import KINDS
from bench.cli import options, settings, tables
from bench.jobs import worker
from bench.jobs.job import Unit
from bench.jobs.worker import Case
from bench.records import labels
from bench.records.record import Part, Profiled, Run, Size, Skipped, Work, height_width, size_text
from bench.stats import noise

if TYPE_CHECKING:
    from torch import nn

    from models.task import Task

MODELS = ("FCDM-XL", "DiT-XL/2", "DiCo-XL", "DiC-XL")
WORK = ("inference", "training")
PROFILE_TIMEOUT_S = 600.0  # for one case in its process
TYPICAL_S = 0.5  # of one pass traced
TYPICAL_PROFILE_S = 15.0  # of one profiled
PRECISIONS = ("fp32", "bf16", "fp16")


def work(
    model: "nn.Module", task: "Task", *, batch: int, precision: str, work: str = "inference"
) -> tuple[Part, ...]:
    """Trace a pass over meta tensors and give its parts, those of the most eager bytes first.

    Calls of one operator in one kind of module are one part if they are alike in size.

    Args:
        model: on the meta device; it is put in eval mode.
        task: gives the shapes of the inputs.
        batch: images N.
        precision: of weights and x in inference; in training bf16 and fp16 are torch.autocast.
        work: inference, or training: forward and backward, x needing no gradient.
    """
    from bench.counting import kernels

    return kernels.trace(model, task, batch, precision, work)


def blank(name: str, res: Size, batch: int, precision: str, work: str) -> Work:
    """The record of a pass before it is traced."""
    from bench.machine import environment as environment
    from models.registry import family_of, task_at

    return Work(
        model=name,
        family=family_of(name),
        res=res,
        latent_size=task_at(name, *height_width(res)).latent_size,
        batch=batch,
        precision=roofline.tensors_of(precision),
        work=work,
        parts=(),
        environment=environment.gather("meta", name),
    )


def traced(asked: Work, model: "nn.Module") -> Work:
    """Fill in the parts of a record; the model is on the meta device."""
    from models.registry import task_at

    task = task_at(asked.model, *height_width(asked.res))
    parts = work(model, task, batch=asked.batch, precision=asked.precision, work=asked.work)
    return replace(asked, parts=parts)


def all_traced(
    plan: Sequence[tuple[Work, "nn.Module"]], args: argparse.Namespace
) -> tuple[list[Work], list[str]]:
    """A record for every pass that is asked for, those that --out holds from there; and notes on that."""

    def measure(case: tuple[Work, "nn.Module"]) -> Work:
        return traced(*case)

    return settings.each(
        plan, about=lambda case: case[0], measure=measure, label=lambda case: _label(case[0]), args=args
    )


def _label(work: Work) -> str:
    return f"{work.model} {size_text(work.res)} px, batch {work.batch}, {work.precision}, {work.work}"


@dataclass(frozen=True, kw_only=True)
class Share:
    """A line of a table: what one kind, module or operator has of a pass."""

    work: Work
    part: str
    calls: int
    macs: int
    eager_bytes: int
    fused_bytes: int
    seconds: float | None  # median under the profiler; None without
    samples: tuple[float, ...]  # of every pass; empty where none were kept


def grouped(work: Work, by: str) -> dict[str, list[Part]]:
    """The parts of a pass by kind in the order of KINDS, or by module or operator, most eager bytes first."""
    named: dict[str, list[Part]] = {}
    for part in work.parts:
        named.setdefault({"kind": part.kind, "module": part.module, "op": part.op}[by], []).append(part)
    if by == "kind":
        return {kind: named[kind] for kind in KINDS if kind in named}
    moved = {name: sum(part.eager_bytes for part in parts) for name, parts in named.items()}
    return {name: named[name] for name in sorted(named, key=lambda name: -moved[name])}


def shares(work: Work, by: str, profiled: Profiled | None) -> list[Share]:
    """The lines of one pass, in the order of `grouped`, and then what only a profile has."""
    named = grouped(work, by)
    seconds = profiled.medians if profiled else {}
    samples = profiled.samples if profiled and profiled.has_samples else {}
    return [
        Share(
            work=work,
            part=name,
            calls=sum(part.calls for part in parts),
            macs=sum(part.macs for part in parts),
            eager_bytes=sum(part.eager_bytes for part in parts),
            fused_bytes=sum(part.fused_bytes for part in parts),
            seconds=seconds.get(name, 0.0) if profiled else None,
            samples=samples.get(name, ()),
        )
        for name, parts in [*named.items(), *((name, []) for name in seconds if name not in named)]
    ]


def _row(share: Share) -> tables.Row:
    work = share.work
    return {
        "model": work.model,
        "family": work.family,
        "res": tables.size(work.res),
        "latent_size": tables.size(work.latent_size),
        "batch": work.batch,
        "precision": work.precision,
        "work": work.work,
        "part": share.part,
        "calls": share.calls,
        "macs": share.macs,
        "flops": 2 * share.macs,
        "eager_bytes": share.eager_bytes,
        "fused_bytes": share.fused_bytes,
        "eager_intensity": 2 * share.macs / share.eager_bytes if share.eager_bytes else None,
        "fused_intensity": 2 * share.macs / share.fused_bytes if share.fused_bytes else None,
        "macs_share": share.macs / work.macs if work.macs else 0.0,
        "eager_bytes_share": share.eager_bytes / work.eager_bytes if work.eager_bytes else 0.0,
        "fused_bytes_share": share.fused_bytes / work.fused_bytes if work.fused_bytes else 0.0,
        "seconds": share.seconds,
        "seconds_spread": noise.spread(share.samples),
        "seconds_of_passes": list(share.samples),
    }


def _rows(work: Work, by: str, profiled: Profiled | None) -> list[tables.Row]:
    """The lines of one pass, and one for the whole."""
    lines = shares(work, by, profiled)
    whole = Share(
        work=work,
        part="all",
        calls=sum(line.calls for line in lines),
        macs=work.macs,
        eager_bytes=work.eager_bytes,
        fused_bytes=work.fused_bytes,
        seconds=sum(line.seconds or 0.0 for line in lines) if profiled else None,
        samples=profiled.whole_s if profiled and profiled.has_samples else (),
    )
    total = whole.seconds
    return [
        {
            **_row(line),
            "seconds_share": line.seconds / total if total and line.seconds is not None else None,
            "noise": list(profiled.noise) if profiled else [],
        }
        for line in (*lines, whole)
    ]


def _scaled(key: str, scale: float, digits: int) -> Callable[[tables.Row], str]:
    return lambda row: tables.fixed(digits, None if row[key] is None else row[key] * scale)


_COLUMNS: list[tables.Column] = [
    ("model", lambda row: row["model"]),
    ("res", lambda row: str(row["res"])),
    ("part", lambda row: row["part"]),
    ("kernels", lambda row: str(row["calls"])),
    ("GMACs", _scaled("macs", 1e-9, 2)),
    ("GFLOPs", _scaled("flops", 1e-9, 2)),
    ("MACs %", _scaled("macs_share", 100, 1)),
    ("GB eager", _scaled("eager_bytes", 1e-9, 3)),
    ("eager %", _scaled("eager_bytes_share", 100, 1)),
    ("GB fused", _scaled("fused_bytes", 1e-9, 3)),
    ("fused %", _scaled("fused_bytes_share", 100, 1)),
    ("FLOP/B eager", _scaled("eager_intensity", 1, 1)),
    ("FLOP/B fused", _scaled("fused_intensity", 1, 1)),
]
_TIMES: list[tables.Column] = [
    ("ms measured", lambda row: tables.milliseconds(row["seconds"])),
    ("time %", _scaled("seconds_share", 100, 1)),
    ("spread %", _scaled("seconds_spread", 100, 0)),
]


def planned(args: argparse.Namespace) -> list[tuple[Work, "nn.Module"]]:
    """Every pass that is asked for, as a store knows it before it is traced, and its model on meta.

    Raises:
        UsageError: names or sizes that cannot be.
    """
    names = options.model_names(args.model, default=MODELS)
    models = options.meta_models(names, args.res, args.weights)
    return [
        (blank(name, res, args.batch, args.precision, args.work), model)
        for (name, res), model in models.items()
    ]


def _cases(works: Sequence[Work], where: str, by: str) -> list[Case]:
    """What is profiled: each pass once, under torch's own settings."""
    from bench.machine import environment as environment

    return [
        Case(
            run=Run(
                question=roofline.PROFILES[by],
                model=work.model,
                family=work.family,
                res=work.res,
                latent_size=work.latent_size,
                batch=work.batch,
                precision=work.precision,
                environment=environment.gather(where, work.model),
            ),
            weights=None,
        )
        for work in works
    ]


def _profile(case: Case) -> Profiled | Skipped:
    """Profile one case in a worker of its own, dated now."""
    dated = replace(case, run=settings.dated(case.run))
    found = worker.run("bench.measure.profiler:measure", dated, PROFILE_TIMEOUT_S)
    assert isinstance(found, Profiled | Skipped)
    return found


def units(args: argparse.Namespace) -> list[Unit]:
    """The passes of `planned` for a sweep, and with --profile what the device makes of them."""
    where = _checked(args)
    works = planned(args)
    found = [
        Unit(
            label=f"of {_label(blank)}",
            about=blank,
            estimate_s=TYPICAL_S,
            measure=partial(traced, blank, model),
        )
        for blank, model in works
    ]
    for case in _cases([blank for blank, _ in works], where, args.by) if where else []:
        found.append(
            Unit(
                label=f"profile of {settings.label(case)}",
                about=case.run,
                estimate_s=TYPICAL_PROFILE_S,
                measure=partial(_profile, case),
            )
        )
    return found


def _checked(args: argparse.Namespace) -> str | None:
    """Refuse what does not go together; gives the device of --profile, None without it."""
    if args.weights:
        raise options.UsageError(f"--weights {args.weights}: their values change no size; leave it out")
    if args.profile and (args.by not in roofline.PROFILES or args.work != "inference"):
        raise options.UsageError(
            f"--profile: goes with --by {' or '.join(roofline.PROFILES)} and --work inference, "
            f"got --by {args.by} --work {args.work}"
        )
    if not args.profile:
        if args.device:
            raise options.UsageError(
                f"--device {args.device}: is what --profile runs on; nothing else runs on one"
            )
        return None
    from bench.machine import device

    where: str = args.device or device.default()
    if (reason := device.why_not(where, args.precision)) is not None:
        raise options.UsageError(reason)
    return where


def _body(args: argparse.Namespace) -> int:
    options.check_output(args.out, args.force)
    where = _checked(args)
    works, notes = all_traced(planned(args), args)
    profiles: list[Profiled | Skipped] = []
    if where:
        profiles, found = settings.each(
            _cases(works, where, args.by),
            about=lambda case: case.run,
            measure=_profile,
            label=settings.label,
            args=args,
        )
        notes += found
    seen: list[Profiled | Skipped | None] = [*profiles] if args.profile else [None] * len(works)
    rows = [
        row
        for work, one in zip(works, seen, strict=True)
        for row in _rows(work, args.by, one if isinstance(one, Profiled) else None)
    ]
    disturbed = [settings.NOISE] if any(row["noise"] for row in rows) else []
    columns = [*_COLUMNS, *_TIMES, *disturbed] if args.profile else _COLUMNS
    text = tables.render(rows, columns, args.format)
    tables.emit(
        text,
        [*notes, *_notes(works[0], profiles)],
        None if options.keeps_records(args.out) else args.out,
    )
    return 0


def _notes(work: Work, profiles: Sequence[Profiled | Skipped]) -> list[str]:
    here = work.environment
    notes = [
        f"{work.work}, batch {work.batch}, {work.precision}; 1 MAC = 2 FLOPs; GB are 10**9 bytes; kernels "
        f"and bytes as of CUDA, from the sizes of tensors, not measured; torch {here.torch}; {here.date}"
    ]
    for one in profiles:
        if isinstance(one, Skipped):
            notes.append(f"not profiled: {one.run.model}: {one.status}: {one.reason}")
        else:
            notes.append(
                f"measured: {one.run.model} on {one.run.environment.device} under torch.profiler, "
                f"{labels.passes(one)}; {tables.milliseconds(one.median_wall_s)} ms of wall clock; "
                f"torch {one.run.environment.torch}; {one.run.environment.date}"
            )
    return notes


def parser() -> options.Parser:
    made = options.parser("bench.operators", __doc__)
    options.add_models(made, default=" ".join(MODELS))
    options.add_res(made, default=(256,))
    made.add_argument("--by", choices=("kind", "module", "op"), default="kind", help="default: kind")
    made.add_argument("--batch", type=options.positive_int, default=64, help="images a pass (default: 64)")
    made.add_argument(
        "--precision", choices=PRECISIONS, default="fp32", help="of the tensors; tf32 moves the bytes of fp32"
    )
    made.add_argument("--work", choices=WORK, default="inference", help="default: inference")
    made.add_argument("--profile", action="store_true", help="run it too, and set the measured time beside")
    made.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        help="of --profile (default: cuda where torch sees one, else cpu)",
    )
    options.add_output(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return options.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
