"""Growth between two resolutions: slow-downs compared with published ones, and cross-overs of two models."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations

from baselines import load
from bench.analysis.scaling.resolution import COSTS, Study, batch_range, why_refused
from bench.stats import cross_overs, power_law
from bench.stats.cross_overs import CrossOver
from bench.stats.power_law import Interval

MARGIN = 0.05  # relative tolerance of equal ratios
# tables of one paper at 256 and at 512 px: throughput falls from the first to the second
_TABLES = (("FCDM", "fcdm_table03", "fcdm_table05"), ("DiCo", "dico_table01", "dico_table02"))
PUBLISHED_SIDES = (256.0, 512.0)
_REMARK = 2  # of baselines on these tables
TAKEN_OVER = "a throughput behind it is probably another paper's, so that the ratio may mix two devices"


@dataclass(frozen=True, kw_only=True)
class PublishedSlowdown:
    """The ratio of a published throughput at 256 px to that at 512 px."""

    paper: str
    model: str
    ratio: float
    taken_over: bool  # one throughput is from another paper and perhaps another device


@cache
def published_slowdowns() -> tuple[PublishedSlowdown, ...]:
    """The slow-down of every model whose throughput one paper prints at both sizes."""
    found = {}
    for paper, *names in _TABLES:
        rows = [
            {load.backbone_name(row): row for row in load.table(name).rows if row["throughput"].value}
            for name in names
        ]
        for model in rows[0].keys() & rows[1].keys():
            small, large = (of[model]["throughput"].value for of in rows)
            assert small is not None
            assert large is not None
            found[paper, model] = PublishedSlowdown(
                paper=paper,
                model=model,
                ratio=small / large,
                taken_over=any(
                    load.taken_over(name, "throughput", of[model])
                    for name, of in zip(names, rows, strict=True)
                ),
            )
    return tuple(found[key] for key in sorted(found))


def slowdown_remark() -> str:
    return load.remark(_REMARK).statement


def slowdowns_of(model: str, family: str) -> tuple[PublishedSlowdown, ...]:
    """The published slow-downs of a model or, if it has none, of other sizes of its family."""
    own = tuple(one for one in published_slowdowns() if one.model == model)
    return own or tuple(one for one in published_slowdowns() if one.model.rpartition("-")[0] == family)


def _judged(verdict: str, batches: Sequence[int]) -> str:
    """A verdict in words, with its batches if they differ."""
    return f"{verdict}; batch {batch_range(batches)}" if len(batches) > 1 else verdict


@dataclass(frozen=True, kw_only=True)
class Slowdown:
    """Growth of costs between two sides: of one model, or of a DiT relative to another model."""

    subject: str  # a model, or "DiT-XL/2 / FCDM-XL"
    models: tuple[str, ...]
    from_side: float
    to_side: float
    time: float | None
    interval: Interval | None
    counts: tuple[tuple[str, float], ...]  # growth of MACs, bytes and memory, where known
    published: tuple[PublishedSlowdown, ...]  # from 256 to 512 px; empty for other sizes
    refused: str  # reason that times give no verdict; blank if they do
    batches: tuple[int, ...]  # of the times, the largest first

    def count(self, cost: str) -> float | None:
        return dict(self.counts).get(cost)

    @property
    def verdict(self) -> str:
        if self.time is None:
            return ""
        if self.refused:
            return f"not judged: {self.refused}"
        if self.interval is None:
            return "too few samples"
        return _judged("; ".join(self._findings(self.interval)), self.batches)

    def _findings(self, interval: Interval) -> list[str]:
        """The measured growth compared with that of the MACs and the published growth."""
        others = [(f"{one.paper} ({one.model})", one.ratio) for one in self.published]
        macs = self.count("MACs")
        others += [] if macs is None else [("its MACs", macs)]
        found: dict[str, list[str]] = {}
        for name, ratio in others:
            found.setdefault(_position(interval, ratio), []).append(name)
        return [f"{position} {', '.join(names)}" for position, names in found.items()]


def _position(interval: Interval, ratio: float) -> str:
    """Position of an interval relative to a ratio: above, below, equal within MARGIN, or inconclusive."""
    low, high = interval
    if low > ratio * (1 + MARGIN):
        return "above"
    if high < ratio * (1 - MARGIN):
        return "below"
    inside = ratio * (1 - MARGIN) <= low and high <= ratio * (1 + MARGIN)
    return "equal to" if inside else "inconclusive against"


@dataclass(frozen=True, kw_only=True)
class RelativeSlowdown(Slowdown):
    """The slow-down of a DiT divided by that of another model."""

    def _findings(self, interval: Interval) -> list[str]:
        """Verdict on the published difference on this device, and the model that slows down more."""
        low, high = interval
        found = []
        for one in self.published:
            reached = "reached" if low >= one.ratio * (1 - MARGIN) else "neither reached nor ruled out"
            ruled_out = high < one.ratio * (1 - MARGIN)
            found.append(f"{one.paper}'s {one.ratio:.2f} {'ruled out' if ruled_out else reached}")
        reference = self.models[0]
        if low > 1 + MARGIN:
            found.append(f"{reference} slows down more")
        elif high < 1 - MARGIN:
            found.append(f"{reference} slows down less")
        else:
            equal = low >= 1 - MARGIN and high <= 1 + MARGIN
            found.append("both slow down equally" if equal else "inconclusive which slows down more")
        return found


def doublings(study: Study, model: str) -> list[Slowdown]:
    """Slow-downs of each model at every doubling of the side, timed or counted."""
    growths = {
        cost: {(g.from_side, g.to_side): g for g in power_law.doublings(study.curve(model, cost))}
        for cost in COSTS
    }
    of_model = [sized for sized in study.sizes if sized.model == model]
    found = []
    for sides in sorted({sides for by_sides in growths.values() for sides in by_sides}):
        time = growths["time"].get(sides)
        # published are squares, and a point may be the mean of a square and of another shape
        comparable = (
            sides == PUBLISHED_SIDES
            and study.setting.work == "inference"
            and all(sized.res == sized.side for sized in of_model if sized.side in sides)
        )
        found.append(
            Slowdown(
                subject=model,
                models=(model,),
                from_side=sides[0],
                to_side=sides[1],
                time=time.ratio if time else None,
                interval=time.interval if time else None,
                counts=tuple(
                    (cost, growths[cost][sides].ratio) for cost in COSTS[1:] if sides in growths[cost]
                ),
                published=slowdowns_of(model, of_model[0].family) if comparable else (),
                refused=why_refused(study.drift),
                batches=study.batches((model,), "time", sides),
            )
        )
    return found


def relative_slowdowns(study: Study) -> list[RelativeSlowdown]:
    """The slow-down of each DiT divided by that of every other model, where both were timed."""
    families = {sized.model: sized.family for sized in study.sizes}
    found = []
    for reference in (model for model in study.models if families[model] == "DiT"):
        of_reference = {(d.from_side, d.to_side): d for d in doublings(study, reference) if d.time}
        for model in (model for model in study.models if families[model] != "DiT"):
            for own in doublings(study, model):
                sides = (own.from_side, own.to_side)
                if own.time is not None and (theirs := of_reference.get(sides)):
                    found.append(_relative(study, theirs, own))
    return found


def _relative(study: Study, theirs: Slowdown, own: Slowdown) -> RelativeSlowdown:
    models, sides = (*theirs.models, *own.models), (own.from_side, own.to_side)
    first, second = (study.curve(model, "time") for model in models)
    ratio, interval = power_law.growth_ratio(first, second, *sides)
    macs = theirs.count("MACs"), own.count("MACs")
    papers = {one.paper: one for one in theirs.published}
    return RelativeSlowdown(
        subject=" / ".join(models),
        models=models,
        from_side=own.from_side,
        to_side=own.to_side,
        time=ratio,
        interval=interval,
        counts=(("MACs", macs[0] / macs[1]),) if macs[0] and macs[1] else (),
        published=tuple(
            replace(one, ratio=dit.ratio / one.ratio, taken_over=dit.taken_over or one.taken_over)
            for one in own.published
            if (dit := papers.get(one.paper)) is not None
        ),
        refused=own.refused,
        batches=study.batches(models, "time", sides),
    )


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """The side at which one of two models becomes the cheaper one."""

    first: str
    second: str
    cost: str
    at: CrossOver
    sides: tuple[float, float]  # the range of sizes that both have
    refused: str  # reason that times give no verdict; blank if they do, and for counts
    batches: tuple[int, ...]  # of both at these sizes, the largest first; none for MACs

    @property
    def verdict(self) -> str:
        """The cross-over in words; beyond the range of sizes it is marked as extrapolated."""
        if self.refused:
            return f"not judged: {self.refused}"
        return _judged(self._finding, self.batches)

    @property
    def _finding(self) -> str:
        at = self.at
        below, above = (self.first, self.second) if at.below == "first" else (self.second, self.first)
        more = {"time": "faster", "MACs": "fewer MACs"}[self.cost]
        equal = f"equal at {', '.join(f'{side:.0f}' for side in at.equal)} px"
        if at.side is not None:
            text = f"{below} {more} below, {above} above" + (f"; {equal}" if at.equal else "")
            return text if at.certain else f"{text}; too close to be sure"
        if not at.certain:
            return "none in the range, but too close to be sure"
        if at.below == "neither":
            return "none: equal at every size"
        text = f"none in the range: {below} {more}" + (f", {equal}" if at.equal else " throughout")
        if at.extrapolated is not None:
            text += f"; extrapolated, not measured: {at.extrapolated:.0f} px"
        return text


def crossings(study: Study, cost: str = "time") -> list[Crossing]:
    """The cross-overs of every pair of models in a study with two common sizes."""
    curves = {model: study.curve(model, cost) for model in study.models}
    found = []
    for first, second in combinations(study.models, 2):
        shared = sorted(set(curves[first].sides) & set(curves[second].sides))
        if len(shared) >= 2:
            found += [
                Crossing(
                    first=first,
                    second=second,
                    cost=cost,
                    at=at,
                    sides=(shared[0], shared[-1]),
                    refused=why_refused(study.drift) if cost == "time" else "",
                    batches=study.batches((first, second), cost, shared),
                )
                for at in cross_overs.cross_overs(curves[first], curves[second])
            ]
    return found
