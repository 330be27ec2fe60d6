"""Writes the report's section on memory: records in, markdown out."""

from collections.abc import Callable, Sequence

from bench.analysis import memory_fit
from bench.analysis.memory_fit import GIB, MIB, Device, Verdict
from bench.records.record import Memory, MemoryUse, Record, size_text
from reports.figures.plots import Drawing
from reports.overview import BLANK, Columns, markdown

DEVICES = (
    "RTX 4090",
    "A100 PCIe 40GB",
    "A100 SXM4 80GB",
    "H200 SXM5 141GB",
)  # for the largest batch

Setting = tuple[str, str, str, str, str, str]  # model, work, res, precision, checkpointing, how


def section(records: Sequence[Record]) -> tuple[str, list[Drawing]]:
    """Write the section; empty without records of memory, which may be in any order. The newest counts."""
    cases = newest([record for record in records if isinstance(record, Memory)])
    if not cases:
        return "", []
    shown = [case for case in cases if case.limit_bytes is None and case.run.batch.bit_count() == 1]
    parts = ["## Memory", _reading(cases), "### Peaks", markdown(_peaks(shown))]
    lines = _lines(cases)
    if lines["model"]:
        parts += ["### Largest batch", _of_lines(), markdown(lines)]
    found = memory_fit.verdicts(cases)
    if found:
        parts += ["### The paper's claims", _of_claims(found), markdown(_claims(found))]
    return "\n\n".join(parts), []


def newest(memories: Sequence[Memory]) -> list[Memory]:
    """The newest of every case, by setting."""
    by_case = {
        (*_setting(memory), memory.run.batch, memory.limit_bytes or 0): memory
        for memory in sorted(memories, key=lambda memory: memory.run.environment.date)
    }
    return [by_case[case] for case in sorted(by_case)]


def _setting(memory: Memory) -> Setting:
    run = memory.run
    how = "predicted" if memory.predicted else f"measured, {run.environment.device}"
    return (run.model, memory.work, size_text(run.res), run.precision, _checkpointing(memory), how)


def _checkpointing(memory: Memory) -> str:
    if memory.work == "inference":
        return BLANK
    return "on" if memory.checkpointing else "off"


def _columns_of(settings: Sequence[Setting]) -> Columns:
    heads = ("model", "work", "px", "precision", "checkpointing", "how")
    return {head: [setting[i] for setting in settings] for i, head in enumerate(heads)}


def _reading(cases: Sequence[Memory]) -> str:
    text = (
        "GiB are 2^30 bytes. Inference is one denoising pass with weights in the named precision. Training "
        "is forward, backward, AdamW and an average of the weights (EMA): parameters, gradients, AdamW's "
        "moments and the EMA are float32, bf16 is autocast, and gradients are set to None after each step. "
        "Gradients are those there at the peak; activations are the rest of it. Averaging gradients across "
        "GPUs is not included, except where *DDP buckets* says so. Shown are batches that are powers of two; "
        "the others are in the lines."
    )
    if any(case.predicted for case in cases):
        text += (
            " **Predicted** figures add up the sizes of live tensors, and nothing ran: what kernels need "
            "within an operator and what the allocator loses are not in them, and reserved memory is unknown."
        )
    return text


def _gib(value: float | None) -> str:
    return BLANK if value is None else f"{value / GIB:.2f}"


def _peaks(cases: Sequence[Memory]) -> Columns:
    def column(read: Callable[[MemoryUse], int | None]) -> list[str]:
        return [BLANK if case.use is None else _gib(read(case.use)) for case in cases]

    return {
        **_columns_of([_setting(case) for case in cases]),
        "batch": [str(case.run.batch) for case in cases],
        "peak, GiB": [_peak(case.status, case.use) for case in cases],
        "reached in": [case.use.peak_phase if case.use else BLANK for case in cases],
        "parameters": column(lambda use: use.parameters_bytes),
        "gradients": column(lambda use: use.gradients_at_peak_bytes),
        "optimizer": column(lambda use: use.optimizer_bytes),
        "EMA": column(lambda use: use.ema_bytes),
        "activations": column(lambda use: use.activations_bytes),
        "reserved": column(lambda use: use.reserved_bytes),
        "process": column(lambda use: use.process_bytes),
    }


def _peak(status: str, use: MemoryUse | None) -> str:
    return status if use is None else _gib(use.peak_bytes)


def _of_lines() -> str:
    return (
        "Peak of the passes = a + b x batch, by least squares; the residual is the largest distance from "
        "the line. The largest batch is for a GPU's nominal size less "
        f"{memory_fit.RESERVE_BYTES / GIB:g} GiB for the driver and the CUDA context."
    )


def _lines(cases: Sequence[Memory]) -> Columns:
    groups: dict[Setting, list[Memory]] = {}
    for case in cases:
        groups.setdefault(_setting(case), []).append(case)
    found = [(setting, line) for setting, group in groups.items() if (line := memory_fit.fit(group))]
    devices: list[Device] = [memory_fit.device(name) for name in DEVICES]
    return {
        **_columns_of([setting for setting, _ in found]),
        "a, GiB": [_gib(line.fixed_bytes) for _, line in found],
        "b, MiB/image": [f"{line.per_image_bytes / MIB:.1f}" for _, line in found],
        "residual, MiB": [f"{line.residual_bytes / MIB:.1f}" for _, line in found],
        "from batches": [", ".join(map(str, line.batches)) for _, line in found],
        **{
            device.name: [str(line.max_batch(device.usable_bytes)) for _, line in found] for device in devices
        },
    }


def _of_claims(found: Sequence[Verdict]) -> str:
    text = (
        "What the paper says one model was trained on. With several GPUs, *DDP buckets* adds the second "
        "copy of the gradients that DistributedDataParallel keeps unless gradient_as_bucket_view=True."
    )
    for checkpointing in (True, False):
        texts = {verdict.text for verdict in found if verdict.memory.checkpointing == checkpointing}
        where = "With" if checkpointing else "Without"
        if texts == {"fits"}:
            text += f" {where} checkpointing every case fits."
        elif texts == {"does not fit"}:
            text += f" {where} checkpointing none fits."
    return text


def _claims(found: Sequence[Verdict]) -> Columns:
    return {
        "claim": [f"{verdict.claim.model}, {verdict.claim.text}" for verdict in found],
        "precision": [verdict.memory.run.precision for verdict in found],
        "checkpointing": [_checkpointing(verdict.memory) for verdict in found],
        "how": [_setting(verdict.memory)[-1] for verdict in found],
        "peak, GiB": [_peak(verdict.memory.status, verdict.memory.use) for verdict in found],
        "DDP buckets": [_gib(verdict.buckets_bytes) for verdict in found],
        "needed": [_gib(verdict.needed_bytes) for verdict in found],
        "usable": [_gib(verdict.device.usable_bytes) for verdict in found],
        "margin": [_gib(verdict.margin_bytes) for verdict in found],
        "verdict": [verdict.text for verdict in found],
    }
