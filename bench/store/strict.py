"""Strict decoding into dataclasses by msgspec: every field is there, none is unknown, each has its type.

A field with the metadata "added" may be missing, as in files that are older than it.

msgspec fills structs, made here from the annotations of the dataclasses; the dataclasses are made of those.
Integers have 64 bits and numbers are finite, except where a field is a `FloatOrNaN`.
"""

import json
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache, lru_cache
from typing import Any, TypeVar

import msgspec

from bench.records.base import FloatOrNaN, StoreError

T = TypeVar("T")
Integer = typing.Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Finite = typing.Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
_CHECKED: dict[Any, Any] = {int: Integer, float: Finite, FloatOrNaN: float}
_TUPLE: Any = tuple
_ANNOTATED: Any = typing.Annotated
_MAKERS: dict[type, Callable[[Any], Any]] = {}  # by type of struct


def decode(annotation: type[T], value: Any) -> T:  # noqa: ANN401 - JSON
    """Check a JSON value against an annotation and convert it: lists to tuples, objects to dataclasses.

    Raises:
        StoreError: names the invalid value, or the missing or unknown field.
    """
    return typing.cast(T, convert(value, checked(annotation)))  # type: ignore[arg-type] # types are hashable


def convert(value: Any, into: Any) -> Any:  # noqa: ANN401 - JSON, and a result of `checked`
    """As `decode`, for a result of `checked`."""
    try:
        return made(msgspec.convert(value, into))
    except msgspec.ValidationError as error:
        raise StoreError(reason(error)) from error


@cache
def checked(annotation: Any) -> Any:  # noqa: ANN401
    """The annotation with strict structs for dataclasses and with limits of numbers."""
    if annotation in _CHECKED:
        return _CHECKED[annotation]
    if is_dataclass(annotation):
        cls = typing.cast(type, annotation)
        return struct(cls, cls.__name__)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(map(checked, arguments))]  # noqa: UP007 - of a tuple
    if origin is tuple:
        items = tuple(one if one is Ellipsis else checked(one) for one in arguments)
        if Ellipsis in items or len(set(items)) > 1:
            return _TUPLE[items]
        # msgspec 0.23 confuses the limits of numbers in a union with the items of a tuple of fixed length
        length = msgspec.Meta(min_length=len(items), max_length=len(items))
        return _ANNOTATED[_TUPLE[items[0], ...], length]
    return annotation


def reason(error: msgspec.ValidationError) -> str:
    """What is wrong, in msgspec's words; its words for the limits of `Finite` say little."""
    return re.sub(r"`float` [<>]= -?1\.79\S+", "a finite number", str(error))


def struct(
    cls: type,
    name: str,
    more: Mapping[str, Any] | None = None,
    *,
    is_json: bool = False,
    tag: str | None = None,
) -> type[msgspec.Struct]:
    """A strict struct with the fields of a dataclass.

    Args:
        cls: the dataclass.
        name: of the struct.
        more: further fields, which the dataclass lacks.
        is_json: to be decoded from JSON only. Equal texts of nested objects become one object then.
        tag: value of the further field "kind", which tells structs of a union apart.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    own = {field.name: hints[field.name] for field in fields(cls)}
    nested: dict[str, Callable[[Any], Any]] = {
        field: _read(checked(hint)) if is_json else made for field, hint in own.items() if _has_objects(hint)
    }
    named = {**(more or {}), **{field: checked(hint) for field, hint in own.items()}}
    if is_json:
        named |= dict.fromkeys(nested, msgspec.Raw)
    added: dict[str, Any] = {field.name: field.default for field in fields(cls) if "added" in field.metadata}
    if is_json:
        added |= {name: msgspec.Raw(json.dumps(added[name])) for name in added.keys() & nested.keys()}
    members: Any = [
        (name, type_, added[name]) if name in added else (name, type_) for name, type_ in named.items()
    ]
    found = msgspec.defstruct(
        name, members, forbid_unknown_fields=True, tag_field=tag and "kind", tag=tag, kw_only=True
    )
    _MAKERS[found] = _maker(cls, tuple(more or ()), nested)
    return found


def _read(into: Any) -> Callable[[msgspec.Raw], Any]:  # noqa: ANN401
    decoder = msgspec.json.Decoder(into)
    read = lru_cache(maxsize=1024)(lambda text: made(decoder.decode(text)))
    return lambda raw: read(bytes(raw))


def _has_objects(annotation: object) -> bool:
    return is_dataclass(annotation) or any(map(_has_objects, typing.get_args(annotation)))


def _maker(
    cls: type, without: tuple[str, ...], nested: Mapping[str, Callable[[Any], Any]]
) -> Callable[[Any], Any]:
    check = getattr(cls, "__post_init__", None)

    def make(decoded: msgspec.Struct) -> Any:  # noqa: ANN401
        body = msgspec.structs.asdict(decoded)
        for field in without:
            del body[field]
        for field, read in nested.items():
            body[field] = read(body[field])
        one: Any = object.__new__(cls)
        object.__setattr__(one, "__dict__", body)  # the constructor of a frozen class sets field by field
        if check is not None:
            try:
                check(one)
            except (ValueError, ArithmeticError, TypeError, LookupError) as error:
                raise StoreError(str(error)) from error
        return one

    return make


def made(value: Any) -> Any:  # noqa: ANN401
    """The value with dataclasses in place of structs."""
    if type(value) is tuple:
        return tuple(map(made, value))
    maker = _MAKERS.get(type(value))
    return value if maker is None else maker(value)
