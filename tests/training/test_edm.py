"""The objective and the sampler of denoisers, on data whose optimal denoiser is known in closed form."""

import pytest
import torch
from torch import Tensor

from bench.sampling import samplers
from bench.training import objectives
from bench.training.losses.edm import EDM
from models.layers.preconditioning import predict
from models.task import LATENTS, LATENTS_DENOISED

MEAN, STD = 0.3, 0.4
SIGMA = torch.tensor([0.01, 0.5, 20.0])
Y = torch.zeros(3, dtype=torch.int64)


def normal(n: int, seed: int) -> Tensor:
    return torch.randn(n, 2, 4, 4, generator=torch.Generator().manual_seed(seed))


def exact(x: Tensor, t: Tensor) -> Tensor:
    """E[data | x] of normal data."""
    variance = t[:, None, None, None] ** 2
    return (STD**2 * x + variance * MEAN) / (STD**2 + variance)


def test_a_perfect_denoiser_has_no_loss() -> None:
    data, noise = normal(3, 0), normal(3, 1)
    assert EDM().losses(lambda x, t, y: data, data, SIGMA, Y, noise).tolist() == [0, 0, 0]


def test_loss_is_the_weighted_error_of_the_data() -> None:
    data, noise = normal(3, 0), normal(3, 1)
    losses = EDM().losses(lambda x, t, y: data + 0.1, data, SIGMA, Y, noise)
    torch.testing.assert_close(losses, 0.01 * (SIGMA**2 + 0.25) / (0.5 * SIGMA) ** 2)
    x = EDM().q_sample(data, SIGMA, noise)
    torch.testing.assert_close(x[2], data[2] + 20 * noise[2])


def test_weight_makes_the_inner_targets_error_count_once() -> None:
    """The loss of a preconditioned network is the squared error of its inner target, without a weight."""
    data, noise = normal(3, 0), normal(3, 1)
    x, sigma = EDM().q_sample(data, SIGMA, noise), SIGMA[:, None, None, None]
    target = (data - 0.25 / (sigma**2 + 0.25) * x) * (sigma**2 + 0.25).sqrt() / (0.5 * sigma)

    def denoiser(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return predict(lambda x, noise, y: target + 0.3, LATENTS_DENOISED, x, t, y)

    losses = EDM().losses(denoiser, data, SIGMA, Y, noise)
    torch.testing.assert_close(losses, torch.full((3,), 0.09), rtol=1e-2, atol=0)


def test_the_optimal_denoiser_has_the_lowest_loss() -> None:
    n = 4000
    data, noise = MEAN + STD * normal(n, 0), normal(n, 1)
    t = EDM().draw(n, torch.Generator().manual_seed(2))
    loss = {
        off: float(EDM().losses(lambda x, t, y, off=off: (1 + off) * exact(x, t), data, t, Y, noise).mean())
        for off in (-0.05, 0.0, 0.05)
    }
    assert loss[0.0] < min(loss[-0.05], loss[0.05])


def test_noise_levels_are_lognormal() -> None:
    log = EDM().draw(20_000, torch.Generator().manual_seed(3)).log()
    assert float(log.mean()) == pytest.approx(-0.4, abs=0.02)
    assert float(log.std()) == pytest.approx(1.0, abs=0.02)
    assert EDM().at_level(500) == pytest.approx(0.671, abs=0.002)


def test_predicted_noise_follows_from_the_data() -> None:
    data, noise = normal(3, 0), normal(3, 1)
    x = EDM().q_sample(data, SIGMA, noise)
    torch.testing.assert_close(EDM().noise(data, x, SIGMA), noise, rtol=0, atol=1e-4)


def test_samples_of_the_optimal_denoiser_are_the_data() -> None:
    start = normal(20, 4).double()
    # the path that starts at 80 z ends at MEAN + STD * (80 z - MEAN) / sqrt(STD^2 + 80^2)
    end = MEAN + STD * (80 * start - MEAN) / (STD**2 + 80**2) ** 0.5
    sampler = samplers.SAMPLERS["edm"]
    error = {
        steps: float((sampler.draw(exact, start, lambda k: start, steps) - end).abs().max())
        for steps in (64, 128)
    }
    assert error[128] < 0.01
    assert error[64] / error[128] == pytest.approx(4, rel=0.2)  # of order 2


def test_a_denoiser_and_its_objective_belong_together() -> None:
    assert objectives.of_task(LATENTS_DENOISED) == "edm"
    objectives.check_noise("EDM2-Ti", LATENTS_DENOISED, "edm")
    with pytest.raises(ValueError, match="DiT-S/2: predicts epsilon; edm is for denoisers"):
        objectives.check_noise("DiT-S/2", LATENTS, "edm")
    with pytest.raises(ValueError, match="EDM2-Ti: is a denoiser, whose t is sigma; got flow, edm would"):
        objectives.check_noise("EDM2-Ti", LATENTS_DENOISED, "flow")
