"""Writes the report's section on training convergence: records in, markdown out."""

import re
from collections.abc import Callable, Sequence
from statistics import fmean

from baselines import load
from bench.analysis import learning_curves as curves
from bench.analysis.learning_curves import (
    Axis,
    Change,
    Correlation,
    Difference,
    Estimate,
    Reach,
    Standing,
    Study,
)
from bench.records.record import Record, Trained, height_width
from reports import objectives
from reports.figures import learning_curves as convergence_plots
from reports.figures.plots import Drawing
from reports.naming import family, order, size
from reports.overview import BLANK, Columns, Picture, markdown

Curves = dict[str, list[tuple[float, float]]]  # of a published table, by model: (step, FID)

OBJECTIVES = {
    "iddpm": "iDDPM: 1000 linear steps, noise predicted, variance learned; L_simple + L_vlb",
    "flow": "flow matching: linear path, velocity",
}
BY_STEP = {"fcdm_table08": "FCDM, diffusion", "fcdm_table09": "FCDM, flow matching", "dico_table07": "DiCo"}
AT_400K = "fcdm_table03"
ROWS = 10  # of a ranking at the most
UNSTEADY = 1.1  # seconds of the slowest seed as a multiple of the fastest's, beyond which it is said
AXIS_NAMES: dict[Axis, str] = {
    "steps": "steps",
    "flops": "training FLOPs",
    "seconds": "seconds",
    "joules": "joules",
}


def section(records: Sequence[Record]) -> tuple[str, list[Drawing]]:
    """Write the section; empty without records of training, which may be in any order. The newest counts."""
    found = studies(records)
    drawn = [
        convergence_plots.draw(study, name, published_fids(study), _published_curves())
        for study, name in zip(found, names(found), strict=True)
    ]
    drawings = [drawing for of_study in drawn for drawing in of_study]
    pictures = [[drawing.picture for drawing in of_study] for of_study in drawn]
    return text(found, pictures, curves.unfinished(_ordered(records))), drawings


def text(
    found: Sequence[Study], pictures: Sequence[Sequence[Picture]], unfinished: Sequence[Trained] = ()
) -> str:
    """The markdown of some studies, each with its pictures, and of runs of none; blank without either."""
    if not found and not unfinished:
        return ""
    parts = ["## Training convergence", _reading()]
    for study, shown in zip(found, pictures, strict=True):
        parts += [f"### {_title(study)}", *_study(study), *map(_shown, shown)]
    if unfinished:
        parts += ["### Runs that did not end well, nor any beside them", markdown(_unfinished(unfinished))]
    parts += ["### The papers' own curves", _of_published(), markdown(_published_orders())]
    return "\n\n".join(part for part in parts if part)


def studies(records: Sequence[Record]) -> list[Study]:
    """The studies among records of any kind, their arms in the order of the papers' families."""
    return curves.studies(_ordered(records))


def _ordered(records: Sequence[Record]) -> list[Trained]:
    trained = [record for record in records if isinstance(record, Trained)]
    return sorted(
        trained, key=lambda one: (one.recipe.data, one.recipe.objective, *order(one.run.model), one.seed)
    )


def names(found: Sequence[Study]) -> list[str]:
    """A name for the files of each study; those that would be alike are numbered."""
    made: list[str] = []
    for study in found:
        recipe = study.setting.recipe
        slug = re.sub(r"[^a-z0-9]+", "-", f"{recipe.data}-{recipe.objective}".lower()).strip("-")
        made.append(slug)
    return [
        name if made.count(name) == 1 else f"{name}-{made[: i + 1].count(name)}"
        for i, name in enumerate(made)
    ]


def _shown(picture: Picture) -> str:
    return f"![{picture.title}]({picture.name}.png)\n\n{picture.caption} ([SVG]({picture.name}.svg))"


def _reading() -> str:
    return (
        "Every arm of a study has the same recipe, the same training and validation images, and for each "
        "seed the same data order, timesteps and noise; the seed of the initialisation is the same too. The "
        "validation loss is that of training on one fixed set of (x, t, noise). **Differences are taken "
        "within a seed**, arm less reference, so below zero is better; their intervals are 95 % by Student's "
        "t over the seeds, which takes the differences to be normal, and none is given below three seeds. "
        "With three seeds t is 4.3, so only differences well above their spread are told apart; and each "
        "interval is one comparison's, not adjusted for the number of them in a table. Images are steps "
        "times the batch, alike for all arms, so equal steps are equal images. Training FLOPs are 2 x MACs "
        "of forward and backward, by torch's rules, x images. Seconds are of training alone, on the device "
        "named, evaluations left out. Between two evaluations a curve is taken to be straight over the "
        "logarithm of its axis, and none is read beyond its end. All of it is loss, measured here; FID "
        "stands in *Against the papers* only, as published."
    )


