"""LDM-4: ADM's U-Net on latents of a quarter of the side, with a transformer block in place of its attention.

Source: arXiv:2112.10752; sizes and the class condition as released for ImageNet at 256 pixels.
Letters: N batch, C latent channels, H and W latent sides, D width of a level, E width of the embedded
timestep, K width of the embedded label, T tokens (H * W), S context tokens (1, the label).

The softmax over a single context token is 1: the second attention adds the same vector, made from the label,
to every token, and its queries, its keys and the norm before it change nothing. They are stored, computed
and counted, as in the release.

The released label table has a row for the null class, so labels were dropped in training; the rate of 0.1 is
our reading.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from models.arithmetic import Terms
from models.family import Factory, Family, Renames
from models.layers.conditions import LabelDropout, TimeEmbedding
from models.layers.initialisation import zero
from models.layers.stepped_unet import STEPPED_KEYS, ResBlock, SteppedUNet
from models.task import Task


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int
    multipliers: tuple[int, ...]  # of the width, for each level
    depth: int  # blocks a level on the way down
    attended: tuple[int, ...]  # levels with a transformer, from 0; level l has sides H / 2^l
    context: int  # width of the embedded label
    mlp_ratio: int = 4


class Condition(NamedTuple):
    """The argument of every layer: the blocks read the timestep, the transformers the label."""

    time: Tensor  # (N, E)
    context: Tensor  # (N, S, K)


class ShiftNorm(nn.Module):
    """Shift by the timestep, then group norm: (N, D, H, W), condition -> (N, D, H, W)."""

    def __init__(self, width: int, time_width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(time_width, width)
        self.norm = nn.GroupNorm(32, width)

    def forward(self, x: Tensor, c: Condition) -> Tensor:
        return self.norm(x + self.linear(F.silu(c.time))[..., None, None])


class Attention(nn.Module):
    """One head of width D, over tokens or context: (N, T, D), (N, S, K) -> (N, T, D)."""

    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(context, width, bias=False)
        self.value = nn.Linear(context, width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = self.query(x)[:, None], self.key(context)[:, None], self.value(context)[:, None]
        return self.out(F.scaled_dot_product_attention(q, k, v)[:, 0])


class Transformer(nn.Module):
    """Self-attention, attention to the context, a gated MLP: (N, D, H, W), condition -> (N, D, H, W)."""

    def __init__(self, width: int, context: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, width, eps=1e-6)
        self.enter = nn.Conv2d(width, width, 1)
        self.norm_self = nn.LayerNorm(width)
        self.attend_self = Attention(width, width)
        self.norm_context = nn.LayerNorm(width)
        self.attend_context = Attention(width, context)
        self.norm_mlp = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 2 * mlp_ratio * width)
        self.contract = nn.Linear(mlp_ratio * width, width)
        self.project = nn.Conv2d(width, width, 1)
        zero(self.project)

    def forward(self, x: Tensor, c: Condition) -> Tensor:
        h = self.enter(self.norm(x)).flatten(2).transpose(1, 2)  # (N, T, D)
        n = self.norm_self(h)
        h = h + self.attend_self(n, n)
        h = h + self.attend_context(self.norm_context(h), c.context)
        value, gate = self.expand(self.norm_mlp(h)).chunk(2, dim=-1)  # each (N, T, mlp_ratio * D)
        h = h + self.contract(value * F.gelu(gate))
        return x + self.project(h.transpose(1, 2).unflatten(2, x.shape[-2:]))


class Halve(nn.Module):
    """(N, D, H, W) and a condition, which is not read -> (N, D, H/2, W/2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.strided = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor, _c: Condition) -> Tensor:
        return self.strided(x)


