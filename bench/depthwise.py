"""Which implementation of a depthwise convolution is fastest here, and how far is it from the floor?

    python -m bench.depthwise
    python -m bench.depthwise --res 256 --precision bf16 --operation conv --out records.jsonl
    python -m bench.depthwise --kernel-size 3 5 7 9 31 --res 256 --budget 10
    python -m bench.depthwise --model DiCo-XL --device cuda --precision bf16

The widths, sides and windows are those of the model's own depthwise convolutions at each --res. conv is one
of them with its bias; block is that, then layer norm over the channels, shift and scale, as in FCDM.

nchw                    contiguous images, as a plain model has them: on CUDA torch's own kernel, to which its
                        switch is held where torch has one (2.13); oneDNN on a CPU. The reference of ratios.
nchw-cudnn              the same with that switch at cuDNN
channels-last           images channels last: cuDNN on CUDA, oneDNN on a CPU
channels-last-searched  the same after cuDNN has timed its kernels (torch.backends.cudnn.benchmark)
compiled                torch.compile of channels-last
triton                  our kernels: models/kernels/depthwise.py, and norm_modulate.py behind it

Every output is held to float64 first: a wrong one is a row, and is not timed. Timed: rounds over all that is
right, as in bench.versus. A call goes through several inputs, more than the caches hold, and on CUDA is a
graph: launching is not timed, nor are making and arranging inputs and weights, compiling, tuning, warm-up.

GB/s: every input read once and every output written once, by the time. Floors: these bytes at the copy
ceiling, and 2 K^2 FLOPs an output value at the fp32 ceiling (tensor cores do not help), where --records hold
ceilings of the device (bench.ceilings); blank elsewhere. The FLOPs count the zeros around the image as well,
which an implementation may leave out: of a 7x7 window over 8x8 pixels 38 %, over 32x32 pixels 10 %.

Each case runs in a process of its own.
"""

import argparse
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from bench.analysis import depthwise as implemented
from bench.analysis import roofline
from bench.analysis.depthwise import PRECISIONS
from bench.analysis.roofline import Peaks
from bench.cli import options, settings, tables
from bench.jobs import worker
from bench.jobs.job import Unit
from bench.records.record import Implemented, Run, Size, Skipped, height_width, size_text
from bench.stats import ratios

