"""How much memory does a backbone take, and what is the largest batch?

    python -m bench.memory
    python -m bench.memory --model FCDM-XL DiT-XL/2 --precision bf16 tf32 --batch 256 --checkpointing on off
    python -m bench.memory --model FCDM-XL --work training --fits "A100 PCIe 40GB" "RTX 4090" 24GiB
    python -m bench.memory --model FCDM-XL --precision bf16 --fits "RTX 4090" --find-max-batch
    python -m bench.memory --claims --out memory.jsonl
    python -m bench.memory --device cuda meta --model FCDM-XL --batch 64 128 256

Inference: one denoising pass model(x, t, y); weights and x are in the precision itself, as bench.throughput
times it. Training: forward, backward, AdamW, and an average of the weights (EMA), in the steady state that
the second step reaches, gradients set to None after each. Parameters, gradients, AdamW's two moments and
the EMA are float32; bf16 is torch.autocast around the forward pass, whose casts of weights count as
activations. The loss is the squared error of the noise. Checkpointing keeps a block's inputs only and
computes it again. Not included: what averaging gradients across GPUs takes (--claims adds it), data
loading, several steps' gradients added up.

On CUDA every case runs in a fresh process: allocated and reserved are torch's peaks, process is what the
driver counts (with nvidia-ml-py; blank without). Out of memory is a row. On meta, the default without a
GPU, nothing is computed: the sizes of live tensors are added up, in blocks of 512 bytes as on CUDA, and
every figure is marked predicted. A prediction leaves out what kernels take within an operator (cuDNN and
cuBLAS workspaces, copies to change a layout) and what the allocator loses between blocks; reserved and
process are unknown then.

Gradients are those there at the peak, as they come while activations go; activations are the rest.
--fits draws a line through the peaks of three batches or more, and gives the largest batch for a GPU of
baselines/gpus.csv or a size, less a reserve for the driver and the CUDA context. --find-max-batch looks
whether that batch holds and the next does not: by running both on CUDA, within the device's size, or by
predicting both.
"""

import argparse
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

from bench.analysis import memory_fit
from bench.analysis.memory_fit import GIB, MIB, Device, Fit, Verdict
from bench.cli import options, tables
from bench.cli import settings as timed_cases
from bench.jobs import worker
from bench.jobs.job import Unit
from bench.records.record import Memory, MemoryUse, Run, Size, Skipped, height_width, size_text

MODELS = ("FCDM-XL", "DiT-XL/2", "DiCo-XL", "DiC-XL")
RES = (256,)
BATCHES = (64, 128, 256)
PRECISIONS = ("fp32", "tf32", "bf16")  # fp16 would need a scaled loss
CLAIMED = ("bf16", "tf32", "fp32")  # readings of a claim
WORK = ("inference", "training")
TYPICAL_S = 3.0
TIMEOUT_S = 600.0  # for one case in its process


@dataclass(frozen=True, kw_only=True)
class MemoryCase:
    """What is measured or predicted."""

    model: str
    res: Size
    batch: int
    device: str  # cuda, or meta for a prediction
    precision: str
    work: str
    checkpointing: bool
    limit_bytes: int | None  # what a CUDA case may take; None: what there is

    @property
    def run(self) -> Run:
        return planned(self)


def measure(case: MemoryCase) -> Memory:
    """Measure one case on CUDA, in a process that has done nothing else, or predict it on meta."""
    from bench.measure import memory as peaks
    from models.contract import build
    from models.registry import task_at

    task = task_at(case.model, *height_width(case.res))
    asked = (
        lambda: build(case.model, task, device=case.device),
        task,
        case.batch,
        case.precision,
        case.work,
        case.checkpointing,
    )
    try:
        if case.device == "meta":
            return _known(case, peaks.predict(*asked))
        return _known(case, peaks.measure(*asked, on=case.device, limit_bytes=case.limit_bytes))
    except (RuntimeError, ValueError, MemoryError) as error:
        return _unknown(case, "out of memory", worker.memory_reason(error))


