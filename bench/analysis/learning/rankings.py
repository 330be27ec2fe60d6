"""Rankings of models by loss: at every step, and compared with another ranking such as published FID."""

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from bench.analysis.learning.learning_curves import Interval, TrainingStudy, common_steps, loss_of_step
from bench.stats import intervals

MAX_ORDERS = 10_000  # permutations that a p-value is computed from; more are sampled
SEED = 0
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The models in order of loss at one step, the lowest first."""

    step: int
    models: tuple[str, ...]  # by the mean over seeds
    tau: float  # Kendall's, between this ranking and the one at the last step
    agreement: float  # share of the seeds whose own ranking at this step is equal


def rankings(study: TrainingStudy) -> tuple[Ranking, ...]:
    """Rank the models at each common step but 0, where many networks have equal losses, by common seeds."""
    seeds = study.seeds()
    runs = {model: [study.runs[model][seed] for seed in seeds] for model in study.models}
    steps = [step for step in common_steps([run for of_model in runs.values() for run in of_model]) if step]
    if not seeds or not steps or len(runs) < 2:
        return ()
    # (steps, models, seeds)
    losses = np.array([[[loss_of_step(run, s) for run in runs[m]] for m in runs] for s in steps])
    means = [[fmean(seeds) for seeds in at_step] for at_step in losses.tolist()]
    found = []
    for step, mean, by_seed in zip(steps, means, losses, strict=True):
        ranking = _ranked(study.models, mean)
        own = [_ranked(study.models, of_seed) for of_seed in by_seed.T.tolist()]
        found.append(
            Ranking(
                step=step,
                models=ranking,
                tau=kendall(mean, means[-1]),
                agreement=own.count(ranking) / len(own),
            )
        )
    return tuple(found)


def stable_from(found: Sequence[Ranking]) -> int | None:
    """The first step from which on the ranking equals the last one; None without a ranking."""
    step = None
    for ranking in reversed(found):
        if ranking.models != found[-1].models:
            break
        step = ranking.step
    return step


def _ranked(models: Sequence[str], losses: Sequence[float]) -> tuple[str, ...]:
    return tuple(model for _, model in sorted(zip(losses, models, strict=True), key=lambda pair: pair[0]))


def kendall(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's tau-b; 0 where one of the two is constant."""
    return _correlated("kendalltau", a, b)


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's rank correlation, ties with their mean rank; 0 where one of the two is constant."""
    return _correlated("spearmanr", a, b)


def _correlated(how: str, a: Sequence[float], b: Sequence[float]) -> float:
    from scipy import stats

    if len(set(a)) == 1 or len(set(b)) == 1:
        return 0.0
    return float(getattr(stats, how)(a, b).statistic)


@dataclass(frozen=True, kw_only=True)
class RankCorrelation:
    """Correlation of two rankings of the same models: by loss, and by another number."""

    models: tuple[str, ...]
    spearman: float
    kendall: float
    spearman_interval: Interval | None  # over the orders consistent with the seeds; None below three seeds
    kendall_interval: Interval | None
    p_value: float  # two-sided: share of the orders of the models with |Kendall's tau| at least as large
    min_p_value: float  # the p-value of equal rankings of this many models


def correlation(
    study: TrainingStudy, other: Mapping[str, float], *, ema: int | None = None
) -> RankCorrelation | None:
    """Correlate the ranking by the last common loss with that by another number, such as a published FID.

    The intervals contain the correlation of these models' true mean losses with a confidence of at least
    95 %. They cover the uncertainty from the seeds only and say nothing about other models; p_value does. No
    bootstrap is used: with three seeds its coverage is far below 95 % where losses are similar.

    Args:
        other: model -> number, lower is better; models in only one of the two are left out.
        ema: index of an average of the weights; None: the trained weights.

    Returns:
        None with fewer than three models, without a common seed, or without a common step.
    """
    from scipy.stats import rankdata  # takes 1 s to import

    models = tuple(model for model in study.models if model in other)
    if len(models) < 3:
        return None
    seeds = study.seeds(*models)
    steps = common_steps([study.runs[model][seed] for model in models for seed in seeds])
    if not seeds or not steps:
        return None
    numbers = [other[model] for model in models]
    losses = [[loss_of_step(study.runs[model][seed], steps[-1], ema) for seed in seeds] for model in models]
    means = [fmean(of_model) for of_model in losses]
    tau = kendall(means, numbers)
    known = _known_orders(losses)
    ranks = rankdata(numbers)
    differences = ranks[:, None] - ranks  # of the ranks, by pair
    untied = (np.argsort(np.argsort(numbers, kind="stable")) + 1.0).tolist()
    null = _null_distribution(numbers)
    return RankCorrelation(
        models=models,
        spearman=spearman(means, numbers),
        kendall=tau,
        spearman_interval=_range(known, differences, spearman(untied, numbers)),
        kendall_interval=_range(known, np.sign(differences), kendall(untied, numbers)),
        p_value=float(np.mean(null >= abs(tau) - 1e-9)),
        min_p_value=float(np.mean(null >= null.max() - 1e-9)),
    )


def _known_orders(losses: Sequence[Sequence[float]]) -> dict[tuple[int, int], int] | None:
    """For each pair: 1 if the first model has the higher loss, -1 if the second has, 0 if undecided.

    Student's t within seeds at a Bonferroni level: with 95 % confidence no pair is ordered wrongly. Only one
    direction of a pair can be wrong (unless two true losses are exactly equal), so each test is one-sided.
    None below three seeds.
    """
    pairs = list(itertools.combinations(range(len(losses)), 2))
    confidence = 1 - 2 * (1 - CONFIDENCE) / len(pairs)
    known = {}
    for i, j in pairs:
        differences = [a - b for a, b in zip(losses[i], losses[j], strict=True)]
        interval = intervals.mean_interval(differences, confidence)
        if interval is None:
            return None
        known[i, j] = (interval[0] > 0) - (interval[1] < 0)
    return known


def _range(
    known: Mapping[tuple[int, int], int] | None, weights: NDArray[np.float64], maximum: float
) -> Interval | None:
    """The lowest and the highest correlation over all orders of the undecided pairs.

    Both correlations are, up to a factor, sums over pairs of their order by loss times a weight.

    Args:
        known: result of `_known_orders`; None gives no interval.
        weights: (models, models): differences of ranks for Spearman's, their signs for Kendall's.
        maximum: the correlation of equal orders: 1 without ties.
    """
    if known is None:
        return None
    total = sum(abs(weights[pair]) for pair in known) or 1.0
    fixed = sum(weights[pair] * order for pair, order in known.items())
    unknown = sum(abs(weights[pair]) for pair, order in known.items() if not order)
    return float(maximum * (fixed - unknown) / total), float(maximum * (fixed + unknown) / total)


def _null_distribution(numbers: Sequence[float]) -> NDArray[np.float64]:
    """|Kendall's tau| between numbers and all their permutations, or sampled ones and the identity."""
    if math.factorial(len(numbers)) <= MAX_ORDERS:
        orders = list(itertools.permutations(numbers))
    else:
        rng = random.Random(SEED)
        orders = [tuple(numbers), *(tuple(rng.sample(numbers, len(numbers))) for _ in range(MAX_ORDERS))]
    i, j = np.triu_indices(len(numbers), 1)
    values = np.array(orders)
    signs = np.sign(values[:, i] - values[:, j])
    weights = np.sign(np.array(numbers)[i] - np.array(numbers)[j])
    return np.abs(signs @ weights) / max(1, np.count_nonzero(weights))
