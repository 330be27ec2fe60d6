"""Which backbone learns faster: what the loss curves of paired arms say at equal steps, work, time or energy.

Arms of a study share their seeds: seed k has the same data order, timesteps, noise and initialisation seed
in every arm. So differences are taken within a seed, and intervals are Student's t over the seeds, which
takes the differences to be spread normally; below three seeds there is none. Each is a 95 % interval of one
comparison, not of all of a table at once; that of a correlation is of all its pairs of arms at once.

Between two evaluations a curve is taken to be straight over the logarithm of the axis, or over the axis
itself from step 0 on. Nothing is read beyond the last evaluation. No torch here.
"""

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, geometric_mean
from typing import Literal

from bench.records import labels
from bench.records.record import Evaluation, Recipe, Record, Size, Trained
from bench.stats import intervals

Axis = Literal["steps", "images", "flops", "seconds", "joules"]
AXES: tuple[Axis, ...] = ("steps", "images", "flops", "seconds", "joules")
Curve = tuple[tuple[float, float], ...]  # (place on an axis, loss), in order
Interval = tuple[float, float]

ORDERS = 10_000  # where there are too many to look at all
SEED = 0  # of the drawn ones
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What arms must share to be compared."""

    recipe: Recipe
    res: Size
    latent_size: Size
    precision: str
    switches: tuple[str, ...]  # what is not as usual, in words
    processes: int
    device: str
    threads: int
    torch: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """Arms under one setting."""

    setting: Setting
    arms: Mapping[str, Mapping[int, Trained]]  # those that ended well, by model and seed
    failed: tuple[Trained, ...]

    @property
    def reference(self) -> str:
        """The arm that the others are held to: the first of family DiT, or the first of all."""
        return next(
            (model for model, runs in self.arms.items() if _family(runs) == "DiT"), next(iter(self.arms))
        )

    def seeds(self, *models: str) -> tuple[int, ...]:
        """The seeds that all of these models have; without one, all models of the study."""
        shared = set.intersection(*(set(self.arms[model]) for model in models or self.arms))
        return tuple(sorted(shared))

    @property
    def others(self) -> tuple[str, ...]:
        return tuple(model for model in self.arms if model != self.reference)


def _family(runs: Mapping[int, Trained]) -> str:
    return next(iter(runs.values())).run.family


def setting_of(trained: Trained) -> Setting:
    run = trained.run
    return Setting(
        recipe=trained.recipe,
        res=run.res,
        latent_size=run.latent_size,
        precision=run.precision,
        switches=labels.switches(run),
        processes=trained.processes,
        device=run.environment.device,
        threads=run.environment.threads,
        torch=run.environment.torch,
    )


def studies(records: Sequence[Record]) -> list[Study]:
    """Gather the arms of each study, in the order in which settings and models first come.

    The newest record of a model and a seed counts. A study in which no arm ended well is left out: its runs
    are those of `unfinished`.
    """
    made = []
    for setting, models in _newest(records).items():
        ended = {
            model: {seed: run for seed, run in sorted(runs.items()) if run.status == "ok"}
            for model, runs in models.items()
        }
        failed = tuple(run for runs in models.values() for run in runs.values() if run.status != "ok")
        arms = {model: runs for model, runs in ended.items() if runs}
        if arms:
            made.append(Study(setting=setting, arms=arms, failed=failed))
    return made


def unfinished(records: Sequence[Record]) -> tuple[Trained, ...]:
    """The runs of settings under which none ended well, in the order in which they first come."""
    return tuple(
        run
        for models in _newest(records).values()
        if not any(run.status == "ok" for runs in models.values() for run in runs.values())
        for runs in models.values()
        for run in runs.values()
    )


def _newest(records: Sequence[Record]) -> dict[Setting, dict[str, dict[int, Trained]]]:
    """The newest record of each setting, model and seed."""
    found: dict[Setting, dict[str, dict[int, Trained]]] = {}
    for record in records:
        if isinstance(record, Trained):
            runs = found.setdefault(setting_of(record), {}).setdefault(record.run.model, {})
            held = runs.get(record.seed)
            if held is None or held.run.environment.date <= record.run.environment.date:
                runs[record.seed] = record
    return found


# one curve


def curve(trained: Trained, axis: Axis = "steps", ema: int | None = None) -> Curve:
    """The validation loss of one run along an axis; empty for joules that nothing read.

    Args:
        trained: the run.
        axis: steps, images, flops (2 x MACs of a training step), seconds of training or joules.
        ema: which of the recipe's averages; None: the trained weights.
    """
    return tuple(_points(trained, axis, ema).values())


def _points(trained: Trained, axis: Axis, ema: int | None) -> dict[int, tuple[float, float]]:
    """The points of a curve by step; those whose place is not known, such as early joules, are left out."""
    points = {}
    for at in trained.evaluations:
        place = _place(trained, axis, at)
        if place is not None:
            points[at.step] = (place, at.loss if ema is None else at.ema_losses[ema])
    return points if len(points) > 1 else {}


def _place(trained: Trained, axis: Axis, at: Evaluation) -> float | None:
    images = at.step * trained.recipe.batch
    return {
        "steps": float(at.step),
        "images": float(images),
        "flops": 2.0 * trained.train_macs * images,
        "seconds": at.seconds,
        "joules": at.joules if at.step else 0.0,
    }[axis]


def loss_at(points: Curve, place: float) -> float | None:
    """Read a curve at a place; None before its first or beyond its last point."""
    for (left, before), (right, after) in itertools.pairwise(points):
        if left <= place <= right:
            return before + (after - before) * _share(left, right, place)
    return None


def reached_at(points: Curve, loss: float) -> float | None:
    """Where a curve first comes down to a loss; None if it never does."""
    if points and points[0][1] <= loss:
        return points[0][0]
    for (left, before), (right, after) in itertools.pairwise(points):
        if after <= loss < before:
            share = (before - loss) / (before - after)
            return left + share * (right - left) if left <= 0 else left * (right / left) ** share
    return None


def _share(left: float, right: float, place: float) -> float:
    """How far a place lies between two, on the axis that the curve is straight over."""
    if right == left:
        return 1.0
    return math.log(place / left) / math.log(right / left) if left > 0 else (place - left) / (right - left)


def best(points: Curve) -> float:
    """The lowest loss of a curve."""
    return min(loss for _, loss in points)


# differences within a seed


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over seeds."""

    values: tuple[float, ...]  # one a seed

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def interval(self) -> Interval | None:
        """95 %, Student's t; None below three seeds."""
        return intervals.mean_interval(self.values)

    @property
    def verdict(self) -> str:
        """lower, higher, not told apart or, without an interval, blank; of a difference."""
        if self.interval is None:
            return ""
        low, high = self.interval
        return "lower" if high < 0 else "higher" if low > 0 else "not told apart"


