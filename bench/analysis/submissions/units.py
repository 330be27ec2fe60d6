"""Values of records outside the range of their unit, and texts that are no names. Imports no torch.

The unit of a field is the end of its name: _s, _bytes, _mhz, _w, _c, _j.
"""

import datetime
import math
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from baselines import macs as baseline_macs
from bench.records.base import Case, Record, SizedCase
from bench.records.comparison import ComparisonCase
from bench.records.counts import MacCount
from bench.records.memory import Memory
from bench.records.note import Note
from bench.records.throughput import TimedPasses
from models.users import names

# smallest and largest plausible value of a unit
RANGES = {
    "_s": (0.0, 3e6),  # a month
    "_bytes": (0.0, 2.0**44),
    "_mhz": (50.0, 10_000.0),
    "_w": (0.0, 5_000.0),
    "_c": (-40.0, 150.0),
    "_j": (0.0, 1e10),
}
MAX_POWER_W = 5_000.0
BUDGET_FACTOR = 10.0  # one slow pass may exceed a budget; most passes do not
COUNT_FACTOR = 2.0  # counters differ by per cents; GMACs for MACs, or FLOPs for MACs, by this and more
_NAME = re.compile(r"[A-Za-z_][\w.+-]*(?:/\d[\w-]*)?(?:@[\w.+-]+)*")  # DiT-XL/2, MPDiT-B/4x, FCDM-L@na7
_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")


def implausible(entry: Record | Note) -> Iterator[str]:
    """Texts on every implausible value of a record or a note."""
    if isinstance(entry, Note):
        yield from _texts(entry.about, "about")
        return
    yield from _walk(entry, "")
    for model in _models(entry.case):
        if not _is_name(model):
            yield f"text: model {model!r} is no name of a backbone and none of {names.FORMS}"
    if isinstance(entry, TimedPasses):
        yield from _passes(entry)
    elif isinstance(entry, Memory) and entry.use.peak_bytes < entry.use.parameters_bytes:
        yield f"units: peak of {entry.use.peak_bytes} bytes below {entry.use.parameters_bytes} of parameters"
    elif isinstance(entry, MacCount):
        yield from _count(entry)


def _models(case: Case) -> list[str]:
    """The models that a case names: one, or those of a comparison, each once."""
    if isinstance(case, ComparisonCase):
        return list(dict.fromkeys(arm.model for arm in case.arms))
    return [case.model] if isinstance(case, SizedCase) else []


def _is_name(model: str) -> bool:
    """Whether a name has the form of a backbone's, or is that of a user's model as printed."""
    if not names.is_users(model):
        return _NAME.fullmatch(model) is not None
    try:
        parsed = names.parse(model)
    except ValueError:
        return False
    is_path = parsed.is_file or parsed.where.endswith(".json")
    return parsed.name == model and (is_path or _MODULE.fullmatch(parsed.where) is not None)


def _walk(value: Any, name: str) -> Iterator[str]:  # noqa: ANN401 - fields of any type
    if is_dataclass(value):
        for field in fields(value):
            yield from _walk(getattr(value, field.name), field.name)
    elif isinstance(value, tuple):
        found = [text for item in value for text in _walk(item, name)]
        yield from found[:1]
    elif isinstance(value, str):
        yield from _texts(value, name)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        unit = next((unit for unit in RANGES if name.endswith(unit)), None)
        if unit is None:
            return
        low, high = RANGES[unit]
        if not low <= value <= high:
            yield f"units: {name} {value:g} is outside {low:g} to {high:g}"


def _texts(text: str, name: str) -> Iterator[str]:
    if name not in ("text", "reason") and not text.isprintable():
        yield f"text: {name} has control characters"


def _passes(record: TimedPasses) -> Iterator[str]:
    case = record.case
    *but_last, _ = record.times_s
    if case.budget_s and sum(but_last) > BUDGET_FACTOR * case.budget_s + 60:
        yield f"units: times_s sum to {sum(but_last):g} in a budget of {case.budget_s:g} s: milliseconds?"
    if sum(record.device_times_s) > 1.1 * sum(record.times_s):
        yield "units: device_times_s exceed the wall clock of times_s: milliseconds?"
    telemetry = record.telemetry
    if telemetry and telemetry.energy_j is not None and telemetry.window_s > 0:
        power = telemetry.energy_j / telemetry.window_s
        if not math.isfinite(power) or power > MAX_POWER_W:
            yield f"units: energy_j over window_s is {power:g} W: millijoules?"


def _count(record: MacCount) -> Iterator[str]:
    latent = record.case.latent_size
    known = _released().get((record.case.model, latent)) if isinstance(latent, int) else None
    if known is None or not record.macs or record.case.counter == "module-hooks":
        return
    if not 1 / COUNT_FACTOR < record.macs_per_image / known[1] < COUNT_FACTOR:
        yield (
            f"units: macs {record.macs_per_image:.4g} an image; the release of {record.case.model} has "
            f"{known[1]:.4g} (one MAC is two FLOPs)"
        )


_released = cache(baseline_macs.macs)


def is_date(text: str) -> bool:
    """Whether a text is a moment in UTC, ISO 8601."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return False
    return moment.utcoffset() == datetime.timedelta(0)


def printable(text: str) -> str:
    """The text on one line, control characters and direction marks escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
