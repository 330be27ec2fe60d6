"""The report's page of the papers' tables: published, counted, measured and predicted columns."""

from collections.abc import Sequence
from dataclasses import dataclass

from baselines import load
from bench.analysis import roofline
from bench.analysis.projection.formula import why_not
from bench.analysis.projection.passes import costs_in, pass_key
from bench.analysis.projection.published import BATCH, GPU
from bench.records.base import Record
from bench.tables.numbers import significant
from reports import overview, published
from reports.claims.timed import timings
from reports.figures.plots import Drawing
from reports.markdown import Columns, markdown
from reports.published import Compared, Predicted
from reports.sections.projection import calibrated
from reports.selection import gather

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


def section(records: Sequence[Record]) -> tuple[str, list[Drawing]]:
    """Write the section; without records only the published columns are filled."""
    evidence = gather(records)
    marks = overview.setting_marks(evidence)
    predicted = predictions(records)
    where = f"{GPU}, batch {BATCH}, {PRECISION} (fp32 with TF32 in convolutions only)"
    parts = [published.READING]
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
        parts.append(published.section(compared))
    parts += [published.hidden_macs(evidence), _published_only()]
    return "\n\n".join(parts), []


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


def _published_only() -> str:
    columns: Columns = {
        "what": [one.item for one in PUBLISHED_ONLY],
        "why": [one.reason for one in PUBLISHED_ONLY],
        "nearest here": [one.nearest for one in PUBLISHED_ONLY],
    }
    return f"## Published only\n\n{markdown(columns)}"
