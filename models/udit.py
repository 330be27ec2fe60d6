"""U-DiT: a U-Net of transformer blocks whose attention runs on four interleaved sub-maps.

Source: arXiv:2405.02730; sizes S, B and L.
Letters: N batch, C latent channels, H and W latent sides, T tokens of a sub-map (H/2 * W/2 of its level),
D width of a level, d channels of a head.

The last decoder level keeps the doubled width after its skip is joined, and takes the second level's
condition. In training, labels are dropped independently at each of the three levels. No table depends on
the latent size.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.arithmetic import Terms
from models.family import Factory, Family, Renames
from models.layers.conditions import Condition, LabelDropout
from models.layers.initialisation import initialise, zero
from models.layers.modulation import ChannelNorm, Modulation, modulate
from models.layers.unet import BODY_KEYS, UNET_KEYS, Head, UNet
from models.task import LATENTS, Task

MAX_LOG_SCALE = math.log(100)  # of the cosines before the softmax


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int  # of the first level; the others are 2 and 4 times as wide
    heads: int  # at every level
    depths: tuple[int, int, int, int, int] = (2, 5, 8, 5, 2)  # blocks down, down, middle, up, up
    mlp_ratio: int = 2


def rotations(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Complex numbers of unit length that encode positions: (height * width, channels / 2), complex64.

    Pairs of channels turn in turn by the column and by the row, at channels/4 frequencies each.
    """
    periods = 10000 ** (torch.arange(0, channels, 4, dtype=torch.float32, device=device) / channels)
    columns = torch.arange(width, device=device).repeat(height)
    rows = torch.arange(height, device=device).repeat_interleave(width)
    angles = torch.stack([columns, rows], dim=1)[:, None] / periods[:, None]  # (T, d/4, 2)
    angles = angles.flatten(1)
    return torch.polar(torch.ones_like(angles), angles)


def rotate(x: Tensor, by: Tensor) -> Tensor:
    """Turn pairs of channels, as complex numbers in float32: (..., T, d), (T, d/2) -> (..., T, d)."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * by).flatten(-2).type_as(x)


class Attention(nn.Module):
    """Cosine attention within each of four sub-maps, made of the rows and columns of one parity each.

    (N, D, H, W) -> (N, D, H, W)
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.mix = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.qkv = nn.Linear(width, 3 * width)
        self.log_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10)))
        self.project = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(x)
        maps = F.pixel_unshuffle(x, 2).unflatten(1, (-1, 4)).permute(0, 2, 3, 4, 1)  # (N, 4, H/2, W/2, D)
        tokens = maps.flatten(2, 3).flatten(0, 1)  # (4N, T, D)
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        by = rotations(maps.shape[2], maps.shape[3], q.shape[-1], x.device)
        q, k = (F.normalize(rotate(each, by), dim=-1) for each in (q, k))  # (4N, heads, T, d)
        logits = q @ k.transpose(2, 3) * self.log_scale.clamp(max=MAX_LOG_SCALE).exp()
        tokens = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
        maps = tokens.view(maps.shape).permute(0, 4, 1, 2, 3).flatten(1, 2)  # (N, 4D, H/2, W/2)
        return self.project(F.pixel_shuffle(maps, 2))


