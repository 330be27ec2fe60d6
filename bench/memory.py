"""Peak memory of a backbone in inference and training, and the largest batch for a GPU.

    python -m bench.memory --model FCDM-XL DiT-XL/2 --precision bf16 --batch 256
    python -m bench.memory --model FCDM-XL --work training --fits "RTX 4090" 24GiB --find-max-batch
    python -m bench.memory --device cpu meta --model FCDM-S DiT-S/2 --batch 1 4 --out memory.jsonl
    python -m bench.memory --claims

Measured on a GPU or a CPU; predicted from tensor sizes on any machine. Method: docs/memory.md
"""

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from bench.analysis.memory import memory_claims, memory_fit, memory_ratios
from bench.analysis.memory.memory_fit import GIB, BatchLimit, Device
from bench.cli import models, options, records, settings, values
from bench.jobs.job import Job
from bench.records import memory
from bench.records.base import Record, Skipped
from bench.records.memory import Memory, MemoryCase
from bench.tables.table import Table

MODELS = ("FCDM-XL", "DiT-XL/2", "DiCo-XL", "DiC-XL")
RES = options.DefaultSizes([256])
BATCHES = (64, 128, 256)
CPU_BATCHES = (1, 4)
PRECISIONS = ("fp32", "tf32", "bf16")  # fp16 would need a scaled loss
CLAIM_PRECISIONS = ("bf16", "tf32", "fp32")
_NOT_WITH_CLAIMS = ("model", "res", "batch", "work", "checkpointing", "fits", "find_max_batch")
_NOT_ON_A_CPU = ("claims", "fits", "find_max_batch")


def jobs(args: argparse.Namespace) -> list[Job]:
    """Jobs of every case except those of a batch search, checked before measuring."""
    from bench.jobs.memory import job

    return [job(case) for case in _cases(args)]


def _cases(args: argparse.Namespace) -> list[MemoryCase]:
    devices = _devices(args)
    if args.claims:
        return [
            case
            for device in devices
            for case in _claim_cases(device, args.precision or CLAIM_PRECISIONS, args.reserve)
        ]
    default_models, default_batches = (
        (settings.CPU_MODELS, CPU_BATCHES) if "cpu" in devices else (MODELS, BATCHES)
    )
    names = models.model_names(args.model, default=default_models)
    models.check_models(names, args.res or RES, weights=None)
    # checkpointing has no effect in inference
    steps = [
        (work, checkpointing)
        for work in args.work or options.WORKS
        for checkpointing in (args.checkpointing or (False, True) if work == "training" else (False,))
    ]
    sized = [(name, res) for name in names for res in models.sizes_of(name, args.res or RES)]
    products = itertools.product(
        sized, devices, args.precision or PRECISIONS[:1], steps, args.batch or default_batches
    )
    return [
        MemoryCase(
            **settings.sized_fields(name, res, device),
            batch=batch,
            precision=precision,
            work=work,
            checkpointing=checkpointing,
            limit_bytes=None,
        )
        for (name, res), device, precision, (work, checkpointing), batch in dict.fromkeys(products)
    ]


def _claim_cases(device: str, precisions: Sequence[str], reserve_bytes: int) -> list[MemoryCase]:
    """Cases of the paper's claims; on a GPU, each limited to the memory that its claim names."""
    return [
        MemoryCase(
            **settings.sized_fields(claim.model, claim.res, device),
            batch=claim.batch,
            precision=precision,
            work="training",
            checkpointing=checkpointing,
            limit_bytes=None
            if device == "meta"
            else memory_fit.device(claim.gpu, reserve_bytes).usable_bytes,
        )
        for claim in memory_claims.CLAIMS
        for precision in precisions
        for checkpointing in (True, False)
    ]


def _devices(args: argparse.Namespace) -> list[str]:
    """The devices of --device; by default cuda if torch sees a GPU, else meta."""
    from bench.machine import device

    devices = list(dict.fromkeys(args.device or ["cuda" if device.default() == "cuda" else "meta"]))
    if "cuda" in devices and device.default() != "cuda":
        raise options.UsageError("--device cuda: torch sees no CUDA device; --device meta predicts")
    for name in _NOT_ON_A_CPU:
        if "cpu" in devices and getattr(args, name) not in (None, False):
            raise options.UsageError(
                f"--{name.replace('_', '-')}: is about a GPU's memory, got --device cpu; meta predicts"
            )
    for where in devices:
        if where != "meta":
            settings.device_for(where, args.precision or ())
    return devices