def _known(case: MemoryCase, use: MemoryUse) -> Memory:
    return replace(_unknown(case, "error", ""), status="ok", use=use)


def _unknown(case: MemoryCase, status: str, reason: str) -> Memory:
    return Memory(
        run=planned(case),
        work=case.work,
        checkpointing=case.checkpointing,
        predicted=case.device == "meta",
        limit_bytes=case.limit_bytes,
        status=status,
        reason=reason,
        use=None,
    )


def planned(case: MemoryCase) -> Run:
    """What a record says of the case, whatever becomes of it."""
    from bench.machine import environment as environment
    from models.registry import family_of, task_at

    # what else tells one case from another is in the question, by which a store knows it
    within = "" if case.limit_bytes is None else f" within {case.limit_bytes} bytes"
    return Run(
        question=f"memory of {case.work}{within}",
        model=case.model,
        family=family_of(case.model),
        res=case.res,
        latent_size=task_at(case.model, *height_width(case.res)).latent_size,
        batch=case.batch,
        precision=case.precision,
        checkpointing=case.checkpointing,
        environment=environment.gather(case.device, case.model),
    )


def result_of(case: MemoryCase) -> Memory:
    """Measure a CUDA case in a worker, or predict here; whatever goes wrong is in the record."""
    if case.device != "meta":
        found = worker.run("bench.memory:measure", case, TIMEOUT_S)
        if isinstance(found, Skipped):
            return _unknown(case, found.status, found.reason)
        assert isinstance(found, Memory)
        return found
    try:
        return measure(case)
    except (TypeError, ValueError, AttributeError, RuntimeError, LookupError, ArithmeticError) as error:
        # a model may pass the check in eval mode and still not train on meta tensors
        told = f"on the meta device: {type(error).__name__}: {worker.first_line(error)}"
        return _unknown(case, "error", told)


# one row a case


def row(memory: Memory) -> tables.Row:
    """One object of the JSON output; what is not known is None."""
    run, use = memory.run, memory.use
    return {
        "model": run.model,
        "family": run.family,
        "work": memory.work,
        "res": tables.size(run.res),
        "latent_size": tables.size(run.latent_size),
        "batch": run.batch,
        "precision": run.precision,
        "checkpointing": memory.checkpointing,
        "predicted": memory.predicted,
        "limit_bytes": memory.limit_bytes,
        "device": run.environment.device,
        "torch": run.environment.torch,
        "date": run.environment.date,
        "status": memory.status,
        "reason": memory.reason,
        "peak_bytes": use and use.peak_bytes,
        "peak_phase": use and use.peak_phase,
        "parameters_bytes": use and use.parameters_bytes,
        "gradients_at_peak_bytes": use and use.gradients_at_peak_bytes,
        "gradients_bytes": use and use.gradients_bytes,
        "optimizer_bytes": use and use.optimizer_bytes,
        "ema_bytes": use and use.ema_bytes,
        "activations_bytes": use and use.activations_bytes,
        "passes_peak_bytes": use and use.passes_peak_bytes,
        "update_peak_bytes": use and use.update_peak_bytes,
        "reserved_bytes": use and use.reserved_bytes,
        "process_bytes": use and use.process_bytes,
    }


def _gib(key: str) -> Callable[[tables.Row], str]:
    return lambda row: tables.fixed(2, None if row[key] is None else row[key] / GIB)


def _checkpointing(row: tables.Row) -> str:
    if row["work"] == "inference":
        return "-"
    return "on" if row["checkpointing"] else "off"


def _how(row: tables.Row) -> str:
    return "predicted" if row["predicted"] else "measured"


def _peak(row: tables.Row) -> str:
    return row["status"] if row["peak_bytes"] is None else _gib("peak_bytes")(row)


