"""Training steps a second that claims state: measured, and predicted for their GPUs without a verdict."""

from collections.abc import Sequence
from dataclasses import dataclass

from baselines.claims import Claim
from bench.analysis.projection.formula import with_recomputation
from bench.analysis.projection.passes import pass_key
from bench.analysis.projection.published import GPU
from bench.analysis.rooflines import roofline
from bench.records.base import Record
from bench.stats import power_law
from bench.stats.power_law import Curve
from reports.claims import timed
from reports.claims.timed import Measured, Timings
from reports.markdown import BLANK, significant
from reports.sections.projection import calibrated

PRECISIONS = ("fp32", "torch-default")  # possible meanings of a printed fp32, or of nothing


@dataclass(frozen=True, kw_only=True)
class PredictedSteps:
    """The prediction for one claim, or the reason why there is none."""

    text: str
    records: tuple[Record, ...] = ()


def measured(timings: Timings, claim: Claim) -> list[Measured]:
    """Training steps per second of one GPU at its share of the batch, on GPUs of the claim's type only."""
    batch, gpu = int(claim.batch.split()[0]), claim.device.partition(" x ")[2]
    found = []
    for (setting, model, res), visits in timings.steps.items():
        named = roofline.gpu_named(setting.device) or ""
        fits = (model, (res,), setting.batch) == (claim.model, claim.sizes, batch) and gpu in named
        if fits and visits[-1].case.checkpointing:
            point = timed.point_of(res, visits)
            drift = timed.drift_of(setting, [point], timings.studies, "training")
            (interval,) = power_law.intervals(Curve(points=(point,), drift=drift))
            rates = interval and (1 / interval[1], 1 / interval[0])
            found.append(timed.separately(setting, 1 / point.cost, rates, visits, drift))
    return found


def predicted(claim: Claim, records: Sequence[Record]) -> PredictedSteps:
    """Steps a second of one GPU at its share of the batch, with checkpointing, and their nominal interval."""
    if claim.quantity != "training steps/s":
        return PredictedSteps(text=BLANK)
    costs, made, _ = calibrated(records)
    batch, gpu = int(claim.batch.split()[0]), claim.device.partition(" x ")[2]
    peaks = roofline.of_gpu(GPU if GPU.startswith(gpu) else gpu)
    work = costs.work(pass_key(claim.model, claim.sizes[0], batch, "fp32", "training"))
    if work is None:
        return PredictedSteps(text="no: operator costs of this step are not recorded")
    texts = []
    for precision in PRECISIONS:
        found = made.predict(with_recomputation(work), peaks, precision)
        value, *interval = (significant(1 / s) for s in (found.seconds, found.high_s, found.low_s))
        texts.append(f"{value} [{', '.join(interval)}] in {precision}")
    return PredictedSteps(text=f"{', '.join(texts)} ({peaks.device})", records=(work,))
