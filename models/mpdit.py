"""MPDiT: DiT's blocks on few tokens of large patches first, then on more tokens of smaller ones.

Source: arXiv:2603.26357, CVPR 2026; sizes as released, of two levels, and of three in MPDiTv2.
Letters: N batch, C latent channels, H and W latent sides, P patch side of a level, T tokens of a level (class
tokens, then H/P * W/P patches), D width, S samples around a timestep, F features of the signal they make.

A label is 16 tokens. All blocks and the head share one modulation, which sees the timestep alone. The output
is a velocity, noise - data; t is a float from 0 (data) to 1 (noise). The release drops labels in its loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.arithmetic import EINSUM, MEANS, Terms
from models.family import Factory, Family, Renames
from models.layers.conditions import LabelDropout
from models.layers.initialisation import initialise, initialise_flat, initialise_small, zero
from models.layers.modulation import Modulation, modulate
from models.layers.precision import widest, without_autocast
from models.layers.transformer import BLOCK_KEYS, Attention, TransformerBlock, fixed_positions, unpatchify
from models.task import LATENTS_REVERSE_FLOW, Task

SAMPLES, FEATURES, LAYERS = 32, 32, 3  # S, F and the layers of the timestep's network


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int
    depths: tuple[int, ...]  # blocks of each level, the coarsest first; the last has patches of 2
    heads: int
    mlp_ratio: int = 4
    class_tokens: int = 16

    @property
    def patches(self) -> list[int]:
        """Patch side of each level: 4, 2, or 8, 4, 2."""
        return [2 ** (len(self.depths) - level) for level in range(len(self.depths))]


class SpectralConv(nn.Module):
    """A product of frequencies, the highest left out, as in Fourier neural operators: (N, F, S) -> (N, F, S).

    It runs in float32 or wider. The complex product is one real one of twice the features.
    """

    def __init__(self) -> None:
        super().__init__()
        self.real = nn.Parameter(torch.randn(FEATURES, FEATURES, SAMPLES // 2))
        self.imaginary = nn.Parameter(torch.randn(FEATURES, FEATURES, SAMPLES // 2))

    def forward(self, z: Tensor) -> Tensor:
        wide = widest(z)
        with without_autocast(z):
            waves = torch.view_as_real(torch.fft.rfft(z.to(wide))[..., :-1])  # (N, F, S/2, 2)
            waves = waves.permute(2, 0, 3, 1).flatten(2)  # (S/2, N, 2F), real parts first
            real, imaginary = (w.to(wide).permute(2, 0, 1) for w in (self.real, self.imaginary))
            weight = torch.cat(
                [torch.cat([real, imaginary], dim=2), torch.cat([-imaginary, real], dim=2)], dim=1
            )
            waves = torch.bmm(waves, weight).unflatten(2, (2, FEATURES)).permute(1, 3, 0, 2)  # (N, F, S/2, 2)
            waves = F.pad(waves, (0, 0, 0, 1)).contiguous()
            return torch.fft.irfft(torch.view_as_complex(waves), n=SAMPLES).type_as(z)


class SpectralTime(nn.Module):
    """An embedding of t from S samples around it, through spectral convolutions: (N,) -> (N, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(1, FEATURES)
        # no lists: their members would be taken for blocks
        self.spectral = nn.Sequential(*(SpectralConv() for _ in range(LAYERS)))
        self.pointwise = nn.Sequential(*(nn.Conv1d(FEATURES, FEATURES, 1) for _ in range(LAYERS)))
        self.last = nn.Linear(FEATURES, width)

    def forward(self, t: Tensor) -> Tensor:
        around = torch.linspace(-1, 1, SAMPLES, device=t.device)
        samples = (t.float()[:, None] + around).to(self.first.weight.dtype)  # (N, S)
        z = self.first(samples[..., None]).transpose(1, 2)  # (N, F, S)
        for i in range(LAYERS):
            z = self.spectral[i](z) + self.pointwise[i](z)
            if i < LAYERS - 1:
                z = F.gelu(z)
        return self.last(z.mean(2))


class Upsampler(nn.Module):
    """Every patch token becomes four, then all tokens pass a linear layer: (N, T, D) -> (N, T', D)."""

    def __init__(self, width: int, class_tokens: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.class_tokens, self.grid = class_tokens, grid
        self.project = nn.Linear(width, 4 * width)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.refine = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.project(x[:, self.class_tokens :]).transpose(1, 2).unflatten(2, self.grid)
        patches = F.pixel_shuffle(patches, 2).flatten(2).transpose(1, 2)  # (N, 4 H/P * W/P, D)
        x = torch.cat([x[:, : self.class_tokens], F.gelu(patches, approximate="tanh")], dim=1)
        return self.refine(self.norm(x))


class PatchEmbedding(nn.Module):
    """Patches as tokens: (N, C, H, W) -> (N, H/P * W/P, D)."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).flatten(2).transpose(1, 2)


class Level(nn.Module):
    """The tokens of a coarser level, finer patches of the image, and blocks: (N, T, D) -> (N, T', D)."""

    def __init__(self, config: Config, task: Task, patch: int, depth: int) -> None:
        super().__init__()
        width, self.class_tokens = config.width, config.class_tokens
        self.upsampler = Upsampler(width, config.class_tokens, task.grid(2 * patch))
        self.embed = PatchEmbedding(task.in_channels, width, patch)
        self.join = nn.Linear(width, width)
        self.positions = fixed_positions(task.grid(patch), width)
        self.blocks = _blocks(config, depth)

    def forward(self, x: Tensor, image: Tensor, vectors: Tensor) -> Tensor:
        x = self.upsampler(x)
        patches = x[:, self.class_tokens :] + self.join(self.embed(image)) + self.positions
        x = torch.cat([x[:, : self.class_tokens], patches], dim=1)
        for block in self.blocks:
            x = block(x, vectors)
        return x


def _blocks(config: Config, depth: int) -> nn.ModuleList:
    return nn.ModuleList(
        TransformerBlock(config.width, config.mlp_ratio, Attention(config.width, config.heads), shared=True)
        for _ in range(depth)
    )


class MPDiT(nn.Module):
    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        width, (coarse, *finer) = config.width, config.patches
        task.require_multiple(coarse, "patch")
        self.class_tokens, self.grid = config.class_tokens, task.grid(2)
        self.drop = LabelDropout(task.num_classes)
        self.time = SpectralTime(width)
        self.labels = nn.Embedding(task.num_classes + 1, config.class_tokens * width)
        self.modulation = Modulation(width, count=6)
        self.embed = PatchEmbedding(task.in_channels, width, coarse)
        self.positions = fixed_positions(task.grid(coarse), width)
        self.blocks = _blocks(config, config.depths[0])
        self.levels = nn.Sequential(
            *(
                Level(config, task, patch, depth)
                for patch, depth in zip(finer, config.depths[1:], strict=True)
            )
        )
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.head = nn.Linear(width, 4 * task.out_channels)
        self._initialise()

    def _initialise(self) -> None:
        initialise(self)
        for module in self.modules():
            if isinstance(module, PatchEmbedding):
                initialise_flat(module.conv)
            elif isinstance(module, nn.Conv1d):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        initialise_small(self.labels)
        zero(self.head, self.modulation.linear)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        image = x
        vectors = self.modulation(self.time(t))  # (6, N, D)
        classes = self.labels(self.drop(y)).unflatten(1, (self.class_tokens, -1))
        x = torch.cat([classes, self.embed(image) + self.positions], dim=1)  # (N, T, D)
        for block in self.blocks:
            x = block(x, vectors)
        for level in self.levels:
            x = level(x, image, vectors)
        shift, scale = vectors[3:5, :, None]  # those of the feed-forwards
        x = self.head(modulate(self.norm(x[:, self.class_tokens :]), shift, scale))
        return unpatchify(x, self.grid, 2)  # (N, C_out, H, W)

    @staticmethod
    def closed_form(terms: Terms, config: Config, task: Task) -> None:
        width, (coarse, *finer), classes = config.width, config.patches, config.class_tokens
        terms.linear("condition", SAMPLES, 1, FEATURES)
        for _ in range(LAYERS):
            terms.linear("condition", SAMPLES // 2, 2 * FEATURES, 2 * FEATURES)
            terms.linear("condition", SAMPLES, FEATURES, FEATURES)
        terms.elementwise(MEANS, FEATURES)
        terms.linear("condition", 1, FEATURES, width)
        terms.modulation(width, 6)

        patches = terms.patch_embedding(task, width, coarse)
        _count_blocks(terms, config, classes + patches, config.depths[0])
        for patch, depth in zip(finer, config.depths[1:], strict=True):
            terms.linear("up", patches, width, 4 * width)
            terms.linear("up", classes + 4 * patches, width, width)
            patches = terms.patch_embedding(task, width, patch)
            terms.linear("skips", patches, width, width)
            _count_blocks(terms, config, classes + patches, depth)
        terms.modulate(patches, width)
        terms.linear("head", patches, width, 4 * task.out_channels)
        terms.elementwise(EINSUM, patches * 4 * task.out_channels)


class MPDiTv2(MPDiT):
    """The same network in three levels, whose release has other names for them."""


def _count_blocks(terms: Terms, config: Config, tokens: int, depth: int) -> None:
    for _ in range(depth):
        for _ in range(2):
            terms.modulate(tokens, config.width)
            terms.gate(tokens, config.width)
        terms.self_attention(tokens, config.width)
        terms.feed_forward(tokens, config.width, config.mlp_ratio)


def _variants(network: type[MPDiT], sizes: dict[str, tuple[int, tuple[int, ...], int]]) -> dict[str, Factory]:
    return {
        name: partial(network, Config(width=width, depths=depths, heads=heads))
        for name, (width, depths, heads) in sizes.items()
    }


VARIANTS = _variants(
    MPDiT,
    {
        "MPDiT-B/4x": (768, (6, 6), 12),
        "MPDiT-L/4x": (1024, (18, 6), 16),
        "MPDiT-XL/4x": (1152, (22, 6), 16),
    },
)
V2_VARIANTS = _variants(
    MPDiTv2,
    {
        "MPDiTv2-B": (768, (6, 4, 2), 12),
        "MPDiTv2-L": (1024, (14, 6, 4), 16),
        "MPDiTv2-XL": (1152, (14, 8, 6), 16),
    },
)
SMALL: dict[str, Factory] = {
    "MPDiT-Ti": partial(MPDiT, Config(width=72, depths=(2, 2), heads=3, class_tokens=4)),
}


def _keys(first: str, finer: Sequence[tuple[str, str, str]]) -> Renames:
    """Renames of one release.

    Args:
        first: name of the positions of the coarsest level.
        finer: of each finer level, its positions, the suffix of its patch embedding, and that of the rest.
    """
    levels = [
        rename
        for i, (positions, embed, level) in enumerate(finer)
        for rename in (
            (rf"^levels\.{i}\.positions$", positions),
            (rf"^levels\.{i}\.embed\.conv\.", f"x_embedder{embed}.proj."),
            (rf"^levels\.{i}\.join\.", f"linear_skip{level}."),
            (rf"^levels\.{i}\.upsampler\.project\.", f"upsampler{level}.proj."),
            (rf"^levels\.{i}\.upsampler\.", f"upsampler{level}."),
            (rf"^levels\.{i}\.blocks\.", f"upsample_blocks{level}."),
        )
    ]
    return (
        (r"^positions$", first),
        (r"^embed\.conv\.", "x_embedder.proj."),
        (r"^blocks\.", "downsample_blocks."),
        *levels,
        (r"^time\.first\.", "t_embedder.fc0."),
        (r"^time\.last\.", "t_embedder.fc1."),
        (r"^time\.spectral\.(\d)\.real$", r"t_embedder.conv\1.weights_real"),
        (r"^time\.spectral\.(\d)\.imaginary$", r"t_embedder.conv\1.weights_imag"),
        (r"^time\.pointwise\.(\d)\.", r"t_embedder.w\1."),
        (r"^labels\.", "y_embedder.embedding_table."),
        (r"^modulation\.linear\.", "time_modulation.1."),
        (r"^head\.", "final_layer.linear."),
        *BLOCK_KEYS,
    )


FAMILY = Family(
    network=MPDiT,
    task=LATENTS_REVERSE_FLOW,
    official=_keys("pos_embed_downsampled", [("pos_embed", "_skip", "")]),
    variants=VARIANTS,
    small=SMALL,
)
V2 = Family(
    network=MPDiTv2,
    task=LATENTS_REVERSE_FLOW,
    official=_keys("pos_embed", [(f"pos_embed_lvl{i}", f"_lvl{i}", f"_lvl{i}") for i in (1, 2)]),
    variants=V2_VARIANTS,
)
