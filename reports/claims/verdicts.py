"""Judges what the papers claim by the records: values, their intervals, and what follows from them.

A claim is a number, as stated or as printed cells give it. *Counted* values are exact: they hold if they lie
within what rounds to the printed digits; within 10 % they nearly hold. *Measured* values come with an
interval, and hold if all of it lies within 10 % of the claim, or within its printed digits where these are
coarser ("2 times" is 1.5 to 2.5); they do not hold if all of it lies outside, and otherwise it cannot be
told. 10 %, because published settings are not known to more: precision, batch and timing function move the
ratios of these papers by that and more. A prediction is never a verdict.

A ratio of speeds comes from interleaved rounds (bench.versus), with their 99 % interval; of several runs with
all that the interval of any of them holds, as hours differ by more than the rounds of one. Or else it comes
from two models timed apart under one setting, with a 95 % bootstrap of both medians, widened by what repeated
visits of one case differ by, there or in bench.scaling of that work on that device; where neither tells that,
nothing can be told. Slow-downs come from bench.scaling, or else from two sizes timed apart. Interleaved
models whose clocks drifted apart judge nothing; clocks that differed steadily, as under a power cap, are
told beside the ratio. Of several settings on a device the one nearest to the published decides: in switches,
precision if one is published, and batch; the others are told.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from baselines import load
from baselines.load import Claim
from bench.analysis import memory_fit, resolution, roofline, training_cost
from bench.analysis.memory_fit import Verdict
from bench.records.record import Comparison, Environment, Memory, Record, Run, Size, Throughput, case, to_line
from bench.stats import intervals as stats
from bench.stats import power_law
from bench.stats import ratios as paired
from bench.stats.power_law import Curve, Drift, Interval, Point
from reports.naming import order, size
from reports.sections import memory
from reports.selection import PAPERS_RULES, Evidence, Setting, gather, setting_of

BAND = 0.10  # around a claimed ratio, within which a measured one is the same
HOLDS, NEARLY, FAILS = "holds", "holds within 10 %, not to its digits", "does not hold"
OPEN, UNMEASURED, UNCOUNTED = "cannot tell", "not measured here", "not counted here"
COUNTS = ("MACs", "training MACs")
OUT = "reports/out/records.jsonl"
# what a published precision may have been, the likeliest first; blank: torch's own switches
_PRECISIONS = {
    "fp32": ("fp32", "torch-default", "tf32", "bf16", "fp16"),
    "": ("torch-default", "tf32", "fp32", "bf16", "fp16"),
}
PAIRED, STUDY, APART = "interleaved, 99 %", "bench.scaling, 95 %", "timed apart, 95 %"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A value that was measured under one setting."""

    value: float
    interval: Interval | None  # None: too few samples
    how: str
    setting: Setting  # its batch is the largest, if that had to shrink, as the switches say
    environment: Environment  # of the newest sample
    refused: str  # why it judges nothing; blank if it does
    remark: str = ""  # what else to know of the ratio; blank if nothing


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One claim, for one model and on one device: what was counted, measured and predicted of it."""

    claim: Claim
    model: str  # of a claim about a family, which one of it
    reference: str
    counted: float | None = None
    counter: str = ""
    counted_in: tuple[Environment, ...] = ()
    measured: Measured | None = None
    others: tuple[Measured, ...] = ()  # under other settings of the device
    fits: Verdict | None = None  # measured memory
    other_fits: tuple[Verdict, ...] = ()
    predicted: tuple[Verdict, ...] = ()
    note: str = ""

    @property
    def here(self) -> float | None:
        """The counted or the measured value."""
        if self.counted is not None:
            return self.counted
        return None if self.measured is None else self.measured.value

    @property
    def verdict(self) -> str:
        if self.claim.quantity == "training memory":
            if self.fits is None or self.fits.text not in ("fits", "does not fit"):
                return UNMEASURED
            return HOLDS if self.fits.text == "fits" else FAILS
        if self.claim.quantity in COUNTS:
            return UNCOUNTED if self.counted is None else judge_count(self.claim, self.counted)
        if self.measured is None:
            return UNMEASURED
        return OPEN if self.measured.refused else judge(self.claim, self.measured.interval)


def band(claim: Claim) -> Interval:
    """The values at which a measured claim holds."""
    assert claim.value is not None
    assert claim.bounds is not None
    low, high = claim.bounds
    return min(low, claim.value * (1 - BAND)), max(high, claim.value * (1 + BAND))


def judge(claim: Claim, interval: Interval | None) -> str:
    """What the interval of a measured value says of a claim."""
    if interval is None:
        return OPEN
    least, most = band(claim)
    low, high = interval
    if least <= low and high <= most:
        return HOLDS
    return FAILS if high < least or most < low else OPEN


def judge_count(claim: Claim, counted: float) -> str:
    """What an exact value says of a claim."""
    assert claim.bounds is not None
    low, high = claim.bounds
    if low <= counted <= high:
        return HOLDS
    least, most = band(claim)
    if not least <= counted <= most:
        return FAILS
    return NEARLY if claim.stated.value is None else HOLDS


# what was timed


@dataclass(frozen=True, kw_only=True, eq=False)
class Timings:
    """Passes that were timed, as ratios are made of them."""

    comparisons: tuple[tuple[Comparison, ...], ...]  # every run of a case, the newest last
    apart: Mapping[tuple[Setting, str, Size], tuple[Throughput, ...]]  # every visit of the newest code
    drifts: Mapping[Setting, Drift | None]  # what visits of one case differ by; None: not known
    studies: tuple[resolution.Study, ...]

    @property
    def models(self) -> list[str]:
        names = {model for _, model, _ in self.apart}
        names |= {run.model for runs in self.comparisons for run in runs[-1].runs}
        names |= {model for study in self.studies for model in study.models}
        return sorted(names, key=order)

    def point(self, setting: Setting, model: str, res: Size) -> Point | None:
        """Seconds of a pass at a size; None where it was not timed."""
        visits = self.apart.get((setting, model, res))
        return None if visits is None else _point(res, visits)

    def newest(self, *cases: tuple[Setting, str, Size]) -> Environment:
        runs = [visit.run.environment for case in cases for visit in self.apart[case]]
        return max(runs, key=lambda environment: environment.date)


def timings(records: Iterable[Record]) -> Timings:
    """Sort out what was timed; order and repetition of the records do not matter."""
    held = sorted(set(records), key=to_line)
    compared: dict[tuple[str, str, str], list[Comparison]] = {}
    for comparison in sorted(
        (record for record in held if isinstance(record, Comparison)), key=lambda one: _date(one.runs[0])
    ):
        here = comparison.runs[0].environment
        compared.setdefault((case(comparison), here.device, here.torch), []).append(comparison)
    visits: dict[tuple[Setting, str, Size], list[Throughput]] = {}
    for record in sorted(
        (r for r in held if isinstance(r, Throughput) and r.run.question == "throughput"),
        key=lambda r: _date(r.run),
    ):
        visits.setdefault((setting_of(record.run), record.run.model, record.run.res), []).append(record)
    apart = {case: _of_newest_code(visits[case]) for case in sorted(visits, key=repr)}
    points: dict[Setting, list[Point]] = {}
    for (setting, _, res), kept in apart.items():
        points.setdefault(setting, []).append(_point(res, kept))
    studies = resolution.studies(held)
    return Timings(
        comparisons=tuple(tuple(compared[name]) for name in sorted(compared)),
        apart=apart,
        drifts={
            setting: _drift(setting, points[setting], studies, "inference") for setting in sorted(points)
        },
        studies=tuple(studies),
    )


def _drift(
    setting: Setting, points: Sequence[Point], studies: Sequence[resolution.Study], work: str
) -> Drift | None:
    """What visits of one case differ by; where every case was visited once, as in the device's studies.

    Those of the same work only: what visits of passes differ by says nothing of training steps.
    """
    wanted = work, setting.device, setting.precision
    alike = [
        study.drift
        for study in studies
        if (study.setting.work, study.setting.device, study.setting.precision) == wanted
    ]
    known = [drift for drift in alike if drift is not None]
    return power_law.drift_of(points) or max(known, key=lambda drift: drift.sd, default=None)


def _point(res: Size, visits: Sequence[Throughput]) -> Point:
    return Point(side=resolution.side_of(res), visits=tuple(one.times_s for one in visits))


def _date(run: Run) -> str:
    return run.environment.date


def _of_newest_code(visits: Sequence[Throughput]) -> tuple[Throughput, ...]:
    newest = visits[-1].run.environment
    return tuple(
        one
        for one in visits
        if (one.run.environment.code, one.run.environment.torch) == (newest.code, newest.torch)
    )


def speeds(held: Timings, model: str, reference: str, res: Size) -> list[Measured]:
    """Every ratio of speeds of two models at a size, above 1 where the first is faster."""
    found = []
    for runs in held.comparisons:
        names = [run.model for run in runs[-1].runs]
        if runs[-1].runs[0].res == res and model in names and reference in names:
            found.append(_of_runs(runs, names.index(model), names.index(reference)))
    for setting, drift in held.drifts.items():
        ours, theirs = held.point(setting, model, res), held.point(setting, reference, res)
        if ours is not None and theirs is not None:
            value, interval = power_law.cost_ratio(theirs, ours, drift)
            newest = held.newest((setting, model, res), (setting, reference, res))
            found.append(_apart(setting, value, interval, newest, drift))
    return found


def _of_runs(runs: Sequence[Comparison], arm: int, against: int) -> Measured:
    """The ratio of all runs of a comparison: the median, and all that the interval of any run holds.

    A run's interval knows the noise within it, not how another hour differs. Runs by other code count too,
    as a change of the suite hardly ever changes a pass: where one did, the interval is too wide, and Repeats
    shows it. Of runs that are refused none counts, unless there is no other.
    """
    sound = [run for run in runs if not paired.why_refused(run, arm, against)] or runs[-1:]
    ratios = [run.ratio(arm, against) for run in sound]
    intervals = [interval for run in sound if (interval := run.interval(arm, against))]
    between = (min(low for low, _ in intervals), max(high for _, high in intervals)) if intervals else None
    told = [paired.clock_remark(sound[-1], arm, against)]
    told += [f"{len(ratios)} runs gave {min(ratios):.3g} to {max(ratios):.3g}"] * (len(ratios) > 1)
    return Measured(
        value=stats.median(ratios),
        interval=between,
        how=PAIRED,
        setting=setting_of(sound[-1].runs[arm]),
        environment=sound[-1].runs[arm].environment,
        refused=paired.why_refused(sound[-1], arm, against) or "",
        remark="; ".join(filter(None, told)),
    )


def slow_downs(held: Timings, model: str, sizes: tuple[int, ...]) -> list[Measured]:
    """Every growth of a model's time of an image between two sizes."""

    def grown(curve: Curve) -> tuple[float, Interval | None]:
        growth = power_law.growth(curve, *map(float, sizes))
        return growth.ratio, growth.interval

    return _over_sizes(held, (model,), sizes, lambda curves: grown(curves[0]))


