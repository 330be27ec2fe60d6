"""MDT and MDTv2: DiT's blocks with a relative position bias, positions added again before the decoder.

Source: arXiv:2303.14389, version 1 (MDT) and the later MDTv2; sizes and decoder depths from its commands.
Letters: N batch, C latent channels, H and W latent sides, P patch side, T tokens (H/P * W/P), D width.

The pass without masking: what samples, and one of the two passes of a training step. The mask token and the
side block, which fill in removed tokens in the masked pass, are here because checkpoints hold them; nothing
in this pass reads them. As released without a mask ratio, the mask token is zero and not trained.

Position tables and biases are learned, so a model is bound to the latent size that it was built for.
Guidance grows over sampling in the releases; that belongs to the sampler and is not here.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from models.layers import (
    Condition,
    LabelDropout,
    Modulation,
    PatchHead,
    SkipTransformerBlock,
    TransformerBlock,
    initialise,
    initialise_flat,
    position_table,
    unpatchify,
    zero,
)
from models.task import Factory, Renames, Task


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int
    depth: int  # encoder and decoder together
    decoder_depth: int
    heads: int
    patch: int = 2
    mlp_ratio: int = 4


def relative_rows(height: int, width: int) -> Tensor:
    """Row of the bias table for each query (down) and key (across): (T, T), from 0 to (2H-1)(2W-1) - 1."""
    row = torch.arange(height).repeat_interleave(width)
    column = torch.arange(width).repeat(height)
    down = row[:, None] - row + height - 1
    across = column[:, None] - column + width - 1
    return down * (2 * width - 1) + across


class BiasedAttention(nn.Module):
    """Attention with a learned bias for every offset between two patches: (N, T, D) -> (N, T, D).

    Not fused, as released: the scaling of the logits counts among the MACs.
    """

    unused = 3  # rows at the table's end, left over from a class token

    def __init__(self, width: int, heads: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        offsets = (2 * grid[0] - 1) * (2 * grid[1] - 1)
        self.bias = nn.Parameter(torch.empty(offsets + self.unused, heads))
        self.rows: Tensor
        self.register_buffer("rows", relative_rows(*grid))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (N, heads, T, d)
        logits = q @ k.transpose(2, 3) * self.scale + self.bias[self.rows].permute(2, 0, 1)
        return self.project((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))


class _Masked(nn.Module):
    """What both versions are built from; each then makes its own encoder and decoder."""

    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        task.require_multiple(config.patch, "patch")
        self.config = config
        self.grid = (task.height // config.patch, task.width // config.patch)
        self.drop = LabelDropout(task.num_classes)
        self.condition = Condition(config.width, task.num_classes)
        self.embed = nn.Conv2d(task.in_channels, config.width, config.patch, stride=config.patch)
        positions = position_table(*self.grid, config.width).float()
        self.positions = nn.Parameter(positions)
        self.decoder_positions = nn.Parameter(positions.clone())
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.width), requires_grad=False)
        self.side = self._block(TransformerBlock)
        self.head = PatchHead(config.width, config.patch, task.out_channels)

    def _block(self, kind: type[TransformerBlock]) -> TransformerBlock:
        config = self.config
        attention = BiasedAttention(config.width, config.heads, self.grid)
        return kind(config.width, config.mlp_ratio, attention)

    def _initialise(self) -> None:
        initialise(self)
        initialise_flat(self.embed)
        zero(self.head.linear)
        for module in self.modules():
            if isinstance(module, Modulation):
                zero(module.linear)
            if isinstance(module, BiasedAttention):
                nn.init.trunc_normal_(module.bias, std=0.02)


class MDT(_Masked):
    def __init__(self, config: Config, task: Task) -> None:
        super().__init__(config, task)
        self.blocks = nn.ModuleList(self._block(TransformerBlock) for _ in range(config.depth))
        self._initialise()

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        c = self.condition(t, self.drop(y))  # (N, D)
        x = self.embed(x).flatten(2).transpose(1, 2) + self.positions  # (N, T, D)
        for i, block in enumerate(self.blocks):
            if i == self.config.depth - self.config.decoder_depth:
                x = x + self.decoder_positions
            x = block(x, c)
        return unpatchify(self.head(x, c), self.grid, self.config.patch)  # (N, C_out, H, W)


class MDTv2(_Masked):
    def __init__(self, config: Config, task: Task) -> None:
        super().__init__(config, task)
        half = (config.depth - config.decoder_depth) // 2
        self.encoder_in = nn.ModuleList(self._block(TransformerBlock) for _ in range(half))
        self.encoder_out = nn.ModuleList(self._block(SkipTransformerBlock) for _ in range(half))
        self.decoder = nn.ModuleList(self._block(SkipTransformerBlock) for _ in range(config.decoder_depth))
        self._initialise()

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        c = self.condition(t, self.drop(y))  # (N, D)
        embedded = self.embed(x).flatten(2).transpose(1, 2) + self.positions  # (N, T, D)

        x, skips = embedded, []
        for block in self.encoder_in:
            x = block(x, c)
            skips.append(x)
        for block in self.encoder_out:
            x = block(x, skips.pop(), c)
        x = x + self.decoder_positions
        for block in self.decoder:
            x = block(x, embedded, c)
        return unpatchify(self.head(x, c), self.grid, self.config.patch)  # (N, C_out, H, W)


_SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}
_V2_DECODER_DEPTHS = {"S": 6, "B": 4, "L": 4, "XL": 4}  # B and L: the default, assumed; no command names them


def _config(size: str, decoder_depth: int) -> Config:
    width, depth, heads = _SIZES[size]
    return Config(width=width, depth=depth, heads=heads, decoder_depth=decoder_depth)


VARIANTS: dict[str, Factory] = {f"MDT-{size}/2": partial(MDT, _config(size, 2)) for size in ("S", "B", "XL")}
V2_VARIANTS: dict[str, Factory] = {
    f"MDTv2-{size}/2": partial(MDTv2, _config(size, depth)) for size, depth in _V2_DECODER_DEPTHS.items()
}

# From our names to those in the released checkpoints: regular expressions, each applied in this order.
# This way round, so that a key missing from a checkpoint can be named as its authors call it.
OFFICIAL: Renames = (
    (r"^positions$", "pos_embed"),
    (r"^decoder_positions$", "decoder_pos_embed"),
    (r"^embed\.", "x_embedder.proj."),
    (r"^condition\.time1\.", "t_embedder.mlp.0."),
    (r"^condition\.time2\.", "t_embedder.mlp.2."),
    (r"^condition\.labels\.", "y_embedder.embedding_table."),
    (r"^side\.", "sideblocks.0."),
    (r"^encoder_(in|out)\.", r"en_\1blocks."),
    (r"^decoder\.", "de_blocks."),
    (r"^head\.", "final_layer."),
    (r"\.modulation\.linear\.", ".adaLN_modulation.1."),
    (r"\.join\.", ".skip_linear."),
    (r"\.attention\.qkv\.", ".attn.qkv."),
    (r"\.attention\.project\.", ".attn.proj."),
    (r"\.attention\.bias$", ".attn.rel_pos_bias.relative_position_bias_table"),
    (r"\.attention\.rows$", ".attn.rel_pos_bias.relative_position_index"),
    (r"\.expand\.", ".mlp.fc1."),
    (r"\.contract\.", ".mlp.fc2."),
)
