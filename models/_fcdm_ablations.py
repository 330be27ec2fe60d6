"""Blocks of FCDM's ablations, which have no released code.

Source: the tables of FCDM's paper (see models/fcdm.py), by number below.
Letters: N batch, H and W sides, D width of a level, E width of a text embedding, d channels of a head.

Kernels (Tables 6, 10) and asymmetric depths (14) leave no freedom. The printed MACs fix two full 3x3
convolutions at width 336 for the ResNet block (6), and for neighbourhood attention at width 416 (13) 4 D^2
per pixel for attention and 6 D^2 for the MLP; the order of norm and activation in the one and heads of 32 in
the other are our reading. So are the places of channel attention, of the feed-forward and of channel
attention without inverted bottleneck (6), each at a width that gives the printed MACs, and the whole of the
isotropic network (12), of which only 62 M parameters are printed. The uniform one (15) is built as stated, at
width 600, and counts 66.3 G instead of the printed 62.8. All were published for FCDM-L; at the other sizes
the width is in proportion, rounded down: our reading again. So is the network of Figure 7 with neither
response normalisation nor channel attention: the first is left out, and no width changes.

FCDM-L@na7 is masked attention, which works and trains on every device; FCDM-L@na7-flex and -natten name the
other back ends.

Text conditions (appendix H) replace the label table by an MLP over a pooled text embedding, given as y
(N, E). Its two layers with SiLU between them, as for timesteps, and a vector of zeros where training drops
the text, are our reading; sampling passes zeros for the unconditional half.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.kernels.neighbourhood import neighbourhood_attention, require_backend
from models.layers.conditions import FREQUENCIES, LABEL_DROPOUT, timestep_features
from models.layers.modulation import ChannelNorm, Modulation, modulate_addcmul

HEAD_WIDTH = 32  # of neighbourhood attention: our reading


class NeighbourhoodAttention(nn.Module):
    """Each pixel attends to the window around it: (N, D, H, W) -> (N, D, H, W)."""

    def __init__(self, width: int, window: int, backend: str) -> None:
        super().__init__()
        require_backend(backend)
        self.heads = width // HEAD_WIDTH
        self.window = window
        self.backend = backend
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x.permute(0, 2, 3, 1)).unflatten(3, (3, self.heads, -1))  # (N, H, W, 3, heads, d)
        q, k, v = qkv.unbind(3)
        x = neighbourhood_attention(q * HEAD_WIDTH**-0.5, k, v, self.window, self.backend)
        return self.project(x.flatten(3)).permute(0, 3, 1, 2)


class FeedforwardBlock(nn.Module):
    """A block, then a feed-forward with its own modulation: (N, D, H, W), (N, D) -> (N, D, H, W)."""

    def __init__(self, width: int, block: nn.Module, ratio: int) -> None:
        super().__init__()
        self.block = block
        self.norm = ChannelNorm()
        self.modulation = Modulation(width, count=3)
        self.expand = nn.Conv2d(width, ratio * width, 1)
        self.contract = nn.Conv2d(ratio * width, width, 1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        x = self.block(x, c)
        shift, scale, gate = self.modulation(c)[..., None, None]  # each (N, D, 1, 1)
        h = modulate_addcmul(self.norm(x), shift, scale)
        return x + gate * self.contract(F.gelu(self.expand(h)))


class ResNetBlock(nn.Module):
    """Two full convolutions: (N, D, H, W), (N, D) -> (N, D, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = ChannelNorm()
        self.modulation = Modulation(width, count=3)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(c)[..., None, None]  # each (N, D, 1, 1)
        h = self.conv1(F.gelu(modulate_addcmul(self.norm(x), shift, scale)))
        return x + gate * self.conv2(F.gelu(h))


class TextCondition(nn.Module):
    """Sum of a timestep embedding and a pooled text embedding: (N,), (N, E) -> (N, D)."""

    def __init__(self, width: int, text_width: int) -> None:
        super().__init__()
        self.time1 = nn.Linear(2 * FREQUENCIES, width)
        self.time2 = nn.Linear(width, width)
        self.text1 = nn.Linear(text_width, width)
        self.text2 = nn.Linear(width, width)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        dtype = self.time1.weight.dtype
        embedded: Tensor = self.time2(F.silu(self.time1(timestep_features(t).to(dtype))))
        return embedded + self.text2(F.silu(self.text1(y.to(dtype))))


class TextDropout(nn.Module):
    """In training mode, replaces each text by zeros with probability 0.1: (N, E) -> (N, E)."""

    def forward(self, y: Tensor) -> Tensor:
        if not self.training:
            return y
        dropped = torch.rand(len(y), 1, device=y.device) < LABEL_DROPOUT
        return y.masked_fill(dropped, 0)