def relative_slow_downs(held: Timings, model: str, reference: str, sizes: tuple[int, ...]) -> list[Measured]:
    """Every growth of a model's time between two sizes, as a multiple of another's."""
    small, large = map(float, sizes)
    return _over_sizes(
        held,
        (model, reference),
        sizes,
        lambda curves: power_law.growth_ratio(curves[0], curves[1], small, large),
    )


def _over_sizes(
    held: Timings,
    models: tuple[str, ...],
    sizes: tuple[int, ...],
    value_of: Callable[[Sequence[Curve]], tuple[float, Interval | None]],
) -> list[Measured]:
    found = []
    for study in held.studies:
        curves = [study.curve(model, "time", sizes) for model in models]
        if study.setting.work == "inference" and all(set(sizes) <= set(curve.sides) for curve in curves):
            value, interval = value_of(curves)
            ran = [one.batch for one in study.sizes if one.model in models and one.res in sizes]
            down = [f"down to batch {min(ran)}"] if min(ran) < max(ran) else []
            one = Measured(
                value=value,
                interval=interval,
                how=STUDY,
                setting=Setting(
                    device=study.setting.device,
                    precision=study.setting.precision,
                    batch=max(ran),
                    switches=(*study.setting.switches, *down),
                ),
                environment=study.runs[-1].environment,
                refused=resolution.why_refused(study.drift),
            )
            found.append(one)
    for setting, drift in held.drifts.items():
        points = [[held.point(setting, model, res) for res in sizes] for model in models]
        known = [[point for point in of if point is not None] for of in points]
        if all(len(of) == len(sizes) for of in known):
            value, interval = value_of([Curve(points=tuple(of), drift=drift) for of in known])
            newest = held.newest(*((setting, model, res) for model in models for res in sizes))
            found.append(_apart(setting, value, interval, newest, drift))
    return found


