"""Calibration with cross-validation: predictions with the error of held-out passes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.analysis.projection.calibrate import (
    ASSUMED,
    COVERAGE,
    Calibration,
    GroupError,
    Observation,
    Prediction,
    calibrate,
    error_of,
    predict,
)
from bench.analysis.projection.priors import PRIORS
from bench.analysis.rooflines.roofline import Peaks
from bench.records.base import size_text
from bench.records.operators import OperatorCosts

EVERYTHING = "everything"
_GROUP_OF: Mapping[str, Callable[[Observation], str]] = {
    "size": lambda seen: size_text(seen.res),
    "model": lambda seen: seen.model,
    "device": lambda seen: seen.device,
    EVERYTHING: lambda seen: seen.model,
}


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """A measured pass, predicted by a calibration without its group."""

    left_out: str  # size, model, device or EVERYTHING
    group: str
    observation: Observation
    prediction: Prediction

    @property
    def error(self) -> float:
        """log(predicted / measured)."""
        return math.log(self.prediction.seconds / self.observation.seconds)

    @property
    def is_covered(self) -> bool:
        return self.prediction.low_s <= self.observation.seconds <= self.prediction.high_s


def left_out_text(left_out: str) -> str:
    return left_out if left_out == EVERYTHING else f"its {left_out}"


def held_out(observations: Sequence[Observation]) -> list[HeldOut]:
    """Predict each size, model and device from a calibration without it, then all passes from priors alone.

    Predictions from priors are those of a device type that was never measured; their groups are models. The
    interval of a group comes from the errors of the other groups, never from its own. Groups belong to one
    device type. A single group is not left out, as no other group gives an interval.
    """
    found: list[HeldOut] = []
    for device_type in sorted({seen.device_type for seen in observations}):
        of_type = [seen for seen in observations if seen.device_type == device_type]
        for left_out, group_of in _GROUP_OF.items():
            members: dict[str, list[Observation]] = {
                group: [] for group in sorted(set(map(group_of, of_type)))
            }
            for seen in of_type:
                members[group_of(seen)].append(seen)
            if len(members) > 1:
                found += _without_each(left_out, members)
    return found


def _without_each(left_out: str, members: Mapping[str, Sequence[Observation]]) -> list[HeldOut]:
    device_type = next(iter(members.values()))[0].device_type

    def others(group: str) -> list[Observation]:
        if left_out == EVERYTHING:
            return []
        return [seen for other, of in members.items() if other != group for seen in of]

    calibrations = {group: calibrate(device_type, others(group)) for group in members}

    def predicted(group: str, error: GroupError) -> list[HeldOut]:
        return [
            HeldOut(
                left_out=left_out,
                group=group,
                observation=seen,
                prediction=predict(
                    calibrations[group], seen.work, seen.peaks, seen.precision, seen.device, error
                ),
            )
            for seen in members[group]
        ]

    errors = {group: [held.error for held in predicted(group, ASSUMED)] for group in members}
    return [
        held
        for group in members
        for held in predicted(group, error_of(errors[other] for other in members if other != group))
    ]


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """The number of one model's held-out passes that lie in their interval, for one way of grouping."""

    left_out: str
    model: str
    covered: int
    passes: int

    @property
    def text(self) -> str:
        return f"{self.covered} of {self.passes}"