@dataclass(frozen=True, kw_only=True)
class Change:
    """By how many per cent losses lie above others, as a geometric mean over seeds: never below -100."""

    ratios: tuple[float, ...]  # of the losses, one a seed

    @property
    def values(self) -> tuple[float, ...]:
        return tuple(map(_percent, self.ratios))

    @property
    def mean(self) -> float:
        return _percent(geometric_mean(self.ratios))

    @property
    def interval(self) -> Interval | None:
        """95 %, Student's t on the logarithms of the ratios; None below three seeds."""
        interval = intervals.ratio_interval(self.ratios)
        return interval and (_percent(interval[0]), _percent(interval[1]))


def _percent(ratio: float) -> float:
    return 100 * (ratio - 1)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Loss of an arm less that of the reference with the same seed, at one place of an axis."""

    axis: Axis
    place: float
    losses: tuple[float, ...]  # of the arm there, one a seed
    references: tuple[float, ...]

    @property
    def difference(self) -> Estimate:
        return Estimate(values=tuple(a - b for a, b in zip(self.losses, self.references, strict=True)))

    @property
    def percent(self) -> Change | None:
        """Of the reference's loss; None where a loss is not above zero, as one with a bound in it can be."""
        if min(*self.losses, *self.references) <= 0:
            return None
        return Change(ratios=tuple(a / b for a, b in zip(self.losses, self.references, strict=True)))


def final_loss(study: Study, model: str, ema: int | None = None) -> Estimate:
    """Loss at the last evaluation of every seed."""
    return Estimate(values=tuple(curve(run, "steps", ema)[-1][1] for run in study.arms[model].values()))


