"""EDM2: a U-Net whose layers preserve magnitudes, on latents of 512 px or on images of 64 px.

Source: arXiv:2312.02696, config G; sizes from its Tables 1 and 2.
Letters: N batch, C channels of the image, H and W its sides, D width of a level, E width of the condition,
T tokens (H * W of a level), d width of a head.

The output is the denoised image; t is the standard deviation of the noise in x, above 0. For a task with
another prediction the network is called without the denoiser's scales. Labels enter as vectors, and the null
class is the zero vector: labels are dropped by the trainer, not here. Levels of side 16
and 8 attend, whatever the image; keys hold the side of their level, as in the release. In training every
weight is overwritten by its normalised value. The uncertainty of a noise level, by which training weights its
loss, is a method of its own and no part of a call.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.arithmetic import Terms
from models.family import Factory, Family, Renames
from models.layers import magnitude
from models.layers.magnitude import Conv, Fourier, Linear, concatenate, mix, normalise
from models.layers.preconditioning import noise_input, predict
from models.task import LATENTS_DENOISED, PIXELS_DENOISED, Task

ATTENDED = (16, 8)  # sides
BRANCH = 0.3  # share of a branch in its sum with the main path
CLIP = 256.0
UNCERTAINTY_FEATURES = 128


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int  # of the first level
    multipliers: tuple[int, ...] = (1, 2, 3, 4)  # of the width, for each level
    depth: int = 3  # blocks a level on the way down; one more on the way up
    head: int = 64  # channels
    dropout: float = 0.0

    @property
    def embedded(self) -> int:
        return 4 * self.width


class Attention(nn.Module):
    """Attention over pixels with normalised queries, keys and values: (N, D, H, W) -> (N, D, H, W)."""

    def __init__(self, width: int, head: int) -> None:
        super().__init__()
        self.head = head
        self.qkv = Conv(width, 3 * width, 1)
        self.project = Conv(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.qkv(x).flatten(2).unflatten(1, (-1, self.head, 3))  # (N, heads, d, q/k/v, T)
        q, k, v = normalise(h, 2).permute(3, 0, 1, 4, 2).contiguous().unbind()  # each (N, heads, T, d)
        h = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(x.shape)
        return mix(x, self.project(h), BRANCH)


def _average(x: Tensor) -> Tensor:
    return x.new_full((1, 1, 2, 2), 0.25)


def halve(x: Tensor) -> Tensor:
    """Average of each 2 x 2, a depthwise convolution as in the release: (N, D, H, W) -> (N, D, H/2, W/2)."""
    return F.conv2d(x, _average(x).expand(x.shape[1], -1, -1, -1), stride=2, groups=x.shape[1])


def double(x: Tensor) -> Tensor:
    """Each pixel four times: (N, D, H, W) -> (N, D, 2H, 2W).

    The release's transposed convolution as its equal, a 1x1 convolution whose outputs are shuffled: counters
    agree on the MACs of this one.
    """
    kernel = (4 * _average(x)).view(4, 1, 1, 1).repeat(x.shape[1], 1, 1, 1)
    return F.pixel_shuffle(F.conv2d(x, kernel, groups=x.shape[1]), 2)


def identity(x: Tensor) -> Tensor:
    return x


class Block(nn.Module):
    """Two convolutions, the second after a scale by the condition; attention: see `Encode` and `Decode`.

    Args:
        width, out_width: D, D_out.
        inner_width: channels that enter the first convolution.
        config: gives E, the width of a head and the dropout.
        resample: halves or doubles the sides at the start.
        attends: whether attention follows.
    """

    def __init__(
        self,
        width: int,
        out_width: int,
        inner_width: int,
        config: Config,
        resample: Callable[[Tensor], Tensor] = identity,
        attends: bool = False,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.gain = nn.Parameter(torch.zeros([]))
        self.conv1 = Conv(inner_width, out_width, 3)
        self.scale = Linear(config.embedded, out_width)
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = Conv(out_width, out_width, 3)
        self.skip = nn.Identity() if width == out_width else Conv(width, out_width, 1)
        self.attention = Attention(out_width, config.head) if attends else nn.Identity()

    def branch(self, x: Tensor, c: Tensor) -> Tensor:
        h = self.conv1(magnitude.silu(x))
        h = h * (1 + self.scale(c, self.gain))[..., None, None]
        return self.conv2(self.dropout(magnitude.silu(h)))

    def finish(self, x: Tensor, branch: Tensor) -> Tensor:
        attended: Tensor = self.attention(mix(x, branch, BRANCH))
        return attended.clamp(-CLIP, CLIP)


class Encode(Block):
    """The skip and the branch both read the normalised input: (N, D, H, W), (N, E) -> (N, D_out, H', W')."""

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        x = normalise(self.skip(self.resample(x)), 1)
        return self.finish(x, self.branch(x, c))


class Decode(Block):
    """The branch reads the input, which is not normalised: (N, D, H, W), (N, E) -> (N, D_out, H', W')."""

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        x = self.resample(x)
        return self.finish(self.skip(x), self.branch(x, c))


@dataclass(frozen=True)
class Layer:
    """A block of the network: its key, as released, its sides, and what it is."""

    key: str
    side: tuple[int, int]
    width: int
    out_width: int
    attends: bool
    resamples: bool = False

    @property
    def pixels(self) -> int:
        return self.side[0] * self.side[1]


def attends(side: tuple[int, int]) -> bool:
    return min(side) in ATTENDED


def encoder_layers(config: Config, task: Task) -> Iterator[Layer]:
    """The blocks on the way down, after the first convolution."""
    width = config.width
    for level in range(len(config.multipliers)):
        side = (task.height >> level, task.width >> level)
        key, out_width = f"{side[0]}x{side[1]}", config.multipliers[level] * config.width
        if level:
            yield Layer(f"{key}_down", side, width, width, False, resamples=True)
        for index in range(config.depth):
            yield Layer(f"{key}_block{index}", side, width, out_width, attends(side))
            width = out_width


def decoder_layers(config: Config, task: Task) -> Iterator[Layer]:
    """The blocks on the way up; the width of those that read a skip includes it."""
    skips = [config.width, *(layer.out_width for layer in encoder_layers(config, task))]
    width = skips[-1]
    for level in reversed(range(len(config.multipliers))):
        side = (task.height >> level, task.width >> level)
        key, out_width = f"{side[0]}x{side[1]}", config.multipliers[level] * config.width
        if level == len(config.multipliers) - 1:
            yield Layer(f"{key}_in0", side, width, width, True)
            yield Layer(f"{key}_in1", side, width, width, False)
        else:
            yield Layer(f"{key}_up", side, width, width, False, resamples=True)
        for index in range(config.depth + 1):
            yield Layer(f"{key}_block{index}", side, width + skips.pop(), out_width, attends(side))
            width = out_width


class UNet(nn.Module):
    """Image (N, C, H, W), noise (N,), labels (N,) -> (N, C_out, H, W)."""

    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        self.num_classes = task.num_classes
        self.gain = nn.Parameter(torch.zeros([]))
        self.features = Fourier(config.width)
        self.noise = Linear(config.width, config.embedded)
        self.labels = Linear(task.num_classes, config.embedded)
        # one channel of ones stands in for biases
        stem = Conv(task.in_channels + 1, config.width, 3)
        self.encoder = nn.ModuleDict({f"{task.height}x{task.width}_conv": stem})
        for at in encoder_layers(config, task):
            resample = halve if at.resamples else identity
            self.encoder[at.key] = Encode(at.width, at.out_width, at.out_width, config, resample, at.attends)
        self.decoder = nn.ModuleDict()
        for at in decoder_layers(config, task):
            resample = double if at.resamples else identity
            self.decoder[at.key] = Decode(at.width, at.out_width, at.width, config, resample, at.attends)
        self.head = Conv(config.width, task.out_channels, 3)

    def forward(self, x: Tensor, noise: Tensor, y: Tensor) -> Tensor:
        c = self.condition(noise, y).type_as(x)  # (N, E)
        stem, *blocks = self.encoder.values()
        x = stem(torch.cat([x, torch.ones_like(x[:, :1])], dim=1))  # (N, D, H, W)
        skips = [x]
        for block in blocks:
            x = block(x, c)
            skips.append(x)
        for key, block in self.decoder.items():
            if "block" in key:
                x = concatenate(x, skips.pop())
            x = block(x, c)
        return self.head(x, self.gain)

    def condition(self, noise: Tensor, y: Tensor) -> Tensor:
        """(N,), (N,) -> (N, E)"""
        one_hot = F.one_hot(y, self.num_classes + 1)[:, :-1].to(self.labels.weight.dtype)
        noise = self.noise(self.features(noise).type_as(one_hot))
        return magnitude.silu(mix(noise, self.labels(one_hot * math.sqrt(self.num_classes)), 0.5))


class EDM2(nn.Module):
    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        task.require_multiple(2 ** (len(config.multipliers) - 1), "total stride")
        self.task = task
        self.network = UNet(config, task)
        self.uncertainty_features = Fourier(UNCERTAINTY_FEATURES)
        self.uncertainty_weight = Linear(UNCERTAINTY_FEATURES, 1)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return predict(self.network, self.task, x, t, y)  # (N, C_out, H, W)

    def uncertainty(self, t: Tensor) -> Tensor:
        """u(sigma) of the training loss exp(-u) * weight * error + u: (N,) -> (N,)."""
        noise = noise_input(t, self.task.time)
        features = self.uncertainty_features(noise).type_as(self.uncertainty_weight.weight)
        return self.uncertainty_weight(features)[:, 0]

    @staticmethod
    def closed_form(terms: Terms, config: Config, task: Task) -> None:
        pixels = task.height * task.width
        terms.elementwise("timestep features", config.width)
        terms.elementwise("labels", task.num_classes)
        terms.weighted("condition", 1, config.width, config.embedded)
        terms.weighted("condition", 1, task.num_classes, config.embedded)
        terms.weighted("stem", pixels, task.in_channels + 1, config.width, 3)
        for at in encoder_layers(config, task):
            if at.resamples:
                terms.depthwise(at.pixels, at.width, 4, "resampling")
            _count_block(terms, config, at, at.out_width)
        for at in decoder_layers(config, task):
            if at.resamples:
                terms.depthwise(at.pixels, at.width, 1, "resampling")
                terms.once("resampling", 4)
            elif "block" in at.key:
                terms.elementwise("skips", at.pixels * at.width)
            _count_block(terms, config, at, at.width)
        terms.weighted("head", pixels, config.width, task.out_channels, 3)
        terms.denoise(task)


def _count_block(terms: Terms, config: Config, at: Layer, inner_width: int) -> None:
    terms.weighted("convolutions", at.pixels, inner_width, at.out_width, 3)
    terms.weighted("scale", 1, config.embedded, at.out_width)
    terms.elementwise("modulation", at.pixels * at.out_width)
    terms.weighted("convolutions", at.pixels, at.out_width, at.out_width, 3)
    if at.width != at.out_width:
        terms.weighted("skips", at.pixels, at.width, at.out_width)
    if at.attends:
        terms.weighted("attention projections", at.pixels, at.out_width, 3 * at.out_width)
        terms.fused_attention(at.pixels, at.pixels, at.out_width)
        terms.weighted("attention projections", at.pixels, at.out_width, at.out_width)


_SIZES = {"XXS": 64, "XS": 128, "S": 192, "M": 256, "L": 320, "XL": 384, "XXL": 448}
_DROPPING = ("M", "L", "XL", "XXL")

_LATENTS = {
    f"EDM2-{size}": partial(EDM2, Config(width=width, dropout=0.1 if size in _DROPPING else 0.0))
    for size, width in _SIZES.items()
}
_PIXELS = {f"EDM2-{size}-img64": _LATENTS[f"EDM2-{size}"] for size in ("XS", "S", "M", "L", "XL")}

VARIANTS: dict[str, Factory] = {**_LATENTS, **_PIXELS}

SMALL: dict[str, Factory] = {
    "EDM2-Ti": partial(EDM2, Config(width=10, multipliers=(1, 1, 4), depth=3, head=10)),
}

OFFICIAL: Renames = (
    (r"^network\.", "unet."),
    (r"^unet\.gain$", "unet.out_gain"),
    (r"^unet\.features\.", "unet.emb_fourier."),
    (r"^unet\.noise\.", "unet.emb_noise."),
    (r"^unet\.labels\.", "unet.emb_label."),
    (r"^unet\.encoder\.", "unet.enc."),
    (r"^unet\.decoder\.", "unet.dec."),
    (r"^unet\.head\.", "unet.out_conv."),
    (r"^uncertainty_features\.", "logvar_fourier."),
    (r"^uncertainty_weight\.", "logvar_linear."),
    (r"\.gain$", ".emb_gain"),
    (r"\.conv1\.", ".conv_res0."),
    (r"\.scale\.", ".emb_linear."),
    (r"\.conv2\.", ".conv_res1."),
    (r"\.skip\.", ".conv_skip."),
    (r"\.attention\.qkv\.", ".attn_qkv."),
    (r"\.attention\.project\.", ".attn_proj."),
)

FAMILY = Family(
    network=EDM2,
    task=LATENTS_DENOISED.at(512, 512),
    tasks=dict.fromkeys(_PIXELS, PIXELS_DENOISED.at(64, 64)),
    official=OFFICIAL,
    variants=VARIANTS,
    small=SMALL,
)
