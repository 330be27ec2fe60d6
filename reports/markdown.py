"""Markdown of the report: tables, pictures, numbers with intervals, the list of contents."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bench.records.base import Environment, Record, Skipped
from bench.stats import processes
from bench.store.codec import key
from bench.tables.numbers import BLANK as BLANK
from bench.tables.numbers import decimals, rounded
from bench.tables.render import layout, texts
from bench.tables.table import Row, Table

Columns = dict[str, list[str]]  # cells by heading
significant = rounded


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A plot in the report: plots/NAME.svg."""

    name: str
    title: str
    caption: str

    @property
    def markdown(self) -> str:
        return f"![{self.title}](plots/{self.name}.svg)\n\n*{self.caption}*"


def markdown(columns: Mapping[str, Sequence[str]], records: Sequence[Sequence[Record]] = ()) -> str:
    """Lay out columns of text as a markdown table; a comment after it lists the records of each row."""
    rows = list(zip(*columns.values(), strict=True))
    return layout(list(columns), rows, "md").rstrip() + _sources(records)


def of_rows(rows: Sequence[Mapping[str, str]]) -> str:
    """Lay out the rows of a file of baselines without their sources."""
    return markdown({name: [row[name] for row in rows] for name in rows[0] if name != "source"})


def table(described: Table[Row], rows: Sequence[Any]) -> str:
    """Lay out rows by a table's description, with the keys of their records."""
    header, cells = texts(described, rows)
    sources = [[row] if isinstance(row, Skipped) else described.records(row) for row in rows]
    return layout(header, cells, "md").rstrip() + _sources(sources)


def _sources(records: Sequence[Sequence[Record]]) -> str:
    """A comment with the keys of the records of every row, rows separated by semicolons."""
    keys = [sorted({key(record.case, record.environment) for record in row}) for row in records]
    return f"\n\n<!-- records: {'; '.join(map(' '.join, keys))} -->" if any(keys) else ""


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def gmacs(macs: float) -> str:
    return rounded(macs / 1e9)


def stamp(environment: Environment) -> str:
    """Torch, commit and day of a count or a time."""
    return f"torch {environment.torch}, commit {environment.commit[:12] or BLANK}, {environment.date[:10]}"


BRACKETS = (
    f"Brackets are 95 % intervals of the median over fresh processes; ‡ marks an interval {processes.ONE}, "
    "which does not cover another process"
)


def ratio_text(value: float, interval: tuple[float, float] | None) -> str:
    """1.06 [0.92, 1.22], or the number alone without an interval."""
    return f"{value:.2f}" if interval is None else f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"


class Timed(Protocol):
    """Passes of a model: of one record, or of all runs of a comparison."""

    @property
    def images_per_s(self) -> float: ...
    @property
    def images_per_s_interval(self) -> tuple[float, float] | None: ...
    @property
    def times_s(self) -> tuple[float, ...]: ...
    @property
    def unmet(self) -> tuple[str, ...]: ...
    @property
    def processes(self) -> int: ...


def images(timing: Timed | Skipped | None) -> str:
    """Images/s, the median with its interval (`BRACKETS`), or the status of a case without a number."""
    if timing is None:
        return BLANK
    if isinstance(timing, Skipped):
        return timing.status
    rate, interval = timing.images_per_s, timing.images_per_s_interval
    open_mark = "†" if timing.unmet else ""
    if interval is None:
        return f"{rounded(rate)}{open_mark} (n = {len(timing.times_s)}, no interval)"
    places = decimals(rate)
    alone = "‡" if timing.processes == 1 else ""
    return f"{rate:.{places}f}{open_mark} [{interval[0]:.{places}f}, {interval[1]:.{places}f}]{alone}"


_OURS = re.compile(r"<!-- records: [0-9a-f; ]* -->|\]\((?:#[\w-]+|(?:plots/)?[\w-]+\.(?:md|svg|html))\)")


def harmless(page: str) -> str:
    """Escape markup and links that are not the report's own: names in records are text everywhere."""
    kept = _OURS.findall(page)
    texts = [text.replace("<", "\\<").replace("](", "]\\(") for text in _OURS.split(page)]
    return "".join(text + ours for text, ours in zip(texts, [*kept, ""], strict=True))


def with_contents(page: str) -> str:
    """Insert links to all sections (GitHub's anchors) before the first section, if there are any."""
    headings = re.findall(r"^## (.+)$", page, flags=re.MULTILINE)
    if not headings:
        return page
    seen: Counter[str] = Counter()
    links = []
    for heading in headings:
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        links.append(f"[{heading}](#{anchor}{f'-{seen[anchor]}' if seen[anchor] else ''})")
        seen[anchor] += 1
    head, mark, rest = page.partition("\n## ")
    return f"{head}\n**Contents.** {' · '.join(links)}\n{mark}{rest}"
