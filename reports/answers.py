"""The answers at the head of the report: fastest, leanest, best published quality, memory of training.

Models are compared within one setting and one letter of size only. Where the best two differ by no more than
processes do, and no interleaved comparison decides between them, the answer is "cannot tell".
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bench.analysis.choice import published_fid
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
from reports.selection import OUR_RULES, Evidence, grouped, latest

FASTEST, LEANEST, QUALITY = "fastest", "fewest MACs", "best published FID for the measured speed"
STEP, MEMORY = "fastest training step", "least memory of training"
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
    for group, models in _interleaved(timings).items():
        if group not in passes and (rounds := _of_rounds(group, models, timings)) is not None:
            found += [rounds.fastest(FASTEST), *_leanest(group, models, evidence), *rounds.quality(group[1])]
    for group, of in passes.items():
        alone = _of_passes(group, of, timings)
        models = [one.case.model for one in of]
        found += [alone.fastest(FASTEST), *_leanest(group, models, evidence), *alone.quality(group[1])]
    steps = [r for r in records if isinstance(r, Throughput) and r.case.work == "training"]
    found += [_of_passes(*group, timings).fastest(STEP) for group in _by_setting(latest(steps)).items()]
    return [one for one in [*found, *_memory(records)] if len(one.among) > 1]


Group = tuple[Setting, Size, str]


def _by_setting(passes: Iterable[Throughput]) -> dict[Group, list[Throughput]]:
    groups = grouped(passes, lambda one: _group(one.case, one.environment))
    return {group: groups[group] for group in sorted(groups, key=_place)}


def _group(case: ModelCase, environment: Environment) -> Group:
    return setting_of(case, environment.device), case.res, size(case.model)


def _place(group: Group) -> tuple[Setting, tuple[int, int], int]:
    setting, res, letters = group
    return setting, height_width(res), size_place(letters)


def _where(group: Group) -> str:
    setting, res, letters = group
    of_size = f", size {letters}" if letters else ""
    return f"{setting.device}, {size_text(res)} px, {setting.but_device}{of_size}"


def _among(ranked: Sequence[MacCount | Memory]) -> dict[str, Any]:
    return {"among": tuple(one.case.model for one in ranked), "records": tuple(ranked)}


def _interleaved(timings: Timings) -> dict[Group, list[str]]:
    """The models that interleaved rounds compare, by setting and letter of size."""
    arms = [(arm, runs[-1].environment) for runs in timings.comparisons for arm in runs[-1].arm_cases]
    groups = grouped(arms, lambda arm: _group(*arm))
    names = {group: {case.model for case, _ in groups[group]} for group in sorted(groups, key=_place)}
    return {group: sorted(of, key=order) for group, of in names.items()}


@dataclass(frozen=True, kw_only=True)
class _Ranking:
    """Models of one size under one setting, timed alone or in interleaved rounds."""

    where: str
    costs: Mapping[str, float]  # time of a pass in any unit, by model
    speeds: Mapping[str, str]  # with their intervals
    unit: str  # of the speeds
    records: Mapping[str, Record]
    is_slower: Callable[[str, str], bool]  # whether an interval shows the first slower than the second

    def fastest(self, question: str) -> Answer:
        """The fastest, and those that no interval separates from it."""
        ranked = sorted(self.costs, key=lambda name: (self.costs[name], order(name)))
        best = [*ranked[:1], *(name for name in ranked[1:] if not self.is_slower(name, ranked[0]))]
        return Answer(
            where=self.where,
            question=question,
            best=tuple(best),
            cells=(self._cell(best),),
            among=tuple(ranked),
            records=tuple(self.records[name] for name in ranked),
        )

    def quality(self, res: Size) -> list[Answer]:
        """The models of which no other one has both a lower published FID and a shorter pass."""
        published = {model: published_fid.lowest(model, res, published_fid.AT_400K) for model in self.costs}
        fids = {model: fid.value for model, fid in published.items() if fid is not None}
        if not fids:
            return []
        best = frontier([(model, self.costs[model], fid) for model, fid in fids.items()])
        best.sort(key=fids.__getitem__)
        printed = _listed({model: f"{fids[model]:.2f}" for model in best})
        return [
            Answer(
                where=self.where,
                question=QUALITY,
                best=tuple(best),
                cells=(Cell(PUBLISHED, f"FID {printed}"), self._cell(best)),
                among=tuple(fids),
                records=tuple(self.records[model] for model in fids),
            )
        ]

    def _cell(self, best: Sequence[str]) -> Cell:
        return Cell(MEASURED, f"{_listed({name: self.speeds[name] for name in best})} {self.unit}")


def _of_passes(group: Group, passes: Sequence[Throughput], timings: Timings) -> _Ranking:
    setting, res, _ = group
    by_model = {one.case.model: one for one in passes}

    def is_slower(name: str, best: str) -> bool:
        """Whether interleaved rounds show it under this setting, or else the spread between processes."""
        if by_model[name].case.work == "inference":
            for ratio in timed.interleaved_under(timings, setting, best, name, res):
                if ratio.interval and not ratio.refused:
                    return ratio.interval[0] > 1
        return processes.ratio_interval(by_model[best].by_process_s, by_model[name].by_process_s)[0] > 1

    return _Ranking(
        where=_where(group),
        costs={name: one.median_s for name, one in by_model.items()},
        speeds={name: images(one) for name, one in by_model.items()},
        unit="images/s",
        records=by_model,
        is_slower=is_slower,
    )


def _of_rounds(group: Group, names: Sequence[str], timings: Timings) -> _Ranking | None:
    """Speeds as multiples of that of a DiT, or of the first model; None without a ratio."""
    setting, res, _ = group

    def ratio(model: str, other: str) -> Measured | None:
        return timed.most_repeated(timed.interleaved_under(timings, setting, model, other, res))

    def is_slower(name: str, best: str) -> bool:
        found = ratio(best, name)
        return found is not None and found.interval is not None and found.interval[0] > 1

    reference = next((name for name in names if family(name) == "DiT"), names[0])
    known = {name: one for name in names if name != reference and (one := ratio(name, reference)) is not None}
    if not known:
        return None
    costs = {reference: 1.0, **{name: 1 / one.value for name, one in known.items()}}
    records = {name: one.records[-1] for name, one in known.items()}
    speeds = {name: ratio_text(one.value, one.interval) for name, one in known.items()}
    return _Ranking(
        where=_where(group),
        costs=dict(sorted(costs.items(), key=lambda cost: (cost[1], order(cost[0])))),
        speeds={reference: "1", **speeds},
        unit=f"times the speed of {reference}, 99 % intervals over processes",
        records={reference: next(iter(records.values())), **records},
        is_slower=is_slower,
    )


def _leanest(group: Group, models: Sequence[str], evidence: Evidence) -> list[Answer]:
    counts = [count for model in models if (count := evidence.count(model, group[1], OUR_RULES[:1]))]
    if not counts:
        return []
    ranked = sorted(counts, key=lambda one: (one.macs_per_image, order(one.case.model)))
    best, name = ranked[0], ranked[0].case.model
    cell = Cell(COUNTED, f"{gmacs(best.macs_per_image)} GMACs, {best.params / 1e6:.1f} M parameters")
    return [Answer(where=_where(group), question=LEANEST, best=(name,), cells=(cell,), **_among(ranked))]


def frontier(points: Sequence[tuple[str, float, float]]) -> list[str]:
    """Names of the points (name, cost, cost) that no other point undercuts in both costs."""
    kept, least = [], float("inf")
    for name, _, cost in sorted(points, key=lambda point: (point[1], point[2])):
        if cost < least:
            kept.append(name)
            least = cost
    return kept


def _memory(records: Sequence[Record]) -> list[Answer]:
    """The least peak of a training step in every setting with several models of one size.

    The largest batches come first: at small ones parameters and moments decide.
    """

    def place(one: Memory) -> tuple[object, ...]:
        case = one.case
        of_size = (size_place(size(case.model)), size(case.model), case.is_predicted)
        return -case.batch, height_width(case.res), one.environment.device, case.settings, *of_size

    steps = [
        one
        for one in latest(record for record in records if isinstance(record, Memory))
        if one.case.work == "training" and one.case.limit_bytes is None
    ]
    groups: dict[Any, list[Memory]] = grouped(steps, place)
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