def steps_per_s(held: Timings, records: Iterable[Record], claim: Claim) -> list[Measured]:
    """Steps a second of one GPU at its share of the batch, on GPUs of the claim's sort only."""
    batch, gpu = int(claim.batch.split()[0]), claim.device.partition(" x ")[2]
    steps = {
        record
        for record in records
        if isinstance(record, Throughput)
        and record.run.question == "train_step"
        and (record.run.model, (record.run.res,), record.run.batch) == (claim.model, claim.sizes, batch)
        and gpu in (roofline.gpu_named(record.run.environment.device) or "")
        and record.run.checkpointing
    }
    visits: dict[Setting, list[Throughput]] = {}
    for step in sorted(steps, key=lambda step: (_date(step.run), to_line(step))):
        visits.setdefault(setting_of(step.run), []).append(step)
    found = []
    for setting in sorted(visits):
        kept = _of_newest_code(visits[setting])
        point = _point(kept[-1].run.res, kept)
        drift = _drift(setting, [point], held.studies, "training")
        (interval,) = power_law.intervals(Curve(points=(point,), drift=drift))
        of_steps = interval and (1 / interval[1], 1 / interval[0])
        found.append(_apart(setting, 1 / point.cost, of_steps, kept[-1].run.environment, drift))
    return found


