"""The report's section on floors: ceilings of devices, floors of passes, rooflines, shares of operators."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from bench.analysis.rooflines import floors, roofline
from bench.analysis.rooflines.floors import PartFloor, PassFloor
from bench.analysis.rooflines.roofline import NO_PEAKS, Peaks
from bench.records.base import Record, height_width, size_text
from bench.records.ceiling import Ceiling
from bench.records.counts import MacCount
from bench.records.operators import OperatorCosts
from bench.records.profile import Profile
from reports.figures import roofline as roofline_figure
from reports.figures.plots import fullest
from reports.markdown import stamp, table
from reports.naming import in_papers, order, size
from reports.sections import Part, of_parts
from reports.selection import grouped

PLACE = "speed.md", 3
GPUS = ("RTX 4090", "A100 SXM4 80GB", "H200 SXM5 141GB")  # shown in addition to measured devices
FEW = 6  # maximum models named in a caption
MOST = 8  # maximum models in a table of a device or of operators
PREFERRED = ("XL", "H", "L", "B", "M", "S")  # sizes in order of preference

Group = tuple[str, int, str]  # resolution in words, batch, precision of the tensors


@of_parts
def section(records: Sequence[Record]) -> Iterator[Part]:
    """Write the section and draw its figures; empty without operator costs of denoising passes."""
    costs = sorted(
        floors.newest_costs(records),
        key=lambda one: (order(one.case.model), size_text(one.case.res), one.case.batch, one.case.precision),
    )
    if not costs:
        return
    peaks = [*floors.measured_devices(records), *map(roofline.of_gpu, GPUS)]
    shown = {one.device: _shown(one, records) for one in peaks}
    profiles = _profiles(records)
    groups = _groups(costs, profiles)
    yield from ("## Floors and rooflines", _reading(costs))
    if ceilings := roofline.highest_ceilings(one for one in records if isinstance(one, Ceiling)):
        yield from ("### Ceilings", _CEILINGS, table(floors.CEILINGS, ceilings))
    if listed := [one for of_device in shown.values() for one in _listed(of_device)]:
        yield from ("### Floors", _about_floors(peaks), table(floors.PASSES, listed))
    rows = _part_rows(groups, profiles, {one.device: one for one in reversed(peaks)})
    yield from ("### Operators", _about_operators(rows), table(floors.PARTS, rows))
    placed = {device: list(filter(roofline_figure.has_place, of)) for device, of in shown.items()}
    if any(shown.values()) and not any(placed.values()):
        yield "**No roofline.** A point needs the MACs and the eager bytes of a pass; every pass lacks one."
    drawn = [one for one in peaks if placed[one.device]]
    drawn = [one for one in drawn if any(of.measured for of in placed[one.device])] or drawn[:1]
    drawn, left_out = fullest(drawn, lambda one: len(placed[one.device]), "devices")
    yield from left_out
    for one in drawn:
        of_device = placed[one.device]
        yield roofline_figure.draw(one, of_device, _missing(of_device, records))


# selection


def _profiles(records: Sequence[Record]) -> dict[Group, dict[str, Profile]]:
    """The newest profiles by kind, grouped by resolution, batch and precision.

    A group has one device, since it is one figure: the device with most models, then the newest.
    """
    by_device: dict[Group, dict[str, dict[str, Profile]]] = {}
    found = [one for one in records if isinstance(one, Profile) and one.case.by == "kind"]
    for one in sorted(found, key=lambda one: (one.environment.date, one.environment.device)):
        group = size_text(one.case.res), one.case.batch, one.case.precision
        by_device.setdefault(group, {}).setdefault(one.environment.device, {})[one.case.model] = one

    def weight(of_device: dict[str, Profile]) -> tuple[int, str, str]:
        newest = max((one.environment for one in of_device.values()), key=lambda here: here.date)
        return len(of_device), newest.date, newest.device

    return {group: max(devices.values(), key=weight) for group, devices in by_device.items()}


def _group(costs: OperatorCosts) -> Group:
    return size_text(costs.case.res), costs.case.batch, costs.case.precision


def _most(costs: Sequence[OperatorCosts], first: Collection[str] = ()) -> list[OperatorCosts]:
    """At most MOST models: the given ones, then one of each family, XL if available, the papers' first."""

    def preferred(one: OperatorCosts) -> tuple[int, str]:
        letters = size(one.case.model)
        return PREFERRED.index(letters) if letters in PREFERRED else len(PREFERRED), one.case.model

    seen: Counter[str] = Counter()
    ranked: list[tuple[tuple[bool, int, bool, str], OperatorCosts]] = []
    for one in sorted(costs, key=preferred):
        name = one.case.family
        ranked.append(((one.case.model not in first, seen[name], not in_papers(one.case.model), name), one))
        seen[name] += 1
    ranked.sort(key=lambda pair: pair[0])
    return sorted((one for _, one in ranked[:MOST]), key=lambda one: order(one.case.model))


