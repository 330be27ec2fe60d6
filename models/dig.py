"""DiG: a transformer over patches with gated linear attention, scanned in four directions in turn.

Source: arXiv:2405.18428; sizes from its released code (the variant "bid-layer-dwconv-qdir").
Letters: N batch, C latent channels, H and W latent sides, P patch side, h and w sides of the grid of tokens
(H/P, W/P), T tokens (h * w), D width.

A scan sees only the tokens before its own. So after every block the order of the tokens is reversed, and
after every second one the grid is transposed too: rows forwards, rows backwards, columns forwards, columns
backwards. Four blocks restore the order.
"""

from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from models.arithmetic import Terms
from models.family import Factory, Family, Renames
from models.kernels.gla import FLA, Backend, gla
from models.layers.conditions import Condition, LabelDropout
from models.layers.initialisation import initialise_adaln_zero
from models.layers.modulation import Modulation, modulate
from models.layers.rms import PackedSwiGLU
from models.layers.transformer import DIT_KEYS, PatchHead, fixed_positions, unpatchify
from models.task import LATENTS, Task

PATCH = 2
HEAD = 64  # value channels of a head; it has half as many keys
GATE_RANK = 16
GATE_TEMPER = 16  # divides the logarithms of the gates, which start near 1
GAIN = 2**-2.5  # of the initial weights of the attention's linears


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int
    depth: int
    backend: Backend = "auto"  # of the attention


class Attention(nn.Module):
    """Gated linear attention over the tokens before each: (N, T, D) -> (N, T, D)."""

    def __init__(self, width: int, backend: Backend) -> None:
        super().__init__()
        self.backend = backend
        self.q = nn.Linear(width, width // 2, bias=False)
        self.k = nn.Linear(width, width // 2, bias=False)
        self.v = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, width, bias=False)
        self.decay1 = nn.Linear(width, GATE_RANK, bias=False)
        self.decay2 = nn.Linear(GATE_RANK, width // 2)
        self.norm = nn.RMSNorm(HEAD, eps=1e-6)
        self.project = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        log_decay = F.logsigmoid(self.decay2(self.decay1(x))) / GATE_TEMPER  # (N, T, D/2)
        q, k, log_decay = (z.unflatten(2, (-1, HEAD // 2)) for z in (self.q(x), self.k(x), log_decay))
        v = self.v(x).unflatten(2, (-1, HEAD))  # (N, T, heads, 64)
        out = self.norm(gla(q, k, v, log_decay, self.backend)).flatten(2)
        return self.project(out * F.silu(self.gate(x)))


def _hidden(width: int) -> int:
    """Two thirds of 4 D, rounded up to a multiple of 256."""
    return -(-(8 * width // 3) // 256) * 256


class Block(nn.Module):
    """(N, h, w, D), (N, D) -> (N, h, w, D)"""

    def __init__(self, width: int, backend: Backend) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = Modulation(width, count=6)
        self.attention = Attention(width, backend)
        self.feed_forward = PackedSwiGLU(width, _hidden(width), bias=False)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)[:, :, None]
        sides = x.shape[1:3]
        x = x.flatten(1, 2)  # (N, T, D)
        x = x + gate1 * self.attention(modulate(self.norm1(x), shift1, scale1))
        x = x + gate2 * self.feed_forward(modulate(self.norm2(x), shift2, scale2))
        x = x.unflatten(1, sides).permute(0, 3, 1, 2)  # (N, D, h, w)
        return self.depthwise(x).permute(0, 2, 3, 1)  # replaces x, without a residual


class DiG(nn.Module):
    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        FLA.require(config.backend)
        if config.depth % 4:
            raise ValueError(f"depth: must be a multiple of 4, one block a direction, got {config.depth}")
        self.grid = task.grid(PATCH)
        self.drop = LabelDropout(task.num_classes)
        self.condition = Condition(config.width, task.num_classes)
        self.embed = nn.Conv2d(task.in_channels, config.width, PATCH, stride=PATCH)
        self.positions = fixed_positions(self.grid, config.width)
        self.blocks = nn.ModuleList(Block(config.width, config.backend) for _ in range(config.depth))
        self.head = PatchHead(config.width, PATCH, task.out_channels)
        self._initialise()

    def _initialise(self) -> None:
        initialise_adaln_zero(self, self.embed, self.head.linear)
        for module in self.modules():
            if isinstance(module, Block):
                nn.init.dirac_(module.depthwise.weight, groups=module.depthwise.groups)
            elif isinstance(module, Attention):
                for linear in module.children():
                    if isinstance(linear, nn.Linear):
                        nn.init.xavier_uniform_(linear.weight, gain=GAIN)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        c = self.condition(t, self.drop(y))  # (N, D)
        x = self.embed(x).flatten(2).transpose(1, 2) + self.positions  # (N, T, D)
        x = x.unflatten(1, self.grid)  # (N, h, w, D)
        for i, block in enumerate(self.blocks):
            x = block(x, c).flip(1, 2)  # the last token first
            if i % 2:
                x = x.transpose(1, 2)  # (N, w, h, D)
        x = self.head(x.flatten(1, 2), c)  # (N, T, P*P*C_out)
        return unpatchify(x, self.grid, PATCH)  # (N, C_out, H, W)

    @staticmethod
    def closed_form(terms: Terms, config: Config, task: Task) -> None:
        width, keys = config.width, config.width // 2
        terms.condition(width)
        tokens = terms.patch_embedding(task, width, PATCH)
        for _ in range(config.depth):
            terms.adaptive(tokens, width)
            terms.linear("attention projections", tokens, width, 2 * keys + 3 * width)  # q, k, v, gate, out
            terms.linear("attention projections", tokens, GATE_RANK, width + keys)  # the decay
            terms.custom("linear attention", 2 * tokens * keys * HEAD)
            terms.gate(tokens, width)
            terms.gated_feed_forward(tokens, width, _hidden(width))
            terms.depthwise(tokens, width, 9)
        terms.patch_head(tokens, width, PATCH**2 * task.out_channels)


_SIZES = {"DiG-S/2": (384, 12), "DiG-B/2": (768, 12), "DiG-L/2": (1024, 24), "DiG-XL/2": (1152, 28)}

VARIANTS: dict[str, Factory] = {
    name: partial(DiG, Config(width=width, depth=depth)) for name, (width, depth) in _SIZES.items()
}
SMALL: dict[str, Factory] = {"DiG-Ti/2": partial(DiG, Config(width=64, depth=4))}

OFFICIAL: Renames = (
    *DIT_KEYS,
    (r"\.attention\.(q|k|v)\.", r".attn.\1_proj."),
    (r"\.attention\.gate\.", ".attn.g_proj."),
    (r"\.attention\.decay1\.", ".attn.gk_proj.0."),
    (r"\.attention\.decay2\.", ".attn.gk_proj.1."),
    (r"\.attention\.norm\.", ".attn.g_norm_swish_gate."),
    (r"\.attention\.project\.", ".attn.o_proj."),
    (r"\.feed_forward\.expand\.", ".mlp.gate_proj."),
    (r"\.feed_forward\.contract\.", ".mlp.down_proj."),
    (r"\.depthwise\.", ".dw_conv."),
)

FAMILY = Family(
    network=DiG,
    task=LATENTS,
    official=OFFICIAL,
    variants=VARIANTS,
    small=SMALL,
    package=FLA,
)
