"""The pages of the report; records in, files out. A section names its page and its place there."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules

from bench.records.base import Record
from bench.records.note import Note
from reports import answers, overview, sections
from reports.claims import page as claims
from reports.claims import timed
from reports.figures import macs_fid
from reports.figures.plots import Drawing
from reports.html import page as html
from reports.html.rows import of_predictions
from reports.markdown import harmless, with_contents
from reports.sections import Section, notes, projection
from reports.selection import Evidence, gather, is_own_size

REPORT = "report.md"


@dataclass(frozen=True)
class Topic:
    """A page of sections."""

    file: str
    title: str
    about: str  # for the list of pages

    @property
    def sections(self) -> list[Section]:
        """Those of `reports.sections` whose PLACE is on this page, and OVERVIEWS, by their place."""
        names = (module.name for module in iter_modules(sections.__path__, f"{sections.__name__}."))
        modules = map(import_module, names)
        found = [(module.PLACE, module.section) for module in modules if hasattr(module, "PLACE")]
        placed = sorted([*found, *OVERVIEWS], key=lambda one: one[0])
        return [section for (file, _), section in placed if file == self.file]


OVERVIEWS: tuple[tuple[tuple[str, int], Section], ...] = (
    (("counting.md", 1), overview.counts),
    (("speed.md", 2), overview.speeds),
)
TOPICS = (
    Topic("counting.md", "Counting", "parameters and MACs of every model, under every counter"),
    Topic("speed.md", "Speed", "ranks and images/s under every setting, rooflines, repeats, golden outputs"),
    Topic("memory.md", "Memory", "peak memory, largest batches, the papers' GPUs"),
    Topic(
        "scaling.md",
        "Scaling with resolution",
        "exponents of time, MACs, bytes and memory; slow-downs",
    ),
    Topic("training.md", "Training", "steps, the cost of a training, losses, samples, trained networks"),
    Topic(
        "predictions.md", "Predictions", "speed and memory on GPUs that were not measured, with their errors"
    ),
    Topic(
        "paper-tables.md",
        "The papers' tables",
        "published cells and figures with their counted and measured counterparts",
    ),
)


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
