"""The report's page of the papers' tables and figures: published, counted, measured and predicted columns."""

from collections.abc import Sequence
from dataclasses import dataclass

from baselines import load
from bench.analysis import roofline, training_cost
from bench.analysis.projection.formula import why_not
from bench.analysis.projection.passes import costs_in, observations, pass_key, usable
from bench.analysis.projection.projector import projector
from bench.analysis.projection.published import BATCH, GPU
from bench.records.base import Record
from bench.tables.numbers import significant
from reports import overview, published
from reports.conditions import per_image
from reports.figures.plots import Drawing
from reports.markdown import BLANK, Columns, images, markdown
from reports.published import Compared, Predicted
from reports.selection import Evidence, gather

# every published table, with the resolution at which it is compared; FCDM's ablations and Table 2 and
# DiCo's Tables 3 and 4 print none, and their MACs are those of 256 px
TABLES = {
    **{f"fcdm_table{number:02}": 512 if number == 5 else 256 for number in range(1, 18)},
    **{f"dico_table{number:02}": 512 if number in (2, 9) else 256 for number in range(1, 10)},
    **dict.fromkeys(("dico_table12", "dico_table13", "mpdit_table01"), 256),
    **dict.fromkeys(("lightningdit_table02", "lightningdit_table03"), 256),
}
PRECISION = "torch-default"  # of the predicted column: what PyTorch does with fp32 by default


@dataclass(frozen=True, kw_only=True)
class PublishedOnly:
    """What is not regenerated, or only in part."""

    item: str
    reason: str
    nearest: str  # the nearest that this suite has


PUBLISHED_ONLY = (
    PublishedOnly(
        item="FID, sFID, IS, precision, recall in every table",
        reason="they need ImageNet, the authors' autoencoder and 50K to 2M training steps of each model",
        nearest="python -m bench.sample --compare: distances of samples drawn here",
    ),
    PublishedOnly(
        item="images/s on the papers' GPUs",
        reason="no record of an A100 yet; FCDM's tables name no GPU",
        nearest="the predicted column; python -m bench.sweep paper-256 on an A100",
    ),
    PublishedOnly(
        item="FCDM Table 7 and DiCo Table 6, but for the hours",
        reason="settings, not results",
        nearest="python -m bench.convergence trains every model by one recipe",
    ),
    PublishedOnly(
        item="FCDM Table 11: EQ-VAE",
        reason="its weights are not here, and backbones are counted on latents",
        nearest="the counted MACs, which do not depend on the autoencoder",
    ),
    PublishedOnly(
        item="GAN, Mask, AR and VAR rows; VDM++, Simple Diffusion, CDM, MaskDiT, SD-DiT, DiffuSSM",
        reason="not backbones of this suite, or without released code",
        nearest="their printed cells",
    ),
    PublishedOnly(
        item="ADM-U",
        reason="two networks, a base and an upsampler",
        nearest="both of them, in counting.md; their sums, in baselines/macs_unets.csv",
    ),
    PublishedOnly(
        item="DiCo Table 3, isotropic DiCo; DiCo Table 4, channel self-attention, focused linear, agent",
        reason="no configuration fits the printed numbers (grade open)",
        nearest="the notes under the tables",
    ),
    PublishedOnly(
        item="FCDM Figure 5: DiT's curve of FID by step",
        reason="the text prints no numbers of it",
        nearest="FCDM's curve is Table 8, plotted in training.md",
    ),
    PublishedOnly(
        item="FCDM Figure 7, DiCo Figure 5: activation of channels",
        reason="no numbers are printed, and the trained weights are not here",
        nearest="python -m bench.analyse channels on networks trained here",
    ),
    PublishedOnly(
        item="FCDM Figure 8: spectral energy",
        reason="no numbers are printed, and the trained weights are not here",
        nearest="python -m bench.analyse spectrum on networks trained here",
    ),
    PublishedOnly(
        item="DiCo Figure 9: training loss",
        reason="no numbers are printed",
        nearest="losses of studies run here, in training.md",
    ),
)


@dataclass(frozen=True, kw_only=True)
class PaperFigure:
    """A figure of a paper, and where its numbers stand."""

    figure: str
    shows: str
    here: str


FIGURES = (
    PaperFigure(figure="FCDM Figure 2, DiCo Figure 2", shows="FID against MACs", here="plot in report.md"),
    PaperFigure(figure="FCDM Figure 5", shows="FID by step", here="FCDM Table 8; plot in training.md"),
    PaperFigure(
        figure="FCDM Figure 6", shows="cost of a training, throughput", here="FCDM Figure 6, on this page"
    ),
    PaperFigure(figure="FCDM Figures 7, 8", shows="channels, spectra", here="published only, see the end"),
    PaperFigure(figure="DiCo Figure 3", shows="time and FID at 512 px", here="DiCo Figure 3, on this page"),
    PaperFigure(figure="DiCo Figures 5, 9", shows="channels, loss", here="published only, see the end"),
    PaperFigure(figure="DiCo Figure 8", shows="FID by step", here="DiCo Table 7; plot in training.md"),
)


