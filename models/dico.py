"""DiCo: a U-Net of depthwise 3x3 blocks with compact channel attention.

Source: arXiv:2505.11196; sizes from its Table 5, blocks from its Figure 4.
Letters: N batch, C latent channels, H and W latent sides, D width of a level, S side of a window.

The last decoder level keeps the doubled width after its skip is joined, and takes the second level's
condition. In training one draw drops the labels of all three tables.

The ablations (Tables 3, 4) have no released code. Kernels leave no freedom. "@relu" replaces both GELUs,
though the paper may mean one. The others are our reading, chosen among sizes that give the printed parameters
and MACs: without channel attention; squeeze-excite with a reduction of 8; DiT's attention over all pixels of
a level; attention in windows of 8, which fits only if the last level is as wide as the first. Heads of 56
channels (60 in windows) are the divisors nearest to DiT's 64. Channel self-attention, focused linear and
agent attention, and the isotropic layouts are missing: nothing tried gives what is printed.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.arithmetic import Terms
from models.family import Factory, Family, Renames
from models.layers.conditions import Condition, LabelDropout
from models.layers.initialisation import initialise_adaln_zero
from models.layers.modulation import ChannelNorm, Modulation, modulate
from models.layers.unet import BODY_KEYS, UNET_KEYS, ChannelAttention, Head, UNet, require_odd
from models.task import LATENTS, Task


@dataclass(frozen=True, kw_only=True)
class Config:
    """A size, and what the paper's ablations change. ValueError: for an even kernel, which has no middle."""

    width: int  # of the first level; the others are 2 and 4 times as wide
    depths: tuple[int, int, int, int, int]  # blocks down, down, middle, up, up
    mlp_ratio: int = 2
    kernel: int = 3  # of the depthwise convolution
    activation: Literal["gelu", "relu"] = "gelu"
    attention: Literal["compact", "squeeze-excite"] | None = "compact"  # over channels
    heads: int = 0  # of the first level's attention over pixels, instead of convolutions; 0: none
    window: int | None = None  # S; None: all pixels of a level
    last_ratio: int = 2  # width of the last level / width of the first

    def __post_init__(self) -> None:
        require_odd(self.kernel)


class SqueezeExcite(nn.Module):
    """Scales each channel by a two-layer function of the image's average: (N, D, H, W) -> (N, D, H, W)."""

    reduction = 8

    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(width, width // self.reduction, 1)
        self.excite = nn.Conv2d(width // self.reduction, width, 1)

    def forward(self, h: Tensor) -> Tensor:
        share = self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(h, 1))))
        return h * torch.sigmoid(share)


class ConvModule(nn.Module):
    """Pointwise, depthwise, channel attention, pointwise: (N, D, H, W) -> (N, D, H, W)."""

    def __init__(self, width: int, kernel: int, activation: nn.Module, attention: nn.Module) -> None:
        super().__init__()
        self.mix_in = nn.Conv2d(width, width, 1)
        self.depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.activation = activation
        self.attention = attention
        self.mix_out = nn.Conv2d(width, width, 1)

    def forward(self, h: Tensor) -> Tensor:
        return self.mix_out(self.attention(self.activation(self.depthwise(self.mix_in(h)))))


class PixelAttention(nn.Module):
    """Every pixel attends to all pixels of its window: (N, D, H, W) -> (N, D, H, W).

    Not fused: the paper turned FlashAttention off for these rows, and its MACs include the scaling of the
    queries.
    """

    def __init__(self, width: int, heads: int, window: int | None) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        height, width = (self.window, self.window) if self.window else h.shape[2:]
        h = h.unflatten(3, (-1, width)).unflatten(2, (-1, height))  # (N, D, H/S, S, W/S, S)
        h = h.permute(0, 2, 4, 3, 5, 1)  # (N, H/S, W/S, S, S, D)
        tokens = self.qkv(h.flatten(3, 4).flatten(0, 2))  # (N*H/S*W/S, S*S, 3D)
        q, k, v = tokens.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (.., heads, S*S, d)
        weights = (q * q.shape[-1] ** -0.5 @ k.transpose(2, 3)).softmax(dim=3)
        out = self.project((weights @ v).transpose(1, 2).flatten(2))  # (N*H/S*W/S, S*S, D)
        return out.view(h.shape).permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


class Block(nn.Module):
    """Mixer, then MLP, each modulated and gated: (N, D, H, W), (N, D) -> (N, D, H, W).

    Args:
        width: D.
        mixer: (N, D, H, W) -> (N, D, H, W), across pixels.
        mlp_ratio: hidden channels / D.
        activation: of the hidden channels.
    """

    def __init__(self, width: int, mixer: nn.Module, mlp_ratio: int, activation: nn.Module) -> None:
        super().__init__()
        self.norm1 = ChannelNorm()
        self.norm2 = ChannelNorm()
        self.modulation = Modulation(width, count=6)
        self.mixer = mixer
        self.expand = nn.Conv2d(width, mlp_ratio * width, 1)
        self.activation = activation
        self.contract = nn.Conv2d(mlp_ratio * width, width, 1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)[..., None, None]
        x = x + gate1 * self.mixer(modulate(self.norm1(x), shift1, scale1))
        h = self.expand(modulate(self.norm2(x), shift2, scale2))
        return x + gate2 * self.contract(self.activation(h))