def _title(study: Study) -> str:
    recipe = study.setting.recipe
    kind = objectives.NAMES[recipe.objective]
    return f"{recipe.data}, {kind}, {recipe.steps:,} steps, {study.setting.precision}"


def _study(study: Study) -> list[str]:
    others = study.others
    parts = [_conditions(study), markdown(_recipe(study)), _failed(study), "#### Loss at the end"]
    parts += [_told(study), markdown(_final(study)), _unsteady(study)]
    if others:
        parts += [f"#### At equal cost, against {study.reference}", _of_differences(study)]
        parts += [
            markdown(_differences(study)),
            f"#### To the loss of {study.reference} in how many times fewer",
            _of_reach(study),
        ]
        parts += [markdown(_reaches(study))]
        if _has_bins(study):
            parts += ["#### By timestep", _of_bins(study), markdown(_bins(study))]
    standings = curves.standings(study)
    if standings:
        parts += ["#### Rankings", _of_rankings(study, standings), markdown(_rankings(standings))]
    return [*parts, "#### Against the papers", *_papers(study)]


# what was trained


def _runs(study: Study) -> list[Trained]:
    return [run for arm in study.arms.values() for run in arm.values()]


def _conditions(study: Study) -> str:
    here = [run.run.environment for run in _runs(study)]
    dates = sorted({environment.date for environment in here})
    batches = sorted({run.run.batch for run in _runs(study)})
    setting = study.setting
    processes = f"{setting.processes} processes" if setting.processes > 1 else "one process"
    return (
        "; ".join(
            [
                f"Device {setting.device}",
                *([f"{setting.threads} CPU threads"] if here[0].device_type == "cpu" else []),
                setting.precision,
                f"batch {setting.recipe.batch} in {processes}",
                f"{' or '.join(map(str, batches))} images a pass",
                *setting.switches,
                f"torch {setting.torch}",
                f"commit {', '.join(sorted({environment.commit or '-' for environment in here}))}",
                dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}",
            ]
        )
        + "."
    )


def _recipe(study: Study) -> Columns:
    recipe = study.setting.recipe
    high, wide = height_width(study.setting.latent_size)
    rows = {
        "objective": OBJECTIVES.get(recipe.objective, recipe.objective),
        "data": f"{recipe.data}, {high} x {wide} x {recipe.channels}, {recipe.classes} classes "
        f"(sha256 {recipe.data_sha256})",
        "images": f"{recipe.train_images:,} to train on; {recipe.validation_images:,} to validate, "
        f"each with {recipe.validation_draws} draws of (t, noise)",
        "steps": f"{recipe.steps:,} of {recipe.batch} images, an evaluation every {recipe.evaluate_every}",
        "optimizer": f"AdamW, learning rate {recipe.learning_rate:g}, weight decay {recipe.weight_decay:g}",
        "averages": ", ".join(f"EMA {decay}" for decay in recipe.ema_decays) or BLANK,
        "augmentation": "horizontal flip" if recipe.flip else "none",
        "label dropout": f"{recipe.label_dropout:g}",
        "seeds": ", ".join(map(str, sorted({one.seed for one in _runs(study)}))),
    }
    return {"recipe": list(rows), "": list(rows.values())}


def _failed(study: Study) -> str:
    if not study.failed:
        return ""
    told = "; ".join(f"{run.run.model}, seed {run.seed}: {run.status}, {run.reason}" for run in study.failed)
    return f"**Stopped early, and in no table:** {told}."


def _unfinished(runs: Sequence[Trained]) -> Columns:
    here = [one.run.environment for one in runs]
    return {
        "model": [one.run.model for one in runs],
        "seed": [str(one.seed) for one in runs],
        "data": [one.recipe.data for one in runs],
        "objective": [one.recipe.objective for one in runs],
        "learning rate": [f"{one.recipe.learning_rate:g}" for one in runs],
        "steps, batch": [f"{one.recipe.steps:,}, {one.recipe.batch}" for one in runs],
        "precision": [one.run.precision for one in runs],
        "what became of it": [f"{one.status}: {one.reason}".replace("|", "/") for one in runs],
        "device": [environment.device for environment in here],
        "torch": [environment.torch for environment in here],
        "commit": [environment.commit or BLANK for environment in here],
        "date": [environment.date[:10] for environment in here],
    }