class Double(nn.Module):
    """Nearest-neighbour upsampling, then a convolution: (N, D, H, W), condition -> (N, D, 2H, 2W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, _c: Condition) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class LDM(nn.Module):
    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        levels = len(config.multipliers)
        task.require_multiple(2 ** (levels - 1), "total stride")
        widths = [config.width * multiplier for multiplier in config.multipliers]
        embedded = 4 * config.width
        self.drop = LabelDropout(task.num_classes)
        self.time = TimeEmbedding(config.width, embedded)
        self.labels = nn.Embedding(task.num_classes + 1, config.context)
        self.stem = nn.Conv2d(task.in_channels, widths[0], 3, padding=1)
        self.unet = SteppedUNet(
            widths,
            config.depth,
            config.attended,
            block=lambda width, out_width: ResBlock(width, out_width, ShiftNorm(out_width, embedded)),
            attention=lambda width: Transformer(width, config.context, config.mlp_ratio),
            down=Halve,
            up=Double,
        )
        self.norm = nn.GroupNorm(32, widths[0])
        self.head = nn.Conv2d(widths[0], task.out_channels, 3, padding=1)
        zero(self.head)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        c = Condition(self.time(t), self.labels(self.drop(y))[:, None])  # (N, E) and (N, 1, K)
        x = self.unet(self.stem(x), c)  # (N, D, H, W)
        return self.head(F.silu(self.norm(x)))  # (N, C_out, H, W)

    @staticmethod
    def closed_form(terms: Terms, config: Config, task: Task) -> None:
        embedded = 4 * config.width

        def block(here: int, width: int, out_width: int) -> None:
            terms.res_block(here, here, width, out_width)
            terms.linear("shift", 1, embedded, out_width)

        def transformer(here: int, width: int) -> None:
            for _ in range(4):  # a group norm, then three layer norms
                terms.affine_norm(here, width)
            terms.linear("transformers' ends", here, width, 2 * width)
            terms.self_attention(here, width)
            terms.linear("attention projections", here, width, 2 * width)
            terms.linear("attention projections", 1, config.context, 2 * width)
            terms.fused_attention(here, 1, width)
            terms.gated_feed_forward(here, width, config.mlp_ratio * width)

        terms.time_embedding(config.width, embedded, embedded)
        terms.stepped_unet(
            task,
            [config.width * multiplier for multiplier in config.multipliers],
            config.depth,
            config.attended,
            block=block,
            attention=transformer,
            down=lambda here, width: terms.conv("down and up", here // 4, width, width, 3),
            up=lambda here, width: terms.conv("down and up", 4 * here, width, width, 3),
        )


VARIANTS: dict[str, Factory] = {
    "LDM-4": partial(
        LDM, Config(width=192, multipliers=(1, 2, 3, 5), depth=2, attended=(1, 2, 3), context=512)
    ),
}

OFFICIAL: Renames = (
    *STEPPED_KEYS,
    (r"\.strided\.", ".op."),
    (r"\.enter\.", ".proj_in."),
    (r"\.norm_self\.", ".transformer_blocks.0.norm1."),
    (r"\.norm_context\.", ".transformer_blocks.0.norm2."),
    (r"\.norm_mlp\.", ".transformer_blocks.0.norm3."),
    (r"\.attend_self\.", ".transformer_blocks.0.attn1."),
    (r"\.attend_context\.", ".transformer_blocks.0.attn2."),
    (r"\.expand\.", ".transformer_blocks.0.ff.net.0.proj."),
    (r"\.contract\.", ".transformer_blocks.0.ff.net.2."),
    (r"\.query\.", ".to_q."),
    (r"\.key\.", ".to_k."),
    (r"\.value\.", ".to_v."),
    (r"\.out\.", ".to_out.0."),
    (r"^labels\.", "cond_stage_model.embedding."),
    (r"^(?!cond_stage_model\.)", "model.diffusion_model."),
)

FAMILY = Family(
    network=LDM,
    task=Task(latent_size=64, in_channels=3, learn_sigma=False, factor=4),
    official=OFFICIAL,
    variants=VARIANTS,
)
