"""Does this device, in this precision, compute what the authors' released code computes?

    python -m bench.golden
    python -m bench.golden --model FCDM-S DiT-S/2 --precision fp32 bf16 --compile off on
    python -m bench.golden --device cuda --cuda-graphs off on --channels-last off on --out records.jsonl
    python -m bench.golden --model DiG-S/2@torch DiG-S/2@fla

Every network with a golden output in baselines/golden gets that file's weights and inputs, is called on the
device, and is held to the file's outputs. An error is the root mean square of the difference, as a share of
that of the golden. out is the plain call; out_n, which some have, the call with sharper weights, which sees
attention better. Compiled or as a CUDA graph a network is called again with other x, t and y of the same
shapes, copied to where the first ones were, and that has to be what it gives without compiling or graph:
"other inputs". bf16 and fp16 cast weights and inputs, as bench.throughput does.

Tolerances go by what the releases, in the files, differ by between their own float32 and float64: 2e-7 to
2e-6, but 1.1e-5 for out_n of DiS, which is ill-conditioned. Measured is: on a CPU, over all the goldens.
  fp32   1e-5 on a CPU, or three times the release's own error where that is more: 2e-7 to 4e-6 was measured,
         8e-6 for out_n of DiS; a wrong GELU would be 8e-5 or more. 5e-5 on CUDA: its exp may differ in the
         last bits, t = 977 multiplies the frequencies made with it, and that alone shows as up to 3e-5 where
         all of them are off by the last bit (tried on a CPU). No TF32: both switches of torch's are off, and
         Triton is told so by TRITON_F32_DEFAULT.
  tf32   the release's own error times 2^13, as its products round to 11 bits in place of 24. Products
         rounded so on a CPU gave 580 to 2250 times that error, 2e-4 to 1.7e-3.
  fp16   the same 2^13, as it keeps 11 bits. Measured: 1400 to 3300 times that error.
  bf16   that error times 2^16, as it keeps 8 bits. Measured: 6800 to 24,000 times that error, 0.3 to 2 %, and
         13 % for out_n of DiS, of which bf16 so says little.
Less than the factor is measured, because sums are kept in float32 and only what comes of them is rounded.

A case that is compiled again for other values of the same shapes is "recompiled". A Triton kernel that
asks for TF32 by itself has it within fp32 as well, whatever it is told: should DiG under fla not reproduce
for that, DiG-S/2@torch is without fla.
Each case runs in a process of its own: one that crashes or runs out of memory is a row with its reason.
The exit code is 1 unless every case reproduced its golden, so it is 1 for such rows as well; 2 for bad input.
"""

import argparse
import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial

from baselines import load
from bench.cli import options, tables
from bench.cli import settings as cases
from bench.jobs import worker
from bench.jobs.job import Unit
from bench.jobs.worker import Case
from bench.records.record import REPRODUCED, Deviation, Golden, Record, Run, Skipped

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
DEFAULT = ("fp32", "tf32", "bf16")  # of which the device has some
FLOAT32 = {"cpu": 1e-5, "cuda": 5e-5}
OWN_ERRORS = 3  # of the release, where that is more
ROUNDING = {"tf32": 2**13, "fp16": 2**13, "bf16": 2**16}  # unit roundoff, as a multiple of float32's
OTHER = "other inputs"
ORDER = ("out", "out_n", OTHER)
TIMEOUT_S = {False: 300.0, True: 1200.0}  # compiled or not: on one core of a CPU that takes minutes
TYPICAL_S = {False: 20.0, True: 90.0}


def tolerance(precision: str, device_type: str, released_error: float) -> float:
    """The error that rounding explains; the module's docstring says why it is so much.

    Args:
        precision: one of PRECISIONS.
        device_type: cpu or cuda.
        released_error: of the released code between its own float32 and float64.
    """
    if precision == "fp32":
        return max(FLOAT32[device_type], OWN_ERRORS * released_error)
    return ROUNDING[precision] * released_error


def measure(case: Case) -> Record:
    """Call one network in this process and compare.

    Returns:
        Golden, or Skipped where memory ran out or an output is not finite.
    """
    from bench.measure import passes

    try:
        return _compared(case.run)
    except (RuntimeError, ArithmeticError, MemoryError) as error:
        row = passes.skipped(case.run, error)
        if row is None:
            raise
        return row


