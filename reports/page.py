"""The pages of the report: which sections stand on which page; records in, files out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.records.base import Record
from bench.records.note import Note
from reports import answers, overview
from reports.claims import page as claims
from reports.claims import timed
from reports.figures import macs_fid
from reports.figures.plots import Drawing
from reports.html import page as html
from reports.html.rows import of_predictions
from reports.markdown import harmless, with_contents
from reports.sections import (
    convergence,
    counters,
    fairness,
    golden,
    kernels,
    memory,
    notes,
    paper_figures,
    paper_tables,
    projection,
    repeats,
    resolution,
    roofline,
    samples,
    trained_networks,
    training_cost,
)
from reports.selection import Evidence, gather, is_own_size

REPORT = "report.md"
# a section takes records in any order; its text is blank without records of its kind
Section = Callable[[Sequence[Record]], tuple[str, list[Drawing]]]


@dataclass(frozen=True)
class Topic:
    """A page of sections."""

    file: str
    title: str
    about: str  # for the list of pages
    sections: tuple[Section, ...]


TOPICS = (
    Topic(
        "counting.md", "Counting", "parameters and MACs of every model, under every counter",
        (overview.counts, counters.section),
    ),
    Topic(
        "speed.md", "Speed", "ranks and images/s under every setting, rooflines, repeats, golden outputs",
        (
            *(fairness.section, overview.speeds, roofline.section, kernels.section, repeats.section),
            golden.section,
        ),
    ),
    Topic("memory.md", "Memory", "peak memory, largest batches, the papers' GPUs", (memory.section,)),
    Topic(
        "scaling.md", "Scaling with resolution",
        "exponents of time, MACs, bytes and memory; slow-downs", (resolution.section,),
    ),
    Topic(
        "training.md", "Training", "steps, the cost of a training, losses, samples, trained networks",
        (training_cost.section, convergence.section, samples.section, trained_networks.section),
    ),
    Topic(
        "predictions.md", "Predictions", "speed and memory on GPUs that were not measured, with their errors",
        (projection.section,),
    ),
    Topic(
        "paper-tables.md", "The papers' tables",
        "published cells and figures with their counted and measured counterparts",
        (paper_figures.section, paper_tables.section),
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Pages:
    """Texts by file name, and the plots they show."""

    texts: dict[str, str]
    drawings: list[Drawing]


def write(records: Sequence[Record], remarks: Sequence[Note] = ()) -> Pages:
    """Write every page and draw its plots. Records may be in any order; equal ones count once."""
    all_sizes = {one.age: one for one in sorted(records, key=lambda one: one.age)}.values()
    distinct = tuple(filter(is_own_size, all_sizes))
    left_out = len(all_sizes) - len(distinct)
    evidence = gather(distinct)
    known = timed.timings(distinct)
    found = answers.answers(evidence, known, distinct)
    judged = claims.page(distinct)
    of_topics = {topic.file: [section(distinct) for section in topic.sections] for topic in TOPICS}
    drawings = [drawing for of in of_topics.values() for _, drawn in of for drawing in drawn]
    drawings = [macs_fid.draw(evidence), *judged.drawings, *drawings]
    texts = {
        REPORT: _report(distinct, left_out, evidence, known, found, judged, drawings, notes.section(remarks)),
        claims.FILE: judged.text,
        **{topic.file: _topic(topic, [text for text, _ in of_topics[topic.file]]) for topic in TOPICS},
    }
    texts = {name: harmless(with_contents(text)) for name, text in texts.items()}
    predicted = of_predictions(projection.predictions(distinct))
    texts[html.FILE] = html.render(distinct, remarks, found, judged.findings, predicted)
    return Pages(texts=texts, drawings=drawings)


def _topic(topic: Topic, texts: Sequence[str]) -> str:
    parts = [f"# {topic.title}", f"Back to [the report]({REPORT}).", *filter(None, texts)]
    if not any(texts):
        parts.append("No records of these kinds yet; `python -m bench` lists the commands that make them.")
    return "\n\n".join(parts) + "\n"


# plots of the report by the start of their names
FIRST = ("macs_fid", "fairness", "claims", "scaling", "convergence")


def _report(
    records: Sequence[Record],
    left_out: int,
    evidence: Evidence,
    known: timed.Timings,
    found: Sequence[answers.Answer],
    judged: claims.Page,
    drawings: Sequence[Drawing],
    remarks: str,
) -> str:
    chosen = [
        next((one.picture for one in drawings if one.picture.name.startswith(start)), None) for start in FIRST
    ]
    links = [f"- [{html.FILE}]({html.FILE}): all records in one table, with filters, plots and samples"]
    links += [f"- [{topic.file}]({topic.file}): {topic.about}" for topic in TOPICS]
    links.append(f"- [{claims.FILE}]({claims.FILE}): every claim with its rule and its evidence")
    parts = [
        overview.head(records, evidence, left_out),
        overview.answers(found),
        overview.headlines(evidence, known),
        judged.summary,
        "## Plots",
        *(picture.markdown for picture in chosen if picture),
        "## Pages",
        "\n".join(links),
        remarks,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