_SETTING: list[tables.Column] = [
    ("model", lambda row: row["model"]),
    ("work", lambda row: row["work"]),
    ("res", lambda row: str(row["res"])),
    ("precision", lambda row: row["precision"]),
    ("checkpointing", _checkpointing),
]
_COLUMNS: list[tables.Column] = [
    *_SETTING,
    ("batch", lambda row: str(row["batch"])),
    ("how", _how),
    ("peak GiB", _peak),
    ("reached in", lambda row: row["peak_phase"] or "-"),
    ("parameters", _gib("parameters_bytes")),
    ("gradients", _gib("gradients_at_peak_bytes")),
    ("optimizer", _gib("optimizer_bytes")),
    ("EMA", _gib("ema_bytes")),
    ("activations", _gib("activations_bytes")),
    ("reserved", _gib("reserved_bytes")),
    ("process", _gib("process_bytes")),
]
_REASON: tables.Column = ("reason", lambda row: row["reason"])


# one row a line through several batches


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The line of one setting, and the largest batch for one device."""

    of: Memory  # any of the line's cases
    fit: Fit | None  # None: fewer than three batches are known
    device: Device | None  # None: no device was asked for
    verified_batch: int | None  # holds while the next does not; None: not looked for, or not found
    remark: str

    @property
    def max_batch(self) -> int | None:
        return self.fit.max_batch(self.device.usable_bytes) if self.fit and self.device else None


def answer_row(answer: Answer) -> tables.Row:
    fit, device = answer.fit, answer.device
    kept = ("model", "family", "work", "res", "latent_size", "precision", "checkpointing", "predicted")
    of = row(answer.of)
    return {
        **{key: of[key] for key in kept},
        "measured_on": of["device"],
        "fixed_bytes": fit and round(fit.fixed_bytes),
        "per_image_bytes": fit and round(fit.per_image_bytes),
        "residual_bytes": fit and round(fit.residual_bytes),
        "update_peak_bytes": fit and fit.update_peak_bytes,
        "batches": list(fit.batches) if fit else [],
        "device": device and device.name,
        "capacity_bytes": device and device.capacity_bytes,
        "reserve_bytes": device and device.reserve_bytes,
        "max_batch": answer.max_batch,
        "verified_max_batch": answer.verified_batch,
        "remark": answer.remark,
    }


def _mib(key: str) -> Callable[[tables.Row], str]:
    return lambda row: tables.significant(None if row[key] is None else row[key] / MIB)


def _count(key: str) -> Callable[[tables.Row], str]:
    return lambda row: "-" if row[key] is None else str(row[key])


_ANSWER_COLUMNS: list[tables.Column] = [
    *_SETTING,
    ("how", _how),
    ("a GiB", _gib("fixed_bytes")),
    ("b MiB/image", _mib("per_image_bytes")),
    ("residual MiB", _mib("residual_bytes")),
    ("update GiB", _gib("update_peak_bytes")),
    ("from batches", lambda row: ", ".join(map(str, row["batches"])) or "-"),
    ("device", lambda row: row["device"] or "-"),
    ("size GiB", _gib("capacity_bytes")),
    ("max batch", _count("max_batch")),
    ("verified", _count("verified_max_batch")),
    ("remark", lambda row: row["remark"]),
]


# one row a claim and setting


def verdict_row(verdict: Verdict) -> tables.Row:
    claim = verdict.claim
    return {
        **row(verdict.memory),
        "claim": claim.text,
        "source": claim.source,
        "gpu": claim.gpu,
        "gpus": claim.gpus,
        "buckets_bytes": verdict.buckets_bytes,
        "needed_bytes": verdict.needed_bytes,
        "capacity_bytes": verdict.device.capacity_bytes,
        "reserve_bytes": verdict.device.reserve_bytes,
        "usable_bytes": verdict.device.usable_bytes,
        "margin_bytes": verdict.margin_bytes,
        "verdict": verdict.text,
    }


_VERDICT_COLUMNS: list[tables.Column] = [
    ("claim", lambda row: f"{row['model']}, {row['claim']}"),
    ("precision", lambda row: row["precision"]),
    ("checkpointing", _checkpointing),
    ("how", _how),
    ("peak GiB", _peak),
    ("+ DDP buckets", _gib("buckets_bytes")),
    ("needed", _gib("needed_bytes")),
    ("usable", _gib("usable_bytes")),
    ("margin", _gib("margin_bytes")),
    ("verdict", lambda row: row["verdict"]),
]


# the command


def _cases(args: argparse.Namespace, names: Sequence[str], devices: Sequence[str]) -> list[MemoryCase]:
    # inference has nothing to compute again
    steps = [
        (work, checkpointing)
        for work in args.work or WORK
        for checkpointing in (args.checkpointing or (False, True) if work == "training" else (False,))
    ]
    settings = itertools.product(
        names, args.res or RES, devices, args.precision or PRECISIONS[:1], steps, args.batch or BATCHES
    )
    return [
        MemoryCase(
            model=name,
            res=res,
            batch=batch,
            device=device,
            precision=precision,
            work=work,
            checkpointing=checkpointing,
            limit_bytes=None,
        )
        for name, res, device, precision, (work, checkpointing), batch in dict.fromkeys(settings)
    ]


def _claim_cases(device: str, precisions: Sequence[str], reserve_bytes: int) -> list[MemoryCase]:
    """Claims of the paper, each within the memory it is about where that can be had."""
    return [
        MemoryCase(
            model=claim.model,
            res=claim.res,
            batch=claim.batch,
            device=device,
            precision=precision,
            work="training",
            checkpointing=checkpointing,
            limit_bytes=memory_fit.device(claim.gpu, reserve_bytes).usable_bytes
            if device != "meta"
            else None,
        )
        for claim in memory_fit.CLAIMS
        for precision in precisions
        for checkpointing in (True, False)
    ]


def label(case: MemoryCase) -> str:
    """The case in words."""
    words = [f"{case.model} {size_text(case.res)} px", case.work, f"batch {case.batch}", case.precision]
    return ", ".join([*words, "checkpointing"] if case.checkpointing else words)


def _each(cases: Sequence[MemoryCase], args: argparse.Namespace) -> tuple[list[Memory], list[str]]:
    """A record for every case, in order, those that --out holds from there; and notes on that."""
    return timed_cases.each(cases, about=lambda case: case.run, measure=result_of, label=label, args=args)


def _kept(case: MemoryCase, args: argparse.Namespace) -> Memory:
    return _each([case], args)[0][0]


def _answers(
    cases: Sequence[MemoryCase],
    memories: Sequence[Memory],
    asked: Sequence[Device],
    args: argparse.Namespace,
) -> list[Answer]:
    """One answer for each setting and device; each setting's cases differ in their batch only."""
    settings: dict[MemoryCase, list[Memory]] = {}
    for case, memory in zip(cases, memories, strict=True):
        settings.setdefault(replace(case, batch=1), []).append(memory)
    answers = []
    for setting, found in settings.items():
        line = memory_fit.fit(found)
        remark = "; ".join(sorted({m.reason or m.status for m in found if m.use is None}))
        if line and line.bent:
            remark = "bent: larger batches give a better line"
        devices: Sequence[Device | None] = asked or (None,)
        for device in devices:
            answer = Answer(of=found[0], fit=line, device=device, verified_batch=None, remark=remark)
            answers.append(_verified(answer, setting, args) if args.find_max_batch else answer)
    return answers


