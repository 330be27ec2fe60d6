"""The JSON lines format of records: one object a line, with its format version and its kind.

A record is {"format": 3, "kind": KIND, "case": {...}, "environment": {...}, ...}. A case without a result has
the kind "skipped"; "of" names the kind of the case. A note has the kind "note". `bench.store.migrate` reads
earlier formats.
"""

import codecs
import gc
import hashlib
import importlib
import json
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast

import msgspec

import bench.records
from bench.records.base import INCIDENTAL, Case, Environment, Record, Skipped, StoreError
from bench.records.note import Note
from bench.records.registry import RECORDS, case_type
from bench.store import strict
from bench.store.files import why_not_regular
from bench.store.migrate import migrate
from bench.store.strict import decode as decode

FORMAT = 3
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


class SkippedLine(msgspec.Struct, tag_field="kind", tag="skipped", forbid_unknown_fields=True):
    """A case of any kind without a result; `of` is its kind."""

    format: Literal[3]
    of: str
    case: dict[str, Any]
    environment: dict[str, Any]
    status: str
    reason: str


@cache
def line_type(*, is_json: bool) -> Any:  # noqa: ANN401
    """The union of the structs of lines, by kind."""
    lines = [
        strict.struct(cls, cls.__name__, {"format": Literal[3]}, is_json=is_json, tag=kind)
        for kind, cls in {**kinds(), "note": Note}.items()
    ]
    return Union[(SkippedLine, *lines)]


@cache
def _decoder() -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(line_type(is_json=True))


def from_line(line: bytes) -> Record | Note:
    """Rebuild a record or a note from its line.

    Raises:
        StoreError: an unknown kind or format, a field missing, unknown or of a wrong type.
        ValueError: not JSON, or not UTF-8.
        RecursionError: nested too deep.
    """
    try:
        return _entry(_decoder().decode(line))
    except (msgspec.DecodeError, UnicodeDecodeError):
        # NaN, an earlier format, or no record; the error of `from_dict` says what is wrong
        return from_dict(json.loads(line.decode()))


def from_dict(data: Any) -> Record | Note:  # noqa: ANN401 - JSON
    """Rebuild a record or a note.

    Raises:
        StoreError: an unknown kind or format, a field missing, unknown or of a wrong type.
    """
    if not isinstance(data, dict):
        raise StoreError(f"a record is an object, got {type(data).__name__}")
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        found = error.object[error.start : error.end]
        raise StoreError(f"expected Unicode text, which can be written to a file, got {found!r}") from error
    if data.get("format") != FORMAT:
        data = migrate(data)
    if data.get("kind") not in ("note", "skipped"):
        _record_type(data.get("kind"))
    try:
        decoded = msgspec.convert(data, line_type(is_json=False))
    except msgspec.ValidationError as error:
        raise StoreError(strict.reason(error)) from error
    return _entry(decoded)


def _entry(decoded: msgspec.Struct) -> Record | Note:
    if not isinstance(decoded, SkippedLine):
        return cast(Record | Note, strict.made(decoded))
    return Skipped(
        case=decode(case_type(_record_type(decoded.of)), decoded.case),
        environment=decode(Environment, decoded.environment),
        status=decoded.status,
        reason=decoded.reason,
    )


def _record_type(kind: object) -> type[Record]:
    if not isinstance(kind, str) or kind not in kinds():
        raise StoreError(f"kind {kind!r}; known are {', '.join(kinds())}, skipped, note")
    return kinds()[kind]


def encode_case(case: Case) -> dict[str, Any]:
    """Encode a case with its kind, for `decode_case`."""
    return {"kind": case.kind, **asdict(case)}


def decode_case(data: Mapping[str, Any]) -> Case:
    """Rebuild a case.

    Raises:
        StoreError: an unknown kind, or a field missing, unknown or of a wrong type.
    """
    body = {key: value for key, value in data.items() if key != "kind"}
    return decode(case_type(_record_type(data.get("kind"))), body)


_SOFTWARE = tuple(field.name for field in fields(Environment) if field.name not in INCIDENTAL)


def key(case: Case, environment: Environment) -> str:
    """Key of a case on a device with its software, independent of date and result.

    The hash of the sources replaces commit and date.
    """
    software = tuple((name, getattr(environment, name)) for name in _SOFTWARE)
    return _digest(f"[{_case_text(case, effort=True)}, {_software_text(software)}]")


def newest(records: Iterable[R]) -> list[R]:
    """The newest record of every case on its device and software, for records in any order."""
    found = sorted(records, key=lambda record: record.age)
    return list({key(record.case, record.environment): record for record in found}.values())


def case_key(case: Case) -> str:
    """Key of a case alone, to match two sessions: without the sampling budget."""
    return _digest(f"[{_case_text(case, effort=False)}]")


@lru_cache(maxsize=4096)
def _case_text(case: Case, *, effort: bool) -> str:
    return json.dumps(case.identity(effort=effort), sort_keys=True)


@lru_cache(maxsize=1024)
def _software_text(named: tuple[tuple[str, object], ...]) -> str:
    return json.dumps(dict(named), sort_keys=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Contents of a file of records."""

    records: list[Record]
    notes: list[Note]
    torn: bytes  # last line without a line break, cut off by a killed writer; blank without one


def parse(lines: Iterable[bytes], name: str) -> Contents:
    """Read every entry, in order.

    Args:
        lines: of the file, each with its line break.
        name: of the file, for errors.

    Raises:
        StoreError: names the file, the line and what is wrong with it.
    """
    records: list[Record] = []
    notes: list[Note] = []
    torn = b""
    with no_collections():
        for number, line in enumerate(lines, start=1):
            if line.isspace():
                continue
            try:
                if not line.endswith(b"\n"):
                    torn = line
                    codecs.getincrementaldecoder("utf-8")().decode(torn)  # may end in half a character
                    break
                entry = from_line(line)
            except (RecursionError, ValueError) as error:
                what = "nested too deep" if isinstance(error, RecursionError) else error
                raise StoreError(f"{name}, line {number}: not a record of this suite: {what}") from error
            if isinstance(entry, Note):
                notes.append(entry)
            else:
                records.append(entry)
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


def read(path: Path) -> Contents:
    """Read a file of JSON lines; a torn last line is skipped.

    Raises:
        StoreError: names the file, the line and what is wrong with it.
        OSError: the file cannot be read.
    """
    if reason := why_not_regular(path):
        raise StoreError(f"{path}: {reason}")
    with path.open("rb") as file:
        return parse(file, str(path))
