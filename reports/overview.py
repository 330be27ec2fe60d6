"""Writes the report's text: records and published tables in, markdown out."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from baselines import load
from bench.records.record import Counted, Environment, Size, Skipped, Throughput, height_width, size_text
from reports.naming import dit_of, family, order
from reports.selection import OUR_RULES, Evidence, Setting, Timing, environment_of

BLANK = "—"
OUT = "reports/out/records.jsonl"

# What each published table is compared at; FCDM Table 2 states no resolution, its FLOPs are those of 256 px.
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

Columns = dict[str, list[str]]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A plot the report links to: NAME.png and NAME.svg beside it."""

    name: str
    title: str
    caption: str


def report(evidence: Evidence, pictures: Sequence[Picture], verdicts: str = "") -> str:
    """Write the whole page, what holds of the papers' claims first."""
    marks = setting_marks(evidence)
    sections = [
        _head(evidence),
        verdicts,
        _overview(evidence, marks),
        _reading(),
        _plots(pictures),
        *(_published(load.table(name), res, evidence, marks) for name, res in SHOWN.items()),
        _hidden_macs(evidence),
        _without_number(evidence),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def setting_marks(evidence: Evidence) -> dict[Setting, str]:
    """Short names for the columns of measured settings: M1, M2, ..."""
    return {setting: f"M{i}" for i, setting in enumerate(evidence.settings, start=1)}


def markdown(columns: Columns) -> str:
    """Lay out columns of text as a markdown table; nothing is parsed as a number."""
    frame = pd.DataFrame({head: [_escaped(cell) for cell in cells] for head, cells in columns.items()})
    text: str = frame.to_markdown(index=False, disable_numparse=True)
    return text


def gmacs(macs: float) -> str:
    return significant(macs / 1e9)


def significant(value: float, digits: int = 4) -> str:
    """Write a positive number with so many significant digits, never as a power of ten."""
    return f"{value:.{_decimals(value, digits)}f}"


def sentence(text: str) -> str:
    """Write words of a command as a sentence."""
    return f"{text[0].upper()}{text[1:]}."


def stamp(environment: Environment) -> str:
    """What a count or a time was made with, in words."""
    return f"torch {environment.torch}, commit {environment.commit[:12] or BLANK}, {environment.date[:10]}"


def images(timing: Timing | None) -> str:
    """Write images/s as the median with its 95 % interval, or why there is none."""
    if timing is None:
        return BLANK
    if isinstance(timing, Skipped):
        return timing.status
    rate, interval = timing.images_per_s, timing.images_per_s_interval
    open_mark = "†" if timing.unmet else ""
    if interval is None:
        return f"{significant(rate)}{open_mark} (n = {len(timing.times_s)}, no interval)"
    places = _decimals(rate, 4)
    return f"{rate:.{places}f}{open_mark} [{interval[0]:.{places}f}, {interval[1]:.{places}f}]"


def difference(counted: float, published: load.Published) -> str:
    """Write by how many per cent a count is off; (=) where it rounds to what is printed."""
    assert published.value is not None
    same = f"{counted:.{published.decimals}f}" == published.as_printed
    percent = round(100 * (counted / published.value - 1), 2) + 0.0  # no negative zero
    return f"{percent:+.2f} %{' (=)' if same else ''}"


def _decimals(value: float, digits: int) -> int:
    return max(0, digits - 1 - math.floor(math.log10(value))) if value > 0 else 0


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


# the page, top to bottom


def _head(evidence: Evidence) -> str:
    lines = [
        "# Diffusion backbones: what is published, counted and measured",
        "Columns marked *published* hold what the papers print, digit for digit. Columns marked *counted "
        "here* or *measured here* hold this suite's records. Neither ever fills a gap in the other; "
        f"{BLANK} is a number that nobody gave.",
        "**MACs and FLOPs.** One multiply-accumulate (MAC) is two FLOPs. What these papers print as FLOPs or "
        "Gflops is a count of MACs, so it is headed GMACs here; GFLOPs in this report are twice the GMACs.",
    ]
    timed = sum(isinstance(timing, Throughput) for timing in evidence.timings)
    skipped = len(evidence.timings) - timed
    if evidence.counted or evidence.timings:
        older = f"; {evidence.older} older of the same cases not shown" if evidence.older else ""
        lines.append(
            f"**Records.** {len(evidence.counted)} counted, {timed} measured, "
            f"{skipped} without a number{older}."
        )
    else:
        lines.append(f"**Records.** None: nothing is counted or measured here yet. {_commands(())}")
    return "\n\n".join(lines)


def _overview(evidence: Evidence, marks: dict[Setting, str]) -> str:
    sizes = sorted(
        {c.res for c in evidence.counted} | {t.run.res for t in evidence.timings},
        key=lambda res: (*height_width(res), size_text(res)),
    )
    parts = ["## Overview"]
    parts += [f"**{mark}**: {_setting_line(setting, evidence)}" for setting, mark in marks.items()]
    parts += [_overview_at(res, evidence, marks) for res in sizes]
    if not sizes:
        parts.append("Nothing is counted or measured here yet.")
    return "\n\n".join(parts)


def _overview_at(res: Size, evidence: Evidence, marks: dict[Setting, str]) -> str:
    models = {c.model for c in evidence.counted if c.res == res}
    models |= {t.run.model for t in evidence.timings if t.run.res == res}
    names = sorted(models, key=order)
    counts = [evidence.count(name, res, OUR_RULES) for name in names]
    columns: Columns = {
        "model": names,
        "params, M, counted": [significant(c.params / 1e6) if c else BLANK for c in counts],
        "GMACs, counted": [_per_image(c, c.macs if c else None) for c in counts],
        "GFLOPs, counted": [_per_image(c, c.flops if c else None) for c in counts],
        "training step GMACs, counted": [_per_image(c, c.train_macs if c else None) for c in counts],
        "training step GMACs with checkpointing, counted": [
            _per_image(c, c.train_macs_checkpointed if c else None) for c in counts
        ],
    }
    for setting, mark in marks.items():
        timings = [evidence.timing(setting, name, res) for name in names]
        if any(timings):
            columns[f"images/s, measured ({mark})"] = [images(timing) for timing in timings]
    line = f"**Counted here**: {_counted_line(counts, (), res)}"
    return f"### {size_text(res)} px, one image\n\n{line}\n\n{markdown(columns)}"


def _reading() -> str:
    return "\n".join(
        [
            "## How to read the numbers",
            "",
            "- images/s is batch / median pass of one denoising call, model(x, t, y), not of a sampler. "
            "The brackets are the 95 % interval of the median; † marks a case whose time budget ended before "
            "the interval was as narrow as asked.",
            "- images/s can be compared within a column only: another device, precision or batch is another "
            "column. Across devices compare the ratio to the DiT of the same size (÷ DiT), and even that "
            "moves with precision, batch and attention kernel.",
            "- difference is counted / published - 1; (=) means equal once rounded to the printed digits. "
            "The published tables are compared with a count by torchprofile's rules where there is one; the "
            "overview uses torch's counter, which leaves elementwise products out, so the two differ by a "
            "few thousandths.",
            "- A training step is one forward and backward pass of one image, the input needing no gradient; "
            "with checkpointing every block is computed once more.",
            "- FID, IS, precision and recall are always published: nothing here samples images.",
            "- [r1], [r2], ... at a published number lead to a remark under its table: where the papers "
            "contradict each other or a number seems to come from elsewhere.",
        ]
    )


def _plots(pictures: Sequence[Picture]) -> str:
    parts = ["## Plots"] if pictures else []
    for picture in pictures:
        parts.append(
            f"![{picture.title}]({picture.name}.png)\n\n{picture.caption} ([SVG]({picture.name}.svg))"
        )
    return "\n\n".join(parts)


def _published(table: load.PublishedTable, res: int, evidence: Evidence, marks: dict[Setting, str]) -> str:
    names = [load.backbone_name(row) for row in table.rows]
    counts = [evidence.count(name, res) for name in names]
    here = [
        setting for setting in marks if any(evidence.timing(setting, name, res) is not None for name in names)
    ]
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
    lines.append(f"**Counted here**: {_counted_line(counts, ours, res)}")
    if "throughput" in table.columns:
        lines += [f"**Measured here ({marks[s]})**: {_setting_line(s, evidence, res, names)}" for s in here]
        if not here:
            lines.append(
                f"**Measured here**: none of these models at {res} px. {_commands(ours, res, 'throughput')}"
            )
    columns, touching = _compared(table, res, counts, {s: marks[s] for s in here}, evidence)
    lines.append(markdown(columns))
    if touching:
        lines.append("\n".join(f"- [r{remark.id}] {remark.statement}" for remark in touching))
    return "\n\n".join(lines)


def _compared(
    table: load.PublishedTable,
    res: int,
    counts: Sequence[Counted | None],
    here: dict[Setting, str],
    evidence: Evidence,
) -> tuple[Columns, list[load.Remark]]:
    """Set every published column beside what is counted or measured for it; also the remarks on its cells."""
    names = [load.backbone_name(row) for row in table.rows]
    remarks = load.remarks()
    touching: dict[int, load.Remark] = {}
    columns: Columns = {}
    for column in table.columns:
        cells = [row[column] for row in table.rows]
        shown = [cell.as_printed or BLANK for cell in cells]
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
        if column in ("gflops", "params_m"):
            values = [_in_units_of(column, count) if count else None for count in counts]
            columns[f"{head}, counted here"] = [
                BLANK if value is None else f"{value:.{max(_decimals(value, 4), cell.decimals + 1)}f}"
                for value, cell in zip(values, cells, strict=True)
            ]
            columns[f"{head}, difference"] = [
                BLANK if value is None or cell.value is None else difference(value, cell)
                for value, cell in zip(values, cells, strict=True)
            ]
        elif column in ("gflops_pct_of_dit", "gflops_pct_of_dico"):
            columns[f"{head}, counted here"] = [
                _percent_of(column, name, count, res, evidence)
                for name, count in zip(names, counts, strict=True)
            ]
        elif column == "throughput":
            columns["÷ DiT, published"] = [_ratio(r) for r in published_ratios(table)]
            if not here:
                columns["images/s, measured here"] = [BLANK] * len(names)
            for setting, mark in here.items():
                columns[f"images/s, measured here ({mark})"] = [
                    images(evidence.timing(setting, name, res)) for name in names
                ]
                columns[f"÷ DiT, measured here ({mark})"] = [
                    _ratio(measured_ratio(evidence, setting, name, res)) for name in names
                ]
    return columns, sorted(touching.values(), key=lambda remark: remark.id)


def _hidden_macs(evidence: Evidence) -> str:
    """What the published MACs of DiG leave out, beside the full count."""
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
        "in full, counted here": [_per_image(count, count.macs if count else None) for count in counts],
    }
    return "\n\n".join(
        [
            "## What DiG's published MACs leave out",
            "At 256 px, GMACs. A counter that works on a traced graph does not see into the fused operators "
            "of DiG's release, so what is published lacks two terms. *In full* is every product of the "
            "released network (dig_macs.csv), elementwise ones left out.",
            f"**Counted here**: {_counted_line(counts, list(terms), 256)}",
            markdown(columns),
        ]
    )


