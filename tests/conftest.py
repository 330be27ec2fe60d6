"""What every test file shares."""

from collections.abc import Iterator

import pytest
import torch

from models.registry import FAMILIES

# in place of a network that has no small size, or whose small size takes a CPU seconds a pass
THIN = {
    "DiS": "tests.thin:small_dis",
    "DiM": "tests.thin:small_dim",
    "DiMSUM": "tests.thin:small_dimsum",
}
SMALLEST = [next(iter(entry.variants)) for family, entry in FAMILIES.items() if family not in THIN]
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
