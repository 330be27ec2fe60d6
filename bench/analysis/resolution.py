"""What records say of models at several sizes: curves of time, MACs, bytes and memory. Imports no torch.

All of one image. Memory is what the passes hold beside parameters, moments and EMA, by their peak.
"""

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import combinations

from baselines import load
from bench.analysis.roofline import tensors_of
from bench.records import labels
from bench.records.record import Memory, MemoryUse, Record, Run, Size, Skipped, Throughput, Work, height_width
from bench.stats import power_law
from bench.stats.power_law import CrossOver, Curve, Drift, Exponent, Growth, Interval, Point

COSTS = ("time", "MACs", "bytes", "memory")
MARGIN = 0.05  # ratios closer than this are the same
MAX_DRIFT = 0.2  # visits that differ by more judge nothing: such noise has tails that no interval knows
_QUESTION = re.compile(r"scaling of (inference|training) from batch (\d+), visit (\d+)")
# tables of one paper at 256 and at 512 px: what falls from the first to the second
PUBLISHED = (("FCDM", "fcdm_table03", "fcdm_table05"), ("DiCo", "dico_table01", "dico_table02"))
PUBLISHED_SIDES = (256.0, 512.0)
_ON_FALLS = 2  # the remark on them
TAKEN_OVER = "a throughput behind it is probably another paper's, so that the ratio may be of two devices"


def question(work: str, batch: int, visit: int) -> str:
    """What the run of one visit asks; the batch is the one that was asked for, which may shrink."""
    return f"scaling of {work} from batch {batch}, visit {visit}"


def side_of(res: Size) -> float:
    """The side of a square of as many pixels."""
    height, width = height_width(res)
    return float(height) if height == width else math.sqrt(height * width)


@dataclass(frozen=True, kw_only=True, order=True)
class Setting:
    """What the curves of one study share."""

    work: str
    precision: str
    device: str  # blank for counts alone
    from_batch: int  # that was asked for
    switches: tuple[str, ...] = ()  # what is not as usual, in words

    def __str__(self) -> str:
        words = [self.work, *([self.device] if self.device else []), self.precision]
        words.append(f"from batch {self.from_batch}" if self.device else f"batch {self.from_batch}")
        return ", ".join([*words, *self.switches])


@dataclass(frozen=True, kw_only=True)
class Sized:
    """One model at one size; None is what no record says."""

    model: str
    family: str
    res: Size
    batch: int  # that ran, or, where none did, that was tried last
    visits: tuple[tuple[float, ...], ...]  # seconds an image
    failed: tuple[Skipped, ...]  # attempts that gave no time, in order
    work: Work | None
    memory: Memory | None

    @property
    def side(self) -> float:
        return side_of(self.res)

    @property
    def macs(self) -> float | None:
        return self.work.macs / self.work.batch if self.work else None

    @property
    def eager_bytes(self) -> float | None:
        return self.work.eager_bytes / self.work.batch if self.work else None

    @property
    def fused_bytes(self) -> float | None:
        return self.work.fused_bytes / self.work.batch if self.work else None

    @property
    def held_bytes(self) -> float | None:
        """What the passes hold for each image, by their peak."""
        if self.memory is None or self.memory.use is None:
            return None
        return passes_bytes(self.memory.use) / self.memory.run.batch

    def batch_of(self, cost: str) -> int | None:
        """The batch that a cost of one image is of; None for MACs, which are the same at any."""
        if cost == "bytes" and self.work is not None:
            return self.work.batch
        return None if cost == "MACs" else self.batch  # memory is that of the batch that ran

    def point(self, cost: str) -> Point | None:
        if cost == "time":
            return Point(side=self.side, visits=self.visits) if self.visits else None
        value = {"MACs": self.macs, "bytes": self.eager_bytes, "memory": self.held_bytes}[cost]
        return power_law.counted(self.side, value) if value else None


def passes_bytes(use: MemoryUse) -> int:
    """The peak of the passes less what is there before them.

    Gradients count: where they and not the activations make the peak, leaving them out would leave nothing.
    """
    return use.passes_peak_bytes - use.parameters_bytes - use.optimizer_bytes - use.ema_bytes


