"""Images with their channels last in memory. Their shapes stay (N, C, H, W) between modules."""

from torch import Tensor


def pixels(x: Tensor) -> Tensor:
    """An image as rows of channels: (N, C, H, W) -> (N, H, W, C), contiguous; a view if channels are last."""
    return x.permute(0, 2, 3, 1).contiguous()


def image(x: Tensor) -> Tensor:
    """The inverse of `pixels`, always a view: (N, H, W, C) -> (N, C, H, W)."""
    return x.permute(0, 3, 1, 2)


def expanded(vectors: Tensor) -> Tensor:
    """Vectors of images, to combine with `pixels`: (..., N, D) -> (..., N, 1, 1, D)."""
    return vectors[..., None, None, :]
