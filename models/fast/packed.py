"""Linear layers and convolutions: 1x1 as a product, and weights reordered for oneDNN on a CPU.

With gradients, on a GPU and under torch.compile, which reorders weights itself, they compute as torch's do.
"""

import torch
from torch import Tensor, nn

from models.fast.layout import image, pixels
from models.kernels.packed import can_pack, linear, packed


class Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class Conv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        if (
            self.kernel_size == self.stride == (1, 1)
            and self.groups == 1
            and self.padding in ((0, 0), "valid")
        ):
            return image(linear(pixels(x), self.weight, self.bias))
        if isinstance(self.padding, str) or self.padding_mode != "zeros" or not can_pack(x, self.weight):
            return super().forward(x)
        size = list(x.shape)
        place = (list(self.padding), list(self.stride), list(self.dilation), self.groups)
        reordered = packed(
            self.weight,
            lambda given: torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[call-arg] # stub lacks size
                given.to_mkldnn(), *place, size
            ),
        )
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x.contiguous(memory_format=torch.channels_last), reordered, self.bias, *place, "none", [], ""
        )
        return out