def published_ratios(table: load.PublishedTable) -> list[float | None]:
    """Divide every row's published throughput by that of the same table's DiT of its size."""
    speeds = {load.row_name(row): row["throughput"].value for row in table.rows}
    ratios: list[float | None] = []
    for row in table.rows:
        own, dit = row["throughput"].value, speeds.get(dit_of(load.row_name(row)))
        ratios.append(own / dit if own and dit else None)
    return ratios


def measured_ratio(evidence: Evidence, setting: Setting, model: str, res: Size) -> float | None:
    """Divide a model's images/s by that of the DiT of its size under the same setting."""
    own = evidence.images_per_s(setting, model, res)
    dit = evidence.images_per_s(setting, dit_of(model), res)
    return own / dit if own and dit else None


def _in_units_of(column: str, count: Counted) -> float:
    return count.macs / count.batch / 1e9 if column == "gflops" else count.params / 1e6


def _ratio(value: float | None) -> str:
    return BLANK if value is None else f"{value:.2f}"


def _percent_of(column: str, model: str, count: Counted | None, res: int, evidence: Evidence) -> str:
    rival = dit_of(model)
    if column.endswith("dico"):
        rival = rival.replace("DiT", "DiCo").removesuffix("/2")
    other = evidence.count(rival, res)
    if count is None or other is None or count.counter != other.counter:
        return BLANK
    return f"{100 * (count.macs / count.batch) / (other.macs / other.batch):.1f}"


