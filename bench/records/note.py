"""A remark on records of the file it stands in."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Note:
    """A remark. It answers no case and has no environment, so it is not a Record."""

    text: str
    about: str  # a pattern of the names of cases; blank: all records that the file had then
    devices: tuple[str, ...]  # of the records it is about, as their environments name them
    author: str  # blank: not said
    date: str  # UTC, ISO 8601, to the second

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError("note: needs a text")
