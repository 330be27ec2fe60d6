"""The answers at the head of the report: fastest, leanest, best published quality, memory of training.

Models are compared within one setting and one letter of size only. Where the best two differ by no more than
processes do, and no interleaved comparison decides between them, the answer is "cannot tell".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bench.analysis.choice.choice import published_fid
from bench.analysis.memory.memory_fit import GIB
from bench.analysis.speed.settings import Setting, setting_of
from bench.records.base import Environment, ModelCase, Record, Size, height_width, size_text
from bench.records.counts import MacCount
from bench.records.memory import Memory
from bench.records.throughput import Throughput
from bench.stats import processes
from models.registry import size_place
from reports.claims import timed
from reports.claims.timed import Measured, Timings
from reports.markdown import gmacs, images, ratio_text, significant
from reports.naming import COUNTED, MEASURED, PREDICTED, PUBLISHED, family, order, size
from reports.selection import OUR_RULES, Evidence, latest

FASTEST, LEANEST, QUALITY = "fastest", "fewest MACs", "best published FID for the measured speed"
STEP, MEMORY = "fastest training step", "least memory of training"
OF_ROUNDS = "99 % intervals over processes"
QUESTIONS = (FASTEST, LEANEST, QUALITY, STEP, MEMORY)


class Cell(NamedTuple):
    """Numbers of one status."""

    status: str  # one of naming.STATUSES
    text: str  # the numbers of the best models, with their intervals


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One question at one setting."""

    where: str  # device, px, batch, precision, switches; and the letter of size
    question: str  # one of QUESTIONS
    best: tuple[str, ...]  # one model, or several: those that nothing separates, or of a frontier
    cells: tuple[Cell, ...]
    among: tuple[str, ...]  # all models that were compared
    records: tuple[Record, ...]  # one for each of `among`

    @property
    def text(self) -> str:
        """The best models by name."""
        if self.question == QUALITY:
            return ", then ".join(self.best)
        first, *others = self.best
        return f"cannot tell {first} from {', '.join(others)}" if others else first

    def number(self, status: str) -> str:
        """The text of a status; blank without one."""
        return dict(self.cells).get(status, "")


def answers(evidence: Evidence, timings: Timings, records: Sequence[Record]) -> list[Answer]:
    """Every answer that the records give, grouped by setting: interleaved rounds first, predictions last."""
    passes = _by_setting(t.passes for t in evidence.timings if isinstance(t.passes, Throughput))
    found: list[Answer] = []
    for (setting, res, letters), names in _interleaved(timings).items():
        if (setting, res, letters) in passes:
            continue
        where = _where(setting, res, letters)
        if (rounds := _rounds(setting, res, names, timings)) is not None:
            found += [_first_of_rounds(where, rounds), *_leanest(where, names, res, evidence)]
            found += _quality_of_rounds(where, rounds, res)
    for (setting, res, letters), group in passes.items():
        where = _where(setting, res, letters)
        found.append(_fastest(where, FASTEST, group, timings))
        found += _leanest(where, [one.case.model for one in group], res, evidence)
        costs = {one.case.model: one.median_s for one in group}
        speeds = {one.case.model: images(one) for one in group}
        found += _quality(where, res, costs, speeds, "images/s", {one.case.model: one for one in group})
    steps = [r for r in records if isinstance(r, Throughput) and r.case.work == "training"]
    for (setting, res, letters), group in _by_setting(latest(steps)).items():
        found.append(_fastest(_where(setting, res, letters), STEP, group, None))
    return [one for one in [*found, *_memory(records)] if len(one.among) > 1]


Group = tuple[Setting, Size, str]


def _by_setting(passes: Iterable[Throughput]) -> dict[Group, list[Throughput]]:
    groups: dict[Group, list[Throughput]] = {}
    for one in passes:
        groups.setdefault(_group(one.case, one.environment), []).append(one)
    return {group: groups[group] for group in sorted(groups, key=_place)}


def _group(case: ModelCase, environment: Environment) -> Group:
    return setting_of(case, environment.device), case.res, size(case.model)


def _place(group: Group) -> tuple[Setting, tuple[int, int], int]:
    setting, res, letters = group
    return setting, height_width(res), size_place(letters)