def difference(
    study: Study,
    model: str,
    axis: Axis = "steps",
    *,
    reference: str | None = None,
    place: float | None = None,
    ema: int | None = None,
) -> Difference | None:
    """Compare an arm with the reference at equal steps, images, FLOPs, seconds or joules.

    Args:
        study: the arms.
        model: the arm.
        axis: what is equal.
        reference: the study's by default.
        place: where; by default the last that all runs of both reach.
        ema: which average of the weights; None: the trained weights.

    Returns:
        None where the two share no seed, the axis was not read, or a run does not reach the place.
    """
    pairs = _pairs(study, model, reference or study.reference, axis, ema)
    if not pairs:
        return None
    at = min(points[-1][0] for pair in pairs for points in pair) if place is None else place
    losses = [(loss_at(ours, at), loss_at(theirs, at)) for ours, theirs in pairs]
    known = [(ours, theirs) for ours, theirs in losses if ours is not None and theirs is not None]
    if len(known) < len(losses):
        return None
    return Difference(
        axis=axis,
        place=at,
        losses=tuple(ours for ours, _ in known),
        references=tuple(theirs for _, theirs in known),
    )


def _pairs(
    study: Study, model: str, reference: str, axis: Axis, ema: int | None
) -> list[tuple[Curve, Curve]]:
    """The curves of an arm and of the reference for every seed that both have; none if one is empty."""
    pairs = [
        (curve(study.arms[model][seed], axis, ema), curve(study.arms[reference][seed], axis, ema))
        for seed in study.seeds(model, reference)
    ]
    return pairs if all(ours and theirs for ours, theirs in pairs) else []


def bin_differences(study: Study, model: str, reference: str | None = None) -> tuple[Difference, ...]:
    """Differences by range of timesteps, from little noise to much, at the last step both evaluate."""
    reference = reference or study.reference
    seeds = study.seeds(model, reference)
    steps = common_steps([study.arms[arm][seed] for arm in (model, reference) for seed in seeds])
    if not steps:
        return ()
    ours, theirs = ([_bins(study.arms[arm][seed], steps[-1]) for seed in seeds] for arm in (model, reference))
    count = min(len(bins) for bins in (*ours, *theirs))
    return tuple(
        Difference(
            axis="steps",
            place=float(steps[-1]),
            losses=tuple(bins[i] for bins in ours),
            references=tuple(bins[i] for bins in theirs),
        )
        for i in range(count)
    )


def _bins(trained: Trained, step: int) -> tuple[float, ...]:
    return next(at.bin_losses for at in trained.evaluations if at.step == step)


def common_steps(runs: Sequence[Trained]) -> tuple[int, ...]:
    """The steps at which all of these runs were evaluated."""
    return (
        tuple(sorted(set.intersection(*({at.step for at in run.evaluations} for run in runs))))
        if runs
        else ()
    )


@dataclass(frozen=True, kw_only=True)
class Mean:
    """The mean of an arm's curves at one evaluation."""

    place: float  # mean over seeds
    loss: Estimate


def mean_curve(study: Study, model: str, axis: Axis = "steps", ema: int | None = None) -> tuple[Mean, ...]:
    """The mean over seeds at each evaluation that all have; empty where the axis was not read."""
    runs = [_points(run, axis, ema) for run in study.arms[model].values()]
    return tuple(
        Mean(
            place=fmean(run[step][0] for run in runs),
            loss=Estimate(values=tuple(run[step][1] for run in runs)),
        )
        for step in sorted(set.intersection(*map(set, runs)))
    )


# how much sooner a loss is reached


@dataclass(frozen=True, kw_only=True)
class Reach:
    """In how many times fewer steps, FLOPs or seconds an arm comes down to the reference's lowest loss.

    Of each seed: what the reference took to its lowest loss, over what the arm took to the same loss. An arm
    that never gets there took more than all it had, which bounds its ratio from above.
    """

    axis: Axis
    ratios: tuple[float | None, ...]  # one a seed; None: not reached
    bounds: tuple[float, ...]  # of each seed: the ratio, had the arm reached the loss with its last step

    @property
    def reached(self) -> int:
        return sum(ratio is not None for ratio in self.ratios)

    @property
    def ratio(self) -> float | None:
        """Geometric mean; None where a seed did not reach the loss."""
        known = self._known
        return None if known is None else geometric_mean(known)

    @property
    def bound(self) -> float:
        """What the geometric mean is below, where no seed reached the loss."""
        return geometric_mean(self.bounds)

    @property
    def interval(self) -> Interval | None:
        """95 %, Student's t on the logarithms; None below three seeds or where one did not reach the loss."""
        return intervals.ratio_interval(self._known or ())

    @property
    def _known(self) -> tuple[float, ...] | None:
        known = tuple(ratio for ratio in self.ratios if ratio is not None)
        return known if len(known) == len(self.ratios) else None


