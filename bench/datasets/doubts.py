"""Signs that latents are not what they are taken for: an encoder's moments, or values without its scale."""

import torch

from bench.datasets.datasets import Dataset

IMAGES = 4096  # looked at
SPREAD = (0.5, 2.0)  # standard deviations of latents that a network is trained on
LOG_VARIANCE = -3.0  # mean of an encoder's log variances, and more negative; SD's are about -17


def doubts(data: Dataset) -> list[str]:
    """Notes on a data set's values; none for images, and for latents of the usual kind."""
    if data.kind != "latents":
        return []
    channels = data.train[:IMAGES].float().transpose(0, 1).flatten(1)  # (C, values)
    means, spreads = channels.mean(1), channels.std(1)
    half = len(channels) // 2
    notes = []
    if len(channels) % 2 == 0:
        what = _second_half(channels[half:], means, spreads)
        if what:
            notes.append(
                f"channels {half + 1} to {2 * half} look like {what} of an encoder (mean "
                f"{means[half:].mean():.3g}, deviation {spreads[half:].mean():.3g}): moments, not latents"
            )
            spreads = spreads[:half]
    spread = float(spreads.square().mean().sqrt())
    if not SPREAD[0] <= spread <= SPREAD[1]:
        notes.append(
            f"the standard deviation is {spread:.2g}, far from 1: latents are multiplied by their encoder's "
            "scale before training, those of SD by 0.18215"
        )
    return notes


def _second_half(second: torch.Tensor, means: torch.Tensor, spreads: torch.Tensor) -> str:
    """What the second half of the channels looks like; blank for nothing in particular."""
    half = len(second)
    if bool((means[half:] < LOG_VARIANCE).all()) and not bool((means[:half] < LOG_VARIANCE).any()):
        return "log variances"
    if bool((second >= 0).all()) and float(second.max()) < 0.5 * float(spreads[:half].min()):
        return "standard deviations"
    return ""
