"""Times one case in this process: the engine under the commands that time passes or training steps."""

import time

from bench.jobs.worker import Case, first_line, out_of_memory
from bench.machine import telemetry
from bench.measure import timing
from bench.measure.prepared import Arm, NotFiniteError, compiled_already, prepared, training
from bench.measure.timing import Policy
from bench.records.record import Record, Run, Skipped, Throughput

LATENCY_SAMPLES = 100  # for a 99th percentile
DICO_PASSES = 20  # of warm-up, and again timed


def measure(case: Case) -> Record:
    """Time one case.

    Returns:
        Throughput, or Skipped where memory ran out, the output was not finite, torch recompiled while
        timing, or the device has no kernel of the kind asked for.
    """
    run = case.run
    monitor = telemetry.monitor(run.environment.device_type)
    if monitor and run.soak_s:  # without, the energy is not known either: its window would be too short
        monitor.measure_idle()
    try:
        ready = training if run.work == "training" else prepared
        with ready(run, case.weights) as arm, compiled_already(run):
            return _dico(run, arm) if run.protocol == "dico" else _suite(run, arm, monitor)
    except (RuntimeError, ValueError, ArithmeticError, MemoryError) as error:
        row = skipped(run, error)
        if row is None:
            raise
        return row


def skipped(run: Run, error: Exception) -> Skipped | None:
    """The row of a failure that is a result of its own; None for any other."""
    if failed := out_of_memory(error):
        return Skipped(run=run, status="out of memory", reason=first_line(failed))
    told = str(error)
    if isinstance(error, NotFiniteError):
        status = "not finite"
    elif "No available kernel" in told or "No viable backend" in told:
        status = "no kernel"
    elif "recompile" in told:
        status = "recompiled"
    else:
        return None
    return Skipped(run=run, status=status, reason=first_line(error))


def _suite(run: Run, arm: Arm, monitor: telemetry.Monitor | None) -> Throughput:
    """Warm up, sample and, if asked, soak the device and sample again."""
    policy = Policy(
        budget_s=run.budget_s,
        precision=run.precision_target,
        min_samples=LATENCY_SAMPLES if run.question == "latency" else Policy.min_samples,
    )
    clock = time.perf_counter
    begin = clock()
    warm = timing.warm_up(arm.call, policy, clock=clock, synchronise=arm.synchronise)
    between = monitor.between_passes if monitor else lambda: None
    if monitor:
        monitor.restart()
    samples = timing.sample(
        arm.call,
        policy,
        spent_s=clock() - begin,
        clock=clock,
        synchronise=arm.synchronise,
        device_timer=arm.device_timer,
        between=between,
    )
    sustained: tuple[float, ...] = ()
    if run.soak_s:
        timing.soak(arm.call, run.soak_s, clock=clock, synchronise=arm.synchronise, between=between)
        after = timing.sample(
            arm.call, policy, spent_s=0.0, clock=clock, synchronise=arm.synchronise, between=between
        )
        sustained = after.wall_s
    return Throughput(
        run=run,
        times_s=samples.wall_s,
        device_times_s=samples.device_s,
        warmup_times_s=warm.wall_s,
        warmup_stationary=warm.stationary,
        stopped_by=samples.stopped_by,
        unmet=samples.unmet,
        build_s=arm.build_s,
        compile_s=arm.compile_s,
        matmul_tf32=arm.matmul_tf32,
        conv_tf32=arm.conv_tf32,
        sustained_times_s=sustained,
        telemetry=monitor.finish() if monitor else None,
    )


def _dico(run: Run, arm: Arm) -> Throughput:
    """Replay the released timing of DiCo, faults and all.

    Twenty passes to warm up and twenty timed together by the wall clock, which is stopped without waiting
    for the device; t and y have a batch of one (bench.measure.prepared). What is still running when the clock
    stops is not in the time.
    """
    begin = time.perf_counter()
    for _ in range(DICO_PASSES):
        arm.call()
    warm = time.perf_counter() - begin
    begin = time.perf_counter()
    for _ in range(DICO_PASSES):
        arm.call()
    seconds = time.perf_counter() - begin
    arm.synchronise()
    return Throughput(
        run=run,
        times_s=(seconds / DICO_PASSES,),
        device_times_s=(),
        warmup_times_s=(warm / DICO_PASSES,),
        warmup_stationary=False,
        stopped_by=f"protocol: mean of {DICO_PASSES} passes, clock stopped without synchronising",
        unmet=(),
        build_s=arm.build_s,
        compile_s=arm.compile_s,
        matmul_tf32=arm.matmul_tf32,
        conv_tf32=arm.conv_tf32,
        sustained_times_s=(),
        telemetry=None,
    )
