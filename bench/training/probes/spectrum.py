"""Power of predicted noise by spatial frequency.

FCDM, appendix F, shows such energies over the diffusion process. Here validation images are noised to each
level and nothing is sampled, which is our reading of the paper.
"""

import torch
from torch import Tensor

from bench.records.base import Skipped
from bench.records.probes import Spectrum, SpectrumCase
from bench.training.probes.probe import Images, Subject, passes


def rings(height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Group the coefficients of a Fourier transform into rings, one coefficient of the longer side wide.

    Returns the ring of each coefficient (H, W), int64; the mean frequency of each ring in cycles/pixel; and
    the number of its coefficients. Ring 0 is the mean only.
    """
    rows, columns = (torch.fft.fftfreq(side, dtype=torch.float64) for side in (height, width))
    radius = (rows[:, None] ** 2 + columns**2).sqrt()
    ring = (radius * max(height, width) + 0.5).long()
    used, ring = ring.unique(return_inverse=True)
    counts = torch.bincount(ring.flatten(), minlength=len(used))
    return ring, torch.bincount(ring.flatten(), weights=radius.flatten()) / counts, counts


def ring_power(x: Tensor) -> Tensor:
    """Mean squared coefficient in every ring of an orthonormal transform: (N, C, H, W) -> (rings,) float64.

    Weighted by the number of coefficients, the sum over rings is the mean over N and C of an image's sum of
    squares (Parseval).
    """
    ring, _, counts = rings(*x.shape[2:])
    squared = torch.fft.fft2(x.double(), norm="ortho").abs().square().mean((0, 1))
    return torch.bincount(ring.flatten(), weights=squared.flatten().cpu(), minlength=len(counts)) / counts


def case_of(subject: Subject) -> SpectrumCase:
    return SpectrumCase(**subject.fields, probe=subject.probe)


def measure(subject: Subject, images: Images) -> Spectrum | Skipped:
    """The spectra of one network at all levels."""
    case, environment = case_of(subject), subject.environment
    powers: dict[str, list[tuple[float, ...]]] = {"predicted": [], "added": [], "error": []}
    for level in subject.probe.levels:
        predicted = torch.cat(
            [subject.objective.noise(one.out, one.x, one.t) for one in passes(subject, images, level)]
        )
        if not predicted.isfinite().all():
            reason = f"the output at level {level}"
            return Skipped(case=case, environment=environment, status="not finite", reason=reason)
        parts = {"predicted": predicted, "added": images.noise, "error": predicted - images.noise}
        for name, part in parts.items():
            powers[name].append(tuple(ring_power(part).tolist()))
    _, radii, counts = rings(*images.x0.shape[2:])
    return Spectrum(
        case=case,
        environment=environment,
        radii=tuple(radii.tolist()),
        counts=tuple(counts.tolist()),
        predicted=tuple(powers["predicted"]),
        added=tuple(powers["added"]),
        error=tuple(powers["error"]),
    )
