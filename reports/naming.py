"""Order, colour and pairing of models by their published names."""

import re

# The families of the papers' comparisons in their order, with Okabe and Ito's colours, which every common
# colour blindness keeps apart
COLOURS = {
    "FCDM": "#D55E00",
    "DiT": "#0072B2",
    "DiCo": "#009E73",
    "DiC": "#CC79A7",
    "DiG": "#E69F00",
}
FAMILIES = tuple(COLOURS)
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
    """DiT-*/2 of DiT-XL/2: the pattern of all sizes; the name itself where it holds no size."""
    match = _NAME.match(model)
    return f"{match[1]}-*{model[match.end() :]}" if match else model


def order(model: str) -> tuple[int, int, str]:
    """A sorting key: the families of the papers first, each from small to large."""
    name, letters = family(model), size(model)
    return (
        FAMILIES.index(name) if name in FAMILIES else len(FAMILIES),
        SIZES.index(letters) if letters in SIZES else len(SIZES),
        model,
    )


def dit_of(model: str) -> str:
    """The DiT of a model's size; blank where there is none (there is no DiT-H)."""
    letters = size(model)
    return f"DiT-{letters}/2" if letters in ("S", "B", "L", "XL") else ""
