"""DiC's block: modulation, and gate and residual, in one operator each."""

import torch
import torch.nn.functional as F
from torch import Tensor

from models import dic


class Block(dic.Block):
    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        gate, scale, shift = self.modulation(c)[..., None, None]  # each (N, D, 1, 1)
        h = self.conv0(F.gelu(self.norm0(x)))
        h = self.conv1(F.gelu(torch.addcmul(shift, self.norm1(h), 1 + scale)))
        return torch.addcmul(self.skip(x), gate, h)
