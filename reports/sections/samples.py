"""The report's section on samples: speed of sampling and of whole pictures, distances from real images."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bench.records import pictures, quality, sampling
from bench.records.base import Record
from bench.records.pictures import PictureRatio, PictureRun
from bench.records.quality import Quality
from bench.records.sampling import SamplingRun
from bench.store.codec import newest
from reports.markdown import stamp, table
from reports.naming import dit_of, order
from reports.sections import Part, of_parts

PLACE = "training.md", 3


@of_parts
def section(records: Sequence[Record]) -> Iterator[Part]:
    """Write the section; empty without records of samples. The newest record of a case counts."""
    chains = newest(record for record in records if isinstance(record, SamplingRun))
    decoded = newest(record for record in records if isinstance(record, PictureRun))
    sets = newest(record for record in records if isinstance(record, Quality))
    if chains or decoded or sets:
        yield "## Samples"
    if chains:
        chains.sort(key=lambda r: (r.case.objective, r.case.sampler, r.case.steps, r.case.model))
        yield from ("### Speed of whole sampling", _about_speed(chains))
        yield from (table(sampling.TABLE, chains), _stamps(chains))
    if decoded:
        yield "### Images from noise to pixels"
        yield from _pictures(decoded)
    if sets:
        sets.sort(key=lambda r: (r.case.distance, r.case.reference, r.case.samples))
        yield from ("### Quality of samples", ABOUT_QUALITY, table(quality.TABLE, sets), _stamps(sets))


def _about_speed(chains: Sequence[SamplingRun]) -> str:
    text = (
        "Time of whole chains, from before the noise of a batch is drawn until the device has finished the "
        "last step: the median and its 95 % interval. A pass is one call of the network, over twice the "
        "batch with guidance. bf16 and fp16 are autocast."
    )
    if any(chain.case.weights == "random" for chain in chains):
        text += " Random weights give the same speed as trained ones; their images are noise."
    return text


ABOUT_PICTURES = (
    "Time of a chain, from drawing the noise of a batch to its decoded images, with the share of each "
    "stage in all chains: labels and noise; passes of the network, over twice the batch with guidance; the "
    "decoder. The rest is the sampler's arithmetic."
)
ABOUT_RATIOS = (
    "Speed / speed of the DiT of the same size, for the passes alone and from noise to pixels. Both models "
    "get the same time of the decoder, the median over their chains. The models were timed one after "
    "another, not in interleaved rounds: the 95 % intervals include the spread between processes (8 %)."
)


def _pictures(decoded: Sequence[PictureRun]) -> Iterator[str]:
    """Shares of the stages, and the ratios of models that share a setting."""
    ordered = sorted(
        decoded, key=lambda r: (r.environment.device, r.case.settings, order(r.case.model), r.age)
    )
    decoders = dict.fromkeys(f"{pictures.about_decoder(run)}." for run in ordered)
    yield from (" ".join([ABOUT_PICTURES, *decoders]), table(pictures.TABLE, ordered), _stamps(ordered))
    if ratios := _ratios(ordered):
        yield from (ABOUT_RATIOS, table(pictures.RATIOS, ratios))


def _ratios(decoded: Sequence[PictureRun]) -> list[PictureRatio]:
    """Every model over the DiT of its size with the same settings, device and torch."""

    def under(run: PictureRun, model: str) -> tuple[object, ...]:
        case = replace(run.case, model=model, family="", weights="")
        return case, run.environment.device, run.environment.torch

    known = {under(run, run.case.model): run for run in decoded}
    found = []
    for run in decoded:
        reference = known.get(under(run, dit_of(run.case.model)))
        if reference is not None and reference is not run:
            found.append(PictureRatio(run=run, reference=reference))
    return found


ABOUT_QUALITY = (
    "Fréchet distances are comparable only in equal features and at equal numbers of images; one in the "
    "features of a classifier that was trained here is not an FID. KID: mean over random subsets, and the "
    "range of the middle 95 %. Precision and recall use nearest neighbours among equal numbers "
    "of images."
)


def _stamps(records: Sequence[Record]) -> str:
    """Software and devices of the numbers."""
    environments = dict.fromkeys((r.environment.device, stamp(r.environment)) for r in records)
    return "; ".join(f"{device}, {text}" for device, text in environments) + "."