class _Unanswered(Exception):  # noqa: N818 - it is no error of the program
    """A case went wrong in a way that does not say whether it fits."""


def _verified(answer: Answer, setting: MemoryCase, args: argparse.Namespace) -> Answer:
    """Look for the batch that holds while the next does not, from where the line puts it."""
    device = answer.device
    assert device is not None
    if setting.device != "meta":
        from bench.machine.device import cuda_bytes

        if device.usable_bytes > cuda_bytes(setting.device):
            return replace(answer, remark="not verified: more memory than this GPU has")

    @cache
    def holds(batch: int) -> bool:
        limit = None if setting.device == "meta" else device.usable_bytes
        memory = _kept(replace(setting, batch=batch, limit_bytes=limit), args)
        if memory.use is not None:
            return memory.use.peak_bytes <= device.usable_bytes
        if memory.status != "out of memory":
            raise _Unanswered(f"batch {batch}: {memory.status}: {memory.reason}")
        return False

    with options.progress("searching", 1) as begin:
        begin(f"{setting.model}, {setting.work}, {device.name}")
        try:
            found = memory_fit.largest(holds, answer.max_batch or 1)
        except _Unanswered as error:
            return replace(answer, remark=str(error))
    ran = "predicted" if setting.device == "meta" else "run"
    return replace(answer, verified_batch=found, remark=f"{found} fits, {found + 1} does not, both {ran}")


