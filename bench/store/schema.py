"""JSON Schema of a line in a file of records, generated from the record types."""

from typing import Any

import msgspec

from bench.store.codec import line_type


def schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of one line: a record of any kind, a skipped case, or a note."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "One line of a file of records",
        "description": "Units are in field names: _s seconds, _bytes bytes; one MAC is two FLOPs.",
        **msgspec.json.decode(msgspec.json.encode(msgspec.json.schema(line_type(is_json=False)))),
    }
