"""report.html from its template: answers, results, plots, claims, and the packed records."""

import base64
import itertools
import json
import re
import shlex
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from baselines import load
from bench.records.base import VIEWS, Case, Record
from bench.records.note import Note
from bench.store.store import REPORTED
from models.registry import ENTRIES
from reports.answers import Answer
from reports.claims.verdicts import Finding
from reports.html import board, table
from reports.html.rows import QUANTITIES, Row, of_records, of_tables
from reports.markdown import BRACKETS
from reports.naming import COLOURS, OTHER, STATUSES, family, order
from reports.selection import grouped

FILE = "report.html"
FOLDER = Path(__file__).parent
CHUNK = 64  # records that are packed together and unpacked at once
LIBRARIES = ("d3.min.js", "plot.umd.min.js", "tabulator.min.js")
CARDS, MOST_CARDS = 9, 60  # settings of answers in view, and on the page: the rest is folded
DIGITS = 4  # significant digits of floating-point numbers in packed records
SAMPLES = (24, 100)  # entries of a list in a packed record, evenly spaced: at least and at most
TOTAL = 300_000  # samples that the page has room for


def render(
    records: Sequence[Record],
    notes: Sequence[Note],
    answers: Sequence[Answer],
    found: Sequence[Finding],
    predictions: Sequence[Row] = (),
) -> str:
    """The page of distinct records; the same records give the same bytes."""
    records = sorted(records, key=lambda one: (one.case.kind, one.name, one.age))  # equal ones pack best
    ids = board.record_ids(records)
    measured = of_records(records)
    printed = of_tables(load.tables())
    for row in printed:
        row.place += len(records)
    rows = sorted([*measured, *printed, *predictions], key=_place)
    most = min(max(SAMPLES[0], TOTAL // max(1, len(records))), SAMPLES[1])
    sources = [_source(record, notes, most) for record in records]
    sources += [_published(row) for row in printed]
    items = board.items(found, ids)
    by_setting = grouped(answers, lambda one: one.where)
    first: dict[int, int] = {}
    for at, row in enumerate(rows):
        first.setdefault(row.place, at)
    names = {first[place]: ids[record.age] for place, record in enumerate(records) if place in first}
    return _template().render(
        quantities=QUANTITIES,
        views=VIEWS,
        body=table.body(rows, names, _anchors(rows)),
        brackets=BRACKETS,
        answers=answers,
        settings_of_answers=list(by_setting.items())[:MOST_CARDS],
        left_out=max(0, len(by_setting) - MOST_CARDS),
        cards=CARDS,
        evidence={one: _evidence(one, ids) for one in answers},
        items=items,
        tones={tone: [item for item in items if item.tone == tone] for tone in board.TITLES},
        titles=board.TITLES,
        notes=sorted(set(notes), key=lambda note: (note.date, note.text)),
        records=len(records),
        devices=sorted({row.device for row in measured if row.device}),
        chunks=_chunks(sources),
        chunk=CHUNK,
        settings=_json(
            {
                "styles": _styles({row.model for row in rows}),
                "chunk": CHUNK,
                "most": most,
                "quantities": list(map(asdict, QUANTITIES)),
            }
        ),
        css=_inlined("vendor/tabulator.min.css", "templates/report.css"),
        libraries=[_inlined(f"vendor/{name}") for name in LIBRARIES],
        script=_inlined("templates/report.js"),
        licences=[(name, _text(f"vendor/{name}.LICENSE")) for name in ("d3", "plot", "tabulator")],
    )


# shapes of points outside the families of the papers' comparisons, which have circles
SYMBOLS = ("triangle", "square", "diamond", "star", "cross", "hexagon", "wye")


def _styles(models: Collection[str]) -> dict[str, tuple[str, str]]:
    """Colour and shape of the points of each model."""
    others = (name for name, entry in ENTRIES.items() if not entry.compared)
    symbols = dict(zip(others, itertools.cycle(SYMBOLS), strict=False))
    return {
        model: (COLOURS.get(family(model), OTHER), symbols.get(family(model), "circle"))
        for model in sorted(models)
    }


def _evidence(one: Answer, ids: Mapping[tuple[str, str], str]) -> list[tuple[str, str]]:
    """The id of each compared record with its model, the best first."""
    return [(ids[record.age], model) for record, model in zip(one.records, one.among, strict=True)]


@cache
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(FOLDER / "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html.j2")


@cache
def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _inlined(*names: str) -> Markup:
    """Files of this folder, which are trusted, without the addresses of their source maps."""
    text = "\n".join(map(_text, names))
    return Markup(re.sub(r"/[/*]# sourceMappingURL=\S+( \*/)?", "", text))


def _json(value: object) -> Markup:
    """JSON inside a script element: no character can end it."""
    return Markup(json.dumps(value, ensure_ascii=True).replace("<", "\\u003c"))


def _place(row: Row) -> tuple[object, ...]:
    return (
        not row.model,
        *order(row.model),
        STATUSES.index(row.status),
        [int(side) for side in re.findall(r"\d+", row.res)],
        row.what,
        row.device,
        row.precision,
        row.batch.rjust(9),
        row.settings,
        row.date,
        row.place,
    )


def _anchors(rows: Sequence[Row]) -> dict[int, list[str]]:
    """Deep links such as FCDM-XL/256/bf16, by the position of the first row that they lead to."""
    found: dict[str, int] = {}
    for at, row in enumerate(rows):
        if row.model and row.res:
            found.setdefault(f"{row.model}/{row.res}", at)
            if row.precision:
                found.setdefault(f"{row.model}/{row.res}/{row.precision}", at)
    by_row: dict[int, list[str]] = {}
    for name, at in found.items():
        by_row.setdefault(at, []).append(name)
    return by_row


# records in the page


def _source(record: Record, notes: Sequence[Note], most: int) -> dict[str, Any]:
    """What a record's dialog shows: its fields, the command that repeats it, and the notes on it."""
    body = _short(record, most)
    return {
        "name": record.name,
        "command": command(record.case),
        "environment": body.pop("environment"),
        "notes": [_note(note) for note in notes if _is_about(note, record)],
        "record": body,
    }


def command(case: Case) -> str:
    """The command line that repeats a case; files of models and data are named without their folders."""
    words = ["python", "-m", *map(str, case.command), "--out", str(REPORTED)]
    return shlex.join(words) if case.command else ""


def _is_about(note: Note, record: Record) -> bool:
    here = record.environment
    if note.devices and here.device not in note.devices:
        return False
    return here.date <= note.date and fnmatchcase(record.name, note.about or "*")


def _note(note: Note) -> str:
    return f"{note.date[:10]}{', ' if note.author else ''}{note.author}: {note.text}"


def _published(row: Row) -> dict[str, Any]:
    words = f"{row.what}, as printed: {row.model}"
    return {"name": words, "command": "", "environment": {}, "notes": [], "record": {"printed": row.printed}}


@cache
def _fields(cls: Any) -> tuple[str, ...]:  # noqa: ANN401 - a class
    return tuple(one.name for one in fields(cls)) if is_dataclass(cls) else ()


_PLAIN = {str, int, bool, type(None)}


def _short(value: Any, most: int) -> Any:  # noqa: ANN401 - JSON
    """A record as JSON: numbers to DIGITS significant digits, and at most so many entries of a list."""
    cls: Any = type(value)
    if cls in _PLAIN:
        return value
    if cls is float:
        return float(f"{value:.{DIGITS}g}")
    if cls in (list, tuple):
        if len(value) > most:
            value = [value[round(i * (len(value) - 1) / (most - 1))] for i in range(most)]
        return [inner if type(inner) in _PLAIN else _short(inner, most) for inner in value]
    found = {name: getattr(value, name) for name in _fields(cls)}
    return {name: one if type(one) in _PLAIN else _short(one, most) for name, one in found.items()}


def _chunks(sources: Sequence[dict[str, Any]]) -> list[str]:
    """The sources in groups of CHUNK: JSON, deflated, in base64."""
    groups = [sources[at : at + CHUNK] for at in range(0, len(sources), CHUNK)]
    texts = [json.dumps(group, separators=(",", ":"), allow_nan=False) for group in groups]
    return [base64.b64encode(zlib.compress(text.encode())).decode() for text in texts]