def _devices(args: argparse.Namespace) -> list[str]:
    """Where to count: what --device says, else CUDA if torch sees it, else meta."""
    from bench.machine import device as device

    given = list(dict.fromkeys(args.device or ["cuda" if device.default() == "cuda" else "meta"]))
    if "cuda" in given and device.default() != "cuda":
        raise options.UsageError("--device cuda: torch sees no CUDA device here; --device meta predicts")
    for precision in args.precision or ():
        if "cuda" in given and (reason := device.why_not("cuda", precision)) is not None:
            raise options.UsageError(reason)
    return given


def _asked(args: argparse.Namespace, devices: Sequence[str]) -> list[Device]:
    """The devices of --fits; the GPU at hand if it names none."""
    try:
        asked = [memory_fit.device(name, args.reserve) for name in dict.fromkeys(args.fits or ())]
    except ValueError as error:
        raise options.UsageError(f"--fits {error}") from error
    if asked or "cuda" not in devices:
        return asked
    from bench.machine import environment as environment
    from bench.machine.device import cuda_bytes

    return [
        Device(
            name=environment.gather("cuda", "").device,
            capacity_bytes=cuda_bytes("cuda"),
            reserve_bytes=args.reserve,
        )
    ]


def planned_cases(args: argparse.Namespace) -> list[MemoryCase]:
    """Every case that is asked for, without those of a search, checked before anything is measured.

    Raises:
        UsageError: names, sizes or devices that cannot be.
    """
    devices = _devices(args)
    if args.claims:
        return [case for on in devices for case in _claim_cases(on, args.precision or CLAIMED, args.reserve)]
    names = options.model_names(args.model, default=MODELS)
    options.check_models(names, args.res or RES, weights=None)
    return _cases(args, names, devices)


def units(args: argparse.Namespace) -> list[Unit]:
    """The cases of `planned_cases` for a sweep."""
    return [
        Unit(label=label(case), about=case.run, estimate_s=TYPICAL_S, measure=partial(result_of, case))
        for case in planned_cases(args)
    ]


def _body(args: argparse.Namespace) -> int:
    options.check_output(args.out, args.force)
    if args.weights:
        raise options.UsageError(f"--weights {args.weights}: their values change no size; leave it out")
    if args.claims:
        return _claims(args)
    batches = set(args.batch or BATCHES)
    answers_wanted = args.fits is not None or args.find_max_batch
    if answers_wanted and len(batches) < memory_fit.MIN_BATCHES:
        raise options.UsageError(
            f"--batch {' '.join(map(str, sorted(batches)))}: a line needs at least {memory_fit.MIN_BATCHES} "
            "batches, as --batch 64 128 256"
        )
    devices = _devices(args)
    asked = _asked(args, devices) if answers_wanted else []
    if args.find_max_batch and not asked:
        raise options.UsageError(
            "--find-max-batch: no GPU here; name one or a size, as --fits 'RTX 4090' 40GiB"
        )
    cases = planned_cases(args)
    memories, notes = _each(cases, args)
    if answers_wanted:
        rows = [answer_row(answer) for answer in _answers(cases, memories, asked, args)]
        columns = _ANSWER_COLUMNS
    else:
        rows = [row(memory) for memory in memories]
        columns = [*_COLUMNS, _REASON] if any(memory.reason for memory in memories) else _COLUMNS
    return _emit(args, rows, columns, memories, notes)