def _per_image(count: Counted | None, macs: int | None) -> str:
    return BLANK if count is None or macs is None else gmacs(macs / count.batch)


# conditions


def _counted_line(found: Sequence[Counted | None], models: Sequence[str], res: Size) -> str:
    """Say how the counts were made; without any, which command makes those of the models."""
    counts = [count for count in found if count]
    if not counts:
        return f"nothing at {size_text(res)} px. {_commands(models, res)}"
    counters: dict[str, set[str]] = {}
    for count in counts:
        counters.setdefault(count.counter, set()).add(count.model)
    ranked = sorted(counters.items(), key=lambda item: (-len(item[1]), item[0]))
    by = ranked[0][0]
    for counter, names in ranked[1:]:
        by += f"; {counter} for {', '.join(sorted(names, key=order))}"
    batches = ", ".join(str(batch) for batch in sorted({count.batch for count in counts}))
    where = _environments(count.environment for count in counts)
    return f"counter {by}; batch {batches}, given per image; precision: a count has none; {where}."


def _setting_line(
    setting: Setting, evidence: Evidence, res: Size | None = None, names: Iterable[str] | None = None
) -> str:
    """Say how the timings of a setting were made: all of them, or those of some models at one size."""
    wanted = None if names is None else set(names)
    records: list[Timing] = []
    weights: set[str] = set()
    for timing in evidence.timings:
        run = timing.run
        fits = (res is None or run.res == res) and (wanted is None or run.model in wanted)
        if fits and evidence.timing(setting, run.model, run.res) is timing:
            records.append(timing)
            weights.add(run.weights)
    environments = [environment_of(record) for record in records]
    extra = []
    if any(environment.device_type == "cpu" for environment in environments):
        extra.append(f"threads {_listed(str(e.threads) for e in environments)}")
    for what, values in (
        ("driver", _listed(e.driver for e in environments)),
        ("CUDA", _listed(e.cuda for e in environments)),
        ("weights", _listed(weights)),
    ):
        if values:
            extra.append(f"{what} {values}")
    return f"{setting}; {'; '.join([*extra, _environments(environments, device=False)])}."