@dataclass(frozen=True, kw_only=True)
class Study:
    """Models at several sizes under one setting."""

    setting: Setting
    sizes: tuple[Sized, ...]  # by model, then from the smallest
    runs: tuple[Run, ...] = field(default=(), repr=False)  # of what was timed, the newest last

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(sized.model for sized in self.sizes))

    @property
    def drift(self) -> Drift | None:
        """What visits of one case differ by; None where none was visited twice."""
        return power_law.drift_of([p for sized in self.sizes if (p := sized.point("time"))])

    def interval(self, sized: Sized) -> Interval | None:
        """The interval of one size's time; None where it has no time, or too few samples."""
        point = sized.point("time")
        if point is None:
            return None
        return power_law.intervals(Curve(points=(point,), drift=self.drift))[0]

    def batches(self, models: Collection[str], cost: str, sides: Collection[float]) -> tuple[int, ...]:
        """The batches that costs are of, the largest first; none for MACs."""
        found = {
            sized.batch_of(cost)
            for sized in self.sizes
            if sized.model in models and sized.side in sides and sized.point(cost) is not None
        }
        return tuple(sorted(filter(None, found), reverse=True))

    def curve(self, model: str, cost: str, among: Collection[Size] | None = None) -> Curve:
        """The curve of a cost; sizes with as many pixels are one point, the geometric mean of their visits.

        Args:
            model: one of the study.
            cost: one of COSTS.
            among: only these sizes; None for all.
        """
        by_side: dict[float, tuple[tuple[float, ...], ...]] = {}
        for sized in self.sizes:
            wanted = sized.model == model and (among is None or sized.res in among)
            point = sized.point(cost) if wanted else None
            if point is not None:
                by_side[point.side] = by_side.get(point.side, ()) + point.visits
        timed = cost == "time"
        return Curve(
            points=tuple(Point(side=side, visits=by_side[side]) for side in sorted(by_side)),
            drift=self.drift if timed else None,
            exact=not timed,
        )


def spanned(batches: Sequence[int]) -> str:
    """The batches that costs are of, the largest first: "16 to 2", or one; blank where they have none."""
    return " to ".join(map(str, dict.fromkeys((*batches[:1], *batches[-1:]))))


def shrunk(batches: Sequence[int]) -> str:
    """Say that costs are of several batches, the largest first; blank of one."""
    return f"batch {spanned(batches)}" if len(batches) > 1 else ""


def _judged(verdict: str, batches: Sequence[int]) -> str:
    """A verdict, with the batches that are behind it if they differ."""
    return "; ".join(filter(None, (verdict, shrunk(batches))))


def studies(records: Iterable[Record]) -> list[Study]:
    """Every study that was timed, from records in any order; the newest of a case counts."""
    held = list(records)
    timed: dict[Setting, dict[tuple[str, Size], dict[tuple[int, int], Throughput | Skipped]]] = {}
    for record in sorted(
        (r for r in held if isinstance(r, Throughput | Skipped)), key=lambda r: r.run.environment.date
    ):
        asked = _QUESTION.fullmatch(record.run.question)
        if asked:
            setting = _setting(record.run, asked[1], int(asked[2]))
            case = timed.setdefault(setting, {}).setdefault((record.run.model, record.run.res), {})
            case[int(asked[3]), -record.run.batch] = record
    works = [record for record in held if isinstance(record, Work)]
    memories = [record for record in held if isinstance(record, Memory)]
    found = []
    for setting in sorted(timed):
        cases = timed[setting]
        sizes = [_sized(setting, cases[case], works, memories) for case in cases]
        runs = sorted(
            (r.run for case in cases.values() for r in case.values()), key=lambda run: run.environment.date
        )
        found.append(Study(setting=setting, sizes=_ordered(sizes), runs=tuple(runs)))
    return found


