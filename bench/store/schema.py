"""JSON Schema of a line in a file of records, generated from the record types."""

import types
import typing
from dataclasses import fields, is_dataclass
from typing import Any

from bench.records.base import Environment, case_type
from bench.records.note import Note
from bench.store.codec import FORMAT, kinds

Json = dict[str, Any]
_SCALARS: dict[object, Json] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
}


def schema() -> Json:
    """The schema (draft 2020-12) of one line: a record of any kind, a skipped case, or a note."""
    shared: dict[str, Json] = {}
    lines = [_line(kind, _properties(record, shared)) for kind, record in sorted(kinds().items())]
    lines += [_skipped(kind, shared) for kind in sorted(kinds())]
    lines.append(_line("note", _properties(Note, shared)))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "One line of a file of records",
        "description": "Units are in field names: _s seconds, _bytes bytes; one MAC is two FLOPs.",
        "oneOf": lines,
        "$defs": dict(sorted(shared.items())),
    }


def _line(kind: str, properties: Json) -> Json:
    return _object({"format": {"const": FORMAT}, "kind": {"const": kind}, **properties})


def _skipped(kind: str, shared: dict[str, Json]) -> Json:
    body = {
        "of": {"const": kind},
        "case": _of(case_type(kinds()[kind]), shared),
        "environment": _of(Environment, shared),
        "status": _SCALARS[str],
        "reason": _SCALARS[str],
    }
    return _line("skipped", body)


def _object(properties: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _properties(cls: type, shared: dict[str, Json]) -> Json:
    hints = typing.get_type_hints(cls)
    return {field.name: _of(hints[field.name], shared) for field in fields(cls)}


def _of(annotation: Any, shared: dict[str, Json]) -> Json:  # noqa: ANN401 - a type annotation
    """The schema of a field's annotation; dataclasses go to `shared`, by name."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_of(choice, shared) for choice in arguments]}
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return {"type": "array", "items": _of(arguments[0], shared)}
        items = [_of(item, shared) for item in arguments]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
    if is_dataclass(annotation):
        name = typing.cast(type, annotation).__name__
        if name not in shared:
            shared[name] = {}  # a type that contains itself refers to this entry
            shared[name] = _object(_properties(typing.cast(type, annotation), shared))
        return {"$ref": f"#/$defs/{name}"}
    return _SCALARS[annotation]
