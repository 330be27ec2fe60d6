"""FlowDCN: DiT's shell around a deformable convolution of nine points, without any code of positions.

Source: arXiv:2410.22655; sizes S, B, L and XL as released.
Letters: N batch, C latent channels, H and W latent sides, P patch side, T tokens (H/P * W/P), D width,
h groups of channels.

The output is a velocity, data - noise, as in SiT, and like SiT's the head makes 2C channels of which the
first C are returned. t is a float in [0, 1], noise at 0 and data at 1, and is embedded unscaled. Labels are
dropped by the trainer, not here.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from models.arithmetic import Terms
from models.family import Factory, Family, Renames
from models.kernels.deformable import MACS_PER_SAMPLE, deformable_sampling
from models.layers.conditions import Condition
from models.layers.initialisation import initialise_flat, initialise_small, zero
from models.layers.modulation import Modulation, modulate
from models.layers.rms import RMSNorm, SwiGLU
from models.layers.transformer import DIT_KEYS, PatchHead, unpatchify
from models.task import LATENTS_FLOW, Task

POINTS = 9
LARGEST = 6  # of a group's kernel, as a multiple of 3 x 3


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int
    depth: int
    groups: int
    patch: int = 2

    @property
    def hidden(self) -> int:
        return 8 * self.width // 3


class DeformableConvolution(nn.Module):
    """Nine points per group, placed, scaled and weighted by the token that reads them.

    (N, H, W, D) -> (N, H, W, D)
    """

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        steps = torch.tensor([(column, row) for row in (-1.0, 0.0, 1.0) for column in (-1.0, 0.0, 1.0)])
        self.grid = nn.Parameter(steps.view(1, 1, 1, 1, POINTS, 2), requires_grad=False)  # a key as released
        shares = torch.arange(1, groups + 1, dtype=torch.float64) / groups - 1e-4
        self.size = nn.Parameter(torch.logit(shares).float().view(1, 1, 1, groups, 1, 1))
        self.values = nn.Linear(width, width)
        self.shifts = nn.Linear(width, groups * POINTS * 2)
        self.sizes = nn.Linear(width, groups * POINTS, bias=False)
        self.weights = nn.Linear(width, groups * POINTS)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        values = self.values(x).unflatten(-1, (self.groups, -1))  # (N, H, W, h, d)
        shifts = self.shifts(x).unflatten(-1, (self.groups, POINTS, 2))  # (N, H, W, h, 9, 2)
        sizes = self.sizes(x).unflatten(-1, (self.groups, POINTS, 1))  # (N, H, W, h, 9, 1)
        weights = self.weights(x).unflatten(-1, (self.groups, POINTS))  # (N, H, W, h, 9)
        offsets = LARGEST * ((shifts + self.grid) * torch.sigmoid(sizes + self.size))
        return self.project(deformable_sampling(values, offsets, weights).flatten(3))


class Block(nn.Module):
    """Deformable convolution and feed-forward, each normed, modulated and gated.

    (N, H, W, D), (N, D) -> (N, H, W, D)
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm1 = RMSNorm(config.width)
        self.mixer = DeformableConvolution(config.width, config.groups)
        self.norm2 = RMSNorm(config.width)
        self.feedforward = SwiGLU(config.width, config.hidden)
        self.modulation = Modulation(config.width, count=6)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)[:, :, None, None]
        x = x + gate1 * self.mixer(modulate(self.norm1(x), shift1, scale1))
        return x + gate2 * self.feedforward(modulate(self.norm2(x), shift2, scale2))


class FlowDCN(nn.Module):
    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        self.patch, self.grid = config.patch, task.grid(config.patch)
        self.out_channels = task.out_channels
        self.embed = nn.Conv2d(task.in_channels, config.width, config.patch, stride=config.patch)
        self.condition = Condition(config.width, task.num_classes)
        self.head = PatchHead(config.width, config.patch, 2 * task.in_channels)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self._initialise()

    def _initialise(self) -> None:
        """torch's initial weights in the blocks, but every token reads the same points at first.

        The modulations are not zero, so that a block does not start as the identity.
        """
        initialise_flat(self.embed)
        initialise_small(self.condition.time1, self.condition.time2, self.condition.labels)
        zero(self.head.modulation.linear, self.head.linear)
        zeros = [self.embed.bias]
        for module in self.modules():
            if isinstance(module, DeformableConvolution):
                zero(module.shifts, module.sizes)
                zeros += [module.weights.weight, module.values.bias, module.project.bias]
        for tensor in zeros:
            assert tensor is not None
            nn.init.zeros_(tensor)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        c = self.condition(t, y)  # (N, D)
        x = self.embed(x).permute(0, 2, 3, 1)  # (N, H/P, W/P, D)
        for block in self.blocks:
            x = block(x, c)
        x = unpatchify(self.head(x.flatten(1, 2), c), self.grid, self.patch)
        return x[:, : self.out_channels]  # (N, C_out, H, W)

    @staticmethod
    def closed_form(terms: Terms, config: Config, task: Task) -> None:
        width, points = config.width, config.groups * POINTS
        terms.condition(width)
        tokens = terms.patch_embedding(task, width, config.patch)
        for _ in range(config.depth):
            terms.adaptive(tokens, width)
            terms.rms_norm(tokens, width)
            terms.linear("values and projection", tokens, width, 2 * width)
            terms.linear("points", tokens, width, 4 * points)
            terms.elementwise("points", 2 * tokens * 2 * points)
            terms.custom("deformable sampling", MACS_PER_SAMPLE * tokens * POINTS * width)
            terms.rms_norm(tokens, width)
            terms.gated_feed_forward(tokens, width, config.hidden)
        terms.patch_head(tokens, width, config.patch**2 * 2 * task.in_channels)


VARIANTS: dict[str, Factory] = {
    "FlowDCN-S/2": partial(FlowDCN, Config(width=384, depth=12, groups=6)),
    "FlowDCN-B/2": partial(FlowDCN, Config(width=768, depth=12, groups=12)),
    "FlowDCN-L/2": partial(FlowDCN, Config(width=1024, depth=24, groups=16)),
    "FlowDCN-XL/2": partial(FlowDCN, Config(width=1152, depth=28, groups=16)),
}

SMALL: dict[str, Factory] = {"FlowDCN-Ti/2": partial(FlowDCN, Config(width=72, depth=4, groups=4))}

OFFICIAL: Renames = (
    *DIT_KEYS,
    (r"\.mixer\.grid$", ".attn.deformables_prior"),
    (r"\.mixer\.size$", ".attn.deformables_scale"),
    (r"\.mixer\.values\.", ".attn.v."),
    (r"\.mixer\.shifts\.", ".attn.qk_deformables."),
    (r"\.mixer\.sizes\.", ".attn.qk_scales."),
    (r"\.mixer\.weights\.", ".attn.qk_weights."),
    (r"\.mixer\.project\.", ".attn.out."),
    (r"\.feedforward\.gate\.", ".mlp.w1."),
    (r"\.feedforward\.value\.", ".mlp.w3."),
    (r"\.feedforward\.contract\.", ".mlp.w2."),
)

FAMILY = Family(network=FlowDCN, task=LATENTS_FLOW, official=OFFICIAL, variants=VARIANTS, small=SMALL)
