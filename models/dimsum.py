"""DiMSUM: half of the channels scanned in space, half among wavelet coefficients, joined by cross-attention.

Source: arXiv:2411.04168; its ImageNet setting, and what the paper leaves open, from its release.
Letters: N batch, C latent channels, H and W latent sides, P patch side, D width, G and K the grid's sides H/P
and W/P, T tokens (G K), B bands or channels to split into bands.

The running sum of the blocks ends with the last one: the head sees that block's output alone. One set of
weights serves the attention after every fourth block. A token of the second half holds coefficients of all 16
bands: the release reads (band, channel) as (channel, place in a 4 x 4 cell), and so does this.

The release passes a projection of the condition to its convolution as the buffer that the output overwrites:
these weights, `unread` here, change nothing and get no gradient. Our readings: the modulations and the head
keep PyTorch's initial weights, with biases of zero; labels are dropped as in DiT; on a grid that is not
square a window's sides are a quarter of the grid's.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.arithmetic import UNREAD, UNSTRIDED, Terms
from models.family import Factory, Family, Renames
from models.kernels.selective_scan import MAMBA_SSM, Backend
from models.layers.conditions import Condition, LabelDropout
from models.layers.mamba import MAMBA_KEYS, Mamba, initialise_mamba
from models.layers.modulation import Modulation, modulate
from models.layers.transformer import DIT_KEYS, Attention, PatchHead, position_table, unpatchify
from models.task import LATENTS_PLAIN, Task

CELL = 4  # side of the cells of two wavelet steps, and windows per side of the grid


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int
    depth: int
    heads: int  # of the attention; each direction of the cross-attention has half as many
    patch: int = 2
    kernel: int = 4  # of the causal convolutions
    mlp_ratio: int = 4
    attention_every: int = 4  # blocks
    backend: Backend = "auto"  # of the scans


class CausalConv(nn.Conv1d):
    """Padded on the left only; Mamba's own form pads both ends and cuts one, over three tokens more."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (self.kernel_size[0] - 1, 0)))


class ConditionedMamba(Mamba):
    """Mamba's mixer and the unread projection of the condition: (N, T, D/2), (N, D) -> (N, T, D/2)."""

    def __init__(self, width: int, condition: int, kernel: int, backend: Backend) -> None:
        super().__init__(width, kernel, backend)
        self.forwards.conv = CausalConv(self.inner, self.inner, kernel, groups=self.inner)
        self.unread = nn.Linear(condition, self.inner)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:  # type: ignore[override]
        self.unread(c)  # computed as in the release, so that it is counted and timed
        return super().forward(x)


class Haar(nn.Module):
    """Bands LL, LH (high along the height), HL, HH of a step: (N, B, h, w) -> (N, 4B, h/2, w/2)."""

    ll: Tensor
    lh: Tensor
    hl: Tensor
    hh: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, filter_ in zip(("ll", "lh", "hl", "hh"), haar_filters().split(1), strict=True):
            self.register_buffer(name, filter_.clone())

    def forward(self, x: Tensor) -> Tensor:
        filters = torch.cat([self.ll, self.lh, self.hl, self.hh])
        bands = F.conv2d(x.flatten(0, 1)[:, None], filters, stride=2)  # (N B, 4, h/2, w/2)
        return bands.unflatten(0, x.shape[:2]).transpose(1, 2).flatten(1, 2)


class InverseHaar(nn.Module):
    """Inverse of `Haar`: (N, 4B, h, w) -> (N, B, 2h, 2w)."""

    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filters", haar_filters())

    def forward(self, x: Tensor) -> Tensor:
        bands = x.unflatten(1, (4, -1)).transpose(1, 2)  # (N, B, 4, h, w)
        x = F.conv_transpose2d(bands.flatten(0, 1), self.filters, stride=2)  # (N B, 1, 2h, 2w)
        return x.unflatten(0, bands.shape[:2])[:, :, 0]


def haar_filters() -> Tensor:
    """The outer products of low (1, 1) and high (1, -1), orthonormal: (4, 1, 2, 2)."""
    low, high = torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0])
    pairs = ((low, low), (high, low), (low, high), (high, high))  # along the height, along the width
    return torch.stack([torch.outer(*pair) for pair in pairs])[:, None] / 2


