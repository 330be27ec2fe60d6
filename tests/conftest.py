"""What every test file shares."""

from collections.abc import Iterator

import pytest
import torch

from models.registry import FAMILIES

SMALLEST = [next(iter(family.variants)) for family in FAMILIES.values()]


@pytest.fixture(params=SMALLEST)
def smallest(request: pytest.FixtureRequest) -> str:
    """The smallest backbone of each family, at its real size."""
    return str(request.param)


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    torch.set_grad_enabled(True)
