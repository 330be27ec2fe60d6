"""SiT and FasterDiT: the network of DiT with the first half of its output."""

from dataclasses import replace

import pytest
import torch

from bench.counting import closed_form
from models import Task
from models.registry import published_task
from models.weights import randomise_zeros
from tests.narrow import shallow


def test_output_is_the_first_half_of_the_dit_output() -> None:
    task = replace(published_task("SiT-S/2"), latent_size=8)
    dit = shallow("DiT-S/2")(Task(8)).eval()
    randomise_zeros(dit)
    sit = shallow("SiT-S/2")(task).eval()
    sit.load_state_dict(dit.state_dict())
    whole = shallow("SiT-S/2")(replace(task, learn_sigma=True)).eval()
    whole.load_state_dict(dit.state_dict())
    args = torch.randn(2, 4, 8, 8), torch.tensor([0.25, 0.875]), torch.tensor([1, 207])
    with torch.no_grad():
        assert torch.equal(sit(*args), dit(*args)[:, :4])
        assert torch.equal(whole(*args), dit(*args))


def test_discarded_half_of_the_output_gets_no_gradient() -> None:
    model = shallow("SiT-S/2")(replace(published_task("SiT-S/2"), latent_size=8))
    args = torch.randn(2, 4, 8, 8), torch.tensor([0.25, 0.875]), torch.tensor([1, 207])
    model(*args).sum().backward()
    by_channel = model.head.linear.bias.grad.view(4, 8)  # positions in the patch, channels
    assert by_channel[:, :4].all()
    assert not by_channel[:, 4:].any()


@pytest.mark.parametrize(
    ("name", "dit"),
    [("SiT-B/2", "DiT-B/2"), ("SiT-L/2", "DiT-L/2"), ("FasterDiT-XL/2", "DiT-XL/2")],
)
def test_counts_equal_those_of_dit(name: str, dit: str) -> None:
    ours, theirs = closed_form.count(name, published_task(name)), closed_form.count(dit, Task())
    assert ours is not None
    assert theirs is not None
    # SiT's head makes both halves of the output too
    assert (ours.torch, ours.torchprofile) == (theirs.torch, theirs.torchprofile)
