"""What records of one operation by several implementations add up to. Imports no torch."""

from collections import defaultdict
from collections.abc import Iterable

from bench.analysis.roofline import Peaks
from bench.records.record import Implemented, Record, height_width, key

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")


def floors_s(result: Implemented, peaks: Peaks | None) -> tuple[float | None, float | None]:
    """Least seconds of one operation by its bytes, and by its FLOPs in fp32; None without a ceiling."""
    bandwidth, fp32 = (peaks.bytes_per_s, peaks.fp32) if peaks else (None, None)
    return result.least_bytes / bandwidth if bandwidth else None, result.flops / fp32 if fp32 else None


def passes(records: Iterable[Record]) -> list[tuple[Implemented, dict[str, float]]]:
    """What all such operations of one pass take together, by variant, where each of them was timed.

    Returns:
        For every model, size and setting: one of its records, and seconds by variant.
    """
    groups: defaultdict[tuple[object, ...], list[Implemented]] = defaultdict(list)
    for one in records:
        if isinstance(one, Implemented):
            run = one.run
            setting = (run.model, run.res, run.batch, run.precision, run.environment.device)
            groups[*setting, one.operation, one.kernel].append(one)
    found = []
    for group in groups.values():
        sums: defaultdict[str, list[float]] = defaultdict(list)
        for one in group:
            for arm, variant in enumerate(one.timed):
                sums[variant.name].append(one.calls_a_pass * one.median_s(arm))
        found.append((group[0], {name: sum(s) for name, s in sums.items() if len(s) == len(group)}))
    return found


def newest(records: Iterable[Record]) -> list[Implemented]:
    """The newest record of every case, in the order in which a command plans them."""
    by_case: dict[str, Implemented] = {}
    for one in sorted(
        (one for one in records if isinstance(one, Implemented)), key=lambda one: one.run.environment.date
    ):
        by_case[key(one)] = one
    return sorted(by_case.values(), key=_place)


def _place(one: Implemented) -> tuple[object, ...]:
    run = one.run
    return (
        run.environment.device,
        run.model,
        height_width(run.res),
        run.batch,
        PRECISIONS.index(run.precision),
        one.operation != "conv",
        one.kernel,
        one.channels,
        run.environment.torch,
        key(one),
    )
