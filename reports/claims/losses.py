"""Validation losses of small trainings here, as evidence beside a published FID, without a verdict on it."""

from collections.abc import Sequence

from bench.analysis.learning import learning_curves, loss_comparison
from bench.analysis.learning.learning_curves import TrainingStudy
from bench.records.base import Record
from reports.naming import family, size
from reports.selection import remembered


def text(records: Sequence[Record], model: str, reference: str) -> str:
    """Mean differences over seeds of models of both families, of one size and equal variants, by study."""
    return "; ".join(
        words
        for study in _studies(records)
        for ours, theirs in _pairs(study, model, reference)
        if (words := _difference(study, ours, theirs))
    )


@remembered
def _studies(records: Sequence[Record]) -> list[TrainingStudy]:
    return learning_curves.studies(records)


def _pairs(study: TrainingStudy, model: str, reference: str) -> list[tuple[str, str]]:
    def kind(name: str) -> tuple[str, str]:
        return family(name.partition("@")[0]), name.partition("@")[2]

    return [
        (ours, theirs)
        for ours in study.models
        for theirs in study.models
        if ours != theirs and (kind(ours), kind(theirs)) == (kind(model), kind(reference))
        if size(ours.partition("@")[0]) == size(theirs.partition("@")[0])
    ]


def _difference(study: TrainingStudy, ours: str, theirs: str) -> str:
    found = loss_comparison.difference(study, ours, reference=theirs)
    if found is None:
        return ""
    recipe, estimate = study.setting.recipe, found.difference
    interval = "no interval"
    if estimate.interval is not None:
        interval = "95 % " + " to ".join(f"{end:.2g}" for end in estimate.interval)
    return (
        f"{ours} - {theirs}: {estimate.mean:.2g} ({interval}; {len(estimate.values)} seeds, "
        f"{recipe.data} {recipe.objective}, step {found.position:g})"
    )
