"""What every test file shares."""

from collections.abc import Iterator

import pytest
import torch

from models.registry import FAMILIES

THIN = {"U-ViT": "tests.thin:small_uvit"}  # for a network that has no small size
NETWORKS = {entry.network: family for family, entry in reversed(FAMILIES.items())}  # its first family
SMALLEST = [
    next(iter(FAMILIES[family].variants)) for family in reversed(NETWORKS.values()) if family not in THIN
]
SAMPLES = [*SMALLEST, *THIN.values()]


@pytest.fixture(params=SMALLEST)
def smallest(request: pytest.FixtureRequest) -> str:
    """The smallest backbone of each network, at its real size."""
    return str(request.param)


@pytest.fixture(params=SAMPLES)
def sample(request: pytest.FixtureRequest) -> str:
    """A small backbone of each network."""
    return str(request.param)


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    torch.set_grad_enabled(True)
