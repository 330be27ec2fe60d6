"""The JSON lines format of records: one object a line, with its format version and its kind.

A record is {"format": 3, "kind": KIND, "case": {...}, "environment": {...}, ...}. A case without a result has
the kind "skipped"; "of" names the kind of the case. A note has the kind "note". `bench.store.migrate` reads
earlier formats.
"""

import gc
import hashlib
import importlib
import json
import math
import pkgutil
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import bench.records
from bench.records.base import (
    INCIDENTAL,
    RECORDS,
    Case,
    Environment,
    FloatOrNaN,
    Record,
    Skipped,
    StoreError,
    case_type,
)
from bench.records.note import Note
from bench.store.files import why_not_regular
from bench.store.migrate import migrate

FORMAT = 3
MAX_INTEGER = 2**63 - 1
T = TypeVar("T")
R = TypeVar("R", bound=Record)


@cache
def kinds() -> dict[str, type[Record]]:
    """Record types by kind, registered by importing the modules of bench.records."""
    for module in pkgutil.iter_modules(bench.records.__path__):
        importlib.import_module(f"bench.records.{module.name}")
    return RECORDS


def to_dict(entry: Record | Note) -> dict[str, Any]:
    body = asdict(entry)
    if isinstance(entry, Note):
        return {"format": FORMAT, "kind": "note", **body}
    if isinstance(entry, Skipped):
        return {"format": FORMAT, "kind": "skipped", "of": entry.case.kind, **body}
    return {"format": FORMAT, "kind": entry.case.kind, **body}


def to_line(entry: Record | Note) -> str:
    return json.dumps(to_dict(entry), ensure_ascii=False) + "\n"


def from_dict(data: Mapping[str, Any]) -> Record | Note:
    """Rebuild a record or a note.

    StoreError: an unknown kind or format, a field missing, unknown or of a wrong type.
    """
    if not isinstance(data, Mapping):
        raise StoreError(f"a record is an object, got {type(data).__name__}")
    if data.get("format") != FORMAT:
        data = migrate(data)
    kind = data["kind"] if isinstance(data.get("kind"), str) else None
    body = {key: value for key, value in data.items() if key not in ("format", "kind", "of")}
    if kind == "note":
        return decode(Note, body)
    if kind == "skipped":
        case = decode(case_type(_record_type(data.get("of"))), body.pop("case", None))
        environment = decode(Environment, body.pop("environment", None))
        if set(body) != {"status", "reason"}:
            raise StoreError(f"skipped: fields missing or unknown: {', '.join(sorted(body))}")
        status, reason = (decode(str, body[name]) for name in ("status", "reason"))
        return Skipped(case=case, environment=environment, status=status, reason=reason)
    return decode(_record_type(kind), body)


def _record_type(kind: object) -> type[Record]:
    if not isinstance(kind, str) or kind not in kinds():
        raise StoreError(f"kind {kind!r}; known are {', '.join(kinds())}, skipped, note")
    return kinds()[kind]


def encode_case(case: Case) -> dict[str, Any]:
    """Encode a case with its kind, for `decode_case`."""
    return {"kind": case.kind, **asdict(case)}


def decode_case(data: Mapping[str, Any]) -> Case:
    """Rebuild a case. StoreError: an unknown kind, or a field missing, unknown or of a wrong type."""
    body = {key: value for key, value in data.items() if key != "kind"}
    return decode(case_type(_record_type(data.get("kind"))), body)


def decode(annotation: type[T], value: Any) -> T:  # noqa: ANN401 - JSON
    """Check a JSON value against an annotation and convert it: lists to tuples, objects to dataclasses.

    StoreError: names the invalid value, or the missing or unknown fields.
    """
    return typing.cast(T, _decoder(annotation)(value))  # type: ignore[arg-type] # types are hashable


Decoder = Callable[[Any], Any]


@cache
def _decoder(annotation: Any) -> Decoder:  # noqa: ANN401
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return _union(annotation, {choice: _decoder(choice) for choice in arguments})
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return _sequence(annotation, _decoder(arguments[0]), arguments[0])
        return _fixed(annotation, [_decoder(item) for item in arguments])
    if is_dataclass(annotation):
        return _object(typing.cast(type, annotation))
    return _scalar(annotation)


def _mismatch(annotation: object, value: object) -> StoreError:
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return StoreError(f"expected {name}, got {value!r:.100}")


def _scalar(annotation: object) -> Decoder:
    def read(value: Any) -> Any:  # noqa: ANN401 - JSON
        if type(value) is annotation or (annotation is type(None) and value is None):
            return value
        raise _mismatch(annotation, value)

    return read


def _integer(value: Any) -> int:  # noqa: ANN401 - JSON
    if type(value) is not int:
        raise _mismatch(int, value)
    if abs(value) > MAX_INTEGER:
        raise StoreError(f"expected an integer of 64 bits, got one of {value.bit_length()}")
    return value


def _text(value: Any) -> str:  # noqa: ANN401 - JSON
    if type(value) is not str:
        raise _mismatch(str, value)
    if not value.isascii() and any("\ud800" <= sign <= "\udfff" for sign in value):
        raise StoreError(f"expected Unicode text, which can be written to a file, got {value!r:.100}")
    return value


def _finite(value: Any) -> float:  # noqa: ANN401 - JSON
    if type(value) is int:
        return float(_integer(value))
    if type(value) is not float:
        raise _mismatch(float, value)
    if not math.isfinite(value):
        raise StoreError(f"expected a finite number, got {value}")
    return value


