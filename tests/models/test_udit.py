"""U-DiT: sub-maps, rotations, and the weights that eval mode multiplies out."""

import cmath
import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from models.udit import Attention, FeedForward, rotate, rotations


def test_pairs_of_channels_turn_by_the_column_and_the_row_in_turn() -> None:
    height, width, channels = 3, 5, 12
    by = rotations(height, width, channels, torch.device("cpu"))
    for row in range(height):
        for column in range(width):
            for j in range(channels // 4):
                rate = 10000 ** (-4 * j / channels)
                turned = by[row * width + column, 2 * j : 2 * j + 2].tolist()
                assert turned[0] == pytest.approx(cmath.exp(1j * column * rate), abs=1e-6)
                assert turned[1] == pytest.approx(cmath.exp(1j * row * rate), abs=1e-6)


def test_rotation_takes_neighbouring_channels_as_real_and_imaginary_part() -> None:
    quarter = torch.full((1, 2), 1j, dtype=torch.complex64)
    assert rotate(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), quarter).tolist() == [[-2, 1, -4, 3]]


def test_attention_stays_within_the_pixels_of_one_parity() -> None:
    attention = Attention(8, 2).eval()
    x = torch.randn(1, 8, 6, 8)
    other = x.clone()
    other[0, :, 2, 3] += 1  # even row, odd column
    with torch.no_grad():
        attention.mix.weight.zero_()
        changed = (attention(other) - attention(x)).abs().sum(1)[0] > 1e-6
    assert changed[0::2, 1::2].all()
    assert changed.sum() == 3 * 4


def test_logits_are_cosines_scaled_to_at_most_100() -> None:
    attention = Attention(8, 2).eval()
    assert attention.log_scale.exp().tolist() == [[[pytest.approx(10)]]] * 2
    x = torch.randn(1, 8, 4, 4)
    with torch.no_grad():
        attention.log_scale.fill_(100.0)
        capped = attention(x)
        attention.log_scale.fill_(torch.tensor(100.0).log())
        torch.testing.assert_close(attention(x), capped)


def unfolded(feed: FeedForward, x: Tensor) -> Tensor:
    with torch.enable_grad():
        return feed(x).detach()


@pytest.fixture
def feed() -> FeedForward:
    return FeedForward(8, 2).eval()


def test_eval_mode_folds_linear_maps_without_changing_the_function(feed: FeedForward) -> None:
    x = torch.randn(2, 8, 5, 7)
    ran: list[str] = []
    for name, module in feed.named_children():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    with torch.no_grad():
        folded = feed(x)
        assert ran == []
        torch.testing.assert_close(folded, unfolded(feed, x))
        assert len(ran) == 7
        torch.testing.assert_close(folded, feed.train()(x))
        assert len(ran) == 14


def test_eval_twice_changes_neither_output_nor_state_dict(feed: FeedForward) -> None:
    x = torch.randn(1, 8, 4, 4)
    before = {key: value.clone() for key, value in feed.train().state_dict().items()}
    with torch.no_grad():
        first = feed.eval()(x)
        assert torch.equal(feed.eval()(x), first)
    after = feed.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)


def write(feed: FeedForward) -> nn.Module:
    feed.depthwise5.weight.mul_(2)
    feed.expand1.weight.add_(1)
    return feed


def load(feed: FeedForward) -> nn.Module:
    feed.load_state_dict(FeedForward(8, 2).state_dict())
    return feed


def assign(feed: FeedForward) -> nn.Module:
    feed.load_state_dict(FeedForward(8, 2).state_dict(), assign=True)
    return feed


def duplicate(feed: FeedForward) -> nn.Module:
    return write(copy.deepcopy(feed))


def double(feed: FeedForward) -> nn.Module:
    return write(feed).double()


@pytest.mark.parametrize("change", [write, load, assign, duplicate, double])
def test_folded_weights_follow_the_weights(
    change: Callable[[FeedForward], FeedForward], feed: FeedForward
) -> None:
    x = torch.randn(1, 8, 4, 4)
    with torch.no_grad():
        before = feed(x)
        feed = change(feed)
        x = x.to(feed.expand1.weight.dtype)
        torch.testing.assert_close(feed(x), unfolded(feed, x))
        assert not torch.allclose(feed(x).float(), before)


def test_weights_made_in_inference_mode_fold_too() -> None:
    with torch.inference_mode():
        feed = FeedForward(8, 2).eval()
        x = torch.randn(1, 8, 4, 4)
        folded = feed(x)
        torch.testing.assert_close(folded, feed.train()(x))