def _prominence(costs: Sequence[OperatorCosts]) -> tuple[int, int]:
    """Sorting key that prefers large batches, then small images."""
    height, width = height_width(costs[0].case.res)
    return costs[0].case.batch, -height * width


def _groups(
    costs: Sequence[OperatorCosts], profiles: dict[Group, dict[str, Profile]]
) -> dict[Group, list[OperatorCosts]]:
    """The groups whose operators are shown: all profiled groups, and the group with most models."""
    by_group = grouped(costs, _group)
    fullest = max(sorted(by_group), key=lambda group: (len(by_group[group]), *_prominence(by_group[group])))
    return {
        group: _most(of, profiles.get(group, {}))
        for group, of in sorted(by_group.items())
        if group == fullest or profiles.get(group, {}).keys() & {one.case.model for one in of}
    }


def _shown(peaks: Peaks, records: Sequence[Record]) -> list[PassFloor]:
    """The models at one resolution and batch: with most measurements on the device, then most models."""
    known = sorted(floors.every_floor(peaks, records), key=lambda one: order(one.case.model))
    by_size = grouped(known, lambda one: _group(one.costs)[:2])

    def weight(setting: tuple[str, int]) -> tuple[int, ...]:
        of = by_size[setting]
        costs = _distinct(of)
        return sum(one.measured is not None for one in of), len(costs), *_prominence(costs)

    return by_size[max(sorted(by_size), key=weight)] if by_size else []


def _listed(shown: Sequence[PassFloor]) -> list[PassFloor]:
    """The floors of at most MOST models, the measured first."""
    measured = {one.case.model for one in shown if one.measured}
    names = {one.case.model for one in _most(_distinct(shown), measured)}
    return [one for one in shown if one.case.model in names]


def _distinct(shown: Sequence[PassFloor]) -> list[OperatorCosts]:
    return list({one.case.model: one.costs for one in shown}.values())


def _part_rows(
    groups: dict[Group, list[OperatorCosts]],
    profiles: dict[Group, dict[str, Profile]],
    peaks: dict[str, Peaks],
) -> list[PartFloor]:
    """Kinds of operators with their floors, of the profiled passes or, without profiles, of all passes."""
    passes = [
        (one, profiles.get(group, {}).get(one.case.model)) for group, of in groups.items() for one in of
    ]
    rows: list[PartFloor] = []
    for one, profile in [pair for pair in passes if pair[1]] or passes:
        device = profile.environment.device if profile else ""
        known = peaks.get(device) or peaks.get(roofline.gpu_named(device) or "")
        known = known or replace(NO_PEAKS, device=device)
        whole = PassFloor(costs=one, precision=one.case.precision, peaks=known)
        rows += floors.part_floors(whole, "kind", profile)
    return rows


