"""The report's section of notes: remarks on the records, by device."""

from collections.abc import Sequence

from bench.records.note import Note


def section(notes: Sequence[Note]) -> str:
    """Write the section; empty without notes. Notes may be in any order; equal ones count once."""
    if not notes:
        return ""
    parts = [
        "## Notes on the records",
        "Notes in their authors' words. Older notes name older commands: bench.agree is now bench.compare, "
        "bench.ceilings is bench.roofline --measure-ceilings.",
    ]
    for device in sorted({device for note in notes for device in note.devices or ("",)}):
        chosen = {note for note in notes if device in (note.devices or ("",))}
        lines = map(_line, sorted(chosen, key=lambda note: (note.date, note.text, note.about)))
        parts += [f"### {device or 'No device'}", "\n".join(lines)]
    return "\n\n".join(parts)


def _line(note: Note) -> str:
    author = f", {note.author}" if note.author else ""
    about = f" on `{note.about}`" if note.about else ""
    return f"- {note.date[:10]}{author}{about}: {' '.join(note.text.split())}"
