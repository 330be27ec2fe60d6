"""Peaks of GPUs from their makers' data sheets, by name."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from baselines._files import rows, unknown


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """Peaks of one GPU; None if the source gives none. Tensor rates are dense, without sparsity."""

    gpu: str
    compute_capability: str  # or the architecture of a GPU that is not NVIDIA's
    sms: int  # streaming multiprocessors, or compute units
    boost_mhz: float | None
    fp32_tflops: float | None
    tf32_dense_tflops: float | None
    bf16_dense_tflops: float | None
    fp16_dense_fp32acc_tflops: float | None
    fp16_dense_fp16acc_tflops: float | None
    fp8_dense_tflops: float | None
    mem_gb: float
    mem_type: str
    mem_bw_gbs: float
    l2_mb: float | None
    tdp_w: float
    source: str
    note: str


def gpus() -> dict[str, Gpu]:
    return {entry["gpu"]: Gpu(**_typed(entry)) for entry in rows("gpus.csv")}


def gpus_fitting(text: str) -> list[Gpu]:
    """Every GPU whose name and memory type contain all words of a text such as "a100-80", "NVIDIA H200"."""
    words = _words(text) - Counter(("nvidia", "geforce", "amd", "instinct"))
    return [gpu for gpu in gpus().values() if words and words <= _words(f"{gpu.gpu} {gpu.mem_type}")]


def gpu(text: str) -> Gpu:
    """Read the GPU that a text identifies. Of a matching PCIe card and SXM module, the module is taken.

    ValueError: no GPU matches (with the nearest names), or several match.
    """
    fitting = gpus_fitting(text)
    if len(fitting) > 1:
        fitting = [one for one in fitting if "PCIe" not in one.gpu] or fitting
    if len(fitting) > 1:
        names = " or ".join(one.gpu for one in fitting)
        raise ValueError(f"{text}: may be several GPUs: {names}; say which")
    if not fitting:
        begun = [name for name in gpus() if text and text.lower() in name.lower()]
        raise unknown("GPU", text, gpus(), begun)
    return fitting[0]


def _words(text: str) -> Counter[str]:
    """Split a text into runs of letters and runs of digits: a, 100, sxm, 4, 80, gb."""
    return Counter(re.findall(r"[a-z]+|\d+", text.lower()))


def _typed(entry: Mapping[str, str]) -> dict[str, Any]:
    """Convert a row of gpus.csv to the types of the fields of Gpu."""
    texts = {field.name for field in fields(Gpu) if field.type is str}
    typed: dict[str, Any] = {
        name: text if name in texts else float(text) if text else None for name, text in entry.items()
    }
    return typed | {"sms": int(entry["sms"])}
