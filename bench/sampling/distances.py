"""How far two sets of features lie apart: Fréchet distance, KID, precision and recall.

Sources: M. Heusel et al., 2017, arXiv:1706.08500 (Fréchet distance); M. Binkowski et al., 2018,
arXiv:1801.01401 (KID); T. Kynkäänniemi et al., 2019, arXiv:1904.06991 (precision and recall).
Features are (n, D) arrays; everything is computed in float64.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Features = NDArray[Any]  # (n, D) of any float
Values = NDArray[np.float64]

ROWS = 1024  # of features that are worked on at a time


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """A normal distribution's, estimated from features."""

    mean: Values  # (D,)
    root: Values  # (r, D): the covariance is root^T root


def moments(features: Features) -> Moments:
    """Mean and covariance, the latter by its factor, which few samples determine as well as many.

    Raises:
        ValueError: fewer than two samples, or values that are not finite.
    """
    _check(features, 2)
    n, D = features.shape
    mean = features.mean(axis=0, dtype=np.float64)
    if n <= D:
        return Moments(mean=mean, root=(features - mean) / np.sqrt(n - 1))
    covariance = np.zeros((D, D))
    for start in range(0, n, ROWS):
        centred = features[start : start + ROWS] - mean
        covariance += centred.T @ centred
    return normal(mean, covariance / (n - 1))


def normal(mean: Values, covariance: Values) -> Moments:
    """Moments of a given covariance (D, D)."""
    eigenvalues, vectors = np.linalg.eigh(covariance)
    return Moments(mean=mean, root=np.sqrt(eigenvalues.clip(min=0))[:, None] * vectors.T)


def frechet(a: Moments, b: Moments) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two normal distributions.

    |mean difference|^2 + tr A + tr B - 2 tr (A B)^(1/2), where the last trace is the sum of the singular
    values of root_a root_b^T: no square root of a matrix, and none of a rounding error.
    """
    shared = np.linalg.svd(a.root @ b.root.T, compute_uv=False).sum()
    apart = float(((a.mean - b.mean) ** 2).sum())
    distance = apart + float((a.root**2).sum() + (b.root**2).sum()) - 2 * float(shared)
    return max(0.0, distance)  # it cannot be negative but by rounding


def kid(a: Features, b: Features, *, subset: int = 1000, subsets: int = 100, seed: int = 0) -> Values:
    """Squared maximum mean discrepancy under the kernel (x.y / D + 1)^3, unbiased, of random subsets.

    Args:
        a, b: features.
        subset: samples of each in a subset, from 2 on, drawn without replacement; less where there are fewer.
        subsets: how many; their mean is the estimate and their spread its uncertainty.
        seed: of the draws.

    Returns:
        (subsets,): about zero for the same distribution, negative ones among them.

    Raises:
        ValueError: fewer than two samples, in all or in a subset, or values that are not finite.
    """
    _check(a, 2)
    _check(b, 2)
    if subset < 2:
        raise ValueError(f"subset: needs at least 2 samples, got {subset}")
    size = min(subset, len(a), len(b))
    generator = np.random.default_rng(seed)
    values = np.empty(subsets)
    for i in range(subsets):
        x = a[generator.choice(len(a), size, replace=False)].astype(np.float64)
        y = b[generator.choice(len(b), size, replace=False)].astype(np.float64)
        within = sum(_kernel(z, z).sum() - (_diagonal(z)).sum() for z in (x, y)) / (size * (size - 1))
        values[i] = within - 2 * _kernel(x, y).mean()
    return values


def precision_recall(real: Features, made: Features, neighbours: int = 3) -> tuple[float, float]:
    """Share of what was made that lies among the real, and of the real among what was made.

    A sample lies among others if it is no further from one of them than that one's k-th nearest neighbour.

    Raises:
        ValueError: no more samples than neighbours, or values that are not finite.
    """
    _check(real, neighbours + 1)
    _check(made, neighbours + 1)
    return _covered(made, real, _radii(real, neighbours)), _covered(real, made, _radii(made, neighbours))


def _covered(points: Features, centres: Features, radii: Values) -> float:
    """The share of points that lie within the ball of some centre."""
    inside = 0
    for start in range(0, len(points), ROWS):
        near = _squared_distances(points[start : start + ROWS], centres) <= radii
        inside += int(near.any(axis=1).sum())
    return inside / len(points)


def _radii(points: Features, neighbours: int) -> Values:
    """Squared distance of every point to its k-th nearest neighbour among the others."""
    radii = np.empty(len(points))
    for start in range(0, len(points), ROWS):
        distances = _squared_distances(points[start : start + ROWS], points)
        rows = np.arange(len(distances))
        distances[rows, start + rows] = np.inf
        radii[start : start + ROWS] = np.partition(distances, neighbours - 1, axis=1)[:, neighbours - 1]
    return radii


def _squared_distances(a: Features, b: Features) -> Values:
    a, b = a.astype(np.float64), b.astype(np.float64)
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * (a @ b.T)
    return squares.clip(min=0)


def _kernel(x: Values, y: Values) -> Values:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _diagonal(x: Values) -> Values:
    return ((x**2).sum(axis=1) / x.shape[1] + 1) ** 3


def _check(features: Features, least: int) -> None:
    if len(features) < least:
        raise ValueError(f"samples: needs at least {least}, got {len(features)}")
    if not np.isfinite(features).all():
        raise ValueError("samples: their features hold inf or NaN")
