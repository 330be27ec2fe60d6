"""An append-only file of records: one writer at a time; each record is on disk before the next case."""

import errno
import os
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from operator import attrgetter
from pathlib import Path

from bench.records.base import INCIDENTAL, Case, Environment, Record, Skipped, StoreError
from bench.records.note import Note
from bench.store.codec import Contents, case_key, no_collections, parse, to_line
from bench.store.files import why_not_regular
from bench.store.locks import lock

REPORTED = Path(
    "reports/out/records.jsonl"
)  # written by a sweep and read by the report, relative to the current folder


_SOFTWARE = attrgetter(*(field.name for field in fields(Environment) if field.name not in INCIDENTAL))


def _place(case: Case, environment: Environment) -> tuple[Hashable, Hashable]:
    """Equal for equal keys (`bench.store.codec.key`), and ten times faster than the digest."""
    return case.identified, _SOFTWARE(environment)


class Store:
    """Stored records of a file, open for appending; created by `open_store`.

    Attributes:
        path: of the file.
        torn: unfinished last line of a killed writer, moved to PATH.torn; blank without one.
    """

    def __init__(self, path: Path, descriptor: int, contents: Contents) -> None:
        self.path = path
        self.torn = contents.torn
        self._descriptor = descriptor
        with no_collections():
            self._newest = {_place(record.case, record.environment): record for record in contents.records}
        self._answered: set[tuple[str, str]] = set()
        self._to_place = list(contents.records)  # not in _answered yet, which only a sweep needs

    def find(self, case: Case, environment: Environment) -> Record | None:
        """The newest record of a case on this device and software; None without one."""
        return self._newest.get(_place(case, environment))

    def is_answered(self, case: Case, environment: Environment) -> bool:
        """Whether the store has a result of a case on this device, from any version of code and software."""
        for record in self._to_place:
            if not isinstance(record, Skipped):
                self._answered.add((case_key(record.case), record.environment.device))
        self._to_place.clear()
        return (case_key(case), environment.device) in self._answered

    def append(self, entry: Record | Note) -> None:
        """Write one entry at the end of the file, and return when it is on disk.

        StoreError: the entry could not be written whole; the file is as before.
        """
        line = to_line(entry).encode()
        end = os.fstat(self._descriptor).st_size
        try:
            written = os.write(self._descriptor, line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, end)
            raise StoreError(
                f"{self.path}: cannot be written: {error.strerror}; earlier records are kept"
            ) from error
        if isinstance(entry, Record):
            self._newest[_place(entry.case, entry.environment)] = entry
            self._to_place.append(entry)


@contextmanager
def open_store(path: Path) -> Iterator[Store]:
    """Lock and read a file of records, created if missing; unlock it at the end.

    The unfinished last line of a killed writer is moved to PATH.torn. The rest of the file never changes.
    StoreError: another process writes to the file, it cannot be opened, or a line is not a record.
    """
    try:
        if reason := why_not_regular(path):
            raise StoreError(f"{path}: {reason}")
        path.resolve().parent.mkdir(parents=True, exist_ok=True)  # of the file that a link names
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        try:
            lock(descriptor)
        except BlockingIOError as error:
            raise StoreError(f"{path}: another process is writing to it") from error
        with path.open("rb") as file:
            contents = parse(file, str(path))
        if contents.torn:
            with path.with_name(path.name + ".torn").open("ab") as aside:
                aside.write(contents.torn + b"\n")
            os.ftruncate(descriptor, os.fstat(descriptor).st_size - len(contents.torn))
            os.fsync(descriptor)
        yield Store(path, descriptor, contents)
    finally:
        os.close(descriptor)
