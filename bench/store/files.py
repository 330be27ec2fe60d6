"""Files that users name: only regular ones are opened, as a FIFO or a device would hang or never end."""

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MAX_NAME_BYTES = 255  # of the usual file systems
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def why_not_regular(path: Path) -> str | None:
    """Reason why a path, with its links followed, is not a regular file; None if it is, or does not exist.

    OSError: the path cannot be looked at; its name is too long, for example.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), None)
    return None if kind is None else f"is {kind}, not a file"


def why_not_readable(path: Path, *, or_folder: bool = False) -> str | None:
    """Reason why a path is not a file, or a folder, that can be read; None if it is. Nothing is opened."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return f"no such file{' or folder' if or_folder else ''}"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if or_folder and stat.S_ISDIR(mode):
        return None
    return why_not_regular(path) or (
        None if os.access(path, os.R_OK) else f"cannot be read: {os.strerror(errno.EACCES)}"
    )


def why_not_writable(path: Path) -> str | None:
    """Reason why a file cannot be written; None if it can. Nothing is made, not even for a moment."""
    try:
        if reason := why_not_regular(path):
            return reason
        if path.exists():
            with path.open("ab"):
                return None
        folder = next(parent for parent in path.resolve().parents if parent.exists())
        if max(len(os.fsencode(part)) for part in path.parts) > MAX_NAME_BYTES:
            return f"cannot be written: {os.strerror(errno.ENAMETOOLONG)}"
        with tempfile.TemporaryFile(dir=folder):  # has no name where the system can do without
            return None
    except OSError as error:
        return f"cannot be written: {error.strerror}"
    except ValueError as error:  # embedded null byte
        return f"cannot be written: {error}"


@contextlib.contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing under a temporary name; rename it once it is on disk, delete it on an error."""
    path = path.resolve()  # a link stays a link
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
