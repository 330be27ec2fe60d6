"""Predicted seconds of a pass on a device that is not available, from its work, peaks and efficiencies.

    seconds = sum over operators of max(FLOPs / (peak x u), bytes / (bandwidth x v)), u and v by kind;
    a GPU takes that or kernels x launch, whichever is longer; a CPU takes both, one after the other

u and v are shares of the peak arithmetic and bandwidth, between 0 and 1. They carry over from one device to
another of its type, and no prediction is faster than the floor. GPUs and CPUs run different kernels and are
calibrated separately: on measured passes, regularised by stated priors. Every device may differ from the
others of its type by DEVICE_SPREAD.

An interval combines the uncertainty of the shares with the error of predictions for passes that were left
out of the calibration. The errors of one model are correlated, so a group that was left out counts once
however many passes it has, and the interval takes Student's t over the groups. Groups are few, so the
level of the interval is nominal. Imports no torch.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from bench.analysis import roofline
from bench.analysis.roofline import Peaks
from bench.records.record import MemoryUse, Part, Size, Work
from bench.stats.intervals import student_t

Array = NDArray[np.float64]

PRODUCTS = ("depthwise", "pointwise", "convolution", "linear", "attention", "scan")
VECTOR = frozenset({"depthwise", "scan"})  # torch's kernels for them use no tensor cores in any precision
FP32, PRODUCT_BYTES, REST_BYTES, LAUNCH = range(len(PRODUCTS), len(PRODUCTS) + 4)  # after the products' u

COVERAGE = 0.9  # of an interval: nominal
Z = 1.6449  # of a normal distribution: COVERAGE lies within so many standard deviations
MODEL_SPREAD = 0.10  # assumed of log seconds: the formula's own error, until held-out passes give more
DEVICE_SPREAD = 0.25  # assumed of logit shares: between two devices of one type
_ROBUST = 2.0  # residuals of so many MODEL_SPREAD have half the weight


@dataclass(frozen=True, kw_only=True)
class Prior:
    """One share of a peak, or the launch time, before anything is measured."""

    name: str
    median: float  # a share of the peak; of "fp32 products" a difference of logits; of "launch" seconds
    spread: float  # standard deviation of its logit, of the difference, or of log seconds
    source: str

    @property
    def fitted_median(self) -> float:
        """The median on the scale of the fit: the logit of a share, the logarithm of seconds."""
        if self.name == "launch":
            return math.log(self.median)
        return self.median if self.name == "fp32 products" else math.log(self.median / (1 - self.median))

    def natural(self, fitted: float) -> float:
        """Convert from the scale of the fit to a share or to seconds."""
        if self.name == "launch":
            return math.exp(fitted)
        return fitted if self.name == "fp32 products" else 1 / (1 + math.exp(-fitted))


def _priors(*rows: tuple[str, float, float, str]) -> tuple[Prior, ...]:
    return tuple(
        Prior(name=name, median=median, spread=spread, source=source) for name, median, spread, source in rows
    )


_JUDGED = "our judgement"
_TORCH_DEPTHWISE = _JUDGED + ": torch's kernels are estimated at 1 to 3 TFLOP/s on an H200"
_FP32 = _JUDGED + ", knowing DiT's published rows: peaks without tensor cores are kept busy"
PRIORS: Mapping[str, tuple[Prior, ...]] = {
    "cuda": _priors(
        ("depthwise", 0.05, 0.7, _TORCH_DEPTHWISE),
        ("pointwise", 0.50, 0.4, _JUDGED + ": a product with layout changes around it"),
        ("convolution", 0.50, 0.4, _JUDGED + ": cuDNN on the given layout"),
        ("linear", 0.62, 0.3, "0.8 seen for large bf16 matrices on one H200 (baselines/gpus.csv), less here"),
        ("attention", 0.35, 0.5, _JUDGED + ": short sequences, 256 to 1024 tokens"),
        ("scan", 0.10, 0.8, _JUDGED),
        ("fp32 products", 1.5, 0.5, _FP32),
        ("bytes of products", 0.75, 0.4, _JUDGED),
        ("bytes of the rest", 0.80, 0.4, "0.9 seen for a copy on one H200 (baselines/gpus.csv), less here"),
        ("launch", 7e-6, 0.4, _JUDGED + ": seconds of the host for one eager kernel"),
    ),
    "cpu": _priors(
        ("depthwise", 0.20, 0.7, _JUDGED),
        ("pointwise", 0.70, 0.4, _JUDGED),
        ("convolution", 0.60, 0.4, _JUDGED),
        ("linear", 0.80, 0.3, _JUDGED),
        ("attention", 0.40, 0.5, _JUDGED),
        ("scan", 0.05, 0.8, _JUDGED),
        ("fp32 products", 0.3, 0.5, _JUDGED),
        ("bytes of products", 0.60, 0.4, _JUDGED),
        ("bytes of the rest", 0.60, 0.4, _JUDGED),
        ("launch", 5e-6, 0.4, _JUDGED + ": seconds of one eager operator"),
    ),
}


# seconds of a pass


@dataclass(frozen=True, eq=False)
class _Load:
    """The operators of a pass on one device, each with its seconds at the full peak and bandwidth."""

    product: NDArray[np.intp]  # index of the kind's u
    fp32: Array  # 1 where the arithmetic runs without tensor cores though they could do it
    flops_s: Array
    bytes_s: Array
    bandwidth: NDArray[np.intp]  # index of the bytes' v
    calls: int
    sequential: bool  # kernels start only after the one before has finished


def _load(work: Work, peaks: Peaks, precision: str, device_type: str) -> _Load:
    assert peaks.bytes_per_s is not None
    product, fp32, flops, moved, bandwidth = [], [], [], [], []
    for part in work.parts:
        vector = part.kind in VECTOR
        peak = peaks.fp32 if vector else peaks.flops_per_s(precision, part.kind)
        assert peak is not None
        product.append(PRODUCTS.index(part.kind) if part.kind in PRODUCTS else 0)
        # also TF32 where tensor cores are no faster in it, as on a GeForce: they are kept as busy
        fp32.append(0.0 if vector else float(peak == peaks.fp32))
        flops.append(2 * part.macs / peak)
        moved.append(part.eager_bytes / peaks.bytes_per_s)
        bandwidth.append(PRODUCT_BYTES if part.kind in PRODUCTS else REST_BYTES)
    return _Load(
        product=np.array(product, dtype=np.intp),
        fp32=np.array(fp32),
        flops_s=np.array(flops),
        bytes_s=np.array(moved),
        bandwidth=np.array(bandwidth, dtype=np.intp),
        calls=sum(part.calls for part in work.parts),
        sequential=device_type == "cpu",
    )


def _share(logit: Array) -> Array:
    return 1 / (1 + np.exp(-logit))


def _seconds_and_gradient(load: _Load, x: Array) -> tuple[float, Array]:
    """The seconds of a pass, and the derivatives of their logarithm."""
    n = len(x)
    u, v = _share(x[load.product] + x[FP32] * load.fp32), _share(x[load.bandwidth])
    flops_s, bytes_s = load.flops_s / u, load.bytes_s / v
    by_flops = flops_s > bytes_s
    # d(1 / share) / d(logit) = -(1 - share) / share
    by_u, by_v = np.where(by_flops, -flops_s * (1 - u), 0.0), np.where(by_flops, 0.0, -bytes_s * (1 - v))
    gradient = np.bincount(load.product, by_u, n) + np.bincount(load.bandwidth, by_v, n)
    gradient[FP32] = by_u @ load.fp32
    device = float(np.maximum(flops_s, bytes_s).sum())
    launches = load.calls * math.exp(x[LAUNCH])
    if not load.sequential and launches > device:
        return launches, np.eye(n)[LAUNCH]
    seconds = device
    if load.sequential:
        seconds += launches
        gradient[LAUNCH] = launches
    return seconds, gradient / seconds


def why_not(peaks: Peaks, precisions: Sequence[str]) -> str | None:
    """What a device lacks for a prediction, or None. Depthwise products and scans need its fp32 peak."""
    lacking = roofline.unknown(peaks, [*precisions, "fp32"])
    return f"its {' or '.join(lacking)} peak is unknown" if lacking else None


def with_update(work: Work, use: MemoryUse) -> Work:
    """A training step: forward and backward pass with what AdamW and the average of the weights move.

    AdamW reads parameter, gradient and two moments and writes all but the gradient; the average reads two
    and writes one. Everything is float32.

    Args:
        work: of the two passes.
        use: of memory, for the sizes of gradients and average.
    """
    moved = 7 * use.gradients_bytes + 3 * use.ema_bytes
    update = Part(
        kind="elementwise", op="AdamW and EMA", module="", phase="update",
        calls=0, macs=0, eager_bytes=moved, fused_bytes=moved,
    )  # fmt: skip
    return replace(work, parts=(*work.parts, update))


# calibration


@dataclass(frozen=True, kw_only=True)
class Observation:
    """A measured pass, with its work and the peaks of its device."""

    work: Work
    precision: str
    peaks: Peaks
    device: str
    device_type: str
    seconds: float

    @property
    def model(self) -> str:
        return self.work.model

    @property
    def res(self) -> Size:
        return self.work.res

    @property
    def batch(self) -> int:
        return self.work.batch


@dataclass(frozen=True, kw_only=True)
class Share:
    """A calibrated share beside its prior, with its nominal interval."""

    prior: Prior
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """Shares of one type of device after the observations: a normal distribution on the scale of the fit.

    The first entries are those of the type; then follow the differences of each measured device from them.
    """

    device_type: str
    observations: tuple[Observation, ...]
    devices: tuple[str, ...]
    mean: Array
    covariance: Array
    residuals: tuple[float, ...]  # log(predicted / measured) of every observation

    @property
    def misfit(self) -> float:
        """Root mean square of the residuals."""
        return math.sqrt(fmean(residual**2 for residual in self.residuals))

    def of_device(self, device: str | None) -> tuple[Array, Array]:
        """Mean and covariance for a device: a measured one by its name, or any other one of the type."""
        n = len(PRIORS[self.device_type])
        mean, covariance = self.mean[:n], self.covariance[:n, :n]
        if device not in self.devices:
            return mean, covariance + DEVICE_SPREAD**2 * np.eye(n)
        at = n * (1 + self.devices.index(device))
        both = self.covariance[:, :n] + self.covariance[:, at : at + n]
        return mean + self.mean[at : at + n], both[:n] + both[at : at + n]

    @property
    def refuted(self) -> list[str]:
        """Shares outside the interval of their prior; few, if the priors are wide enough."""
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
    """Fit the shares of one type of device to its observations; without any, the priors.

    Least squares of log seconds with a Cauchy loss, which limits the weight of disturbed measurements, and
    with the priors as residuals of their own.
    """
    from scipy.optimize import least_squares  # here: 1.5 s that --help need not wait

    priors = PRIORS[device_type]
    n, count = len(priors), len(observations)
    devices = tuple(sorted({seen.device for seen in observations}))
    loads = [_load(seen.work, seen.peaks, seen.precision, device_type) for seen in observations]
    measured = np.array([math.log(seen.seconds) for seen in observations])
    prior = np.concatenate([[p.fitted_median for p in priors], np.zeros(n * len(devices))])
    spreads = np.concatenate([[p.spread for p in priors], np.full(n * len(devices), DEVICE_SPREAD)])
    at = [n * (1 + devices.index(seen.device)) for seen in observations]

    def misses(x: Array) -> tuple[Array, Array]:
        """log(predicted / measured) of every observation, and its derivatives."""
        off, slopes = np.zeros(count), np.zeros((count, len(x)))
        for row, (load, i) in enumerate(zip(loads, at, strict=True)):
            seconds, gradient = _seconds_and_gradient(load, x[:n] + x[i : i + n])
            off[row] = math.log(seconds) - measured[row]
            slopes[row, :n] = slopes[row, i : i + n] = gradient
        return off, slopes

    def residuals(x: Array) -> Array:
        return np.concatenate([misses(x)[0] / MODEL_SPREAD, (x - prior) / spreads])

    def jacobian(x: Array) -> Array:
        return np.concatenate([misses(x)[1] / MODEL_SPREAD, np.diag(1 / spreads)])

    def loss(z: Array) -> Array:
        """Cauchy for observations, linear for priors: the values, first and second derivatives."""
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


# prediction


@dataclass(frozen=True, kw_only=True)
class GroupError:
    """The error of predictions for whole groups that were left out, in logarithms."""

    scale: float  # root of the mean, over groups, of their mean squares
    groups: int  # that it is from; 0 where it is assumed

    @property
    def half_width(self) -> float:
        """Half the nominal interval. A group is one degree of freedom: its errors are correlated."""
        return self.scale * (student_t(self.groups, COVERAGE) if self.groups else Z)


ASSUMED = GroupError(scale=MODEL_SPREAD, groups=0)


def error_of(groups: Iterable[Sequence[float]], at_least: float = MODEL_SPREAD) -> GroupError:
    """The error of groups, each given by log(predicted / true) of its passes; without any, ASSUMED.

    It is an error about zero: a common bias makes it larger.
    """
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
    eager_floor_s: float  # every operator at the full peak or bandwidth: no prediction is below
    fused_floor_s: float  # and with ideal fusion: nothing is faster


def predict(
    calibration: Calibration, work: Work, peaks: Peaks, precision: str, device: str | None, error: GroupError
) -> Prediction:
    """Predict an eager pass; no interval begins below the eager floor.

    Args:
        calibration: of the device's type.
        work: of the pass.
        peaks: of the device, complete by `why_not`.
        precision: of the arithmetic.
        device: its name if the calibration may know it.
        error: of the formula itself.
    """
    load = _load(work, peaks, precision, calibration.device_type)
    mean, covariance = calibration.of_device(device)
    seconds, slope = _seconds_and_gradient(load, mean)
    factor = math.exp(math.hypot(Z * math.sqrt(slope @ covariance @ slope), error.half_width))
    eager, fused = (roofline.floor(work, peaks, precision, form) for form in roofline.FORMS)
    assert eager is not None
    assert fused is not None
    return Prediction(
        seconds=seconds,
        low_s=min(seconds, max(seconds / factor, eager.total_s)),  # min: they may be equal but for rounding
        high_s=seconds * factor,
        eager_floor_s=eager.total_s,
        fused_floor_s=fused.total_s,
    )
