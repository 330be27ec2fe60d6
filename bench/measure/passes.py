"""Timing of passes or training steps in this process, for one model or several in turn."""

import math
from collections.abc import Mapping, Set
from contextlib import ExitStack
from dataclasses import replace
from statistics import median

from bench.machine import device, telemetry
from bench.machine.failures import (
    RAISED,
    NoWorkError,
    status_and_reason,
)
from bench.measure import interleaved, timing
from bench.measure.prepared.engine import compiled_already
from bench.measure.prepared.preflight import Allowance
from bench.measure.prepared.prepared import PreparedModel, prepare, prepare_training
from bench.measure.timing import Policy, Samples, WarmUp
from bench.records.base import Environment, Record, Skipped
from bench.records.comparison import ArmFailure, Comparison, ComparisonCase
from bench.records.registry import RECORDS
from bench.records.throughput import PassCase, TimedPasses
from models.guard import remember

LATENCY_SAMPLES = 100  # for a 99th percentile
DICO_PASSES = 20  # of the warm-up, and of the timed part
MIN_PASSES = 3  # the first call, one warm-up pass, one sample
MIN_COMPARED_PASSES = 4  # of each arm: the first call, one warm-up pass, two visits of a round


def measure(case: PassCase, environment: Environment, *, weights: str | None) -> Record:
    """Time one case in this process, one of the case's; `weights` is the path of a checkpoint.

    A failure is an error of `bench.machine.failures`: memory ran out, the output was not finite, torch
    recompiled during timing, the device lacks the chosen kernel, or the budget is far too short.
    """
    monitor = telemetry.monitor(case.device)
    if monitor and case.soak_s:  # without a soak the window is too short for the energy counter
        monitor.measure_idle()
    is_dico = case.protocol == "dico"
    allowance = Allowance(
        budget_s=case.process_budget_s, passes=1 + 2 * DICO_PASSES if is_dico else MIN_PASSES
    )
    if case.work == "training":
        ready = prepare_training(case, weights, allowance=allowance)
    else:
        ready = prepare(case, weights, one_condition=is_dico, allowance=allowance)
    with ready as model, compiled_already(case):
        return _dico(case, environment, model) if is_dico else _suite(case, environment, model, monitor)


def _suite(
    case: PassCase, environment: Environment, model: PreparedModel, monitor: telemetry.Monitor | None
) -> Record:
    """Warm up and sample; with a soak, soak the device and sample again."""
    policy = Policy(
        budget_s=case.process_budget_s,
        precision=case.precision_target,
        min_samples=LATENCY_SAMPLES if case.batch == 1 else Policy.min_samples,
    )
    clock = timing.CLOCK
    begin = clock()
    warm = timing.warm_up(model.call, policy, clock=clock, synchronise=model.synchronise)

    def between() -> None:
        model.keep()
        if monitor:
            monitor.between_passes()

    if monitor:
        monitor.restart()
    samples = timing.sample(
        model.call,
        policy,
        spent_s=clock() - begin,
        clock=clock,
        synchronise=model.synchronise,
        device_timer=device.cuda_timer if case.device == "cuda" else None,
        between=between,
    )
    sustained: tuple[float, ...] = ()
    if case.soak_s:
        timing.soak(model.call, case.soak_s, clock=clock, synchronise=model.synchronise, between=between)
        after = timing.sample(
            model.call, policy, spent_s=0.0, clock=clock, synchronise=model.synchronise, between=between
        )
        sustained = after.wall_s
    model.verify(median(samples.wall_s))
    record = _record(case, environment, model, warm, samples)
    return replace(record, sustained_times_s=sustained, telemetry=monitor.finish() if monitor else None)


def _record(
    case: PassCase, environment: Environment, model: PreparedModel, warm: WarmUp, samples: Samples
) -> TimedPasses:
    record = RECORDS[case.kind]
    assert issubclass(record, TimedPasses)
    return record(
        case=case,
        environment=environment,
        times_s=samples.wall_s,
        device_times_s=samples.device_s,
        warmup_times_s=warm.wall_s,
        warmup_stationary=warm.stationary,
        stopped_by=samples.stopped_by,
        unmet=samples.unmet,
        build_s=model.loaded.build_s,
        compile_s=model.compile_s,
        matmul_tf32=model.loaded.matmul_tf32,
        conv_tf32=model.loaded.conv_tf32,
        sustained_times_s=(),
        telemetry=None,
    )


