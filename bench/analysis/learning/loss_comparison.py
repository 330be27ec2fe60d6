"""Losses compared with those of a reference: differences at equal cost, speed-ups to an equal loss.

Differences are taken within a seed. Intervals are Student's t over the seeds, which assumes normally
distributed differences; below three seeds there is none. Each is a 95 % interval of one comparison, not
adjusted for the number of comparisons in a table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import geometric_mean

from bench.analysis.learning.learning_curves import (
    Axis,
    Curve,
    Estimate,
    Interval,
    TrainingStudy,
    common_steps,
    curve,
    loss_at,
    reached_at,
)
from bench.records.training import TrainingRun
from bench.stats import intervals


@dataclass(frozen=True, kw_only=True)
class RelativeChange:
    """A relative change of losses in per cent: the geometric mean over seeds, always above -100."""

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
class LossDifference:
    """The loss of a model minus that of the reference with the same seed, at one position of an axis."""

    axis: Axis
    position: float
    losses: tuple[float, ...]  # of the model, one a seed
    references: tuple[float, ...]

    @property
    def difference(self) -> Estimate:
        return Estimate(values=tuple(a - b for a, b in zip(self.losses, self.references, strict=True)))

    @property
    def percent(self) -> RelativeChange | None:
        """Difference relative to the reference's loss; None if a loss is not positive."""
        if min(*self.losses, *self.references) <= 0:
            return None
        return RelativeChange(ratios=tuple(a / b for a, b in zip(self.losses, self.references, strict=True)))


def difference(
    study: TrainingStudy, model: str, axis: Axis = "steps", *, reference: str | None = None
) -> LossDifference | None:
    """Compare a model with the reference at the last position on an axis that all runs of both reach.

    None if the two share no seed, the axis was not measured, or a run does not reach the position.
    """
    pairs = _curve_pairs(study, model, reference or study.reference, axis)
    if not pairs:
        return None
    at = min(points[-1][0] for pair in pairs for points in pair)
    losses = [(loss_at(ours, at), loss_at(theirs, at)) for ours, theirs in pairs]
    known = [(ours, theirs) for ours, theirs in losses if ours is not None and theirs is not None]
    if len(known) < len(losses):
        return None
    return LossDifference(
        axis=axis,
        position=at,
        losses=tuple(ours for ours, _ in known),
        references=tuple(theirs for _, theirs in known),
    )


def _curve_pairs(study: TrainingStudy, model: str, reference: str, axis: Axis) -> list[tuple[Curve, Curve]]:
    """The curves of a model and of the reference for every common seed; empty if any curve is empty."""
    pairs = [
        (curve(study.runs[model][seed], axis), curve(study.runs[reference][seed], axis))
        for seed in study.seeds(model, reference)
    ]
    return pairs if all(ours and theirs for ours, theirs in pairs) else []


def bin_differences(
    study: TrainingStudy, model: str, reference: str | None = None
) -> tuple[LossDifference, ...]:
    """Differences by range of noise, from low to high, at the last step at which both were evaluated."""
    pair = (model, reference or study.reference)
    runs = [[study.runs[name][seed] for seed in study.seeds(*pair)] for name in pair]
    steps = common_steps([run for of_model in runs for run in of_model])
    if not steps:
        return ()
    ours, theirs = ([_bins(run, steps[-1]) for run in of_model] for of_model in runs)
    count = min(len(bins) for bins in (*ours, *theirs))
    return tuple(
        LossDifference(
            axis="steps",
            position=float(steps[-1]),
            losses=tuple(bins[i] for bins in ours),
            references=tuple(bins[i] for bins in theirs),
        )
        for i in range(count)
    )


def _bins(run: TrainingRun, step: int) -> Sequence[float]:
    return next(at.bin_losses for at in run.evaluations if at.step == step)


@dataclass(frozen=True, kw_only=True)
class SpeedUp:
    """Cost of the reference over cost of a model, in steps, FLOPs or seconds, at the reference's lowest loss.

    For each seed: the cost of the reference at its lowest loss, divided by the cost of the model at the same
    loss. A model that does not reach the loss costs more than its whole run, which bounds its ratio from
    above.
    """

    axis: Axis
    ratios: tuple[float | None, ...]  # one a seed; None: not reached
    bounds: tuple[float, ...]  # one a seed: the ratio if the model reached the loss with its last step

    @property
    def reached(self) -> int:
        return sum(ratio is not None for ratio in self.ratios)

    @property
    def ratio(self) -> float | None:
        """Geometric mean; None where a seed did not reach the loss."""
        return geometric_mean(self._known) if self._known else None

    @property
    def bound(self) -> float:
        """An upper bound of the geometric mean, where no seed reached the loss."""
        return geometric_mean(self.bounds)

    @property
    def interval(self) -> Interval | None:
        """95 %, Student's t on the logarithms; None below three seeds or where one did not reach the loss."""
        return intervals.ratio_interval(self._known)

    @property
    def _known(self) -> tuple[float, ...]:
        """The ratios, or none where a seed did not reach the loss."""
        known = tuple(ratio for ratio in self.ratios if ratio is not None)
        return known if len(known) == len(self.ratios) else ()


def speed_up(
    study: TrainingStudy, model: str, axis: Axis = "steps", *, reference: str | None = None
) -> SpeedUp | None:
    """Speed-up of a model to the reference's lowest loss; swap the two models for the reverse.

    None if the models share no seed, the axis was not measured, or the lowest loss is that of step 0.
    """
    ratios: list[float | None] = []
    bounds: list[float] = []
    for ours, theirs in _curve_pairs(study, model, reference or study.reference, axis):
        lowest = min(loss for _, loss in theirs)
        cost, our_cost = reached_at(theirs, lowest), reached_at(ours, lowest)
        if not cost or our_cost == 0:
            return None
        ratios.append(None if our_cost is None else cost / our_cost)
        bounds.append(cost / ours[-1][0])
    return SpeedUp(axis=axis, ratios=tuple(ratios), bounds=tuple(bounds)) if ratios else None
