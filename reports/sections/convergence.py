"""The report's section on training convergence."""

from collections.abc import Iterator, Sequence

from bench.analysis.learning import learning_curves, loss_comparison, rankings, training_table
from bench.analysis.learning.learning_curves import TrainingStudy
from bench.analysis.learning.rankings import Ranking
from bench.records.base import Record, Skipped, height_width
from bench.records.columns import PROVENANCE
from bench.records.training import TrainingCase, TrainingRun
from bench.tables.numbers import BLANK
from bench.tables.table import Column, Table, fields
from reports import objectives
from reports.figures import learning_curves as figures
from reports.figures.plots import fullest
from reports.markdown import Columns, markdown, table
from reports.naming import order, slug
from reports.sections import Part, loss_differences, of_parts, published_convergence

PLACE = "training.md", 2
MAX_RANKINGS = 10  # maximum rows of a table


@of_parts
def section(records: Sequence[Record]) -> Iterator[Part]:
    """Write the section, empty without records of training. The newest record of a run counts."""
    found = studies(records)
    named = list(zip(found, names(found), strict=True))
    chosen, left_out = fullest(named, lambda one: _values(one[0]), "studies")
    failed = learning_curves.all_failed(_ordered(records))
    if not found and not failed:
        return
    yield from ("## Training convergence", _METHOD)
    for study, name in named:
        yield from about(study)
        if (study, name) in chosen:
            if figures.axes_of(study):
                yield figures.draw(study, name)
            yield _undrawn(study)
    if failed:
        yield from (f"### {_FAILED.title}", table(_FAILED, failed))
    yield from left_out
    published = figures.draw_published(published_convergence.curves())
    yield from (f"### {published.picture.title}", published)


def _undrawn(study: TrainingStudy) -> str:
    """The models that the figure lacks, and why."""
    lacking = figures.undrawn(study)
    if not lacking:
        return ""
    none = "" if figures.axes_of(study) else " The study has no figure."
    return (
        f"**Without a curve: {', '.join(lacking)}.** A curve needs two evaluations of every run, and a step "
        f"after 0 that all seeds of the model share.{none}"
    )


def _values(study: TrainingStudy) -> int:
    """The pixels or latents that all runs of a study were trained on."""
    recipe, sides = study.setting.recipe, height_width(study.setting.latent_size)
    return len(_runs(study)) * recipe.steps * recipe.batch * recipe.channels * sides[0] * sides[1]


def studies(records: Sequence[Record]) -> list[TrainingStudy]:
    return learning_curves.studies(_ordered(records))


def _ordered(records: Sequence[Record]) -> list[TrainingRun | Skipped]:
    def place(record: TrainingRun | Skipped) -> tuple[object, ...]:
        case = record.case
        assert isinstance(case, TrainingCase)
        return case.recipe.data, case.recipe.objective, *order(case.model), case.seed

    return sorted(learning_curves.training_records(records), key=place)


def names(found: Sequence[TrainingStudy]) -> list[str]:
    """File names of the studies; equal names are numbered."""
    recipes = [study.setting.recipe for study in found]
    slugs = [slug(recipe.data, recipe.objective) for recipe in recipes]
    return [
        name if slugs.count(name) == 1 else f"{name}-{slugs[: i + 1].count(name)}"
        for i, name in enumerate(slugs)
    ]


_METHOD = (
    "All models of a study have one recipe, the same images, and for each seed the same data order, "
    "timesteps, noise and seed of the initialisation; the validation loss is the training loss on one "
    "fixed set of (x, t, noise). **Differences are taken within a seed**, model minus reference, so below "
    "zero is better. Intervals are 95 %, by Student's t over the seeds, each of one comparison; none is "
    "given below three seeds. All models have the same batch, so equal steps are equal images. Training "
    "FLOPs are 2 x MACs of forward and backward passes; seconds are without evaluations. FID occurs in "
    "*Comparison with the papers* only, as published."
)


def about(study: TrainingStudy) -> Iterator[str]:
    """The text of a study, without its picture."""
    recipe, rows = study.setting.recipe, training_table.results_of(study)
    objective = objectives.NAMES[recipe.objective]
    yield f"### {recipe.data}, {objective}, {recipe.steps:,} steps, {study.setting.precision}"
    yield from (_conditions(study), markdown(_recipe(study)), _failures(study), "#### Loss at the end")
    yield from (_verdicts(study), table(training_table.table(rows), rows), _uneven(study))
    yield from loss_differences.comparison(study)
    if found := rankings.rankings(study):
        yield from ("#### Rankings", _about_rankings(study, found), markdown(_rankings(found)))
    yield "#### Comparison with the papers"
    yield from published_convergence.comparison(study)


# the training runs


def _runs(study: TrainingStudy) -> list[TrainingRun]:
    return [run for model in study.models for run in study.runs_of(model)]


