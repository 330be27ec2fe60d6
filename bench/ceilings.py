"""What is the most that this device does: FLOP/s of a product, bytes/s of a copy?

    python -m bench.ceilings
    python -m bench.ceilings --precision fp32 bf16 --out records.jsonl
    python -m bench.ceilings --device cuda --budget 5

Timed: one product of square matrices of normal numbers, torch.matmul with its output given, at each of a few
sizes, of which the fastest is kept; and one copy of a tensor far larger than the caches, which counts its
bytes twice, read and written. Not timed: making the tensors, the warm-up. fp32 has no TF32 in it; tf32 is
there on CUDA only, and so is fp16. FLOPs are twice the multiply-accumulates.

On a CPU torch hands matrix products and convolutions to different libraries, of which either may be the
faster one: there a 3x3 convolution is timed as well, and the higher of both rates is the roof.

A ceiling is what a real kernel reaches on this device as it is now, with its clocks and its neighbours, and
so lies below the figure that a maker prints; bench.roofline sets both beside each other. The budget is that
of each ceiling. Each runs in a process of its own.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from bench.cli import options, settings, tables
from bench.jobs import worker
from bench.jobs.job import Unit
from bench.records.record import Ceiling, Environment, Record, Run, Skipped
from bench.stats import intervals

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
DEFAULT = {"cpu": ("fp32", "bf16"), "cuda": PRECISIONS}
SIDES = {"cpu": (1024, 2048), "cuda": (4096, 8192, 16384)}  # of the matrices
CHANNELS, LATENT, IMAGES = 256, 32, 4  # of the convolution: in and out, side, batch
COPIED = {"cpu": 2**29, "cuda": 2**31}  # bytes
BUDGET_S = 2.0
STARTUP_S = 120.0


@dataclass(frozen=True, kw_only=True)
class CeilingCase:
    """One ceiling to be measured."""

    what: str  # matmul, convolution or copy
    precision: str
    budget_s: float
    environment: Environment

    @property
    def run(self) -> Run:
        """What a row says where there is no ceiling."""
        return Run(
            question="ceiling",
            model=self.what,
            family="",
            res=8,
            latent_size=1,
            batch=1,
            precision=self.precision,
            budget_s=self.budget_s,
            weights="",
            environment=self.environment,
        )

    @property
    def blank(self) -> Ceiling:
        """What a store knows the ceiling by."""
        return Ceiling(
            what=self.what, precision=self.precision, size=0, work=0, times_s=(), environment=self.environment
        )


def measure(case: CeilingCase) -> Ceiling:
    """Measure one ceiling in this process."""
    if case.what == "copy":
        return copy(case)
    if case.what == "convolution":
        return convolution(case)
    sides = SIDES[case.environment.device_type]
    return fastest([matmul(case, side, case.budget_s / len(sides)) for side in sides])


def fastest(ceilings: Sequence[Ceiling]) -> Ceiling:
    return max(ceilings, key=lambda ceiling: ceiling.per_s)


def matmul(case: CeilingCase, side: int, budget_s: float) -> Ceiling:
    """Time square matrices of one side."""
    import torch

    from bench.machine import device as device

    where = case.environment.device_type
    device.set_precision(case.precision)
    dtype = device.DTYPES[case.precision]
    a, b = (torch.randn(side, side, device=where, dtype=torch.float32).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    times = _times(lambda: torch.matmul(a, b, out=out), where, budget_s)
    return replace(case.blank, size=side, work=2 * side**3, times_s=times)


def convolution(case: CeilingCase) -> Ceiling:
    """Time a 3x3 convolution with as many channels in as out; its size is their number."""
    import torch

    from bench.machine import device as device

    where = case.environment.device_type
    device.set_precision(case.precision)
    dtype = device.DTYPES[case.precision]
    x = torch.randn(IMAGES, CHANNELS, LATENT, LATENT, device=where).to(dtype)
    weight = torch.randn(CHANNELS, CHANNELS, 3, 3, device=where).to(dtype)
    times = _times(lambda: torch.conv2d(x, weight, padding=1), where, case.budget_s)
    return replace(case.blank, size=CHANNELS, work=2 * IMAGES * LATENT**2 * 9 * CHANNELS**2, times_s=times)


def copy(case: CeilingCase) -> Ceiling:
    """Time the copy of a tensor that no cache holds."""
    import torch

    where = case.environment.device_type
    size = COPIED[where]
    source = torch.randn(size // 4, device=where)
    target = torch.empty_like(source)
    times = _times(lambda: target.copy_(source), where, case.budget_s)
    return replace(case.blank, size=size, work=2 * size, times_s=times)


def _times(call: Callable[[], object], where: str, budget_s: float) -> tuple[float, ...]:
    """Seconds of calls after warm-up, the device waited for."""
    from bench.machine import device as device
    from bench.measure import timing

    clock, synchronise = time.perf_counter, device.synchronise(where)
    policy = timing.Policy(budget_s=budget_s, min_warmup_s=min(0.2, budget_s / 4), min_sampling_s=0.2)
    begin = clock()
    timing.warm_up(call, policy, clock=clock, synchronise=synchronise)
    samples = timing.sample(call, policy, spent_s=clock() - begin, clock=clock, synchronise=synchronise)
    return samples.wall_s


def planned(where: str, precisions: Sequence[str], budget_s: float) -> list[CeilingCase]:
    """A matrix product of every precision, on a CPU a convolution too, then the copy.

    Raises:
        UsageError: a precision that the device does not have.
    """
    from bench.machine import device as device
    from bench.machine import environment as environment

    for precision in precisions:
        if (reason := device.why_not(where, precision)) is not None:
            raise options.UsageError(reason)
        if precision == "fp16" and where == "cpu":
            raise options.UsageError("--precision fp16: is measured on CUDA only; bf16 would work")
    products = ("matmul", "convolution") if where == "cpu" else ("matmul",)
    asked = [(what, precision) for precision in dict.fromkeys(precisions) for what in products]
    asked.append(("copy", "fp32"))
    here = environment.gather(where, "")
    return [
        CeilingCase(what=what, precision=precision, budget_s=budget_s, environment=here)
        for what, precision in asked
    ]


def result_of(case: CeilingCase) -> Ceiling | Skipped:
    """Measure one ceiling in a worker of its own."""
    found: Record = worker.run("bench.ceilings:measure", case, STARTUP_S + 4 * case.budget_s)
    assert isinstance(found, Ceiling | Skipped)
    return found


def each(found: Sequence[CeilingCase], args: argparse.Namespace) -> tuple[list[Ceiling | Skipped], list[str]]:
    """A record for every case, those that --out holds from there; and notes on that."""
    return settings.each(
        found,
        about=lambda case: case.blank,
        measure=result_of,
        label=_label,
        args=args,
    )


def row(result: Ceiling | Skipped) -> tables.Row:
    """One object of the JSON output; what a ceiling that could not be measured lacks is None."""
    about: dict[str, object]
    times: tuple[float, ...] = ()
    if isinstance(result, Skipped):
        environment = result.run.environment
        about = {"what": result.run.model, "precision": result.run.precision, "status": result.status}
        about |= {"reason": result.reason, "size": None, "work": None, "per_s": None, "median_s": None}
    else:
        environment, times = result.environment, result.times_s
        about = {"what": result.what, "precision": result.precision, "status": "ok", "reason": ""}
        about |= {"size": result.size, "work": result.work, "per_s": result.per_s}
        about |= {"median_s": intervals.median(times)}
    return {
        **about,
        "samples": len(times),
        "device": environment.device,
        "torch": environment.torch,
        "threads": environment.threads,
        "date": environment.date,
        "times_s": list(times),
    }


def _size(row: tables.Row) -> str:
    if row["size"] is None:
        return "-"
    return f"{row['size'] / 2**20:g} MiB" if row["what"] == "copy" else str(row["size"])


def _rate(row: tables.Row) -> str:
    if row["per_s"] is None:
        return f"{row['status']}: {row['reason']}"
    return f"{tables.significant(row['per_s'] / 1e9)} {'GB/s' if row['what'] == 'copy' else 'GFLOP/s'}"


COLUMNS: list[tables.Column] = [
    ("what", lambda row: row["what"]),
    ("precision", lambda row: row["precision"]),
    ("side or size", _size),
    ("ceiling", _rate),
    ("ms", lambda row: tables.milliseconds(row["median_s"])),
    ("samples", lambda row: str(row["samples"])),
]


def parser() -> options.Parser:
    made = options.parser("bench.ceilings", __doc__)
    options.add_device(made)
    made.add_argument(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        help="of the matrices (default: fp32 bf16 on a CPU, all four on CUDA)",
    )
    made.add_argument(
        "--budget",
        type=options.positive_seconds,
        default=BUDGET_S,
        metavar="SECONDS",
        help=f"of each ceiling, warm-up and samples (default: {BUDGET_S:g})",
    )
    options.add_output(made)
    return made


def _asked(args: argparse.Namespace) -> list[CeilingCase]:
    from bench.machine import device as device

    where = args.device or device.default()
    return planned(where, args.precision or DEFAULT[where], args.budget)


def units(args: argparse.Namespace) -> list[Unit]:
    """The ceilings for a sweep."""
    return [
        Unit(
            label=_label(case),
            about=case.blank,
            estimate_s=settings.TYPICAL_STARTUP_S + 2 * case.budget_s,
            measure=partial(result_of, case),
        )
        for case in _asked(args)
    ]


def _label(case: CeilingCase) -> str:
    return f"{case.what} {case.precision}"


def _body(args: argparse.Namespace) -> int:
    options.check_output(args.out, args.force)
    results, notes = each(_asked(args), args)
    first = row(results[0])
    notes.append(
        f"{first['device']}; torch {first['torch']}; {first['threads']} CPU threads; {first['date']}; "
        "median of the samples of the fastest size; copy counts bytes read and written"
    )
    text = tables.render([row(result) for result in results], COLUMNS, args.format)
    tables.emit(text, notes, None if options.keeps_records(args.out) else args.out)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return options.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
