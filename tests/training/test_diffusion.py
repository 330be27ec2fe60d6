"""The diffusion process: every array of the golden file of the release, and its limits."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from baselines import load
from bench.records.training import OBJECTIVES
from bench.training.losses.diffusion import IDDPM, Diffusion, respaced
from bench.training.objectives import NAMES, find

GOLDEN = load.diffusion()
X0, NOISE, T, X = (torch.from_numpy(GOLDEN[name]) for name in ("x0", "noise", "t", "x_t"))
Y = torch.zeros_like(T)


def stand_in(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """The fixed function that replaced a network when the golden file was made."""
    s = (t / 1000).to(x.dtype)[:, None, None, None]
    return torch.cat([0.9 * x + 0.1 * torch.sin(3 * x + s), torch.tanh(0.7 * x - s)], dim=1)


def noise_alone(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    return stand_in(x, t, y)[:, : x.shape[1]]


def same(ours: Tensor | NDArray[np.float64], name: str) -> None:
    values = ours.numpy() if isinstance(ours, Tensor) else ours
    np.testing.assert_allclose(values, GOLDEN[name], rtol=0, atol=1e-6)


def test_schedule_and_respacings_equal_the_release() -> None:
    same(Diffusion().betas, "betas")
    same(Diffusion().alphas_cumprod, "alphas_cumprod")
    assert respaced(250) == tuple(GOLDEN["timesteps_250"])
    assert respaced(25) == tuple(GOLDEN["timesteps_25"])
    assert respaced(1000) == tuple(range(1000))


def test_noising_equals_the_release() -> None:
    same(IDDPM().q_sample(X0, T, NOISE), "x_t")


def test_training_loss_and_its_terms_equal_the_release() -> None:
    squared, variational = IDDPM().terms(stand_in, X0, T, Y, NOISE)
    assert variational is not None
    same(squared, "train_mse")
    same(variational, "train_vb")
    same(IDDPM().losses(stand_in, X0, T, Y, NOISE), "train_loss")


def test_reverse_step_equals_the_release() -> None:
    reverse = Diffusion().reverse(stand_in(X, T, Y), X, T)
    same(reverse.mean, "p_mean")
    same(reverse.log_variance, "p_log_variance")
    same(reverse.log_variance.exp(), "p_variance")
    same(reverse.x0, "p_pred_xstart")


def test_float32_losses_equal_float64_to_one_in_ten_thousand() -> None:
    ours = IDDPM().losses(stand_in, X0.float(), T, Y, NOISE.float())
    assert ours.dtype == torch.float32
    # the divergence at t = 1 is a difference of numbers a thousand times larger
    np.testing.assert_allclose(ours.numpy(), GOLDEN["train_loss"], rtol=1e-4)


@pytest.mark.parametrize("channels", [3, 6])
def test_clipping_bounds_the_data_and_keeps_the_rest(channels: int) -> None:
    process, draw = Diffusion(), torch.Generator().manual_seed(0)
    x, out = torch.randn(2, 3, 4, 4, generator=draw), torch.randn(2, channels, 4, 4, generator=draw)
    step = torch.tensor([400, 900])
    before = process.reverse(out, x, step)
    clipped = process.clipped(out, x, step)
    after = process.reverse(clipped, x, step)
    assert before.x0.abs().max() > 2
    torch.testing.assert_close(after.x0, before.x0.clamp(-1, 1), rtol=0, atol=1e-4)
    torch.testing.assert_close(clipped[:, 3:], out[:, 3:], rtol=0, atol=0)


def test_variational_term_trains_the_variance_only() -> None:
    out = stand_in(X, T, Y).requires_grad_()
    _, variational = IDDPM().terms(lambda x, t, y: out, X0, T, Y, NOISE)
    assert variational is not None
    (gradient,) = torch.autograd.grad(variational.sum(), out)
    assert not gradient[:, :4].any()
    assert (gradient[:, 4:].flatten(1).abs().sum(1) > 0).all()


def test_loss_without_variance_channels_is_the_squared_error() -> None:
    objective = IDDPM()
    same(objective.losses(noise_alone, X0, T, Y, NOISE), "train_mse")
    reverse = objective.diffusion.reverse(noise_alone(X, T, Y), X, T)
    same(reverse.mean, "p_mean")
    least = objective.diffusion.reverse(torch.cat([X, torch.full_like(X, -1)], 1), X, T)  # v = -1: no more
    torch.testing.assert_close(reverse.log_variance, least.log_variance)


def test_no_loss_depends_on_the_other_samples_of_its_batch() -> None:
    objective = IDDPM()
    alone = [
        objective.losses(stand_in, *(part[i : i + 1] for part in (X0, T, Y, NOISE))) for i in range(len(T))
    ]
    torch.testing.assert_close(torch.cat(alone), objective.losses(stand_in, X0, T, Y, NOISE))


def test_respacing_keeps_the_noise_of_the_chosen_steps() -> None:
    few = Diffusion(respaced(25))
    np.testing.assert_array_equal(few.alphas_cumprod, Diffusion().alphas_cumprod[list(respaced(25))])
    np.testing.assert_allclose(np.cumprod(1 - few.betas), few.alphas_cumprod)


def test_single_step_is_possible() -> None:
    last = Diffusion([999]).reverse(stand_in(X, T, Y), X, torch.zeros_like(T))
    assert last.log_variance.isfinite().all()


def test_timesteps_cover_all_thousand_and_depend_on_the_seed() -> None:
    draws = [IDDPM().draw(20_000, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*draws)
    assert draws[0].dtype == torch.int64
    assert (int(draws[0].min()), int(draws[0].max())) == (0, 999)
    assert abs(float(draws[0].double().mean()) - 499.5) < 10  # five standard errors


def test_noise_level_rises_with_t_and_stays_below_one() -> None:
    assert IDDPM().noise_level(torch.tensor([0, 500, 999])).tolist() == pytest.approx([0, 0.5, 0.999])


def test_output_of_other_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="output: must have 4 or 8 channels for x, got 3"):
        IDDPM().losses(lambda x, t, y: x[:, :3], X0, T, Y, NOISE)


def test_objectives_are_found_by_name() -> None:
    assert NAMES == OBJECTIVES
    assert [find(name).name for name in NAMES] == ["iddpm", "flow", "flow-x", "edm"]
    assert [find(name).prediction for name in NAMES] == ["epsilon", "velocity", "x", "denoised"]
    with pytest.raises(ValueError, match="ddpm: no such objective; known are iddpm, flow"):
        find("ddpm")


@pytest.mark.parametrize("name", NAMES)
def test_no_loss_waits_for_the_device(name: str) -> None:
    """Meta tensors have no values: to read one raises."""
    objective = find(name)
    x0 = X0.float().to("meta")
    t = objective.draw(len(x0), torch.Generator()).to("meta")
    losses = objective.losses(stand_in, x0, t, Y.to("meta"), torch.empty_like(x0))
    assert losses.device.type == "meta"
    assert losses.shape == (len(x0),)
    assert objective.noise_level(t).shape == (len(x0),)