def counts(records: Iterable[Record]) -> list[Study]:
    """The counts alone, of every kind of work, precision and batch."""
    found: dict[Setting, dict[tuple[str, Size], Sized]] = {}
    for work in (record for record in records if isinstance(record, Work)):
        setting = Setting(work=work.work, precision=work.precision, device="", from_batch=work.batch)
        found.setdefault(setting, {})[work.model, work.res] = Sized(
            model=work.model,
            family=work.family,
            res=work.res,
            batch=work.batch,
            visits=(),
            failed=(),
            work=work,
            memory=None,
        )
    return [Study(setting=setting, sizes=_ordered(found[setting].values())) for setting in sorted(found)]


def _ordered(sizes: Iterable[Sized]) -> tuple[Sized, ...]:
    held = list(sizes)
    models = list(dict.fromkeys(sized.model for sized in held))
    return tuple(sorted(held, key=lambda sized: (models.index(sized.model), sized.side)))


def _setting(run: Run, work: str, batch: int) -> Setting:
    return Setting(
        work=work,
        precision=run.precision,
        device=run.environment.device,
        from_batch=batch,
        switches=labels.switches(run),
    )


def _sized(
    setting: Setting,
    attempts: dict[tuple[int, int], Throughput | Skipped],
    works: Sequence[Work],
    memories: Sequence[Memory],
) -> Sized:
    tried = [attempts[at] for at in sorted(attempts)]
    timed = [record for record in tried if isinstance(record, Throughput)]
    run = (timed or tried)[-1].run
    # a later visit may have had to go lower: only visits of the same batch make one point
    kept = [record for record in timed if record.run.batch == run.batch]
    return Sized(
        model=run.model,
        family=run.family,
        res=run.res,
        batch=run.batch,
        visits=tuple(tuple(time / run.batch for time in record.times_s) for record in kept),
        failed=tuple(record for record in tried if isinstance(record, Skipped)),
        work=_work_of(run, setting.work, works),
        memory=_memory_of(run, setting, memories),
    )


def _work_of(run: Run, work: str, works: Sequence[Work]) -> Work | None:
    """The count of the batch that ran, or of the nearest."""
    fitting = [
        one
        for one in works
        if (one.model, one.res, one.work) == (run.model, run.res, work)
        and one.precision == tensors_of(run.precision)
    ]
    near = [(abs(one.batch - run.batch), one.environment.date, i) for i, one in enumerate(fitting)]
    return fitting[min(near)[2]] if near else None


def _memory_of(run: Run, setting: Setting, memories: Sequence[Memory]) -> Memory | None:
    """The memory of a case as it ran: measured on this device, or else predicted."""
    fitting = [
        one
        for one in memories
        if (one.run.model, one.run.res, one.run.batch) == (run.model, run.res, run.batch)
        and (one.work, one.limit_bytes) == (setting.work, None)
        and tensors_of(one.run.precision) == tensors_of(run.precision)
        and (one.work == "inference" or one.checkpointing == run.checkpointing)
        and (one.predicted or one.run.environment.device == setting.device)
    ]
    known = [(not one.predicted, one.run.environment.date, i) for i, one in enumerate(fitting)]
    return fitting[max(known)[2]] if known else None


# growth, and what is printed of it


@dataclass(frozen=True, kw_only=True)
class Fall:
    """By how many times a published throughput falls from 256 to 512 px."""

    paper: str
    model: str
    ratio: float
    taken_over: bool  # one of its two throughputs, so that they may be of two devices


@cache
def published_falls() -> tuple[Fall, ...]:
    """Every pair of throughputs that one paper prints at both sizes."""
    found = {}
    for paper, small, large in PUBLISHED:
        rows = [
            {load.backbone_name(row): row for row in load.table(name).rows if row["throughput"].value}
            for name in (small, large)
        ]
        for model in rows[0].keys() & rows[1].keys():
            first, second = (of[model]["throughput"].value for of in rows)
            assert first is not None
            assert second is not None
            found[paper, model] = Fall(
                paper=paper,
                model=model,
                ratio=first / second,
                taken_over=any(
                    load.taken_over(name, "throughput", of[model])
                    for name, of in zip((small, large), rows, strict=True)
                ),
            )
    return tuple(found[key] for key in sorted(found))


