"""Small records that tests of analyses share."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from bench.records.base import Environment, Size
from bench.records.memory import Memory, MemoryCase, MemoryUse
from bench.records.operators import OperatorCase, OperatorCost, OperatorCosts
from bench.records.scaling import ScalingCase, ScalingVisit
from bench.records.throughput import Throughput, ThroughputCase

CPU = Environment(
    device="a device", device_type="cpu", unit="", driver="", cuda="", torch="2.13.0", python="3.11.7",
    platform="Linux x86_64", threads=2, commit="abc", code="0123", date="2026-11-21T00:00:00Z",
)  # fmt: skip
META = replace(CPU, device="", device_type="meta")
H200 = replace(CPU, device="NVIDIA H200", device_type="cuda")

SIZED: dict[str, Any] = {"model": "FCDM-S", "family": "FCDM", "res": 256, "latent_size": 32, "batch": 4}
PASS: dict[str, Any] = {
    **SIZED, "device": "cpu", "precision": "fp32", "work": "inference", "budget_s": 30.0,
    "precision_target": 0.01,
}  # fmt: skip
_TIMES: dict[str, Any] = {
    "device_times_s": (), "warmup_times_s": (0.9,), "warmup_stationary": True, "stopped_by": "budget",
    "unmet": (), "build_s": 1.0, "compile_s": None, "matmul_tf32": False, "conv_tf32": False,
    "sustained_times_s": (), "telemetry": None,
}  # fmt: skip
USE = MemoryUse(
    passes_peak_bytes=0, passes_peak_phase="backward", passes_gradients_bytes=0, update_peak_bytes=None,
    parameters_bytes=0, gradients_bytes=0, optimizer_bytes=0, ema_bytes=0, reserved_bytes=None,
    process_bytes=None,
)  # fmt: skip
PART = OperatorCost(
    kind="depthwise", op="convolution", module="encoder.*.depthwise", phase="forward", calls=2, macs=98,
    eager_bytes=40, fused_bytes=20,
)  # fmt: skip


def throughput(times_s: tuple[float, ...], environment: Environment = CPU, **fields: Any) -> Throughput:  # noqa: ANN401
    case = ThroughputCase(**{**PASS, "device": environment.device_type, **fields})
    return Throughput(case=case, environment=environment, times_s=times_s, **_TIMES)


def visit(case: ScalingCase, times_s: tuple[float, ...], environment: Environment = CPU) -> ScalingVisit:
    return ScalingVisit(case=case, environment=environment, times_s=times_s, **_TIMES)


def operators(parts: tuple[OperatorCost, ...] = (PART,), **fields: Any) -> OperatorCosts:  # noqa: ANN401
    case = OperatorCase(**{**SIZED, "device": "meta", "precision": "fp32", "work": "inference", **fields})
    return OperatorCosts(case=case, environment=META, parts=parts)


def memory(use: MemoryUse = USE, environment: Environment = META, **fields: Any) -> Memory:  # noqa: ANN401
    more = {"device": environment.device_type, "precision": "fp32", "work": "training", "limit_bytes": None}
    return Memory(case=MemoryCase(**{**SIZED, **more, **fields}), environment=environment, use=use)


def res_fields(res: Size) -> dict[str, Any]:
    latent = res // 8 if isinstance(res, int) else (res[0] // 8, res[1] // 8)
    return {"res": res, "latent_size": latent}


def run(main: Callable[[Sequence[str]], int], *args: str) -> int:
    """Run a command in this process; argparse leaves through SystemExit."""
    try:
        return main(args)
    except SystemExit as end:
        return int(end.code or 0)
