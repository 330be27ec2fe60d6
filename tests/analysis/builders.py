"""Small records that tests of analyses share, from the examples of every kind."""

from dataclasses import replace
from typing import Any

from bench.records.base import Environment, Size
from bench.records.memory import Memory, MemoryCase, MemoryUse
from bench.records.operators import OperatorCase, OperatorCost, OperatorCosts
from bench.records.scaling import ScalingCase, ScalingVisit
from bench.records.throughput import Throughput, ThroughputCase
from tests.records import examples
from tests.records.examples import PASS

CPU = examples.ENVIRONMENT
META = replace(CPU, device="", device_type="meta")
H200 = replace(CPU, device="NVIDIA H200", device_type="cuda")
SIZED = {name: PASS[name] for name in ("model", "family", "res", "latent_size", "batch")}
USE = replace(examples.USE, passes_peak_bytes=0, passes_peak_phase="backward", parameters_bytes=0)
PART = examples.OPERATORS.parts[0]


def throughput(times_s: tuple[float, ...], environment: Environment = CPU, **fields: Any) -> Throughput:  # noqa: ANN401
    case = ThroughputCase(**{**PASS, "device": environment.device_type, **fields})
    return replace(examples.THROUGHPUT, case=case, environment=environment, times_s=times_s)


def visit(case: ScalingCase, times_s: tuple[float, ...]) -> ScalingVisit:
    return replace(examples.VISIT, case=case, times_s=times_s)


def operators(parts: tuple[OperatorCost, ...] = (PART,), **fields: Any) -> OperatorCosts:  # noqa: ANN401
    case = OperatorCase(**{**SIZED, "device": "meta", "precision": "fp32", "work": "inference", **fields})
    return OperatorCosts(case=case, environment=META, parts=parts)


def memory(use: MemoryUse = USE, environment: Environment = META, **fields: Any) -> Memory:  # noqa: ANN401
    more = {"device": environment.device_type, "precision": "fp32", "work": "training", "limit_bytes": None}
    return Memory(case=MemoryCase(**{**SIZED, **more, **fields}), environment=environment, use=use)


def res_fields(res: Size) -> dict[str, Any]:
    latent = res // 8 if isinstance(res, int) else (res[0] // 8, res[1] // 8)
    return {"res": res, "latent_size": latent}