# tables


def _estimate(estimate: Estimate | Change, places: int = 4, *, sign: bool = False) -> str:
    form = f"{'+' if sign else ''}.{places}f"
    interval = estimate.interval
    if interval is None:
        return f"{estimate.mean:{form}} (n = {len(estimate.values)}, no interval)"
    return f"{estimate.mean:{form}} [{interval[0]:{form}}, {interval[1]:{form}}]"


def _told(study: Study) -> str:
    by_verdict: dict[str, list[str]] = {}
    for model in study.others:
        found = curves.difference(study, model)
        if found is not None and found.difference.verdict:
            by_verdict.setdefault(found.difference.verdict, []).append(model)
    if not by_verdict:
        return ""
    words = {"lower": "a lower loss", "higher": "a higher loss", "not told apart": "a loss not told apart"}
    told = "; ".join(
        f"{words[verdict]} {'from' if verdict == 'not told apart' else 'than'} {study.reference}'s: "
        f"{', '.join(models)}"
        for verdict, models in sorted(by_verdict.items())
    )
    return f"**At equal steps** {told}."


def _final(study: Study) -> Columns:
    recipe = study.setting.recipe
    arms = list(study.arms)

    def runs(model: str) -> list[Trained]:
        return list(study.arms[model].values())

    return {
        "model": arms,
        "seeds": [str(len(runs(model))) for model in arms],
        "MMACs of a training image": [f"{runs(model)[0].train_macs / 1e6:,.2f}" for model in arms],
        "loss": [_estimate(curves.final_loss(study, model)) for model in arms],
        **{
            f"loss of EMA {decay}": [_estimate(curves.final_loss(study, model, i)) for model in arms]
            for i, decay in enumerate(recipe.ema_decays)
        },
        "seconds": [_seconds([run.evaluations[-1].seconds for run in runs(model)]) for model in arms],
    }


def _seconds(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:,.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{low:,.1f} to {high:,.1f}"


def _unsteady(study: Study) -> str:
    """What the seeds say of the clock: the same work should take the same time with each of them."""
    odd = []
    for model, runs in study.arms.items():
        values = [run.evaluations[-1].seconds for run in runs.values()]
        if min(values) > 0 and max(values) > UNSTEADY * min(values):
            odd.append(f"{model} {100 * (max(values) / min(values) - 1):.0f} %")
    if not odd:
        return ""
    return (
        f"**The machine was not quiet:** by seed the seconds of the same work differ by {', '.join(odd)}. "
        "What stands by seconds here holds for this run only."
    )


def _axes(study: Study) -> list[Axis]:
    """Those on which every arm can be read; images are those of the steps."""
    known: list[Axis] = ["steps", "flops", "seconds", "joules"]
    return [axis for axis in known if all(curves.mean_curve(study, model, axis) for model in study.arms)]


def _place(axis: Axis, value: float) -> str:
    if axis == "steps":
        return f"{value:,.0f} steps"
    if axis == "flops":
        for unit, size_of in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9)):
            if value >= size_of:
                return f"{value / size_of:.3g} {unit}FLOPs"
        return f"{value:.3g} FLOPs"
    return f"{value:,.1f} {'s' if axis == 'seconds' else 'J'}"


def _of_differences(study: Study) -> str:
    return (
        f"Loss less {study.reference}'s, in the loss's own unit, at the last place that all runs of both "
        "arms reach, which stands behind the interval."
    )


def _differences(study: Study) -> Columns:
    def cell(model: str, axis: Axis) -> str:
        found = curves.difference(study, model, axis)
        return BLANK if found is None else f"{_apart(found)} at {_place(axis, found.place)}"

    return {
        "model": list(study.others),
        **{
            f"at equal {AXIS_NAMES[axis]}": [cell(model, axis) for model in study.others]
            for axis in _axes(study)
        },
    }


def _apart(found: Difference) -> str:
    return _estimate(found.difference, sign=True)


def _of_reach(study: Study) -> str:
    return (
        f"What {study.reference} took to its own lowest loss, divided by what the arm took to the same "
        "loss: above 1 the arm gets there sooner. Geometric mean over seeds, interval by Student's t on the "
        "logarithms; where a seed does not get there, there is no mean. *The reverse*, for such arms: in how "
        f"many times fewer {study.reference} reaches the arm's own lowest loss."
    )