def _conditions(study: TrainingStudy) -> str:
    environments = [run.environment for run in _runs(study)]
    dates = sorted({environment.date for environment in environments})
    batches = sorted({run.case.batch for run in _runs(study)})
    setting = study.setting
    threads = [f"{setting.threads} CPU thread{'s' * (setting.threads != 1)}"] * (
        environments[0].device_type == "cpu"
    )
    processes = f"{setting.processes} processes" if setting.processes > 1 else "one process"
    words = [f"Device {setting.device}", *threads, setting.precision]
    words += [
        f"batch {setting.recipe.batch} in {processes}",
        f"{' or '.join(map(str, batches))} images a pass",
    ]
    words += [*setting.nondefault_settings, f"torch {setting.torch}"]
    words += [f"commit {', '.join(sorted({environment.commit or '-' for environment in environments}))}"]
    words += [dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"]
    return "; ".join(words) + "."


def _recipe(study: TrainingStudy) -> Columns:
    recipe = study.setting.recipe
    high, wide = height_width(study.setting.latent_size)
    rows = {
        "objective": objectives.IN_FULL.get(recipe.objective, recipe.objective),
        "data": f"{recipe.data}, {high} x {wide} x {recipe.channels}, {recipe.classes} classes "
        f"(sha256 {recipe.data_sha256})",
        "images": f"{recipe.train_images:,} for training; {recipe.validation_images:,} for validation, "
        f"each with {recipe.validation_draws} draws of (t, noise)",
        "steps": f"{recipe.steps:,} of {recipe.batch} images, an evaluation every {recipe.evaluate_every}",
        "optimizer": f"AdamW, learning rate {recipe.learning_rate:g}, weight decay {recipe.weight_decay:g}",
        "averages": ", ".join(f"EMA {decay}" for decay in recipe.ema_decays) or BLANK,
        "augmentation": "horizontal flip" if recipe.flip else "none",
        "label dropout": f"{recipe.label_dropout:g}",
        "seeds": ", ".join(map(str, sorted({run.case.seed for run in _runs(study)}))),
    }
    return {"recipe": list(rows), "": list(rows.values())}


def _failures(study: TrainingStudy) -> str:
    failed = [
        f"{run.case.model}, seed {run.case.seed}: {run.status}, {run.reason}"
        for run in study.failed
        if isinstance(run.case, TrainingCase)
    ]
    return f"**Failed, and in no table:** {'; '.join(failed)}." if failed else ""


_FAILED = Table[TrainingRun](
    title="Configurations in which every run failed",
    columns=(
        *fields("case.model", "case.seed", "case.recipe.data", "case.recipe.objective"),
        Column("learning rate", lambda r: f"{r.case.recipe.learning_rate:g}", of_case=True),
        *fields("case.recipe.steps", "case.recipe.batch", "case.precision"),
        Column("failure", lambda r: f"{r.status}: {r.reason}", of_case=True),
        *PROVENANCE,
    ),
)


# tables


def _verdicts(study: TrainingStudy) -> str:
    """Sentence on the models with a lower, a higher or an inconclusive loss at equal steps."""
    by_verdict: dict[str, list[str]] = {}
    for model in study.others:
        found = loss_comparison.difference(study, model)
        if found is not None and found.difference.verdict:
            by_verdict.setdefault(found.difference.verdict, []).append(model)
    words = {
        "lower": f"lower loss than {study.reference}",
        "higher": f"higher loss than {study.reference}",
        "inconclusive": f"inconclusive difference to {study.reference}",
    }
    verdicts = "; ".join(f"{words[verdict]}: {', '.join(of)}" for verdict, of in sorted(by_verdict.items()))
    return f"**At equal steps**, {verdicts}." if verdicts else ""


def _uneven(study: TrainingStudy) -> str:
    """Why seconds are left out, if those of equal work differ between seeds."""
    if not study.uneven_seconds:
        return ""
    ratios = ", ".join(f"{model} {100 * (ratio - 1):.0f} %" for model, ratio in study.uneven_seconds.items())
    return (
        f"**The machine was busy with other work:** the seconds of equal work differ between seeds by "
        f"{ratios}. Nothing is compared by seconds."
    )


def _about_rankings(study: TrainingStudy, found: Sequence[Ranking]) -> str:
    step = rankings.stable_from(found)
    seeds = len(study.seeds())
    over = f"the {seeds} seeds" if seeds > 1 else "the one seed"
    by = f"By mean loss over {over} that all models have, the lowest first."
    if step == found[-1].step:
        return f"{by} **The ranking still changed at the last evaluation.**"
    return f"{by} From step {step:,} on the ranking equals the last one."


def _rankings(found: Sequence[Ranking]) -> Columns:
    count = min(MAX_RANKINGS, len(found))
    chosen = [found[round(i * (len(found) - 1) / max(1, count - 1))] for i in range(count)]
    return {
        "step": [f"{ranking.step:,}" for ranking in chosen],
        "ranking": [" < ".join(ranking.models) for ranking in chosen],
        "Kendall's tau to the last": [f"{ranking.tau:+.2f}" for ranking in chosen],
        "seeds with this ranking": [f"{ranking.agreement:.0%}" for ranking in chosen],
    }
