"""Mamba's mixer: projections around a causal convolution and a selective scan.

Source: arXiv:2312.00752, Figure 3; initial weights as in the releases of DiS, DiM and DiMSUM.
Letters: N batch, T tokens, D width, I inner channels (2 D).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.family import Renames
from models.kernels.selective_scan import Backend, selective_scan

STATES = 16  # per channel, in all three papers


class StateSpace(nn.Module):
    """One direction of the mixer: causal convolution, selection, scan, gate.

    Inputs and gates (N, T, I), (N, T, I) -> (N, T, I). `initialise_mamba` fills decays and steps.

    Args:
        inner: channels I.
        rank: of the steps.
        kernel: tokens that the causal convolution covers.
        backend: of the scan.
    """

    def __init__(self, inner: int, rank: int, kernel: int, backend: Backend) -> None:
        super().__init__()
        self.backend = backend
        self.split = (rank, STATES, STATES)
        self.conv = nn.Conv1d(inner, inner, kernel, padding=kernel - 1, groups=inner)
        self.select = nn.Linear(inner, sum(self.split), bias=False)
        self.step = nn.Linear(rank, inner)
        self.decay = nn.Parameter(torch.empty(inner, STATES))  # log of minus the rate
        self.skip = nn.Parameter(torch.ones(inner))

    def forward(self, u: Tensor, z: Tensor) -> Tensor:
        # padded on both sides; the outputs of the right padding are cut, so that no token sees a later one
        u = F.silu(self.conv(u.transpose(1, 2))[..., : u.shape[1]]).transpose(1, 2)
        step, b, c = self.select(u).split(self.split, dim=2)
        return selective_scan(u, self.step(step), self.decay, b, c, self.skip, z, self.backend)


class Mamba(nn.Module):
    """The mixer in one direction, each token seeing those before it: (N, T, D) -> (N, T, D)."""

    def __init__(self, width: int, kernel: int, backend: Backend) -> None:
        super().__init__()
        self.inner, self.rank = 2 * width, math.ceil(width / 16)
        self.project_in = nn.Linear(width, 2 * self.inner, bias=False)
        self.forwards = StateSpace(self.inner, self.rank, kernel, backend)
        self.project_out = nn.Linear(self.inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        u, z = self.project_in(x).chunk(2, dim=2)  # each (N, T, I)
        return self.project_out(self.forwards(u, z))


def initialise_mamba(model: nn.Module, depth: int) -> None:
    """Fill a network of mixers; the caller fills its own layers.

    Zero biases of linears and N(0, 0.02) for embeddings. In every mixer, rates of -1 to -S, steps from 0.001
    to 0.1 with a uniform logarithm (at least 1e-4), and output projections scaled by 1/sqrt(depth).
    """
    decay = torch.arange(1.0, STATES + 1).log()
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    with torch.no_grad():
        for direction in (module for module in model.modules() if isinstance(module, StateSpace)):
            direction.decay.copy_(decay)
        for mixer in (module for module in model.modules() if isinstance(module, Mamba)):
            nn.init.uniform_(mixer.forwards.step.weight, -(mixer.rank**-0.5), mixer.rank**-0.5)
            steps = torch.empty_like(mixer.forwards.step.bias).uniform_(math.log(0.001), math.log(0.1))
            steps = steps.exp().clamp(min=1e-4)
            mixer.forwards.step.bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # inverse of softplus
            nn.init.kaiming_uniform_(mixer.project_out.weight, a=math.sqrt(5))
            mixer.project_out.weight.div_(math.sqrt(depth))


MAMBA_KEYS: Renames = (  # names in Mamba's own code, which the releases keep
    (r"\.project_(in|out)\.", r".\1_proj."),
    (r"\.forwards\.decay$", ".A_log"),
    (r"\.forwards\.skip$", ".D"),
    (r"\.forwards\.conv\.", ".conv1d."),
    (r"\.forwards\.select\.", ".x_proj."),
    (r"\.forwards\.step\.", ".dt_proj."),
)