def _reaches(study: Study) -> Columns:
    def cells(read: Callable[[str, Axis], Reach | None], axis: Axis) -> list[str]:
        return [_reached(read(model, axis)) for model in study.others]

    def forwards(model: str, axis: Axis) -> Reach | None:
        return curves.reach(study, model, axis)

    def backwards(model: str, axis: Axis) -> Reach | None:
        found = forwards(model, axis)
        if found is None or found.ratio is not None:
            return None
        return curves.reach(study, study.reference, axis, reference=model)

    columns = {"model": list(study.others)}
    for axis in _axes(study):
        columns[f"times fewer {AXIS_NAMES[axis]}"] = cells(forwards, axis)
    for axis in _axes(study):
        texts = cells(backwards, axis)
        if any(text != BLANK for text in texts):
            columns[f"the reverse, {AXIS_NAMES[axis]}"] = texts
    return columns


def _reached(found: Reach | None) -> str:
    if found is None:
        return BLANK
    if found.ratio is None:
        seeds = len(found.ratios)
        if not found.reached:
            return f"not reached (below {found.bound:.2f})"
        return f"reached with {found.reached} of {seeds} seeds"
    interval = found.interval
    if interval is None:
        return f"{found.ratio:.2f} (n = {len(found.ratios)}, no interval)"
    return f"{found.ratio:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def _has_bins(study: Study) -> bool:
    return all(curves.bin_differences(study, model) for model in study.others)


def _of_bins(study: Study) -> str:
    return (
        f"Loss less {study.reference}'s in per cent of it, by equal ranges of the level of noise, from "
        "little noise (0) to much (1), at the last evaluation. Geometric mean over seeds of the ratio of the "
        "losses, interval by Student's t on its logarithms, which no difference takes below -100 %. Where a "
        "loss is not above zero, which one that holds a likelihood can be, the difference is *absolute*: in "
        "the loss's own unit."
    )


def _bins(study: Study) -> Columns:
    found = {model: curves.bin_differences(study, model) for model in study.others}
    by_bin = next(iter(found.values()))
    count = min(len(bins) for bins in found.values())
    return {
        objectives.LEVELS[study.setting.recipe.objective]: [
            f"{i / count:.3g} to {(i + 1) / count:.3g}" for i in range(count)
        ],
        f"{study.reference}'s loss": [f"{fmean(by_bin[i].references):.4f}" for i in range(count)],
        **{model: [_in_per_cent(bins[i]) for i in range(count)] for model, bins in found.items()},
    }


def _in_per_cent(found: Difference) -> str:
    percent = found.percent
    return f"{_apart(found)} absolute" if percent is None else _estimate(percent, 1, sign=True)


def _of_rankings(study: Study, standings: Sequence[Standing]) -> str:
    step = curves.settled(standings)
    seeds = len(study.seeds())
    text = f"By mean loss of the {seeds} seeds that all arms have, the lowest first."
    if step == standings[-1].step:
        return f"{text} **The ranking still changed at the last evaluation.**"
    return f"{text} From step {step:,} on the ranking is the last one."


def _rankings(standings: Sequence[Standing]) -> Columns:
    count = min(ROWS, len(standings))
    chosen = [standings[round(i * (len(standings) - 1) / max(1, count - 1))] for i in range(count)]
    return {
        "step": [f"{standing.step:,}" for standing in chosen],
        "ranking": [" < ".join(standing.ranking) for standing in chosen],
        "Kendall's tau to the last": [f"{standing.tau:+.2f}" for standing in chosen],
        "seeds with this ranking": [f"{standing.agreeing:.0%}" for standing in chosen],
    }


# against the papers


def published_name(model: str) -> str:
    """The model that stands for one of ours in the published tables: its family's S for a size of ours."""
    if size(model) != "Ti":
        return model
    return f"{family(model)}-S" + ("/2" if model.endswith("/2") else "")


def published_fids(study: Study) -> dict[str, float]:
    """FID after 400K steps as FCDM Table 3 prints it, for the arms that it has, by our names."""
    printed = {
        row["model"].as_printed: row["fid"].value
        for row in load.table(AT_400K).rows
        if row["train_steps"].as_printed == "400K"
    }
    found = {model: printed.get(published_name(model)) for model in study.arms}
    return {model: fid for model, fid in found.items() if fid is not None}


def _published_curves() -> dict[str, Curves]:
    """FID by step of every table that gives it, by what it is of."""
    found: dict[str, Curves] = {}
    for name, what in BY_STEP.items():
        lines: Curves = {}
        for row in load.table(name).rows:
            step, fid = row["train_steps"].value, row["fid"].value
            if step is not None and fid is not None:
                lines.setdefault(row["model"].as_printed, []).append((step, fid))
        found[what] = lines
    return found


