"""An append-only file of records: one writer at a time, and every record on disk before the next case."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.records.labels import environment as environment_of
from bench.records.record import Record, Run, StoreError, case, failed, key, parse, to_line


class Store:
    """Records of a file and a place for more; made by `open_store`.

    Attributes:
        path: of the file.
        torn: what a killed writer left of a last line, now in PATH.torn; blank where it left nothing.
    """

    def __init__(self, path: Path, descriptor: int, records: list[Record], torn: str) -> None:
        self.path = path
        self.torn = torn
        self._descriptor = descriptor
        self._held = {key(record): record for record in records}  # the newest of each case
        self._answered: set[tuple[str, str]] = set()
        self._not_placed = list(records)  # in _answered yet: only a sweep may ask for that

    def held(self, about: Run | Record | tuple[Run, ...]) -> Record | None:
        """The newest record of a case, by its content key; None where there is none yet."""
        return self._held.get(key(about))

    def answered(self, about: Run | Record | tuple[Run, ...]) -> bool:
        """Tell whether a case was answered on this device, by whatever code and software of it."""
        self._answered |= {_place(record) for record in self._not_placed if not failed(record)}
        self._not_placed.clear()
        return _place(about) in self._answered

    def append(self, record: Record) -> None:
        """Write one record at the end of the file, and return when it is on disk."""
        line = to_line(record).encode()
        written = os.write(self._descriptor, line)
        if written != len(line):
            raise StoreError(f"{self.path}: wrote {written} of {len(line)} bytes: is the disk full?")
        os.fsync(self._descriptor)
        self._held[key(record)] = record
        self._not_placed.append(record)


def _place(about: Run | Record | tuple[Run, ...]) -> tuple[str, str]:
    """What was asked, and the device."""
    first = about[0] if isinstance(about, tuple) else about
    environment = first.environment if isinstance(first, Run) else environment_of(first)
    return case(about), environment.device if environment else ""


@contextmanager
def open_store(path: Path) -> Iterator[Store]:
    """Lock and read a file of records, made if need be, and unlock it at the end.

    A last line that a killed writer left unfinished is moved to PATH.torn. Nothing else of the file is ever
    changed.

    Raises:
        StoreError: another process is writing to it, it cannot be opened, or a line in it is not a record.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(f"{path}: another process is writing to it") from error
        held = path.read_bytes()
        end = held.rfind(b"\n") + 1
        try:
            records, _ = parse(held[:end].decode(), str(path))
        except UnicodeDecodeError as error:
            raise StoreError(f"{path}: not a file of records: byte {error.start} is not UTF-8") from error
        torn = held[end:]
        if torn:
            with path.with_name(path.name + ".torn").open("ab") as aside:
                aside.write(torn + b"\n")
            os.ftruncate(descriptor, end)
            os.fsync(descriptor)
        yield Store(path, descriptor, records, torn.decode(errors="replace"))
    finally:
        os.close(descriptor)
