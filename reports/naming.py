"""Orders and pairs models by their published names."""

import re

from models.registry import ENTRIES

COLOURS = {name: entry.color for name, entry in ENTRIES.items() if entry.color}
FAMILIES = tuple(COLOURS)  # those of the papers' comparisons
SIZES = ("Ti", "S", "M", "B", "L", "XL", "H")
_NAME = re.compile(r"([^@]+?)-(Ti|S|M|B|L|XL|H)\b")


def family(model: str) -> str:
    """FCDM of FCDM-XL; the whole name where it is not built so."""
    match = _NAME.match(model)
    return match[1] if match else model


def size(model: str) -> str:
    """XL of FCDM-XL and of DiT-XL/2; blank where the name holds no size."""
    match = _NAME.match(model)
    return match[2] if match else ""


def sizes_of(model: str) -> str:
    """DiT-*/2 of DiT-XL/2: the name that all sizes of one kind share; its own where it holds no size."""
    match = _NAME.match(model)
    return f"{match[1]}-*{model[match.end() :]}" if match else model


def order(model: str) -> tuple[int, int, str]:
    """A sorting key: families in the registry's order, each from small to large; unknown ones last."""
    name, letters = family(model), size(model)
    return (
        [*ENTRIES].index(name) if name in ENTRIES else len(ENTRIES),
        SIZES.index(letters) if letters in SIZES else len(SIZES),
        model,
    )


def dit_of(model: str) -> str:
    """The DiT that the papers set beside a model of this size; blank without a size (there is no DiT-H)."""
    letters = size(model)
    return f"DiT-{letters}/2" if letters in ("S", "B", "L", "XL") else ""
