"""DiCo: a U-Net of depthwise 3x3 blocks with compact channel attention.

Source: arXiv:2505.11196; sizes from its Table 5, blocks from its Figure 4.
Letters: N batch, C latent channels, H and W latent sides, D width of a level.

The last decoder level keeps the doubled width after its skip is joined, and takes the second level's
condition. In training one draw drops the labels of all three tables.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import (
    ChannelNorm,
    Condition,
    Head,
    LabelDropout,
    Modulation,
    UNet,
    initialise,
    initialise_flat,
    modulate,
    zero,
)
from models.task import Factory, Renames, Task


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int  # of the first level; the others are 2 and 4 times as wide
    depths: tuple[int, int, int, int, int]  # blocks down, down, middle, up, up
    mlp_ratio: int = 2
    kernel: int = 3  # of the depthwise convolution


class ChannelAttention(nn.Module):
    """Scales each channel by a sigmoid of the image's average: (N, D, H, W) -> (N, D, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, h: Tensor) -> Tensor:
        return h * torch.sigmoid(self.mix(F.adaptive_avg_pool2d(h, 1)))


class Block(nn.Module):
    """(N, D, H, W), (N, D) -> (N, D, H, W)"""

    def __init__(self, width: int, kernel: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm()
        self.norm2 = ChannelNorm()
        self.modulation = Modulation(width, count=6)
        self.mix_in = nn.Conv2d(width, width, 1)
        self.depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.attention = ChannelAttention(width)
        self.mix_out = nn.Conv2d(width, width, 1)
        self.expand = nn.Conv2d(width, mlp_ratio * width, 1)
        self.contract = nn.Conv2d(mlp_ratio * width, width, 1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)[..., None, None]
        h = self.mix_in(modulate(self.norm1(x), shift1, scale1))
        x = x + gate1 * self.mix_out(self.attention(F.gelu(self.depthwise(h))))
        h = self.expand(modulate(self.norm2(x), shift2, scale2))
        return x + gate2 * self.contract(F.gelu(h))


class DiCo(nn.Module):
    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        task.require_multiple(4, "the two downsamplings'")
        w1, w2, w3 = config.width, 2 * config.width, 4 * config.width
        self.drop = LabelDropout(task.num_classes)
        self.condition1 = Condition(w1, task.num_classes)
        self.condition2 = Condition(w2, task.num_classes)
        self.condition3 = Condition(w3, task.num_classes)
        self.stem = nn.Conv2d(task.in_channels, w1, 3, padding=1)
        self.unet = UNet(
            lambda width: Block(width, config.kernel, config.mlp_ratio),
            widths=(w1, w2, w3, w2, w2),
            depths=config.depths,
        )
        self.head = Head(w2, task.out_channels)
        self._initialise()

    def _initialise(self) -> None:
        initialise(self)
        initialise_flat(self.stem)
        zero(self.head.modulation.linear, self.head.conv)
        for module in self.modules():
            if isinstance(module, Block):
                zero(module.modulation.linear)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        y = self.drop(y)
        c1 = self.condition1(t, y)  # (N, D)
        c2 = self.condition2(t, y)  # (N, 2D)
        c3 = self.condition3(t, y)  # (N, 4D)

        x = self.unet(self.stem(x), (c1, c2, c3, c2, c2))  # (N, 2D, H, W)
        return self.head(x, c2)  # (N, C_out, H, W)


VARIANTS: dict[str, Factory] = {  # Table 5
    "DiCo-S": partial(DiCo, Config(width=128, depths=(5, 4, 4, 4, 4))),
    "DiCo-B": partial(DiCo, Config(width=256, depths=(5, 4, 4, 4, 4))),
    "DiCo-L": partial(DiCo, Config(width=352, depths=(9, 8, 9, 8, 9))),
    "DiCo-XL": partial(DiCo, Config(width=416, depths=(9, 9, 10, 9, 9))),
    "DiCo-H": partial(DiCo, Config(width=416, depths=(14, 12, 10, 12, 14), mlp_ratio=4)),
}

# From our names to those in the released checkpoints: regular expressions, each applied in this order.
# This way round, so that a key missing from a checkpoint can be named as its authors call it.
OFFICIAL: Renames = (
    (r"^stem\.", "x_embedder.proj."),
    (r"^condition(\d)\.time1\.", r"t_embedder_\1.mlp.0."),
    (r"^condition(\d)\.time2\.", r"t_embedder_\1.mlp.2."),
    (r"^condition1\.labels\.", "y_embedder.embedding_table_0."),
    (r"^condition2\.labels\.", "y_embedder.embedding_table_1."),
    (r"^condition3\.labels\.", "y_embedder.embedding_table_2."),
    (r"^unet\.(en|de)coder", r"\1coder_level_"),
    (r"^unet\.middle\.", "latent."),
    (r"^unet\.down1\.conv\.", "down1_2.body.0."),
    (r"^unet\.down2\.conv\.", "down2_3.body.0."),
    (r"^unet\.up2\.conv\.", "up3_2.body.0."),
    (r"^unet\.up1\.conv\.", "up2_1.body.0."),
    (r"^unet\.fuse", "reduce_chan_level"),
    (r"^head\.conv\.", "final_layer.out_proj."),
    (r"^head\.", "final_layer."),
    (r"\.modulation\.linear\.", ".adaLN_modulation.1."),
    (r"\.mix_in\.", ".conv1."),
    (r"\.depthwise\.", ".conv2."),
    (r"\.mix_out\.", ".conv3."),
    (r"\.expand\.", ".conv4."),
    (r"\.contract\.", ".conv5."),
    (r"\.attention\.mix\.", ".ca.1."),
)
