"""Training convergence: losses compared with those of the reference, at equal cost and by level of noise."""

from collections.abc import Callable, Iterator
from functools import partial
from statistics import fmean

from bench.analysis.learning import loss_comparison
from bench.analysis.learning.learning_curves import Axis, Estimate, TrainingStudy
from bench.analysis.learning.loss_comparison import LossDifference, RelativeChange, SpeedUp
from bench.tables.numbers import BLANK
from reports import objectives
from reports.markdown import Columns, markdown, ratio_text

AXIS_NAMES: dict[Axis, str] = {
    "steps": "steps",
    "flops": "training FLOPs",
    "seconds": "seconds",
    "joules": "joules",
}


def comparison(study: TrainingStudy) -> Iterator[str]:
    """The models of a study compared with its reference; nothing without others."""
    reference = study.reference
    if not study.others:
        return
    yield f"#### At equal cost, compared with {reference}"
    yield (
        f"Loss minus that of {reference}, in the unit of the loss, at the last position that all runs "
        "of both models reach; the position follows the interval."
    )
    yield _by_axis(study, "at equal {}", partial(_difference, study))
    yield f"#### Speed-up to the loss of {reference}"
    yield (
        f"The cost of {reference} at its own lowest loss / the cost of the model at the same loss: "
        "above 1 the model reaches it sooner. Geometric mean over seeds; none if a seed does not reach the "
        f"loss. *The reverse*, for such models: the speed-up of {reference} to the model's own lowest "
        "loss."
    )
    yield from _speed_ups(study)
    if all(loss_comparison.bin_differences(study, model) for model in study.others):
        yield "#### By timestep"
        yield (
            f"Loss relative to that of {reference} in per cent, by equal ranges of the level of noise, "
            "from little (0) to much (1), at the last evaluation: geometric mean over seeds. Where a loss is "
            "not positive the difference is *absolute*, in the unit of the loss."
        )
        yield markdown(_bins(study))


def _axes(study: TrainingStudy) -> list[Axis]:
    """The axes of the tables: without images, which are equivalent to steps."""
    return [axis for axis in AXIS_NAMES if axis in study.axes]


def _by_axis(study: TrainingStudy, heading: str, cell: Callable[[str, Axis], str]) -> str:
    """A table with a row for each model but the reference and a column for each axis."""
    columns = {"model": list(study.others)}
    for axis in _axes(study):
        columns[heading.format(AXIS_NAMES[axis])] = [cell(model, axis) for model in study.others]
    sources = [[*study.runs_of(model), *study.runs_of(study.reference)] for model in study.others]
    return markdown({name: cells for name, cells in columns.items() if set(cells) != {BLANK}}, sources)


def _position(axis: Axis, value: float) -> str:
    if axis == "steps":
        return f"{value:,.0f} steps"
    if axis == "flops":
        for prefix, unit in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9)):
            if value >= unit:
                return f"{value / unit:.3g} {prefix}FLOPs"
        return f"{value:.3g} FLOPs"
    return f"{value:,.1f} {'s' if axis == 'seconds' else 'J'}"


def _difference(study: TrainingStudy, model: str, axis: Axis) -> str:
    found = loss_comparison.difference(study, model, axis)
    return BLANK if found is None else f"{_estimate(found.difference)} at {_position(axis, found.position)}"


def _speed_ups(study: TrainingStudy) -> Iterator[str]:
    def forwards(model: str, axis: Axis) -> str:
        return _speed_up(loss_comparison.speed_up(study, model, axis))

    def backwards(model: str, axis: Axis) -> str:
        found = loss_comparison.speed_up(study, model, axis)
        if found is None or found.ratio is not None:
            return BLANK
        return _speed_up(loss_comparison.speed_up(study, study.reference, axis, reference=model))

    yield _by_axis(study, "times fewer {}", forwards)
    if any(backwards(model, axis) != BLANK for model in study.others for axis in _axes(study)):
        yield _by_axis(study, "the reverse, {}", backwards)


def _speed_up(found: SpeedUp | None) -> str:
    if found is None:
        return BLANK
    if found.ratio is None:
        if not found.reached:
            return f"not reached (below {found.bound:.2f})"
        return f"reached by {found.reached} of {len(found.ratios)} seeds"
    none = f" (n = {len(found.ratios)}, no interval)" if found.interval is None else ""
    return f"{ratio_text(found.ratio, found.interval)}{none}"


def _bins(study: TrainingStudy) -> Columns:
    found = {model: loss_comparison.bin_differences(study, model) for model in study.others}
    first = next(iter(found.values()))
    count = min(len(bins) for bins in found.values())
    return {
        objectives.LEVELS[study.setting.recipe.objective]: [
            f"{i / count:.3g} to {(i + 1) / count:.3g}" for i in range(count)
        ],
        f"{study.reference}'s loss": [f"{fmean(first[i].references):.4f}" for i in range(count)],
        **{model: [_relative(bins[i]) for i in range(count)] for model, bins in found.items()},
    }


def _relative(found: LossDifference) -> str:
    percent = found.percent
    return f"{_estimate(found.difference)} absolute" if percent is None else _estimate(percent, 1)


def _estimate(estimate: Estimate | RelativeChange, places: int = 4) -> str:
    """A signed mean with its interval."""
    interval = estimate.interval
    if interval is None:
        return f"{estimate.mean:+.{places}f} (n = {len(estimate.values)}, no interval)"
    return f"{estimate.mean:+.{places}f} [{interval[0]:+.{places}f}, {interval[1]:+.{places}f}]"