def _limits(
    cases: Sequence[MemoryCase],
    found: Sequence[Record],
    devices: Sequence[Device | None],
    args: argparse.Namespace,
) -> list[BatchLimit]:
    """Batch limits, one for each setting and device; cases of a setting differ in batch only."""
    by_setting: dict[MemoryCase, list[Record]] = {}
    for case, record in zip(cases, found, strict=True):
        by_setting.setdefault(replace(case, batch=1), []).append(record)
    rows = []
    for setting, of_setting in by_setting.items():
        fit = memory_fit.fit(of_setting)
        skipped = sorted(
            {record.reason or record.status for record in of_setting if isinstance(record, Skipped)}
        )
        remark = "not linear: use larger batches" if fit and fit.is_nonlinear else "; ".join(skipped)
        for device in devices:
            row = BatchLimit(case=setting, records=tuple(of_setting), fit=fit, device=device, remark=remark)
            rows.append(_verified(row, device, args) if device and args.find_max_batch else row)
    return rows


class _Undecided(Exception):  # noqa: N818 - not an error of the program
    """A case failed for a reason other than memory."""


def _verified(row: BatchLimit, device: Device, args: argparse.Namespace) -> BatchLimit:
    """Search for the largest batch that fits, starting from the fitted one."""
    from bench.jobs.memory import job

    is_predicted = row.case.is_predicted
    if not is_predicted:
        from bench.machine.device import cuda_bytes

        if device.usable_bytes > cuda_bytes(row.case.device):
            return replace(row, remark="not verified: more memory than this GPU has")

    @cache
    def fits(batch: int) -> bool:
        limit = None if is_predicted else device.usable_bytes
        case = replace(row.case, batch=batch, limit_bytes=limit)
        ((record,), _) = records.run_jobs([job(case)], args.out, force=args.force)
        if isinstance(record, Memory):
            return record.use.peak_bytes <= device.usable_bytes
        assert isinstance(record, Skipped)
        if record.status != "out of memory":
            raise _Undecided(f"batch {batch}: {record.status}: {record.reason}")
        return False

    try:
        found = memory_fit.largest(fits, row.max_batch or 1)
    except _Undecided as error:
        return replace(row, remark=str(error))
    method = "predicted" if is_predicted else "run"
    return replace(row, verified_batch=found, remark=f"{found} fits, {found + 1} does not, both {method}")


def _fit_devices(args: argparse.Namespace) -> list[Device]:
    """The devices of --fits; without a name, this machine's GPU."""
    batches = set(args.batch or BATCHES)
    if len(batches) < memory_fit.MIN_BATCHES:
        raise options.UsageError(
            f"--batch {' '.join(map(str, sorted(batches)))}: a line needs at least {memory_fit.MIN_BATCHES} "
            "batches, as --batch 64 128 256"
        )
    with options.usage_errors("--fits "):
        devices = [memory_fit.device(name, args.reserve) for name in dict.fromkeys(args.fits or ())]
    if devices:
        return devices
    if "cuda" in _devices(args):
        from bench.machine import environment
        from bench.machine.device import cuda_bytes

        name = environment.gather("cuda", "").device
        return [Device(name=name, capacity_bytes=cuda_bytes("cuda"), reserve_bytes=args.reserve)]
    if args.find_max_batch:
        raise options.UsageError(
            "--find-max-batch: this machine has no GPU; name one or a size, as --fits 'RTX 4090' 40GiB"
        )
    return []