def _product(first: nn.Conv2d, second: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the 1x1 convolution equal to two in a row."""
    assert first.bias is not None
    assert second.bias is not None
    outer = second.weight.flatten(1)
    weight = outer @ first.weight.flatten(1)
    return weight[:, :, None, None], outer @ first.bias + second.bias


def _sum(*kernels: nn.Conv2d, side: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of the depthwise convolution equal to the sum of several and the identity."""
    weight = torch.zeros_like(kernels[0].weight)
    bias = torch.zeros_like(weight[:, 0, 0, 0])
    for kernel in kernels:
        assert kernel.bias is not None
        weight += F.pad(kernel.weight, [side // 2 - kernel.kernel_size[0] // 2] * 4)
        bias += kernel.bias
    weight[:, :, side // 2, side // 2] += 1  # the identity
    return weight, bias


class FeedForward(nn.Module):
    """Two 1x1 convolutions up, three depthwise ones and the identity summed, two 1x1 convolutions down.

    (N, D, H, W) -> (N, D, H, W)

    Linear maps with nothing between them are one linear map: in eval mode without gradients each of the
    three groups runs as a single convolution, as in the release, whose MACs are those. The folded weights
    are computed on entering eval mode, and again by the first pass after a weight has changed. A compiled
    pass does not look for changes: call eval() again.
    """

    def __init__(self, width: int, mlp_ratio: int) -> None:
        super().__init__()
        hidden = mlp_ratio * width
        self.expand1 = nn.Conv2d(width, hidden // 2, 1)
        self.expand2 = nn.Conv2d(hidden // 2, hidden, 1)
        self.depthwise5 = nn.Conv2d(hidden, hidden, 5, padding=2, groups=hidden)
        self.depthwise3 = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.depthwise1 = nn.Conv2d(hidden, hidden, 1, groups=hidden)
        self.contract1 = nn.Conv2d(hidden, hidden // 2, 1)
        self.contract2 = nn.Conv2d(hidden // 2, width, 1)
        self.expand_weight: Tensor
        self.expand_bias: Tensor
        self.depthwise_weight: Tensor
        self.depthwise_bias: Tensor
        self.contract_weight: Tensor
        self.contract_bias: Tensor
        for group in ("expand", "depthwise", "contract"):
            self.register_buffer(f"{group}_weight", None, persistent=False)
            self.register_buffer(f"{group}_bias", None, persistent=False)
        self.folded_from: list[tuple[int, int]] = []

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if not mode:
            self._fold()
        return self

    @torch.no_grad()
    def _fold(self) -> None:
        self.expand_weight, self.expand_bias = _product(self.expand1, self.expand2)
        self.depthwise_weight, self.depthwise_bias = _sum(
            self.depthwise5, self.depthwise3, self.depthwise1, side=5
        )
        self.contract_weight, self.contract_bias = _product(self.contract1, self.contract2)
        self.folded_from = self._versions()

    def _versions(self) -> list[tuple[int, int]]:
        """Identity and version of each weight; torch increments the version when the weight is written to."""
        return [(id(p), 0 if p.is_inference() else p._version) for p in self.parameters()]

    def forward(self, x: Tensor) -> Tensor:
        if self.training or torch.is_grad_enabled():
            h = F.gelu(self.expand2(self.expand1(x)))
            h = h + self.depthwise5(h) + self.depthwise3(h) + self.depthwise1(h)
            return self.contract2(self.contract1(h))
        if not torch.compiler.is_compiling() and self.folded_from != self._versions():
            self._fold()
        h = F.gelu(F.conv2d(x, self.expand_weight, self.expand_bias))
        h = F.conv2d(h, self.depthwise_weight, self.depthwise_bias, padding=2, groups=h.shape[1])
        return F.conv2d(h, self.contract_weight, self.contract_bias)


class Layer(nn.Module):
    """Attention, then feed-forward, each modulated and gated: (N, D, H, W), (N, D) -> (N, D, H, W)."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm()
        self.norm2 = ChannelNorm()
        self.modulation = Modulation(width, count=6)
        self.attention = Attention(width, heads)
        self.mlp = FeedForward(width, mlp_ratio)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)[..., None, None]
        x = x + gate1 * self.attention(modulate(self.norm1(x), shift1, scale1))
        return x + gate2 * self.mlp(modulate(self.norm2(x), shift2, scale2))


class Block(nn.Module):
    """Two layers in a row, which the published depths count as one: (N, D, H, W), (N, D) -> (N, D, H, W)."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.layer1 = Layer(width, heads, mlp_ratio)
        self.layer2 = Layer(width, heads, mlp_ratio)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.layer2(self.layer1(x, c), c)


class UDiT(nn.Module):
    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        task.require_multiple(8, "total stride, sub-maps included,")
        w1, w2, w3 = config.width, 2 * config.width, 4 * config.width
        self.drop1 = LabelDropout(task.num_classes)
        self.drop2 = LabelDropout(task.num_classes)
        self.drop3 = LabelDropout(task.num_classes)
        self.condition1 = Condition(w1, task.num_classes)
        self.condition2 = Condition(w2, task.num_classes)
        self.condition3 = Condition(w3, task.num_classes)
        self.stem = nn.Conv2d(task.in_channels, w1, 3, padding=1)
        self.unet = UNet(
            lambda width: Block(width, config.heads, config.mlp_ratio),
            widths=(w1, w2, w3, w2, w2),
            depths=config.depths,
        )
        self.out = nn.Conv2d(w2, w2, 3, padding=1)
        self.head = Head(w2, task.out_channels)
        initialise(self)
        zero(self.head.conv)
        for module in self.modules():
            if isinstance(module, Modulation):
                zero(module.linear)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        c1 = self.condition1(t, self.drop1(y))  # (N, D)
        c2 = self.condition2(t, self.drop2(y))  # (N, 2D)
        c3 = self.condition3(t, self.drop3(y))  # (N, 4D)

        x = self.unet(self.stem(x), (c1, c2, c3, c2, c2))  # (N, 2D, H, W)
        return self.head(self.out(x), c2)  # (N, C_out, H, W)

    @staticmethod
    def closed_form(terms: Terms, config: Config, task: Task) -> None:
        """Add the MACs of a forward pass, the feed-forward folded."""

        def block(here: int, width: int) -> None:
            for _ in range(2):
                terms.adaptive(here, width)
                terms.depthwise(here, width, 25)
                terms.attention_projections(here, width)
                terms.attention(here, here // 4, width)
                terms.elementwise("rotations", here * width)  # queries and keys, complex: half the products
                terms.elementwise("scaling of logits", config.heads * here * (here // 4))
                terms.feed_forward(here, width, config.mlp_ratio)
                terms.depthwise(here, config.mlp_ratio * width, 25)

        width, pixels = config.width, task.height * task.width
        widths = (width, 2 * width, 4 * width, 2 * width, 2 * width)
        terms.condition(*widths[:3])
        terms.unet(task, widths, config.depths, block)
        terms.fused_skips(task, widths)
        terms.conv("head", pixels, 2 * width, 2 * width, 3)
        terms.image_head(pixels, 2 * width, task.out_channels)


VARIANTS: dict[str, Factory] = {
    "U-DiT-S": partial(UDiT, Config(width=96, heads=4)),
    "U-DiT-B": partial(UDiT, Config(width=192, heads=8)),
    "U-DiT-L": partial(UDiT, Config(width=384, heads=16)),
}

OFFICIAL: Renames = (
    (r"^stem\.", "x_embedder.proj."),
    *BODY_KEYS,
    (r"^out\.", "output."),
    (r"\.layer(\d)\.modulation\.linear\.", r".adaLN_modulation\1.1."),
    *UNET_KEYS,
    (r"\.layer(\d)\.attention\.", r".attn\1."),
    (r"\.mix\.", ".downsampler.layer."),
    (r"\.qkv\.", ".to_qkv."),
    (r"\.log_scale$", ".logit_scale"),
    (r"\.project\.", ".to_out."),
    (r"\.layer(\d)\.mlp\.", r".mlp\1."),
    (r"\.expand1\.", ".project_in.0."),
    (r"\.expand2\.", ".project_in.1."),
    (r"\.depthwise5\.", ".dwconv.0."),
    (r"\.depthwise3\.", ".dwconv.1."),
    (r"\.depthwise1\.", ".dwconv.2."),
    (r"\.contract1\.", ".project_out.0."),
    (r"\.contract2\.", ".project_out.1."),
)

FAMILY = Family(network=UDiT, task=LATENTS, official=OFFICIAL, variants=VARIANTS)
