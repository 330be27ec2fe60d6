"""Predicts the seconds of a pass on a device that is not at hand, from its work, peaks and efficiencies.

    seconds = sum over operators of max(FLOPs / (peak x u), bytes / (bandwidth x v)), u and v by kind;
    a GPU takes that or kernels x launch, whichever is longer, a CPU both, one after the other

u and v are shares of what the device can do at the most, between 0 and 1, so they carry from one device to
another of its type, and no prediction is faster than the floor. GPUs and CPUs run other kernels: neither
type says anything of the other's shares. They are calibrated on measured passes, held to stated priors, and
every device may differ from the others of its type by DEVICE_SPREAD.

An interval holds what is uncertain in the shares and, beside it, how far off predictions of what was left out
were. Passes of a model are off alike, so a group that was left out counts once however many passes it has:
the interval takes Student's t over the groups. What is uncertain in the shares is in those errors too, so it
is rather too wide where the groups are alike; that they are few makes its level a nominal one. Imports no
torch.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from bench.analysis import roofline
from bench.analysis.roofline import Peaks
from bench.records.record import MemoryUse, Part, Size, Work, size_text
from bench.stats.intervals import student_t

Array = NDArray[np.float64]

PRODUCTS = ("depthwise", "pointwise", "convolution", "linear", "attention", "scan")
VECTOR = frozenset({"depthwise", "scan"})  # torch's kernels for them use no tensor cores in any precision
FP32, PRODUCT_BYTES, REST_BYTES, LAUNCH = range(len(PRODUCTS), len(PRODUCTS) + 4)  # after the products' u

COVERAGE = 0.9  # of an interval: nominal
_Z = 1.6449  # of a normal distribution: that much lies within so many standard deviations
MODEL_SPREAD = 0.10  # assumed of log seconds: the formula's own error, until something held out says more
DEVICE_SPREAD = 0.25  # assumed of logit shares: between two devices of one type
_ROBUST = 2.0  # residuals of so many MODEL_SPREAD count half
_ITERATIONS = 50


@dataclass(frozen=True, kw_only=True)
class Prior:
    """What is held of one share, or of the launch, before anything is measured."""

    name: str
    median: float  # a share of the peak; of "fp32 products" a difference of logits; of "launch" seconds
    spread: float  # standard deviation of its logit, of the difference, or of log seconds
    why: str

    @property
    def inner(self) -> float:
        """The median as the calibration holds it: the logit of a share, the logarithm of seconds."""
        if self.name == "launch":
            return math.log(self.median)
        return self.median if self.name == "fp32 products" else math.log(self.median / (1 - self.median))

    def outer(self, inner: float) -> float:
        """A value of the calibration as people read it."""
        if self.name == "launch":
            return math.exp(inner)
        return inner if self.name == "fp32 products" else 1 / (1 + math.exp(-inner))


def _priors(*rows: tuple[str, float, float, str]) -> tuple[Prior, ...]:
    return tuple(
        Prior(name=name, median=median, spread=spread, why=why) for name, median, spread, why in rows
    )


_JUDGED = "our judgement"
PRIORS: Mapping[str, tuple[Prior, ...]] = {
    "cuda": _priors(
        (
            "depthwise",
            0.05,
            0.7,
            _JUDGED + ": torch's own kernels are thought to do 1 to 3 TFLOP/s on an H200",
        ),
        ("pointwise", 0.50, 0.4, _JUDGED + ": a product, with changes of layout around it"),
        ("convolution", 0.50, 0.4, _JUDGED + ": cuDNN on the layout that it is given"),
        ("linear", 0.62, 0.3, "0.8 seen for large bf16 matrices on one H200 (baselines/gpus.csv), less here"),
        ("attention", 0.35, 0.5, _JUDGED + ": short sequences, 256 to 1024 tokens"),
        ("scan", 0.10, 0.8, _JUDGED),
        (
            "fp32 products",
            1.5,
            0.5,
            _JUDGED + ", knowing DiT's published rows: peaks without tensor cores are kept busy",
        ),
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
    of_flops: Array
    of_bytes: Array
    riding: NDArray[np.intp]  # index of the bytes' v
    calls: int
    one_after_the_other: bool  # starting kernels and running them


def _load(work: Work, peaks: Peaks, precision: str, device_type: str) -> _Load:
    assert peaks.bytes_per_s is not None
    product, fp32, flops, moved, riding = [], [], [], [], []
    for part in work.parts:
        index = PRODUCTS.index(part.kind) if part.kind in PRODUCTS else 0
        vector = part.kind in VECTOR
        peak = peaks.fp32 if vector else peaks.flops_per_s(precision, part.kind)
        assert peak is not None
        product.append(index)
        # also TF32 where tensor cores are no faster in it, as on a GeForce: they are kept as busy
        fp32.append(0.0 if vector else float(peak == peaks.fp32))
        flops.append(2 * part.macs / peak)
        moved.append(part.eager_bytes / peaks.bytes_per_s)
        riding.append(PRODUCT_BYTES if part.kind in PRODUCTS else REST_BYTES)
    return _Load(
        product=np.array(product, dtype=np.intp),
        fp32=np.array(fp32),
        of_flops=np.array(flops),
        of_bytes=np.array(moved),
        riding=np.array(riding, dtype=np.intp),
        calls=sum(part.calls for part in work.parts),
        one_after_the_other=device_type == "cpu",
    )


def _share(logit: Array) -> Array:
    return 1 / (1 + np.exp(-logit))


def _seconds(load: _Load, x: Array) -> float:
    return _seconds_and_gradient(load, x)[0]


def _seconds_and_gradient(load: _Load, x: Array) -> tuple[float, Array]:
    """The seconds of a pass, and the derivatives of their logarithm."""
    n = len(x)
    u, v = _share(x[load.product] + x[FP32] * load.fp32), _share(x[load.riding])
    of_flops, of_bytes = load.of_flops / u, load.of_bytes / v
    bound = of_flops > of_bytes  # by FLOPs
    # d(1 / share) / d(logit) = -(1 - share) / share
    by_u, by_v = np.where(bound, -of_flops * (1 - u), 0.0), np.where(bound, 0.0, -of_bytes * (1 - v))
    gradient = np.bincount(load.product, by_u, n) + np.bincount(load.riding, by_v, n)
    gradient[FP32] = by_u @ load.fp32
    device = float(np.maximum(of_flops, of_bytes).sum())
    launches = load.calls * math.exp(x[LAUNCH])
    if not load.one_after_the_other and launches > device:
        return launches, np.eye(n)[LAUNCH]
    seconds = device
    if load.one_after_the_other:
        seconds += launches
        gradient[LAUNCH] = launches
    return seconds, gradient / seconds


def why_not(peaks: Peaks, precisions: Sequence[str]) -> str | None:
    """What a device lacks for a prediction; None if nothing. Depthwise products and scans need fp32."""
    lacking = roofline.unknown(peaks, [*precisions, "fp32"])
    return f"no {' or '.join(lacking)} peak is known of it" if lacking else None


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

    model: str
    res: Size
    batch: int
    precision: str
    work: Work
    peaks: Peaks
    device: str
    device_type: str
    seconds: float
    date: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """Shares of one type of device after the observations: a normal distribution of their logits.

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
        """Root mean square of the residuals: what it does not explain of what it was shown."""
        return math.sqrt(fmean(residual**2 for residual in self.residuals))

    def shares(self, device: str | None) -> tuple[Array, Array]:
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
        """Shares that ended outside the interval of their prior: scarcely any if priors are wide enough."""
        rows = zip(PRIORS[self.device_type], self.mean, strict=False)  # differences of devices follow
        return [prior.name for prior, mean in rows if abs(mean - prior.inner) > _Z * prior.spread]

    def described(self) -> list["Share"]:
        """Every share before and after the observations."""
        shares = []
        for i, prior in enumerate(PRIORS[self.device_type]):
            reach = _Z * math.sqrt(self.covariance[i, i])
            low, now, high = (prior.outer(self.mean[i] + by) for by in (-reach, 0.0, reach))
            shares.append(Share(prior=prior, value=now, low=low, high=high))
        return shares


