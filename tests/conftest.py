"""What every test file shares."""

import os
import re
from collections.abc import Iterator

import pytest
import torch

# Triton reads it where a kernel is defined, so it is set before anything of ours is imported
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from models.registry import FAMILIES

# the smallest published network of these families is too large, or too slow, to be computed in every test
NARROW = {
    "ADM": "tests.narrow:adm",
    "LDM": "tests.narrow:ldm",
    "DiS": "tests.narrow:dis",
    "DiM": "tests.narrow:dim",
    "DiMSUM": "tests.narrow:dimsum",
    "U-ViT": "tests.narrow:uvit",
}
NETWORKS = {family.network: name for name, family in reversed([*FAMILIES.items()])}  # its first family
FIRST = [name for name in FAMILIES if name in NETWORKS.values()]
PUBLISHED = [next(iter(FAMILIES[name].variants)) for name in FIRST if name not in NARROW]
SMALLEST = [NARROW.get(name) or next(iter(FAMILIES[name].variants)) for name in FIRST]

# parameters that get no gradient: MDT's block for the masked pass of its training, and DiMSUM's projections
# that its release computes in vain
UNREAD = re.compile(r"^side\.|\.unread\.")


@pytest.fixture(params=SMALLEST)
def smallest(request: pytest.FixtureRequest) -> str:
    """The smallest backbone of each network, at its real size or narrow."""
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