def remark_on_falls() -> str:
    """What contradicts what in those of the papers."""
    return load.remark(_ON_FALLS).statement


def falls_of(model: str, family: str) -> tuple[Fall, ...]:
    """The published falls of a model; where there are none, those of its family's other sizes."""
    own = tuple(fall for fall in published_falls() if fall.model == model)
    return own or tuple(fall for fall in published_falls() if fall.model.rpartition("-")[0] == family)


@dataclass(frozen=True, kw_only=True)
class Doubling:
    """What a doubled side costs one model."""

    model: str
    time: Growth | None
    from_side: float
    to_side: float
    others: tuple[tuple[str, float], ...]  # growth of MACs, bytes and memory, as far as they are known
    falls: tuple[Fall, ...]  # published, from 256 to 512 px; empty for other sizes
    refused: str  # why its times judge nothing; blank where they do
    batches: tuple[int, ...]  # of its times, the largest first

    def other(self, cost: str) -> float | None:
        return dict(self.others).get(cost)

    @property
    def verdict(self) -> str:
        """The measured growth beside that of the MACs and those that papers print."""
        if self.time is None:
            return ""
        if self.refused:
            return f"not judged: {self.refused}"
        against = [(f"{fall.paper} ({fall.model})", fall.ratio) for fall in self.falls]
        macs = self.other("MACs")
        against += [] if macs is None else [("its MACs", macs)]
        told: dict[str, list[str]] = {}
        for what, ratio in against:
            told.setdefault(_beside(self.time.interval, ratio), []).append(what)
        return _judged("; ".join(f"{how} {', '.join(what)}" for how, what in told.items()), self.batches)


def of_visits(drift: Drift | None) -> str:
    """What visits of one case differ by, and what follows, in words."""
    if drift is None:
        return f"{why_refused(drift)}: no intervals, and nothing is judged"
    return (
        f"visits of one case differ by {100 * drift.sd:.1f} % (standard deviation, {drift.freedom} degrees "
        f"of freedom), which is in the intervals; above {100 * MAX_DRIFT:.0f} % nothing is judged"
    )


def why_refused(drift: Drift | None) -> str:
    """Why times of such a drift judge nothing; blank where they do."""
    if drift is None:
        return "one visit of each case does not tell what visits differ by"
    return f"visits of one case differ by {100 * drift.sd:.0f} %" if drift.sd > MAX_DRIFT else ""


def _beside(interval: Interval | None, ratio: float) -> str:
    """Say how an interval lies to a ratio, within MARGIN of which all is the same."""
    if interval is None:
        return "too few samples to set beside"
    low, high = interval
    if low > ratio * (1 + MARGIN):
        return "more than"
    if high < ratio * (1 - MARGIN):
        return "less than"
    inside = ratio * (1 - MARGIN) <= low and high <= ratio * (1 + MARGIN)
    return "as" if inside else "not told apart from"


def doublings(study: Study, model: str) -> list[Doubling]:
    """Every doubling of the side within a model's sizes, timed or counted."""
    curves = {cost: study.curve(model, cost) for cost in COSTS}
    grown = {
        cost: {(g.from_side, g.to_side): g for g in power_law.doublings(curve)}
        for cost, curve in curves.items()
    }
    family = next(sized.family for sized in study.sizes if sized.model == model)
    steps = sorted({step for by_step in grown.values() for step in by_step})
    refused = why_refused(study.drift)
    # published are squares, and a point may be the mean of a square and of another shape
    squares = {
        step: not any(s.model == model and s.side in step and s.res != s.side for s in study.sizes)
        for step in steps
    }
    return [
        Doubling(
            model=model,
            time=grown["time"].get(step),
            from_side=step[0],
            to_side=step[1],
            others=tuple((cost, grown[cost][step].ratio) for cost in COSTS[1:] if step in grown[cost]),
            falls=falls_of(model, family)
            if step == PUBLISHED_SIDES and squares[step] and study.setting.work == "inference"
            else (),
            refused=refused,
            batches=study.batches((model,), "time", step),
        )
        for step in steps
    ]


