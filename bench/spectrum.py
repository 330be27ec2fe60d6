"""Which spatial frequencies are in the noise that a trained network predicts, from little noise to much?

    python -m bench.convergence --model FCDM-S DiT-S/2 --data cifar10 --dir runs
    python -m bench.spectrum --checkpoint runs/FCDM-S-seed0 runs/DiT-S-2-seed0
    python -m bench.spectrum --checkpoint runs/FCDM-S-seed0 --ema 0.9999 --levels 10 100 500 900
    python -m bench.spectrum --model FCDM-XL --weights FCDM-XL.pt --data path/to/latents --out spectra.jsonl

Validation images are noised to each level; what the network then says the noise is, is Fourier transformed,
channel by channel, and its power averaged over rings of one frequency. Power is relative to standard normal
noise: 1 at every frequency is what was added (less, for so few images). Below 1 the network sees less noise
than there is; error is the power of what it got wrong. Bands are thirds of the frequencies up to half a cycle
a pixel: low with the mean, high with the corners beyond. A velocity v is turned into the noise that it stands
for, x - t v, the error of which is t times that of the velocity: small where there is much noise.

FCDM's appendix F shows such energies over the diffusion process; no numbers of it are at hand to compare
with. That images are noised to each level here, and none sampled, is our reading.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from bench.cli import options, probe_options, settings, tables
from bench.records.record import BANDS, Skipped, Spectrum

if TYPE_CHECKING:
    from torch import Tensor

    from bench.training.probe import Shown, Subject


def rings(height: int, width: int) -> "tuple[Tensor, Tensor, Tensor]":
    """Sort the coefficients of a Fourier transform by frequency.

    Returns:
        The ring of each coefficient (H, W) int64; of every ring its mean frequency in cycles a pixel and how
        many coefficients it has. A ring is one coefficient of the longer side wide; the first is the mean
        alone.
    """
    import torch

    rows, columns = (torch.fft.fftfreq(side, dtype=torch.float64) for side in (height, width))
    radius = (rows[:, None] ** 2 + columns**2).sqrt()
    ring = (radius * max(height, width) + 0.5).long()
    used, ring = ring.unique(return_inverse=True)
    counts = torch.bincount(ring.flatten(), minlength=len(used))
    return ring, torch.bincount(ring.flatten(), weights=radius.flatten()) / counts, counts


def ring_power(x: "Tensor") -> "Tensor":
    """Mean squared coefficient in every ring of an orthonormal transform: (N, C, H, W) -> (rings,) float64.

    Times the number of coefficients and summed, it is the mean over N and C of an image's sum of squares.
    """
    import torch

    ring, _, counts = rings(*x.shape[2:])
    squared = torch.fft.fft2(x.double(), norm="ortho").abs().square().mean((0, 1))
    return torch.bincount(ring.flatten(), weights=squared.flatten().cpu(), minlength=len(counts)) / counts


def measure(subject: "Subject", shown: "Shown") -> Spectrum | Skipped:
    """The spectra of one network at all levels."""
    import torch

    from bench.training.probe import passes, predicted_noise

    powers: dict[str, list[tuple[float, ...]]] = {"predicted": [], "added": [], "error": []}
    for level in subject.probe.levels:
        predicted = torch.cat([predicted_noise(subject, one) for one in passes(subject, shown, level)])
        if not predicted.isfinite().all():
            return Skipped(run=subject.run, status="not finite", reason=f"the output at level {level}")
        parts = {"predicted": predicted, "added": shown.noise, "error": predicted - shown.noise}
        for name, part in parts.items():
            powers[name].append(tuple(ring_power(part).tolist()))
    _, radii, counts = rings(*shown.x0.shape[2:])
    return Spectrum(
        run=subject.run,
        probe=subject.probe,
        radii=tuple(radii.tolist()),
        counts=tuple(counts.tolist()),
        predicted=tuple(powers["predicted"]),
        added=tuple(powers["added"]),
        error=tuple(powers["error"]),
    )


def _blank(subject: "Subject") -> Spectrum:
    """What a store knows the spectra by."""
    nothing = tuple(() for _ in subject.probe.levels)
    return Spectrum(
        run=subject.run,
        probe=subject.probe,
        radii=(),
        counts=(),
        predicted=nothing,
        added=nothing,
        error=nothing,
    )


def _rows(result: Spectrum | Skipped) -> list[tables.Row]:
    about = {"model": result.run.model, "weights": result.run.weights}
    if isinstance(result, Skipped):
        return [{**about, "trained": "", "status": f"{result.status}: {result.reason}", **_bands(None, 0)}]
    return [
        {**about, "trained": result.probe.trained, "status": "ok", **_bands(result, at)}
        for at in range(len(result.probe.levels))
    ]


def _bands(result: Spectrum | None, at: int) -> tables.Row:
    if result is None:
        return {"level": None, **{f"{what}_{name}": None for what in _POWERS for name, _, _ in BANDS}}
    row: dict[str, float | None] = {"level": result.probe.levels[at]}
    for what, powers in (("predicted", result.predicted), ("error", result.error)):
        for name, _, _ in BANDS:
            power = result.power(powers[at], name)
            row[f"{what}_{name}"] = None if power != power else power
    return row


_POWERS = ("predicted", "error")


def _columns() -> list[tables.Column]:
    def power(key: str, row: tables.Row) -> str:
        return tables.fixed(4, row[key])

    return [
        ("model", lambda row: row["model"]),
        ("trained", lambda row: row["trained"] or row["status"]),
        ("level", lambda row: "-" if row["level"] is None else str(row["level"])),
        *((f"{what} {name}", partial(power, f"{what}_{name}")) for what in _POWERS for name, _, _ in BANDS),
    ]


def _body(args: argparse.Namespace) -> int:
    options.check_output(args.out, args.force)
    probe_options.check(args)
    from bench.training import probe

    subjects, shown, notes = probe.subjects(args, "spectrum")
    results, found = settings.each(
        subjects,
        about=_blank,
        measure=lambda subject: probe.guarded(subject, partial(measure, subject, shown)),
        label=lambda subject: f"{subject.run.model}, {subject.probe.trained}",
        args=args,
    )
    rows = [row for result in results for row in _rows(result)]
    notes += found + probe_options.notes(subjects[0].run, subjects[0].probe)
    text = tables.render(rows, _columns(), args.format)
    tables.emit(text, notes, None if options.keeps_records(args.out) else args.out)
    return 0


def parser() -> options.Parser:
    made = options.parser("bench.spectrum", __doc__)
    probe_options.add_options(made)
    options.add_output(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return options.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
