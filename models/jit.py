"""JiT: a plain transformer on pixels that predicts the image, with the label as tokens from its middle on.

Source: arXiv:2511.13720; B, L and H as released, at patch 16 for 256 px and at patch 32 for 512 px.
Letters: N batch, C channels of an image, H and W its sides, P patch side, T tokens (H/P * W/P), D width,
L label tokens, B channels of the bottleneck.

The output is the clean image; t is a float from 0 (noise) to 1 (data), embedded unscaled. Attention is step
by step, with logits and softmax in float32, as in the release; `@fused` is one operator in the type of its
inputs, which is ours. The release drops labels outside of the network.
"""

from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.arithmetic import Terms
from models.family import Factory, Family, Renames
from models.layers.conditions import Condition, LabelDropout
from models.layers.initialisation import initialise_adaln_zero, zero_modulations
from models.layers.rms import PackedSwiGLU, RMSNorm
from models.layers.rms_transformer import (
    RMS_BLOCK_KEYS,
    RMSBlock,
    RotaryAttention,
    attend_fused,
    attend_in_float32,
    count_block,
)
from models.layers.rotary import Rotary, grid_angles, paired, turn
from models.layers.transformer import DIT_KEYS, PatchHead, fixed_positions, unpatchify
from models.task import PIXELS_X, Task


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int
    depth: int
    heads: int
    patch: int
    bottleneck: int  # B
    label_start: int  # the block before which the label tokens enter
    label_tokens: int = 32  # L
    dropout: float = 0.0  # in the middle half of the blocks
    fused: bool = False  # attention as one operator

    @property
    def hidden(self) -> int:
        """Inner width of the feed-forward."""
        return int(4 * self.width * 2 / 3)


class JiT(nn.Module):
    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        width, labels = config.width, config.label_tokens
        self.patch, self.grid = config.patch, task.grid(config.patch)
        self.label_start, self.label_tokens = config.label_start, labels
        self.drop = LabelDropout(task.num_classes)
        self.condition = Condition(width, task.num_classes)
        self.embed = nn.Conv2d(task.in_channels, config.bottleneck, config.patch, config.patch, bias=False)
        self.widen = nn.Conv2d(config.bottleneck, width, 1)
        self.positions = fixed_positions(self.grid, width)
        self.label_positions = nn.Parameter(torch.empty(1, labels, width))
        angles = partial(grid_angles, *self.grid, width // config.heads)
        self.rotary = Rotary(partial(paired, angles, labels))  # label tokens do not turn
        quarter = config.depth // 4
        self.blocks = nn.ModuleList(
            _block(config, config.dropout if quarter <= i < 3 * quarter else 0.0) for i in range(config.depth)
        )
        self.head = PatchHead(width, config.patch, task.out_channels, RMSNorm(width))
        initialise_adaln_zero(self, self.embed, self.head.linear)
        zero_modulations(self.blocks)
        nn.init.normal_(self.label_positions, std=0.02)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        label = self.condition.labels(self.drop(y))  # (N, D)
        c = self.condition.time(t) + label
        x = self.widen(self.embed(x)).flatten(2).transpose(1, 2) + self.positions  # (N, T, D)

        activated = F.silu(c)[:, None]
        cosines, sines = self.rotary.cosines, self.rotary.sines  # each (L + T, d)
        for block in self.blocks[: self.label_start]:
            x = block(x, activated, cosines[self.label_tokens :], sines[self.label_tokens :])
        x = torch.cat([label[:, None] + self.label_positions, x], dim=1)  # (N, L + T, D)
        for block in self.blocks[self.label_start :]:
            x = block(x, activated, cosines, sines)
        return unpatchify(self.head(x[:, self.label_tokens :], c), self.grid, self.patch)  # (N, C_out, H, W)

    @staticmethod
    def closed_form(terms: Terms, config: Config, task: Task) -> None:
        width = config.width
        terms.condition(width)
        patches = terms.patch_embedding(task, config.bottleneck, config.patch)
        terms.linear("patch embedding", patches, config.bottleneck, width)
        for block in range(config.depth):
            tokens = patches + config.label_tokens * (block >= config.label_start)
            count_block(terms, tokens, width, config.hidden, config.heads, fused=config.fused)
        terms.rms_norm(patches, width)
        terms.patch_head(patches, width, config.patch**2 * task.out_channels)


def _block(config: Config, dropout: float) -> RMSBlock:
    attend = attend_fused if config.fused else attend_in_float32
    return RMSBlock(
        config.width,
        RotaryAttention(config.width, config.heads, turn, attend=attend, dropout=dropout),
        PackedSwiGLU(config.width, config.hidden, dropout),
    )


_B = partial(Config, width=768, depth=12, heads=12, bottleneck=128, label_start=4)
_L = partial(Config, width=1024, depth=24, heads=16, bottleneck=128, label_start=8)
_H = partial(Config, width=1280, depth=32, heads=16, bottleneck=256, label_start=10, dropout=0.2)
_CONFIGS = {
    f"JiT-{size}/{patch}": config(patch=patch)
    for size, config in {"B": _B, "L": _L, "H": _H}.items()
    for patch in (16, 32)
}

VARIANTS: dict[str, Factory] = {name: partial(JiT, config) for name, config in _CONFIGS.items()}
ABLATIONS: dict[str, Factory] = {
    f"{name}@fused": partial(JiT, replace(config, fused=True)) for name, config in _CONFIGS.items()
}
SMALL: dict[str, Factory] = {
    "JiT-Ti/2": partial(
        JiT,
        Config(width=72, depth=4, heads=3, patch=2, bottleneck=16, label_start=2, label_tokens=2),
    ),
}

OFFICIAL: Renames = (
    (r"^label_positions$", "in_context_posemb"),
    (r"^embed\.", "x_embedder.proj1."),
    (r"^widen\.", "x_embedder.proj2."),
    (r"^head\.norm\.", "final_layer.norm_final."),
    *DIT_KEYS,
    (r"\.modulation\.", ".adaLN_modulation.1."),
    *RMS_BLOCK_KEYS,
)

FAMILY = Family(
    network=JiT,
    task=PIXELS_X,
    tasks={name: PIXELS_X.at(512, 512) for name in VARIANTS if name.endswith("/32")},
    official=OFFICIAL,
    variants=VARIANTS,
    ablations=ABLATIONS,
    small=SMALL,
)
