"""Published throughputs compared with predictions: the precision that a row may have been measured in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from baselines import load
from bench.analysis.projection.calibrate import Prediction
from bench.analysis.projection.formula import why_not
from bench.analysis.projection.passes import PassCosts, PassKey, pass_key
from bench.analysis.projection.projector import Projector
from bench.analysis.rooflines import roofline
from bench.records.operators import OperatorCosts

# the resolution of each table's throughput; table 2 of DiCo states nothing else
_RES = {"dico_table01": 256, "dico_table02": 512, "fcdm_table03": 256, "fcdm_table05": 512}
BATCH = 64
GPU = "A100 SXM4 80GB"  # the papers state an A100 without its variant
PRECISIONS = ("fp32", "tf32", "torch-default")  # possible meanings of a printed fp32
SLACK = 0.1  # share of the time that a clock without synchronisation may miss
SLACK_TEXT = f"{100 * SLACK:.0f} % slack"
_SIMILAR = 0.02  # difference in log speed below which two precisions fit equally well


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """A printed throughput with the conditions of its table; blank if not stated."""

    source: str  # a table, such as dico:table1
    paper: str
    model: str
    res: int
    as_printed: str
    images_per_s: float
    device: str
    precision: str

    @property
    def key(self) -> PassKey:
        return pass_key(self.model, self.res, BATCH, "fp32", "inference")


@cache
def published_rows() -> tuple[PublishedRow, ...]:
    """Every printed throughput of these tables once, without cells copied from the other paper."""
    rows: dict[tuple[str, str, str], PublishedRow] = {}
    for name, res in _RES.items():
        table = load.table(name)
        for row in table.rows:
            rate = row["throughput"]
            if rate.value is None or load.taken_over(name, "throughput", row):
                continue
            model = load.backbone_name(row)
            rows[table.source, model, rate.as_printed] = PublishedRow(
                source=table.source,
                paper=table.paper,
                model=model,
                res=res,
                as_printed=rate.as_printed,
                images_per_s=rate.value,
                device=table.device,
                precision=table.precision,
            )
    return tuple(rows.values())


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A published throughput, assumed to be in one precision on one GPU."""

    precision: str
    prediction: Prediction
    published_s: float

    @property
    def is_above_limit(self) -> bool:
        """Whether it is faster than the peaks allow with ideal fusion."""
        return self.published_s < self.prediction.fused_floor_s

    @property
    def is_impossible(self) -> bool:
        return self.published_s < (1 - SLACK) * self.prediction.fused_floor_s

    @property
    def is_inside(self) -> bool:
        return self.prediction.low_s <= self.published_s <= self.prediction.high_s

    @property
    def error(self) -> float:
        """log(predicted speed / published speed)."""
        return math.log(self.published_s / self.prediction.seconds)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A published row compared with predictions in every precision."""

    row: PublishedRow
    gpu: str
    work: OperatorCosts
    readings: tuple[Reading, ...]

    def reading(self, precision: str) -> Reading | None:
        return next((reading for reading in self.readings if reading.precision == precision), None)

    @property
    def verdict(self) -> str:
        """The precision that fits best; one whose interval contains the row comes first."""
        impossible = [reading.precision for reading in self.readings if reading.is_impossible]
        possible = [reading for reading in self.readings if not reading.is_impossible]
        text = f"not {' or '.join(impossible)} by direct algorithms at the rated clock" if impossible else ""
        if not possible:
            return text
        fitting = [reading for reading in possible if reading.is_inside] or possible
        best = min(abs(reading.error) for reading in fitting)
        nearest = [reading for reading in fitting if abs(reading.error) < best + _SIMILAR]
        text += ("; " if text else "") + f"nearest {' or '.join(reading.precision for reading in nearest)}"
        if above := [reading.precision for reading in possible if reading.is_above_limit]:
            return f"{text}, above the {' and '.join(above)} limit, within {SLACK_TEXT}"
        if any(reading.is_inside for reading in nearest):
            return text
        return f"{text}, printed {'slower' if nearest[0].error > 0 else 'faster'} than its interval"


def judge(projector: Projector, costs: PassCosts, gpus: Sequence[str]) -> list[Judged]:
    """Compare every published row with known costs with predictions in each precision on each GPU."""
    judged = []
    for row in published_rows():
        work = costs.work(row.key)
        for peaks in map(roofline.of_gpu, gpus) if work else ():
            assert work is not None
            readings = [
                Reading(
                    precision=precision,
                    prediction=projector.predict(work, peaks, precision),
                    published_s=BATCH / row.images_per_s,
                )
                for precision in PRECISIONS
                if why_not(peaks, [precision]) is None
            ]
            judged.append(Judged(row=row, gpu=peaks.device, work=work, readings=tuple(readings)))
    return judged


LIMIT = (
    "At most is the limit of direct algorithms: ideal fusion at the peaks of rated clocks. A row that "
    f"exceeds it by more than {SLACK_TEXT}, the share of the time that timing without synchronisation may "
    "miss, is not of that precision by direct algorithms. Winograd's 3x3 convolutions (DiC) need 2.25 to 4 "
    "times fewer products, and boosted clocks exceed rated ones by up to 8 %"
)
CAVEAT = (
    "Published rows were not measured by this suite, and nothing is calibrated on them, but the prior for "
    "fp32 products was set with knowledge of DiT's rows. The precision of a row is uncertain: DiCo's tables "
    "say fp32, but PyTorch lets convolutions use TF32 by default, FlashAttention-2 takes no fp32, and DiCo's "
    "released timing stops its clock before the device has finished; FCDM's tables name neither GPU nor "
    "precision"
)