def _compared(run: Run) -> Golden:
    import torch
    from torch import Tensor

    from bench.machine import device as device
    from bench.measure import golden_calls as released
    from bench.measure import prepared

    where, dtype = run.environment.device_type, device.DTYPES[run.precision]
    matmul_tf32, conv_tf32 = device.set_precision(run.precision)
    golden = released.read(run.model)
    # eval again, once the weights are what they stay: some networks then fold them
    model = released.build(run.model, golden).to(where, dtype).eval()
    x, t, y = (value.to(where) for value in released.inputs(golden))
    x = x.to(dtype)
    if run.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in its stub
        x = x.to(memory_format=torch.channels_last)
    there = x.clone(), t.clone(), y.clone()  # the memory that every call reads its inputs from
    called = torch.compile(model) if run.compile else model
    call: Callable[[], Tensor] = lambda: called(*there)  # noqa: E731 - may be replaced by a replay

    def output_of(given: tuple[Tensor, Tensor, Tensor], name: str) -> Tensor:
        for old, new in zip(there, given, strict=True):
            old.copy_(new)
        with torch.inference_mode():
            out = call()
        if not torch.isfinite(out).all():
            raise prepared.NotFiniteError(f"{name} in {run.precision} holds inf or NaN")
        return out

    begin = prepared.compiled_so_far()
    output_of((x, t, y), "out")
    first = prepared.compiled_so_far()
    if run.cuda_graphs:
        with torch.inference_mode():
            call = prepared.captured(call)
    deviations = []
    for name, wanted in golden.outputs.items():
        within = tolerance(run.precision, where, golden.released_error(name))
        if name == "out_n":
            released.sharpen(model, golden)
        elif run.compile or run.cuda_graphs:
            others = released.other_inputs(x, t, y)
            with torch.inference_mode():
                eager = model(*others)
            error = released.error(output_of(others, OTHER), eager)
            deviations.append(Deviation(output=OTHER, error=error, tolerance=within))
        error = released.error(output_of((x, t, y), name), torch.from_numpy(wanted))
        deviations.append(Deviation(output=name, error=error, tolerance=within))
    last = prepared.compiled_so_far()
    return Golden(
        run=run,
        deviations=tuple(deviations),
        graph_breaks=first.graph_breaks - begin.graph_breaks if run.compile else None,
        recompilations=last.frames - first.frames if run.compile else None,
        matmul_tf32=matmul_tf32,
        conv_tf32=conv_tf32,
    )


