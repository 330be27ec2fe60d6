"""The table and the plot of README.md, made from the papers' tables and the records of the suite.

python -m reports.readme
"""

from collections.abc import Sequence
from pathlib import Path

from baselines import load
from bench.records.base import Record
from bench.records.ceiling import Ceiling
from bench.records.comparison import Comparison
from bench.records.throughput import Throughput
from bench.store.codec import read
from reports.claims import timed
from reports.figures import speed_fid
from reports.figures.speed_fid import Row
from reports.markdown import BLANK, Columns, markdown
from reports.naming import dit_of
from reports.published import measured_ratio
from reports.selection import Evidence, Setting, gather

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PLOT = ROOT / "reports" / "example" / "speed_fid.svg"
START, END = "<!-- table: python -m reports.readme -->", "<!-- end of the table -->"
MODELS = ("DiT-S/2", "DiC-S", "DiCo-S", "FCDM-S", "DiT-XL/2", "DiC-XL", "DiCo-XL", "FCDM-XL")
TABLE = "fcdm_table03"
RES = 256


def rows(records: Sequence[Record]) -> list[Row]:
    """The rows of MODELS, in order."""
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
                interleaved=_interleaved(records, model),
                separate=_separate(evidence, model),
            )
        )
    return found


def comparisons(records: Sequence[Record]) -> list[Comparison]:
    """Interleaved runs in fp32 against a DiT at RES."""
    return [
        record
        for record in records
        if isinstance(record, Comparison)
        and record.case.arms[0].model.startswith("DiT-")
        and (record.case.arms[0].res, record.case.arms[0].precision) == (RES, "fp32")
    ]


def _interleaved(records: Sequence[Record], model: str) -> tuple[float, float, float] | None:
    """Mean ratio of the runs with its interval."""
    for one in timed.speeds(timed.timings(comparisons(records)), model, dit_of(model), RES):
        if one.how == timed.INTERLEAVED and one.interval is not None and not one.refused:
            return one.value, *one.interval
    return None


def _setting(evidence: Evidence) -> Setting | None:
    """The bf16 setting of most timings at RES with default switches."""
    timed = [t for t in evidence.timings if t.case.res == RES and isinstance(t.record, Throughput)]
    found = [t.setting for t in timed if t.setting.precision == "bf16" and not t.setting.switches]
    return max(sorted(set(found)), key=found.count) if found else None


def _separate(evidence: Evidence, model: str) -> float | None:
    setting = _setting(evidence)
    return measured_ratio(evidence, setting, model, RES) if setting and model != dit_of(model) else None


def table(records: Sequence[Record]) -> str:
    """The table with its conditions."""
    found = rows(records)

    def number(value: float | None, digits: int) -> str:
        return BLANK if value is None else f"{value:.{digits}f}"

    columns: Columns = {
        "model": [row.model for row in found],
        "params M, counted": [number(row.params_m, 1) for row in found],
        "GMACs, published": [row.published_gmacs for row in found],
        "GMACs, counted": [number(row.gmacs, 3) for row in found],
        "FID, published": [number(row.published_fid, 2) for row in found],
        "speed ÷ DiT, published": [number(row.published_ratio, 2) for row in found],
        "÷ DiT, measured fp32": [
            BLANK
            if row.interleaved is None
            else f"{row.interleaved[0]:.2f} [{row.interleaved[1]:.2f}, {row.interleaved[2]:.2f}]"
            for row in found
        ],
        "÷ DiT, measured bf16": [number(row.separate, 2) for row in found],
    }
    return f"{markdown(columns)}\n\n{conditions(records)}"


def conditions(records: Sequence[Record]) -> str:
    """What the numbers of the table are, in one paragraph."""
    runs = comparisons(records)
    text = (
        "Images of 256 px. Published: FCDM Table 3, 400K steps, no guidance, batch 64, GPU not stated. "
        "Counted by the rules of torchprofile, which the papers used; their FLOPs are MACs, 1 MAC = 2 FLOPs. "
    )
    if not runs:
        return f"{text}Nothing is measured yet."
    newest = max(runs, key=lambda run: run.environment.date)
    ceilings = {
        (one.case.what, one.case.precision): one.per_s / 1e9
        for one in sorted(records, key=lambda one: one.environment.date)
        if isinstance(one, Ceiling) and one.environment.device == newest.environment.device
    }
    text += (
        f"Measured: {newest.environment.device}, batch {newest.case.arms[0].batch}, eager; fp32 the mean "
        f"of {len(runs)} runs of interleaved rounds (`bench.versus`) with its 99 % interval over runs, "
        "bf16 from passes timed one model after another."
    )
    products = [ceilings.get((what, "fp32")) for what in ("convolution", "matmul")]
    if all(products):
        convolution, matmul = (f"{rate:.0f}" for rate in products if rate)
        text += (
            f" In fp32 this CPU's convolutions reach {convolution} GFLOP/s and its matrix products {matmul}: "
            "that favours convolutional networks, and no GPU is measured yet."
        )
    return text


def block(records: Sequence[Record]) -> str:
    """The part of README.md between its marks, with them."""
    return f"{START}\n{table(records)}\n{END}"


def suite_records() -> list[Record]:
    return [record for path in sorted(load.MEASURED.glob("**/*.jsonl")) for record in read(path).records]


def main() -> None:
    """Write the table into README.md, and the plot beside it."""
    records = suite_records()
    text = README.read_text(encoding="utf-8")
    head, _, rest = text.partition(START)
    README.write_text(head + block(records) + rest.partition(END)[2], encoding="utf-8")
    PLOT.write_bytes(speed_fid.draw(rows(records)).svg)


if __name__ == "__main__":
    main()
