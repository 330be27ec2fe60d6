"""The report's section on memory."""

from collections.abc import Iterator, Sequence

from bench.analysis.memory import memory_claims, memory_fit, memory_ratios
from bench.analysis.memory.memory_claims import Verdict
from bench.analysis.memory.memory_fit import BatchLimit
from bench.analysis.memory.memory_ratios import MeasuredPeak
from bench.records.base import Record, size_text
from bench.records.memory import TABLE, Memory, MemoryCase
from bench.tables.render import render
from reports.naming import order
from reports.sections import Part, of_parts
from reports.selection import grouped

PLACE = "memory.md", 1
DEVICES = ("RTX 4090", "A100 PCIe 40GB", "A100 SXM4 80GB", "H200 SXM5 141GB")  # for the largest batch
LINES = (
    "Peak of the passes = a + b x batch, by least squares. The largest batch is for a GPU's nominal "
    f"size minus {memory_fit.RESERVE_BYTES / memory_fit.GIB:g} GiB for the driver and the CUDA context."
)

Setting = tuple[str, str, str, str, bool, str]  # model, work, res, precision, checkpointing, device


@of_parts
def section(records: Sequence[Record]) -> Iterator[Part]:
    """Write the section; empty without memory records. They may be in any order; the newest counts."""
    cases = newest(records)
    if not cases:
        return
    measured = memory_ratios.measured_peaks(cases)
    measured.sort(key=lambda peak: (peak.device, order(peak.case.model)))
    compared = [peak for peak in measured if peak.predicted or peak.case.device == "cpu"]
    shown = [
        record
        for record in cases
        if not (isinstance(record, Memory) and record.case.device == "cpu")
        and (case := _case(record)).limit_bytes is None
        and case.batch.bit_count() == 1
    ]
    yield from ("## Memory", _reading(cases), memory_ratios.errors_text(measured))
    if shown:
        yield from ("### Peak memory, GiB", render(TABLE, shown, "md").strip())
    if compared:
        yield from (f"### {memory_ratios.TABLE.title}", _ratios_reading(compared))
        yield render(memory_ratios.TABLE, compared, "md").strip()
    if lines := _lines([record for record in cases if _case(record).device != "cpu"]):
        table = memory_fit.limits_by_device([memory_fit.device(name) for name in DEVICES])
        yield from ("### Largest batch", LINES, render(table, lines, "md").strip())
    if verdicts := memory_claims.verdicts(cases):
        yield from (f"### {memory_claims.CLAIMS_TABLE.title}", _claims_reading(verdicts))
        yield render(memory_claims.CLAIMS_TABLE, verdicts, "md").strip()


def newest(records: Sequence[Record]) -> list[Record]:
    """The newest record of every memory case, measured or skipped, sorted by setting."""
    of_memory = [record for record in records if isinstance(record.case, MemoryCase)]
    by_case = {
        (*_setting(record), _case(record).batch, _case(record).limit_bytes or 0): record
        for record in sorted(of_memory, key=lambda record: record.environment.date)
    }
    return [by_case[case] for case in sorted(by_case, key=lambda case: (order(case[0]), *case))]


def _case(record: Record) -> MemoryCase:
    assert isinstance(record.case, MemoryCase)
    return record.case


def _setting(record: Record) -> Setting:
    case = _case(record)
    res, device = size_text(case.res), "" if case.is_predicted else record.environment.device
    return (case.model, case.work, res, case.precision, case.checkpointing, device)


def _reading(cases: Sequence[Record]) -> str:
    text = (
        "GiB are 2^30 bytes. Inference is one denoising pass with weights in the named precision. Training "
        "is forward, backward, AdamW and an average of the weights (EMA): parameters, gradients, AdamW's "
        "moments and the EMA are float32, bf16 is autocast, and gradients are set to None after each step. "
        "Gradients are those that exist at the peak; activations are the rest of the peak. Averaging "
        "gradients across GPUs is not included, except where *DDP buckets* says so. The first table shows "
        "batches that are powers of two, without peaks measured on a CPU; the lines use all batches."
    )
    if any(_case(case).is_predicted for case in cases):
        text += (
            " **Predicted** figures are sums of the sizes of live tensors; nothing ran. They exclude what "
            "kernels need within an operator and what the allocator loses; reserved memory is unknown."
        )
    return text


def _ratios_reading(compared: Sequence[MeasuredPeak]) -> str:
    text = (
        "Every measured peak, with the prediction of the same case. *Of the passes alone* is the ratio "
        "without parameters, moments and EMA, which a prediction knows exactly."
    )
    if any(peak.case.device == "cpu" for peak in compared):
        text += (
            " On a CPU the peak is that of torch's allocator, with temporaries within operators; a "
            "prediction is for a GPU in the same precision. *Process* is the peak resident memory of the "
            "process, with Python and torch."
        )
    return text


def _lines(cases: Sequence[Record]) -> list[BatchLimit]:
    return [
        BatchLimit(case=_case(group[0]), records=tuple(group), fit=fit)
        for group in grouped(cases, _setting).values()
        if (fit := memory_fit.fit(group))
    ]


def _claims_reading(verdicts: Sequence[Verdict]) -> str:
    text = (
        "The GPUs that the paper states for training one model. With several GPUs, *DDP buckets* adds the "
        "second copy of the gradients that DistributedDataParallel keeps unless gradient_as_bucket_view=True."
    )
    for checkpointing in (True, False):
        texts = {verdict.text for verdict in verdicts if verdict.case.checkpointing == checkpointing}
        setting = "With" if checkpointing else "Without"
        if len(texts) == 1:
            text += f" {setting} checkpointing every case {min(texts)}."
    return f"{text} *Probably*: predicted, with the errors at the head of this section."