MODEL = "FCDM-XL"
DEFAULT = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "tf32", "bf16")}
BATCH = {"cpu": 4, "cuda": 64}
OPERATIONS = ("conv", "block")
BUDGET_S = {"cpu": 20.0, "cuda": 6.0}
VISIT_S = {"cpu": 0.05, "cuda": 0.01}  # a replay of a graph is started in some 10 us, while others still run
COMPILE_S = 10.0  # as a rule, of torch.compile or of Triton's tilings


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a worker is asked to compare: the implementations of one operation."""

    run: Run
    operation: str
    kernel: int
    channels: int
    size: Size
    calls_a_pass: int
    margin: float


def measure(case: Case) -> Implemented | Skipped:
    """Check and compare in this process.

    Returns:
        Implemented; or Skipped where the reference itself, or nothing but it, could be timed.
    """
    import torch

    from bench.machine import device as device
    from bench.machine import telemetry
    from bench.measure import depthwise as implementations
    from bench.measure.depthwise import IMPLEMENTATIONS, Layer

    run, where = case.run, case.run.environment.device_type
    layer = Layer(channels=case.channels, size=case.size, kernel=case.kernel, calls_a_pass=case.calls_a_pass)
    given, exact = implementations.drawn(run.batch, layer, run.precision, where, case.operation)
    names = [name for name, one in IMPLEMENTATIONS.items() if case.operation in one.operations]
    with torch.inference_mode():
        prepared = [
            implementations.prepared(name, given, exact, case.operation, run.precision) for name in names
        ]
        del exact
        variants, calls = tuple(variant for variant, _ in prepared), [call for _, call in prepared if call]
        if variants[0].status != "ok":
            first = variants[0]
            return Skipped(run=run, status=first.status, reason=f"{first.name}: {first.reason}")
        if len(calls) < 2:
            told = "; ".join(f"{one.name}: {one.reason}" for one in variants[1:])
            return Skipped(run=run, status="not timed", reason=f"nothing beside {variants[0].name}: {told}")
        monitor = telemetry.monitor(where)
        compared = ratios.compare(
            calls,
            ratios.Policy(
                budget_s=run.budget_s,
                margin=case.margin,
                min_visit_s=VISIT_S[where],
                min_warmup_s=min(0.5, run.budget_s / 20),
            ),
            clock=time.perf_counter,
            synchronise=device.synchronise(where),
            read_clock_mhz=monitor.clock_mhz if monitor else None,
        )
    return Implemented(
        run=run,
        operation=case.operation,
        kernel=case.kernel,
        channels=case.channels,
        size=case.size,
        calls_a_pass=case.calls_a_pass,
        variants=variants,
        inputs=len(given.xs),
        **compared.recorded(case.margin),
    )


def planned(args: argparse.Namespace) -> list[Case]:
    """A case for every operation, layer and setting asked for, the largest image last.

    Raises:
        UsageError: names, sizes or settings that cannot be.
    """
    from bench.machine import device as device
    from bench.machine import environment
    from bench.measure.depthwise import layers
    from models.registry import family_of, task_at

    where = args.device or device.default()
    precisions = dict.fromkeys(args.precision or DEFAULT[where])
    for precision in precisions:
        if (reason := device.why_not(where, precision)) is not None:
            raise options.UsageError(reason)
        if precision == "fp16" and where == "cpu":
            raise options.UsageError("--precision fp16: is measured on CUDA only; bf16 would work")
    made: list[Case] = []
    for (name, res), model in options.meta_models(
        options.model_names(args.model, default=[MODEL]), list(dict.fromkeys(args.res)), None
    ).items():
        task = task_at(name, *height_width(res))
        found = layers(model, task)
        if not found:
            raise options.UsageError(f"--model {name}: has no depthwise convolution; {MODEL} has")
        asked = itertools.product(
            dict.fromkeys(args.batch or [BATCH[where]]), precisions, dict.fromkeys(args.operation), found
        )
        for batch, precision, operation, layer in asked:
            for kernel in dict.fromkeys(args.kernel_size or [layer.kernel]):
                side = "x".join(map(str, height_width(layer.size)))
                run = Run(
                    question=f"depthwise: {operation}, {kernel}x{kernel}, {layer.channels} channels, {side}",
                    model=name,
                    family=family_of(name),
                    res=res,
                    latent_size=task.latent_size,
                    batch=batch,
                    precision=precision,
                    budget_s=args.budget or BUDGET_S[where],
                    precision_target=args.margin,
                    environment=environment.gather(where, name),
                )
                made.append(
                    Case(
                        run=run,
                        operation=operation,
                        kernel=kernel,
                        channels=layer.channels,
                        size=layer.size,
                        calls_a_pass=layer.calls_a_pass,
                        margin=args.margin,
                    )
                )
    return made


def result_of(case: Case) -> Implemented | Skipped:
    """Compare in a worker of its own, dated now."""
    now = replace(case, run=settings.dated(case.run))
    found = worker.run("bench.depthwise:measure", now, settings.STARTUP_S + 4 * now.run.budget_s)
    assert isinstance(found, Implemented | Skipped)
    return found


def label(case: Case) -> str:
    """The case in words."""
    run = case.run
    return (
        f"{run.model} {size_text(run.res)} px, batch {run.batch}, {run.precision}, "
        f"{run.question.removeprefix('depthwise: ')}"
    )


def units(args: argparse.Namespace) -> list[Unit]:
    """The cases of `planned` for a sweep."""
    return [
        Unit(
            label=label(case),
            about=case.run,
            estimate_s=settings.TYPICAL_STARTUP_S + COMPILE_S + case.run.budget_s,
            measure=partial(result_of, case),
        )
        for case in planned(args)
    ]


def rows(result: Implemented | Skipped, peaks: Peaks | None) -> list[tables.Row]:
    """One object of the JSON output for every variant, or for a case without any; what it lacks is None."""
    about = {
        **settings.described(result.run),
        "question": result.run.question,
        **dict.fromkeys(("operation", "kernel", "channels", "size", "calls_a_pass", "variant", "ran")),
        **dict.fromkeys(("status", "reason", "error", "median_s", "interval_s", "elements_per_s")),
        **dict.fromkeys(("bytes_per_s", "bytes_floor_share", "flops_floor_share", "ratio_nchw_s_over_s")),
        **dict.fromkeys(("ratio_interval", "margin", "verdict")),
        "rounds": 0,
        "stopped_by": None,
        "unmet": [],
        "remark": "",
        "noise": [],
        "times_s": [],
    }
    if isinstance(result, Skipped):
        return [{**about, "status": result.status, "reason": result.reason}]
    about |= {
        "operation": result.operation,
        "kernel": result.kernel,
        "channels": result.channels,
        "size": tables.size(result.size),
        "calls_a_pass": result.calls_a_pass,
        "margin": result.margin,
        "rounds": result.rounds,
        "stopped_by": result.stopped_by,
        "unmet": list(result.unmet),
    }
    arms = {variant.name: arm for arm, variant in enumerate(result.timed)}
    told: list[tables.Row] = []
    for one in result.variants:
        row = {**about, "variant": one.name, "ran": one.ran, "status": one.status, "reason": one.reason}
        row["error"] = one.error
        if one.name in arms:
            arm = arms[one.name]
            row |= _timed(result, arm, peaks)
            row["reason"] = ratios.why_refused(result, arm) or one.reason
        told.append(row)
    return told


def _timed(result: Implemented, arm: int, peaks: Peaks | None) -> tables.Row:
    seconds, interval = result.median_s(arm), result.interval_s(arm)
    by_bytes, by_flops = implemented.floors_s(result, peaks)
    ratio_interval = result.interval(arm) if arm else None
    return {
        "median_s": seconds,
        "interval_s": list(interval) if interval else None,
        "elements_per_s": result.elements / seconds,
        "bytes_per_s": result.least_bytes / seconds,
        "bytes_floor_share": by_bytes / seconds if by_bytes else None,
        "flops_floor_share": by_flops / seconds if by_flops else None,
        "ratio_nchw_s_over_s": result.ratio(arm) if arm else None,
        "ratio_interval": list(ratio_interval) if ratio_interval else None,
        "verdict": result.verdict(arm) if arm else "reference",
        "remark": ratios.clock_remark(result, arm),
        "noise": list(result.noise(arm)),
        "times_s": list(result.times_s(arm)),
    }


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _ms(row: tables.Row) -> str:
    if row["median_s"] is None:
        return f"{row['status']}: {row['reason']}"
    return tables.milliseconds(row["median_s"])


def _interval(row: tables.Row) -> str:
    ends = row["interval_s"]
    return " to ".join(map(tables.milliseconds, ends)) if ends else "-"


def _ratio_interval(row: tables.Row) -> str:
    ends = row["ratio_interval"]
    return f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else "-"


def _verdict(row: tables.Row) -> str:
    told = [row["verdict"], row["reason"]] if row["verdict"] else []
    return ": ".join(filter(None, told)) or "-"


_SETTINGS: list[tables.Column] = [
    ("model", lambda row: row["model"]),
    ("res", lambda row: str(row["res"])),
    ("batch", lambda row: str(row["batch"])),
    ("precision", lambda row: row["precision"]),
    ("operation", lambda row: row["operation"] or row["question"]),
    ("K", lambda row: str(row["kernel"] or "-")),
    ("channels", lambda row: str(row["channels"] or "-")),
    ("side", lambda row: str(row["size"] or "-")),
    ("variant", lambda row: row["variant"] or "-"),
    ("ran", lambda row: row["ran"] or "-"),
]
_RESULTS: list[tables.Column] = [
    ("ms", _ms),
    ("95 % interval", _interval),
    ("G elements/s", lambda row: _giga(row["elements_per_s"])),
    ("GB/s", lambda row: _giga(row["bytes_per_s"])),
    ("% of bytes floor", lambda row: _percent(row["bytes_floor_share"])),
    ("% of FLOPs floor", lambda row: _percent(row["flops_floor_share"])),
    ("speed ratio, nchw time / time", lambda row: tables.fixed(3, row["ratio_nchw_s_over_s"])),
    ("99 % interval of the ratio", _ratio_interval),
    ("verdict", _verdict),
    ("rel. error", lambda row: "-" if row["error"] is None else f"{row['error']:.1e}"),
]


def _giga(value: float | None) -> str:
    return tables.significant(None if value is None else value / 1e9)


def _columns(told: Sequence[tables.Row]) -> list[tables.Column]:
    optional = {"remark": settings.REMARK, "noise": settings.NOISE}
    some = [column for key, column in optional.items() if any(row[key] for row in told)]
    return [*_SETTINGS, *_RESULTS, *some]


def _notes(results: Sequence[Implemented | Skipped], peaks: Peaks | None) -> list[str]:
    notes = []
    for first, seconds in implemented.passes(results):
        run = first.run
        told = ", ".join(f"{name} {tables.milliseconds(s)}" for name, s in seconds.items())
        notes.append(
            f"all {first.operation} {first.kernel}x{first.kernel} of one pass of {run.model}, "
            f"{size_text(run.res)} px, batch {run.batch}, {run.precision}, in ms: {told}"
        )
    here = results[0].run.environment
    floor = f"floors: {peaks.source}" if peaks else "no ceilings of this device: python -m bench.ceilings"
    return [
        *notes,
        f"{here.device}; torch {here.torch}; driver {here.driver or '-'}; {here.threads} CPU threads; "
        f"commit {here.commit or '-'}; {here.date}; median visits; {floor}",
    ]


def _body(args: argparse.Namespace) -> int:
    options.check_output(args.out, args.force)
    known = options.known_records(args.records)
    results, notes = settings.each(
        planned(args), about=lambda case: case.run, measure=result_of, label=label, args=args
    )
    peaks = roofline.measured_peaks(known, results[0].run.environment.device)
    told = [row for result in results for row in rows(result, peaks)]
    on_cpu = results[0].run.environment.device_type == "cpu"
    # what is for CUDA only is told once: on a CPU it is half of the rows, which only JSON and CSV keep
    absent = list(dict.fromkeys(row["variant"] for row in told if row["status"] == "not here"))
    if on_cpu and args.format not in ("json", "csv"):
        told = [row for row in told if row["status"] != "not here"]
        notes.append(f"not on a CPU: {', '.join(absent)}")
    text = tables.render(told, _columns(told), args.format)
    notes += _notes(results, peaks)
    tables.emit(text, notes, None if options.keeps_records(args.out) else args.out)
    return 0


def odd(text: str) -> int:
    """The side of a window."""
    value = options.positive_int(text)
    if value % 2 == 0:
        raise argparse.ArgumentTypeError(f"must be odd, got {value}; {value + 1} would work")
    return value


def parser() -> options.Parser:
    made = options.parser("bench.depthwise", __doc__)
    several = "; several are combined with the rest"
    made.add_argument(
        "--model",
        nargs="+",
        action="extend",
        metavar="NAME",
        help=f"whose depthwise convolutions, named as elsewhere (default: {MODEL}){several}",
    )
    options.add_res(made, default=(256, 512))
    made.add_argument(
        "--batch",
        nargs="+",
        type=options.positive_int,
        help=f"images (default: 64 on a GPU, 4 on a CPU){several}",
    )
    options.add_device(made)
    made.add_argument(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        help=f"default: fp32 bf16 on a CPU, fp32 tf32 bf16 on CUDA{several}",
    )
    made.add_argument(
        "--operation", nargs="+", choices=OPERATIONS, default=list(OPERATIONS), help="default: both"
    )
    made.add_argument(
        "--kernel-size",
        nargs="+",
        type=odd,
        metavar="K",
        help=f"side of the window in place of the model's own, which is 7 for FCDM{several}",
    )
    made.add_argument(
        "--budget",
        type=options.positive_seconds,
        metavar="SECONDS",
        help="of each case, warm-up and rounds (default: "
        f"{BUDGET_S['cuda']:g} s on a GPU, {BUDGET_S['cpu']:g} s on a CPU)",
    )
    made.add_argument(
        "--margin",
        type=options.share,
        default=0.01,
        metavar="SHARE",
        help="speeds within this share of nchw's are the same (default: 0.01)",
    )
    options.add_records(made, "with ceilings of this device")
    options.add_output(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return options.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