def _dico(case: PassCase, environment: Environment, model: PreparedModel) -> Record:
    """Repeat the released timing protocol of DiCo, including its faults.

    Twenty warm-up passes, then twenty passes timed together by the wall clock without synchronisation: work
    still running on the device is not in the time. t and y have a batch of one.
    """
    begin = timing.CLOCK()
    for _ in range(DICO_PASSES):
        model.call()
    warm = timing.CLOCK() - begin
    begin = timing.CLOCK()
    for _ in range(DICO_PASSES):
        model.call()
    seconds = timing.CLOCK() - begin
    model.synchronise()
    model.keep()
    model.verify(math.inf)  # the protocol's times are short by design
    samples = Samples(
        wall_s=(seconds / DICO_PASSES,),
        device_s=(),
        stopped_by=f"protocol: mean of {DICO_PASSES} passes, clock stopped without synchronising",
        unmet=(),
    )
    warm_up = WarmUp(wall_s=(warm / DICO_PASSES,), stationary=False)
    return _record(case, environment, model, warm_up, samples)


def compare(
    case: ComparisonCase,
    environment: Environment,
    *,
    calls: tuple[int, ...] | None = None,
    failures: tuple[ArmFailure, ...] = (),
    reverse: bool = False,
) -> Comparison | Skipped:
    """Compare models in this process, one of the case's, with all of them in memory.

    In the first process a model that cannot be prepared leaves the others to be compared. Skipped with fewer
    than two, or if one fails in a later process. Errors are those of `measure`.

    Args:
        calls: in a visit of each model, as in an earlier process; None: chosen from the warm-up.
        failures: models that the earlier process could not prepare, which are left out.
        reverse: prepare the last model first.
    """
    with ExitStack() as stack:
        models, new = _prepared(stack, case, {failure.number for failure in failures}, reverse)
        if new and (calls is not None or len(models) < 2):
            reasons = [f"{case.arms[failure.number].arm}: {failure.reason}" for failure in new]
            return Skipped(
                case=case, environment=environment, status=new[0].status, reason="; ".join(reasons)
            )
        return _compared(case, environment, models, (*failures, *new), calls)


def _prepared(
    stack: ExitStack, case: ComparisonCase, left_out: Set[int], reverse: bool
) -> tuple[dict[int, PreparedModel], list[ArmFailure]]:
    """The models by number, compiled and called once, and those that failed; ends with too few left."""
    models: dict[int, PreparedModel] = {}
    failures: list[ArmFailure] = []
    numbers = [number for number in range(len(case.arms)) if number not in left_out]
    allowance = Allowance(budget_s=case.process_budget_s / len(case.arms), passes=MIN_COMPARED_PASSES)
    for number in numbers[::-1] if reverse else numbers:
        try:
            models[number] = stack.enter_context(prepare(case.arms[number], None, allowance=allowance))
        except RAISED as error:
            status, reason = status_and_reason(error)
            failures.append(ArmFailure(number=number, status=status, reason=reason))
            if len(numbers) - len(failures) < 2:
                break
    return dict(sorted(models.items())), failures


def _compared(
    case: ComparisonCase,
    environment: Environment,
    prepared_models: Mapping[int, PreparedModel],
    failures: tuple[ArmFailure, ...],
    calls: tuple[int, ...] | None,
) -> Comparison:
    arms, models = [case.arms[number] for number in prepared_models], [*prepared_models.values()]
    monitor = telemetry.monitor(case.device)
    settle = remember()  # an arm's own code may change the threads of all
    with compiled_already(*arms):
        compared = interleaved.compare(
            [model.call for model in models],
            interleaved.Policy(budget_s=case.process_budget_s, margin=case.precision_target),
            clock=timing.CLOCK,
            synchronise=models[0].synchronise,
            read_clock_mhz=monitor.clock_mhz if monitor else None,
            calls_of_visit=calls,
            settle=settle,
            after_visit=lambda arm: models[arm].keep(),
        )
    for number, model in enumerate(models):
        settle()
        try:
            model.verify(median(compared.times_s(number)))
        except NoWorkError as error:
            raise NoWorkError(f"{arms[number].arm}: {error}") from error
    return Comparison(
        case=case,
        environment=environment,
        **compared.fields(case.precision_target),
        build_s=tuple(model.loaded.build_s for model in models),
        compile_s=tuple(model.compile_s for model in models),
        matmul_tf32=models[0].loaded.matmul_tf32,
        conv_tf32=models[0].loaded.conv_tf32,
        failures=failures,
    )
