"""EDM2 and HDiT: inner networks and scales, weights in training, the null class, levels and positions."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from baselines import load
from bench.measure import golden_calls
from models import create
from models.edm2 import halve
from models.hdit import cell_positions, coarser
from models.layers import magnitude
from models.registry import published_task
from models.weights import randomise_zeros


def test_edm2_inner_network_equals_the_released_one() -> None:
    golden = golden_calls.read("EDM2-XXS")
    model = golden_calls.build("EDM2-XXS", golden)
    x, sigma, y = golden_calls.inputs(golden)
    with np.load(load.ROOT / "golden" / "EDM2-XXS_latent64.npz") as file, torch.no_grad():
        scaled = x / (sigma.square() + 0.25).sqrt()[:, None, None, None]
        out = model.network(scaled, sigma.log() / 4, y)
        # float32 accounts for 9.4e-7; values that are not normed would show as 4.7e-3
        assert golden_calls.error(out, torch.from_numpy(file["out_F"])) < 5e-6
        assert golden_calls.error(model(x, sigma, y), torch.from_numpy(golden.out)) < 1e-6
        uncertainty = model.uncertainty(sigma)
        assert golden_calls.error(uncertainty, torch.from_numpy(file["logvar"]).flatten()) < 1e-6


def test_hdit_inner_network_equals_the_released_one() -> None:
    golden = golden_calls.read("HDiT-oxford-flowers")
    model = golden_calls.build("HDiT-oxford-flowers", golden)
    with np.load(load.ROOT / "golden" / "HDiT-oxford-flowers_latent128.npz") as file, torch.no_grad():
        raw, sigma = torch.from_numpy(file["x"]), torch.from_numpy(file["sigma"])
        out = model.network(raw, sigma.log() / 4, torch.zeros(1, dtype=torch.int64))
        # float32 accounts for 2.5e-6; another eps would show as 2e-5
        assert golden_calls.error(out, torch.from_numpy(file["out"])) < 1e-5
        assert golden_calls.error(model(*golden_calls.inputs(golden)), torch.from_numpy(golden.out)) < 1e-5


def test_a_training_pass_stores_normalised_weights() -> None:
    layer = magnitude.Conv(3, 8, 3)
    x = torch.randn(2, 3, 6, 6)
    out = layer.eval()(x)
    assert layer.weight.square().mean() > 0
    before = layer.weight.clone()
    torch.testing.assert_close(layer.train()(x), out, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(layer.weight.square().mean((1, 2, 3)), torch.ones(8), atol=1e-3, rtol=0)
    assert not torch.equal(layer.weight, before)


def test_layers_keep_the_magnitude_of_their_inputs() -> None:
    x = torch.randn(64, 32, 8, 8)
    for y in (
        magnitude.Conv(32, 64, 1)(x),
        magnitude.silu(x),
        magnitude.mix(x, torch.randn_like(x), 0.3),
        magnitude.concatenate(x, torch.randn(64, 8, 8, 8)),
        magnitude.normalise(7 * x, 1),
    ):
        assert y.square().mean().sqrt().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("name", ["EDM2-Ti", "HDiT-Ti/2"])
def test_denoisers_return_a_clean_image_at_small_noise(name: str) -> None:
    task = replace(published_task(name), latent_size=16)
    model = create(name, task).eval()
    randomise_zeros(model)
    x = torch.randn(2, task.in_channels, 16, 16)
    with torch.no_grad():
        out = model(x, torch.full((2,), 1e-4), torch.tensor([0, task.num_classes]))
    torch.testing.assert_close(out, x, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("name", ["EDM2-Ti", "HDiT-Ti/2"])
def test_for_noise_prediction_there_are_no_scales(name: str) -> None:
    task = replace(published_task(name), latent_size=16, prediction="epsilon", learn_sigma=True)
    model = create(name, task).eval()
    with torch.no_grad():
        out = model(torch.randn(2, task.in_channels, 16, 16), torch.tensor([0, 999]), torch.tensor([0, 1]))
    assert out.shape == (2, 2 * task.in_channels, 16, 16)
    assert not out.any()  # the last layer starts at zero


def test_edm2_null_class_is_the_zero_vector() -> None:
    model = create("EDM2-Ti").eval()
    noise, null = torch.zeros(1), torch.tensor([1000])
    before = model.network.condition(noise, null)
    with torch.no_grad():
        model.network.labels.weight.normal_()
    torch.testing.assert_close(model.network.condition(noise, null), before)
    other = model.network.condition(noise, torch.tensor([3]))
    assert not torch.allclose(other, before)


def test_edm2_attends_at_sides_16_and_8_whatever_the_image() -> None:
    def attending(latent: int) -> set[str]:
        with torch.device("meta"):
            keys = create("EDM2-XXS", latent_size=latent).state_dict()
        return {key.split(".")[2].split("_")[0] for key in keys if "attention" in key}

    assert attending(64) == {"16x16", "8x8"}
    assert attending(128) == {"16x16"}
    assert attending(32) == {"16x16", "8x8", "4x4"}  # the coarsest level always attends once


def test_halving_is_the_mean_of_four_pixels() -> None:
    x = torch.randn(2, 3, 4, 6)
    torch.testing.assert_close(halve(x), torch.nn.functional.avg_pool2d(x, 2))


def test_hdit_positions_span_the_longer_side_at_every_level() -> None:
    positions = cell_positions(4, 8, torch.device("cpu"))
    assert positions[0, 0].tolist() == [-0.375, -0.875]
    assert positions[-1, -1].tolist() == [0.375, 0.875]
    torch.testing.assert_close(coarser(positions), cell_positions(2, 4, torch.device("cpu")))


def test_hdit_without_classes_reads_no_label() -> None:
    with torch.device("meta"):
        keys = create("HDiT-oxford-flowers").state_dict()
    assert not any("labels" in key for key in keys)


def test_hdit_refuses_an_image_smaller_than_its_window() -> None:
    with pytest.raises(ValueError, match="at least 56, the window of 7 at its coarsest level"):
        create("HDiT-oxford-flowers", latent_size=48)