@dataclass(frozen=True, kw_only=True)
class Share:
    """What calibration made of a prior, with the interval that COVERAGE of its distribution lies in."""

    prior: Prior
    value: float
    low: float
    high: float


def calibrate(device_type: str, observations: Sequence[Observation]) -> Calibration:
    """Fit the shares of one type of device to its observations; without any, the priors.

    Least squares of log seconds, held to the priors; an observation that the fit misses by many
    MODEL_SPREAD counts less, so a disturbed measurement does not bend it.
    """
    priors = PRIORS[device_type]
    n = len(priors)
    devices = tuple(sorted({seen.device for seen in observations}))
    loads = [_load(seen.work, seen.peaks, seen.precision, device_type) for seen in observations]
    measured = np.array([math.log(seen.seconds) for seen in observations])
    prior = np.concatenate([[p.inner for p in priors], np.zeros(n * len(devices))])
    spreads = np.concatenate([[p.spread for p in priors], np.full(n * len(devices), DEVICE_SPREAD)])
    precision = np.diag(spreads**-2.0)
    at = [n * (1 + devices.index(seen.device)) for seen in observations]

    def residuals(x: Array) -> Array:
        pairs = zip(loads, at, strict=True)
        return np.array([math.log(_seconds(load, x[:n] + x[i : i + n])) for load, i in pairs]) - measured

    def cost(x: Array) -> float:
        ratio = residuals(x) / (_ROBUST * MODEL_SPREAD)
        # the logarithm that belongs to the weights below
        return float(_ROBUST**2 * np.log1p(ratio**2).sum() + (x - prior) @ precision @ (x - prior))

    def normal(x: Array) -> tuple[Array, Array]:
        """The gradient of half the cost, and the curvature that Gauss and Newton give it."""
        off = residuals(x)
        slopes = np.zeros((len(loads), len(x)))
        for row, load, i in zip(slopes, loads, at, strict=True):
            row[:n] = row[i : i + n] = _seconds_and_gradient(load, x[:n] + x[i : i + n])[1]
        weighted = slopes.T / (MODEL_SPREAD**2 * (1 + (off / (_ROBUST * MODEL_SPREAD)) ** 2))
        return weighted @ off + precision @ (x - prior), weighted @ slopes + precision

    x, damping = prior, 1e-3
    best = cost(x)
    for _ in range(_ITERATIONS):
        gradient, curvature = normal(x)
        while damping < 1e9:
            step = np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), gradient)
            if cost(x - step) < best:
                break
            damping *= 10
        else:
            break
        x, damping, gained = x - step, damping / 10, best - cost(x - step)
        best -= gained
        if gained < 1e-6:
            break
    return Calibration(
        device_type=device_type,
        observations=tuple(observations),
        devices=devices,
        mean=x,
        covariance=np.asarray(np.linalg.inv(normal(x)[1]), dtype=np.float64),
        residuals=tuple(map(float, residuals(x))),
    )


