"""Distances between two sets of features: Fréchet distance, KID, precision and recall.

Sources: M. Heusel et al., 2017, arXiv:1706.08500 (Fréchet distance); M. Binkowski et al., 2018,
arXiv:1801.01401 (KID); T. Kynkäänniemi et al., 2019, arXiv:1904.06991 (precision and recall).
Features are (n, D) arrays; everything is computed in float64.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Features = NDArray[Any]  # (n, D), any float type
Values = NDArray[np.float64]

ROWS = 1024  # rows of features processed at a time


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Mean and covariance of a normal distribution, estimated from features."""

    mean: Values  # (D,)
    root: Values  # (r, D): the covariance is root^T root


def moments(features: Features) -> Moments:
    """Mean, and a factor of the covariance for any number of samples. ValueError: nonfinite values."""
    _check(features)
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
    """Moments with a given mean and covariance (D, D)."""
    eigenvalues, vectors = np.linalg.eigh(covariance)
    return Moments(mean=mean, root=np.sqrt(eigenvalues.clip(min=0))[:, None] * vectors.T)


def frechet(a: Moments, b: Moments) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two normal distributions.

    |mean difference|^2 + tr A + tr B - 2 tr (A B)^(1/2). The last trace is the sum of the singular values of
    root_a root_b^T, which avoids a matrix square root and its rounding errors.
    """
    shared = np.linalg.svd(a.root @ b.root.T, compute_uv=False).sum()
    squared = float(((a.mean - b.mean) ** 2).sum())
    distance = squared + float((a.root**2).sum() + (b.root**2).sum()) - 2 * float(shared)
    return max(0.0, distance)  # rounding can make it negative


def kid(a: Features, b: Features, *, subset: int = 1000, subsets: int = 100) -> Values:
    """Unbiased squared maximum mean discrepancy with kernel (x.y / D + 1)^3, for random subsets.

    Args:
        a, b: features.
        subset: samples of each set in a subset, 2 or more, drawn without replacement.
        subsets: number of subsets; their mean is the estimate and their spread its uncertainty.

    Returns:
        (subsets,): about zero for equal distributions; single values can be negative.

    Raises:
        ValueError: nonfinite values.
    """
    _check(a)
    _check(b)
    size = min(subset, len(a), len(b))
    generator = np.random.default_rng(0)
    values = np.empty(subsets)
    for i in range(subsets):
        x = a[generator.choice(len(a), size, replace=False)].astype(np.float64)
        y = b[generator.choice(len(b), size, replace=False)].astype(np.float64)
        within = sum(_kernel(z, z).sum() - _diagonal(z).sum() for z in (x, y)) / (size * (size - 1))
        values[i] = within - 2 * _kernel(x, y).mean()
    return values


def precision_recall(real: Features, made: Features, neighbours: int = 3) -> tuple[float, float]:
    """Precision: share of generated samples in the real manifold. Recall: share of real ones in theirs.

    A sample is in the manifold of a set if its distance to a member is at most that member's distance to its
    k-th nearest neighbour. ValueError: nonfinite values.
    """
    _check(real)
    _check(made)
    return _covered(made, real, _radii(real, neighbours)), _covered(real, made, _radii(made, neighbours))


def _covered(points: Features, centres: Features, radii: Values) -> float:
    """The share of points within the ball of at least one centre."""
    inside = 0
    for start in range(0, len(points), ROWS):
        near = _squared_distances(points[start : start + ROWS], centres) <= radii
        inside += int(near.any(axis=1).sum())
    return inside / len(points)


def _radii(points: Features, neighbours: int) -> Values:
    """Squared distance of every point to its k-th nearest other point."""
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


def _check(features: Features) -> None:
    if not np.isfinite(features).all():
        raise ValueError("samples: their features hold inf or NaN")
