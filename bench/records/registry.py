"""The registry of kinds of records."""

from dataclasses import fields
from typing import TypeVar

from bench.records.base import Case, Record

R = TypeVar("R", bound=type[Record])
RECORDS: dict[str, type[Record]] = {}  # by kind


def register(record: R) -> R:
    """Register a record type under the kind of its case."""
    kind = case_type(record).kind
    if RECORDS.setdefault(kind, record) is not record:
        raise ValueError(f"two kinds of record are called {kind!r}")
    return record


def case_type(record: type[Record]) -> type[Case]:
    """The type of a record's case."""
    (field,) = (field for field in fields(record) if field.name == "case")
    if not isinstance(field.type, type) or not issubclass(field.type, Case):
        raise TypeError(f"{record.__name__}.case: must be annotated with a Case, got {field.type}")
    return field.type