def planned(args: argparse.Namespace) -> list[Case]:
    """Every combination asked for, checked before anything is called.

    Raises:
        UsageError: names without a golden, or settings that the device has not.
    """
    from bench.machine import device as device
    from bench.machine import environment
    from bench.measure import golden_calls as released
    from models.registry import family_of, published_task

    where = args.device or device.default()
    usual = [name for name in DEFAULT if name == "fp32" or device.why_not(where, name) is None]
    precisions = args.precision or usual
    for precision in precisions:
        if (reason := device.why_not(where, precision)) is not None:
            raise options.UsageError(reason)
    cases.check_graphs(args.cuda_graphs, where)
    known = released.names()
    models = []
    for name in options.model_names(args.model, default=known):
        if (model := released.golden_of(name)) is None:
            raise options.UsageError(
                f"--model {name}: has no golden output; those that have: {', '.join(known)}"
            )
        task, latent = published_task(name), load.goldens()[model]
        res = latent * (256 // task.height)
        options.check_models([name], [res], None)
        models.append((name, model, latent, res))
    settings = itertools.product(precisions, args.compile, args.cuda_graphs, args.channels_last)
    return [
        Case(
            run=Run(
                question="golden",
                model=name,
                family=family_of(name),
                res=res,
                latent_size=latent,
                batch=len(load.golden(model, latent).t),
                precision=precision,
                compile=compiled,
                cuda_graphs=graphs,
                channels_last=channels_last,
                weights="golden",
                environment=environment.gather(where, name),
            ),
            weights=None,
        )
        for precision, compiled, graphs, channels_last in dict.fromkeys(settings)
        for name, model, latent, res in models
    ]


def result_of(case: Case) -> Golden | Skipped:
    """Call one network in a worker of its own, dated now."""
    now = replace(case, run=cases.dated(case.run))
    result = worker.run("bench.golden:measure", now, TIMEOUT_S[case.run.compile])
    assert isinstance(result, Golden | Skipped)
    return result


def units(args: argparse.Namespace) -> list[Unit]:
    """The cases of `planned` for a sweep."""
    return [
        Unit(
            label=cases.label(case),
            about=case.run,
            estimate_s=TYPICAL_S[case.run.compile],
            measure=partial(result_of, case),
        )
        for case in planned(args)
    ]


def row(result: Golden | Skipped) -> tables.Row:
    """One object of the JSON output; what a case without outputs lacks is None."""
    seen = result if isinstance(result, Golden) else None
    return {
        **cases.described(result.run),
        "status": result.status if isinstance(result, Skipped) else "ok",
        "reason": result.reason if isinstance(result, Skipped) else "",
        "verdict": seen.verdict if seen else None,
        "outputs": [asdict(one) for one in seen.deviations] if seen else [],
        "graph_breaks": seen.graph_breaks if seen else None,
        "recompilations": seen.recompilations if seen else None,
        "matmul_tf32": seen.matmul_tf32 if seen else None,
        "conv_tf32": seen.conv_tf32 if seen else None,
    }


def columns(rows: Sequence[tables.Row]) -> list[tables.Column]:
    """The case, the errors of the outputs that some row has, and the verdict."""
    named = dict.fromkeys(one["output"] for row in rows for one in row["outputs"])
    compiled: list[tables.Column] = [
        ("graph breaks", partial(_count, "graph_breaks")),
        ("recompilations", partial(_count, "recompilations")),
    ]
    return [
        ("model", lambda row: row["model"]),
        ("precision", lambda row: row["precision"]),
        *cases.unusual(rows),
        *[(f"{name} (tolerance)", partial(_error, name)) for name in sorted(named, key=ORDER.index)],
        *(compiled if any(row["compile"] for row in rows) else []),
        ("verdict", lambda row: row["verdict"] or f"{row['status']}: {row['reason']}"),
    ]


def _error(name: str, row: tables.Row) -> str:
    found = [one for one in row["outputs"] if one["output"] == name]
    return f"{found[0]['error']:.1e} ({found[0]['tolerance']:.1e})" if found else "-"


def _count(name: str, row: tables.Row) -> str:
    return "-" if row[name] is None else str(row[name])


def parser() -> options.Parser:
    made = options.parser("bench.golden", __doc__)
    made.add_argument(
        "--model",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="one with a golden output, its back end after @ where it has several (default: all of them)",
    )
    options.add_device(made)
    made.add_argument(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        help="of weights and inputs (default: fp32, tf32 and bf16, as far as the device has them)",
    )
    options.add_switch(made, "--compile", "run under torch.compile; off on runs both")
    options.add_switch(made, "--cuda-graphs", "replay a CUDA graph of the call")
    options.add_switch(made, "--channels-last", "lay images and kernels out channels last")
    options.add_output(made)
    return made


def _body(args: argparse.Namespace) -> int:
    options.check_output(args.out, args.force)
    results, notes = cases.each(
        planned(args),
        about=lambda case: case.run,
        measure=result_of,
        label=cases.label,
        args=args,
    )
    rows = [row(result) for result in results]
    here = results[0].run.environment
    done = sum(row["verdict"] == REPRODUCED for row in rows)
    notes.append(
        f"{here.device}; torch {here.torch}; driver {here.driver or '-'}; commit {here.commit or '-'}; "
        f"{here.date}; {done} of {len(rows)} cases reproduced; errors are relative rms"
    )
    text = tables.render(rows, columns(rows), args.format)
    tables.emit(text, notes, None if options.keeps_records(args.out) else args.out)
    return 0 if done == len(rows) else 1


def main(argv: Sequence[str] | None = None) -> int:
    return options.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
