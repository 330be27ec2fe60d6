"""Linear layers and convolutions: 1x1 as a product, and weights reordered for oneDNN on a CPU.

With gradients, on a GPU and under torch.compile, which reorders weights itself, they compute as torch's do.
"""

from torch import Tensor, nn

from models.fast.layout import image, pixels
from models.kernels.packed import convolution, linear


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
        return convolution(self, x)


def weights(layer: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that has one."""
    assert layer.bias is not None
    return layer.weight, layer.bias
