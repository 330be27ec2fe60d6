"""Writes the report's section of notes: what people and commands remarked on the records, by device."""

from collections.abc import Sequence

from bench.records.record import Note, Record
from reports.figures.plots import Drawing


def section(records: Sequence[Record]) -> tuple[str, list[Drawing]]:
    """Write the section; empty without notes. Records may be in any order; the same note counts once."""
    notes = {record for record in records if isinstance(record, Note)}
    if not notes:
        return "", []
    parts = ["## Notes on the records"]
    for device in sorted({device for note in notes for device in note.devices or ("",)}):
        told = [note for note in notes if device in (note.devices or ("",))]
        parts.append(f"### {device or 'No device'}")
        parts.append("\n".join(map(_line, sorted(told, key=lambda note: (note.date, note.text, note.about)))))
    return "\n\n".join(parts), []


def _line(note: Note) -> str:
    said = f", {note.author}" if note.author else ""
    about = f" on `{note.about}`" if note.about else ""
    return f"- {note.date[:10]}{said}{about}: {' '.join(note.text.split())}"
