"""The published tables, with counted and measured columns beside their own."""

from collections.abc import Sequence

from baselines import load
from bench.records.base import Record, Size
from bench.records.counts import MacCount
from bench.tables.numbers import decimals
from reports.conditions import command, counted_line, per_image, setting_line
from reports.markdown import BLANK, Columns, gmacs, images, markdown
from reports.naming import dit_of, order
from reports.selection import Evidence, Setting

# Resolution at which each table is compared. FCDM Table 2 states none; its FLOPs are those of 256 px.
SHOWN = {
    "fcdm_table01": 256,
    "fcdm_table02": 256,
    "fcdm_table03": 256,
    "fcdm_table05": 512,
    "dico_table01": 256,
    "dico_table02": 512,
    "dico_table05": 256,
}
HEADINGS = {
    "train_steps": "training steps",
    "cfg": "guidance",
    "architecture_type": "type",
    "gflops": "GMACs",
    "gflops_pct_of_dit": "GMACs in % of DiT",
    "gflops_pct_of_dico": "GMACs in % of DiCo",
    "params_m": "params, M",
    "throughput": "images/s",
    "fid": "FID",
    "is": "IS",
    "precision": "precision (of samples)",
    "recall": "recall (of samples)",
    "hidden_channels": "channels",
    "ffn_ratio": "FFN ratio",
}


READING = (
    "difference is counted / published - 1; (=) means equal once rounded to the printed digits. Counts are "
    "by torchprofile's rules where there are any. For most models torch's own count is a few thousandths "
    "lower, as it leaves elementwise products out; for recurrent models (DiG, DiM, DiMSUM, DiS) it is up to "
    "about 2 % higher, as torchprofile's rules leave the recurrence out. FID, IS, precision and recall are "
    "the papers'; training.md has the distances of samples drawn here, if there are any. [r1], [r2], ... at "
    "a published number lead to a remark under its table: the papers contradict each other, or the number "
    "was probably copied from another source."
)