def _environments(environments: Iterable[Environment], *, device: bool = True) -> str:
    listed = list(environments)
    dates = sorted({environment.date[:10] for environment in listed})
    # a count on the meta device names no machine: it computes nothing
    parts = [f"device {_listed(e.device or e.device_type for e in listed)}"] if device else []
    return "; ".join(
        [
            *parts,
            f"torch {_listed(e.torch for e in listed)}",
            f"commit {_listed(e.commit or 'unknown' for e in listed)}",
            f"date {dates[0]}" + (f" to {dates[-1]}" if len(dates) > 1 else ""),
        ]
    )


def _listed(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values) - {""}))


def _commands(models: Sequence[str], res: Size | None = None, command: str = "flops") -> str:
    """Say which command would fill the gap: a family's only model by name, several by a glob."""
    chosen = ""
    for name in sorted({family(model) for model in models}, key=order):
        members = [model for model in models if family(model) == name]
        patch = "/2" if all(model.endswith("/2") for model in members) else ""
        chosen += f" --model {members[0]}" if len(members) == 1 else f" --model '{name}-*{patch}'"
    if command == "flops":
        chosen += " --counter torch torchprofile-meta"
    sizes = "256 512 1024" if res is None else size_text(res)
    return f"Run `python -m bench.{command}{chosen} --res {sizes} --out {OUT}`."


def _without_number(evidence: Evidence) -> str:
    skipped = [timing for timing in evidence.timings if isinstance(timing, Skipped)]
    if not skipped:
        return ""
    ordered = sorted(skipped, key=lambda s: (order(s.run.model), height_width(s.run.res), s.reason))
    marks = setting_marks(evidence)
    columns: Columns = {"model": [], "px": [], "setting": [], "status": [], "reason": [], "date": []}
    for skip in ordered:
        setting = next(s for s in marks if evidence.timing(s, skip.run.model, skip.run.res) is skip)
        for head, cell in zip(
            columns,
            (
                skip.run.model,
                size_text(skip.run.res),
                f"{marks[setting]}: {setting}",
                skip.status,
                skip.reason,
                skip.run.environment.date[:10],
            ),
            strict=True,
        ):
            columns[head].append(cell)
    return f"## Cases without a number\n\n{markdown(columns)}"
