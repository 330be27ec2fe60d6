"""The rows of the results table: every record, and every published number that has a column."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from baselines import load
from baselines.published import PublishedTable
from bench.analysis.memory.memory_fit import GIB
from bench.analysis.projection.predictions import PassPrediction
from bench.analysis.speed.speed_ratios import InterleavedPasses
from bench.records.base import COUNTS, MEMORY, SPEED, TRAINING, Record, size_text
from bench.records.comparison import Comparison
from bench.stats import ratios
from bench.tables.numbers import rounded
from reports.naming import COUNTED, MEASURED, PREDICTED, PUBLISHED, family
from reports.selection import latest


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A column of numbers; `better` is lower or higher."""

    key: str
    title: str
    better: str
    views: tuple[str, ...]
    field: str = ""  # property of a record; blank: not of one record
    per: float = 1.0  # the column's unit in that of the field


QUANTITIES = (
    Quantity(key="params", title="params, M", better="lower", views=(COUNTS,), field="params", per=1e6),
    Quantity(key="gmacs", title="GMACs", better="lower", views=(COUNTS,), field="macs_per_image", per=1e9),
    Quantity(key="rate", title="images/s", better="higher", views=(SPEED,), field="images_per_s"),
    Quantity(key="ms", title="median ms", better="lower", views=(SPEED,), field="median_s", per=1e-3),
    Quantity(key="joules", title="J/image", better="lower", views=(SPEED,), field="joules_per_image"),
    Quantity(key="ratio", title="speed ratio", better="higher", views=(SPEED,)),
    Quantity(key="gib", title="peak GiB", better="lower", views=(MEMORY,), field="peak_bytes", per=GIB),
    Quantity(key="fid", title="FID", better="lower", views=(TRAINING,)),
    Quantity(key="loss", title="validation loss", better="lower", views=(TRAINING,), field="validation_loss"),
)
Interval = tuple[float, float] | None


@dataclass(kw_only=True)
class Row:
    """One row; texts are blank and numbers are missing where the source has none."""

    model: str
    what: str  # kind of record, or the published table
    status: str
    device: str = ""
    res: str = ""
    batch: str = ""
    precision: str = ""
    settings: str = ""
    numbers: dict[str, float] = field(default_factory=dict)  # by key of QUANTITIES
    printed: dict[str, str] = field(default_factory=dict)  # published cells, digit for digit
    interval: Interval = None  # of the ratio of a comparison, else of images/s
    result: str = ""
    other: str = ""  # the reference of a comparison
    date: str = ""
    view: str = ""  # one of VIEWS, or blank
    is_newest: bool = True
    place: int = 0  # of its source in the list of sources

    @property
    def family(self) -> str:
        return family(self.model) if self.model else ""

    def text(self, key: str) -> str:
        value = self.numbers.get(key)
        return self.printed.get(key, "" if value is None else rounded(value).replace(",", ""))


def of_records(records: Sequence[Record]) -> list[Row]:
    """The rows of records, in their order; a comparison has a row for each model and for each pair."""
    newest = set(map(id, latest(records)))
    rows: list[Row] = []
    for place, record in enumerate(records):
        for row in _rows(record):
            row.place, row.is_newest = place, id(record) in newest
            rows.append(row)
    return rows


def _rows(record: Record) -> list[Row]:
    case: Any = record.arm_cases[0].common if isinstance(record, Comparison) else record.case
    predicted = record.case.is_predicted
    row = Row(
        model=getattr(case, "model", ""),
        what=record.case.title,
        status=COUNTED if case.device == "meta" and not predicted else PREDICTED if predicted else MEASURED,
        device=record.environment.device,
        res=size_text(case.res) if hasattr(case, "res") else "",
        batch=str(getattr(case, "batch", "")),
        precision=getattr(case, "precision", ""),
        settings=", ".join(case.details),
        date=record.environment.date[:10],
        view=record.case.view,
    )
    if isinstance(record, Comparison):
        return _passes(record, row) + _pairs(record, row)
    row.numbers, row.result = _numbers(record), record.result
    row.interval = getattr(record, "images_per_s_interval", None)
    return [row]


