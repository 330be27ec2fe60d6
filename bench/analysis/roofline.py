"""The least time a pass can take: kinds of operators, peaks of devices, and the floors that both allow.

A floor is max(FLOPs / peak, bytes / bandwidth) of every operator, summed over a pass; one MAC is two FLOPs.
A peak is dense and belongs to one precision: what nobody says or measured is None, and so is a floor that
would need it. Imports no torch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.records.record import Ceiling, Profiled, Run, Throughput, Work

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
OTHER = "other"  # of a profile: what belongs to no operator of a kind
PROFILES = {"kind": "profile", "module": "profile by module"}  # what a Profiled's run asks, by its names
FORMS = ("eager", "fused")  # the bytes of Part.eager_bytes, or of Part.fused_bytes


def tensors_of(precision: str) -> str:
    """The precision of the tensors: tf32 and torch-default move the bytes of fp32."""
    return precision if precision in ("bf16", "fp16") else "fp32"


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """The most that a device does in a second."""

    device: str
    source: str
    measured: bool  # ceilings seen here, or the maker's figures
    fp32: float | None  # FLOP/s, without tensor cores
    tf32: float | None
    bf16: float | None
    fp16: float | None  # summed in float32, as torch does
    bytes_per_s: float | None  # read and written

    def flops_per_s(self, precision: str, kind: str) -> float | None:
        """Peak for an operator of a kind; under torch-default only convolutions run in TF32."""
        if precision == "torch-default":
            precision = "tf32" if kind in CONVOLUTIONS else "fp32"
        return {"fp32": self.fp32, "tf32": self.tf32, "bf16": self.bf16, "fp16": self.fp16}[precision]


@dataclass(frozen=True, kw_only=True)
class Floor:
    """The least seconds of a pass, and how they come about."""

    compute_s: float  # of the operators whose FLOPs take longer than their bytes
    memory_s: float  # of the others

    @property
    def total_s(self) -> float:
        return self.compute_s + self.memory_s

    @property
    def compute_share(self) -> float:
        return self.compute_s / self.total_s if self.total_s else 0.0


def floor(work: Work, peaks: Peaks, precision: str, form: str) -> Floor | None:
    """The floor of a pass; None where a peak that it needs is not known.

    Args:
        work: of the pass.
        peaks: of the device.
        precision: of the arithmetic: fp32 and tf32 move the same bytes.
        form: eager, where every operator reads and writes, or fused.
    """
    if peaks.bytes_per_s is None:
        return None
    compute = memory = 0.0
    for part in work.parts:
        peak = peaks.flops_per_s(precision, part.kind)
        if part.macs and peak is None:
            return None
        of_flops = 2 * part.macs / peak if part.macs and peak else 0.0
        of_bytes = (part.eager_bytes if form == "eager" else part.fused_bytes) / peaks.bytes_per_s
        if of_flops > of_bytes:
            compute += of_flops
        else:
            memory += of_bytes
    return Floor(compute_s=compute, memory_s=memory)


def intensity(work: Work, form: str) -> float:
    """FLOPs for each byte that the pass moves."""
    return 2 * work.macs / (work.eager_bytes if form == "eager" else work.fused_bytes)


def of_gpu(name: str) -> Peaks:
    """The maker's peaks of a GPU of baselines/gpus.csv, by its name there or a part that says which.

    Raises:
        ValueError: no such GPU, or several.
    """
    from baselines import load

    gpu = load.gpu(name)
    return Peaks(
        device=gpu.gpu,
        source=f"dense peaks as sold (baselines/gpus.csv: {gpu.source})",
        measured=False,
        fp32=_tera(gpu.fp32_tflops),
        tf32=_tera(gpu.tf32_dense_tflops),
        bf16=_tera(gpu.bf16_dense_tflops),
        fp16=_tera(gpu.fp16_dense_fp32acc_tflops),
        bytes_per_s=gpu.mem_bw_gbs * 1e9,
    )


def _tera(value: float | None) -> float | None:
    return None if value is None else value * 1e12


def gpu_named(device: str) -> str | None:
    """The GPU of baselines/gpus.csv that torch's name of a device stands for; None if it may be several.

    "NVIDIA H100 80GB HBM3" is the SXM5 card: the PCIe one has other memory. "NVIDIA H200" is the only one.
    """
    from baselines.load import gpus_fitting

    fitting = gpus_fitting(device)
    return fitting[0].gpu if len(fitting) == 1 else None


def measured_peaks(records: Iterable[object], device: str) -> Peaks | None:
    """The most that was measured of a device; None without a single ceiling of it.

    Of several records the highest counts, not the newest: a shared machine has better hours and worse.
    """
    highest = highest_ceilings(
        record for record in records if isinstance(record, Ceiling) and record.environment.device == device
    )
    if not highest:
        return None
    ceilings = {(one.what, one.precision): one for one in highest}
    copy = ceilings.get(("copy", "fp32"))
    dates = sorted({one.environment.date for one in highest})

    def product(precision: str) -> float | None:
        found = [ceilings.get((what, precision)) for what in ("matmul", "convolution")]
        return max((one.per_s for one in found if one is not None), default=None)

    return Peaks(
        device=device,
        source=f"ceilings measured on it: products and copy, {dates[-1]}",
        measured=True,
        fp32=product("fp32"),
        tf32=product("tf32"),
        bf16=product("bf16"),
        fp16=product("fp16"),
        bytes_per_s=None if copy is None else copy.per_s,
    )


def highest_ceilings(ceilings: Iterable[Ceiling]) -> list[Ceiling]:
    """The highest of every kind and precision on each device."""
    highest: dict[tuple[str, bool, str, str], Ceiling] = {}
    for one in ceilings:
        name = (one.environment.device, one.what == "copy", one.precision, one.what)
        if name not in highest or highest[name].per_s <= one.per_s:
            highest[name] = one
    return [highest[name] for name in sorted(highest)]


def fastest(records: Iterable[object], work: Work, precision: str, device: str) -> Throughput | None:
    """The fastest measurement of the pass that a floor is of, whatever its settings; None without one.

    Args:
        records: of any kind.
        work: of an inference pass; a timed training step holds its loss and update, which a floor does not.
        precision: of the arithmetic.
        device: as torch names it, or a GPU of baselines/gpus.csv, which also stands for torch's name of it.
    """
    if work.work != "inference":
        return None
    found = [
        record
        for record in records
        if isinstance(record, Throughput)
        and record.run.protocol == "suite"
        and _same_pass(record.run, work, precision, device)
    ]
    return min(found, key=lambda record: record.median_s, default=None)


def profile(
    records: Iterable[object], work: Work, precision: str, device: str, by: str = "kind"
) -> Profiled | None:
    """The newest profile of the pass that a floor is of, by kind or module; None for operators.

    The other arguments are those of `fastest`.
    """
    if work.work != "inference" or by not in PROFILES:
        return None
    found = [
        record
        for record in records
        if isinstance(record, Profiled)
        and record.run.question == PROFILES[by]
        and _same_pass(record.run, work, precision, device)
    ]
    return max(found, key=lambda record: record.run.environment.date, default=None)


def _same_pass(run: Run, work: Work, precision: str, device: str) -> bool:
    return (
        (run.model, run.res, run.batch, run.work) == (work.model, work.res, work.batch, work.work)
        and run.precision == precision
        and device in (run.environment.device, gpu_named(run.environment.device))
    )


def by_kind(work: Work, value: str) -> dict[str, int]:
    """Sums of a field of the parts by kind: of calls, macs, eager_bytes or fused_bytes."""
    sums = dict.fromkeys(KINDS, 0)
    for part in work.parts:
        sums[part.kind] += getattr(part, value)
    return sums


def needed(precisions: Sequence[str]) -> list[str]:
    """The peaks that floors at these precisions need, each once."""
    both = {"torch-default": ("fp32", "tf32")}
    return list(dict.fromkeys(key for precision in precisions for key in both.get(precision, (precision,))))


def unknown(peaks: Peaks, precisions: Sequence[str]) -> list[str]:
    """What nobody says of a device among what floors at these precisions need."""
    lacking = [key for key in needed(precisions) if peaks.flops_per_s(key, "linear") is None]
    return [*lacking, *(["bandwidth"] if peaks.bytes_per_s is None else [])]
