"""A remark on records of the same file."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Note:
    """A remark, not a Record: it has no case and no environment."""

    text: str
    about: str  # pattern of case names; blank: all earlier records of the file
    devices: tuple[str, ...]  # of the matching records
    author: str  # blank: unknown
    date: str  # UTC, ISO 8601, to the second

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError("note: needs a text")
