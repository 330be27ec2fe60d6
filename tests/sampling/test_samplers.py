"""Samplers: the released trajectory, exact solutions, guidance, noise per image."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.sampling import samplers
from bench.sampling.samplers import ImageNoise, guided
from bench.training.losses.diffusion import Diffusion, respaced
from models import Task
from tests.tiny import Tiny
from tests.training.test_diffusion import GOLDEN, stand_in

MEAN, STD = 0.8, 0.5
Y = torch.tensor([1, 2])


def exact_noise(x: Tensor, t: Tensor) -> Tensor:
    """The optimal prediction of the noise for normal data, E[z | x_t]."""
    a = torch.from_numpy(Diffusion().alphas_cumprod).float()[t][:, None, None, None]
    return (1 - a).sqrt() / (a * STD**2 + 1 - a) * (x - a.sqrt() * MEAN)


def test_ancestral_sampling_takes_the_released_trajectory() -> None:
    seen = []

    def predict(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x)
        return stand_in(x, t, t)

    def noise(step: int) -> Tensor:
        return torch.from_numpy(
            np.random.Generator(np.random.PCG64(100 + step)).standard_normal((2, 4, 8, 8))
        )

    end = samplers.ancestral(predict, torch.from_numpy(GOLDEN["sample_start"]), noise, 25)
    trajectory = torch.stack([seen[1], seen[13], end]).numpy()
    np.testing.assert_allclose(trajectory, GOLDEN["sample_traj"], rtol=0, atol=1e-6)
    assert len(seen) == 25


@pytest.mark.parametrize(("name", "steps"), [("ancestral", 250), ("ddim", 100)])
def test_iddpm_samplers_recover_the_data_from_exact_predictions(name: str, steps: int) -> None:
    n = 1000
    source = torch.Generator().manual_seed(1)
    start = torch.randn(n, 2, 4, 4, generator=source)
    drawn = samplers.SAMPLERS[name].draw(
        exact_noise, start, lambda k: torch.randn(n, 2, 4, 4, generator=source), steps
    )
    assert float(drawn.mean()) == pytest.approx(MEAN, abs=0.02)
    # the posterior variance is the smallest choice and makes ancestral samples of few steps too narrow
    assert float(drawn.std()) == pytest.approx(STD, abs=0.03)


def test_ddim_reaches_a_single_data_point_in_any_number_of_steps() -> None:
    point = 0.3

    def predict(x: Tensor, t: Tensor) -> Tensor:
        a = torch.from_numpy(Diffusion().alphas_cumprod)[t][:, None, None, None]
        return (x - a.sqrt() * point) / (1 - a).sqrt()

    start = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    for steps in (2, 7, 50):
        end = samplers.ddim(predict, start, lambda k: start, steps)
        torch.testing.assert_close(end, torch.full_like(end, point), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_the_network_is_called_as_often_as_a_sampler_says(name: str) -> None:
    calls = []

    def predict(x: Tensor, t: Tensor) -> Tensor:
        calls.append(t)
        return torch.zeros_like(x)

    sampler = samplers.SAMPLERS[name]
    sampler.draw(predict, torch.ones(2, 1, 2, 2), lambda k: torch.zeros(2, 1, 2, 2), 6)
    assert len(calls) == sampler.calls(6)
    assert all(t.shape == (2,) for t in calls)
    if "iddpm" in sampler.objectives:
        assert [int(t[0]) for t in calls] == list(reversed(respaced(6)))


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_an_image_is_the_same_whatever_its_batch(name: str) -> None:
    torch.manual_seed(0)
    sampler = samplers.SAMPLERS[name]
    model = Tiny(Task(latent_size=6, in_channels=2, num_classes=5, learn_sigma="iddpm" in sampler.objectives))

    @torch.inference_mode()
    def made(images: list[int]) -> Tensor:
        noise = ImageNoise(7, images, (2, 6, 6), "cpu")
        y = torch.tensor([image % 5 for image in images])
        return sampler.draw(guided(model.eval(), y, scale=1.5, null=5, channels=2), noise.draw(), noise, 8)

    together = made([0, 1, 2, 3, 4])
    torch.testing.assert_close(torch.cat([made([0, 1]), made([2, 3]), made([4])]), together)
    torch.testing.assert_close(made([3, 0]), together[[3, 0]])
    assert not torch.allclose(together[0], together[1])


def test_seeds_and_images_have_noise_of_their_own() -> None:
    def first(seed: int, image: int) -> Tensor:
        return ImageNoise(seed, [image], (1, 8, 8), "cpu").draw()

    assert torch.equal(first(0, 3), first(0, 3))
    assert not torch.equal(first(0, 3), first(0, 4))
    assert not torch.equal(first(0, 4), first(1, 3))
    noise = ImageNoise(0, [0], (1, 8, 8), "cpu")
    assert not torch.equal(noise(0), noise(1))


# the second is drawn a step at a time: it takes more than AHEAD_BYTES
@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 600, 600)])
def test_noise_differs_between_steps_and_not_between_batches(shape: tuple[int, int, int]) -> None:
    steps = 2 * samplers.AHEAD + 1
    both, alone = ImageNoise(0, [0, 1], shape, "cpu"), ImageNoise(0, [1], shape, "cpu")
    drawn = [(both(k)[1], alone(k)[0]) for k in range(steps)]
    assert all(torch.equal(*pair) for pair in drawn)
    assert len({float(first.flatten()[0]) for first, _ in drawn}) == steps
    numbers = torch.stack([first for first, _ in drawn])
    assert abs(float(numbers.std()) - 1) < 5 / math.sqrt(2 * numbers.numel())


def test_guidance_of_one_calls_the_network_on_the_batch_as_it_is() -> None:
    sizes = []

    def model(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        sizes.append(len(x))
        return x + y[:, None, None, None]

    x, t = torch.zeros(2, 3, 2, 2), torch.zeros(2)
    assert guided(model, Y, scale=1.0, null=9, channels=3)(x, t)[:, 0, 0, 0].tolist() == [1, 2]
    assert guided(model, Y, scale=2.0, null=9, channels=3)(x, t)[:, 0, 0, 0].tolist() == [-7, -5]
    assert sizes == [2, 4]


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_samples_stay_float32_for_bfloat16_predictions(name: str) -> None:
    def predict(x: Tensor, t: Tensor) -> Tensor:
        return (0.1 * x).bfloat16()

    start = torch.ones(1, 1, 2, 2)
    assert samplers.SAMPLERS[name].draw(predict, start, lambda k: start, 3).dtype == torch.float32


def test_sampler_is_found_for_its_objective_only() -> None:
    assert samplers.find(None, "iddpm", 250) == "ancestral"
    assert samplers.find(None, "flow", 250) == "sde"
    assert samplers.find("heun", "flow", 1) == "heun"
    with pytest.raises(ValueError, match="sampler: flow has sde, euler, heun, got ddim"):
        samplers.find("ddim", "flow", 250)
    with pytest.raises(ValueError, match="steps: must be from 2 to 1000 with ancestral, got 1001"):
        samplers.find(None, "iddpm", 1001)
    with pytest.raises(ValueError, match="steps: must be at least 2 with sde, got 1"):
        samplers.find(None, "flow", 1)
    assert samplers.SAMPLERS["euler"].steps == (1, math.inf)


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_no_step_waits_for_the_device(name: str) -> None:
    start = torch.empty(2, 4, 8, 8, device="meta")
    noise = torch.empty_like(start)
    drawn = samplers.SAMPLERS[name].draw(lambda x, t: stand_in(x, t, t), start, lambda k: noise, 3)
    assert drawn.shape == start.shape
