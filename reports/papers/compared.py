"""The rows of a published table with our models of them, and their counted cells."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter

from baselines import load
from baselines.published import POWER
from bench.analysis.costs import training_cost
from bench.analysis.speed.settings import Setting
from bench.records.counts import MacCount
from bench.tables.numbers import decimals, significant
from reports.claims.timed import Timings
from reports.markdown import BLANK
from reports.naming import dit_of
from reports.selection import Evidence

SETTINGS = 4  # maximum measured settings with columns in a table
Predicted = Callable[[str, int], str]  # predicted images/s of a model at a resolution; blank if unknown


@dataclass(frozen=True, kw_only=True)
class Line:
    """A published row, and our model of it: "" without code or without a known configuration."""

    printed: load.Row
    model: str
    res: int
    count: MacCount | None

    @property
    def case(self) -> tuple[str, int]:
        return self.model, self.res


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A published table with our model of every row, and the records of these models."""

    table: load.PublishedTable
    res: int  # px, of rows that print none
    evidence: Evidence
    timings: Timings
    marks: Mapping[Setting, str]
    predicted: Predicted
    predicted_on: str  # GPU and precision

    @cached_property
    def ablations(self) -> dict[int, load.Ablation]:
        """By row, from 0."""
        return {one.row - 1: one for one in load.ablations() if one.table == self.table.id}

    @cached_property
    def lines(self) -> list[Line]:
        return [self._line(i, row) for i, row in enumerate(self.table.rows)]

    def _line(self, i: int, row: load.Row) -> Line:
        cell = row.get("resolution_px")
        res = int(cell.value) if cell and cell.value else self.res
        model = self.ablations[i].model or "" if i in self.ablations else load.backbone_name(row, res)
        count = self.evidence.count(model, res) if model else None
        return Line(printed=row, model=model, res=res, count=count)

    @cached_property
    def here(self) -> dict[Setting, str]:
        """At most SETTINGS settings with their marks, if the table prints a speed."""
        if "throughput" not in self.table.columns:
            return {}
        fullest = self.evidence.fullest([line.case for line in self.lines], SETTINGS)
        return {setting: self.marks[setting] for setting in fullest}

    @cached_property
    def _dits(self) -> list[Line | None]:
        """For every row that of its DiT."""
        lines = {load.row_name(line.printed): line for line in reversed(self.lines)}
        return [lines.get(dit_of(load.row_name(line.printed))) for line in self.lines]

    @cached_property
    def references(self) -> list[Line | None]:
        """For every row the row whose speed it is a multiple of."""
        if any(self._dits):
            return self._dits
        groups = [row["group"].as_printed if "group" in row else "" for row in self.table.rows]
        return [self.lines[groups.index(group)] for group in groups]

    @property
    def over(self) -> str:
        return "÷ DiT" if any(self._dits) else "÷ first"


def _in_units_of(cell: load.Published, column: str, count: MacCount | None) -> float | None:
    if count is None:
        return None
    if column == "gflops":
        return count.macs_per_image / 1e9
    return count.params_trainable / (10.0 ** POWER[_suffix(cell)] if column == "params_as_printed" else 1e6)


def _suffix(cell: load.Published) -> str:
    return cell.as_printed[-1] if cell.as_printed[-1:] in {*POWER} - {""} else ""


def _counted(compared: Compared, line: Line, column: str) -> str:
    cell = line.printed[column]
    value = _in_units_of(cell, column, line.count)
    if value is None:
        return BLANK
    return f"{value:.{max(decimals(value), cell.decimals + 1)}f}{_suffix(cell)}"


def _difference(compared: Compared, line: Line, column: str) -> str:
    """Difference of a count, in the printed unit, in per cent; (=) if it rounds to the printed number."""
    cell = line.printed[column]
    counted = _in_units_of(cell, column, line.count)
    if counted is None or cell.value is None:
        return BLANK
    same = f"{counted:.{cell.decimals}f}{_suffix(cell)}" == cell.as_printed
    ratio = counted * 10.0 ** POWER[_suffix(cell)] / cell.value
    percent = round(100 * (ratio - 1), 2) + 0.0  # no negative zero
    return f"{percent:+.2f} %{' (=)' if same else ''}"


def _share(compared: Compared, line: Line, column: str) -> str:
    """MACs in per cent of the DiT or DiCo of equal size, parameters in per cent of DiT-B/2."""
    of_params = column == "params_pct_of_dit_b2"
    rival = "DiT-B/2" if of_params else dit_of(line.model)
    if column.endswith("dico"):
        rival = rival.replace("DiT", "DiCo").removesuffix("/2")
    count, other = line.count, compared.evidence.count(rival, line.res)
    if count is None or other is None or count.case.counter != other.case.counter:
        return BLANK
    of = attrgetter("params_trainable" if of_params else "macs_per_image")
    return f"{100 * of(count) / of(other):.1f}"


def _training(compared: Compared, line: Line, column: str) -> str:
    """The cost of a training in the papers' unit, from the counted MACs."""
    epochs, count = line.printed["train_epochs"].value, line.count
    if count is None or epochs is None:
        return BLANK
    images = epochs * training_cost.IMAGES_PER_EPOCH
    return f"{training_cost.papers_zetta(count.macs_per_image, images):.4f}"


def _flops_of_training(compared: Compared, line: Line) -> float | None:
    """FLOPs of the printed number of steps."""
    count = compared.evidence.count(*line.case, ("torch",))
    steps, batch = line.printed["train_steps"].value, line.printed["global_batch_size"].value
    if count is None or count.train_macs is None or not steps or not batch:
        return None
    return 2 * count.train_macs / count.case.batch * steps * batch


def _zflops(compared: Compared, line: Line, column: str) -> str:
    flops = _flops_of_training(compared, line)
    return BLANK if flops is None else significant(flops / training_cost.ZETTA)


def _rate(compared: Compared, line: Line, column: str) -> str:
    """The rate of one GPU that the printed hours imply."""
    flops, hours, gpus = (
        _flops_of_training(compared, line),
        line.printed[column].value,
        line.printed["num_gpus"],
    )
    if not flops or not hours or not gpus.value:
        return BLANK
    return f"{flops / (hours * 3600 * gpus.value) / 1e12:.1f}"


Cells = dict[str, Callable[[Compared, Line, str], str]]  # by heading
_COUNT: Cells = {"{}, counted here": _counted, "{}, difference": _difference}
_PER_CENT: Cells = {"{}, counted here": _share}
# by published column, its counted ones
COUNTED: dict[str, Cells] = {
    "gflops": _COUNT,
    "params_m": _COUNT,
    "params_as_printed": _COUNT,
    "gflops_pct_of_dit": _PER_CENT,
    "gflops_pct_of_dico": _PER_CENT,
    "params_pct_of_dit_b2": _PER_CENT,
    "training_zflops": {"{}, counted here": _training},
    "training_hours": {
        "training ZFLOPs, counted here": _zflops,
        "TFLOP/s a GPU: counted FLOPs / published hours": _rate,
    },
}