def section(table: load.PublishedTable, res: int, evidence: Evidence, marks: dict[Setting, str]) -> str:
    """One published table with its conditions, remarks, and the counted and measured values."""
    names = [load.backbone_name(row) for row in table.rows]
    counts = [evidence.count(name, res) for name in names]
    here = {
        setting: mark
        for setting, mark in marks.items()
        if any(evidence.timing(setting, name, res) is not None for name in names)
    }
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
    ours = sorted({name for name in names if (name, res // 8) in load.macs()}, key=order)
    lines.append(f"**Counted here**: {counted_line(counts, ours, res)}")
    if "throughput" in table.columns:
        lines += [
            f"**Measured here ({mark})**: {setting_line(setting, evidence, res, names)}"
            for setting, mark in here.items()
        ]
        if not here:
            missing = command(ours, res, "throughput")
            lines.append(f"**Measured here**: none of these models at {res} px. {missing}")
    columns, touching = _compared(table, res, counts, here, evidence)
    lines.append(markdown(columns, _sources(table, res, counts, here, evidence)))
    if touching:
        lines.append("\n".join(f"- [r{remark.id}] {remark.statement}" for remark in touching))
    return "\n\n".join(lines)


def _sources(
    table: load.PublishedTable,
    res: int,
    counts: Sequence[MacCount | None],
    here: dict[Setting, str],
    evidence: Evidence,
) -> list[list[Record]]:
    """The records behind the counted and measured cells of every row."""
    sources = []
    for row, count in zip(table.rows, counts, strict=True):
        found: list[Record] = [count] if count else []
        if "throughput" in table.columns:
            timings = [evidence.timing(setting, load.backbone_name(row), res) for setting in here]
            found += [timing.record for timing in timings if timing]
        sources.append(found)
    return sources


def _compared(
    table: load.PublishedTable,
    res: int,
    counts: Sequence[MacCount | None],
    here: dict[Setting, str],
    evidence: Evidence,
) -> tuple[Columns, list[load.Remark]]:
    """Every published column followed by its counted or measured one, and the remarks on its cells."""
    remarks = load.remarks()
    touching: dict[int, load.Remark] = {}
    columns: Columns = {}
    for column in table.columns:
        shown = [row[column].as_printed or BLANK for row in table.rows]
        head = HEADINGS.get(column, column.replace("_", " "))
        title = "model" if column == "model" else f"{head}, published"
        for remark in remarks:
            hits = [remark.touches(table.id, column, row) for row in table.rows]
            if any(hits):
                touching[remark.id] = remark
            if all(hits):
                title += f" [r{remark.id}]"
            else:
                shown = [f"{s} [r{remark.id}]" if hit else s for s, hit in zip(shown, hits, strict=True)]
        columns[title] = shown
        columns |= _beside(column, head, table, res, counts, here, evidence)
    return columns, sorted(touching.values(), key=lambda remark: remark.id)


def _beside(
    column: str,
    head: str,
    table: load.PublishedTable,
    res: int,
    counts: Sequence[MacCount | None],
    here: dict[Setting, str],
    evidence: Evidence,
) -> Columns:
    """The counted or measured columns that correspond to a published one."""
    names = [load.backbone_name(row) for row in table.rows]
    if column in ("gflops", "params_m"):
        cells = [row[column] for row in table.rows]
        values = [_in_units_of(column, count) if count else None for count in counts]
        return {
            f"{head}, counted here": [
                BLANK if value is None else f"{value:.{max(decimals(value), cell.decimals + 1)}f}"
                for value, cell in zip(values, cells, strict=True)
            ],
            f"{head}, difference": [
                BLANK if value is None or cell.value is None else difference(value, cell)
                for value, cell in zip(values, cells, strict=True)
            ],
        }
    if column in ("gflops_pct_of_dit", "gflops_pct_of_dico"):
        return {
            f"{head}, counted here": [
                _percent_of(column, name, count, res, evidence)
                for name, count in zip(names, counts, strict=True)
            ]
        }
    if column != "throughput":
        return {}
    columns: Columns = {"÷ DiT, published": [_ratio(r) for r in published_ratios(table)]}
    if not here:
        columns["images/s, measured here"] = [BLANK] * len(names)
    for setting, mark in here.items():
        timings = [evidence.timing(setting, name, res) for name in names]
        columns[f"images/s, measured here ({mark})"] = [images(t.record if t else None) for t in timings]
        columns[f"÷ DiT, measured here ({mark})"] = [
            _ratio(measured_ratio(evidence, setting, name, res)) for name in names
        ]
    return columns


def difference(counted: float, published: load.Published) -> str:
    """Difference of a count in per cent; (=) if it rounds to the printed number."""
    assert published.value is not None
    same = f"{counted:.{published.decimals}f}" == published.as_printed
    percent = round(100 * (counted / published.value - 1), 2) + 0.0  # no negative zero
    return f"{percent:+.2f} %{' (=)' if same else ''}"


def published_ratios(table: load.PublishedTable) -> list[float | None]:
    """Divide each row's published throughput by that of the DiT of equal size in the same table."""
    speeds = {load.row_name(row): row["throughput"].value for row in table.rows}
    ratios: list[float | None] = []
    for row in table.rows:
        own, dit = row["throughput"].value, speeds.get(dit_of(load.row_name(row)))
        ratios.append(own / dit if own and dit else None)
    return ratios


def measured_ratio(evidence: Evidence, setting: Setting, model: str, res: Size) -> float | None:
    """Divide a model's images/s by that of the DiT of equal size under the same setting."""
    own = evidence.images_per_s(setting, model, res)
    dit = evidence.images_per_s(setting, dit_of(model), res)
    return own / dit if own and dit else None


def _in_units_of(column: str, count: MacCount) -> float:
    return count.macs / count.case.batch / 1e9 if column == "gflops" else count.params / 1e6


def _ratio(value: float | None) -> str:
    return BLANK if value is None else f"{value:.2f}"


def _percent_of(column: str, model: str, count: MacCount | None, res: int, evidence: Evidence) -> str:
    rival = dit_of(model)
    if column.endswith("dico"):
        rival = rival.replace("DiT", "DiCo").removesuffix("/2")
    other = evidence.count(rival, res)
    if count is None or other is None or count.case.counter != other.case.counter:
        return BLANK
    return f"{100 * (count.macs / count.case.batch) / (other.macs / other.case.batch):.1f}"


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
