"""Reader of the data files in this folder, also in an installed copy."""

import csv
import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parent


def rows(name: str) -> list[dict[str, str]]:
    with (ROOT / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def unknown(what: str, name: str, known: Iterable[str], close: Sequence[str] = ()) -> ValueError:
    """Error for an unknown name, with the nearest names."""
    ordered = sorted(known)
    lower = {entry.lower(): entry for entry in ordered}
    close = close or [
        lower[entry] for entry in difflib.get_close_matches(name.lower(), lower, n=2, cutoff=0.6)
    ]
    hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(ordered) or 'none'}"
    return ValueError(f"{name}: no such {what}; {hint}")
