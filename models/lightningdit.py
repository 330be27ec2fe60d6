"""LightningDiT: DiT's shell with RMS norms, a gated feed-forward and rotary positions, on deep latents.

Source: arXiv:2501.01423; sizes as released, every one with RMS norms, SwiGLU and rotary embeddings.
Letters: N batch, C latent channels, H and W latent sides, P patch side, T tokens (H/P * W/P), D width.

The output is a velocity, data - noise; t is a float from 0 (noise) to 1 (data), embedded unscaled. The fixed
table of positions is added although the attention turns by position too. Sizes at patch 1 were published for
f16d32, those at patch 2 are paired with sd-f8 here: the network takes any latent.
"""

from dataclasses import dataclass, replace
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from models.arithmetic import Terms
from models.family import Factory, Family, Renames
from models.layers.conditions import Condition, LabelDropout
from models.layers.initialisation import initialise_adaln_zero, zero_modulations
from models.layers.rms import PackedSwiGLU, RMSNorm
from models.layers.rms_transformer import RMS_BLOCK_KEYS, RMSBlock, RotaryAttention, count_block
from models.layers.rotary import Rotary, grid_angles, paired, turn
from models.layers.transformer import DIT_KEYS, PatchHead, fixed_positions, unpatchify
from models.task import F16D32_FLOW, LATENTS_FLOW, Task


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int
    depth: int
    heads: int
    patch: int
    qk_norm: bool = False  # an option of the release

    @property
    def hidden(self) -> int:
        """Inner width of the feed-forward: two thirds of DiT's, which has one projection less."""
        return int(2 / 3 * 4 * self.width)


class LightningDiT(nn.Module):
    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        self.patch, self.grid = config.patch, task.grid(config.patch)
        self.drop = LabelDropout(task.num_classes)
        self.condition = Condition(config.width, task.num_classes)
        self.embed = nn.Conv2d(task.in_channels, config.width, config.patch, stride=config.patch)
        self.positions = fixed_positions(self.grid, config.width)
        angles = partial(grid_angles, *self.grid, config.width // config.heads)
        self.rotary = Rotary(partial(paired, angles), stored=True)
        self.blocks = nn.ModuleList(
            RMSBlock(
                config.width,
                RotaryAttention(config.width, config.heads, turn, qk_norm=config.qk_norm),
                PackedSwiGLU(config.width, config.hidden),
            )
            for _ in range(config.depth)
        )
        self.head = PatchHead(config.width, config.patch, task.out_channels, RMSNorm(config.width))
        initialise_adaln_zero(self, self.embed, self.head.linear)
        zero_modulations(self.blocks)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        c = self.condition(t, self.drop(y))  # (N, D)
        x = self.embed(x).flatten(2).transpose(1, 2) + self.positions  # (N, T, D)
        for block in self.blocks:
            x = block(x, F.silu(c)[:, None], self.rotary.cosines, self.rotary.sines)
        return unpatchify(self.head(x, c), self.grid, self.patch)  # (N, C_out, H, W)

    @staticmethod
    def closed_form(terms: Terms, config: Config, task: Task) -> None:
        width = config.width
        terms.condition(width)
        tokens = terms.patch_embedding(task, width, config.patch)
        for _ in range(config.depth):
            count_block(terms, tokens, width, config.hidden, config.heads, qk_norm=config.qk_norm)
        terms.rms_norm(tokens, width)
        terms.patch_head(tokens, width, config.patch**2 * task.out_channels)


_SIZES = {
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
    "XL": (1152, 28, 16),
    "1p0B": (1536, 24, 24),
    "1p6B": (1792, 28, 28),
}
_CONFIGS = {
    f"LightningDiT-{size}/{patch}": Config(width=width, depth=depth, heads=heads, patch=patch)
    for size, (width, depth, heads) in _SIZES.items()
    for patch in (1, 2)
    if (size, patch) != ("L", 1)  # the release has none
}
VARIANTS: dict[str, Factory] = {name: partial(LightningDiT, config) for name, config in _CONFIGS.items()}
ABLATIONS: dict[str, Factory] = {
    "LightningDiT-B/1@qknorm": partial(LightningDiT, replace(_CONFIGS["LightningDiT-B/1"], qk_norm=True)),
}
SMALL: dict[str, Factory] = {
    "LightningDiT-Ti/2": partial(LightningDiT, Config(width=72, depth=4, heads=3, patch=2)),
}

OFFICIAL: Renames = (
    (r"^rotary\.cosines$", "feat_rope.freqs_cos"),
    (r"^rotary\.sines$", "feat_rope.freqs_sin"),
    (r"^head\.norm\.", "final_layer.norm_final."),
    *DIT_KEYS,
    (r"\.modulation\.", ".adaLN_modulation.1."),
    *RMS_BLOCK_KEYS,
)

FAMILY = Family(
    network=LightningDiT,
    task=LATENTS_FLOW,
    tasks={name: F16D32_FLOW for name in VARIANTS if name.endswith("/1")},
    official=OFFICIAL,
    variants=VARIANTS,
    ablations=ABLATIONS,
    small=SMALL,
)