class Scan(nn.Module):
    """A gated mixer on half of the channels, tokens in rows: (N, T, D/2), (N, D) -> (N, T, D/2)."""

    def __init__(self, width: int, kernel: int, backend: Backend, grid: tuple[int, int], index: int) -> None:
        super().__init__()
        self.grid, self.index = grid, index
        self.modulation = Modulation(width, count=3, out_width=width // 2)
        self.mixer = ConditionedMamba(width // 2, width, kernel, backend)

    def mix(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(c)[:, :, None]  # each (N, 1, D/2)
        return x + gate * self.mixer(modulate(x, shift, scale), c)


class SpatialScan(Scan):
    """Along rows, rows reversed, columns, columns reversed, by the block's index."""

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        columns, reverse = self.index % 4 >= 2, self.index % 2 == 1
        if columns:
            x = x.unflatten(1, self.grid).transpose(1, 2).flatten(1, 2)
        x = self.mix(x.flip(1), c).flip(1) if reverse else self.mix(x, c)
        return x.unflatten(1, self.grid[::-1]).transpose(1, 2).flatten(1, 2) if columns else x


class FrequencyScan(Scan):
    """Through windows of wavelet coefficients, row by row or, in every second block, column by column."""

    def __init__(self, width: int, kernel: int, backend: Backend, grid: tuple[int, int], index: int) -> None:
        super().__init__(width, kernel, backend, grid, index)
        self.haar = Haar()
        self.inverse = InverseHaar()

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        n, _, channels = x.shape
        x = self.haar(x.transpose(1, 2).unflatten(2, self.grid))  # (N, 4 D/2, G/2, K/2)
        x = self.haar(x.unflatten(1, (4, channels)).flatten(0, 1))  # (4 N, 4 D/2, G/4, K/4)
        x = x.unflatten(0, (n, 4)).flatten(1, 2) / 4  # (N, 16 D/2, G/4, K/4), by first, then second band
        x = F.pixel_shuffle(x, CELL)  # (N, D/2, G, K)

        windows = x.unflatten(3, (CELL, -1)).unflatten(2, (CELL, -1))  # (N, D/2, 4, G/4, 4, K/4)
        order = (0, 4, 2, 5, 3, 1) if self.index % 2 else (0, 2, 4, 3, 5, 1)
        windows = windows.permute(order)
        x = self.mix(windows.flatten(1, 4), c).unflatten(1, windows.shape[1:5])
        x = x.permute([order.index(axis) for axis in range(6)]).flatten(4, 5).flatten(2, 3)  # (N, D/2, G, K)

        x = F.pixel_unshuffle(x, CELL) * 4  # (N, 16 D/2, G/4, K/4)
        x = self.inverse(x.unflatten(1, (4, -1)).flatten(0, 1))  # (4 N, D/2, G/2, K/2)
        x = self.inverse(x.unflatten(0, (n, 4)).flatten(1, 2))  # (N, D/2, G, K)
        return x.flatten(2).transpose(1, 2)


class CrossAttention(nn.Module):
    """Each half of the channels attends to the other: (N, T, D/2), (N, T, D/2) -> (N, T, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv1 = nn.Linear(width // 2, 3 * (width // 2))
        self.qkv2 = nn.Linear(width // 2, 3 * (width // 2))
        self.project = nn.Linear(width, width)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        q1, k1, v1 = self._split(self.qkv1(x1))
        q2, k2, v2 = self._split(self.qkv2(x2))
        x1 = F.scaled_dot_product_attention(q1, k2, v2).transpose(1, 2).flatten(2)
        x2 = F.scaled_dot_product_attention(q2, k1, v1).transpose(1, 2).flatten(2)
        return self.project(torch.cat([x1, x2], dim=2))

    def _split(self, qkv: Tensor) -> Tensor:
        return qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (3, N, heads, T, d)


class GatedMLP(nn.Module):
    """GELU-gated MLP: (N, T, D) -> (N, T, D)."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, 2 * ratio * width)
        self.contract = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, x = self.expand(x).chunk(2, dim=2)
        return self.contract(F.gelu(gate, approximate="tanh") * x)


class Block(nn.Module):
    """The last block's output and the sum before it: (N, T, D), (N, T, D), (N, D) -> (N, T, D), (N, T, D)."""

    def __init__(self, config: Config, grid: tuple[int, int], index: int) -> None:
        super().__init__()
        width = config.width
        self.norm1 = nn.RMSNorm(width, eps=1e-5)
        self.space = SpatialScan(width, config.kernel, config.backend, grid, index)
        self.frequency = FrequencyScan(width, config.kernel, config.backend, grid, index)
        self.attention = CrossAttention(width, config.heads // 2)
        self.norm2 = nn.RMSNorm(width, eps=1e-5)
        self.modulation = Modulation(width, count=3)
        self.mlp = GatedMLP(width, config.mlp_ratio)

    def forward(self, x: Tensor, total: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        total = total + x
        h = self.norm1(total)
        space, frequency = h.chunk(2, dim=2)
        h = h + self.attention(self.space(space, c), self.frequency(frequency, c))
        shift, scale, gate = self.modulation(c)[:, :, None]  # each (N, 1, D)
        return h + gate * self.mlp(modulate(self.norm2(h), shift, scale)), total


class AttentionBlock(nn.Module):
    """DiT's block with a gated MLP: (N, T, D), (N, D) -> (N, T, D)."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = Modulation(width, count=6)
        self.attention = Attention(width, heads)
        self.mlp = GatedMLP(width, mlp_ratio)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)[:, :, None]
        x = x + gate1 * self.attention(modulate(self.norm1(x), shift1, scale1))
        return x + gate2 * self.mlp(modulate(self.norm2(x), shift2, scale2))


class DiMSUM(nn.Module):
    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        task.require_multiple(CELL * config.patch, "patch times wavelet cell")
        MAMBA_SSM.require(config.backend)
        self.patch, self.every = config.patch, config.attention_every
        self.grid = task.grid(config.patch)
        self.drop = LabelDropout(task.num_classes)
        self.condition = Condition(config.width, task.num_classes)
        self.embed = nn.Conv2d(task.in_channels, config.width, config.patch, stride=config.patch)
        self.positions = nn.Parameter(position_table(*self.grid, config.width).float())
        self.blocks = nn.ModuleList(Block(config, self.grid, i) for i in range(config.depth))
        self.attention = nn.ModuleList([AttentionBlock(config.width, config.heads, config.mlp_ratio)])
        self.head = PatchHead(config.width, config.patch, task.out_channels)
        initialise_mamba(self, config.depth)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        c = self.condition(t, self.drop(y))  # (N, D)
        x = self.embed(x).flatten(2).transpose(1, 2) + self.positions  # (N, T, D)
        total = torch.zeros_like(x)
        for i, block in enumerate(self.blocks, start=1):
            x, total = block(x, total, c)
            if i % self.every == 0:
                x = self.attention[0](x, c)
        return unpatchify(self.head(x, c), self.grid, self.patch)  # (N, C_out, H, W)

    @staticmethod
    def closed_form(terms: Terms, config: Config, task: Task) -> None:
        width, half, hidden = config.width, config.width // 2, config.mlp_ratio * config.width
        terms.condition(width)
        tokens = terms.patch_embedding(task, width, config.patch)
        for _ in range(config.depth):
            for _ in range(2):
                terms.modulation(width, 3, half)
                terms.modulate(tokens, half)
                terms.mamba(tokens, half, config.kernel, padding=0)
                terms.linear(UNREAD, 1, width, 2 * half)
                terms.gate(tokens, half)
                terms.linear("attention projections", tokens, half, 3 * half)
                terms.fused_attention(tokens, tokens, half)
                # two steps in each direction, each of 4 coefficients from 4 weights of 2 x 2
                terms.depthwise(tokens, half, 2 * 4, "wavelets")
            terms.elementwise(UNSTRIDED, 2 * (16 - 4) * tokens * half)
            terms.elementwise("wavelets' scale", tokens * half)
            terms.linear("attention projections", tokens, width, width)
            terms.modulation(width, 3)
            terms.modulate(tokens, width)
            terms.gated_feed_forward(tokens, width, hidden)
            terms.gate(tokens, width)
        for _ in range(config.depth // config.attention_every):
            terms.adaptive(tokens, width)
            terms.self_attention(tokens, width)
            terms.gated_feed_forward(tokens, width, hidden)
        terms.patch_head(tokens, width, config.patch**2 * task.out_channels)


VARIANTS: dict[str, Factory] = {"DiMSUM-L/2": partial(DiMSUM, Config(width=1024, depth=16, heads=16))}

OFFICIAL: Renames = (
    *DIT_KEYS,
    (r"^attention\.0\.attention\.(qkv)\.", r"attn_block.attn.\1."),
    (r"^attention\.0\.attention\.project\.", "attn_block.attn.proj."),
    (r"^attention\.0\.", "attn_block."),
    (r"\.norm1\.", ".norm."),
    (r"\.norm2\.", ".norm_2."),
    (r"\.attention\.(qkv\d)\.", r".proj.\1."),
    (r"\.attention\.project\.", ".proj.proj."),
    (r"\.mlp\.expand\.", ".mlp.w12."),
    (r"\.mlp\.contract\.", ".mlp.w3."),
    (r"\.space\.", ".spatial_mamba."),
    (r"\.frequency\.", ".freq_mamba."),
    (r"\.haar\.", ".dwt.w_"),
    (r"\.inverse\.", ".idwt."),
    (r"\.unread\.", ".cond_proj."),
    *MAMBA_KEYS,
)

FAMILY = Family(
    network=DiMSUM,
    task=LATENTS_PLAIN,
    official=OFFICIAL,
    variants=VARIANTS,
    package=MAMBA_SSM,
)