_NOT_WITH_CLAIMS = ("model", "res", "batch", "work", "checkpointing", "fits", "find_max_batch")


def _claims(args: argparse.Namespace) -> int:
    for option in _NOT_WITH_CLAIMS:
        if getattr(args, option):
            flag = option.replace("_", "-")
            raise options.UsageError(f"--claims: says itself what is measured; leave out --{flag}")
    memories, notes = _each(planned_cases(args), args)
    found = memory_fit.verdicts(memories, args.reserve)
    return _emit(args, [verdict_row(verdict) for verdict in found], _VERDICT_COLUMNS, memories, notes)


def _emit(
    args: argparse.Namespace,
    rows: Sequence[tables.Row],
    columns: Sequence[tables.Column],
    memories: Sequence[Memory],
    notes: Sequence[str],
) -> int:
    text = tables.render(rows, columns, args.format)
    notes = [*notes, *_notes(memories, args)]
    tables.emit(text, notes, None if options.keeps_records(args.out) else args.out)
    return 0


def _notes(memories: Sequence[Memory], args: argparse.Namespace) -> list[str]:
    here = memories[0].run.environment
    notes = [
        f"GiB are 2**30 bytes; {here.device or 'no device'}; torch {here.torch}; "
        f"commit {here.commit or '-'}; {here.date}; training: float32 parameters, gradients, AdamW moments "
        "and EMA; bf16 by autocast"
    ]
    if any(memory.predicted for memory in memories):
        notes.append(
            "predicted: from sizes of tensors, nothing ran; kernels' workspaces and the allocator's losses "
            "are not in it"
        )
    if args.claims or args.fits is not None or args.find_max_batch:
        notes.append(
            f"usable is the nominal size less {args.reserve / GIB:g} GiB for the driver and the CUDA context"
        )
    if args.claims:
        notes.append(
            "DDP buckets: a second copy of the gradients, which DistributedDataParallel keeps unless "
            "gradient_as_bucket_view=True; counted with several GPUs"
        )
    return notes


def _reserve(text: str) -> int:
    try:
        return memory_fit.device(text, reserve_bytes=0).capacity_bytes
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a size, as 1GiB or 600MiB, got {text!r}") from error


def parser() -> options.Parser:
    made = options.parser("bench.memory", __doc__)
    options.add_models(made, default=" ".join(MODELS))
    options.add_res(made, default=RES)
    made.add_argument(
        "--batch",
        nargs="+",
        type=options.positive_int,
        help=f"images (default: {' '.join(map(str, BATCHES))}); all settings that take several are combined",
    )
    made.add_argument("--precision", nargs="+", choices=PRECISIONS, help="default: fp32")
    made.add_argument("--work", nargs="+", choices=WORK, help="default: both")
    options.add_switch(made, "--checkpointing", "in training (default: off and on)")
    made.add_argument(
        "--device",
        nargs="+",
        choices=("cuda", "meta"),
        help="measure or predict; both compares them (default: cuda where torch sees one, else meta)",
    )
    made.add_argument(
        "--fits",
        nargs="*",
        metavar="DEVICE",
        help="the line through the batches, and the largest batch for a GPU, as 'RTX 4090', or a size, as "
        "24GiB; without a name the GPU at hand",
    )
    made.add_argument(
        "--find-max-batch", action="store_true", help="verify the largest batch of --fits, and correct it"
    )
    made.add_argument(
        "--reserve",
        type=_reserve,
        default=memory_fit.RESERVE_BYTES,
        metavar="SIZE",
        help="of a device's nominal size, for the driver and the CUDA context (default: 1GiB)",
    )
    made.add_argument(
        "--claims",
        action="store_true",
        help="the paper's: FCDM-XL at 256 px on one A100 40 GB, and on four RTX 4090, with and without "
        "checkpointing",
    )
    options.add_output(made)
    made.set_defaults(res=None, checkpointing=None)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return options.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
