"""Shares of peaks calibrated on measured passes, and predictions from them with an interval.

GPUs and CPUs run different kernels and are calibrated separately, regularised by stated priors. The shares of
two devices of one type differ by DEVICE_SPREAD.

An interval combines the uncertainty of the shares with the error of predictions for held-out passes. The
errors of one model are correlated. A held-out group therefore counts once, however many passes it has, and
the interval is Student's t over the groups. Groups are few, so the level of the interval is nominal.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import numpy as np

from bench.analysis.projection.formula import Array, PassLoad, pass_load, seconds_and_gradient
from bench.analysis.projection.priors import PRIORS, Prior
from bench.analysis.rooflines import roofline
from bench.analysis.rooflines.roofline import Peaks
from bench.records.base import Size
from bench.records.operators import OperatorCosts
from bench.stats.intervals import student_t

COVERAGE = 0.9  # nominal level of an interval
Z = 1.6449  # standard deviations of a normal distribution that contain COVERAGE
MODEL_SPREAD = 0.10  # assumed, of log seconds: error of the formula until held-out passes show more
DEVICE_SPREAD = 0.25  # assumed, of logit shares: between two devices of one type
_ROBUST = 2.0  # a residual of this many MODEL_SPREAD has half weight


@dataclass(frozen=True, kw_only=True)
class Observation:
    """A measured pass, with its work and the peaks of its device."""

    work: OperatorCosts
    precision: str
    peaks: Peaks
    device: str
    device_type: str
    seconds: float

    @cached_property
    def load(self) -> PassLoad:
        return pass_load(self.work, self.peaks, self.precision, self.device_type)

    @property
    def model(self) -> str:
        return self.work.case.model

    @property
    def res(self) -> Size:
        return self.work.case.res

    @property
    def batch(self) -> int:
        return self.work.case.batch


@dataclass(frozen=True, kw_only=True)
class Share:
    """A calibrated share with its prior and its nominal interval."""

    prior: Prior
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """Posterior of one type of device on the scale of the fit: its shares, then each device's differences."""

    device_type: str
    observations: tuple[Observation, ...]
    devices: tuple[str, ...]
    mean: Array
    covariance: Array
    residuals: tuple[float, ...]  # log(predicted / measured) of every observation

    @property
    def misfit(self) -> float:
        return math.sqrt(fmean(residual**2 for residual in self.residuals))

    def of_device(self, device: str | None) -> tuple[Array, Array]:
        """Mean and covariance for a device: a measured device by name, or an unmeasured one of the type."""
        n = len(PRIORS[self.device_type])
        mean, covariance = self.mean[:n], self.covariance[:n, :n]
        if device not in self.devices:
            return mean, covariance + DEVICE_SPREAD**2 * np.eye(n)
        at = n * (1 + self.devices.index(device))
        both = self.covariance[:, :n] + self.covariance[:, at : at + n]
        return mean + self.mean[at : at + n], both[:n] + both[at : at + n]

    @property
    def refuted(self) -> list[str]:
        """Shares outside the interval of their prior; few if the priors are wide enough."""
        rows = zip(PRIORS[self.device_type], self.mean, strict=False)  # differences of devices follow
        return [prior.name for prior, mean in rows if abs(mean - prior.fitted_median) > Z * prior.spread]

    @property
    def shares(self) -> list[Share]:
        """Every share before and after the observations."""
        shares = []
        for i, prior in enumerate(PRIORS[self.device_type]):
            half_width = Z * math.sqrt(self.covariance[i, i])
            low, value, high = (prior.natural(self.mean[i] + by) for by in (-half_width, 0.0, half_width))
            shares.append(Share(prior=prior, value=value, low=low, high=high))
        return shares