def reach(
    study: Study, model: str, axis: Axis = "steps", *, reference: str | None = None, ema: int | None = None
) -> Reach | None:
    """How much sooner an arm comes down to the reference's lowest loss; swap the two for the reverse.

    Returns:
        None where the two share no seed, the axis was not read, or the lowest loss was the untrained one.
    """
    ratios: list[float | None] = []
    bounds: list[float] = []
    for ours, theirs in _pairs(study, model, reference or study.reference, axis, ema):
        loss = best(theirs)
        took, other = reached_at(theirs, loss), reached_at(ours, loss)
        if not took or other == 0:
            return None
        ratios.append(None if other is None else took / other)
        bounds.append(took / ours[-1][0])
    return Reach(axis=axis, ratios=tuple(ratios), bounds=tuple(bounds)) if ratios else None


# rankings


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The arms in order of loss at one step, the lowest first."""

    step: int
    ranking: tuple[str, ...]  # by the mean over seeds
    tau: float  # Kendall's, between this ranking and that of the last step
    agreeing: float  # share of the seeds whose own ranking at this step is this one


def standings(study: Study, ema: int | None = None) -> tuple[Standing, ...]:
    """Rank the arms at each step that all evaluate, step 0 left out, by the seeds that all have.

    At step 0 nothing is learned yet, and networks whose last layer starts at zero are all equal.
    """
    seeds = study.seeds()
    runs = {model: [arms[seed] for seed in seeds] for model, arms in study.arms.items()}
    steps = [step for step in common_steps([run for arm in runs.values() for run in arm]) if step]
    if not seeds or not steps or len(runs) < 2:
        return ()
    losses = {
        step: {model: [_loss(run, step, ema) for run in arm] for model, arm in runs.items()} for step in steps
    }

    def means(step: int) -> dict[str, float]:
        return {model: fmean(values) for model, values in losses[step].items()}

    last = means(steps[-1])
    made = []
    for step in steps:
        now = means(step)
        ranking = _ranked(now)
        own = [
            _ranked({model: values[i] for model, values in losses[step].items()}) for i in range(len(seeds))
        ]
        made.append(
            Standing(
                step=step,
                ranking=ranking,
                tau=kendall([now[model] for model in runs], [last[model] for model in runs]),
                agreeing=own.count(ranking) / len(own),
            )
        )
    return tuple(made)


def settled(found: Sequence[Standing]) -> int | None:
    """The first step from which on the ranking is that of the last; None without a ranking."""
    step = None
    for standing in reversed(found):
        if standing.ranking != found[-1].ranking:
            break
        step = standing.step
    return step


def _loss(trained: Trained, step: int, ema: int | None) -> float:
    at = next(at for at in trained.evaluations if at.step == step)
    return at.loss if ema is None else at.ema_losses[ema]


def _ranked(losses: Mapping[str, float]) -> tuple[str, ...]:
    return tuple(sorted(losses, key=lambda model: losses[model]))


def kendall(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's tau-b of two rankings, which may hold ties; 0 where one of them is all ties."""
    signs = [(_sign(a[i] - a[j]), _sign(b[i] - b[j])) for i, j in itertools.combinations(range(len(a)), 2)]
    untied = math.sqrt(sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs))
    return sum(x * y for x, y in signs) / untied if untied else 0.0


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's rank correlation; ties have their mean rank, and 0 where one of them is all ties."""
    x, y = _ranks(a), _ranks(b)
    middle = (len(a) - 1) / 2
    product = sum((i - middle) * (j - middle) for i, j in zip(x, y, strict=True))
    size = math.sqrt(sum((i - middle) ** 2 for i in x) * sum((j - middle) ** 2 for j in y))
    return product / size if size else 0.0


def _ranks(values: Sequence[float]) -> list[float]:
    return [sum(other < value for other in values) + (values.count(value) - 1) / 2 for value in values]


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


# does a short run foretell a long one?


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """Of two rankings of the same models: by loss here, by another number elsewhere."""

    models: tuple[str, ...]
    spearman: float
    kendall: float
    spearman_interval: Interval | None  # over the orders that the seeds leave open; None below three seeds
    kendall_interval: Interval | None
    p_value: float  # two-sided: share of the orders of the models with a |Kendall's tau| as large or larger
    least_p_value: float  # that so few models could give with the two rankings alike


