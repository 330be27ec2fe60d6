"""DiC: a U-Net of plain 3x3 convolutions with group norms and dense long skips.

Source: "DiC: Rethinking Conv3x3 Designs in Diffusion Models", CVPR 2025; sizes from its model table.
Letters: N batch, C latent channels, H and W latent sides, D width of a level.

The release intends to zero the blocks' modulation at the start but looks for it under another name, so those
linears keep their Xavier weights and only the head starts at zero. That is reproduced here. In training the
labels dropped for the first level are dropped at the others too.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.arithmetic import Terms
from models.family import Factory, Family, Renames
from models.layers.conditions import Condition, LabelDropout
from models.layers.initialisation import initialise, initialise_flat, zero
from models.layers.modulation import Modulation, modulate
from models.layers.unet import Down, Head, Up
from models.task import LATENTS, Task

SKIP_EVERY = 3  # blocks between two long skips


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int  # of the first level; the others are 2 and 4 times as wide
    depths: tuple[int, int, int, int, int]  # blocks down, down, middle, up, up


def _group_norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, width // 4), width, eps=1e-5)


class Block(nn.Module):
    """Two normed 3x3 convolutions with a skip: (N, D_in, H, W), (N, D) -> (N, D, H, W)."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.norm0 = _group_norm(in_width)
        self.conv0 = nn.Conv2d(in_width, width, 3, padding=1)
        self.modulation = Modulation(width, count=3)
        self.norm1 = _group_norm(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.skip = nn.Identity() if in_width == width else nn.Conv2d(in_width, width, 1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        gate, scale, shift = self.modulation(c)[..., None, None]  # each (N, D, 1, 1)
        h = self.conv0(F.gelu(self.norm0(x)))
        h = self.conv1(F.gelu(modulate(self.norm1(h), shift, scale)))
        return gate * h + self.skip(x)


class DiC(nn.Module):
    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        task.require_multiple(4, "total stride")
        w1, w2, w3 = config.width, 2 * config.width, 4 * config.width

        def level(width: int, depth: int) -> nn.ModuleList:
            return nn.ModuleList(Block(width, width) for _ in range(depth))

        def decoder(width: int, depth: int) -> nn.ModuleList:
            joins = (i % SKIP_EVERY == 0 for i in range(depth))
            return nn.ModuleList(Block(2 * width if join else width, width) for join in joins)

        self.drop = LabelDropout(task.num_classes)
        self.condition1 = Condition(w1, task.num_classes)
        self.condition2 = Condition(w2, task.num_classes)
        self.condition3 = Condition(w3, task.num_classes)
        self.stem = nn.Conv2d(task.in_channels, w1, 3, padding=1)
        self.encoder1 = level(w1, config.depths[0])
        self.down1 = Down(w1, w2)
        self.encoder2 = level(w2, config.depths[1])
        self.down2 = Down(w2, w3)
        self.middle = level(w3, config.depths[2])
        self.up2 = Up(w3, w2)
        self.decoder2 = decoder(w2, config.depths[3])
        self.up1 = Up(w2, w1)
        self.decoder1 = decoder(w1, config.depths[4])
        self.out = nn.Conv2d(w1, w1, 3, padding=1)
        self.head = Head(w1, task.out_channels)
        initialise(self)
        initialise_flat(self.stem)
        zero(self.head.modulation.linear, self.head.conv)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        y = self.drop(y)
        c1 = self.condition1(t, y)  # (N, D)
        c2 = self.condition2(t, y)  # (N, 2D)
        c3 = self.condition3(t, y)  # (N, 4D)

        x, kept1 = _encode(self.encoder1, self.stem(x), c1)  # (N, D, H, W)
        x, kept2 = _encode(self.encoder2, self.down1(x), c2)  # (N, 2D, H/2, W/2)
        x = self.down2(x)  # (N, 4D, H/4, W/4)
        for block in self.middle:
            x = block(x, c3)
        x = _decode(self.decoder2, self.up2(x), c2, kept2)  # (N, 2D, H/2, W/2)
        x = _decode(self.decoder1, self.up1(x), c1, kept1)  # (N, D, H, W)
        return self.head(self.out(x), c1)  # (N, C_out, H, W)

    @staticmethod
    def closed_form(terms: Terms, config: Config, task: Task) -> None:
        width, pixels = config.width, task.height * task.width
        levels = (width, 2 * width, 4 * width, 2 * width, width)

        def block(here: int, in_width: int, out_width: int) -> None:
            terms.modulation(out_width, 3)
            terms.modulate(here, out_width)
            terms.gate(here, out_width)
            terms.res_block(here, here, in_width, out_width)

        terms.condition(*levels[:3])
        terms.unet(task, levels, (*config.depths[:3], 0, 0), lambda here, width: block(here, width, width))
        for here, width, depth in zip((pixels // 4, pixels), levels[3:], config.depths[3:], strict=True):
            for i in range(depth):
                block(here, width if i % SKIP_EVERY else 2 * width, width)
        terms.conv("head", pixels, width, width, 3)
        terms.image_head(pixels, width, task.out_channels)


def _encode(blocks: nn.ModuleList, x: Tensor, c: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Run a level and keep the output of its last block and of every third before that."""
    kept = []
    for i, block in enumerate(blocks):
        x = block(x, c)
        if (len(blocks) - 1 - i) % SKIP_EVERY == 0:
            kept.append(x)
    return x, kept


def _decode(blocks: nn.ModuleList, x: Tensor, c: Tensor, kept: list[Tensor]) -> Tensor:
    """Run a level, joining what the encoder kept, the latest first, before every third block."""
    for i, block in enumerate(blocks):
        if i % SKIP_EVERY == 0:
            x = torch.cat([x, kept.pop()], dim=1)
        x = block(x, c)
    return x


VARIANTS: dict[str, Factory] = {
    "DiC-S": partial(DiC, Config(width=96, depths=(6, 6, 5, 6, 6))),
    "DiC-B": partial(DiC, Config(width=192, depths=(6, 6, 5, 6, 6))),
    "DiC-XL": partial(DiC, Config(width=384, depths=(7, 7, 8, 7, 7))),
    "DiC-H": partial(DiC, Config(width=384, depths=(14, 14, 10, 14, 14))),
}

SMALL: dict[str, Factory] = {"DiC-Ti": partial(DiC, Config(width=16, depths=(2, 2, 2, 2, 2)))}

OFFICIAL: Renames = (
    (r"^stem\.", "x_embedder.proj."),
    *((rf"^condition{i + 1}\.labels\.", f"y_embedder_ls.{i}.embedding_table.") for i in range(3)),
    *((rf"^condition{i + 1}\.", f"t_embedder_ls.{i}.") for i in range(3)),
    (r"\.time1\.", ".mlp.0."),
    (r"\.time2\.", ".mlp.2."),
    (r"^encoder1\.(\d+)\.", r"enc_blocks.0.\1.conv."),
    (r"^encoder2\.(\d+)\.", r"enc_blocks.1.\1.conv."),
    (r"^middle\.(\d+)\.", r"lat_blocks.0.\1.conv."),
    (r"^decoder2\.(\d+)\.", r"dec_blocks.0.\1.conv."),
    (r"^decoder1\.(\d+)\.", r"dec_blocks.1.\1.conv."),
    (r"^down1\.conv\.", "downs.0.body.0."),
    (r"^down2\.conv\.", "downs.1.body.0."),
    (r"^up2\.conv\.", "ups.0.body.0."),
    (r"^up1\.conv\.", "ups.1.body.0."),
    (r"^out\.", "output."),
    (r"^head\.conv\.", "final_layer.out_proj."),
    (r"^head\.modulation\.linear\.", "final_layer.adaLN_modulation.1."),
    (r"\.modulation\.linear\.", ".affine.1."),
)

FAMILY = Family(network=DiC, task=LATENTS, official=OFFICIAL, variants=VARIANTS, small=SMALL)
