"""Values of options: parsers of a word, whose ValueError says what would work."""

import math
import os
from collections.abc import Callable
from pathlib import Path

from bench.records.base import Size
from bench.store.files import why_not_readable
from models.task import named_task

PIXELS_PER_LATENT = 8
MAX_COUNT = 2**32 - 1
MAX_REPETITIONS = 1000
MAX_PX = 16_384
MAX_SECONDS = 30 * 24 * 3600


def number(text: str) -> float:
    """float() of ASCII digits, without other scripts, underscores and spaces. ValueError: another text."""
    if not text.isascii() or "_" in text or text != text.strip():
        raise ValueError(text)
    return float(text)


def number_in(low: float, high: float, what: str, *, above: bool = False) -> Callable[[str], float]:
    """A parser of numbers from `low`, or above it, to below `high`; `what` says so in its error."""

    def parse(text: str) -> float:
        try:
            value = number(text)
        except ValueError:
            value = math.nan
        if not low <= value < high or (above and value == low):
            raise ValueError(f"must be {what}, got {text!r}")
        return value

    return parse


share = number_in(0, 1, "a share above 0 and below 1, as 0.01", above=True)


def whole_number(text: str, least: int = 0, most: int = MAX_COUNT) -> int:
    """A whole number in ASCII digits."""
    if not (text.isascii() and text.isdigit()) or (len(text) < 10 and int(text) < least):
        raise ValueError(f"must be a whole number of at least {least}, got {text!r}")
    if len(text) > 20 or int(text) > most:
        raise ValueError(f"must be at most {most}, got {text!r}")
    return int(text)


def positive_int(text: str) -> int:
    return whole_number(text, least=1)


def repetitions(text: str) -> int:
    """A number of runs that are planned one by one."""
    return whole_number(text, least=1, most=MAX_REPETITIONS)


def positive_seconds(text: str) -> float:
    """Seconds: 90, 90s, 8m or 1h."""
    scale = {"s": 1, "m": 60, "h": 3600}.get(text[-1:], 0)
    try:
        seconds = number(text[:-1]) * scale if scale else number(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ValueError(f"must be seconds above zero, as 90, 90s, 8m or 1h, got {text!r}")
    if seconds > MAX_SECONDS:
        raise ValueError(f"must be at most {MAX_SECONDS // 3600}h, got {text!r}")
    return seconds


def resolution(text: str) -> Size:
    """Pixels: 512, or 512x256 for height x width."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() for side in sides):
        raise ValueError(f"must be pixels, as 512 or 512x256 (height x width), got {text!r}")
    if max(map(len, sides)) > 10 or max(map(int, sides)) > MAX_PX:
        raise ValueError(f"must be at most {MAX_PX} pixels, got {text!r}")
    numbers = [int(side) for side in sides]
    if any(n < PIXELS_PER_LATENT or n % PIXELS_PER_LATENT for n in numbers):
        near = [max(PIXELS_PER_LATENT, round(n / PIXELS_PER_LATENT) * PIXELS_PER_LATENT) for n in numbers]
        works = "x".join(map(str, near))
        raise ValueError(
            f"must be a multiple of {PIXELS_PER_LATENT} pixels, one latent, got {text}; try {works}"
        )
    return numbers[0] if len(set(numbers)) == 1 else (numbers[0], numbers[1])


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths name one file, through links too."""
    if os.path.exists(one) and os.path.exists(other):
        return os.path.samefile(one, other)
    return os.path.realpath(one) == os.path.realpath(other)


def file(text: str) -> Path:
    """A file to read: no folder, and no FIFO or device, which would hang or never end."""
    return _readable(text, or_folder=False)


def file_or_folder(text: str) -> Path:
    return _readable(text, or_folder=True)


def _readable(text: str, *, or_folder: bool) -> Path:
    if reason := why_not_readable(Path(text), or_folder=or_folder):
        raise ValueError(f"{text}: {reason}")
    return Path(text)


def folder(text: str) -> Path:
    """A folder that exists or will be made."""
    if os.path.exists(text) and not os.path.isdir(text):
        raise ValueError(f"{text}: is not a folder")
    return Path(text)


def task_name(text: str) -> str:
    """A name of `models.task.named_task`."""
    named_task(text)
    return text


def on_or_off(text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError(f"must be on or off, got {text!r}")
    return text == "on"


def decay_or_none(text: str) -> float | None:
    """The decay of an EMA, or none."""
    return None if text == "none" else share(text)