def _number(value: Any) -> float:  # noqa: ANN401 - JSON
    return value if type(value) is float else _finite(value)


_SCALARS: dict[Any, Decoder] = {str: _text, int: _integer, float: _finite, FloatOrNaN: _number}


def _union(annotation: object, choices: Mapping[Any, Decoder]) -> Decoder:
    def read(value: Any) -> Any:  # noqa: ANN401 - JSON
        if (exact := choices.get(type(value))) is not None:
            return exact(value)
        for choice in choices.values():
            try:
                return choice(value)
            except StoreError:
                continue
        raise _mismatch(annotation, value)

    return read


def _sequence(annotation: object, item: Decoder, of: object) -> Decoder:
    def read(value: Any) -> Any:  # noqa: ANN401 - JSON
        if not isinstance(value, list):
            raise _mismatch(annotation, value)
        # fast path for samples, of which a file has thousands
        if of is float and set(map(type, value)) == {float} and all(map(math.isfinite, value)):
            return tuple(value)
        return tuple(map(item, value))

    return read


def _fixed(annotation: object, items: list[Decoder]) -> Decoder:
    def read(value: Any) -> Any:  # noqa: ANN401 - JSON
        if not isinstance(value, list) or len(value) != len(items):
            raise _mismatch(annotation, value)
        return tuple(item(entry) for item, entry in zip(items, value, strict=True))

    return read


def _object(cls: type) -> Decoder:
    hints = typing.get_type_hints(cls, include_extras=True)
    names = [field.name for field in fields(cls)]
    # most fields are texts or integers, which need no conversion; a check in the loop is faster than a call
    texts = tuple(name for name in names if hints[name] is str)
    integers = tuple(name for name in names if hints[name] is int)
    others = tuple((name, _decoder(hints[name])) for name in names if hints[name] not in (str, int))
    known = frozenset(names)
    check = getattr(cls, "__post_init__", None)

    def read(value: Any) -> Any:  # noqa: ANN401 - JSON
        if type(value) is not dict:
            raise _mismatch(cls, value)
        if value.keys() != known:
            unmatched = sorted(value.keys() ^ known)
            raise StoreError(f"{cls.__name__}: fields missing or unknown: {', '.join(unmatched)}")
        body = value.copy()
        odd: list[tuple[str, Decoder]]
        odd = [(name, _text) for name in texts if type(value[name]) is not str or not value[name].isascii()]
        odd += [
            (name, _integer)
            for name in integers
            if type(value[name]) is not int or abs(value[name]) > MAX_INTEGER
        ]
        for name, decoder in (*odd, *others):
            try:
                body[name] = decoder(value[name])
            except StoreError as error:
                raise StoreError(f"{name}: {error}") from error
        made: Any = object.__new__(cls)
        object.__setattr__(made, "__dict__", body)  # the constructor of a frozen class sets field by field
        if check is not None:
            try:
                check(made)
            except (ValueError, ArithmeticError, TypeError, LookupError) as error:
                raise StoreError(str(error)) from error
        return made

    return read


_SOFTWARE = tuple(field.name for field in fields(Environment) if field.name not in INCIDENTAL)


def key(case: Case, environment: Environment) -> str:
    """Key of a case on a device with its software, independent of date and result.

    The hash of the sources replaces commit and date.
    """
    software = {name: getattr(environment, name) for name in _SOFTWARE}
    return _digest([case.identity(effort=True), software])


def newest(records: Iterable[R]) -> list[R]:
    """The newest record of every case on its device and software, for records in any order."""
    found = sorted(records, key=lambda record: record.age)
    return list({key(record.case, record.environment): record for record in found}.values())


def case_key(case: Case) -> str:
    """Key of a case alone, to match two sessions: without the sampling budget."""
    return _digest([case.identity(effort=False)])


def _digest(named: list[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Contents of a file of records."""

    records: list[Record]
    notes: list[Note]
    torn: str  # last line without a line break, cut off by a killed writer; blank without one


def parse(text: str, name: str) -> Contents:
    """Read every entry of a text of JSON lines, in order. StoreError: names the file and the line."""
    whole, _, torn = text.rpartition("\n")
    records: list[Record] = []
    notes: list[Note] = []
    with no_collections():
        _parse(whole, name, records, notes)
    return Contents(records=records, notes=notes, torn=torn)


@contextmanager
def no_collections() -> Iterator[None]:
    """Context manager without garbage collections, which would pass over all records again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _parse(whole: str, name: str, records: list[Record], notes: list[Note]) -> None:
    for number, line in enumerate(whole.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = from_dict(json.loads(line))
        except RecursionError as error:
            raise StoreError(f"{name}, line {number}: not a record of this suite: nested too deep") from error
        except ValueError as error:  # an integer of thousands of digits is a plain ValueError
            raise StoreError(f"{name}, line {number}: not a record of this suite: {error}") from error
        if isinstance(entry, Note):
            notes.append(entry)
        else:
            records.append(entry)


def read(path: Path) -> Contents:
    """Read a file of JSON lines; a torn last line is skipped.

    Raises:
        StoreError: names the file, the line and what is wrong with it.
        OSError: the file cannot be read.
    """
    if reason := why_not_regular(path):
        raise StoreError(f"{path}: {reason}")
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise StoreError(f"{path}: not a text file: byte {error.start} is not UTF-8") from error
