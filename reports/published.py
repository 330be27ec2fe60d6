"""A published table, with counted, measured and predicted columns beside its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from baselines import load
from baselines.published import POWER
from bench.analysis.costs import training_cost
from bench.analysis.speed.settings import Setting
from bench.records.base import Record, Size
from bench.records.counts import MacCount
from bench.tables.numbers import decimals, significant
from reports.claims import timed
from reports.claims.timed import Timings
from reports.conditions import command, counted_line, per_image, setting_line
from reports.markdown import BLANK, Columns, gmacs, images, markdown, ratio_text
from reports.naming import dit_of, order
from reports.selection import Evidence

HEADINGS = {
    "train_steps": "training steps",
    "train_epochs": "epochs",
    "cfg": "guidance",
    "architecture_type": "type",
    "gflops": "GMACs",
    "gflops_pct_of_dit": "GMACs in % of DiT",
    "gflops_pct_of_dico": "GMACs in % of DiCo",
    "params_m": "params, M",
    "params_as_printed": "params",
    "params_pct_of_dit_b2": "params in % of DiT-B/2",
    "training_zflops": "training ZMACs",
    "throughput": "images/s",
    "fid": "FID",
    "sfid": "sFID",
    "is": "IS",
    "precision": "precision (of samples)",
    "recall": "recall (of samples)",
    "hidden_channels": "channels",
    "ffn_ratio": "FFN ratio",
}
READING = (
    "difference is counted / published - 1; (=) means equal once rounded to the printed digits. Counts are "
    "by torchprofile's rules where there are any, parameters are the trainable ones. For most models torch's "
    "own count is a few thousandths lower, as it leaves elementwise products out; for recurrent models (DiG, "
    "DiM, DiMSUM, DiS) it is up to about 2 % higher, as torchprofile's rules leave the recurrence out. ÷ is "
    "the speed as a multiple of the DiT of equal size in the table or, where there is none, of the first row "
    "of its group. FID, sFID, IS, precision and recall are the papers'; training.md has the distances of "
    "samples drawn here, if there are any. [r1], [r2], ... at a published number lead to a remark under its "
    "table: the papers contradict each other, or the number was probably copied from another source."
)
SETTINGS = 4  # maximum measured settings with columns in a table
COUNTABLE = {
    *("gflops", "params_m", "params_as_printed", "training_zflops", "training_hours"),
    *("gflops_pct_of_dit", "gflops_pct_of_dico", "params_pct_of_dit_b2"),
}
Predicted = Callable[[str, int], str]  # predicted images/s of a model at a resolution; blank if unknown


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A published table with our model of every row, and the records of these models.

    Rows without a model (no code, or no known configuration) have the name "".
    """

    table: load.PublishedTable
    res: int  # px, of rows that print none
    evidence: Evidence
    timings: Timings
    marks: Mapping[Setting, str]
    predicted: Predicted = lambda model, res: ""
    predicted_on: str = ""  # GPU and precision

    @cached_property
    def ablations(self) -> dict[int, load.Ablation]:
        """By row, from 0."""
        return {one.row - 1: one for one in load.ablations() if one.table == self.table.id}

    @cached_property
    def names(self) -> list[str]:
        return [
            self.ablations[i].model or "" if i in self.ablations else load.backbone_name(row, res)
            for i, (row, res) in enumerate(zip(self.table.rows, self.sizes, strict=True))
        ]

    @cached_property
    def sizes(self) -> list[int]:
        """Resolution of every row."""
        printed = [row.get("resolution_px") for row in self.table.rows]
        return [int(cell.value) if cell and cell.value else self.res for cell in printed]

    @cached_property
    def counts(self) -> list[MacCount | None]:
        return [self.evidence.count(*at) if at[0] else None for at in self._rows]

    @property
    def _rows(self) -> list[tuple[str, int]]:
        return list(zip(self.names, self.sizes, strict=True))

    @cached_property
    def here(self) -> dict[Setting, str]:
        """At most SETTINGS settings with their marks, if the table prints a speed."""
        if "throughput" not in self.table.columns:
            return {}
        return {setting: self.marks[setting] for setting in self.evidence.fullest(self._rows, SETTINGS)}

    @cached_property
    def references(self) -> list[int | None]:
        """For every row the row whose speed it is a multiple of."""
        printed = [load.row_name(row) for row in self.table.rows]
        dits = [dit_of(name) for name in printed]
        if any(dit in printed for dit in dits if dit):
            return [printed.index(dit) if dit in printed else None for dit in dits]
        groups = [row["group"].as_printed if "group" in row else "" for row in self.table.rows]
        return [groups.index(group) for group in groups]

    @property
    def over(self) -> str:
        dits = {dit_of(load.row_name(row)) for row in self.table.rows} - {""}
        printed = {load.row_name(row) for row in self.table.rows}
        return "÷ DiT" if dits & printed else "÷ first"


