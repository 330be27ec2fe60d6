"""The papers' figures of numbers: where each is regenerated, FCDM's Figure 6 and DiCo's Figure 3."""

from collections.abc import Iterator, Sequence

from baselines import load
from bench.analysis.costs import training_cost
from bench.analysis.speed.settings import Setting
from bench.records.base import Record, Skipped
from bench.tables.numbers import significant
from reports import overview
from reports.conditions import per_image
from reports.figures import paper_figures as figure
from reports.figures.paper_figures import Pass, Training
from reports.markdown import BLANK, Columns, images, markdown, of_rows
from reports.naming import order
from reports.papers.compared import SETTINGS
from reports.sections import Part, of_parts
from reports.selection import Evidence, Timing, gather

PLACE = "paper-tables.md", 1
DRAWN = 16  # maximum models of measured passes in a figure, the papers' first


@of_parts
def section(records: Sequence[Record]) -> Iterator[Part]:
    """Write the section; without records only the published columns are filled."""
    evidence = gather(records)
    yield from ("## Figures", of_rows(load.rows("figures.csv")))
    yield from _trainings(evidence)
    yield from _runtimes(evidence)


def _trainings(evidence: Evidence) -> Iterator[Part]:
    """FCDM's Figure 6: the rows of its Table 4 with epochs and MACs."""
    printed = load.table("fcdm_table04").rows
    rows = [row for row in printed if row["train_epochs"].value and row["gflops"].value]
    names = [load.backbone_name(row) for row in rows]
    counts = [evidence.count(name, 256) for name in names]
    images_seen = [(row["train_epochs"].value or 0.0) * training_cost.IMAGES_PER_EPOCH for row in rows]
    drawn = [
        Training(
            model=name,
            epochs=row["train_epochs"].as_printed,
            cost=training_cost.papers_zetta((row["gflops"].value or 0.0) * 1e9, seen),
            counted=training_cost.papers_zetta(count.macs_per_image, seen) if count else None,
            images_per_s=row["throughput"].value,
            fid=row["fid"].value or 0.0,
        )
        for name, row, count, seen in zip(names, rows, counts, images_seen, strict=True)
    ]
    columns: Columns = {
        "model": names,
        "epochs, published": [one.epochs for one in drawn],
        "GMACs, published": [row["gflops"].as_printed for row in rows],
        "GMACs, counted here": [per_image(count, count.macs if count else None) for count in counts],
        "training ZMACs from published MACs": [f"{one.cost:.3f}" for one in drawn],
        "training ZMACs from counted MACs": [
            BLANK if one.counted is None else f"{one.counted:.3f}" for one in drawn
        ],
        "images/s, published": [row["throughput"].as_printed or BLANK for row in rows],
        "FID, published": [row["fid"].as_printed for row in rows],
    }
    yield "## FCDM Figure 6: cost of a training and throughput"
    yield (
        "The numbers of the figure from Table 4. A training is 3 x MACs of a forward pass x epochs x 5000 "
        "steps x batch 256, the papers' unit, in zetta; an epoch of other batches has as many images. For "
        "U-ViT, LDM and ADM that is our reading, as the figure prints no numbers."
    )
    yield figure.trainings(drawn)
    yield markdown(columns, [[count] if count else [] for count in counts])


def _runtimes(evidence: Evidence) -> Iterator[Part]:
    """DiCo's Figure 3: time of an image at 512 px, from the published throughput and from records."""
    table = load.table("dico_table02")
    rows = {load.backbone_name(row): row for row in table.rows if row["throughput"].value}
    timed = sorted({one.case.model for one in evidence.timings if one.case.res == 512} - rows.keys())
    names = [*rows, *timed]
    columns: Columns = {
        "model": names,
        "ms an image from the published images/s": [
            significant(_milliseconds(rows[n])) if n in rows else BLANK for n in names
        ],
    }
    marks = overview.setting_marks(evidence)
    by_setting = {
        setting: [evidence.timing(setting, name, 512) for name in names]
        for setting in evidence.fullest([(name, 512) for name in names], SETTINGS)
    }
    for setting, found in by_setting.items():
        rates = [one.images_per_s if one else None for one in found]
        columns[f"ms an image, measured here ({marks[setting]})"] = [
            BLANK if rate is None else significant(1e3 / rate) for rate in rates
        ]
        columns[f"images/s, measured here ({marks[setting]})"] = [
            images(one.passes if one else None) for one in found
        ]
    sources = evidence.behind([(name, 512) for name in names], by_setting, [None] * len(names))
    fids = {name: _lowest_fid(name) for name in names}
    columns["lowest FID, published"] = [fids[name].as_printed or BLANK for name in names]
    points = [(n, _milliseconds(rows[n]), fid) for n in rows if (fid := fids[n].value) is not None]
    text = (
        "Batch 64 on an A100, if the conditions of the paper's Table 1 hold. The FID is the lowest of DiCo "
        "Table 2, with guidance for systems without steps."
    )
    text += "".join(f" {marks[one]}: {one}." for one in by_setting)
    yield from ("## DiCo Figure 3: time at 512 px", text)
    yield from (figure.runtimes(points, *_drawn(by_setting)), markdown(columns, sources))


def _drawn(by_setting: dict[Setting, list[Timing | None]]) -> tuple[str, dict[str, list[Pass]]]:
    """The settings of one device that have most passes, in their order, and the device."""
    passes = {setting: list(map(_pass, filter(None, found))) for setting, found in by_setting.items()}
    names = sorted({one.model for of in passes.values() for one in of if one}, key=order)[:DRAWN]
    timed = {setting: [one for one in of if one and one.model in names] for setting, of in passes.items()}
    most = sorted((setting for setting, of in timed.items() if of), key=lambda one: (-len(timed[one]), one))
    shown = sorted([one for one in most if one.device == most[0].device][: len(figure.SHAPES)])
    return shown[0].device if shown else "", {one.but_device: timed[one] for one in shown}


def _pass(timing: Timing) -> Pass | None:
    if isinstance(timing.passes, Skipped):
        return None
    rates = timing.passes.images_per_s_interval
    interval = rates and (1e3 / rates[1], 1e3 / rates[0])
    return Pass(model=timing.case.model, ms=1e3 / timing.passes.images_per_s, interval=interval)


def _milliseconds(row: load.Row) -> float:
    return 1e3 / (row["throughput"].value or float("inf"))


def _lowest_fid(model: str) -> load.Published:
    """The cell with the lowest FID of DiCo Table 2; a blank one without any."""
    rows = [row["fid"] for row in load.table("dico_table02").rows if load.backbone_name(row) == model]
    known = [cell for cell in rows if cell.value is not None]
    return min(known, key=lambda cell: cell.value or 0.0, default=load.Published(value=None, as_printed=""))
