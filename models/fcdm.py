"""FCDM: a U-Net of ConvNeXt blocks with global response normalisation, conditioned at every level.

Source: "Reviving ConvNeXt for Efficient Convolutional Diffusion Models", CVPR 2026; sizes from its Table 2.
Letters: N batch, C latent channels, H and W latent sides, P patch side, D width of a level, E width of a text
embedding.

In training, labels are dropped independently at each of the three levels, so that one image may be
conditional at one level and unconditional at another, as in the release.

The blocks of the ablations, and what of them is our reading, are in models/_fcdm_ablations.py.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models._fcdm_ablations import (
    HEAD_WIDTH,
    FeedforwardBlock,
    NeighbourhoodAttention,
    ResNetBlock,
    TextCondition,
    TextDropout,
)
from models.arithmetic import MEANS, Terms
from models.family import Factory, Family, Renames
from models.layers.conditions import Condition, LabelDropout
from models.layers.initialisation import initialise_adaln_zero, initialise_small
from models.layers.modulation import ChannelNorm, Modulation, modulate_addcmul
from models.layers.unet import UNET_KEYS, ChannelAttention, Head, UNet, require_odd
from models.task import LATENTS, Task


@dataclass(frozen=True, kw_only=True)
class Config:
    """A size, and what the paper's ablations change. ValueError: for an even kernel, which has no middle."""

    width: int  # of the first level; the others are 2 and 4 times as wide
    depths: tuple[int, int, int, int, int]  # blocks down, down, middle, up, up
    kernel: int = 7  # of the depthwise convolution, or the side of the attention's window
    mlp_ratio: int = 3  # 1: no inverted bottleneck
    enhancement: Literal["response", "attention"] | None = "response"  # of the hidden channels: GRN, CCA
    feedforward_ratio: int = 0  # of a feed-forward after every block; 0: none
    neighbourhood: Literal["masked", "flex", "natten"] | None = None  # attention by this back end
    block: Literal["convnext", "resnet"] = "convnext"  # resnet reads none of the five fields above
    text_width: int | None = None  # E; None: conditioned on labels

    def __post_init__(self) -> None:
        require_odd(self.kernel)


class GlobalResponseNorm(nn.Module):
    """Scales each channel by its share of the response over the whole image: (N, D, H, W) -> same."""

    eps = 1e-6

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, h: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(h, dim=(2, 3), keepdim=True)  # (N, D, 1, 1)
        share = norm / (norm.mean(dim=1, keepdim=True) + self.eps)
        return self.gamma * (h * share) + self.beta + h


