"""DiT: a transformer over patches with zero-initialised adaptive layer norm; also SiT and FasterDiT.

Source: arXiv:2212.09748; sizes from its Table 1, the S, B, L and XL at patches 2, 4 and 8.
Letters: N batch, C latent channels, H and W latent sides, P patch side, T tokens (H/P * W/P), D width.

SiT (arXiv:2401.08740) is this network with the same keys and shapes. Differences:

- the head still makes 2C channels, but only the first C are returned: it was published without a variance;
- the output is a velocity, data - noise, where x is t * data + (1 - t) * noise;
- t is a float in [0, 1], noise at 0 and data at 1, and is embedded unscaled.

FasterDiT (arXiv:2410.10356) changes the training of DiT-XL/2 and, by its title, not the architecture. No
checkpoint of it was read: that its calls and its spare channels are SiT's is our reading.

Long skips are DiCo's ablation (arXiv:2505.11196, Table 3). Its printed parameters and MACs are those of five
skips, each joined by a linear layer from 2D to D with bias. That the outputs of the first five blocks go to
the last five, the latest first, is our reading.
"""

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from models.arithmetic import Terms
from models.family import Factory, Family, Renames
from models.layers.conditions import Condition, LabelDropout
from models.layers.initialisation import initialise_adaln_zero
from models.layers.transformer import (
    BLOCK_KEYS,
    DIT_KEYS,
    Attention,
    PatchHead,
    SkipTransformerBlock,
    TransformerBlock,
    fixed_positions,
    unpatchify,
)
from models.task import LATENTS, LATENTS_FLOW, Task


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int
    depth: int
    heads: int
    patch: int
    mlp_ratio: int = 4
    skips: int = 0  # from this many first blocks to as many last ones
    spare_variance: bool = False  # SiT: the head makes 2C channels even if the task asks for C


class DiT(nn.Module):
    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        self.patch, self.grid = config.patch, task.grid(config.patch)
        self.drop = LabelDropout(task.num_classes)
        self.condition = Condition(config.width, task.num_classes)
        self.embed = nn.Conv2d(task.in_channels, config.width, config.patch, stride=config.patch)
        self.positions = fixed_positions(self.grid, config.width)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.width, config.mlp_ratio, Attention(config.width, config.heads))
            for _ in range(config.depth - config.skips)
        )
        self.skip_blocks = nn.ModuleList(
            SkipTransformerBlock(config.width, config.mlp_ratio, Attention(config.width, config.heads))
            for _ in range(config.skips)
        )
        self.out_channels = task.out_channels
        self.head = PatchHead(config.width, config.patch, _head_channels(config, task))
        initialise_adaln_zero(self, self.embed, self.head.linear)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        c = self.condition(t, self.drop(y))  # (N, D)
        x = self.embed(x).flatten(2).transpose(1, 2) + self.positions  # (N, T, D)
        skips: list[Tensor] = []
        for block in self.blocks:
            x = block(x, c)
            if len(skips) < len(self.skip_blocks):
                skips.append(x)
        for block in self.skip_blocks:
            x = block(x, skips.pop(), c)
        x = unpatchify(self.head(x, c), self.grid, self.patch)
        return x[:, : self.out_channels]  # (N, C_out, H, W)

    @staticmethod
    def closed_form(terms: Terms, config: Config, task: Task) -> None:
        width = config.width
        terms.condition(width)
        tokens = terms.patch_embedding(task, width, config.patch)
        for _ in range(config.depth):
            terms.adaptive(tokens, width)
            terms.self_attention(tokens, width)
            terms.feed_forward(tokens, width, config.mlp_ratio)
        for _ in range(config.skips):
            terms.join(tokens, width)
        terms.patch_head(tokens, width, config.patch**2 * _head_channels(config, task))


def _head_channels(config: Config, task: Task) -> int:
    return 2 * task.in_channels if config.spare_variance else task.out_channels


_SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}  # Table 1

VARIANTS: dict[str, Factory] = {
    f"DiT-{size}/{patch}": partial(DiT, Config(width=width, depth=depth, heads=heads, patch=patch))
    for size, (width, depth, heads) in _SIZES.items()
    for patch in (2, 4, 8)
}
SIT_VARIANTS: dict[str, Factory] = {
    f"SiT-{size}/2": partial(DiT, Config(width=width, depth=depth, heads=heads, patch=2, spare_variance=True))
    for size, (width, depth, heads) in _SIZES.items()
}
ABLATIONS: dict[str, Factory] = {
    "DiT-S/2@skip": partial(DiT, Config(width=384, depth=12, heads=6, patch=2, skips=5)),
}
SMALL: dict[str, Factory] = {"DiT-Ti/2": partial(DiT, Config(width=72, depth=4, heads=3, patch=2))}

OFFICIAL: Renames = (*DIT_KEYS, *BLOCK_KEYS)

FAMILY = Family(
    network=DiT, task=LATENTS, official=OFFICIAL, variants=VARIANTS, ablations=ABLATIONS, small=SMALL
)
SIT = Family(network=DiT, task=LATENTS_FLOW, official=OFFICIAL, variants=SIT_VARIANTS)
FASTERDIT = Family(
    network=DiT,
    task=LATENTS_FLOW,
    official=OFFICIAL,
    variants={"FasterDiT-XL/2": SIT_VARIANTS["SiT-XL/2"]},
)
