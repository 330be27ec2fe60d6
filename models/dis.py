"""DiS: patches scanned in both directions by Mamba's mixers, with long skips between them.

Source: arXiv:2402.05608; sizes, initial weights and what the paper leaves open from its release.
Letters: N batch, C latent channels, H and W latent sides, P patch side, T tokens (2 + H/P * W/P), D width.

The condition is two tokens before the patches and the modulation of the head; blocks have neither attention
nor feed-forward. S is 368 wide, not 384. The release does not set the steps of the backward direction: they
keep PyTorch's weights and a bias of zero, and so start larger than those of the forward direction. Our
readings: the head keeps PyTorch's initial weights, labels are dropped as in DiT, and stochastic depth grows
linearly from 0 in the first block to 0.1 in the last.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.arithmetic import Terms
from models.family import Factory, Family, Renames
from models.kernels.selective_scan import MAMBA_SSM, Backend
from models.layers.conditions import LabelDropout, timestep_features
from models.layers.mamba import MAMBA_KEYS, Mamba, StateSpace, initialise_mamba
from models.layers.transformer import PatchHead, unpatchify
from models.task import LATENTS, Task


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int
    depth: int  # even: depth/2 blocks before and depth/2 after one in the middle
    patch: int = 2
    kernel: int = 4  # of the causal convolutions
    depth_dropout: float = 0.1  # of the last block
    backend: Backend = "auto"  # of the scans


class StochasticDepth(nn.Module):
    """In training mode, drops a branch in a share `rate` of the images: (N, T, D) -> (N, T, D)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = torch.rand(len(x), device=x.device) >= self.rate
        return x * (kept / (1 - self.rate)).to(x.dtype)[:, None, None]


class BidirectionalMamba(Mamba):
    """A mixer in both directions: (N, T, D) -> (N, T, D)."""

    def __init__(self, width: int, kernel: int, backend: Backend) -> None:
        super().__init__(width, kernel, backend)
        self.backwards = StateSpace(self.inner, self.rank, kernel, backend)

    def forward(self, x: Tensor) -> Tensor:
        u, z = self.project_in(x).chunk(2, dim=2)  # each (N, T, 2D)
        return self.project_out(self.forwards(u, z) + self.backwards(u.flip(1), z.flip(1)).flip(1))


class Block(nn.Module):
    """The last block's output and the sum before it: (N, T, D), (N, T, D) -> both for the next block."""

    def __init__(self, width: int, kernel: int, drop: float, backend: Backend) -> None:
        super().__init__()
        self.drop = StochasticDepth(drop)
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.mixer = BidirectionalMamba(width, kernel, backend)

    def forward(self, h: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        total = total + self.drop(h)
        return self.mixer(self.norm(total)), total


class SkipBlock(Block):
    """A block after a linear join with an earlier output: (N, T, D) three times -> (N, T, D) twice."""

    def __init__(self, width: int, kernel: int, drop: float, backend: Backend) -> None:
        super().__init__(width, kernel, drop, backend)
        self.fuse = nn.Linear(2 * width, width)

    def forward(self, h: Tensor, total: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(self.fuse(torch.cat([h, skip], dim=2)), total)


class DiS(nn.Module):
    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        MAMBA_SSM.require(config.backend)
        if config.depth % 2:
            raise ValueError(
                f"depth: must be even, half before the middle and half after, got {config.depth}"
            )
        width, half = config.width, config.depth // 2
        self.patch, self.grid = config.patch, task.grid(config.patch)
        self.drop = LabelDropout(task.num_classes)
        self.embed = nn.Conv2d(task.in_channels, width, config.patch, stride=config.patch)
        self.time1 = nn.Linear(width, 4 * width)
        self.time2 = nn.Linear(4 * width, width)
        self.labels = nn.Embedding(task.num_classes + 1, width)
        self.positions = nn.Parameter(torch.zeros(1, 2 + self.grid[0] * self.grid[1], width))
        drops = [config.depth_dropout * i / config.depth for i in range(config.depth + 1)]
        self.encoder = nn.ModuleList(Block(width, config.kernel, d, config.backend) for d in drops[:half])
        self.middle = nn.ModuleList([Block(width, config.kernel, drops[half], config.backend)])
        self.decoder = nn.ModuleList(
            SkipBlock(width, config.kernel, d, config.backend) for d in drops[half + 1 :]
        )
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.head = PatchHead(width, config.patch, task.out_channels)
        initialise_mamba(self, config.depth)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        features = timestep_features(t, self.time1.in_features // 2).to(self.time1.weight.dtype)
        time = self.time2(F.silu(self.time1(features)))  # (N, D)
        label = self.labels(self.drop(y))  # (N, D)
        patches = self.embed(x).flatten(2).transpose(1, 2)
        h = torch.cat([label[:, None], time[:, None], patches], dim=1) + self.positions  # (N, T, D)

        total, skips = torch.zeros_like(h), []
        for block in self.encoder:
            h, total = block(h, total)
            skips.append(h)
        for block in self.middle:
            h, total = block(h, total)
        for block in self.decoder:
            h, total = block(h, total, skips.pop())

        x = self.head(self.norm(total + h), time + label)  # (N, T, P*P*C_out)
        return unpatchify(x[:, 2:], self.grid, self.patch)  # (N, C_out, H, W)

    @staticmethod
    def closed_form(terms: Terms, config: Config, task: Task) -> None:
        width = config.width
        terms.time_embedding(width, 4 * width, width)
        patches = terms.patch_embedding(task, width, config.patch)
        tokens = 2 + patches
        for _ in range(config.depth + 1):
            terms.mamba(tokens, width, config.kernel, directions=2)
        for _ in range(config.depth // 2):
            terms.join(tokens, width)
        terms.patch_head(tokens, width, config.patch**2 * task.out_channels, patches)


_SIZES = {  # width, depth
    "DiS-S/2": (368, 24),
    "DiS-B/2": (768, 24),
    "DiS-M/2": (768, 48),
    "DiS-L/2": (1024, 48),
    "DiS-H/2": (1536, 48),
}

VARIANTS: dict[str, Factory] = {
    name: partial(DiS, Config(width=width, depth=depth)) for name, (width, depth) in _SIZES.items()
}
OFFICIAL: Renames = (
    (r"^positions$", "pos_embed"),
    (r"^embed\.", "patch_embed.proj."),
    (r"^time1\.", "time_embed.0."),
    (r"^time2\.", "time_embed.2."),
    (r"^labels\.", "label_emb.embedding_table."),
    (r"^encoder\.", "in_blocks."),
    (r"^middle\.0\.", "mid_block."),
    (r"^decoder\.", "out_blocks."),
    (r"^norm\.", "norm_f."),
    (r"^head\.", "final_layer."),
    (r"\.modulation\.linear\.", ".adaLN_modulation.1."),
    (r"\.fuse\.", ".skip_linear."),
    *MAMBA_KEYS,
    (r"\.backwards\.decay$", ".A_b_log"),
    (r"\.backwards\.skip$", ".D_b"),
    (r"\.backwards\.conv\.", ".conv1d_b."),
    (r"\.backwards\.select\.", ".x_proj_b."),
    (r"\.backwards\.step\.", ".dt_proj_b."),
)

FAMILY = Family(network=DiS, task=LATENTS, official=OFFICIAL, variants=VARIANTS, package=MAMBA_SSM)
