"""U-ViT: the released output, initial weights, and no dropped labels."""

import math

import pytest
import torch
from torch import nn

from bench.measure import golden_calls
from models import create
from models.registry import task_at

SMALL = "tests.narrow:uvit"


def test_output_equals_the_release_with_norms_and_positions() -> None:
    golden = golden_calls.read("U-ViT-L/2")
    model = golden_calls.build("U-ViT-L/2", golden)
    with torch.no_grad():  # one of the two images: they do not depend on each other
        out = model(*(values[1:] for values in golden_calls.inputs(golden)))
    assert golden_calls.error(out, torch.from_numpy(golden.out[1:])) < 1e-5


def test_linears_start_with_deviation_0_02_and_the_rest_as_torch() -> None:
    model = create(SMALL, latent_size=16)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
            assert module.bias is None or not module.bias.any()
    assert model.positions.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.labels.weight.std().item() == pytest.approx(1, rel=0.05)
    bound = 1 / math.sqrt(4 * 2 * 2)  # of torch's convolutions: 1 / sqrt(fan-in)
    assert 0.9 * bound < model.embed.weight.abs().max() <= bound


def test_no_label_is_dropped_in_training() -> None:
    model = create(SMALL, latent_size=8)
    args = torch.randn(64, 4, 8, 8), torch.zeros(64), torch.arange(64)
    with torch.no_grad():
        assert torch.equal(model.train()(*args), model.eval()(*args))


def test_layer_norms_add_1e_5_to_the_variance() -> None:
    norms = [module for module in create(SMALL).modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 11
    x = math.sqrt(1e-5) * torch.tensor([1.0, -1.0]).repeat(32)
    for norm in norms:
        assert norm(x)[0].item() == pytest.approx(math.sqrt(0.5), rel=1e-4)


@pytest.mark.parametrize(("name", "rows"), [("U-ViT-L/2", 1001), ("U-ViT-M/4-img64", 1000)])
def test_pixel_models_have_no_null_class(name: str, rows: int) -> None:
    with torch.device("meta"):
        assert create(name).labels.num_embeddings == rows


def test_pixel_models_take_the_image_itself() -> None:
    task = task_at("U-ViT-M/4-img64", 64, 64)
    assert (task.latent_size, task.in_channels, task.out_channels) == (64, 3, 3)
