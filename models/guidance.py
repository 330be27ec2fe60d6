"""Classifier-free guidance of any backbone."""

from collections.abc import Callable

import torch
from torch import Tensor


def guide(
    model: Callable[[Tensor, Tensor, Tensor], Tensor],
    x: Tensor,
    t: Tensor,
    y: Tensor,
    *,
    scale: float,
    null: int = 1000,
    channels: int | None = 3,
) -> Tensor:
    """Classifier-free guidance: u + scale * (c - u) of the conditional c and the unconditional u.

    Both are computed in one call of twice the batch. By default the first three channels are guided, as in
    the published samplers of the DiT line on four latent channels.

    Source: arXiv:2207.12598, Eq. 6, with scale = 1 + w.

    Args:
        model: a backbone, in eval mode.
        x: latents (N, C, H, W).
        t: timesteps (N,).
        y: labels (N,), or text embeddings (N, E).
        scale: 1 gives the conditional prediction.
        null: the label of the null class, Task.num_classes; 0 for text embeddings, whose null is all zeros.
        channels: number of guided channels, from the first; None guides all C of x.

    Returns:
        (N, 2C or C, H, W). Unguided channels, the variance included, are the conditional prediction.

    Raises:
        ValueError: for channels outside 1 to C.
    """
    count = x.shape[1] if channels is None else channels
    if not 1 <= count <= x.shape[1]:
        raise ValueError(f"channels: must be from 1 to the {x.shape[1]} of x, got {channels}")
    both = model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([y, torch.full_like(y, null)]))
    conditional, unconditional = both.chunk(2)
    guided = torch.lerp(unconditional[:, :count], conditional[:, :count], scale)
    return torch.cat([guided, conditional[:, count:]], dim=1)