def fitted(study: Study, model: str) -> dict[str, Exponent]:
    """The exponent of every cost that is known at two sizes or more."""
    found = {cost: power_law.exponent(study.curve(model, cost)) for cost in COSTS}
    return {cost: fit for cost, fit in found.items() if fit is not None}


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """How many times as much a transformer slows down as another network, when the side doubles."""

    model: str
    reference: str  # a DiT
    from_side: float
    to_side: float
    ratio: float
    interval: Interval | None
    macs: float | None  # the same ratio of MACs
    published: tuple[Fall, ...]  # the model's, with the ratio of DiT's fall to its own, from 256 to 512 px
    refused: str  # why times judge nothing; blank where they do
    batches: tuple[int, ...]  # of the four times, the largest first

    @property
    def verdict(self) -> str:
        """Whether the difference that a paper prints is there on this device."""
        if self.refused:
            return f"not judged: {self.refused}"
        if self.interval is None:
            return "too few samples"
        low, high = self.interval
        told = []
        for fall in self.published:
            paper, ratio = fall.paper, fall.ratio
            if high < ratio * (1 - MARGIN):
                told.append(f"{paper}'s {ratio:.2f} ruled out")
            elif low >= ratio * (1 - MARGIN):
                told.append(f"{paper}'s {ratio:.2f} reached")
            else:
                told.append(f"{paper}'s {ratio:.2f} neither reached nor ruled out")
        if low > 1 + MARGIN:
            told.append(f"{self.reference} slows more")
        elif high < 1 - MARGIN:
            told.append(f"{self.reference} slows less")
        else:
            same = low >= 1 - MARGIN and high <= 1 + MARGIN
            told.append("both slow alike" if same else "which slows more is not told")
        return _judged("; ".join(told), self.batches)


def contrasts(study: Study) -> list[Contrast]:
    """Every model of a study beside its DiTs, for every doubling that both were timed at."""
    families = {sized.model: sized.family for sized in study.sizes}
    found = []
    for reference in (model for model in study.models if families[model] == "DiT"):
        for model in (model for model in study.models if families[model] != "DiT"):
            theirs = {(d.from_side, d.to_side): d for d in doublings(study, reference) if d.time}
            for ours in doublings(study, model):
                step = (ours.from_side, ours.to_side)
                if ours.time is None or step not in theirs:
                    continue
                ratio, interval = power_law.growth_ratio(
                    study.curve(reference, "time"), study.curve(model, "time"), *step
                )
                counted = theirs[step].other("MACs"), ours.other("MACs")
                papers = {fall.paper: fall for fall in theirs[step].falls}
                found.append(
                    Contrast(
                        model=model,
                        reference=reference,
                        from_side=step[0],
                        to_side=step[1],
                        ratio=ratio,
                        interval=interval,
                        macs=counted[0] / counted[1] if counted[0] and counted[1] else None,
                        published=tuple(
                            replace(
                                fall,
                                ratio=dit.ratio / fall.ratio,
                                taken_over=dit.taken_over or fall.taken_over,
                            )
                            for fall in ours.falls
                            if (dit := papers.get(fall.paper)) is not None
                        ),
                        refused=ours.refused,
                        batches=study.batches((reference, model), "time", step),
                    )
                )
    return found


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """Where one of two models becomes the cheaper one."""

    first: str
    second: str
    cost: str
    at: CrossOver
    sides: tuple[float, float]  # the range of sizes that both have
    refused: str  # why times judge nothing; blank where they do, and for counts
    batches: tuple[int, ...]  # of both at these sizes, the largest first; none for MACs

    @property
    def verdict(self) -> str:
        """What was found in the range, and, said so, where the lines would lead."""
        if self.refused:
            return f"not judged: {self.refused}"
        return _judged(self._found, self.batches)

    @property
    def _found(self) -> str:
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
    """The cross-overs of every two models of a study that share two sizes."""
    curves = {model: study.curve(model, cost) for model in study.models}
    refused = why_refused(study.drift) if cost == "time" else ""
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
                    refused=refused,
                    batches=study.batches((first, second), cost, shared),
                )
                for at in power_law.cross_overs(curves[first], curves[second])
            ]
    return found
