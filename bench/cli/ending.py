"""How a command ends: one line for an error, exit codes, signals, and standard streams that cannot be used.

Exit code 2: refused, or failed for a reason outside this suite (a user's code, a full disk, no memory). Exit
code 130, 143 or 129: ended by SIGINT, SIGTERM or SIGHUP.
"""

import argparse
import errno
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Protocol

from bench.machine import torchrun
from bench.records.base import StoreError
from bench.tables.text import message
from models.guard import UsersCodeError, describe, exits_refused

THREADS_S = 5.0  # for threads of a user's code to end by themselves
PATIENCE_S = 10.0  # more than the start times of processes of one torchrun differ
DEBUG = "--debug"
# what a signal becomes that interrupts an import, or an operator written in C++
INTERRUPTED = (ImportError, AttributeError, RuntimeError, SystemError)
# errors of a write without a file name: of the standard output, as files are written by bench.store
_OF_WRITING = (errno.ENOSPC, errno.EPIPE, errno.EIO, errno.EBADF, errno.EFBIG, errno.EDQUOT)


class UsageError(ValueError):
    """An invalid request: printed as one line, with exit code 2, before any measurement."""


class Parser(Protocol):
    """What `run` needs of a parser."""

    @property
    def prog(self) -> str: ...

    def parse_args(self, args: Sequence[str], /) -> argparse.Namespace: ...


def run(parser: Parser, body: Callable[[argparse.Namespace], int], argv: Sequence[str] | None) -> int:
    """Parse and run a command; what ends it early is one line on stderr and an exit code.

    With --debug, which every command takes, the traceback of the error is printed before its line.
    """
    code = _guarded(parser, body, argv)
    if argv is None:
        leave_threads(code)
    return code


def leave_threads(code: int) -> None:
    """Exit where threads that a user's code started would keep the interpreter waiting for ever."""
    until = time.monotonic() + THREADS_S
    main = threading.main_thread()
    for thread in [one for one in threading.enumerate() if one is not main and not one.daemon]:
        thread.join(max(0.0, until - time.monotonic()))
        if thread.is_alive():
            with suppress(OSError, ValueError, AttributeError):
                sys.stdout.flush()
            _print(f"a thread of the model's code still runs after {THREADS_S:g} s: {thread.name}; left")
            os._exit(code)


def _guarded(parser: Parser, body: Callable[[argparse.Namespace], int], argv: Sequence[str] | None) -> int:
    given = list(sys.argv[1:] if argv is None else argv)
    if (reason := torchrun.why_unreadable()) is not None:
        _print(f"{parser.prog}: {reason}")
        return 2
    received: list[int] = []
    try:
        with _signals(received), exits_refused():
            code = _run(parser, body, given)
        if not received:
            return code
    except KeyboardInterrupt:
        received.append(signal.SIGINT)
    except INTERRUPTED:
        if not received:
            raise
    if not torchrun.local_rank():  # interrupted in all processes; the first one prints it
        _print(f"{parser.prog}: {_name(received[0])}; what was recorded is kept")
    return 128 + received[0]


def _run(parser: Parser, body: Callable[[argparse.Namespace], int], given: Sequence[str]) -> int:
    debug = DEBUG in given
    try:
        _check_streams()
        _check_arguments(given)
        try:
            args = parser.parse_args([word for word in given if word != DEBUG])
            return _run_body(body, args)
        finally:
            sys.stdout.flush()  # --help leaves by SystemExit
    except (UsageError, UsersCodeError, StoreError, OSError, MemoryError) as error:
        if debug:
            traceback.print_exc()
        print_error(f"{parser.prog}: {_reason(error)}{_hint(error, debug)}")
        return 2


def _run_body(body: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a command, which no exit in a user's code ends without a line."""
    try:
        return body(args)
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise UsersCodeError(f"a user's code raised {describe(error)}") from error


def print_error(line: str) -> None:
    """Print the error that ends a command, once under torchrun.

    The first process on a machine prints it, and torchrun then ends the others. A process that is still
    running after PATIENCE_S failed alone and prints its own error.
    """
    if torchrun.local_rank():
        time.sleep(PATIENCE_S)
    _print(line)


def _print(line: str) -> None:
    with suppress(OSError, ValueError, AttributeError):  # no stderr to print on: the exit code remains
        print(message(line), file=sys.stderr, flush=True)


def _name(number: int) -> str:
    return "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"out of memory{f': {error}' if str(error) else ''}"
    if not isinstance(error, OSError):
        return str(error)
    if error.filename is None and error.errno in _OF_WRITING:
        _drop_output()
        return f"standard output: cannot be written: {error.strerror}; what was recorded is kept"
    return f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)


def _hint(error: Exception, debug: bool) -> str:
    is_users = isinstance(error, UsersCodeError) or isinstance(error.__cause__, UsersCodeError)
    return f"; {DEBUG} shows the traceback" if is_users and not debug else ""


def _drop_output() -> None:
    """Send what is left of the output to the null device: Python would fail to write it again at exit."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _check_streams() -> None:
    """Refuse a closed standard output, before measuring.

    Descriptors 0 to 2 that are closed are opened on the null device: the next file would get their numbers,
    and with them the warnings of libraries.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for the whole process
    if sys.stdout is None:
        raise UsageError("standard output: is closed; redirect it to a file or to /dev/null")


def _check_arguments(given: Sequence[str]) -> None:
    """Refuse arguments that are not text: they cannot be printed or recorded."""
    for word in given:
        if not word.isascii() and any("\ud800" <= sign <= "\udfff" for sign in word):
            raise UsageError(f"{word[:100]}: an argument must be UTF-8 text; rename the file")


@contextmanager
def _signals(received: list[int]) -> Iterator[None]:
    """Context manager in which SIGTERM and SIGHUP end the command as an interrupt does, with its clean-up.

    A signal that the caller ignores, as nohup does, stays ignored.

    Args:
        received: gets the number of each signal that arrives, SIGINT included.
    """
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {signal.Signals[name]: signal.getsignal(signal.Signals[name]) for name in names}
    if threading.current_thread() is not threading.main_thread():
        before = {}
    taken = {n: of for n, of in before.items() if of in (signal.SIG_DFL, signal.default_int_handler)}

    def end(number: int, _: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)
