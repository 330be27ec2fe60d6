"""Small records that tests of analyses share, from the examples of every kind."""

import random
from dataclasses import replace
from typing import Any

from bench.records.base import Environment, ModelCase, Size
from bench.records.comparison import Comparison, ComparisonCase
from bench.records.memory import Memory, MemoryCase, MemoryUse
from bench.records.operators import OperatorCase, OperatorCost, OperatorCosts
from bench.records.scaling import ScalingCase, ScalingVisit
from bench.records.throughput import Throughput, ThroughputCase
from reports.naming import family
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


def compared(
    speeds: dict[str, float],
    environment: Environment = CPU,
    *,
    processes: int = 3,
    spread: float = 0.0,
    arms: tuple[str, ...] = ("reference eager",),
    **fields: Any,  # noqa: ANN401
) -> Comparison:
    """One round of interleaved models in each process.

    Args:
        speeds: by "MODEL", and by "MODEL fast eager" for another arm.
        spread: standard deviation between processes, as a share of a time.
        arms: implementations and engines with which every model takes part.
    """
    names = [(name, arm) for name in speeds if " " not in name for arm in arms]
    cases = tuple(
        ModelCase(
            **{
                **{**examples.MODEL, **fields, "model": name, "family": family(name)},
                **dict(zip(("impl", "engine"), arm.split(), strict=True)),
            }
        )
        for name, arm in names
    )
    draw = random.Random(repr([(name, arm.split()[0]) for name, arm in names]))
    rates = [speeds[name if arm == "reference eager" else f"{name} {arm}"] for name, arm in names]
    seconds = [[(1 + draw.gauss(0, spread)) / rate for rate in rates] for _ in range(processes)]
    order = [*range(len(cases)), *reversed(range(len(cases)))]
    return replace(
        examples.COMPARISON,
        case=ComparisonCase(
            device=environment.device_type,
            arms=cases,
            budget_s=60.0,
            precision_target=0.01,
            processes=processes,
        ),
        environment=environment,
        order=tuple(order * processes),
        visits_s=tuple(of[arm] for of in seconds for arm in order),
        process_starts=tuple(range(1, processes)),
        calls=(1,) * len(cases),
        warmup_times_s=((0.1,),) * len(cases),
        warmup_stationary=(True,) * len(cases),
        build_s=(1.0,) * len(cases),
        compile_s=(None,) * len(cases),
    )
