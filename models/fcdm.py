"""FCDM: a U-Net of ConvNeXt blocks with global response normalisation, conditioned at every level.

Source: "Reviving ConvNeXt for Efficient Convolutional Diffusion Models", CVPR 2026; sizes from its Table 2.
Letters: N batch, C latent channels, H and W latent sides, D width of a level.

In training, labels are dropped independently at each of the three levels, so that one image may be
conditional at one level and unconditional at another. The release does this; it is kept.
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
    modulate_addcmul,
    zero,
)
from models.task import Factory, Renames, Task


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int  # of the first level; the others are 2 and 4 times as wide
    depths: tuple[int, int, int, int, int]  # blocks down, down, middle, up, up
    kernel: int = 7  # of the depthwise convolution
    mlp_ratio: int = 3


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
    """(N, D, H, W), (N, D) -> (N, D, H, W)"""

    def __init__(self, width: int, kernel: int, mlp_ratio: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = ChannelNorm()
        self.modulation = Modulation(width, count=3)
        self.expand = nn.Conv2d(width, mlp_ratio * width, 1)
        self.response = GlobalResponseNorm(mlp_ratio * width)
        self.contract = nn.Conv2d(mlp_ratio * width, width, 1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(c)[..., None, None]  # each (N, D, 1, 1)
        h = modulate_addcmul(self.norm(self.depthwise(x)), shift, scale)
        h = self.contract(self.response(F.gelu(self.expand(h))))
        return x + gate * h


class FCDM(nn.Module):
    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        task.require_multiple(4, "the two downsamplings'")
        w1, w2, w3 = config.width, 2 * config.width, 4 * config.width
        self.drop1 = LabelDropout(task.num_classes)
        self.drop2 = LabelDropout(task.num_classes)
        self.drop3 = LabelDropout(task.num_classes)
        self.condition1 = Condition(w1, task.num_classes)
        self.condition2 = Condition(w2, task.num_classes)
        self.condition3 = Condition(w3, task.num_classes)
        self.stem = nn.Conv2d(task.in_channels, w1, 3, padding=1)
        self.unet = UNet(
            lambda width: Block(width, config.kernel, config.mlp_ratio),
            widths=(w1, w2, w3, w2, w1),
            depths=config.depths,
        )
        self.out = nn.Conv2d(w1, w1, 3, padding=1)
        self.head = Head(w1, task.out_channels)
        self._initialise()

    def _initialise(self) -> None:
        initialise(self)
        initialise_flat(self.stem)
        zero(self.head.modulation.linear, self.head.conv)
        for module in self.modules():
            if isinstance(module, Block):
                zero(module.modulation.linear)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        c1 = self.condition1(t, self.drop1(y))  # (N, D)
        c2 = self.condition2(t, self.drop2(y))  # (N, 2D)
        c3 = self.condition3(t, self.drop3(y))  # (N, 4D)

        x = self.unet(self.stem(x), (c1, c2, c3, c2, c1))  # (N, D, H, W)
        return self.head(self.out(x), c1)  # (N, C_out, H, W)


VARIANTS: dict[str, Factory] = {  # Table 2
    "FCDM-S": partial(FCDM, Config(width=128, depths=(2, 4, 8, 4, 2))),
    "FCDM-B": partial(FCDM, Config(width=256, depths=(2, 4, 8, 4, 2))),
    "FCDM-L": partial(FCDM, Config(width=512, depths=(2, 4, 8, 4, 2))),
    "FCDM-XL": partial(FCDM, Config(width=512, depths=(3, 6, 12, 6, 3))),
}

# From our names to those in the released checkpoints: regular expressions, each applied in this order.
# This way round, so that a key missing from a checkpoint can be named as its authors call it.
OFFICIAL: Renames = (
    (r"^condition(\d)\.time1\.", r"t_embedder_\1.mlp.0."),
    (r"^condition(\d)\.time2\.", r"t_embedder_\1.mlp.2."),
    (r"^condition(\d)\.labels\.", r"y_embedder_\1.embedding_table."),
    (r"^stem\.", "x_embedder."),
    (r"^unet\.(en|de)coder", r"\1coder_level_"),
    (r"^unet\.middle\.", "latent."),
    (r"^unet\.down1\.conv\.", "down1_2.conv.0."),
    (r"^unet\.down2\.conv\.", "down2_3.conv.0."),
    (r"^unet\.up2\.conv\.", "up3_2.conv.0."),
    (r"^unet\.up1\.conv\.", "up2_1.conv.0."),
    (r"^unet\.fuse", "reduce_chans_"),
    (r"^out\.", "output_layer."),
    (r"^head\.", "final_layer."),
    (r"\.modulation\.linear\.", ".adaLN_modulation.1."),
    (r"\.depthwise\.", ".dwconv."),
    (r"\.expand\.", ".pwconv1."),
    (r"\.contract\.", ".pwconv2."),
    (r"\.response\.", ".grn."),
)
