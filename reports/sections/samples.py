"""The report's section on samples: the speed of sampling, and distances from real images."""

from collections.abc import Sequence

from bench.records import quality, sampling
from bench.records.base import Record
from bench.records.quality import Quality
from bench.records.sampling import SamplingRun
from bench.store.codec import newest
from reports.figures.plots import Drawing
from reports.markdown import stamp, table


def section(records: Sequence[Record]) -> tuple[str, list[Drawing]]:
    """Write the section; empty without records of samples. The newest record of a case counts."""
    chains = newest(record for record in records if isinstance(record, SamplingRun))
    sets = newest(record for record in records if isinstance(record, Quality))
    parts = []
    if chains:
        chains.sort(key=lambda r: (r.case.objective, r.case.sampler, r.case.steps, r.case.model))
        parts += ["### Speed of whole sampling", _about_speed(chains), table(sampling.TABLE, chains)]
        parts += [_stamps(chains)]
    if sets:
        sets.sort(key=lambda r: (r.case.distance, r.case.reference, r.case.samples))
        parts += ["### Quality of samples", ABOUT_QUALITY, table(quality.TABLE, sets), _stamps(sets)]
    return ("\n\n".join(["## Samples", *parts]), []) if parts else ("", [])


def _about_speed(chains: Sequence[SamplingRun]) -> str:
    text = (
        "Time of whole chains, from before the noise of a batch is drawn until the device has finished the "
        "last step: the median and its 95 % interval. A pass is one call of the network, over twice the "
        "batch with guidance. bf16 and fp16 are autocast."
    )
    if any(chain.case.weights == "random" for chain in chains):
        text += " Random weights give the same speed as trained ones; their images are noise."
    return text


ABOUT_QUALITY = (
    "A Fréchet distance compares with others in the same features and of the same number of images only; one "
    "in the features of a classifier that was trained here is no FID. KID is the mean over random subsets, "
    "with the range of the middle 95 % of them. Precision and recall go by nearest neighbours among an equal "
    "number of images of each set, and compare with that number only."
)


def _stamps(records: Sequence[Record]) -> str:
    """Software and devices of the numbers."""
    environments = dict.fromkeys((r.environment.device, stamp(r.environment)) for r in records)
    return "; ".join(f"{device}, {text}" for device, text in environments) + "."
