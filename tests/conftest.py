"""What every test file shares."""

from collections.abc import Iterator

import pytest
import torch

from models.registry import FAMILIES

# the smallest published network of these families is too large to be computed in every test
NARROW = {"ADM": "tests.narrow:adm", "ADM-up": "tests.narrow:adm", "LDM": "tests.narrow:ldm"}
PUBLISHED = [next(iter(family.variants)) for name, family in FAMILIES.items() if name not in NARROW]
SMALLEST = [*PUBLISHED, *dict.fromkeys(NARROW.values())]


@pytest.fixture(params=SMALLEST)
def smallest(request: pytest.FixtureRequest) -> str:
    """The smallest backbone of each family, at its real size or narrow."""
    return str(request.param)


@pytest.fixture(params=PUBLISHED)
def published(request: pytest.FixtureRequest) -> str:
    """The smallest backbone of each family at its real size, where that is small enough."""
    return str(request.param)


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    torch.set_grad_enabled(True)
