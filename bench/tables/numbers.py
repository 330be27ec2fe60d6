"""Text of numbers and intervals in tables and reports."""

import math
from collections.abc import Sequence

BLANK = "-"


def fixed(digits: int, value: float | None) -> str:
    """A number with `digits` decimals; a dash for None."""
    return BLANK if value is None else f"{value:,.{digits}f}"


def significant(value: float | None) -> str:
    """Four significant digits, with an exponent only below 0.0001; a dash for None."""
    if value is None:
        return BLANK
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def decimals(value: float, digits: int = 4) -> int:
    """Number of decimals that shows `digits` significant digits of a positive number."""
    return max(0, digits - 1 - math.floor(math.log10(value))) if value > 0 else 0


def rounded(value: float, digits: int = 4) -> str:
    """`digits` significant digits with trailing zeros, never an exponent: 4.400."""
    return f"{value:.{decimals(value, digits)}f}"


def milliseconds(seconds: float | None) -> str:
    return significant(None if seconds is None else 1e3 * seconds)


def duration(seconds: float) -> str:
    """45 s, 12 min or 3.5 h."""
    if seconds < 100 or math.isnan(seconds):
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def percent(share: float | None, digits: int = 0) -> str:
    """A share in per cent, without the % sign."""
    return BLANK if share is None else f"{100 * share:.{digits}f}"


def giga(value: float | None, digits: int = 3) -> str:
    """In units of 10^9."""
    return _in_units(1e9, value, digits)


def mega(value: float | None, digits: int = 2) -> str:
    """In units of 10^6."""
    return _in_units(1e6, value, digits)


def _in_units(unit: float, value: float | None, digits: int) -> str:
    """With `digits` decimals, or four significant digits where these would show one digit or none."""
    if value is None:
        return BLANK
    shown = value / unit
    return significant(shown) if 0 < shown < 10.0 ** (1 - digits) else fixed(digits, shown)


def gibibytes(value: float | None) -> str:
    """Bytes in GiB, two decimals."""
    return BLANK if value is None else f"{value / 2**30:,.2f}"


def interval(bounds: Sequence[float] | None) -> str:
    """1.90 to 2.10."""
    return BLANK if bounds is None else f"{significant(bounds[0])} to {significant(bounds[1])}"


def fixed_interval(digits: int, bounds: Sequence[float] | None) -> str:
    """1.900 to 2.100, with `digits` decimals."""
    return BLANK if bounds is None else f"{bounds[0]:.{digits}f} to {bounds[1]:.{digits}f}"


def milliseconds_interval(seconds: Sequence[float] | None) -> str:
    return interval(None if seconds is None else [1e3 * end for end in seconds])
