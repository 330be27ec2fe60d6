"""HDiT: an hourglass of transformers on pixels, with neighbourhood attention at its fine levels.

Source: arXiv:2401.11605 and k-diffusion's `image_transformer_v2`, one config: 256 px flowers without classes.
Letters: N batch, C channels of the image, H and W its sides, P patch side, D width of a level, E width of the
condition, T tokens of a level, h heads, d width of a head.

The output is the denoised image; t is the standard deviation of the noise in x, above 0. The network that
was published, `HDiT.network`, is inside the denoiser's scales, which cost 3 products per value of the image
under torchprofile's rules; for a task with another prediction there are none. Nine numbers that describe an
augmentation of the image are zeros here, as in sampling; their features are not.

Where the image is not square the longer side spans positions -1 to 1. Where a dropout stands in a block, and
networks with classes, which no config has, are our reading.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.arithmetic import MEANS, Terms
from models.family import Factory, Family, Renames
from models.kernels.neighbourhood import neighbourhood_attention, require_backend
from models.layers.initialisation import zero
from models.layers.mapping import GatedFeedForward, Mapping, count_mapping
from models.layers.preconditioning import predict
from models.layers.rms import EPS, RMSNorm, rms_normalise
from models.task import PIXELS_DENOISED, Task


@dataclass(frozen=True, kw_only=True)
class Config:
    widths: tuple[int, ...]  # of the levels, the finest first; the last one attends globally
    depths: tuple[int, ...]  # layers of each level; twice at all but the last, down and up
    patch: int = 4
    window: int = 7  # of neighbourhood attention
    mlp_ratio: int = 3
    head: int = 64  # channels
    mapping_width: int = 256
    mapping_depth: int = 2
    dropout: float = 0.0  # at the last level
    classes: bool = False
    neighbourhood: Literal["masked", "flex", "natten"] = "masked"  # the back end of attention

    @property
    def stride(self) -> int:
        return self.patch * 2 ** (len(self.widths) - 1)


class AdaptiveNorm(nn.Module):
    """Division by the root mean square, times 1 + a projection: (N, H, W, D), (N, E) -> (N, H, W, D)."""

    def __init__(self, width: int, condition_width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(condition_width, width, bias=False)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return rms_normalise(x) * (1 + self.linear(c))[:, None, None]


class Rotation(nn.Module):
    """Cosines and sines at d/8 frequencies from pi to almost 10 pi, different in every head.

    Of rows, then of columns: (H, W, 2) -> (H, W, h, d/4) twice, in float32.
    """

    def __init__(self, heads: int, count: int) -> None:
        super().__init__()
        exponents = torch.arange(count * heads, dtype=torch.float64).view(count, heads).T / (count * heads)
        self.freqs: Tensor
        self.register_buffer("freqs", (math.pi * 10**exponents).float().contiguous())

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        angles = positions[..., None, :, None] * self.freqs.float()[:, None]  # (H, W, h, 2, d/8)
        angles = angles.flatten(-2)
        return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn channels i and i + d/4 of the first half of a head, in float32 or wider: (..., h, d) -> same."""
    turned, rest = x.chunk(2, dim=-1)
    first, second = turned.chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return torch.cat([turned.type_as(x), rest], dim=-1)


