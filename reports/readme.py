"""The table and the plot of README.md, from the papers' tables and the suite's records; docs/commands.md.

python -m reports.readme
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from baselines import load
from bench.analysis.speed.settings import Setting
from bench.cli.commands import commands
from bench.records.base import Record
from bench.records.comparison import Comparison
from bench.store.codec import read
from models.registry import compared
from reports.claims import libraries, timed
from reports.claims.timed import Measured
from reports.figures import speed_fid
from reports.figures.speed_fid import Row
from reports.markdown import BLANK, Columns, markdown, ratio_text
from reports.naming import dit_of
from reports.selection import gather

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
COMMANDS = ROOT / "docs" / "commands.md"
PLOT = ROOT / "reports" / "example" / "speed_fid.svg"
START, END = "<!-- table: python -m reports.readme -->", "<!-- end of the table -->"
MODELS = (*compared("S"), *compared("XL"))
TABLE = "fcdm_table03"
RES = 256

ByDevice = Mapping[str, Mapping[str, Measured]]  # device -> model -> ratio


def rows(records: Sequence[Record], by_device: ByDevice) -> list[Row]:
    """The rows of MODELS, in order, with the result of `measured`."""
    evidence = gather(records)
    printed = {
        row["model"].as_printed: row
        for row in load.table(TABLE).rows
        if row["train_steps"].as_printed == "400K"
    }
    found = []
    for model in MODELS:
        count, row, dit = evidence.count(model, RES), printed[model], printed[dit_of(model)]
        speed, reference = row["throughput"].value, dit["throughput"].value
        found.append(
            Row(
                model=model,
                params_m=count.params_trainable / 1e6 if count else None,
                gmacs=count.macs_per_image / 1e9 if count else None,
                published_gmacs=row["gflops"].as_printed,
                published_fid=row["fid"].value,
                published_ratio=speed / reference if speed and reference else None,
                measured={
                    device: (one.value, *one.interval)
                    for device, ratios in by_device.items()
                    if (one := ratios.get(model)) is not None and one.interval is not None
                },
            )
        )
    return found


def measured(records: Sequence[Record]) -> ByDevice:
    """By device, the ratio of each model's speed to its DiT's, at the batch and of the runs with most."""
    timings = timed.timings(comparisons(records))
    found: dict[str, dict[int, dict[str, Measured]]] = {}
    for model in (model for model in MODELS if model != dit_of(model)):
        ratios: dict[Setting, list[Measured]] = {}
        for one in timed.interleaved(timings, model, dit_of(model), RES):
            ratios.setdefault(one.setting, []).append(one)
        for setting, of_setting in ratios.items():
            if (ratio := timed.most_repeated(of_setting)) is not None:
                found.setdefault(setting.device, {}).setdefault(setting.batch, {})[model] = ratio
    return {
        device: max((by_batch[batch] for batch in sorted(by_batch)), key=len)
        for device, by_batch in sorted(found.items())
    }


def comparisons(records: Sequence[Record]) -> list[Comparison]:
    """Interleaved runs of reference networks against a DiT at RES, eager, in fp32."""
    return [
        record
        for record in records
        if isinstance(record, Comparison)
        and record.case.arms[0].model.startswith("DiT-")
        and {(arm.res, arm.precision, arm.nondefault_settings) for arm in record.case.arms}
        == {(RES, "fp32", ())}
    ]


def table(records: Sequence[Record]) -> str:
    """The table with its conditions."""
    by_device = measured(records)
    found = rows(records, by_device)

    def number(value: float | None, digits: int) -> str:
        return BLANK if value is None else f"{value:.{digits}f}"

    def ratio(row: Row, device: str) -> str:
        if row.model == dit_of(row.model):
            return "1"
        value = row.measured.get(device)
        return BLANK if value is None else ratio_text(value[0], value[1:])

    columns: Columns = {
        "model": [row.model for row in found],
        "params M, counted": [number(row.params_m, 1) for row in found],
        "GMACs, published": [row.published_gmacs for row in found],
        "GMACs, counted (torchprofile)": [number(row.gmacs, 3) for row in found],
        "FID, published": [number(row.published_fid, 2) for row in found],
        "speed ÷ DiT, published": [number(row.published_ratio, 2) for row in found],
        **{
            f"÷ DiT in fp32, measured: {device}": [ratio(row, device) for row in found]
            for device in by_device
        },
    }
    return f"{markdown(columns)}\n\n{conditions(records, by_device)}"


def conditions(records: Sequence[Record], by_device: ByDevice) -> str:
    """What the numbers of the table are, in one paragraph."""
    text = (
        "Images of 256 px. Published: FCDM Table 3, 400K steps, no guidance, batch 64, GPU not stated. "
        "Counted by the rules of torchprofile, which the papers used; their FLOPs are MACs, 1 MAC = 2 FLOPs. "
    )
    if not by_device:
        return f"{text}Nothing is measured yet."
    text += (
        "Measured in fp32, eager, in interleaved rounds (`bench.versus`), with 99 % intervals over processes "
        "or runs"
    )
    known = libraries.rates(records)
    for device, ratios in by_device.items():
        batches = {one.setting.batch for one in ratios.values()}
        date = max(one.environment.date for one in ratios.values())[:10]
        text += f"; {device}: batch {min(batches)}, {date}"
        rates = [known.get((device, "fp32", what)) for what in ("convolution", "matmul")]
        if all(rates):
            convolution, matmul = (f"{rate / 1e9:.0f}" for rate in rates if rate)
            text += f", convolutions reach {convolution} GFLOP/s and matrix products {matmul}"
    return text + ". The ratios are those of these CPUs: no GPU is measured yet."


def commands_table() -> str:
    """Every command with its page and its purpose, from the docstrings."""
    listed = commands()
    links = [f"[`python -m bench.{name}`]({name}.md)" for name in listed]
    return markdown({"command": links, "purpose": [*listed.values()]})


def block(text: str) -> str:
    return f"{START}\n{text}\n{END}"


def suite_records() -> list[Record]:
    return [record for path in sorted(load.MEASURED.glob("**/*.jsonl")) for record in read(path).records]


def main() -> None:
    """Write the tables into README.md and docs/commands.md, and the plot."""
    records = suite_records()
    for path, made in ((README, table(records)), (COMMANDS, commands_table())):
        head, _, rest = path.read_text(encoding="utf-8").partition(START)
        path.write_text(head + block(made) + rest.partition(END)[2], encoding="utf-8")
    PLOT.write_bytes(speed_fid.draw(rows(records, measured(records))).svg)


if __name__ == "__main__":
    main()
