"""Floors: the minimum time of a pass on a device, from its operators and the peaks of the device.

A floor is max(FLOPs / peak, bytes / bandwidth) of every operator, summed over a pass; one MAC is two FLOPs.
It holds for direct algorithms at the stated clocks. A peak is dense and belongs to one precision. An unknown
peak is None, and so is every floor that needs it. Imports no torch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from baselines import gpus
from bench.analysis.speed.speed_ratios import InterleavedPasses
from bench.records.base import Environment, ModelCase
from bench.records.ceiling import Ceiling
from bench.records.comparison import Comparison
from bench.records.operators import OperatorCosts
from bench.records.profile import Profile
from bench.records.throughput import TimedPasses
from bench.tables.numbers import significant

KINDS = (
    "depthwise",
    "pointwise",
    "convolution",
    "linear",
    "attention",
    "scan",
    "norm",
    "elementwise",
    "movement",
)
CONVOLUTIONS = KINDS[:3]
FORMS = ("eager", "fused")  # the bytes of OperatorCost.eager_bytes, or of OperatorCost.fused_bytes


def tensors_of(precision: str) -> str:
    """The precision of the tensors: tf32 and torch-default move the bytes of fp32."""
    return precision if precision in ("bf16", "fp16") else "fp32"


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """Peak FLOP/s of a device in each precision, and its peak bytes/s."""

    device: str
    source: str
    measured: bool  # ceilings measured on the device; otherwise the maker's figures
    fp32: float | None = None  # FLOP/s, without tensor cores
    tf32: float | None = None
    bf16: float | None = None
    fp16: float | None = None  # summed in float32, as torch does
    bytes_per_s: float | None = None  # read and written
    ceilings: tuple[Ceiling, ...] = ()  # records of the measured peaks

    @property
    def origin(self) -> str:
        """In words: measured, or as sold."""
        return "measured" if self.measured else "as sold"

    def flops_per_s(self, precision: str, kind: str) -> float | None:
        """Peak for an operator of a kind; under torch-default only convolutions run in TF32."""
        if precision == "torch-default":
            precision = "tf32" if kind in CONVOLUTIONS else "fp32"
        return {"fp32": self.fp32, "tf32": self.tf32, "bf16": self.bf16, "fp16": self.fp16}[precision]


@dataclass(frozen=True, kw_only=True)
class Floor:
    """The minimum seconds of a pass."""

    compute_s: float  # of operators whose FLOPs take longer than their bytes
    memory_s: float  # of the other operators

    @property
    def total_s(self) -> float:
        return self.compute_s + self.memory_s

    @property
    def compute_share(self) -> float:
        return self.compute_s / self.total_s if self.total_s else 0.0


NO_PEAKS = Peaks(device="", source="", measured=False)  # of an unknown device: counts without floors


def floor(costs: OperatorCosts, peaks: Peaks, precision: str, form: str) -> Floor | None:
    """The floor of a pass; None if it needs an unknown peak. fp32 and tf32 move the same bytes.

    In the form eager every kernel reads its inputs and writes its outputs; the other form is fused.
    """
    if peaks.bytes_per_s is None:
        return None
    compute = memory = 0.0
    peak_of = {kind: peaks.flops_per_s(precision, kind) for kind in {part.kind for part in costs.parts}}
    for part in costs.parts:
        peak = peak_of[part.kind]
        if part.macs and peak is None:
            return None
        flops_s = 2 * part.macs / peak if part.macs and peak else 0.0
        bytes_s = (part.eager_bytes if form == "eager" else part.fused_bytes) / peaks.bytes_per_s
        if flops_s > bytes_s:
            compute += flops_s
        else:
            memory += bytes_s
    return Floor(compute_s=compute, memory_s=memory)


def of_gpu(name: str) -> Peaks:
    """The maker's peaks of a GPU by an unambiguous part of its name. ValueError: no such GPU, or several."""
    gpu = gpus.gpu(name)
    return Peaks(
        device=gpu.gpu,
        source=f"dense peaks as sold (baselines/gpus.csv: {gpu.source.partition(' ; ')[0]})",
        measured=False,
        fp32=_tera(gpu.fp32_tflops),
        tf32=_tera(gpu.tf32_dense_tflops),
        bf16=_tera(gpu.bf16_dense_tflops),
        fp16=_tera(gpu.fp16_dense_fp32acc_tflops),
        bytes_per_s=gpu.mem_bw_gbs * 1e9,
    )


def _tera(value: float | None) -> float | None:
    return None if value is None else value * 1e12


@cache
def gpu_named(device: str) -> str | None:
    """The GPU of baselines/gpus.csv that torch's device name identifies; None if ambiguous.

    "NVIDIA H100 80GB HBM3" is the SXM5 module: the PCIe card has other memory. "NVIDIA H200" is unique.
    """
    fitting = gpus.gpus_fitting(device)
    return fitting[0].gpu if len(fitting) == 1 else None


