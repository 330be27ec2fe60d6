"""Attention through the flash-attn package, replaced by a stub."""

import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models import create
from models.kernels import flash_attn
from models.kernels.flash_attn import FlashAttention, why_not
from models.weights import randomise_zeros


def test_other_dtypes_and_a_missing_package_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "takes bf16 and fp16 only, got float32" in why_not(torch.float32)
    monkeypatch.setattr(flash_attn, "installed", lambda module: False)
    assert "pip install flash-attn" in why_not(torch.bfloat16)
    monkeypatch.setattr(flash_attn, "installed", lambda module: True)
    assert why_not(torch.bfloat16) == ""


def test_every_attention_call_uses_the_flash_attn_layout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, softmax_scale: float | None) -> Tensor:
        seen.append(q.shape)  # (N, T, heads, d), unlike torch's (N, heads, T, d)
        out = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), scale=softmax_scale)
        return out.transpose(1, 2)

    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_func=flash_attn_func))
    model = create("DiT-S/8", latent_size=32).eval()
    randomise_zeros(model)
    args = torch.randn(2, 4, 32, 32), torch.tensor([3, 900]), torch.tensor([1, 2])
    with torch.no_grad():
        plain = model(*args)
        with FlashAttention():
            through = model(*args)
    assert seen == [(2, 16, 6, 64)] * 12
    torch.testing.assert_close(through, plain)
