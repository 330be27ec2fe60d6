"""Writes the report's section on samples: their speed, and how far from real images they lie."""

from collections.abc import Sequence

from bench.records.record import Environment, Quality, Record, Sampled, key, size_text
from reports.figures.plots import Drawing
from reports.overview import BLANK, Columns, markdown, significant


def section(records: Sequence[Record]) -> tuple[str, list[Drawing]]:
    """Write the section; empty without records of samples, which may be in any order. The newest counts."""
    chains = [record for record in records if isinstance(record, Sampled)]
    sets = [record for record in records if isinstance(record, Quality)]
    drawn = {key(one): one for one in sorted(chains, key=lambda one: one.run.environment.date)}
    judged = {key(one): one for one in sorted(sets, key=lambda one: one.environment.date)}
    parts = []
    if drawn:
        chains = sorted(
            drawn.values(), key=lambda one: (one.objective, one.sampler, one.steps, one.run.model)
        )
        parts += ["### Speed of whole sampling", _of_speed(chains), markdown(_speed(chains))]
    if judged:
        sets = sorted(judged.values(), key=lambda one: (one.distance, one.reference, one.samples))
        parts += ["### Quality of samples", _of_quality(), markdown(_quality(sets))]
    return ("\n\n".join(["## Samples", *parts]), []) if parts else ("", [])


def _of_speed(chains: Sequence[Sampled]) -> str:
    text = (
        "Measured, not extrapolated from one pass: seconds from before the noise of a batch is drawn until "
        "the device has finished the last step, the median of all chains and its 95 % interval. A pass is "
        "one call of the network, over twice the batch where there is guidance. bf16 and fp16 are autocast."
    )
    if any(one.run.weights == "random" for one in chains):
        text += " Random weights give the same speed as trained ones, and no images worth a look."
    return text


def _speed(chains: Sequence[Sampled]) -> Columns:
    return {
        "model": [one.run.model for one in chains],
        "weights": [one.run.weights for one in chains],
        "px": [size_text(one.run.res) for one in chains],
        "objective": [one.objective for one in chains],
        "sampler": [one.sampler for one in chains],
        "steps": [str(one.steps) for one in chains],
        "passes": [str(one.passes) for one in chains],
        "guidance": [f"{one.guidance:g}" if one.guidance != 1 else BLANK for one in chains],
        "batch": [str(one.run.batch) for one in chains],
        "precision": [one.run.precision + (", compiled" if one.run.compile else "") for one in chains],
        "images/s": [significant(one.images_per_s) for one in chains],
        "95 % interval": [_interval(one.images_per_s_interval) for one in chains],
        "s/chain": [significant(one.median_s) for one in chains],
        "chains": [str(len(one.times_s)) for one in chains],
        "J/image": [_joules(one.joules_per_image) for one in chains],
        **_where([one.run.environment for one in chains]),
    }


def _joules(value: float | None) -> str:
    return BLANK if value is None else significant(value, 3)


def _of_quality() -> str:
    return (
        "A Fréchet distance compares with others in the same features and of the same number of images only; "
        "one in the features of a classifier that was trained here is no FID. KID is the mean over random "
        "subsets, with what the middle 95 % of them gave (how many of how many images). Precision and recall "
        "go by nearest neighbours among as many images *of each* set as stand behind them, and compare with "
        "that number only; older records may have unlike numbers, of samples / reference, and then compare "
        "with none."
    )


def _quality(sets: Sequence[Quality]) -> Columns:
    return {
        "samples": [one.samples for one in sets],
        "made by": [one.made or BLANK for one in sets],
        "reference": [one.reference for one in sets],
        "features": [one.distance for one in sets],
        "n": [str(one.n_samples) for one in sets],
        "n reference": [str(one.n_reference) for one in sets],
        "distance": [significant(one.frechet) for one in sets],
        "KID x 1000": [f"{1e3 * one.kid_mean:.3f}" if one.has_kid else BLANK for one in sets],
        "of subsets": [_spread(one) for one in sets],
        "precision": [f"{one.precision:.3f}" for one in sets],
        "recall": [f"{one.recall:.3f}" for one in sets],
        "of each": [_compared(one) for one in sets],
        **_where([one.environment for one in sets]),
    }


def _spread(one: Quality) -> str:
    if not one.has_kid:
        return BLANK
    low, high = (1e3 * end for end in one.kid_spread)
    return f"{low:.3f} to {high:.3f} ({len(one.kid)} of {one.kid_subset})"


def _compared(one: Quality) -> str:
    """How many images of a set; of samples / reference in records of before the two were cut alike."""
    made, real = min(one.compared, one.n_samples), min(one.compared, one.n_reference)
    return str(made) if made == real else f"{made} / {real}"


def _interval(bounds: tuple[float, float] | None) -> str:
    return f"{significant(bounds[0])} to {significant(bounds[1])}" if bounds else BLANK


def _where(environments: Sequence[Environment]) -> Columns:
    return {
        "device": [here.device for here in environments],
        "torch": [here.torch for here in environments],
        "commit": [here.commit or BLANK for here in environments],
        "date": [here.date[:10] for here in environments],
    }
