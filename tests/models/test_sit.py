"""SiT and FasterDiT: DiT's network, of whose output the first half comes out."""

import pytest
import torch

from bench.counting import counters
from models import Task, create
from models.weights import randomise_zeros


def test_output_is_the_first_half_of_dits() -> None:
    dit = create("DiT-S/2", latent_size=8).eval()
    randomise_zeros(dit)
    sit = create("SiT-S/2", latent_size=8).eval()
    sit.load_state_dict(dit.state_dict())
    whole = create("SiT-S/2", latent_size=8, learn_sigma=True).eval()
    whole.load_state_dict(dit.state_dict())
    args = torch.randn(2, 4, 8, 8), torch.tensor([0.25, 0.875]), torch.tensor([1, 207])
    with torch.no_grad():
        assert torch.equal(sit(*args), dit(*args)[:, :4])
        assert torch.equal(whole(*args), dit(*args))


def test_the_half_that_does_not_come_out_gets_no_gradient() -> None:
    model = create("SiT-S/2", latent_size=8)
    args = torch.randn(2, 4, 8, 8), torch.tensor([0.25, 0.875]), torch.tensor([1, 207])
    model(*args).sum().backward()
    by_channel = model.head.linear.bias.grad.view(4, 8)  # positions in the patch, channels
    assert by_channel[:, :4].all()
    assert not by_channel[:, 4:].any()


@pytest.mark.parametrize(
    ("name", "dit"),
    [("SiT-B/2", "DiT-B/2"), ("SiT-L/2", "DiT-L/2"), ("FasterDiT-XL/2", "DiT-XL/2")],
)
def test_counts_are_dits(name: str, dit: str) -> None:
    with torch.device("meta"):
        models = create(name), create(dit)
    ours, theirs = (counters.count_forward(m, Task(), counter="torchprofile-meta") for m in models)
    assert ours == theirs