# prediction


@dataclass(frozen=True, kw_only=True)
class Error:
    """How far off predictions were for whole groups that they were not shown, in logarithms."""

    scale: float  # root of the mean, over groups, of their mean squares
    groups: int  # that it is from; 0 where it is assumed

    @property
    def reach(self) -> float:
        """Half the nominal interval; what is off alike within a group is one degree of freedom."""
        return self.scale * (student_t(self.groups, COVERAGE) if self.groups else _Z)


ASSUMED = Error(scale=MODEL_SPREAD, groups=0)


def error_of(groups: Iterable[Sequence[float]], at_least: float = MODEL_SPREAD) -> Error:
    """The error of groups, each given by log(predicted / true) of its passes; without any, ASSUMED.

    It is an error about zero: that all are off to one side makes it larger.
    """
    squares = [fmean(error**2 for error in errors) for errors in groups]
    return Error(scale=max(at_least, math.sqrt(fmean(squares))), groups=len(squares)) if squares else ASSUMED


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Seconds of a pass that nobody timed, and an interval of COVERAGE: nominally, see HeldOut."""

    seconds: float
    low_s: float
    high_s: float
    eager_floor_s: float  # every operator at the full peak or bandwidth: the formula gives nothing below
    fused_floor_s: float  # and with ideal fusion: nothing is faster


def predict(
    calibration: Calibration, work: Work, peaks: Peaks, precision: str, device: str | None, error: Error
) -> Prediction:
    """Predict an eager pass; no interval begins below the eager floor.

    Args:
        calibration: of the device's type.
        work: of the pass.
        peaks: of the device, which `why_not` finds nothing missing in.
        precision: of the arithmetic.
        device: its name if the calibration may know it.
        error: of the formula itself.
    """
    load = _load(work, peaks, precision, calibration.device_type)
    mean, covariance = calibration.shares(device)
    seconds, slope = _seconds_and_gradient(load, mean)
    reach = math.exp(math.hypot(_Z * math.sqrt(slope @ covariance @ slope), error.reach))
    eager, fused = (roofline.floor(work, peaks, precision, form) for form in roofline.FORMS)
    assert eager is not None
    assert fused is not None
    return Prediction(
        seconds=seconds,
        low_s=min(seconds, max(seconds / reach, eager.total_s)),  # min: they may be equal but for rounding
        high_s=seconds * reach,
        eager_floor_s=eager.total_s,
        fused_floor_s=fused.total_s,
    )


# held out

EVERYTHING = "everything"


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """A measured pass as predicted by a calibration that was not shown it."""

    left_out: str  # size, model or device: everything alike in it was left out together; or EVERYTHING
    group: str  # what counts as one among those left out so
    observation: Observation
    prediction: Prediction

    @property
    def error(self) -> float:
        """log(predicted / measured)."""
        return math.log(self.prediction.seconds / self.observation.seconds)

    @property
    def covered(self) -> bool:
        return self.prediction.low_s <= self.observation.seconds <= self.prediction.high_s


_LEFT_OUT: Mapping[str, Callable[[Observation], str]] = {
    "size": lambda seen: size_text(seen.res),
    "model": lambda seen: seen.model,
    "device": lambda seen: seen.device,
    EVERYTHING: lambda seen: seen.model,
}


def said_left_out(left_out: str) -> str:
    """In words, for a pass: its size, its model, its device or everything."""
    return left_out if left_out == EVERYTHING else f"its {left_out}"


def held_out(observations: Sequence[Observation]) -> list[HeldOut]:
    """Leave out every size, every model and every device in turn, then everything, and predict it.

    With everything left out a prediction is made from the priors alone, as it is for a type of device that
    nobody measured; of these, models count as groups. The bars of a group are made from the errors of the
    other groups, never from its own. Left out are whole groups of one device type; with a single group of
    a sort there is nothing to make bars of, and it is not done.
    """
    found: list[HeldOut] = []
    for device_type in sorted({seen.device_type for seen in observations}):
        of_type = [seen for seen in observations if seen.device_type == device_type]
        for left_out, group_of in _LEFT_OUT.items():
            groups = sorted(set(map(group_of, of_type)))
            if len(groups) > 1:
                found += _without_each(of_type, left_out, group_of, groups)
    return found


def _without_each(
    observations: Sequence[Observation],
    left_out: str,
    group_of: Callable[[Observation], str],
    groups: Sequence[str],
) -> list[HeldOut]:
    def predicted(seen: Observation, calibration: Calibration, error: Error) -> HeldOut:
        prediction = predict(calibration, seen.work, seen.peaks, seen.precision, seen.device, error)
        return HeldOut(left_out=left_out, group=group_of(seen), observation=seen, prediction=prediction)

    def shown(group: str) -> list[Observation]:
        return [seen for seen in observations if left_out != EVERYTHING and group_of(seen) != group]

    calibrations = {group: calibrate(observations[0].device_type, shown(group)) for group in groups}
    members = {group: [seen for seen in observations if group_of(seen) == group] for group in groups}
    errors = {
        group: [predicted(seen, calibrations[group], ASSUMED).error for seen in members[group]]
        for group in groups
    }
    return [
        predicted(seen, calibrations[group], error_of(errors[other] for other in groups if other != group))
        for group in groups
        for seen in members[group]
    ]