def _apart(
    setting: Setting, value: float, interval: Interval | None, environment: Environment, drift: Drift | None
) -> Measured:
    return Measured(
        value=value,
        interval=interval,
        how=APART,
        setting=setting,
        environment=environment,
        refused=resolution.why_refused(drift),
    )


# claims


def findings(records: Sequence[Record]) -> list[Finding]:
    """Every claim by every device that has something on it; one without anything where none has."""
    evidence, held = gather(records), timings(records)
    return [
        finding
        for claim in load.claims()
        for finding in _findings(claim, records, evidence, held)
        or [Finding(claim=claim, model=claim.model, reference=claim.reference)]
    ]


def _findings(claim: Claim, records: Sequence[Record], evidence: Evidence, held: Timings) -> list[Finding]:
    match claim.quantity:
        case "MACs":
            return _of_counts(claim, evidence)
        case "training MACs":
            return _of_training_macs(claim, records)
        case "training memory":
            return _of_memory(claim, records)
        case "training steps/s":
            return _by_device(claim, claim.model, "", steps_per_s(held, records, claim))
        case "training steps":
            return []
    found = []
    for model, reference in _named(claim, held.models):
        if claim.quantity == "speed":
            measured = speeds(held, model, reference, claim.sizes[0])
        elif claim.quantity == "slow-down":
            measured = slow_downs(held, model, claim.sizes)
        else:
            measured = relative_slow_downs(held, model, reference, claim.sizes)
        found += _by_device(claim, model, reference, measured)
    return found


def _named(claim: Claim, names: Sequence[str]) -> list[tuple[str, str]]:
    """The model and its reference; of a claim about families, every pair of one size."""
    if "*" not in claim.model:
        return [(claim.model, claim.reference)]
    ours = [name for name in names if fnmatchcase(name, claim.model) and "@" not in name]
    if not claim.reference:
        return [(name, "") for name in ours]
    theirs = {size(n): n for n in names if fnmatchcase(n, claim.reference) and "@" not in n}
    return [(name, theirs[size(name)]) for name in ours if size(name) in theirs]


def _by_device(claim: Claim, model: str, reference: str, measured: Sequence[Measured]) -> list[Finding]:
    found = []
    for device in sorted({one.setting.device for one in measured}):
        ranked = sorted(
            (one for one in measured if one.setting.device == device), key=lambda one: _far(claim, one)
        )
        found.append(
            Finding(
                claim=claim, model=model, reference=reference, measured=ranked[0], others=tuple(ranked[1:])
            )
        )
    return found


def _far(claim: Claim, one: Measured) -> tuple[object, ...]:
    """How far a setting is from the published one, for sorting; the newer of two alike first."""
    likely = _PRECISIONS[claim.precision]
    published = int(claim.batch.split()[0]) if claim.batch else 64
    batch, how = abs(math.log(one.setting.batch / published)), (PAIRED, STUDY, APART).index(one.how)
    precision = likely.index(one.setting.precision)
    return (
        len(one.setting.switches),
        precision if claim.precision else 0,
        one.interval is None,
        # what grows with the size hardly depends on the batch, but on visits that alternate
        (batch, how) if claim.quantity == "speed" else (how, batch),
        precision,
        [-ord(letter) for letter in one.environment.date],
        one.value,
    )