DEVICE_NAMES = {"cuda": "GPU", "cpu": "CPU"}
_GROUPS = {
    "size": "sizes left out",
    "model": "models left out",
    "device": "devices left out",
    EVERYTHING: "models predicted from priors alone",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Projector:
    """Calibrations of both types of device, and their errors on held-out passes."""

    calibrations: Mapping[str, Calibration]
    held_out: tuple[HeldOut, ...]

    def predict(
        self, work: OperatorCosts, peaks: Peaks, precision: str, device_type: str = "cuda"
    ) -> Prediction:
        calibration, error = self.calibrations[device_type], self.error(device_type)
        return predict(calibration, work, peaks, precision, peaks.device, error)

    def tests(self, device_type: str) -> list[HeldOut]:
        """The held-out passes of this type of device; if it was never measured, those from priors alone."""
        from_priors = [held for held in self.held_out if held.left_out == EVERYTHING]
        if not self.calibrations[device_type].devices:
            return from_priors
        own = [held for held in self.held_out if held.observation.device_type == device_type]
        return [held for held in own if held.left_out != EVERYTHING] or from_priors

    def error(self, device_type: str) -> GroupError:
        """The largest error over all ways of grouping."""
        errors = self._errors(device_type).values()
        return max(errors, key=lambda error: error.half_width, default=ASSUMED)

    def _errors(self, device_type: str) -> dict[str, GroupError]:
        """Errors by way of grouping."""
        groups: dict[str, dict[tuple[str, str], list[float]]] = {}
        for held in self.tests(device_type):
            group = held.observation.device_type, held.group
            groups.setdefault(held.left_out, {}).setdefault(group, []).append(held.error)
        return {left_out: error_of(errors.values()) for left_out, errors in groups.items()}

    def describe(self, device_type: str = "cuda") -> str:
        """The origin of the shares and of the interval, in words."""
        calibration, kind = self.calibrations[device_type], DEVICE_NAMES[device_type]
        devices = " and ".join(sorted({held.observation.device for held in self.tests(device_type)}))
        errors = " or ".join(
            f"{_factor(error)} for {error.groups} {_GROUPS[left_out]} on {devices}"
            for left_out, error in self._errors(device_type).items()
        )
        error = f"{errors} (the largest, by Student's t)" if errors else f"{_factor(ASSUMED)}, assumed"
        interval = f"the interval combines the uncertainty of the shares with an error of {error}"
        if not calibration.devices:
            return (
                f"no {kind} is measured yet: the shares of its peaks are priors; {interval}; the error for a "
                f"{kind} is unknown"
            )
        measured = " and ".join(calibration.devices)
        text = f"calibrated on {len(calibration.observations)} passes on {measured}; {interval}"
        return (
            text if len(calibration.devices) > 1 else f"{text}; the difference between two {kind}s is assumed"
        )

    @property
    def coverages(self) -> list[Coverage]:
        """Coverage of the interval on held-out passes, by way of grouping and by model."""
        found: dict[tuple[str, str], list[bool]] = {}
        for held in self.held_out:
            found.setdefault((held.left_out, held.observation.model), []).append(held.is_covered)
        return [
            Coverage(left_out=left_out, model=model, covered=sum(covered), passes=len(covered))
            for (left_out, model), covered in found.items()
        ]

    def describe_priors(self) -> str:
        """Number of priors that the measured passes contradict, in words; blank without passes."""
        return "; ".join(
            f"of the {len(PRIORS[device_type])} shares of a {DEVICE_NAMES[device_type]}, calibration moved "
            f"{', '.join(calibration.refuted) or 'none'} outside the interval of its prior"
            for device_type, calibration in self.calibrations.items()
            if calibration.devices
        )

    def describe_coverage(self) -> str:
        """Coverage of the intervals on held-out passes, and what it proves about their level, in words."""
        nominal = f"the nominal coverage of the intervals is {100 * COVERAGE:.0f} %"
        if not self.held_out:
            return f"{nominal}; no measured pass tests it"
        tests = []
        for left_out in dict.fromkeys(held.left_out for held in self.held_out):
            of = [one for one in self.coverages if one.left_out == left_out]
            low = [f"only {one.text} of {one.model}" for one in of if one.covered < COVERAGE * one.passes]
            total = f"{sum(one.covered for one in of)} of {sum(one.passes for one in of)}"
            detail = ", ".join([f"interval of a factor of {self._widths(left_out)}", *low])
            tests.append(f"{total} with {left_out_text(left_out)} left out ({detail})")
        seen = {held.observation for held in self.held_out}
        models = len({one.model for one in seen})
        possible = 100 * 0.05 ** (1 / models)  # at this coverage all groups are inside with probability 5 %
        return (
            f"{nominal}. Observed: {'; '.join(tests)}. With {len(seen)} measured passes of {models} models "
            f"the true coverage may be as low as {possible:.0f} % (95 % confidence)"
        )

    def _widths(self, left_out: str) -> str:
        """The factors of the intervals towards slower times, which no floor limits."""
        factors = [
            f"{held.prediction.high_s / held.prediction.seconds:.2g}"
            for held in self.held_out
            if held.left_out == left_out
        ]
        low, high = min(factors, key=float), max(factors, key=float)
        return low if low == high else f"{low} to {high}"


def _factor(error: GroupError) -> str:
    return f"a factor of {math.exp(error.half_width):.2g}"


def projector(observations: Sequence[Observation]) -> Projector:
    """Calibrate on all passes, and on all passes except each group in turn."""
    return Projector(
        calibrations={
            device_type: calibrate(
                device_type, [seen for seen in observations if seen.device_type == device_type]
            )
            for device_type in PRIORS
        },
        held_out=tuple(held_out(observations)),
    )
