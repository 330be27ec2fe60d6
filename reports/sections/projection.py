"""The report's section on GPUs that were not measured: predictions, their errors, and published rows."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from bench.analysis.memory import memory_ratios
from bench.analysis.projection import published
from bench.analysis.projection.calibrate import Prediction, Share
from bench.analysis.projection.formula import why_not
from bench.analysis.projection.passes import PassCosts, costs_in, observations, pass_key, usable
from bench.analysis.projection.predictions import NOMINAL, TABLE, MemoryErrors, PassPrediction, memory_errors
from bench.analysis.projection.projector import HeldOut, Projector, left_out_text, projector
from bench.analysis.projection.published import Judged
from bench.analysis.rooflines import roofline
from bench.records.base import Record, size_text
from bench.tables.numbers import BLANK, significant
from bench.tables.render import render
from bench.tables.table import Column, Table
from models.registry import compared
from reports.markdown import sentence
from reports.naming import order
from reports.sections import Part, of_parts
from reports.selection import remembered

PLACE = "predictions.md", 1
GPUS = ("RTX 4090", "A100 SXM4 80GB", "H100 SXM5 80GB", "H200 SXM5 141GB")
SIZE, RES = "XL", (256, 512)
BATCH = 64
PRECISIONS = ("bf16", "torch-default")


def predictions(records: Sequence[Record]) -> list[PassPrediction]:
    """The predicted passes of the section; empty without the operator costs of a compared model."""
    costs, made, _ = calibrated(records)
    return _cases(costs, made, memory_errors(records, costs))


@remembered
def calibrated(records: Sequence[Record]) -> tuple[PassCosts, Projector, Counter[str]]:
    """The costs of passes, the calibration on the timed ones, and the number of unused timings by reason."""
    costs = costs_in(records)
    timed, unused = usable(records)
    seen, lacking = observations(timed, records, costs)
    return costs, projector(seen), unused + lacking


@of_parts
def section(records: Sequence[Record]) -> Iterator[Part]:
    """Write the section; empty without the operator costs of a compared model."""
    costs, made, unused = calibrated(records)
    errors = memory_errors(records, costs)
    cases = _cases(costs, made, errors)
    if not cases:
        return
    yield from ("## Predicted for GPUs", _reading(made, _memory_text(records, errors), cases))
    for gpu in GPUS:
        yield from (f"### Predicted: {gpu}", _table(TABLE, [case for case in cases if case.gpu == gpu]))
    yield from ("### Shares of the peaks", _table(SHARES, made.calibrations["cuda"].shares))
    if priors := made.describe_priors():
        yield sentence(priors)
    if made.held_out:
        yield from ("### Held-out passes", LEFT_OUT, _coverage(made), _table(HELD_OUT, made.held_out))
    if unused:
        reasons = "; ".join(f"{count} {reason}" for reason, count in unused.most_common())
        yield f"Measured passes that do not calibrate: {reasons}."
    if judged := published.judge(made, costs, [published.GPU]):
        yield from ("### Published beside predicted", f"{published.LIMIT}. {published.CAVEAT}.")
        yield _table(PUBLISHED, judged)


def _table(table: Table[Any], rows: Sequence[Any]) -> str:
    return render(table, rows, "md").strip()


def _cases(costs: PassCosts, made: Projector, errors: MemoryErrors) -> list[PassPrediction]:
    found = []
    for precision in PRECISIONS:
        for res in RES:
            for model in compared(SIZE):
                key = pass_key(model, res, BATCH, precision, "inference")
                work = costs.work(key)
                for peaks in map(roofline.of_gpu, GPUS) if work else ():
                    if work is not None and why_not(peaks, [precision]) is None:
                        case = PassPrediction(
                            gpu=peaks.device,
                            precision=precision,
                            work=work,
                            prediction=made.predict(work, peaks, precision),
                            memory=costs.memory.get(key),
                            errors=errors,
                        )
                        found.append(case)
    return found


def _memory_text(records: Sequence[Record], errors: MemoryErrors) -> str:
    """What is known of the errors of predicted memory of inference, in sentences."""
    known = memory_ratios.known_errors(records, ["inference"])
    return " ".join(map(sentence, [errors.describe("inference"), *known]))


def _reading(made: Projector, memory: str, cases: Sequence[PassPrediction]) -> str:
    environments = [case.work.environment for case in cases]
    stamps = ", ".join(sorted({f"torch {e.torch}, commit {e.commit or BLANK}" for e in environments}))
    return (
        "**Speed and memory under the name of a GPU are predicted, not measured.** Eager passes of batch "
        f"{BATCH} with torch's own kernels: each operator takes the longer of FLOPs over a share of the "
        "peak and bytes over a share of the bandwidth (baselines/gpus.csv, dense). *At most* are the rates "
        "at the full peaks: of an eager pass, which bounds the interval, and with ideal fusion. "
        f"torch-default is fp32 with TF32 in convolutions only. Basis: {made.describe()}. "
        f"{sentence(made.describe_coverage())} {memory} Work counted with "
        f"{stamps}, {max(e.date for e in environments)}."
    )


def _share(share: Share, *values: float) -> str:
    is_launch = share.prior.name == "launch"
    return " to ".join(f"{1e6 * value:.3g} µs" if is_launch else f"{value:.3g}" for value in values)


SHARES = Table[Share](
    title="Shares of a GPU's peaks",
    columns=(
        Column("share", lambda r: r.prior.name),
        Column("prior", lambda r: _share(r, r.prior.median)),
        Column("calibrated", lambda r: _share(r, r.value)),
        Column(NOMINAL, lambda r: _share(r, r.low, r.high)),
        Column("source of the prior", lambda r: r.prior.source),
    ),
    records=lambda row: (),
)

LEFT_OUT = (
    "Each size, model and device in turn was left out of the calibration and predicted. Then all passes were "
    "predicted from the priors alone, as for a GPU until one is measured. The interval "
    "of a group comes from the errors of the other groups (sizes, models or devices; models where everything "
    "is left out), never from its own. The first table counts the passes inside their interval; the second "
    "lists all passes."
)


def _coverage(made: Projector) -> str:
    cells = {(one.left_out, one.model): one.text for one in made.coverages}

    def column(left_out: str) -> Column[str]:
        return Column(f"with {left_out_text(left_out)} left out", lambda model: cells.get((left_out, model)))

    table = Table[str](
        title="Passes in their interval",
        columns=(
            Column("model", lambda model: model),
            *map(column, dict.fromkeys(left_out for left_out, _ in cells)),
        ),
        records=lambda row: (),
    )
    return _table(table, sorted({model for _, model in cells}, key=order))


def _rates(batch: int, seconds: Sequence[float]) -> str:
    value, *bounds = (significant(batch / second) for second in seconds)
    return f"{value} [{', '.join(bounds)}]"


HELD_OUT = Table[HeldOut](
    title="Measured passes predicted without their group",
    columns=(
        Column("left out", lambda r: left_out_text(r.left_out)),
        Column("device", lambda r: r.observation.device),
        Column("model", lambda r: r.observation.model),
        Column("work", lambda r: r.observation.work.case.work),
        Column("px", lambda r: size_text(r.observation.res)),
        Column("batch", lambda r: r.observation.batch, str),
        Column("precision", lambda r: r.observation.precision),
        Column("measured images/s", lambda r: r.observation.batch / r.observation.seconds, significant),
        Column("predicted images/s", lambda r: _rates(r.observation.batch, _seconds(r.prediction))),
        Column("error, %", lambda r: 100 * math.expm1(-r.error), lambda v: f"{v:+.0f}"),
        Column("in interval", lambda r: r.is_covered),
    ),
    records=lambda row: (row.observation.work,),
)


def _seconds(prediction: Prediction) -> tuple[float, float, float]:
    return prediction.seconds, prediction.high_s, prediction.low_s


def _predicted(precision: str) -> Column[Judged]:
    def rates(row: Judged) -> str | None:
        reading = row.reading(precision)
        return _rates(published.BATCH, _seconds(reading.prediction)) if reading else None

    return Column(f"predicted images/s {precision}, {published.GPU}", rates)


def _limit(row: Judged) -> float | None:
    reading = row.reading("fp32")
    return published.BATCH / reading.prediction.fused_floor_s if reading else None


PUBLISHED = Table[Judged](
    title="Published throughputs beside predictions",
    columns=(
        Column("source", lambda r: r.row.source),
        Column("model", lambda r: r.row.model),
        Column("px", lambda r: r.row.res, str),
        Column("published images/s", lambda r: r.row.as_printed),
        Column("stated", lambda r: ", ".join(filter(None, (r.row.device, r.row.precision)))),
        *map(_predicted, published.PRECISIONS),
        Column(f"fp32 images/s at most, {published.GPU}", _limit, significant),
        Column(f"verdict, if on {published.GPU}", lambda r: r.verdict),
    ),
    records=lambda row: (row.work,),
)