def _of_counts(claim: Claim, evidence: Evidence) -> list[Finding]:
    found = []
    (res,) = claim.sizes
    for model, reference in _named(claim, [count.model for count in evidence.counted if count.res == res]):
        ours, theirs = (evidence.count(name, res, PAPERS_RULES) for name in (model, reference))
        if ours is not None and theirs is not None and ours.counter == theirs.counter:
            ratio = (ours.macs / ours.batch) / (theirs.macs / theirs.batch)
            one = Finding(
                claim=claim,
                model=model,
                reference=reference,
                counted=ratio,
                counter=ours.counter,
                counted_in=(ours.environment, theirs.environment),
            )
            found.append(one)
    return list({(one.model, one.reference): one for one in found}.values())


def _of_training_macs(claim: Claim, records: Sequence[Record]) -> list[Finding]:
    costs = {
        one.training.model: one
        for one in training_cost.costs(training_cost.published(), sorted(records, key=repr))
    }
    ours, theirs = costs[claim.model], costs[claim.reference]
    if ours.from_counted is None or theirs.from_counted is None:
        return []
    note = ""
    if ours.release_flops and theirs.release_flops:
        least = "at most " if theirs.at_least else ""
        ratio = ours.release_flops / theirs.release_flops
        note = f"of FLOPs as the releases run, recomputed blocks included: {least}{ratio:.3f}"
    return [
        Finding(
            claim=claim,
            model=claim.model,
            reference=claim.reference,
            counted=ours.from_counted / theirs.from_counted,
            counter="3 x MACs x images",
            note=note,
        )
    ]


def _of_memory(claim: Claim, records: Sequence[Record]) -> list[Finding]:
    cases = memory.newest([record for record in records if isinstance(record, Memory)])
    found = [verdict for verdict in memory_fit.verdicts(cases) if verdict.claim.id == claim.id]
    ranked = sorted(found, key=_far_memory)
    measured = [verdict for verdict in ranked if not verdict.memory.predicted]
    if not ranked:
        return []
    return [
        Finding(
            claim=claim,
            model=claim.model,
            reference="",
            fits=measured[0] if measured else None,
            other_fits=tuple(measured[1:]),
            predicted=tuple(verdict for verdict in ranked if verdict.memory.predicted),
        )
    ]


def _far_memory(verdict: Verdict) -> tuple[object, ...]:
    """The release checkpoints; the paper's table says fp32, under which the suite's tf32 holds as much."""
    precisions = ("fp32", "tf32", "bf16")
    of = verdict.memory
    return not of.checkpointing, precisions.index(of.run.precision), of.run.environment.device


def commands(claims: Iterable[Claim]) -> list[str]:
    """What would count or measure some claims, one command for all asked alike; [] if nothing would."""
    models: dict[tuple[str, str], dict[str, None]] = {}
    for claim in claims:
        head, names, options = _asked(claim)
        if head:
            models.setdefault((head, options), {}).update(dict.fromkeys(names))
    return [" ".join([head, *names, options]) for (head, options), names in models.items()]


def _asked(claim: Claim) -> tuple[str, list[str], str]:
    """A command up to the models that it is given, those, and the rest of it."""
    model, reference = (_instance(claim, name) for name in (claim.model, claim.reference))
    names = [name for name in (model, reference) if name]
    small = claim.sizes[0]
    precision = claim.precision or "torch-default"
    if precision == "fp32":
        precision = "fp32 torch-default"
    batch = claim.batch.split()[0] if claim.batch else "64"
    timed = f"--batch {batch} --precision {precision} --out {OUT}"
    counted = f"--res {small} --counter torch torchprofile-meta --out {OUT}"
    slowed = f"--res 256 512 {timed}"
    return {
        "MACs": ("python -m bench.flops --model", names, counted),
        "training MACs": ("python -m bench.flops --model", names, counted),
        "speed": (f"python -m bench.versus {reference}", [model], f"--res {small} {timed}"),
        "slow-down": ("python -m bench.scaling --model", names, slowed),
        "relative slow-down": ("python -m bench.scaling --model", names, slowed),
        "training memory": ("python -m bench.memory --claims", [], f"--device cuda --out {OUT}"),
        "training steps/s": (
            "python -m bench.train_step --model",
            [model],
            f"--res {small} --checkpointing on {timed}",
        ),
        "training steps": ("", [], ""),
    }[claim.quantity]


def _instance(claim: Claim, name: str) -> str:
    """A model that a pattern stands for: the XL, of which the papers' tables are."""
    return name.replace("*", "XL")
