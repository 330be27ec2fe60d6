"""The report's page of the papers' tables: published, counted, measured and predicted columns."""

from collections.abc import Iterator, Sequence

from baselines import load
from bench.analysis.projection.formula import why_not
from bench.analysis.projection.passes import costs_in, pass_key
from bench.analysis.projection.published import BATCH, GPU
from bench.analysis.rooflines import roofline
from bench.records.base import Record
from bench.tables.numbers import significant
from reports import overview
from reports.claims.timed import timings
from reports.conditions import counted_line, per_image
from reports.markdown import Columns, gmacs, markdown, of_rows
from reports.papers import published
from reports.papers.compared import Compared, Predicted
from reports.sections import Part, of_parts
from reports.sections.projection import calibrated
from reports.selection import Evidence, gather

# every published table, with the resolution at which it is compared; FCDM's ablations and Table 2 and
# DiCo's Tables 3 and 4 print none, and their MACs are those of 256 px
PLACE = "paper-tables.md", 2
TABLES = {
    **{f"fcdm_table{number:02}": 512 if number == 5 else 256 for number in range(1, 18)},
    **{f"dico_table{number:02}": 512 if number in (2, 9) else 256 for number in range(1, 10)},
    **dict.fromkeys(("dico_table12", "dico_table13", "mpdit_table01"), 256),
    **dict.fromkeys(("lightningdit_table02", "lightningdit_table03"), 256),
}
PRECISION = "torch-default"  # of the predicted column: what PyTorch does with fp32 by default


@of_parts
def section(records: Sequence[Record]) -> Iterator[Part]:
    """Write the section; without records only the published columns are filled."""
    evidence = gather(records)
    marks = overview.setting_marks(evidence)
    predicted = predictions(records)
    where = f"{GPU}, batch {BATCH}, {PRECISION} (fp32 with TF32 in convolutions only)"
    yield published.READING
    for name, res in TABLES.items():
        compared = Compared(
            table=load.table(name),
            res=res,
            evidence=evidence,
            timings=timings(records),
            marks=marks,
            predicted=predicted,
            predicted_on=where,
        )
        yield published.section(compared)
    yield from _hidden_macs(evidence)
    yield from ("## Published only", of_rows(load.rows("published_only.csv")))


def _hidden_macs(evidence: Evidence) -> Iterator[str]:
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
    yield "## What DiG's published MACs leave out"
    yield (
        "At 256 px, GMACs. A counter that works on a traced graph does not see into the fused operators "
        "of DiG's release, so the published number lacks two terms. *In full* is every product of the "
        "released network (dig_macs.csv), elementwise ones left out."
    )
    yield f"**Counted here**: {counted_line(counts, list(terms), 256)}"
    yield markdown(columns, [[count] if count else [] for count in counts])


def predictions(records: Sequence[Record]) -> Predicted:
    """Predicted images/s with its interval for the passes whose operator costs are in the records."""
    costs = costs_in(records)
    peaks = roofline.of_gpu(GPU)
    if not costs.operators or why_not(peaks, [PRECISION]) is not None:
        return lambda model, res: ""
    _, made, _ = calibrated(records)

    def text(model: str, res: int) -> str:
        work = costs.work(pass_key(model, res, BATCH, PRECISION, "inference"))
        if work is None:
            return ""
        found = made.predict(work, peaks, PRECISION)
        low, value, high = (significant(BATCH / s) for s in (found.high_s, found.seconds, found.low_s))
        return f"{value} [{low}, {high}]"

    return text