def _numbers(record: Record | InterleavedPasses) -> dict[str, float]:
    """The numbers that a record has as properties."""
    found = {one: getattr(record, one.field, None) for one in QUANTITIES if one.field}
    return {one.key: value / one.per for one, value in found.items() if isinstance(value, int | float)}


def _passes(record: Comparison, row: Row) -> list[Row]:
    """A row for the passes of every model, whose times stand in no row of passes timed alone."""
    found = []
    for arm, case in enumerate(record.arm_cases):
        passes = InterleavedPasses(runs=(record,), arm=arm)
        one = replace(row, model=case.model, what="interleaved pass", settings=", ".join(case.details))
        one.numbers, one.interval = _numbers(passes), passes.images_per_s_interval
        one.result = "; ".join([f"interval: {record.interval_covers}", *record.noise(arm)])
        found.append(one)
    return found


def _pairs(record: Comparison, row: Row) -> list[Row]:
    """A row for every pair of models, the first over the second."""
    found = []
    for (against, other), (arm, model) in combinations(enumerate(record.arms), 2):
        interval = record.interval(arm, against)
        verdict = record.why_refused(arm, against) or ratios.verdict(interval, record.margin)
        among = f"among {len(record.arms)}" if len(record.arms) > 2 else ""
        settings = ", ".join(filter(None, (f"over {other}", among, row.settings)))
        one = replace(row, model=model, settings=settings, result=verdict, other=other, interval=interval)
        one.numbers = {"ratio": record.ratio(arm, against)}
        found.append(one)
    return found


def of_predictions(predictions: Iterable[PassPrediction]) -> list[Row]:
    """The rows of predicted passes; they have no source that a dialog could show."""
    rows = []
    for one in predictions:
        case, numbers = one.work.case, {"rate": one.images_per_s, "ms": 1e3 * one.prediction.seconds}
        if one.peak_bytes is not None:
            numbers["gib"] = one.peak_bytes / GIB
        row = Row(
            model=case.model,
            what="forward pass",
            status=PREDICTED,
            device=one.gpu,
            res=size_text(case.res),
            batch=str(case.batch),
            precision=one.precision,
            numbers=numbers,
            interval=one.images_per_s_interval,
            result=one.fits,
            view=SPEED,
            place=-1,
        )
        rows.append(row)
    return rows


PUBLISHED_COLUMNS = {"params_m": "params", "gflops": "gmacs", "throughput": "rate", "fid": "fid"}


def of_tables(tables: Iterable[PublishedTable]) -> list[Row]:
    """The rows of the papers' tables that print one of the quantities; `place` counts from 0."""
    rows: list[Row] = []
    for table in tables:
        for printed in table.rows:
            cells = {key: printed[name] for name, key in PUBLISHED_COLUMNS.items() if name in printed}
            numbers = {key: cell.value for key, cell in cells.items() if cell.value is not None}
            if not numbers:
                continue
            filled = {name: printed[name].as_printed for name in ("train_steps", "cfg") if name in printed}
            steps, guidance = filled.get("train_steps"), filled.get("cfg")
            stated = [f"steps {steps}"] * bool(steps) + ["with guidance"] * bool(guidance)
            res = table.res_px if table.res_px.isdigit() else ""
            row = Row(
                model=load.backbone_name(printed, res),
                what=f"{table.paper} Table {table.number}",
                status=PUBLISHED,
                device=table.device if "rate" in numbers else "",
                res=res,
                batch=table.batch if "rate" in numbers else "",
                precision=table.precision if "rate" in numbers else "",
                settings=", ".join(stated),
                numbers=numbers,
                printed={key: cells[key].as_printed for key in numbers},
                view=SPEED if "rate" in numbers else COUNTS,
                place=len(rows),
            )
            rows.append(row)
    return rows
