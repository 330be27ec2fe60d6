"""U-ViT: a transformer over tokens of time, label and patches, with long skips between its halves.

Source: arXiv:2209.12152; the ImageNet sizes, M and L on 64 x 64 pixels, L and H on latents.
Letters: N batch, C latent channels, H and W latent sides, P patch side, T tokens (H/P * W/P + 2), D width.

Published without a variance. On latents t runs from 1 to 1000; on pixels it is 999 times a continuous time.
Positions are learned, so a model works at the latent size that it was built for only.

Labels are not dropped here: the published data sets return the null class themselves, with probability 0.15
for L and 0.1 for H, and never on pixels, where there is no null class. Under autocast the release runs
attention in float32; here it runs in the type of its inputs.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.arithmetic import Terms
from models.family import Factory, Family, Renames
from models.layers.conditions import timestep_features
from models.layers.transformer import BLOCK_KEYS, Attention
from models.task import LATENTS_PLAIN, Task


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int
    depth: int  # half before and half after one more block in the middle
    heads: int
    patch: int
    mlp_ratio: int = 4
    smoothing: bool = True  # a 3x3 convolution over the output image
    null_class: bool = True  # a label after the classes


class Block(nn.Module):
    """(N, T, D) -> (N, T, D)"""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, qkv_bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, mlp_ratio * width)
        self.contract = nn.Linear(mlp_ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.contract(F.gelu(self.expand(self.norm2(x))))


class SkipBlock(Block):
    """A block after a linear join with an earlier block's output: (N, T, D), (N, T, D) -> (N, T, D)."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__(width, heads, mlp_ratio)
        self.join = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:  # type: ignore[override]  # one input more
        return super().forward(self.join(torch.cat([x, skip], dim=-1)))


class UViT(nn.Module):
    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        self.patch, self.grid = config.patch, task.grid(config.patch)
        self.width = config.width
        self.embed = nn.Conv2d(task.in_channels, config.width, config.patch, stride=config.patch)
        self.labels = nn.Embedding(task.num_classes + config.null_class, config.width)
        self.positions = nn.Parameter(torch.empty(1, self.grid[0] * self.grid[1] + 2, config.width))
        sizes = (config.width, config.heads, config.mlp_ratio)
        self.encoder = nn.ModuleList(Block(*sizes) for _ in range(config.depth // 2))
        self.middle = nn.ModuleList([Block(*sizes)])
        self.decoder = nn.ModuleList(SkipBlock(*sizes) for _ in range(config.depth // 2))
        self.norm = nn.LayerNorm(config.width)
        self.project = nn.Linear(config.width, config.patch**2 * task.out_channels)
        self.smooth = (
            nn.Conv2d(task.out_channels, task.out_channels, 3, padding=1)
            if config.smoothing
            else nn.Identity()
        )
        self._initialise()

    def _initialise(self) -> None:
        # N(0, 0.02), which the release truncates at +-2, 100 standard deviations; convolutions and the label
        # table keep torch's initial values, and no layer starts at zero
        nn.init.normal_(self.positions, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        patches = self.embed(x).flatten(2).transpose(1, 2)  # (N, H/P * W/P, D)
        time = timestep_features(t, self.width // 2).to(patches.dtype)  # (N, D), no MLP
        x = torch.cat([self.labels(y)[:, None], time[:, None], patches], dim=1) + self.positions  # (N, T, D)

        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
        for block in self.middle:
            x = block(x)
        for block in self.decoder:
            x = block(x, skips.pop())

        x = self.project(self.norm(x))[:, 2:]  # (N, H/P * W/P, P*P*C_out), without label and time
        x = x.reshape(len(x), *self.grid, self.patch, self.patch, -1).permute(0, 5, 1, 3, 2, 4)
        return self.smooth(x.flatten(4, 5).flatten(2, 3))  # (N, C_out, H, W)

    @staticmethod
    def closed_form(terms: Terms, config: Config, task: Task) -> None:
        width = config.width
        terms.timestep_features(width // 2)
        tokens = 2 + terms.patch_embedding(task, width, config.patch)
        for _ in range(2 * (config.depth // 2) + 1):
            terms.affine_norm(tokens, width)
            terms.self_attention(tokens, width)
            terms.affine_norm(tokens, width)
            terms.feed_forward(tokens, width, config.mlp_ratio)
        for _ in range(config.depth // 2):
            terms.join(tokens, width)
        terms.affine_norm(tokens, width)
        terms.linear("head", tokens, width, config.patch**2 * task.out_channels)
        if config.smoothing:
            terms.conv("head", task.height * task.width, task.out_channels, task.out_channels, 3)


_L = partial(Config, width=1024, depth=20, heads=16)
_H = partial(Config, width=1152, depth=28, heads=16, smoothing=False)

VARIANTS: dict[str, Factory] = {  # patch 2 for 256 pixels, 4 for 512
    **{f"U-ViT-L/{patch}": partial(UViT, _L(patch=patch)) for patch in (2, 4)},
    **{f"U-ViT-H/{patch}": partial(UViT, _H(patch=patch)) for patch in (2, 4)},
}
PIXEL_VARIANTS: dict[str, Factory] = {  # on images of 64 x 64; the suffix is ours
    "U-ViT-M/4-img64": partial(UViT, Config(width=768, depth=16, heads=12, patch=4, null_class=False)),
    "U-ViT-L/4-img64": partial(UViT, _L(patch=4, null_class=False)),
}

OFFICIAL: Renames = (
    (r"^positions$", "pos_embed"),
    (r"^embed\.", "patch_embed.proj."),
    (r"^labels\.", "label_emb."),
    (r"^encoder\.", "in_blocks."),
    (r"^middle\.0\.", "mid_block."),
    (r"^decoder\.", "out_blocks."),
    (r"^project\.", "decoder_pred."),
    (r"^smooth\.", "final_layer."),
    (r"\.join\.", ".skip_linear."),
    *BLOCK_KEYS,
)

FAMILY = Family(
    network=UViT,
    task=LATENTS_PLAIN,
    tasks={f"U-ViT-{size}/4": LATENTS_PLAIN.at(512, 512) for size in "LH"},
    official=OFFICIAL,
    variants=VARIANTS,
)
PIXELS = Family(
    network=UViT,
    task=Task(latent_size=64, in_channels=3, learn_sigma=False, factor=1),
    official=OFFICIAL,
    variants=PIXEL_VARIANTS,
)