def _papers(study: Study) -> list[str]:
    fids = published_fids(study)
    ours = any(size(model) == "Ti" for model in study.arms)
    parts = [
        "Does the short run's ranking foretell the published ranking by FID after 400K steps (FCDM Table 3: "
        "diffusion on ImageNet at 256 px, no guidance)? "
        + (
            "The Ti sizes are ours and published nowhere; each stands for its family, with the FID of the "
            "family's S. "
            if ours
            else ""
        )
        + "The runs differ in data, length and, some, in size or objective, and a loss is no FID: this is a "
        "question, not a check."
    ]
    rows = [("trained", curves.foretells(study, fids))]
    rows += [
        (f"EMA {decay}", curves.foretells(study, fids, ema=i))
        for i, decay in enumerate(study.setting.recipe.ema_decays)
    ]
    known = [(weights, found) for weights, found in rows if found is not None]
    if not known:
        parts.append(
            f"It cannot be asked here: {len(fids)} of the arms have a published FID, and it takes three."
        )
    else:
        parts += [markdown(_correlations(known)), _answer(study, known[0][1])]
    return parts


def _correlations(rows: Sequence[tuple[str, Correlation]]) -> Columns:
    def value(number: float, interval: tuple[float, float] | None) -> str:
        return f"{number:+.2f}" + (
            f" [{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else ", no interval"
        )

    return {
        "weights": [weights for weights, _ in rows],
        "models": [str(len(found.models)) for _, found in rows],
        "Kendall's tau": [value(found.kendall, found.kendall_interval) for _, found in rows],
        "Spearman's rho": [value(found.spearman, found.spearman_interval) for _, found in rows],
        "p, two-sided": [f"{found.p_value:.3f}" for _, found in rows],
        "least p possible": [f"{found.least_p_value:.3f}" for _, found in rows],
    }


def _answer(study: Study, found: Correlation) -> str:
    text = (
        "The intervals hold every correlation that is left where each two models whose losses the seeds do "
        "not tell apart (Student's t within seeds, at a level shared by all pairs) may stand either way: at "
        "least 95 % for these models' true mean losses, and nothing about others. p is the share of all "
        "orders of the models with as large a |tau|. "
    )
    count = len(found.models)
    if found.least_p_value > 0.05:
        text += (
            f"**With {count} models even two equal rankings have p = {found.least_p_value:.3f}, so no study "
            "of this size can show that one foretells the other.**"
        )
    elif found.p_value <= 0.05:
        how = "agree" if found.kendall > 0 else "are opposed"
        text += f"**The two rankings of these {count} models {how} beyond chance (p = {found.p_value:.3f}).**"
    else:
        text += (
            f"**These {count} models do not show that one foretells the other (p = {found.p_value:.3f}; the "
            f"least that {count} can give is {found.least_p_value:.3f}).**"
        )
    return text


def _of_published() -> str:
    return (
        "Do the papers' own curves foretell their end? FID of FCDM (Table 8, diffusion) and DiCo (Table 7) "
        "as printed, at the first and the last step that both give. Other families are published at single "
        "steps only. No published table gives a training loss by step, and the logs of released trainings "
        "are not among this suite's data: their shape is not shown."
    )


def _published_orders() -> Columns:
    by_step = _published_curves()
    first, second = by_step[BY_STEP["fcdm_table08"]], by_step[BY_STEP["dico_table07"]]
    rows = []
    for model, line in first.items():
        other = dict(second.get(f"DiCo-{size(model)}", []))
        both = [(step, fid, other[step]) for step, fid in line if step in other]
        ahead = ["FCDM" if ours < theirs else "DiCo" for _, ours, theirs in both]
        changes = [f"{both[i][0] / 1e3:.0f}K" for i in range(1, len(both)) if ahead[i] != ahead[i - 1]]
        rows += [(size(model), both, ahead, changes)] if both else []
    return {
        "size": [letters for letters, *_ in rows],
        "FCDM, DiCo: published FID, first": [_fids(both[0]) for _, both, *_ in rows],
        "last": [_fids(both[-1]) for _, both, *_ in rows],
        "lower first": [ahead[0] for _, _, ahead, _ in rows],
        "lower last": [ahead[-1] for _, _, ahead, _ in rows],
        "they cross at": [", ".join(changes) or "none" for *_, changes in rows],
    }


def _fids(at: tuple[float, float, float]) -> str:
    step, ours, theirs = at
    return f"{ours:.2f}, {theirs:.2f} at {step / 1e3:.0f}K"