def _where(setting: Setting, res: Size, letters: str) -> str:
    of_size = f", size {letters}" if letters else ""
    return f"{setting.device}, {size_text(res)} px, {setting.but_device}{of_size}"


def _fastest(where: str, question: str, group: Sequence[Throughput], timings: Timings | None) -> Answer:
    ranked = sorted(group, key=lambda one: (-one.images_per_s, order(one.case.model)))
    best = [*ranked[:1], *(one for one in ranked[1:] if not _is_slower(one, ranked[0], timings))]
    numbers = {one.case.model: images(one) for one in best}
    return Answer(
        where=where, question=question, best=tuple(numbers),
        cells=(Cell(MEASURED, f"{_listed(numbers)} images/s"),), **_among(ranked),
    )  # fmt: skip


def _among(ranked: Sequence[Throughput | MacCount | Memory]) -> dict[str, Any]:
    return {"among": tuple(one.case.model for one in ranked), "records": tuple(ranked)}


def _is_slower(one: Throughput, best: Throughput, timings: Timings | None) -> bool:
    """Whether interleaved rounds show it under this setting, or else the spread between processes."""
    setting = setting_of(best.case, best.environment.device)
    if timings is not None and one.case.work == "inference":
        ratios = timed.interleaved_under(timings, setting, best.case.model, one.case.model, best.case.res)
        for ratio in ratios:
            if ratio.interval and not ratio.refused:
                return ratio.interval[0] > 1
    return processes.ratio_interval(best.by_process_s, one.by_process_s)[0] > 1


def _interleaved(timings: Timings) -> dict[Group, list[str]]:
    """The models that interleaved rounds compare, by setting and letter of size."""
    groups: dict[Group, set[str]] = {}
    for newest in (runs[-1] for runs in timings.comparisons):
        for arm in newest.arm_cases:
            groups.setdefault(_group(arm, newest.environment), set()).add(arm.model)
    return {group: sorted(groups[group], key=order) for group in sorted(groups, key=_place)}


@dataclass(frozen=True, kw_only=True)
class _Rounds:
    """Speeds of models by interleaved rounds, as multiples of that of a reference."""

    reference: str
    ratios: Mapping[str, Measured]  # to the reference, by model
    ranked: Sequence[str]  # the fastest first, the reference among them
    best: Sequence[str]  # the fastest, and those that no interval separates from it

    def speed(self, name: str) -> float:
        return self.ratios[name].value if name in self.ratios else 1.0

    def text(self, name: str) -> str:
        if name == self.reference:
            return "1"
        return ratio_text(self.ratios[name].value, self.ratios[name].interval)

    @property
    def unit(self) -> str:
        return f"times the speed of {self.reference}, {OF_ROUNDS}"

    def record(self, name: str) -> Record:
        of_reference = next(iter(self.ratios.values()))
        return self.ratios.get(name, of_reference).records[-1]


def _rounds(setting: Setting, res: Size, names: Sequence[str], timings: Timings) -> _Rounds | None:
    def ratio(model: str, other: str) -> Measured | None:
        return timed.most_repeated(timed.interleaved_under(timings, setting, model, other, res))

    reference = next((name for name in names if family(name) == "DiT"), names[0])
    known = {name: one for name in names if name != reference and (one := ratio(name, reference)) is not None}
    if not known:
        return None
    speeds = {reference: 1.0, **{name: one.value for name, one in known.items()}}
    ranked = sorted(speeds, key=lambda name: (-speeds[name], order(name)))

    def is_slower(name: str) -> bool:
        found = ratio(ranked[0], name)
        return found is not None and found.interval is not None and found.interval[0] > 1

    best = [*ranked[:1], *(name for name in ranked[1:] if not is_slower(name))]
    return _Rounds(reference=reference, ratios=known, ranked=ranked, best=best)


def _first_of_rounds(where: str, rounds: _Rounds) -> Answer:
    listed = _listed({name: rounds.text(name) for name in rounds.best})
    return Answer(
        where=where,
        question=FASTEST,
        best=tuple(rounds.best),
        cells=(Cell(MEASURED, f"{listed} {rounds.unit}"),),
        among=tuple(rounds.ranked),
        records=tuple(map(rounds.record, rounds.ranked)),
    )


