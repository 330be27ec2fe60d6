"""The U-Net of three resolutions of FCDM, DiCo and U-DiT, its head, and channel attention.

Letters: N batch, C_out channels out, H and W sides, D width of a level.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.family import Renames
from models.layers.modulation import ChannelNorm, Modulation, modulate


class Down(nn.Module):
    """3x3 convolution without bias to D_out/4 channels, then pixel-unshuffle.

    (N, D, H, W) -> (N, D_out, H/2, W/2)
    """

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out_width // 4, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(self.conv(x), 2)


class Up(nn.Module):
    """3x3 convolution without bias to 4 * D_out channels, then pixel-shuffle.

    (N, D, H, W) -> (N, D_out, 2H, 2W)
    """

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, 4 * out_width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), 2)


class UNet(nn.Module):
    """Blocks at three resolutions, down and up; each level up starts from a 1x1 convolution with its skip.

    (N, D, H, W) and a condition for each of the five levels -> (N, widths[4], H, W).

    Args:
        block: makes a block of a width; it is called with (x, c).
        widths: of the five levels down, down, middle, up, up. The last may differ from the first.
        depths: blocks in each of the five levels.
    """

    def __init__(
        self, block: Callable[[int], nn.Module], widths: Sequence[int], depths: Sequence[int]
    ) -> None:
        super().__init__()
        self.encoder1, self.encoder2, self.middle, self.decoder2, self.decoder1 = (
            nn.ModuleList(block(width) for _ in range(depth))
            for width, depth in zip(widths, depths, strict=True)
        )
        self.down1 = Down(widths[0], widths[1])
        self.down2 = Down(widths[1], widths[2])
        self.up2 = Up(widths[2], widths[1])
        self.fuse2 = nn.Conv2d(2 * widths[1], widths[3], 1)
        self.up1 = Up(widths[3], widths[0])
        self.fuse1 = nn.Conv2d(2 * widths[0], widths[4], 1)

    def levels(self) -> Iterator[tuple[nn.Module, int]]:
        """The modules of each level, with how many times smaller the sides of its images are."""
        yield from ((self.encoder1, 1), (self.encoder2, 2), (self.middle, 4))
        yield from ((self.fuse2, 2), (self.decoder2, 2), (self.fuse1, 1), (self.decoder1, 1))

    def forward(self, x: Tensor, conditions: Sequence[Tensor]) -> Tensor:
        skip1 = run_blocks(self.encoder1, x, conditions[0])  # (N, D, H, W)
        skip2 = run_blocks(self.encoder2, self.down1(skip1), conditions[1])  # (N, 2D, H/2, W/2)
        x = run_blocks(self.middle, self.down2(skip2), conditions[2])  # (N, 4D, H/4, W/4)
        x = self.fuse2(torch.cat([self.up2(x), skip2], dim=1))
        x = run_blocks(self.decoder2, x, conditions[3])  # (N, 2D, H/2, W/2)
        x = self.fuse1(torch.cat([self.up1(x), skip1], dim=1))
        return run_blocks(self.decoder1, x, conditions[4])  # (N, widths[4], H, W)


def run_blocks(blocks: nn.ModuleList, x: Tensor, c: object) -> Tensor:
    """Call blocks in a row, each with the same condition."""
    for block in blocks:
        x = block(x, c)
    return x


class ChannelAttention(nn.Module):
    """Scales each channel by a sigmoid of the image's average: (N, D, H, W) -> (N, D, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, h: Tensor) -> Tensor:
        return h * torch.sigmoid(self.mix(F.adaptive_avg_pool2d(h, 1)))


class Head(nn.Module):
    """Norm, modulation by the condition, 3x3 convolution: (N, D, H, W), (N, D) -> (N, C_out, H, W)."""

    def __init__(self, width: int, out_channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm()
        self.modulation = Modulation(width, count=2)
        self.conv = nn.Conv2d(width, out_channels, 3, padding=1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.modulation(c)[..., None, None]  # each (N, D, 1, 1)
        return self.conv(modulate(self.norm(x), shift, scale))


def require_odd(kernel: int) -> None:
    """Refuse a kernel without a middle. ValueError: names the odd neighbours."""
    if kernel < 1 or kernel % 2 == 0:
        near = f"{kernel - 1} or {kernel + 1}" if kernel > 1 else "1"
        raise ValueError(f"kernel: must be odd, got {kernel}; {near} would work")


UNET_KEYS: Renames = (  # names of the levels and their conditions in the releases
    (r"^condition(\d)\.time1\.", r"t_embedder_\1.mlp.0."),
    (r"^condition(\d)\.time2\.", r"t_embedder_\1.mlp.2."),
    (r"^condition(\d)\.labels\.", r"y_embedder_\1.embedding_table."),
    (r"^unet\.(en|de)coder", r"\1coder_level_"),
    (r"^unet\.middle\.", "latent."),
    (r"\.modulation\.linear\.", ".adaLN_modulation.1."),
)
BODY_KEYS: Renames = (  # of what stands between the levels in DiCo and U-DiT
    (r"^unet\.down1\.conv\.", "down1_2.body.0."),
    (r"^unet\.down2\.conv\.", "down2_3.body.0."),
    (r"^unet\.up2\.conv\.", "up3_2.body.0."),
    (r"^unet\.up1\.conv\.", "up2_1.body.0."),
    (r"^unet\.fuse", "reduce_chan_level"),
    (r"^head\.conv\.", "final_layer.out_proj."),
    (r"^head\.", "final_layer."),
)