def foretells(
    study: Study, other: Mapping[str, float], *, step: int | None = None, ema: int | None = None
) -> Correlation | None:
    """Correlate the ranking by loss with that by another number, such as a published FID.

    The intervals hold the correlation of these models' true mean losses with a confidence of at least 95 %:
    they say how far the seeds leave it open, and nothing of other models than these, on which p_value stands.
    Resampling so few seeds would not do: of three, it covers far fewer than 95 of 100 where arms lie close.

    Args:
        study: the arms.
        other: model -> number, lower is better; models in one of the two only are left out.
        step: of the loss; the last that all evaluate by default.
        ema: which average of the weights; None: the trained weights.

    Returns:
        None with fewer than three models, without a seed that all have, or without that step.
    """
    models = tuple(model for model in study.arms if model in other)
    if len(models) < 3:
        return None
    seeds = study.seeds(*models)
    steps = common_steps([study.arms[model][seed] for model in models for seed in seeds])
    if not seeds or not steps or (step is not None and step not in steps):
        return None
    at = steps[-1] if step is None else step
    numbers = [other[model] for model in models]
    losses = [[_loss(study.arms[model][seed], at, ema) for seed in seeds] for model in models]
    means = [fmean(arm) for arm in losses]
    tau = kendall(means, numbers)
    told, ranks = _told_apart(losses), _ranks(numbers)
    alike = [abs(kendall(order, numbers)) for order in _orders(numbers)]
    most = max(alike)
    return Correlation(
        models=models,
        spearman=spearman(means, numbers),
        kendall=tau,
        spearman_interval=_left_open(told, numbers, spearman, lambda i, j: ranks[i] - ranks[j]),
        kendall_interval=_left_open(told, numbers, kendall, lambda i, j: _sign(ranks[i] - ranks[j])),
        p_value=sum(value >= abs(tau) - 1e-9 for value in alike) / len(alike),
        least_p_value=sum(value >= most - 1e-9 for value in alike) / len(alike),
    )


def _told_apart(losses: Sequence[Sequence[float]]) -> dict[tuple[int, int], int] | None:
    """Which arm of each pair has the higher loss: 1 the first, -1 the second, 0 where the seeds do not tell.

    Student's t within seeds, at a level by which with 95 % no pair of all is told the wrong way round. A pair
    can be so in one direction only, but for two arms with exactly equal true losses, so each pair may use up
    its share of 5 % on one side.

    Args:
        losses: of every arm, one a seed.

    Returns:
        None below three seeds.
    """
    pairs = list(itertools.combinations(range(len(losses)), 2))
    confidence = 1 - 2 * (1 - CONFIDENCE) / len(pairs)
    told = {}
    for i, j in pairs:
        apart = intervals.mean_interval(
            [a - b for a, b in zip(losses[i], losses[j], strict=True)], confidence
        )
        if apart is None:
            return None
        told[i, j] = (apart[0] > 0) - (apart[1] < 0)
    return told


def _left_open(
    told: Mapping[tuple[int, int], int] | None,
    numbers: Sequence[float],
    of: Callable[[Sequence[float], Sequence[float]], float],
    weight: Callable[[int, int], float],
) -> Interval | None:
    """The least and the greatest correlation where each pair that is not told apart may stand either way.

    Kendall's and Spearman's are, but for a factor, sums over pairs of their order by loss times a weight.

    Args:
        told: what `_told_apart` gives; None leaves no interval.
        numbers: what the losses are correlated with.
        of: kendall or spearman.
        weight: of a pair: the difference of its ranks by number, or for kendall the sign of it.
    """
    if told is None:
        return None
    weights = {pair: weight(*pair) for pair in told}
    whole = sum(map(abs, weights.values())) or 1.0
    known = sum(weights[pair] * told[pair] for pair in told)
    unknown = sum(abs(weights[pair]) for pair in told if not told[pair])
    order = sorted(range(len(numbers)), key=lambda i: numbers[i])
    most = of([order.index(i) for i in range(len(numbers))], numbers)  # 1, unless there are ties in numbers
    return most * (known - unknown) / whole, most * (known + unknown) / whole


def _orders(values: Sequence[float]) -> list[tuple[float, ...]]:
    """Every order of some numbers where they are few, drawn ones and the order itself where not."""
    if math.factorial(len(values)) <= ORDERS:
        return list(itertools.permutations(values))
    draw = random.Random(SEED)
    return [tuple(values), *(tuple(draw.sample(values, len(values))) for _ in range(ORDERS))]