def measured_peaks(records: Iterable[object], device: str) -> Peaks | None:
    """The highest ceilings of a device, as other users of a shared machine lower them; None without any."""
    highest = highest_ceilings(
        record for record in records if isinstance(record, Ceiling) and record.environment.device == device
    )
    if not highest:
        return None
    ceilings = {(one.case.what, one.case.precision): one for one in highest}
    copy = ceilings.get(("copy", "fp32"))
    newest = max(one.environment.date for one in highest)

    def product(precision: str) -> float | None:
        """The faster of the two products."""
        found = [ceilings.get((what, precision)) for what in ("matmul", "convolution")]
        return max((one.per_s for one in found if one is not None), default=None)

    return Peaks(
        device=device,
        source=f"ceilings measured on it: products and copy, {newest}",
        measured=True,
        fp32=product("fp32"),
        tf32=product("tf32"),
        bf16=product("bf16"),
        fp16=product("fp16"),
        bytes_per_s=None if copy is None else copy.per_s,
        ceilings=tuple(highest),
    )


def highest_ceilings(ceilings: Iterable[Ceiling]) -> list[Ceiling]:
    """The highest ceiling of every kind and precision on each device."""
    highest: dict[tuple[str, bool, str, str], Ceiling] = {}
    for one in ceilings:
        what, precision = one.case.what, one.case.precision
        name = (one.environment.device, what == "copy", precision, what)
        if name not in highest or highest[name].per_s <= one.per_s:
            highest[name] = one
    return [highest[name] for name in sorted(highest)]


TimedPass = TimedPasses | InterleavedPasses


def inference_passes(records: Iterable[object]) -> list[TimedPass]:
    """The timed inference passes of models, alone or in comparisons."""
    found: list[TimedPass] = []
    for record in records:
        if isinstance(record, TimedPasses):
            if (record.case.work, record.case.protocol) == ("inference", "suite"):
                found.append(record)
        elif isinstance(record, Comparison):
            found += [InterleavedPasses(runs=(record,), arm=arm) for arm in range(len(record.arm_cases))]
    return found


def fastest(
    passes: Iterable[TimedPass], costs: OperatorCosts, precision: str, device: str
) -> TimedPass | None:
    """The fastest of inference passes on a device under any other settings; None without one.

    `device` is torch's name, or a GPU of baselines/gpus.csv, which also matches torch's name of it.
    """
    if costs.case.work != "inference":
        return None
    same = [one for one in passes if _is_same_pass(one.case, one.environment, costs, precision, device)]
    return min(same, key=lambda one: one.median_s, default=None)


def profile(
    records: Iterable[object], costs: OperatorCosts, precision: str, device: str, by: str = "kind"
) -> Profile | None:
    """The newest profile of an inference pass by kind or module, with arguments as `fastest`; or None."""
    if costs.case.work != "inference":
        return None
    found = [
        record
        for record in records
        if isinstance(record, Profile)
        and record.case.by == by
        and _is_same_pass(record.case, record.environment, costs, precision, device)
    ]
    return max(found, key=lambda record: record.environment.date, default=None)


def _is_same_pass(
    case: ModelCase, environment: Environment, costs: OperatorCosts, precision: str, device: str
) -> bool:
    wanted, measured_on = costs.case, environment.device
    return (
        (case.model, case.res, case.batch, case.precision)
        == (wanted.model, wanted.res, wanted.batch, precision)
    ) and device in (measured_on, gpu_named(measured_on))


def needed(precisions: Sequence[str]) -> list[str]:
    """The precisions whose peaks the floors at these precisions need, without duplicates."""
    both = {"torch-default": ("fp32", "tf32")}
    return list(dict.fromkeys(key for precision in precisions for key in both.get(precision, (precision,))))


def unknown(peaks: Peaks, precisions: Sequence[str]) -> list[str]:
    """The unknown peaks of a device that floors at these precisions need."""
    lacking = [key for key in needed(precisions) if peaks.flops_per_s(key, "linear") is None]
    return [*lacking, *(["bandwidth"] if peaks.bytes_per_s is None else [])]


def describe(peaks: Peaks, precisions: Sequence[str]) -> str:
    """The peaks of a device that floors at these precisions need, in words, with their source."""
    rates = [
        f"{key} {significant(rate / 1e12)} TFLOP/s"
        for key in needed(precisions)
        if (rate := peaks.flops_per_s(key, "linear")) is not None
    ]
    if peaks.bytes_per_s is not None:
        rates.append(f"{significant(peaks.bytes_per_s / 1e9)} GB/s")
    lacking = unknown(peaks, precisions)
    blank = f"; not known, and its floors blank: {', '.join(lacking)}" if lacking else ""
    return f"{peaks.device}: {', '.join(rates)}{blank}; {peaks.source}"
