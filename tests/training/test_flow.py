"""Flow matching on data whose velocity is known in closed form."""

import pytest
import torch
from torch import Tensor

from bench.sampling import samplers
from bench.training.losses.flow import Flow, FlowX

MEAN, STD = 1.5, 0.4
Y = torch.zeros(1, dtype=torch.int64)


def exact(x: Tensor, t: Tensor) -> Tensor:
    """The velocity of normal data: E[x - z | x_t] of the jointly normal x, z and x_t."""
    t = t[:, None, None, None]
    variance = (t * STD) ** 2 + (1 - t) ** 2
    return MEAN + (t * STD**2 - (1 - t)) / variance * (x - t * MEAN)


def normal(n: int, seed: int) -> Tensor:
    return torch.randn(n, 2, 4, 4, generator=torch.Generator().manual_seed(seed))


def test_path_is_straight_from_noise_to_data() -> None:
    data, noise = normal(3, 0), normal(3, 1)
    t = torch.tensor([0.0, 0.25, 1.0])
    at = Flow().q_sample(data, t, noise)
    torch.testing.assert_close(at[0], noise[0])
    torch.testing.assert_close(at[1], 0.25 * data[1] + 0.75 * noise[1])
    torch.testing.assert_close(at[2], data[2])


def test_loss_is_the_squared_error_of_the_velocity_at_t() -> None:
    data, noise, t = normal(2, 0), normal(2, 1), torch.tensor([0.3, 0.9])
    given = []

    def two_off(x: Tensor, at: Tensor, y: Tensor) -> Tensor:
        given.append(at)
        return data - noise + 2

    torch.testing.assert_close(Flow().losses(two_off, data, t, Y, noise), torch.tensor([4.0, 4.0]))
    assert torch.equal(given[0], t)


def test_exact_velocity_has_the_lowest_loss() -> None:
    n = 4000
    data, noise = MEAN + STD * normal(n, 0), normal(n, 1)
    t = Flow().draw(n, torch.Generator().manual_seed(2))
    loss = {
        off: float(Flow().losses(lambda x, t, y, off=off: exact(x, t) + off, data, t, Y, noise).mean())
        for off in (-0.1, 0.0, 0.1)
    }
    assert loss[0.0] < min(loss[-0.1], loss[0.1])
    # a shift d of what minimises a mean square adds d^2
    assert loss[0.1] + loss[-0.1] - 2 * loss[0.0] == pytest.approx(0.02, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "steps", "tolerance"), [("heun", 50, 0.01), ("euler", 250, 0.01), ("sde", 250, 0.015)]
)
def test_samplers_with_the_exact_velocity_give_the_data(name: str, steps: int, tolerance: float) -> None:
    n = 2000  # 64,000 numbers: standard errors of the mean and the deviation are 0.0016 and 0.0011
    source = torch.Generator().manual_seed(5)
    sampler = samplers.SAMPLERS[name]
    drawn = sampler.draw(exact, normal(n, 3), lambda k: torch.randn(n, 2, 4, 4, generator=source), steps)
    assert float(drawn.mean()) == pytest.approx(MEAN, abs=tolerance)
    assert float(drawn.std()) == pytest.approx(STD, abs=tolerance)


def test_heun_has_order_2_and_euler_order_1() -> None:
    start = normal(4, 6)
    # a straight line in the end: the flow carries normal noise to MEAN + STD * noise
    error = {
        (name, steps): float(
            (samplers.SAMPLERS[name].draw(exact, start, lambda k: start, steps) - MEAN - STD * start)
            .abs()
            .max()
        )
        for name in ("euler", "heun")
        for steps in (40, 80)
    }
    assert error["euler", 40] / error["euler", 80] == pytest.approx(2, rel=0.2)
    assert error["heun", 40] / error["heun", 80] == pytest.approx(4, rel=0.2)


def exact_data(x: Tensor, t: Tensor) -> Tensor:
    """The data that an exact velocity leads to along a straight path."""
    return x + (1 - t)[:, None, None, None] * exact(x, t)


def test_velocity_follows_from_predicted_data() -> None:
    data, noise, t = normal(3, 0), normal(3, 1), torch.tensor([0.0, 0.5, 0.97])
    x = FlowX().q_sample(data, t, noise)
    velocity = FlowX().velocity(data, x, t)
    torch.testing.assert_close(velocity[:2], (data - noise)[:2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(velocity[2], 0.6 * (data - noise)[2], atol=1e-4, rtol=1e-4)  # 0.03 / 0.05
    losses = FlowX().losses(lambda x, t, y: data + 0.1, data, t, Y, noise)
    torch.testing.assert_close(losses, torch.tensor([0.01, 0.04, 4.0]), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("name", "steps"), [("heun-euler", 20), ("euler", 20)])
def test_samplers_with_exactly_predicted_data_give_the_data(name: str, steps: int) -> None:
    sampler, objective = samplers.SAMPLERS[name], FlowX()
    start = normal(400, 3)
    drawn = sampler.draw(
        lambda x, t: objective.velocity(exact_data(x, t), x, t), start, lambda k: start, steps
    )
    torch.testing.assert_close(drawn, sampler.draw(exact, start, lambda k: start, steps), atol=1e-4, rtol=0)


def test_timesteps_of_predicted_data_have_a_normal_logit() -> None:
    t = FlowX().draw(20_000, torch.Generator().manual_seed(3))
    logit = torch.logit(t)
    assert float(logit.mean()) == pytest.approx(-0.8, abs=0.02)
    assert float(logit.std()) == pytest.approx(0.8, abs=0.02)
    middle = FlowX().quantile(torch.tensor([0.5]))
    assert float(torch.logit(middle)) == pytest.approx(-0.8, abs=1e-5)


def test_sde_adds_noise_except_in_its_last_step() -> None:
    times: list[float] = []
    drawn: list[int] = []

    def still(x: Tensor, t: Tensor) -> Tensor:
        times.append(float(t[0]))
        return torch.zeros_like(x)

    def noise(step: int) -> Tensor:
        drawn.append(step)
        return torch.zeros(1, 1, 1, 1)

    samplers.sde(still, torch.ones(1, 1, 1, 1), noise, 250)
    assert drawn == list(range(249))
    assert len(times) == 250
    assert times[0] == 0.0
    assert times[-1] == pytest.approx(0.96)
    assert times[1] - times[0] == pytest.approx(0.96 / 249)


def test_timesteps_are_uniform_and_depend_on_the_seed() -> None:
    draws = [Flow().draw(20_000, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*draws)
    assert 0 <= float(draws[0].min()) < 0.001 < 0.999 < float(draws[0].max()) < 1
    assert float(draws[0].mean()) == pytest.approx(0.5, abs=0.01)


def test_noise_level_falls_with_t() -> None:
    assert Flow().noise_level(torch.tensor([0.25, 1.0])).tolist() == [0.75, 0.0]


def test_unused_output_channels_are_ignored() -> None:
    data, noise, t = normal(2, 0), normal(2, 1), torch.tensor([0.3, 0.9])
    twice = Flow().losses(lambda x, t, y: torch.cat([x, 9 * x], dim=1), data, t, Y, noise)
    torch.testing.assert_close(twice, Flow().losses(lambda x, t, y: x, data, t, Y, noise))
    with pytest.raises(ValueError, match="output: must have 2 channels for x, or twice as many, got 1"):
        Flow().losses(lambda x, t, y: x[:, :1], data, t, Y, noise)
