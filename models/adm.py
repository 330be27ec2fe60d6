"""ADM: a U-Net on pixels with attention at its coarse levels, conditioned by scale and shift in each block.

Source: arXiv:2105.05233; sizes as released: four networks that denoise images, and two upsamplers.
Letters: N batch, C channels of an image, H and W its sides, D width of a level, E width of the condition,
T tokens (H * W), d width of a head.

The network is convolutional: at a side other than that in its name the same levels attend, so their cost
grows with the square of the pixels. There is no null class: ADM is
guided by a classifier.

An upsampler's input x holds the noisy image, then the small image at full size, made by `with_low_res`;
Task.given_channels are those of the small one.

ADM-U in the papers' tables is two networks: a base, then an upsampler of its samples, each with its own
timesteps. A call of ADM-U here is one of each, for the sums of parameters, MACs and times that the tables
print; no sampler takes such a step.
"""

from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.arithmetic import MEANS, Terms
from models.family import Factory, Family, Renames
from models.layers.conditions import TimeEmbedding
from models.layers.initialisation import zero
from models.layers.stepped_unet import STEPPED_KEYS, ResBlock, SteppedUNet
from models.task import PIXELS, Task

SCALE = 4  # sides of an upsampler's image / those of its base


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int
    multipliers: tuple[float, ...]  # of the width, for each level
    depth: int  # blocks a level on the way down
    attended: tuple[int, ...]  # levels with attention, from 0; level l has sides H / 2^l
    heads: int | None = None  # by default one per 64 channels
    by_head: bool = True  # the rows of qkv go head by head; otherwise all q, all k, all v
    dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class CascadeConfig:
    base: Config
    upsampler: Config

    def base_task(self, task: Task) -> Task:
        task.require_multiple(SCALE, "scale of the upsampler")
        return replace(task, latent_size=(task.height // SCALE, task.width // SCALE))

    def upsampler_task(self, task: Task) -> Task:
        return replace(task, in_channels=2 * task.in_channels, given_channels=task.in_channels)


class ScaleShiftNorm(nn.Module):
    """Group norm scaled and shifted by the condition: (N, D, H, W), (N, E) -> (N, D, H, W)."""

    def __init__(self, width: int, condition_width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(condition_width, 2 * width)
        self.norm = nn.GroupNorm(32, width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        scale, shift = self.linear(F.silu(c))[..., None, None].chunk(2, dim=1)  # each (N, D, 1, 1)
        return self.norm(x) * (1 + scale) + shift


class Attention(nn.Module):
    """Attention over pixels: (N, D, H, W) and a condition, which is not read -> (N, D, H, W)."""

    def __init__(self, width: int, heads: int, by_head: bool) -> None:
        super().__init__()
        self.split = (heads, 3, -1) if by_head else (3, heads, -1)
        self.split_dim = 3 if by_head else 2
        self.norm = nn.GroupNorm(32, width)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.project = nn.Conv1d(width, width, 1)
        zero(self.project)

    def forward(self, x: Tensor, _c: Tensor) -> Tensor:
        h = self.qkv(self.norm(x).flatten(2))  # (N, 3D, T)
        # fused attention needs the channels of a head adjacent in memory
        h = h.transpose(1, 2).contiguous().unflatten(2, self.split)  # (N, T, heads and 3 in either order, d)
        q, k, v = (part.transpose(1, 2) for part in h.unbind(self.split_dim))  # each (N, heads, T, d)
        root = q.shape[-1] ** -0.25
        h = F.scaled_dot_product_attention(q * root, k * root, v, scale=1.0)
        return x + self.project(h.transpose(2, 3).flatten(1, 2)).view_as(x)


def halve(x: Tensor) -> Tensor:
    """Average of each 2 x 2: (N, D, H, W) -> (N, D, H/2, W/2)."""
    return F.avg_pool2d(x, 2)


def double(x: Tensor) -> Tensor:
    """Each pixel four times: (N, D, H, W) -> (N, D, 2H, 2W)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class ADM(nn.Module):
    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        levels = len(config.multipliers)
        task.require_multiple(2 ** (levels - 1), "total stride")
        widths = [int(config.width * multiplier) for multiplier in config.multipliers]
        embedded = 4 * config.width

        def block(width: int, out_width: int) -> ResBlock:
            norm = ScaleShiftNorm(out_width, embedded)
            return ResBlock(width, out_width, norm, dropout=config.dropout)

        def down(width: int) -> ResBlock:
            return ResBlock(width, width, ScaleShiftNorm(width, embedded), halve, config.dropout)

        def up(width: int) -> ResBlock:
            return ResBlock(width, width, ScaleShiftNorm(width, embedded), double, config.dropout)

        def attention(width: int) -> Attention:
            return Attention(width, config.heads or width // 64, config.by_head)

        self.time = TimeEmbedding(config.width, embedded)
        self.labels = nn.Embedding(task.num_classes, embedded)
        self.stem = nn.Conv2d(task.in_channels, widths[0], 3, padding=1)
        self.unet = SteppedUNet(widths, config.depth, config.attended, block, attention, down, up)
        self.norm = nn.GroupNorm(32, widths[0])
        self.head = nn.Conv2d(widths[0], task.out_channels, 3, padding=1)
        zero(self.head)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        c = self.time(t) + self.labels(y)  # (N, E)
        x = self.unet(self.stem(x), c)  # (N, D, H, W)
        return self.head(F.silu(self.norm(x)))  # (N, C_out, H, W)

    @staticmethod
    def closed_form(terms: Terms, config: Config, task: Task) -> None:
        embedded = 4 * config.width

        def block(before: int, here: int, width: int, out_width: int) -> None:
            terms.res_block(before, here, width, out_width)
            terms.linear("scale and shift", 1, embedded, 2 * out_width)
            terms.modulate(here, out_width)

        def attention(here: int, width: int) -> None:
            terms.affine_norm(here, width)
            terms.attention_projections(here, width)
            terms.elementwise("scaling of queries", 2 * here * width)  # and keys, before the fused operator
            terms.attention(here, here, width)

        def down(here: int, width: int) -> None:
            terms.elementwise(MEANS, 2 * (here // 4) * width)
            block(here, here // 4, width, width)

        terms.time_embedding(config.width, embedded, embedded)
        terms.stepped_unet(
            task,
            [int(config.width * multiplier) for multiplier in config.multipliers],
            config.depth,
            config.attended,
            block=lambda here, width, out_width: block(here, here, width, out_width),
            attention=attention,
            down=down,
            up=lambda here, width: block(here, 4 * here, width, width),
        )


def with_low_res(x: Tensor, low_res: Tensor) -> Tensor:
    """An upsampler's input: the noisy image, then the small one resized bilinearly to its sides.

    (N, C, H, W), (N, C, h, w) -> (N, 2C, H, W)
    """
    resized = F.interpolate(low_res, x.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([x, resized], dim=1)


class Cascade(nn.Module):
    """One call of a base, on every fourth pixel, and one of its upsampler: what the papers call ADM-U."""

    def __init__(self, config: CascadeConfig, task: Task) -> None:
        super().__init__()
        self.base = ADM(config.base, config.base_task(task))
        self.upsampler = ADM(config.upsampler, config.upsampler_task(task))

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        small = self.base(x[:, :, ::SCALE, ::SCALE], t, y)  # (N, C_out, H/4, W/4)
        return self.upsampler(with_low_res(x, small[:, : x.shape[1]]), t, y)  # (N, C_out, H, W)

    @staticmethod
    def closed_form(terms: Terms, config: CascadeConfig, task: Task) -> None:
        """Add the MACs of both parts, term by term."""
        ADM.closed_form(terms, config.base, config.base_task(task))
        terms.elementwise("resizing", 4 * task.in_channels * task.height * task.width)
        ADM.closed_form(terms, config.upsampler, config.upsampler_task(task))


_CONFIGS = {
    "ADM-64": Config(
        width=192, multipliers=(1, 2, 3, 4), depth=3, attended=(1, 2, 3), by_head=False, dropout=0.1
    ),
    "ADM-128": Config(width=256, multipliers=(1, 1, 2, 3, 4), depth=2, attended=(2, 3, 4), heads=4),
    "ADM-256": Config(width=256, multipliers=(1, 1, 2, 2, 4, 4), depth=2, attended=(3, 4, 5)),
    "ADM-512": Config(width=256, multipliers=(0.5, 1, 1, 2, 2, 4, 4), depth=2, attended=(4, 5, 6)),
}
_UPSAMPLERS = {
    "ADM-up-64-256": Config(width=192, multipliers=(1, 1, 2, 2, 4, 4), depth=2, attended=(3, 4, 5), heads=4),
    "ADM-up-128-512": Config(width=192, multipliers=(1, 1, 2, 2, 4, 4), depth=2, attended=(4, 5)),
}
PAIRS = {"ADM-U-256": ("ADM-64", "ADM-up-64-256"), "ADM-U-512": ("ADM-128", "ADM-up-128-512")}

VARIANTS: dict[str, Factory] = {name: partial(ADM, config) for name, config in _CONFIGS.items()}
UPSAMPLER_VARIANTS: dict[str, Factory] = {name: partial(ADM, config) for name, config in _UPSAMPLERS.items()}
CASCADE_VARIANTS: dict[str, Factory] = {
    name: partial(Cascade, CascadeConfig(base=_CONFIGS[base], upsampler=_UPSAMPLERS[upsampler]))
    for name, (base, upsampler) in PAIRS.items()
}

OFFICIAL: Renames = (*STEPPED_KEYS, (r"^labels\.", "label_emb."))

UPSAMPLING = replace(PIXELS, in_channels=6, given_channels=3)  # the noisy image and a low-resolution one

FAMILY = Family(
    network=ADM,
    task=PIXELS,
    tasks={f"ADM-{side}": PIXELS.at(side, side) for side in (64, 128, 512)},
    official=OFFICIAL,
    variants=VARIANTS,
)
UPSAMPLERS = Family(
    network=ADM,
    task=UPSAMPLING,
    tasks={"ADM-up-128-512": UPSAMPLING.at(512, 512)},
    official=OFFICIAL,
    variants=UPSAMPLER_VARIANTS,
)
CASCADES = Family(
    network=Cascade,
    task=PIXELS,
    tasks={"ADM-U-512": PIXELS.at(512, 512)},
    official=(),  # two checkpoints, each of a network above
    variants=CASCADE_VARIANTS,
    parts=PAIRS,
)
