"""Families, sizes and order of models from their published names; the statuses of numbers."""

import hashlib
import re
from functools import cache

from models.registry import ENTRIES, REFERENCES, SIZES, family_place, size_place

COLOURS = {name: entry.color for name, entry in ENTRIES.items() if entry.color}
OTHER = "#666666"  # colour of families without their own
MEASURED, COUNTED, PREDICTED, PUBLISHED = "measured", "counted", "predicted", "published"
STATUSES = (MEASURED, COUNTED, PREDICTED, PUBLISHED)  # of numbers, in the order of rows and columns
_NAME = re.compile(rf"([^@]+?)-({'|'.join(SIZES)})\b")


@cache
def family(model: str) -> str:
    """The family, FCDM for FCDM-XL and HDiT for HDiT-oxford-flowers; the whole name if it has none."""
    if match := _NAME.match(model):
        return match[1]
    return max((name for name in ENTRIES if model.startswith(f"{name}-")), key=len, default=model)


@cache
def size(model: str) -> str:
    """The size, XL for FCDM-XL and DiT-XL/2; blank if the name has none."""
    match = _NAME.match(model)
    return match[2] if match else ""


def sizes_of(model: str) -> str:
    """The common name of all sizes, DiT-*/2 for DiT-XL/2; the name itself if it has no size."""
    match = _NAME.match(model)
    return f"{match[1]}-*{model[match.end() :]}" if match else model


@cache
def order(model: str) -> tuple[int, int, str]:
    """Sorting key: families in the registry's order, each from small to large; unknown families last."""
    return family_place(family(model)), size_place(size(model)), model


def in_papers(model: str) -> bool:
    """Whether its family is in the papers' comparisons."""
    entry = ENTRIES.get(family(model))
    return entry is not None and bool(entry.compared)


def dit_of(model: str) -> str:
    """The DiT that the papers compare with a model of this size; blank without a size (there is no DiT-H)."""
    return REFERENCES.get(size(model), "")


def slug(*words: object) -> str:
    """Words as part of a file's name: small letters, digits and hyphens, at most 80."""
    text = " ".join(map(str, words))
    made = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if len(made) <= 80:
        return made
    return f"{made[:70].strip('-')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
