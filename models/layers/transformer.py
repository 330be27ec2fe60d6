"""Transformers over patches, as in DiT: positions, attention, blocks, the head, and tokens to an image.

Letters: N batch, C channels, H and W latent sides, P patch side, T tokens, D width, d channels of a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.family import Renames
from models.layers.modulation import Modulation, modulate


def position_table(height: int, width: int, channels: int) -> Tensor:
    """Fixed 2-D sin-cos positions: (1, height * width, channels), row by row, in float64.

    The first half of the channels encodes the column, the second the row; each half is channels/4
    frequencies 10000^(-i / (channels/4)), their sines, then their cosines.
    """
    count = channels // 4
    frequencies = 10000.0 ** (-torch.arange(count, dtype=torch.float64) / count)

    def encode(positions: Tensor) -> Tensor:
        angles = positions[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    columns = encode(torch.arange(width, dtype=torch.float64)).repeat(height, 1)
    rows = encode(torch.arange(height, dtype=torch.float64)).repeat_interleave(width, dim=0)
    return torch.cat([columns, rows], dim=1)[None]


def fixed_positions(grid: tuple[int, int], width: int) -> nn.Parameter:
    """`position_table` as a parameter, as released, so that it counts among the parameters; never trained."""
    table = torch.empty(1, grid[0] * grid[1], 4 * (width // 4))
    if not table.is_meta:  # there torch computes in Python, which takes longer than building the network
        table.copy_(position_table(*grid, width))
    return nn.Parameter(table, requires_grad=False)


class Attention(nn.Module):
    """Multi-head self-attention: (N, T, D) -> (N, T, D)."""

    def __init__(self, width: int, heads: int, *, qkv_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (N, heads, T, d)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.project(x.transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Attention, then an MLP, each after a norm that the condition modulates, each gated by it.

    (N, T, D), (N, D) -> (N, T, D). Without a `modulation` of its own, its second input is the six vectors
    (6, N, D) that several blocks share.
    """

    def __init__(self, width: int, mlp_ratio: int, attention: nn.Module, *, shared: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Identity() if shared else Modulation(width, count=6)
        self.attention = attention
        self.expand = nn.Linear(width, mlp_ratio * width)
        self.contract = nn.Linear(mlp_ratio * width, width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)[:, :, None]  # each (N, 1, D)
        x = x + gate1 * self.attention(modulate(self.norm1(x), shift1, scale1))
        h = self.expand(modulate(self.norm2(x), shift2, scale2))
        return x + gate2 * self.contract(F.gelu(h, approximate="tanh"))


class SkipTransformerBlock(TransformerBlock):
    """A block after a linear join with an earlier block's output: (N, T, D) twice, (N, D) -> (N, T, D)."""

    def __init__(self, width: int, mlp_ratio: int, attention: nn.Module) -> None:
        super().__init__(width, mlp_ratio, attention)
        self.join = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, skip: Tensor, c: Tensor) -> Tensor:  # type: ignore[override]  # one input more
        return super().forward(self.join(torch.cat([x, skip], dim=-1)), c)


class PatchHead(nn.Module):
    """Norm, modulation, and P*P*C_out outputs per token: (N, T, D), (N, D) -> (N, T, P*P*C_out).

    The norm is a layer norm without affine weights unless one is given.
    """

    def __init__(self, width: int, patch: int, out_channels: int, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False) if norm is None else norm
        self.modulation = Modulation(width, count=2)
        self.linear = nn.Linear(width, patch * patch * out_channels)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.modulation(c)[:, :, None]  # each (N, 1, D)
        return self.linear(modulate(self.norm(x), shift, scale))


def unpatchify(x: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """Arrange tokens as an image: (N, H/P * W/P, P*P*C) -> (N, C, H, W).

    The values of a token are ordered (row in patch, column in patch, channel), the channel fastest. The
    permutation is an einsum, as in the releases of DiT and MDT, which torchprofile counts as one MAC a value.
    """
    x = x.reshape(len(x), *grid, patch, patch, -1)
    return torch.einsum("nhwpqc->nchpwq", x).flatten(4, 5).flatten(2, 3)


# Names in the releases that grew from DiT's code. A network with `positions`, `embed`, `condition`, `head`
# and modulations is renamed by these; its blocks' own layers come after.
DIT_KEYS: Renames = (
    (r"^positions$", "pos_embed"),
    (r"^embed\.", "x_embedder.proj."),
    (r"^condition\.time1\.", "t_embedder.mlp.0."),
    (r"^condition\.time2\.", "t_embedder.mlp.2."),
    (r"^condition\.labels\.", "y_embedder.embedding_table."),
    (r"^head\.", "final_layer."),
    (r"\.modulation\.linear\.", ".adaLN_modulation.1."),
)
BLOCK_KEYS: Renames = (  # of `TransformerBlock`
    (r"\.attention\.qkv\.", ".attn.qkv."),
    (r"\.attention\.project\.", ".attn.proj."),
    (r"\.expand\.", ".mlp.fc1."),
    (r"\.contract\.", ".mlp.fc2."),
)
