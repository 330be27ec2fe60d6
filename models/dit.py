"""DiT: a transformer over patches with zero-initialised adaptive layer norm.

Source: arXiv:2212.09748; sizes from its Table 1, the S, B, L and XL at patches 2, 4 and 8.
Letters: N batch, C latent channels, H and W latent sides, P patch side, T tokens (H/P * W/P), D width.

Long skips are DiCo's ablation (arXiv:2505.11196, Table 3): its printed parameters and MACs are those of five,
each joined by a linear layer from 2D to D with bias. That the five first blocks' outputs go to the five last
blocks, the latest first, is our reading.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import (
    Attention,
    Condition,
    LabelDropout,
    Modulation,
    PatchHead,
    initialise,
    initialise_flat,
    modulate,
    position_table,
    unpatchify,
    zero,
)
from models.task import Factory, Renames, Task


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int
    depth: int
    heads: int
    patch: int
    mlp_ratio: int = 4
    skips: int = 0  # from so many first blocks to as many last ones


class Block(nn.Module):
    """(N, T, D), (N, D) -> (N, T, D)"""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = Modulation(width, count=6)
        self.attention = Attention(width, heads)
        self.expand = nn.Linear(width, mlp_ratio * width)
        self.contract = nn.Linear(mlp_ratio * width, width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)[:, :, None]
        x = x + gate1 * self.attention(modulate(self.norm1(x), shift1, scale1))
        h = self.expand(modulate(self.norm2(x), shift2, scale2))
        return x + gate2 * self.contract(F.gelu(h, approximate="tanh"))


class SkipBlock(nn.Module):
    """Joins what an earlier block gave, then a block: (N, T, D), (N, T, D), (N, D) -> (N, T, D)"""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.fuse = nn.Linear(2 * width, width)
        self.block = Block(width, heads, mlp_ratio)

    def forward(self, x: Tensor, kept: Tensor, c: Tensor) -> Tensor:
        return self.block(self.fuse(torch.cat([x, kept], dim=2)), c)


class DiT(nn.Module):
    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        task.require_multiple(config.patch, "patch")
        self.patch = config.patch
        self.grid = (task.height // config.patch, task.width // config.patch)
        self.drop = LabelDropout(task.num_classes)
        self.condition = Condition(config.width, task.num_classes)
        self.embed = nn.Conv2d(task.in_channels, config.width, config.patch, stride=config.patch)
        # a parameter, as released, so that it counts among the parameters; never trained
        self.positions = nn.Parameter(position_table(*self.grid, config.width).float(), requires_grad=False)
        sizes = (config.width, config.heads, config.mlp_ratio)
        self.blocks = nn.ModuleList(Block(*sizes) for _ in range(config.depth - config.skips))
        self.skip_blocks = nn.ModuleList(SkipBlock(*sizes) for _ in range(config.skips))
        self.head = PatchHead(config.width, config.patch, task.out_channels)
        self._initialise()

    def _initialise(self) -> None:
        initialise(self)
        initialise_flat(self.embed)
        zero(self.head.modulation.linear, self.head.linear)
        for module in self.modules():
            if isinstance(module, Block):
                zero(module.modulation.linear)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        c = self.condition(t, self.drop(y))  # (N, D)
        x = self.embed(x).flatten(2).transpose(1, 2) + self.positions  # (N, T, D)
        kept: list[Tensor] = []
        for block in self.blocks:
            x = block(x, c)
            if len(kept) < len(self.skip_blocks):
                kept.append(x)
        for block in self.skip_blocks:
            x = block(x, kept.pop(), c)
        x = self.head(x, c)  # (N, T, P*P*C_out)
        return unpatchify(x, self.grid, self.patch)  # (N, C_out, H, W)


_SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}  # Table 1

VARIANTS: dict[str, Factory] = {
    f"DiT-{size}/{patch}": partial(DiT, Config(width=width, depth=depth, heads=heads, patch=patch))
    for size, (width, depth, heads) in _SIZES.items()
    for patch in (2, 4, 8)
}

ABLATIONS: dict[str, Factory] = {
    "DiT-S/2@skip": partial(DiT, Config(width=384, depth=12, heads=6, patch=2, skips=5)),
}

# From our names to those in the released checkpoints: regular expressions, each applied in this order.
# This way round, so that a key missing from a checkpoint can be named as its authors call it.
OFFICIAL: Renames = (
    (r"^positions$", "pos_embed"),
    (r"^embed\.", "x_embedder.proj."),
    (r"^condition\.time1\.", "t_embedder.mlp.0."),
    (r"^condition\.time2\.", "t_embedder.mlp.2."),
    (r"^condition\.labels\.", "y_embedder.embedding_table."),
    (r"^head\.", "final_layer."),
    (r"\.modulation\.linear\.", ".adaLN_modulation.1."),
    (r"\.attention\.qkv\.", ".attn.qkv."),
    (r"\.attention\.project\.", ".attn.proj."),
    (r"\.expand\.", ".mlp.fc1."),
    (r"\.contract\.", ".mlp.fc2."),
)