def _body(args: argparse.Namespace) -> int:
    records.check_output(args.out, args.force)
    if args.weights:
        raise options.UsageError(f"--weights {args.weights}: weights do not change memory; leave it out")
    if args.claims and (given := [name for name in _NOT_WITH_CLAIMS if getattr(args, name)]):
        raise options.UsageError(
            f"--claims: the claims fix what is measured; leave out --{given[0].replace('_', '-')}"
        )
    wants_limits = args.fits is not None or args.find_max_batch
    devices = _fit_devices(args) if wants_limits else []
    planned = jobs(args)
    found, notes = records.run_jobs(planned, args.out, force=args.force)
    table: Table[Any] = memory.TABLE
    rows: Sequence[Any] = found
    if args.claims:
        table, rows = memory_claims.CLAIMS_TABLE, memory_claims.verdicts(found, args.reserve)
    elif wants_limits:
        cases = [job.case for job in planned if isinstance(job.case, MemoryCase)]
        table = memory_fit.LIMITS
        rows = _limits(cases, found, devices or (None,), args)
    records.show(table, rows, [*notes, *_notes(found, args, wants_limits)], args)
    return 0


def _notes(found: Sequence[Record], args: argparse.Namespace, wants_limits: bool) -> list[str]:
    notes = [
        f"GiB are 2**30 bytes; {found[0].environment.describe()}; training: float32 parameters, gradients, "
        "AdamW moments and EMA; bf16 by autocast"
    ]
    cases = [record.case for record in found if isinstance(record.case, MemoryCase)]
    if any(case.device == "cpu" for case in cases):
        notes.append(
            "measured on a CPU: bytes of torch's allocator, with temporaries within operators; process: peak "
            "resident memory, with Python, torch and its profiler"
        )
    if any(case.is_predicted for case in cases):
        notes.append(
            "predicted from the sizes of tensors; excludes workspaces of kernels and losses of the allocator"
        )
        known = [*records.suite_records(MemoryCase.kind), *found]
        notes += memory_ratios.known_errors(known, options.WORKS)
    if args.claims or wants_limits:
        notes.append(
            f"usable is the nominal size minus {args.reserve / GIB:g} GiB for the driver and the CUDA context"
        )
    if args.claims:
        notes.append(
            "DDP buckets: with several GPUs, a second copy of the gradients, which DistributedDataParallel "
            "keeps unless gradient_as_bucket_view=True"
        )
    return notes


def _reserve(text: str) -> int:
    try:
        return memory_fit.device(text, reserve_bytes=0).capacity_bytes
    except ValueError as error:
        raise ValueError(f"must be a size, as 1GiB or 600MiB, got {text!r}") from error


def parser() -> options.Parser:
    made = options.parser("bench.memory", __doc__)
    options.add_models(made, default=f"{' '.join(MODELS)}, on a CPU {' '.join(settings.CPU_MODELS)}")
    options.add_res(made, default=RES)
    batches, on_cpu = (" ".join(map(str, default)) for default in (BATCHES, CPU_BATCHES))
    text = f"images (default: {batches}, on a CPU {on_cpu}); several values of settings are combined"
    options.add(made, "--batch", values.positive_int, text, several=True)
    options.add(made, "--precision", PRECISIONS, f"{', '.join(PRECISIONS)} (default: fp32)", several=True)
    options.add(made, "--work", options.WORKS, "inference, training (default: both)", several=True)
    options.add_switch(made, "--checkpointing", "in training (default: off and on)")
    text = "cuda and cpu measure, meta predicts (default: cuda if torch sees a GPU, else meta)"
    options.add(made, "--device", ("cuda", "cpu", "meta"), text, several=True)
    made.add_argument(
        "--fits",
        nargs="*",
        metavar="DEVICE",
        help="largest batch for these GPUs ('RTX 4090') or sizes (24GiB), by a line through the batches "
        "(default: this machine's GPU)",
    )
    options.add_flag(made, "--find-max-batch", "verify the largest batch of --fits, and correct it")
    text = "memory for the driver and the CUDA context (default: 1GiB)"
    options.add(made, "--reserve", _reserve, text, default=memory_fit.RESERVE_BYTES, metavar="SIZE")
    text = "test the paper's claims: FCDM-XL at 256 px on one A100 40 GB and on four RTX 4090"
    options.add_flag(made, "--claims", text)
    options.add_output(made)
    made.set_defaults(res=None, checkpointing=None)
    return made


main = options.command(parser, _body)

if __name__ == "__main__":
    raise SystemExit(main())
