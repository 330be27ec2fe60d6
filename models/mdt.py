"""MDT and MDTv2: DiT's blocks with a relative position bias, and positions added again before the decoder.

Source: arXiv:2303.14389, version 1 (MDT) and the later MDTv2; sizes and decoder depths from its commands.
Letters: N batch, C latent channels, H and W latent sides, P patch side, T tokens (H/P * W/P), D width.

This is the pass without masking, which sampling uses, and one of the two passes of a train step. The mask
token and the side block, which fill in removed tokens in the masked pass, exist because checkpoints hold
them; nothing in this pass reads them. As released without a mask ratio, the mask token is zero and not
trained.

Position tables and biases are learned, so a model works at the latent size that it was built for only.
Guidance that grows over sampling, as in the releases, belongs to the sampler and is not here.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from models.arithmetic import Terms
from models.family import Factory, Family, Renames
from models.layers.conditions import Condition, LabelDropout
from models.layers.initialisation import initialise_adaln_zero
from models.layers.transformer import (
    BLOCK_KEYS,
    DIT_KEYS,
    PatchHead,
    SkipTransformerBlock,
    TransformerBlock,
    position_table,
    unpatchify,
)
from models.task import LATENTS, Task


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
    """The parts of both versions; each adds its own encoder and decoder."""

    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        self.config, self.grid = config, task.grid(config.patch)
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
        initialise_adaln_zero(self, self.embed, self.head.linear)
        for module in self.modules():
            if isinstance(module, BiasedAttention):
                nn.init.trunc_normal_(module.bias, std=0.02)

    @staticmethod
    def _count_blocks(terms: Terms, config: Config, task: Task, blocks: int) -> int:
        """Everything but the skips; returns the tokens."""
        width = config.width
        terms.condition(width)
        tokens = terms.patch_embedding(task, width, config.patch)
        for _ in range(blocks):
            terms.adaptive(tokens, width)
            terms.attention_projections(tokens, width)
            terms.attention(tokens, tokens, width)
            terms.elementwise("scaling of logits", config.heads * tokens**2)
            terms.feed_forward(tokens, width, config.mlp_ratio)
        terms.patch_head(tokens, width, config.patch**2 * task.out_channels)
        return tokens


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

    @staticmethod
    def closed_form(terms: Terms, config: Config, task: Task) -> None:
        """Add the MACs of a forward pass, attention not fused."""
        _Masked._count_blocks(terms, config, task, config.depth)


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

    @staticmethod
    def closed_form(terms: Terms, config: Config, task: Task) -> None:
        """Add the MACs of a forward pass: MDT's, with skips to half of the encoder and all of the decoder."""
        half = (config.depth - config.decoder_depth) // 2
        tokens = _Masked._count_blocks(terms, config, task, 2 * half + config.decoder_depth)
        for _ in range(half + config.decoder_depth):
            terms.join(tokens, config.width)


_SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}
_V2_DECODER_DEPTHS = {"S": 6, "B": 4, "L": 4, "XL": 4}  # B and L: the default; no command gives theirs


def _config(size: str, decoder_depth: int) -> Config:
    width, depth, heads = _SIZES[size]
    return Config(width=width, depth=depth, heads=heads, decoder_depth=decoder_depth)


VARIANTS: dict[str, Factory] = {f"MDT-{size}/2": partial(MDT, _config(size, 2)) for size in ("S", "B", "XL")}
V2_VARIANTS: dict[str, Factory] = {
    f"MDTv2-{size}/2": partial(MDTv2, _config(size, depth)) for size, depth in _V2_DECODER_DEPTHS.items()
}

OFFICIAL: Renames = (
    *DIT_KEYS,
    *BLOCK_KEYS,
    (r"^decoder_positions$", "decoder_pos_embed"),
    (r"^side\.", "sideblocks.0."),
    (r"^encoder_(in|out)\.", r"en_\1blocks."),
    (r"^decoder\.", "de_blocks."),
    (r"\.join\.", ".skip_linear."),
    (r"\.attention\.bias$", ".attn.rel_pos_bias.relative_position_bias_table"),
    (r"\.attention\.rows$", ".attn.rel_pos_bias.relative_position_index"),
)

FAMILY = Family(network=MDT, task=LATENTS, official=OFFICIAL, variants=VARIANTS)
V2 = Family(network=MDTv2, task=LATENTS, official=OFFICIAL, variants=V2_VARIANTS)