def section(compared: Compared) -> str:
    """One published table with its conditions, remarks, and the values of this suite."""
    table, res = compared.table, compared.res
    source = f"*{table.title}*" + (f", arXiv:{table.arxiv}" if table.arxiv else "")
    conditions = {"device": table.device, "precision": table.precision, "batch": table.batch}
    stated = ", ".join(f"{what} {value or 'not stated'}" for what, value in conditions.items())
    if not any(conditions.values()):
        stated = "device, precision and batch not stated"
    lines = [
        f"## {table.paper} Table {table.number}: {table.subject}",
        f"Source: {source}, Table {table.number} ({table.source}). Compared at {res} px.",
        f"**Published**, as the paper states it: {stated}. {table.note}".rstrip(),
    ]
    released = load.macs()
    ours = sorted({one for one in compared.names if "@" in one or (one, res // 8) in released}, key=order)
    if COUNTABLE & {*table.columns}:
        lines.append(f"**Counted here**: {counted_line(compared.counts, ours, res)}")
    if "throughput" in table.columns:
        lines += [
            f"**Measured here ({mark})**: {setting_line(setting, compared.evidence, res, compared.names)}"
            for setting, mark in compared.here.items()
        ]
        if not compared.here:
            missing = command(ours, res, "throughput")
            lines.append(f"**Measured here**: none of these models at {res} px. {missing}")
    columns, touching = _columns(compared)
    if any("predicted" in heading for heading in columns):
        lines.append(
            f"**Predicted**: {compared.predicted_on}, eager, with nominal 90 % intervals; nothing ran. "
            "predictions.md has other precisions and the errors."
        )
    lines.append(markdown(columns, _sources(compared)))
    notes = [f"- [r{remark.id}] {remark.statement}" for remark in touching]
    notes += [
        f"- {load.row_name(one.published)}: {one.model or 'no model of ours'} ({one.grade}). {one.note}"
        for one in compared.ablations.values()
        if one.note and one.note != "The default."
    ]
    if notes:
        lines.append("\n".join(notes))
    return "\n\n".join(lines)


def _sources(compared: Compared) -> list[list[Record]]:
    """The records behind the counted and measured cells of every row."""
    sources = []
    for name, res, count in zip(compared.names, compared.sizes, compared.counts, strict=True):
        found: list[Record] = [count] if count else []
        timings = [compared.evidence.timing(setting, name, res) for setting in compared.here]
        found += [record for timing in timings if timing for record in timing.records]
        sources.append(found)
    return sources


def _columns(compared: Compared) -> tuple[Columns, list[load.Remark]]:
    """Every published column followed by its counterparts, and the remarks on its cells."""
    table = compared.table
    touching: dict[int, load.Remark] = {}
    columns: Columns = {}
    remarks = [one for one in load.remarks() if any(cell.startswith(f"{table.id}:") for cell in one.cells)]
    for column in table.columns:
        shown = [row[column].as_printed or BLANK for row in table.rows]
        head = HEADINGS.get(column, column.replace("_", " "))
        title = column if column in ("model", "variant") else f"{head}, published"
        for remark in remarks:
            hits = [remark.touches(table.id, column, row) for row in table.rows]
            if any(hits):
                touching[remark.id] = remark
            if all(hits):
                title += f" [r{remark.id}]"
            else:
                shown = [f"{s} [r{remark.id}]" if hit else s for s, hit in zip(shown, hits, strict=True)]
        columns[title] = shown
        if column in ("model", "variant") and compared.ablations:
            columns["our model"] = [name or BLANK for name in compared.names]
        if column in _BESIDE:
            columns |= _BESIDE[column](compared, column, head)
    return columns, sorted(touching.values(), key=lambda remark: remark.id)


# counterparts of published columns


def _counted(compared: Compared, column: str, head: str) -> Columns:
    cells = [row[column] for row in compared.table.rows]
    values = [_in_units_of(cell, column, count) for cell, count in zip(cells, compared.counts, strict=True)]
    return {
        f"{head}, counted here": [
            BLANK if value is None else f"{value:.{max(decimals(value), cell.decimals + 1)}f}{_suffix(cell)}"
            for value, cell in zip(values, cells, strict=True)
        ],
        f"{head}, difference": [
            BLANK if value is None or cell.value is None else difference(value, cell)
            for value, cell in zip(values, cells, strict=True)
        ],
    }


def _suffix(cell: load.Published) -> str:
    return cell.as_printed[-1] if cell.as_printed[-1:] in {*POWER} - {""} else ""


def _in_units_of(cell: load.Published, column: str, count: MacCount | None) -> float | None:
    if count is None:
        return None
    if column == "gflops":
        return count.macs_per_image / 1e9
    return count.params_trainable / (10.0 ** POWER[_suffix(cell)] if column == "params_as_printed" else 1e6)


def difference(counted: float, published: load.Published) -> str:
    """Difference of a count, in the printed unit, in per cent; (=) if it rounds to the printed number."""
    assert published.value is not None
    suffix = _suffix(published)
    same = f"{counted:.{published.decimals}f}{suffix}" == published.as_printed
    ratio = counted * 10.0 ** POWER[suffix] / published.value
    percent = round(100 * (ratio - 1), 2) + 0.0  # no negative zero
    return f"{percent:+.2f} %{' (=)' if same else ''}"


def _share(compared: Compared, column: str, head: str) -> Columns:
    """MACs in per cent of the DiT or DiCo of equal size, parameters in per cent of DiT-B/2."""
    cells = []
    for name, res, count in zip(compared.names, compared.sizes, compared.counts, strict=True):
        rival = "DiT-B/2" if column == "params_pct_of_dit_b2" else dit_of(name)
        if column.endswith("dico"):
            rival = rival.replace("DiT", "DiCo").removesuffix("/2")
        other = compared.evidence.count(rival, res)
        if count is None or other is None or count.case.counter != other.case.counter:
            cells.append(BLANK)
        elif column == "params_pct_of_dit_b2":
            cells.append(f"{100 * count.params_trainable / other.params_trainable:.1f}")
        else:
            cells.append(f"{100 * count.macs_per_image / other.macs_per_image:.1f}")
    return {f"{head}, counted here": cells}


def _training(compared: Compared, column: str, head: str) -> Columns:
    """The cost of a training in the papers' unit, from the counted MACs."""
    epochs = [row["train_epochs"].value for row in compared.table.rows]
    zetta, images = training_cost.papers_zetta, training_cost.IMAGES_PER_EPOCH
    cells = [
        BLANK if count is None or of is None else f"{zetta(count.macs_per_image, of * images):.4f}"
        for count, of in zip(compared.counts, epochs, strict=True)
    ]
    return {f"{head}, counted here": cells}


def _hours(compared: Compared, column: str, head: str) -> Columns:
    """FLOPs of a training, and the rate of one GPU that the printed hours imply."""
    flops: list[float | None] = []
    rates: list[float | None] = []
    for row, name, res in zip(compared.table.rows, compared.names, compared.sizes, strict=True):
        count = compared.evidence.count(name, res, ("torch",))
        steps, batch = row["train_steps"].value, row["global_batch_size"].value
        hours, number = row[column].value, row["num_gpus"].value
        total = None
        if count is not None and count.train_macs is not None and steps and batch:
            total = 2 * count.train_macs / count.case.batch * steps * batch
        flops.append(total)
        rates.append(total / (hours * 3600 * number) if total and hours and number else None)
    return {
        "training ZFLOPs, counted here": [
            BLANK if v is None else significant(v / training_cost.ZETTA) for v in flops
        ],
        "TFLOP/s a GPU: counted FLOPs / published hours": [
            BLANK if v is None else f"{v / 1e12:.1f}" for v in rates
        ],
    }


def _speed(compared: Compared, column: str, head: str) -> Columns:
    printed = [row[column].value for row in compared.table.rows]
    columns: Columns = {f"{compared.over}, published": _ratios(printed, compared.references)}
    if not compared.here:
        columns["images/s, measured here"] = [BLANK] * len(printed)
    for setting, mark in compared.here.items():
        rows = list(zip(compared.names, compared.sizes, strict=True))
        timings = [compared.evidence.timing(setting, *at) for at in rows]
        columns[f"images/s, measured here ({mark})"] = [images(t.passes if t else None) for t in timings]
        columns[f"{compared.over}, measured here ({mark})"] = [
            BLANK
            if reference is None
            else measured_ratio(compared.evidence, compared.timings, setting, *at, compared.names[reference])
            for at, reference in zip(rows, compared.references, strict=True)
        ]
    predicted = [
        compared.predicted(name, res) if name else ""
        for name, res in zip(compared.names, compared.sizes, strict=True)
    ]
    if any(predicted):
        columns["images/s, predicted"] = [text or BLANK for text in predicted]
    return columns


def _ratios(values: Sequence[float | None], references: Sequence[int | None]) -> list[str]:
    """Each value as a multiple of that of its reference row."""
    texts = []
    for value, reference in zip(values, references, strict=True):
        other = None if reference is None else values[reference]
        texts.append(f"{value / other:.2f}" if value and other else BLANK)
    return texts


_BESIDE: dict[str, Callable[[Compared, str, str], Columns]] = {
    "gflops": _counted,
    "params_m": _counted,
    "params_as_printed": _counted,
    "gflops_pct_of_dit": _share,
    "gflops_pct_of_dico": _share,
    "params_pct_of_dit_b2": _share,
    "training_zflops": _training,
    "training_hours": _hours,
    "throughput": _speed,
}


def measured_ratio(
    evidence: Evidence, timings: Timings, setting: Setting, model: str, res: Size, reference: str
) -> str:
    """Speed of a model / speed of another under one setting; of interleaved rounds with its 99 % interval."""
    own = evidence.images_per_s(setting, model, res)
    other = evidence.images_per_s(setting, reference, res)
    if not own or not other:
        return BLANK
    if model == reference or not setting.is_interleaved:
        return ratio_text(own / other, None)
    found = timed.most_repeated(timed.interleaved_under(timings, setting, model, reference, res))
    return BLANK if found is None else ratio_text(found.value, found.interval)


def hidden_macs(evidence: Evidence) -> str:
    """Table of the terms that the published MACs of DiG leave out, with the full count."""
    published = {load.row_name(row): row["gflops"] for row in load.table("dico_table01").rows}
    terms = {name: count for (name, latent), count in load.dig_macs().items() if latent == 256 // 8}
    counts = [evidence.count(name, 256, ("torch",)) for name in terms]
    columns: Columns = {
        "model": list(terms),
        "GMACs, published": [published[name].as_printed for name in terms],
        "torchprofile on the released code": [gmacs(t["torchprofile_approx"]) for t in terms.values()],
        "feed-forward's second projection": [gmacs(t["mlp_down"]) for t in terms.values()],
        "recurrence": [gmacs(t["gla_core"]) for t in terms.values()],
        "in full": [gmacs(t["matmul_conv_gla_all"]) for t in terms.values()],
        "in full, counted here": [per_image(count, count.macs if count else None) for count in counts],
    }
    return "\n\n".join(
        [
            "## What DiG's published MACs leave out",
            "At 256 px, GMACs. A counter that works on a traced graph does not see into the fused operators "
            "of DiG's release, so the published number lacks two terms. *In full* is every product of the "
            "released network (dig_macs.csv), elementwise ones left out.",
            f"**Counted here**: {counted_line(counts, list(terms), 256)}",
            markdown(columns, [[count] if count else [] for count in counts]),
        ]
    )