class Attention(nn.Module):
    """Cosine attention to a window, or to all tokens: (N, H, W, D), (H, W, 2) -> (N, H, W, D)."""

    def __init__(self, width: int, head: int, window: int | None, backend: str, dropout: float) -> None:
        super().__init__()
        self.head, self.window, self.backend = head, window, backend
        self.scale = nn.Parameter(torch.full((width // head,), 10.0))
        self.rotation = Rotation(width // head, head // 8)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, self.head)).unbind(3)  # each (N, H, W, h, d)
        turn = self.rotation(positions)
        q, k = rotate(self.sharpen(q), *turn), rotate(self.sharpen(k), *turn)
        if self.window is not None:
            x = neighbourhood_attention(q, k, v, self.window, self.backend)
        else:
            q, k, v = (part.flatten(1, 2).transpose(1, 2) for part in (q, k, v))  # each (N, h, T, d)
            attended = F.scaled_dot_product_attention(q, k, v, scale=1.0)
            x = attended.transpose(1, 2).unflatten(1, x.shape[1:3])
        return self.project(self.dropout(x.flatten(3)))

    def sharpen(self, x: Tensor) -> Tensor:
        """Queries or keys of a trained length: (N, H, W, h, d) -> same."""
        wide = x.float() if x.itemsize < 4 else x
        length = wide.square().sum(-1, keepdim=True) + EPS
        return (wide * (self.scale[:, None].type_as(wide).sqrt() * length.rsqrt())).type_as(x)


class Layer(nn.Module):
    """Attention and feed-forward, each after a norm that the condition scales, each added.

    (N, H, W, D), positions (H, W, 2), condition (N, E) -> (N, H, W, D)
    """

    def __init__(self, config: Config, level: int) -> None:
        super().__init__()
        width, last = config.widths[level], level == len(config.widths) - 1
        dropout = config.dropout if last else 0.0
        self.norm1 = AdaptiveNorm(width, config.mapping_width)
        window = None if last else config.window
        self.attention = Attention(width, config.head, window, config.neighbourhood, dropout)
        self.norm2 = AdaptiveNorm(width, config.mapping_width)
        self.feedforward = GatedFeedForward(width, config.mlp_ratio * width, dropout)

    def forward(self, x: Tensor, positions: Tensor, c: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x, c), positions)
        return x + self.feedforward(self.norm2(x, c))


class Level(nn.ModuleList):
    """Layers in a row with equal positions and condition."""

    def forward(self, x: Tensor, positions: Tensor, c: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, positions, c)
        return x


class Merge(nn.Module):
    """A linear layer over each P x P cell, row, column, channel: (N, H, W, D) -> (N, H/P, W/P, D_out)."""

    def __init__(self, width: int, out_width: int, patch: int = 2) -> None:
        super().__init__()
        self.patch = patch
        self.linear = nn.Linear(patch**2 * width, out_width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        cells = x.unflatten(2, (-1, self.patch)).unflatten(1, (-1, self.patch)).transpose(2, 3)
        return self.linear(cells.flatten(3))


class Split(nn.Module):
    """The reverse of a merge: (N, H, W, D) -> (N, PH, PW, D_out)."""

    def __init__(self, width: int, out_width: int, patch: int = 2) -> None:
        super().__init__()
        self.patch = patch
        self.linear = nn.Linear(width, patch**2 * out_width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        cells = self.linear(x).unflatten(3, (self.patch, self.patch, -1)).transpose(2, 3)
        return cells.flatten(3, 4).flatten(1, 2)


class Join(Split):
    """A split, mixed with the skip of its level by a trained share: (N, H, W, D) -> (N, 2H, 2W, D_out)."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__(width, out_width)
        self.share = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:  # type: ignore[override]  # one input more
        return torch.lerp(skip, super().forward(x), self.share.type_as(skip))


def cell_positions(height: int, width: int, device: torch.device) -> Tensor:
    """Centres of cells, row and column; the longer side spans -1 to 1: (H, W, 2)."""
    longer = max(height, width)
    rows, columns = (torch.arange(1 - side, side, 2, device=device) / longer for side in (height, width))
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)


def coarser(positions: Tensor) -> Tensor:
    """Mean position of each 2 x 2: (H, W, 2) -> (H/2, W/2, 2)."""
    return positions.unflatten(1, (-1, 2)).unflatten(0, (-1, 2)).mean((1, 3))


class Hourglass(nn.Module):
    """Image (N, C, H, W), noise (N,), labels (N,) -> (N, C_out, H, W)."""

    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        widths, last = config.widths, len(config.widths) - 1
        classes = task.num_classes if config.classes else None
        self.mapping = Mapping(config.mapping_width, config.mapping_depth, classes)
        self.embed = Merge(task.in_channels, widths[0], config.patch)

        def level(index: int) -> Level:
            return Level(Layer(config, index) for _ in range(config.depths[index]))

        self.down = nn.ModuleList(level(index) for index in range(last))
        self.merges = nn.ModuleList(Merge(widths[index], widths[index + 1]) for index in range(last))
        self.middle = level(last)
        self.joins = nn.ModuleList(Join(widths[index + 1], widths[index]) for index in range(last))
        self.up = nn.ModuleList(level(index) for index in range(last))
        self.norm = RMSNorm(widths[0])
        self.head = Split(widths[0], task.out_channels, config.patch)
        self._initialise()

    def _initialise(self) -> None:
        """torch's initial weights, but zeros in the norms' projections and where a branch ends."""
        zero(self.head.linear)
        for module in self.modules():
            if isinstance(module, AdaptiveNorm):
                zero(module.linear)
            elif isinstance(module, Attention):
                zero(module.project)
            elif isinstance(module, GatedFeedForward):
                zero(module.contract)

    def forward(self, x: Tensor, noise: Tensor, y: Tensor) -> Tensor:
        c = self.mapping(noise, y)  # (N, E)
        x = self.embed(x.permute(0, 2, 3, 1))  # (N, H/P, W/P, D)
        positions = [cell_positions(x.shape[1], x.shape[2], x.device)]
        skips = []
        for level, merge in zip(self.down, self.merges, strict=True):
            x = level(x, positions[-1], c)
            skips.append(x)
            x = merge(x)
            positions.append(coarser(positions[-1]))
        x = self.middle(x, positions.pop(), c)
        for level, join in zip(reversed(self.up), reversed(self.joins), strict=True):
            x = level(join(x, skips.pop()), positions.pop(), c)
        return self.head(self.norm(x)).permute(0, 3, 1, 2)  # (N, C, H, W)


class HDiT(nn.Module):
    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        require_backend(config.neighbourhood)
        task.require_multiple(config.stride, "total stride")
        finest = config.patch * 2 ** (len(config.widths) - 2) * config.window
        task.require_at_least(finest, f"the window of {config.window} at its coarsest level")
        self.task = task
        self.network = Hourglass(config, task)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return predict(self.network, self.task, x, t, y)  # (N, C_out, H, W)

    @staticmethod
    def closed_form(terms: Terms, config: Config, task: Task) -> None:
        pixels, last = task.height * task.width, len(config.widths) - 1
        count_mapping(terms, config.mapping_width, config.mapping_depth)
        tokens = [pixels // (config.patch * 2**level) ** 2 for level in range(last + 1)]
        for values in (task.in_channels, task.out_channels):
            terms.linear("patches", tokens[0], config.patch**2 * values, config.widths[0])
        for level, width in enumerate(config.widths):
            for _ in range(config.depths[level] * (1 if level == last else 2)):
                _count_layer(terms, config, tokens[level], width, globally=level == last)
            if level != last:
                for _ in range(2):
                    terms.linear("merges and splits", tokens[level + 1], 4 * width, config.widths[level + 1])
                terms.once(MEANS, 2 * tokens[level + 1])  # positions
        terms.rms_norm(tokens[0], config.widths[0])
        terms.denoise(task)


def _count_layer(terms: Terms, config: Config, tokens: int, width: int, *, globally: bool) -> None:
    heads = width // config.head
    for _ in range(2):
        terms.linear("adaptive norms", 1, config.mapping_width, width)
        terms.rms_norm(tokens, width)
    terms.attention_projections(tokens, width)
    terms.once("rotation", tokens * width // 4)
    for _ in range(2):  # queries and keys
        terms.elementwise("cosine attention", tokens * (heads + width))
        terms.elementwise("rotation", tokens * width)
    if globally:
        terms.attention(tokens, tokens, width)
    else:
        terms.custom("neighbourhood attention", 2 * tokens * config.window**2 * width)
    terms.gated_feed_forward(tokens, width, config.mlp_ratio * width)


_FLOWERS = Config(widths=(128, 256, 512), depths=(2, 2, 4), dropout=0.1)

VARIANTS: dict[str, Factory] = {"HDiT-oxford-flowers": partial(HDiT, _FLOWERS)}

SMALL: dict[str, Factory] = {
    "HDiT-Ti/2": partial(
        HDiT,
        Config(
            widths=(64, 96),
            depths=(2, 1),
            patch=2,
            window=3,
            head=16,
            mapping_width=32,
            mapping_depth=1,
            classes=True,
        ),
    ),
}

OFFICIAL: Renames = (
    (r"^network\.", ""),
    (r"^mapping\.noise_features\.", "time_emb."),
    (r"^mapping\.noise\.", "time_in_proj."),
    (r"^mapping\.augmentation_features\.", "aug_emb."),
    (r"^mapping\.augmentation\.", "aug_in_proj."),
    (r"^mapping\.labels\.", "class_emb."),
    (r"^mapping\.norm1\.weight$", "mapping.in_norm.scale"),
    (r"^mapping\.norm2\.weight$", "mapping.out_norm.scale"),
    (r"^norm\.weight$", "out_norm.scale"),
    (r"^embed\.linear\.", "patch_in.proj."),
    (r"^head\.linear\.", "patch_out.proj."),
    (r"^(down|up)\.", r"\1_levels."),
    (r"^middle\.", "mid_level."),
    (r"^joins\.(\d+)\.share$", r"splits.\1.fac"),
    (r"^joins\.", "splits."),
    (r"^(merges|splits)\.(\d+)\.linear\.", r"\1.\2.proj."),
    (r"\.norm1\.", ".self_attn.norm."),
    (r"\.norm2\.", ".ff.norm."),
    (r"\.norm\.weight$", ".norm.scale"),
    (r"\.attention\.rotation\.", ".self_attn.pos_emb."),
    (r"\.attention\.scale$", ".self_attn.scale"),
    (r"\.attention\.qkv\.", ".self_attn.qkv_proj."),
    (r"\.attention\.project\.", ".self_attn.out_proj."),
    (r"^(mapping\.blocks\.\d+)\.feedforward\.", r"\1."),
    (r"\.feedforward\.", ".ff."),
    (r"\.expand\.", ".up_proj."),
    (r"\.contract\.", ".down_proj."),
)

FAMILY = Family(
    network=HDiT,
    task=PIXELS_DENOISED,
    official=OFFICIAL,
    variants=VARIANTS,
    small=SMALL,
)