def _missing(shown: Sequence[PassFloor], records: Sequence[Record]) -> str:
    """Sentence on the known models that are missing in a figure or some of its panels, with reasons."""
    text, batch, _ = _group(shown[0].costs)
    drawn = {one.case.model for one in shown}
    uncounted = []
    for precision in dict.fromkeys(one.case.precision for one in shown):
        missing = drawn - {one.case.model for one in shown if one.case.precision == precision}
        if missing:
            uncounted.append(f"{_names(missing)} at {precision} (counted at another precision only)")
    known = {one.case.model for one in records if isinstance(one, OperatorCosts | MacCount)}
    unplaced: dict[str, set[str]] = {}  # by reason: counted at this size, without a point
    for one in floors.newest_costs(records):
        if _group(one)[:2] == (text, batch) and one.case.model not in drawn:
            has_both = one.macs and one.eager_bytes
            reason = f"no peak for {one.case.precision}" if has_both else "no MACs or no bytes"
            unplaced.setdefault(reason, set()).add(one.case.model)
    if missing := known - drawn - set().union(*unplaced.values()):
        uncounted.append(f"{_names(missing)} without operator costs at {text} px, batch {batch}")
    parts = [f"Not shown: {'; '.join(uncounted)} (bench.roofline counts them). "] if uncounted else []
    if unplaced:
        reasons = "; ".join(f"{_names(of)} ({reason})" for reason, of in sorted(unplaced.items()))
        parts.append(f"Not shown, though counted: {reasons}. ")
    return "".join(parts)


def _names(models: Collection[str]) -> str:
    """Models in words: up to FEW by name in report order, more by number."""
    ordered = sorted(models, key=order)
    return ", ".join(ordered) if len(ordered) <= FEW else f"{len(ordered)} models"


# text


def _reading(costs: Sequence[OperatorCosts]) -> str:
    stamps = sorted({stamp(one.environment) for one in costs})
    return (
        "A floor is the least time of one denoising pass on a device: max(FLOPs / peak, bytes / bandwidth) "
        "of every operator, summed. It is **computed**, not measured, and holds for direct algorithms at "
        "the stated clocks. *Eager*: every kernel reads its inputs and writes its outputs. *Fused*: only "
        "convolutions, linear layers, attention and scans move data. One MAC is two FLOPs. Counted with "
        f"{'; '.join(stamps)}."
    )


_CEILINGS = (
    "Median rate of the fastest size of a square matrix product, on a CPU also of a 3x3 convolution, and "
    "of a copy (bytes read and written); of several records the highest. *As sold*: the dense peak in "
    "baselines/gpus.csv."
)


def _about_floors(peaks: Sequence[Peaks]) -> str:
    ordered = sorted(peaks, key=lambda one: not one.measured)
    sources = "; ".join(f"{one.device}: {one.source}" for one in ordered)
    return (
        f"Each device at one resolution and batch, with at most {MOST} models, the measured first; the "
        "figure has all. *Achieved*: floor / measured median of the fastest measurement of the same pass. "
        "It is above 100 % where fusion, caches or Winograd's algorithm make a pass faster, or where "
        f"ceilings were measured on a busy device. Peaks: {sources}."
    )


def _about_operators(rows: Sequence[PartFloor]) -> str:
    profiles = {row.profile.case.label: row.profile for row in rows if row.profile}
    text = (
        "Kernels, MACs and bytes of each kind of operator, with its computed floor. *% of eager*: of the "
        "eager bytes of the pass. `python -m bench.roofline --by module` has any model by module."
    )
    if not profiles:
        return f"{text} No pass was profiled."
    stamps = "\n".join(
        f"- {label}: {one.environment.device}, {stamp(one.environment)}, {one.describe_passes()}"
        for label, one in profiles.items()
    )
    return (
        f"{text} Times are those of operators under torch.profiler, which slows a pass; *other* is time in "
        "no operator, on a CPU that of Python. *Spread*: from the fastest pass to the slowest, as a share of "
        f"the median. The shares of a disturbed pass are unreliable.\n\n{stamps}"
    )
