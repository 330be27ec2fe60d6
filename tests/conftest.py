"""What every test file shares."""

from collections.abc import Iterator

import pytest
import torch

from models.registry import FAMILIES

SAME_NETWORK = ("U-ViT-img64", "SiT", "FasterDiT")  # as another family's
THIN = {"U-ViT": "tests.thin:small_uvit"}  # in place of a network that has no small size
SMALLEST = [
    next(iter(entry.variants))
    for family, entry in FAMILIES.items()
    if family not in SAME_NETWORK and family not in THIN
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
