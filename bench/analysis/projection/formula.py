"""The formula of a prediction: seconds of a pass from its work and shares of a device's peaks.

    seconds = sum over operators of max(FLOPs / (peak x u), bytes / (bandwidth x v)), u and v by kind;
    on a GPU the maximum of that and kernels x launch; on a CPU their sum

u and v are shares of the peak arithmetic and bandwidth, between 0 and 1. They are transferred between devices
of one type. No prediction is faster than the floor.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bench.analysis.rooflines import roofline
from bench.analysis.rooflines.roofline import Peaks
from bench.records.memory import MemoryUse
from bench.records.operators import OperatorCost, OperatorCosts

Array = NDArray[np.float64]

PRODUCTS = ("depthwise", "pointwise", "convolution", "linear", "attention", "scan")
VECTOR = frozenset({"depthwise", "scan"})  # torch's kernels for these use no tensor cores in any precision
FP32, PRODUCT_BYTES, REST_BYTES, LAUNCH = range(len(PRODUCTS), len(PRODUCTS) + 4)  # after the u of products


@dataclass(frozen=True, eq=False)
class PassLoad:
    """The operators of a pass on one device, with the seconds of each at full peak and bandwidth."""

    product: NDArray[np.intp]  # index of the kind's u
    fp32: Array  # 1 where tensor cores could do the arithmetic but fp32 units do
    flops_s: Array
    bytes_s: Array
    bandwidth: NDArray[np.intp]  # index of the bytes' v
    calls: int
    sequential: bool  # a kernel starts after the previous one has finished


def pass_load(work: OperatorCosts, peaks: Peaks, precision: str, device_type: str) -> PassLoad:
    assert peaks.bytes_per_s is not None
    product, fp32, flops, moved, bandwidth = [], [], [], [], []
    for part in work.parts:
        vector = part.kind in VECTOR
        peak = peaks.fp32 if vector else peaks.flops_per_s(precision, part.kind)
        assert peak is not None
        product.append(PRODUCTS.index(part.kind) if part.kind in PRODUCTS else 0)
        # also TF32 where it is no faster than fp32, as on a GeForce: the same offset of u applies
        fp32.append(0.0 if vector else float(peak == peaks.fp32))
        flops.append(2 * part.macs / peak)
        moved.append(part.eager_bytes / peaks.bytes_per_s)
        bandwidth.append(PRODUCT_BYTES if part.kind in PRODUCTS else REST_BYTES)
    return PassLoad(
        product=np.array(product, dtype=np.intp),
        fp32=np.array(fp32),
        flops_s=np.array(flops),
        bytes_s=np.array(moved),
        bandwidth=np.array(bandwidth, dtype=np.intp),
        calls=sum(part.calls for part in work.parts),
        sequential=device_type == "cpu",
    )


def _share(logit: Array) -> Array:
    return 1 / (1 + np.exp(-logit))


def seconds_and_gradient(load: PassLoad, x: Array) -> tuple[float, Array]:
    """The seconds of a pass, and the derivatives of their logarithm."""
    n = len(x)
    u, v = _share(x[load.product] + x[FP32] * load.fp32), _share(x[load.bandwidth])
    flops_s, bytes_s = load.flops_s / u, load.bytes_s / v
    by_flops = flops_s > bytes_s
    # d(1 / share) / d(logit) = -(1 - share) / share
    by_u, by_v = np.where(by_flops, -flops_s * (1 - u), 0.0), np.where(by_flops, 0.0, -bytes_s * (1 - v))
    gradient = np.bincount(load.product, by_u, n) + np.bincount(load.bandwidth, by_v, n)
    gradient[FP32] = by_u @ load.fp32
    device = float(np.maximum(flops_s, bytes_s).sum())
    launches = load.calls * math.exp(x[LAUNCH])
    if not load.sequential and launches > device:
        return launches, np.eye(n)[LAUNCH]
    seconds = device
    if load.sequential:
        seconds += launches
        gradient[LAUNCH] = launches
    return seconds, gradient / seconds


def why_not(peaks: Peaks, precisions: Sequence[str]) -> str | None:
    """The missing peak that rules out a prediction, or None. Depthwise products and scans need fp32's."""
    lacking = roofline.unknown(peaks, [*precisions, "fp32"])
    return f"its {' or '.join(lacking)} peak is unknown" if lacking else None


def with_update(work: OperatorCosts, use: MemoryUse) -> OperatorCosts:
    """Costs of a training step: forward and backward pass plus the bytes of AdamW and the EMA.

    AdamW reads parameter, gradient and two moments and writes all but the gradient; the EMA reads two tensors
    and writes one. Everything is float32.
    """
    moved = 7 * use.gradients_bytes + 3 * use.ema_bytes
    update = OperatorCost(
        kind="elementwise", op="AdamW and EMA", module="", phase="update",
        calls=0, macs=0, eager_bytes=moved, fused_bytes=moved,
    )  # fmt: skip
    return replace(work, parts=(*work.parts, update))


def with_recomputation(work: OperatorCosts) -> OperatorCosts:
    """Costs of a training step that computes every block once more in the backward pass.

    Raises:
        ValueError: no part is of a list of blocks.
    """
    again = tuple(
        replace(part, phase="recomputation")
        for part in work.parts
        if part.phase == "forward" and "*" in part.module
    )
    if not again:
        raise ValueError(f"{work.case.model}: no operators of a list of blocks, so none to recompute")
    return replace(work, parts=(*work.parts, *again))
