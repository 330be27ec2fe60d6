"""Fixtures and settings shared by all tests."""

import os
import re
from collections.abc import Iterator

import pytest
import torch
from matplotlib.figure import Figure

# Triton reads it where a kernel is defined, so it is set before anything of ours is imported
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from baselines import load
from models.registry import FAMILIES

# the smallest published network of these families is too large, or too slow, to run in every test
NARROW = {
    "U-DiT": "tests.narrow:udit",
    "ADM": "tests.narrow:adm",
    "ADM-U": "tests.narrow:adm_u",
    "LDM": "tests.narrow:ldm",
    "DiS": "tests.narrow:dis",
    "DiM": "tests.narrow:dim",
    "DiMSUM": "tests.narrow:dimsum",
    "U-ViT": "tests.narrow:uvit",
    "MDT": "tests.narrow:mdt",
    "MDTv2": "tests.narrow:mdtv2",
    "EDM2": "EDM2-Ti",
    "HDiT": "HDiT-Ti/2",
    "MPDiTv2": "tests.narrow:mpditv2",
}
NETWORKS = {family.network: name for name, family in reversed(list(FAMILIES.items()))}  # its first family
FIRST = [name for name in FAMILIES if name in NETWORKS.values()]
ONCE = ("U-DiT", "MDT", "MDTv2")  # their smallest published networks are too slow for every test only
FEW = 60_000_000  # parameters of a network that is computed at its real size in every run of the tests


def is_small(name: str) -> bool:
    return load.has_manifest(name) and load.manifest(name).params_total < FEW


PUBLISHED = [
    name
    for name, family in ((next(iter(FAMILIES[family].variants)), family) for family in FIRST)
    if is_small(name) and (family not in NARROW or family in ONCE)
]
SMALLEST = [
    NARROW.get(name) or next(iter((*FAMILIES[name].small, *FAMILIES[name].variants))) for name in FIRST
]

# parameters without gradient: MDT's block for the masked training pass, projections of DiMSUM whose output
# the release does not use, and EDM2's weights of its loss
UNREAD = re.compile(r"^side\.|\.unread\.|^uncertainty_")
# parameters whose gradient is 0: a mean reads only the real parts of MPDiT's last frequencies
ZERO_GRADIENT = re.compile(r"^time\.spectral\.2\.imaginary$")


@pytest.fixture(params=SMALLEST)
def smallest(request: pytest.FixtureRequest) -> str:
    """The smallest backbone of each network: narrow, of a size of ours, or as published."""
    return str(request.param)


@pytest.fixture(params=PUBLISHED)
def published(request: pytest.FixtureRequest) -> str:
    """The smallest backbone of each network at its real size, where that is small enough."""
    return str(request.param)


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    torch.set_grad_enabled(True)


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are composed without drawing, which takes seconds: for tests of the text around them."""
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **options: None)
