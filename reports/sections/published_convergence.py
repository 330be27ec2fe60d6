"""Training convergence compared with the papers: published FID by step, and rankings by it."""

from collections.abc import Iterator, Sequence

from baselines import load
from baselines.published import PublishedTable
from bench.analysis.learning import rankings
from bench.analysis.learning.learning_curves import TrainingStudy
from bench.analysis.learning.rankings import RankCorrelation
from reports.markdown import Columns, markdown
from reports.naming import family, size

Curves = dict[str, list[tuple[float, float]]]  # of a published table, by model: (step, FID)

AT_400K = "fcdm_table03"
BY_STEP = "metrics by step"  # subject of the tables of FID by step


def published_name(model: str) -> str:
    """The published counterpart of a model of this suite: for a Ti size the S of its family."""
    if size(model) != "Ti":
        return model
    return f"{family(model)}-S" + ("/2" if model.endswith("/2") else "")


def fids(study: TrainingStudy) -> dict[str, float]:
    """FID after 400K steps from FCDM Table 3, by the names of the study's models."""
    printed = {
        row["model"].as_printed: row["fid"].value
        for row in load.table(AT_400K).rows
        if row["train_steps"].as_printed == "400K"
    }
    found = {model: printed.get(published_name(model)) for model in study.models}
    return {model: fid for model, fid in found.items() if fid is not None}


def curves() -> dict[str, Curves]:
    """FID by step from every published table with it, by its paper and objective."""
    return {
        f"{table.paper}{table.subject.removeprefix(BY_STEP)}": _curves(table)
        for table in load.tables()
        if table.subject.startswith(BY_STEP)
    }


def _curves(table: PublishedTable) -> Curves:
    lines: Curves = {}
    for row in table.rows:
        step, fid = row["train_steps"].value, row["fid"].value
        if step is not None and fid is not None:
            lines.setdefault(row["model"].as_printed, []).append((step, fid))
    return lines


def comparison(study: TrainingStudy) -> Iterator[str]:
    """The correlation of a study's ranking with that by published FID."""
    published = fids(study)
    sizes = (
        "The Ti sizes are of this suite and not published; each stands for its family, with the FID of the "
        "family's S. "
    )
    yield (
        "Does the ranking of the short run predict the published ranking by FID after 400K steps (FCDM Table "
        "3: diffusion on ImageNet at 256 px, no guidance)? "
        + (sizes if any(size(model) == "Ti" for model in study.models) else "")
        + "The runs differ in data, length and in part in size or objective, and a loss is not a FID: this "
        "is an exploration, not a check."
    )
    rows = [("trained", rankings.correlation(study, published))]
    rows += [
        (f"EMA {decay}", rankings.correlation(study, published, ema=i))
        for i, decay in enumerate(study.setting.recipe.ema_decays)
    ]
    known = [(weights, found) for weights, found in rows if found is not None]
    if known:
        yield from (markdown(_correlations(known)), _conclusion(known[0][1]))
    else:
        yield f"No answer: {len(published)} of the models have a published FID, and 3 are needed."


def _correlations(rows: Sequence[tuple[str, RankCorrelation]]) -> Columns:
    def value(number: float, interval: tuple[float, float] | None) -> str:
        bounds = f" [{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else ", no interval"
        return f"{number:+.2f}{bounds}"

    return {
        "weights": [weights for weights, _ in rows],
        "models": [str(len(found.models)) for _, found in rows],
        "Kendall's tau": [value(found.kendall, found.kendall_interval) for _, found in rows],
        "Spearman's rho": [value(found.spearman, found.spearman_interval) for _, found in rows],
        "p, two-sided": [f"{found.p_value:.3f}" for _, found in rows],
        "lowest possible p": [f"{found.min_p_value:.3f}" for _, found in rows],
    }


def _conclusion(found: RankCorrelation) -> str:
    text = (
        "The intervals contain every correlation that remains possible if two models whose losses do not "
        "differ conclusively (Student's t within seeds, at a level shared by all pairs) may have either "
        "order: with at least 95 % confidence for the true mean losses of these models, and no statement "
        "about others. p is the share of all orders of the models with |tau| at least as large. "
    )
    count = len(found.models)
    if found.min_p_value > 0.05:
        return text + (
            f"**With {count} models even two equal rankings have p = {found.min_p_value:.3f}, so no study of "
            "this size can show that one predicts the other.**"
        )
    if found.p_value <= 0.05:
        how = "agree" if found.kendall > 0 else "are opposed"
        return (
            text
            + f"**The two rankings of these {count} models {how} beyond chance (p = {found.p_value:.3f}).**"
        )
    return text + (
        f"**These {count} models do not show that one ranking predicts the other (p = {found.p_value:.3f}; "
        f"the lowest possible with {count} is {found.min_p_value:.3f}).**"
    )