def section(records: Sequence[Record]) -> tuple[str, list[Drawing]]:
    """Write the section; without records only the published columns are filled."""
    evidence = gather(records)
    marks = overview.setting_marks(evidence)
    predicted = predictions(records)
    where = f"{GPU}, batch {BATCH}, {PRECISION} (fp32 with TF32 in convolutions only)"
    parts = [published.READING, _figures()]
    for name, res in TABLES.items():
        compared = Compared(
            table=load.table(name),
            res=res,
            evidence=evidence,
            marks=marks,
            predicted=predicted,
            predicted_on=where,
        )
        parts.append(published.section(compared))
        if name == "fcdm_table17":
            parts.append(training_flops(evidence))
    parts += [runtime(evidence), published.hidden_macs(evidence), _published_only()]
    return "\n\n".join(parts), []


def predictions(records: Sequence[Record]) -> Predicted:
    """Predicted images/s with its interval for the passes whose operator costs are in the records."""
    costs = costs_in(records)
    peaks = roofline.of_gpu(GPU)
    if not costs.operators or why_not(peaks, [PRECISION]) is not None:
        return lambda model, res: ""
    made = projector(observations(usable(records)[0], records, costs)[0])

    def text(model: str, res: int) -> str:
        work = costs.work(pass_key(model, res, BATCH, PRECISION, "inference"))
        if work is None:
            return ""
        found = made.predict(work, peaks, PRECISION)
        low, value, high = (significant(BATCH / s) for s in (found.high_s, found.seconds, found.low_s))
        return f"{value} [{low}, {high}]"

    return text


# figures that hold numbers


def _figures() -> str:
    columns: Columns = {
        "figure": [one.figure for one in FIGURES],
        "shows": [one.shows for one in FIGURES],
        "regenerated as": [one.here for one in FIGURES],
    }
    return f"## Figures\n\n{markdown(columns)}"


def training_flops(evidence: Evidence) -> str:
    """FCDM's Figure 6: cost of a training against throughput, of the rows of its Table 4 with both."""
    printed = load.table("fcdm_table04").rows
    rows = [row for row in printed if row["train_epochs"].value and row["gflops"].value]
    names = [load.backbone_name(row) for row in rows]
    counts = [evidence.count(name, 256) for name in names]
    seen = training_cost.STEPS_PER_EPOCH * training_cost.BATCH

    def zetta(gmacs: float | None, epochs: float | None) -> str:
        return BLANK if not gmacs or not epochs else f"{3 * gmacs * 1e9 * epochs * seen / 1e21:.3f}"

    columns: Columns = {
        "model": names,
        "epochs, published": [row["train_epochs"].as_printed for row in rows],
        "GMACs, published": [row["gflops"].as_printed for row in rows],
        "GMACs, counted here": [per_image(count, count.macs if count else None) for count in counts],
        "training ZMACs from the published": [
            zetta(row["gflops"].value, row["train_epochs"].value) for row in rows
        ],
        "training ZMACs from the counted": [
            zetta(count.macs_per_image / 1e9 if count else None, row["train_epochs"].value)
            for row, count in zip(rows, counts, strict=True)
        ],
        "images/s, published": [row["throughput"].as_printed or BLANK for row in rows],
        "FID, published": [row["fid"].as_printed for row in rows],
    }
    text = (
        "The numbers of the figure from Table 4. A training is 3 x MACs of a forward pass x epochs x 5000 "
        "steps x batch 256, the papers' unit, in zetta; an epoch of other batches has as many images. For "
        "U-ViT, LDM and ADM that is our reading, as the figure prints no numbers."
    )
    return f"## FCDM Figure 6: cost of a training and throughput\n\n{text}\n\n{markdown(columns)}"


def runtime(evidence: Evidence) -> str:
    """DiCo's Figure 3: time of an image at 512 px, from the published throughput and from records."""
    table = load.table("dico_table02")
    rows = {load.backbone_name(row): row for row in table.rows if row["throughput"].value}
    timed = sorted({one.case.model for one in evidence.timings if one.case.res == 512} - rows.keys())
    names = [*rows, *timed]
    columns: Columns = {
        "model": names,
        "ms an image from the published images/s": [
            _milliseconds(rows[n]) if n in rows else BLANK for n in names
        ],
    }
    for setting, mark in overview.setting_marks(evidence).items():
        found = [evidence.timing(setting, name, 512) for name in names]
        if any(found):
            rates = [one.images_per_s if one else None for one in found]
            columns[f"ms an image, measured here ({mark})"] = [
                BLANK if rate is None else significant(1e3 / rate) for rate in rates
            ]
            columns[f"images/s, measured here ({mark})"] = [
                images(one.record if one else None) for one in found
            ]
    columns["lowest FID, published"] = [_lowest_fid(name) for name in names]
    text = (
        "Batch 64 on an A100 in the paper; M1, M2, ... are the settings of the tables above. The FID is the "
        "lowest of DiCo Table 2, with guidance for systems without steps."
    )
    return f"## DiCo Figure 3: time at 512 px\n\n{text}\n\n{markdown(columns)}"


def _milliseconds(row: load.Row) -> str:
    rate = row["throughput"].value
    return BLANK if not rate else significant(1e3 / rate)


def _lowest_fid(model: str) -> str:
    rows = [row["fid"] for row in load.table("dico_table02").rows if load.backbone_name(row) == model]
    known = [cell for cell in rows if cell.value is not None]
    return min(known, key=lambda cell: cell.value or 0.0).as_printed if known else BLANK


def _published_only() -> str:
    columns: Columns = {
        "what": [one.item for one in PUBLISHED_ONLY],
        "why": [one.reason for one in PUBLISHED_ONLY],
        "nearest here": [one.nearest for one in PUBLISHED_ONLY],
    }
    return f"## Published only\n\n{markdown(columns)}"
