"""A published table, with counted, measured and predicted columns beside its own."""

from collections.abc import Sequence

from baselines import load
from bench.analysis.speed.settings import Setting
from bench.records.base import Size
from reports.claims import timed
from reports.claims.timed import Timings
from reports.conditions import command, counted_line, setting_line
from reports.markdown import BLANK, Columns, images, markdown, ratio_text
from reports.naming import order
from reports.papers.compared import COUNTED, Compared, Line
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
    names = [line.model for line in compared.lines]
    ours = sorted({one for one in names if "@" in one or (one, res // 8) in released}, key=order)
    counts = [line.count for line in compared.lines]
    if COUNTED.keys() & {*table.columns}:
        lines.append(f"**Counted here**: {counted_line(counts, ours, res)}")
    if "throughput" in table.columns:
        lines += [
            f"**Measured here ({mark})**: {setting_line(setting, compared.evidence, res, names)}"
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
    cases = [line.case for line in compared.lines]
    lines.append(markdown(columns, compared.evidence.behind(cases, compared.here, counts)))
    notes = [f"- [r{remark.id}] {remark.statement}" for remark in touching]
    notes += [
        f"- {load.row_name(one.published)}: {one.model or 'no model of ours'} ({one.grade}). {one.note}"
        for one in compared.ablations.values()
        if one.note and one.note != "The default."
    ]
    if notes:
        lines.append("\n".join(notes))
    return "\n\n".join(lines)


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
            columns["our model"] = [line.model or BLANK for line in compared.lines]
        for heading, cell in COUNTED.get(column, {}).items():
            columns[heading.format(head)] = [cell(compared, line, column) for line in compared.lines]
        if column == "throughput":
            columns |= _speed(compared)
    return columns, sorted(touching.values(), key=lambda remark: remark.id)


def _speed(compared: Compared) -> Columns:
    lines, references = compared.lines, compared.references

    def printed(line: Line, reference: Line | None) -> str:
        value, other = (one and one.printed["throughput"].value for one in (line, reference))
        return f"{value / other:.2f}" if value and other else BLANK

    columns: Columns = {f"{compared.over}, published": list(map(printed, lines, references))}
    if not compared.here:
        columns["images/s, measured here"] = [BLANK] * len(lines)
    cases, others = [line.case for line in lines], [one.model if one else "" for one in references]
    for setting, mark in compared.here.items():
        where = f", measured here ({mark})"
        columns |= speed_columns(
            compared.evidence, compared.timings, setting, cases, others, where, compared.over
        )
    predicted = [compared.predicted(*line.case) if line.model else "" for line in lines]
    if any(predicted):
        columns["images/s, predicted"] = [text or BLANK for text in predicted]
    return columns


def speed_columns(
    evidence: Evidence,
    timings: Timings,
    setting: Setting,
    cases: Sequence[tuple[str, Size]],
    references: Sequence[str],
    where: str,
    over: str = "÷ DiT",
) -> Columns:
    """images/s of models under one setting, and their speeds as multiples of those of other models."""
    found = [evidence.timing(setting, *case) for case in cases]
    return {
        f"images/s{where}": [images(one.passes if one else None) for one in found],
        f"{over}{where}": [
            _ratio(evidence, timings, setting, *case, reference)
            for case, reference in zip(cases, references, strict=True)
        ],
    }


def _ratio(
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