def make_block(config: Config, width: int) -> Block:
    """The block of a configuration at the width of a level."""
    activation = nn.GELU() if config.activation == "gelu" else nn.ReLU()
    attentions = {"compact": ChannelAttention, "squeeze-excite": SqueezeExcite}
    attention = attentions[config.attention](width) if config.attention else nn.Identity()
    mixer = (
        PixelAttention(width, config.heads * width // config.width, config.window)
        if config.heads
        else ConvModule(width, config.kernel, activation, attention)
    )
    return Block(width, mixer, config.mlp_ratio, activation)


class DiCo(nn.Module):
    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        if config.window is None:
            task.require_multiple(4, "total stride")
        else:
            what = f"the windows of {config.window} at a quarter of the resolution:"
            task.require_multiple(4 * config.window, what)
        w1, w2, w3 = config.width, 2 * config.width, 4 * config.width
        last = config.last_ratio * config.width
        self.drop = LabelDropout(task.num_classes)
        self.condition1 = Condition(w1, task.num_classes)
        self.condition2 = Condition(w2, task.num_classes)
        self.condition3 = Condition(w3, task.num_classes)
        self.stem = nn.Conv2d(task.in_channels, w1, 3, padding=1)
        self.unet = UNet(
            partial(make_block, config),
            widths=(w1, w2, w3, w2, last),
            depths=config.depths,
        )
        self.head = Head(last, task.out_channels)
        self.last = config.last_ratio
        initialise_adaln_zero(self, self.stem, self.head.conv)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        y = self.drop(y)
        c1 = self.condition1(t, y)  # (N, D)
        c2 = self.condition2(t, y)  # (N, 2D)
        c3 = self.condition3(t, y)  # (N, 4D)
        last = c2 if self.last == 2 else c1  # as wide as the last level

        x = self.unet(self.stem(x), (c1, c2, c3, c2, last))  # (N, 2D or D, H, W)
        return self.head(x, last)  # (N, C_out, H, W)

    @staticmethod
    def closed_form(terms: Terms, config: Config, task: Task) -> None:
        width, last = config.width, config.last_ratio * config.width
        widths = (width, 2 * width, 4 * width, 2 * width, last)
        terms.condition(*widths[:3])
        terms.unet(task, widths, config.depths, partial(_count_block, terms, config))
        terms.fused_skips(task, widths)
        terms.image_head(task.height * task.width, last, task.out_channels)


def _count_block(terms: Terms, config: Config, pixels: int, width: int) -> None:
    terms.adaptive(pixels, width)
    terms.feed_forward(pixels, width, config.mlp_ratio)
    if config.heads:
        terms.attention_projections(pixels, width)
        terms.elementwise("scaling of queries", pixels * width)
        terms.attention(pixels, config.window**2 if config.window else pixels, width)
        return
    terms.linear("pointwise", pixels, width, 2 * width)
    terms.depthwise(pixels, width, config.kernel**2)
    if config.attention == "compact":
        terms.channel_attention(pixels, width, width**2)
    elif config.attention == "squeeze-excite":
        terms.channel_attention(pixels, width, 2 * width * (width // SqueezeExcite.reduction))


_SMALL = Config(width=128, depths=(5, 4, 4, 4, 4))

VARIANTS: dict[str, Factory] = {  # Table 5
    "DiCo-S": partial(DiCo, _SMALL),
    "DiCo-B": partial(DiCo, Config(width=256, depths=(5, 4, 4, 4, 4))),
    "DiCo-L": partial(DiCo, Config(width=352, depths=(9, 8, 9, 8, 9))),
    "DiCo-XL": partial(DiCo, Config(width=416, depths=(9, 9, 10, 9, 9))),
    "DiCo-H": partial(DiCo, Config(width=416, depths=(14, 12, 10, 12, 14), mlp_ratio=4)),
}

SMALL: dict[str, Factory] = {"DiCo-Ti": partial(DiCo, Config(width=22, depths=(2, 1, 1, 1, 2)))}

_CHANGED = {
    "relu": replace(_SMALL, activation="relu"),  # Table 4
    "k5": replace(_SMALL, kernel=5),
    "k7": replace(_SMALL, kernel=7),
    "nocca": replace(_SMALL, depths=(2, 5, 4, 6, 4), attention=None),
    "se": replace(_SMALL, depths=(3, 5, 4, 5, 4), attention="squeeze-excite"),
    "attention": Config(width=112, depths=(2, 2, 6, 2, 1), mlp_ratio=4, heads=2),  # Table 3 too: DiT, U-shape
    "window": Config(width=120, depths=(6, 1, 5, 1, 6), mlp_ratio=4, heads=2, window=8, last_ratio=1),
}

ABLATIONS: dict[str, Factory] = {
    f"DiCo-S@{change}": partial(DiCo, config) for change, config in _CHANGED.items()
}

OFFICIAL: Renames = (
    (r"^stem\.", "x_embedder.proj."),
    *((rf"^condition{i + 1}\.labels\.", f"y_embedder.embedding_table_{i}.") for i in range(3)),
    *UNET_KEYS,
    *BODY_KEYS,
    (r"\.mixer\.mix_in\.", ".conv1."),
    (r"\.mixer\.depthwise\.", ".conv2."),
    (r"\.mixer\.mix_out\.", ".conv3."),
    (r"\.mixer\.attention\.mix\.", ".ca.1."),
    (r"\.expand\.", ".conv4."),
    (r"\.contract\.", ".conv5."),
)

FAMILY = Family(
    network=DiCo, task=LATENTS, official=OFFICIAL, variants=VARIANTS, ablations=ABLATIONS, small=SMALL
)
