"""DiT: a transformer over patches with zero-initialised adaptive layer norm. SiT and FasterDiT too.

Source: arXiv:2212.09748; sizes from its Table 1, the S, B, L and XL at patches 2, 4 and 8.
Letters: N batch, C latent channels, H and W latent sides, P patch side, T tokens (H/P * W/P), D width.

SiT (arXiv:2401.08740) is this network, key for key and shape for shape. What differs:

- the projection still makes 2C channels, but only the first C come out: published without a variance;
- the output is a velocity, data - noise, where x is t * data + (1 - t) * noise;
- t is a float in [0, 1], noise at 0 and data at 1, and is embedded unscaled.

FasterDiT (arXiv:2410.10356) changes the training of DiT-XL/2 and, by its title, not the architecture. No
checkpoint of it was read: that its calls and its spare channels are SiT's is our reading.

Long skips are DiCo's ablation (arXiv:2505.11196, Table 3): its printed parameters and MACs are those of five,
each joined by a linear layer from 2D to D with bias. That the five first blocks' outputs go to the five last
blocks, the latest first, is our reading.
"""

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from models.layers import (
    Attention,
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
    depth: int
    heads: int
    patch: int
    mlp_ratio: int = 4
    skips: int = 0  # from so many first blocks to as many last ones
    spare_variance: bool = False  # SiT: 2C channels are made although the task may ask for C of them


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
        self.blocks = nn.ModuleList(
            TransformerBlock(config.width, config.mlp_ratio, Attention(config.width, config.heads))
            for _ in range(config.depth - config.skips)
        )
        self.skip_blocks = nn.ModuleList(
            SkipTransformerBlock(config.width, config.mlp_ratio, Attention(config.width, config.heads))
            for _ in range(config.skips)
        )
        self.out_channels = task.out_channels
        made = 2 * task.in_channels if config.spare_variance else task.out_channels
        self.head = PatchHead(config.width, config.patch, made)
        self._initialise()

    def _initialise(self) -> None:
        initialise(self)
        initialise_flat(self.embed)
        zero(self.head.linear)
        for module in self.modules():
            if isinstance(module, Modulation):
                zero(module.linear)

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
        x = unpatchify(self.head(x, c), self.grid, self.patch)
        return x[:, : self.out_channels]  # (N, C_out, H, W)


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
FASTERDIT_VARIANTS: dict[str, Factory] = {"FasterDiT-XL/2": SIT_VARIANTS["SiT-XL/2"]}

# Ours, in no paper: models/registry.py says what the Ti sizes have in common
SMALL: dict[str, Factory] = {"DiT-Ti/2": partial(DiT, Config(width=72, depth=4, heads=3, patch=2))}

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