class Block(nn.Module):
    """ConvNeXt's block, modulated and gated: (N, D, H, W), (N, D) -> (N, D, H, W).

    Args:
        width: D.
        mixer: (N, D, H, W) -> (N, D, H, W), across pixels.
        mlp_ratio: hidden channels / D.
        response: (N, mlp_ratio * D, H, W) -> the same, across the hidden channels.
    """

    def __init__(self, width: int, mixer: nn.Module, mlp_ratio: int, response: nn.Module) -> None:
        super().__init__()
        self.mixer = mixer
        self.norm = ChannelNorm()
        self.modulation = Modulation(width, count=3)
        self.expand = nn.Conv2d(width, mlp_ratio * width, 1)
        self.response = response
        self.contract = nn.Conv2d(mlp_ratio * width, width, 1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(c)[..., None, None]  # each (N, D, 1, 1)
        h = modulate_addcmul(self.norm(self.mixer(x)), shift, scale)
        h = self.contract(self.response(F.gelu(self.expand(h))))
        return x + gate * h


def make_depthwise(width: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)


def make_enhancement(config: Config, hidden: int) -> nn.Module:
    if config.enhancement is None:
        return nn.Identity()
    return GlobalResponseNorm(hidden) if config.enhancement == "response" else ChannelAttention(hidden)


def make_block(config: Config, width: int) -> nn.Module:
    """The block of a configuration at the width of a level."""
    if config.block == "resnet":
        return ResNetBlock(width)
    block = Block(
        width,
        mixer=make_depthwise(width, config.kernel)
        if config.neighbourhood is None
        else NeighbourhoodAttention(width, config.kernel, config.neighbourhood),
        mlp_ratio=config.mlp_ratio,
        response=make_enhancement(config, config.mlp_ratio * width),
    )
    return FeedforwardBlock(width, block, config.feedforward_ratio) if config.feedforward_ratio else block


class FCDM(nn.Module):
    """The U-Net; y are float vectors (N, condition_width), or labels (N,) where that is None."""

    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        task.require_multiple(4, "total stride")
        if config.neighbourhood is not None:
            task.require_at_least(4 * config.kernel, f"4 times the attention's window of {config.kernel}")
        w1, w2, w3 = config.width, 2 * config.width, 4 * config.width

        def drop() -> nn.Module:
            return TextDropout() if config.text_width else LabelDropout(task.num_classes)

        def condition(width: int) -> nn.Module:
            if config.text_width:
                return TextCondition(width, config.text_width)
            return Condition(width, task.num_classes)

        self.condition_width = config.text_width
        self.drop1, self.drop2, self.drop3 = drop(), drop(), drop()
        self.condition1, self.condition2, self.condition3 = condition(w1), condition(w2), condition(w3)
        self.stem = nn.Conv2d(task.in_channels, w1, 3, padding=1)
        self.unet = UNet(
            partial(make_block, config),
            widths=(w1, w2, w3, w2, w1),
            depths=config.depths,
        )
        self.out = nn.Conv2d(w1, w1, 3, padding=1)
        self.head = Head(w1, task.out_channels)
        _initialise(self)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        c1 = self.condition1(t, self.drop1(y))  # (N, D)
        c2 = self.condition2(t, self.drop2(y))  # (N, 2D)
        c3 = self.condition3(t, self.drop3(y))  # (N, 4D)

        x = self.unet(self.stem(x), (c1, c2, c3, c2, c1))  # (N, D, H, W)
        return self.head(self.out(x), c1)  # (N, C_out, H, W)

    @staticmethod
    def closed_form(terms: Terms, config: Config, task: Task) -> None:
        width, pixels = config.width, task.height * task.width
        widths = (width, 2 * width, 4 * width, 2 * width, width)
        terms.condition(*widths[:3])
        if config.text_width:
            for level_width in widths[:3]:
                terms.linear("condition", 1, config.text_width + level_width, level_width)
        terms.unet(task, widths, config.depths, partial(_count_block, terms, config))
        terms.fused_skips(task, widths)
        terms.conv("head", pixels, width, width, 3)
        terms.image_head(pixels, width, task.out_channels)


def _count_block(terms: Terms, config: Config, pixels: int, width: int) -> None:
    terms.modulation(width, 3)
    terms.gate(pixels, width)
    if config.block == "resnet":
        terms.conv("convolutions", pixels, width, 2 * width, 3)
        return
    if config.neighbourhood is None:
        terms.depthwise(pixels, width, config.kernel**2)
    else:
        terms.attention_projections(pixels, width)
        terms.elementwise("scaling of queries", pixels * width)
        terms.custom("neighbourhood attention", 2 * pixels * config.kernel**2 * width)
    hidden = config.mlp_ratio * width
    terms.linear("pointwise", pixels, width, 2 * hidden)
    if config.enhancement == "response":
        terms.elementwise(MEANS, 1)
        terms.elementwise("response norm", 2 * pixels * hidden)
    elif config.enhancement == "attention":
        terms.channel_attention(pixels, hidden, hidden**2)
    if config.feedforward_ratio:
        terms.modulation(width, 3)
        terms.gate(pixels, width)
        terms.feed_forward(pixels, width, config.feedforward_ratio)


@dataclass(frozen=True, kw_only=True)
class IsotropicConfig:
    width: int
    depth: int
    patch: int

    @property
    def block(self) -> Config:
        return Config(width=self.width, depths=(0, 0, self.depth, 0, 0))


class Isotropic(nn.Module):
    """FCDM's blocks at one resolution, P times coarser than the latent: our reading of Table 12."""

    def __init__(self, config: IsotropicConfig, task: Task) -> None:
        super().__init__()
        task.require_multiple(config.patch, "patch")
        self.patch = config.patch
        self.drop = LabelDropout(task.num_classes)
        self.condition = Condition(config.width, task.num_classes)
        self.stem = nn.Conv2d(task.in_channels, config.width, config.patch, stride=config.patch)
        self.blocks = nn.ModuleList(make_block(config.block, config.width) for _ in range(config.depth))
        self.head = Head(config.width, config.patch**2 * task.out_channels)
        _initialise(self)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        c = self.condition(t, self.drop(y))  # (N, D)
        x = self.stem(x)  # (N, D, H/P, W/P)
        for block in self.blocks:
            x = block(x, c)
        return F.pixel_shuffle(self.head(x, c), self.patch)  # (N, C_out, H, W)

    @staticmethod
    def closed_form(terms: Terms, config: IsotropicConfig, task: Task) -> None:
        terms.condition(config.width)
        tokens = terms.patch_embedding(task, config.width, config.patch)
        for _ in range(config.depth):
            _count_block(terms, config.block, tokens, config.width)
        terms.image_head(tokens, config.width, config.patch**2 * task.out_channels)


def _initialise(model: FCDM | Isotropic) -> None:
    initialise_adaln_zero(model, model.stem, model.head.conv)
    for module in model.modules():
        if isinstance(module, TextCondition):
            initialise_small(module.time1, module.time2, module.text1, module.text2)


_SIZES = {  # Table 2
    "FCDM-S": Config(width=128, depths=(2, 4, 8, 4, 2)),
    "FCDM-B": Config(width=256, depths=(2, 4, 8, 4, 2)),
    "FCDM-L": Config(width=512, depths=(2, 4, 8, 4, 2)),
    "FCDM-XL": Config(width=512, depths=(3, 6, 12, 6, 3)),
}


def _changed(config: Config) -> dict[str, Config]:
    """The ablations of one size; widths are given as for FCDM-L."""

    def scaled(width: int, step: int = 2) -> int:
        return config.width * width // 512 // step * step

    def moved(blocks: int) -> tuple[int, int, int, int, int]:
        down1, down2, middle, up2, up1 = config.depths
        return down1, down2 - blocks, middle, up2 + blocks, up1

    attention = replace(config, width=scaled(416, step=HEAD_WIDTH), neighbourhood="masked")
    each = sum(config.depths) // 5
    return {
        **{f"k{kernel}": replace(config, kernel=kernel) for kernel in (3, 5, 7, 9, 11)},  # Tables 6, 10
        "cca": replace(config, width=scaled(510), enhancement="attention"),  # Table 6
        "nogrn": replace(config, enhancement=None),  # for Figure 7, at the same width: our reading
        "ffn": replace(config, width=scaled(462), feedforward_ratio=1),
        "noinv": replace(config, width=scaled(688), mlp_ratio=1, enhancement="attention"),
        "resnet": replace(config, width=scaled(336), block="resnet"),
        "na7": attention,  # Table 13; masked is the back end that works and trains everywhere
        "na7-masked": attention,
        "na7-flex": replace(attention, neighbourhood="flex"),
        "na7-natten": replace(attention, neighbourhood="natten"),
        "asym1": replace(config, depths=moved(1)),  # Table 14
        **({"asym3": replace(config, depths=moved(3))} if config.depths[1] > 4 else {}),
        "uniform": replace(config, width=scaled(600), depths=(each, each, each, each, each)),  # Table 15
        "text": replace(config, text_width=768),  # appendix H
    }


VARIANTS: dict[str, Factory] = {name: partial(FCDM, config) for name, config in _SIZES.items()}

SMALL: dict[str, Factory] = {"FCDM-Ti": partial(FCDM, Config(width=24, depths=(2, 1, 1, 1, 2)))}

ABLATIONS: dict[str, Factory] = {
    **{
        f"{name}@{change}": partial(FCDM, changed)
        for name, config in _SIZES.items()
        for change, changed in _changed(config).items()
    },
    # as many blocks as FCDM-L, at the patch of DiT-B/2, which Table 12 compares it with
    "FCDM-B@iso": partial(Isotropic, IsotropicConfig(width=576, depth=20, patch=2)),
}

OFFICIAL: Renames = (
    (r"^stem\.", "x_embedder."),
    *UNET_KEYS,
    (r"^unet\.down1\.conv\.", "down1_2.conv.0."),
    (r"^unet\.down2\.conv\.", "down2_3.conv.0."),
    (r"^unet\.up2\.conv\.", "up3_2.conv.0."),
    (r"^unet\.up1\.conv\.", "up2_1.conv.0."),
    (r"^unet\.fuse", "reduce_chans_"),
    (r"^out\.", "output_layer."),
    (r"^head\.", "final_layer."),
    (r"\.mixer\.", ".dwconv."),
    (r"\.expand\.", ".pwconv1."),
    (r"\.contract\.", ".pwconv2."),
    (r"\.response\.", ".grn."),
)

FAMILY = Family(
    network=FCDM, task=LATENTS, official=OFFICIAL, variants=VARIANTS, ablations=ABLATIONS, small=SMALL
)
