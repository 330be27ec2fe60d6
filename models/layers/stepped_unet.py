"""The U-Net of the DDPM line, of ADM and LDM: each step down is concatenated to the input of a step up.

Letters: N batch, D width of a level, H and W its sides.
"""

from collections.abc import Callable, Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.family import Renames
from models.layers.initialisation import zero
from models.layers.unet import run_blocks


def identity(x: Tensor) -> Tensor:
    return x


class ResBlock(nn.Module):
    """Two normed 3x3 convolutions with a skip: (N, D, H, W), condition -> (N, D_out, H', W').

    The second convolution starts at zero.

    Args:
        width: D.
        out_width: D_out.
        conditioned: the second norm, called with (h, condition); the first does not see the condition.
        resample: halves or doubles the sides, before the first convolution and in the skip.
        dropout: of the second convolution's input, in training.
    """

    def __init__(
        self,
        width: int,
        out_width: int,
        conditioned: nn.Module,
        resample: Callable[[Tensor], Tensor] = identity,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(32, width)
        self.resample = resample
        self.conv1 = nn.Conv2d(width, out_width, 3, padding=1)
        self.norm2 = conditioned
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_width, out_width, 3, padding=1)
        self.skip = nn.Identity() if width == out_width else nn.Conv2d(width, out_width, 1)
        zero(self.conv2)

    def forward(self, x: Tensor, c: object) -> Tensor:
        h = self.conv1(self.resample(F.silu(self.norm1(x))))
        h = self.conv2(self.dropout(F.silu(self.norm2(h, c))))
        return self.skip(self.resample(x)) + h


class Step(nn.ModuleList):
    """Layers in a row that all take the condition: (N, D, H, W), condition -> (N, D_out, H', W')."""

    def forward(self, x: Tensor, c: object) -> Tensor:
        return run_blocks(self, x, c)


class SteppedUNet(nn.Module):
    """(N, widths[0], H, W) and a condition, passed to every layer unchanged -> (N, widths[0], H, W).

    Args:
        widths: of each level, the finest first; the sides are halved between two levels.
        depth: blocks per level on the way down; on the way up it is one more.
        attended: the levels, counted from 0, with attention after each block; the middle always has it.
        block, attention, down, up: make a layer, called with (x, condition): of a width, the block of a
            width in and a width out.
    """

    def __init__(
        self,
        widths: Sequence[int],
        depth: int,
        attended: Collection[int],
        block: Callable[[int, int], nn.Module],
        attention: Callable[[int], nn.Module],
        down: Callable[[int], nn.Module],
        up: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        last = len(widths) - 1
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        width = widths[0]
        skips = [width]
        for level, out_width in enumerate(widths):
            for _ in range(depth):
                layers = [block(width, out_width)]
                if level in attended:
                    layers.append(attention(out_width))
                self.encoder.append(Step(layers))
                width = out_width
                skips.append(width)
            if level != last:
                self.encoder.append(Step([down(width)]))
                skips.append(width)
        self.middle = Step([block(width, width), attention(width), block(width, width)])
        for level, out_width in reversed(list(enumerate(widths))):
            for index in range(depth + 1):
                layers = [block(width + skips.pop(), out_width)]
                if level in attended:
                    layers.append(attention(out_width))
                if level > 0 and index == depth:
                    layers.append(up(out_width))
                self.decoder.append(Step(layers))
                width = out_width

    def forward(self, x: Tensor, c: object) -> Tensor:
        skips = [x]
        for step in self.encoder:
            x = step(x, c)
            skips.append(x)
        x = self.middle(x, c)
        for step in self.decoder:
            x = step(torch.cat([x, skips.pop()], dim=1), c)
        return x


# Names in the releases of ADM and LDM. A network with `time`, `stem`, `unet`, `norm` and `head` is renamed by
# these; its own layers within the steps come after.
STEPPED_KEYS: Renames = (
    (r"^time\.linear1\.", "time_embed.0."),
    (r"^time\.linear2\.", "time_embed.2."),
    (r"^stem\.", "input_blocks.0.0."),
    # the stem is their first input block; no network has as many as 32
    *((rf"^unet\.encoder\.{i}\.", f"input_blocks.{i + 1}.") for i in range(32)),
    (r"^unet\.middle\.", "middle_block."),
    (r"^unet\.decoder\.", "output_blocks."),
    (r"^norm\.", "out.0."),
    (r"^head\.", "out.2."),
    (r"\.norm1\.", ".in_layers.0."),
    (r"\.conv1\.", ".in_layers.2."),
    (r"\.norm2\.linear\.", ".emb_layers.1."),
    (r"\.norm2\.norm\.", ".out_layers.0."),
    (r"\.conv2\.", ".out_layers.3."),
    (r"\.skip\.", ".skip_connection."),
    (r"\.project\.", ".proj_out."),
)
