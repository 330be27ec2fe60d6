"""Classifier-free guidance."""

import pytest
import torch
from torch import Tensor, nn

from models.guidance import guide


class Labelled(nn.Module):
    """Outputs 2C channels that hold x plus the label."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return torch.cat([x, x], dim=1) + y[:, None, None, None]


X, T, Y = torch.zeros(2, 4, 3, 3), torch.zeros(2), torch.tensor([1, 3])


def test_three_channels_are_guided_and_the_rest_is_conditional() -> None:
    out = guide(Labelled(), X, T, Y, scale=4.0, null=10)
    assert out.shape == (2, 8, 3, 3)
    for row, label in enumerate((1, 3)):
        assert (out[row, :3] == 10 + 4 * (label - 10)).all()
        assert (out[row, 3:] == label).all()


def test_all_channels_of_the_latent_are_guided_on_request_and_the_variance_never() -> None:
    out = guide(Labelled(), X, T, Y, scale=2.0, null=10, channels=None)
    assert (out[0, :4] == 10 + 2 * (1 - 10)).all()
    assert (out[0, 4:] == 1).all()


def test_a_scale_of_one_is_the_conditional_prediction() -> None:
    assert torch.equal(guide(Labelled(), X, T, Y, scale=1.0), Labelled()(X, T, Y))


@pytest.mark.parametrize("channels", [0, 5, -1])
def test_channels_that_the_latent_has_not_are_refused(channels: int) -> None:
    with pytest.raises(ValueError, match="channels: must be from 1 to the 4"):
        guide(Labelled(), X, T, Y, scale=2.0, channels=channels)
