"""All readers of this folder in one import: `from baselines import load`.

The rows of the files name their sources; README.md describes the files.
"""

# mypy: implicit-reexport
# ruff: noqa: F401

from baselines._files import ROOT, rows
from baselines.claims import QUANTITIES, Claim, claims
from baselines.golden import (
    Golden,
    Manifest,
    Shapes,
    Tensors,
    diffusion,
    fill,
    fill_sha256,
    golden,
    goldens,
    has_manifest,
    manifest,
)
from baselines.gpus import Gpu, gpu, gpus, gpus_fitting
from baselines.macs import dig_macs, macs, macs_2026, macs_ssm, macs_unets
from baselines.published import (
    Ablation,
    Published,
    PublishedTable,
    Remark,
    Row,
    ablations,
    backbone_name,
    number,
    remark,
    remarks,
    row_name,
    table,
    tables,
    taken_over,
)

MEASURED = ROOT / "measured"  # records of this suite, one folder a device
