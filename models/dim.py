"""DiM: one long scan per block, along rows and columns in turn, over patches with learned cells between them.

Source: arXiv:2405.14224; what the paper leaves open from its release.
Letters: N batch, C latent channels, H and W latent sides, P patch side, D width, G grid cells, T tokens.

The grid is (H/P + 3) x (W/P + 3): the patches, three columns on their right and three rows below them, so
that a scan passes learned cells where it turns. Before its G cells come the time, the label and three more
learned tokens, T = 5 + G. A skip joins two blocks at equal distances before and after the middle.

Our readings: one draw drops a label in both tables; the head and the modulation keep PyTorch's initial
weights, with biases of zero. The releases for 256 and 512 pixels fill the rows below differently; above 256
patches we do as the one for 512.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from models.arithmetic import Terms
from models.family import Factory, Family, Renames
from models.kernels.selective_scan import MAMBA_SSM, Backend
from models.layers.conditions import Condition, LabelDropout, timestep_features
from models.layers.mamba import MAMBA_KEYS, Mamba, initialise_mamba
from models.layers.modulation import Modulation, modulate
from models.layers.transformer import PatchHead, unpatchify
from models.task import LATENTS_PLAIN, Task

PADS = 3  # columns and rows of learned cells, and learned tokens before the grid
FRONT = 2 + PADS  # tokens before the grid


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int
    depth: int  # odd: one block in the middle, equal numbers before and after it
    patch: int = 2
    kernel: int = 3  # of the causal convolutions
    backend: Backend = "auto"  # of the scans


def along(x: Tensor, grid: tuple[int, int], order: int) -> Tensor:
    """Reorder cells from rows to an order: 0 rows, 1 rows reversed, 2 columns, 3 columns reversed.

    (N, T, D) -> (N, T, D); the tokens before the grid stay.
    """
    front, cells = x[:, :FRONT], x[:, FRONT:]
    if order >= 2:
        cells = cells.unflatten(1, grid).transpose(1, 2).flatten(1, 2)
    return torch.cat([front, cells.flip(1) if order % 2 else cells], dim=1)


def along_rows(x: Tensor, grid: tuple[int, int], order: int) -> Tensor:
    """Inverse of `along`: (N, T, D) -> (N, T, D)."""
    front, cells = x[:, :FRONT], x[:, FRONT:]
    cells = cells.flip(1) if order % 2 else cells
    if order >= 2:
        cells = cells.unflatten(1, grid[::-1]).transpose(1, 2).flatten(1, 2)
    return torch.cat([front, cells], dim=1)


class Block(nn.Module):
    """Tokens and three vectors of the condition: (N, T, D), (3, N, D) -> (N, T, D)."""

    def __init__(self, width: int, kernel: int, backend: Backend, grid: tuple[int, int], order: int) -> None:
        super().__init__()
        self.grid, self.order = grid, order
        self.offsets = nn.Parameter(torch.randn(3, width) * width**-0.5)
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.mixer = Mamba(width, kernel, backend)

    def forward(self, x: Tensor, shared: Tensor) -> Tensor:
        shift, scale, gate = (shared + self.offsets[:, None])[:, :, None]  # each (N, 1, D)
        h = along(modulate(self.norm(x), shift, scale), self.grid, self.order)
        return x + (1 + gate) * along_rows(self.mixer(h), self.grid, self.order)


class SkipBlock(Block):
    """A block after a linear join with an earlier output: (N, T, D), (3, N, D), (N, T, D) -> (N, T, D)."""

    def __init__(self, width: int, kernel: int, backend: Backend, grid: tuple[int, int], order: int) -> None:
        super().__init__(width, kernel, backend, grid, order)
        self.keep = nn.Linear(width, width)
        self.join = nn.Linear(width, width)

    def forward(self, x: Tensor, shared: Tensor, skip: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(self.keep(x) + self.join(skip), shared)


class Padding(nn.Module):
    """Learned cells right of the patches and below them: (N, D, H/P, W/P) -> (N, D, H/P + 3, W/P + 3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cells = nn.Parameter(torch.empty(1, width, PADS))
        nn.init.normal_(self.cells, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        right = self.cells[:, :, None].expand(len(x), -1, height, -1)  # one vector per column
        if height * width <= 256:
            below = self.cells[..., None].expand(-1, -1, -1, width + PADS)  # one vector per row
        else:  # all three in turn, row by row
            below = self.cells.repeat(1, 1, width + PADS).unflatten(2, (PADS, width + PADS))
        return torch.cat([torch.cat([x, right], dim=3), below.expand(len(x), -1, -1, -1)], dim=2)


class DiM(nn.Module):
    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        MAMBA_SSM.require(config.backend)
        if config.depth % 2 == 0:
            raise ValueError(f"depth: must be odd, since one block is the middle, got {config.depth}")
        width, last = config.width, config.depth - 1
        self.patch, self.middle = config.patch, config.depth // 2
        self.patches = task.grid(config.patch)
        self.grid = (self.patches[0] + PADS, self.patches[1] + PADS)
        self.drop = LabelDropout(task.num_classes)
        self.embed = nn.Conv2d(task.in_channels, width, config.patch, stride=config.patch)
        self.labels = nn.Embedding(task.num_classes + 1, width)
        self.positions = nn.Parameter(torch.zeros(1, 2 + self.patches[0] * self.patches[1], width))
        self.smooth_in = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.padding = Padding(width)
        self.front = nn.Parameter(torch.empty(1, PADS, width))
        self.condition = Condition(width, task.num_classes)
        self.modulation = Modulation(width, count=3)
        self.blocks = nn.ModuleList(
            (SkipBlock if i > self.middle else Block)(
                width, config.kernel, config.backend, self.grid, order=min(i, last - i) % 4
            )
            for i in range(config.depth)
        )
        self.smooth_out = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.head = PatchHead(width, config.patch, task.out_channels, nn.RMSNorm(width, eps=1e-5))
        initialise_mamba(self, config.depth)
        nn.init.normal_(self.front, std=0.02)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        y = self.drop(y)
        time = timestep_features(t, self.front.shape[2] // 2).to(self.front.dtype)  # (N, D)
        label = self.labels(y)  # (N, D)
        x = torch.cat([time[:, None], label[:, None], self.embed(x).flatten(2).transpose(1, 2)], dim=1)
        x = x + self.positions

        cells = x[:, 2:].transpose(1, 2).unflatten(2, self.patches)  # (N, D, H/P, W/P)
        cells = self.padding(self.smooth_in(cells)).flatten(2).transpose(1, 2)  # (N, G, D)
        x = torch.cat([x[:, :2], self.front.expand(len(x), -1, -1), cells], dim=1)  # (N, T, D)

        shared = self.modulation(self.condition(t, y))  # (3, N, D)
        skips: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            x = block(x, shared, skips.pop()) if i > self.middle else block(x, shared)
            if 0 < i <= self.middle:
                skips.append(x)

        cells = x[:, FRONT:].transpose(1, 2).unflatten(2, self.grid)[:, :, :-PADS, :-PADS]
        x = self.smooth_out(cells).flatten(2).transpose(1, 2)
        return unpatchify(self.head(x, time + label), self.patches, self.patch)  # (N, C_out, H, W)

    @staticmethod
    def closed_form(terms: Terms, config: Config, task: Task) -> None:
        width = config.width
        rows, columns = task.grid(config.patch)
        terms.timestep_features(width // 2)
        terms.condition(width)
        terms.modulation(width, 3)
        patches = terms.patch_embedding(task, width, config.patch)
        terms.depthwise(patches, width, 9)
        tokens = FRONT + (rows + PADS) * (columns + PADS)
        for _ in range(config.depth):
            terms.modulate(tokens, width)
            terms.mamba(tokens, width, config.kernel)
            terms.gate(tokens, width)
        for _ in range(config.depth // 2):
            terms.join(tokens, width)
        terms.depthwise(patches, width, 9)
        terms.patch_head(patches, width, config.patch**2 * task.out_channels)


VARIANTS: dict[str, Factory] = {"DiM-H/2": partial(DiM, Config(width=1536, depth=49))}

OFFICIAL: Renames = (
    (r"^positions$", "additional_embed"),
    (r"^embed\.", "pos_embed.proj."),
    (r"^labels\.", "label_emb."),
    (r"^front$", "a4m_adapter.pad_token_dec_split"),
    (r"^padding\.cells$", "a4m_adapter.pad_token"),
    (r"^smooth_in\.", "a4m_adapter.first_smoother."),
    (r"^smooth_out\.", "a4m_adapter.last_smoother."),
    (r"^condition\.time(\d)\.", r"adaln_single.emb.timestep_embedder.linear_\1."),
    (r"^condition\.labels\.", "adaln_single.emb.class_embedder.embedding_table."),
    (r"^modulation\.linear\.", "adaln_single.linear."),
    (r"^head\.norm\.", "norm_out.norm."),
    (r"^head\.modulation\.linear\.", "proj_out_1."),
    (r"^head\.linear\.", "proj_out_2."),
    (r"^blocks\.", "transformer_blocks."),
    (r"\.offsets$", ".scale_shift_table"),
    (r"^(transformer_blocks\.\d+)\.norm\.", r"\1.norm1.norm."),
    (r"\.keep\.", ".skip_linear.0."),
    (r"\.join\.", ".skip_linear.1."),
    (r"\.mixer\.", ".attn1."),
    *MAMBA_KEYS,
)

FAMILY = Family(
    network=DiM,
    task=LATENTS_PLAIN,
    official=OFFICIAL,
    variants=VARIANTS,
    package=MAMBA_SSM,
    aliases={"DiM-H": "DiM-H/2"},  # as tables print it
)