def calibrate(device_type: str, observations: Sequence[Observation]) -> Calibration:
    """Fit the shares of one type of device to its observations; without observations, return the priors.

    Least squares of log seconds with a Cauchy loss, which limits the weight of disturbed measurements, and
    with the priors as residuals of their own.
    """
    from scipy.optimize import least_squares  # the import takes 1.5 s, which --help avoids

    priors = PRIORS[device_type]
    n, count = len(priors), len(observations)
    devices = tuple(sorted({seen.device for seen in observations}))
    loads = [seen.load for seen in observations]
    measured = np.array([math.log(seen.seconds) for seen in observations])
    prior = np.concatenate([[p.fitted_median for p in priors], np.zeros(n * len(devices))])
    spreads = np.concatenate([[p.spread for p in priors], np.full(n * len(devices), DEVICE_SPREAD)])
    at = [n * (1 + devices.index(seen.device)) for seen in observations]

    def misses(x: Array) -> tuple[Array, Array]:
        """log(predicted / measured) of every observation, and its derivatives."""
        off, slopes = np.zeros(count), np.zeros((count, len(x)))
        for row, (load, i) in enumerate(zip(loads, at, strict=True)):
            seconds, gradient = seconds_and_gradient(load, x[:n] + x[i : i + n])
            off[row] = math.log(seconds) - measured[row]
            slopes[row, :n] = slopes[row, i : i + n] = gradient
        return off, slopes

    last: dict[bytes, tuple[Array, Array]] = {}  # least squares asks for residuals and slopes in turn

    def once(x: Array) -> tuple[Array, Array]:
        if x.tobytes() not in last:
            last.clear()
            last[x.tobytes()] = misses(x)
        return last[x.tobytes()]

    def residuals(x: Array) -> Array:
        return np.concatenate([once(x)[0] / MODEL_SPREAD, (x - prior) / spreads])

    def jacobian(x: Array) -> Array:
        return np.concatenate([once(x)[1] / MODEL_SPREAD, np.diag(1 / spreads)])

    def loss(z: Array) -> Array:
        """Cauchy loss for observations, linear loss for priors: values, first and second derivatives."""
        rho = np.stack([z, np.ones_like(z), np.zeros_like(z)])
        seen = z[:count]
        rho[:, :count] = np.log1p(seen), 1 / (1 + seen), -1 / (1 + seen) ** 2
        return rho

    x = prior
    if count:
        x = least_squares(residuals, prior, jacobian, loss=loss, f_scale=_ROBUST, ftol=1e-9).x
    off, slopes = misses(x)
    weighted = slopes.T / (MODEL_SPREAD**2 * (1 + (off / (_ROBUST * MODEL_SPREAD)) ** 2))
    return Calibration(
        device_type=device_type,
        observations=tuple(observations),
        devices=devices,
        mean=x,
        covariance=np.asarray(np.linalg.inv(weighted @ slopes + np.diag(spreads**-2.0)), dtype=np.float64),
        residuals=tuple(map(float, off)),
    )


@dataclass(frozen=True, kw_only=True)
class GroupError:
    """The error of predictions for held-out groups, in log seconds."""

    scale: float  # root of the mean over groups of each group's mean square
    groups: int  # number of groups; 0 if the error is assumed

    @property
    def half_width(self) -> float:
        """Half width of the nominal interval; each group is one degree of freedom."""
        return self.scale * (student_t(self.groups, COVERAGE) if self.groups else Z)


ASSUMED = GroupError(scale=MODEL_SPREAD, groups=0)


def error_of(groups: Iterable[Sequence[float]], at_least: float = MODEL_SPREAD) -> GroupError:
    """The error of groups of log(predicted / measured), about zero, so that a common bias increases it."""
    squares = [fmean(error**2 for error in errors) for errors in groups]
    if not squares:
        return ASSUMED
    return GroupError(scale=max(at_least, math.sqrt(fmean(squares))), groups=len(squares))


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Predicted seconds of a pass with a nominal interval."""

    seconds: float
    low_s: float
    high_s: float
    eager_floor_s: float  # every operator at full peak or bandwidth; a lower bound of predictions
    fused_floor_s: float  # the same with ideal fusion; a lower bound of any pass


def predict(
    calibration: Calibration,
    work: OperatorCosts,
    peaks: Peaks,
    precision: str,
    device: str | None,
    error: GroupError,
) -> Prediction:
    """Predict an eager pass on a device whose peaks `why_not` accepts. No interval is below the floor.

    `error` is that of the formula itself.
    """
    load = pass_load(work, peaks, precision, calibration.device_type)
    mean, covariance = calibration.of_device(device)
    seconds, slope = seconds_and_gradient(load, mean)
    factor = math.exp(math.hypot(Z * math.sqrt(slope @ covariance @ slope), error.half_width))
    eager, fused = (roofline.floor(work, peaks, precision, form) for form in roofline.FORMS)
    assert eager is not None
    assert fused is not None
    return Prediction(
        seconds=seconds,
        low_s=min(seconds, max(seconds / factor, eager.total_s)),  # min: for rounding
        high_s=seconds * factor,
        eager_floor_s=eager.total_s,
        fused_floor_s=fused.total_s,
    )
