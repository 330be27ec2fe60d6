"""MDT and MDTv2: relative biases, the second position table, and what only checkpoints read."""

import pytest
import torch

from models import create
from models.mdt import BiasedAttention, relative_rows
from models.weights import randomise_zeros


def test_a_bias_belongs_to_the_offset_from_key_to_query() -> None:
    height, width = 2, 3
    rows = relative_rows(height, width)
    for query in range(6):
        for key in range(6):
            down, across = query // width - key // width, query % width - key % width
            assert rows[query, key] == (down + height - 1) * (2 * width - 1) + across + width - 1
    assert rows.dtype == torch.int64
    assert sorted(set(rows.flatten().tolist())) == list(range(3 * 5))


def test_attention_adds_the_bias_to_the_scaled_logits() -> None:
    attention = BiasedAttention(8, 2, (2, 3))
    with torch.no_grad():
        attention.bias.normal_()
        attention.project.weight.copy_(torch.eye(8))
        attention.project.bias.zero_()
        x = torch.randn(1, 6, 8)
        q, k, v = attention.qkv(x)[0].split(8, dim=1)
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)
            logits = q[:, part] @ k[:, part].T / 2 + attention.bias[:, head][relative_rows(2, 3)]
            expected = torch.softmax(logits, dim=1) @ v[:, part]
            torch.testing.assert_close(attention(x)[0, :, part], expected)


@pytest.mark.parametrize("name", ["MDT-S/2", "MDTv2-S/2"])
def test_both_position_tables_start_as_the_same_sines_and_are_trained(name: str) -> None:
    model = create(name, latent_size=8)
    assert torch.equal(model.positions, model.decoder_positions)
    assert torch.equal(model.positions, create("DiT-S/2", latent_size=8).positions)
    assert model.positions.requires_grad
    assert model.decoder_positions.requires_grad
    assert not model.mask_token.requires_grad
    biases = torch.cat([module.bias for module in model.modules() if isinstance(module, BiasedAttention)])
    assert biases.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("name", ["MDT-S/2", "MDTv2-S/2"])
def test_the_side_block_the_mask_token_and_the_last_biases_are_not_read(name: str) -> None:
    model = create(name, latent_size=8).eval()
    randomise_zeros(model)
    args = torch.randn(1, 4, 8, 8), torch.tensor([3]), torch.tensor([1])
    with torch.no_grad():
        before = model(*args)
        model.mask_token.add_(1)
        for parameter in model.side.parameters():
            parameter.add_(1)
        for module in model.modules():
            if isinstance(module, BiasedAttention):
                module.bias[-3:] += 1
        assert torch.equal(model(*args), before)
        model.decoder_positions.add_(1)
        assert not torch.equal(model(*args), before)