def _quality_of_rounds(where: str, rounds: _Rounds, res: Size) -> list[Answer]:
    costs = {name: 1 / rounds.speed(name) for name in rounds.ranked}
    speeds = {name: rounds.text(name) for name in rounds.ranked}
    records = {name: rounds.record(name) for name in rounds.ranked}
    return _quality(where, res, costs, speeds, rounds.unit, records)


def _leanest(where: str, models: Sequence[str], res: Size, evidence: Evidence) -> list[Answer]:
    counts = [count for model in models if (count := evidence.count(model, res, OUR_RULES[:1]))]
    if not counts:
        return []
    ranked = sorted(counts, key=lambda one: (one.macs_per_image, order(one.case.model)))
    best, name = ranked[0], ranked[0].case.model
    cell = Cell(COUNTED, f"{gmacs(best.macs_per_image)} GMACs, {best.params / 1e6:.1f} M parameters")
    return [Answer(where=where, question=LEANEST, best=(name,), cells=(cell,), **_among(ranked))]


def frontier(points: Sequence[tuple[str, float, float]]) -> list[str]:
    """Names of the points (name, cost, cost) that no other point undercuts in both costs."""
    kept, least = [], float("inf")
    for name, _, cost in sorted(points, key=lambda point: (point[1], point[2])):
        if cost < least:
            kept.append(name)
            least = cost
    return kept


def _quality(
    where: str,
    res: Size,
    costs: Mapping[str, float],
    speeds: Mapping[str, str],
    unit: str,
    records: Mapping[str, Record],
) -> list[Answer]:
    """The models of which no other one has both a lower published FID and a shorter pass."""
    fids: dict[str, float] = {}
    for model in costs:
        if (fid := published_fid.lowest(model, res, published_fid.AT_400K)) is not None:
            fids[model] = fid.value
    if not fids:
        return []
    best = sorted(frontier([(model, costs[model], fids[model]) for model in fids]), key=fids.__getitem__)
    return [
        Answer(
            where=where,
            question=QUALITY,
            best=tuple(best),
            cells=(
                Cell(PUBLISHED, f"FID {_listed({model: f'{fids[model]:.2f}' for model in best})}"),
                Cell(MEASURED, f"{_listed({model: speeds[model] for model in best})} {unit}"),
            ),
            among=tuple(fids),
            records=tuple(records[model] for model in fids),
        )
    ]


def _memory(records: Sequence[Record]) -> list[Answer]:
    """The least peak of a training step in every setting with several models of one size.

    The largest batches come first: at small ones parameters and moments decide.
    """
    groups: dict[tuple[int, tuple[object, ...]], list[Memory]] = {}
    for one in latest(record for record in records if isinstance(record, Memory)):
        case = one.case
        if case.work == "training" and case.limit_bytes is None:
            of_size = (size_place(size(case.model)), size(case.model), case.is_predicted)
            place = (height_width(case.res), one.environment.device, case.settings, *of_size)
            groups.setdefault((-case.batch, place), []).append(one)
    return [_least_memory(groups[name]) for name in sorted(groups)]


def _least_memory(group: Sequence[Memory]) -> Answer:
    ranked = sorted(group, key=lambda one: (one.use.peak_bytes, order(one.case.model)))
    best, predicted = ranked[0], ranked[0].case.is_predicted
    letters = size(best.case.model)
    device = "any GPU" if predicted else best.environment.device
    text = f"{significant(best.peak_bytes / GIB)} GiB"
    return Answer(
        where=f"{device}, {best.case.settings}" + (f", size {letters}" if letters else ""),
        question=MEMORY,
        best=(best.case.model,),
        cells=(Cell(PREDICTED, f"{text} of live tensors") if predicted else Cell(MEASURED, text),),
        **_among(ranked),
    )


def _listed(numbers: Mapping[str, str]) -> str:
    """The number of one model, or those of several with their names."""
    if len(numbers) == 1:
        return next(iter(numbers.values()))
    return ", ".join(f"{name} {number}" for name, number in numbers.items())
