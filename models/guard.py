"""Guards for what others wrote: users' code that raises anything, and damaged or hostile files.

`users_code` surrounds every import, construction and first call of a user's model; `reading` every parser of
a binary file. What they catch becomes one line, with the original exception as its cause.
"""

import builtins
import gc
import os
import signal
import sys
import sysconfig
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

_OURS = tuple(f"{Path(__file__).resolve().parents[1] / package}{os.sep}" for package in ("models", "bench"))
_LIBRARIES = tuple(f"{sysconfig.get_path(name)}{os.sep}" for name in ("purelib", "platlib", "stdlib"))
_CLOCKS = ("perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "time", "time_ns", "process_time")
_ENDS = ("_exit", "execv", "execve")  # functions of os that end this program without a word


class UsersCodeError(ValueError):
    """What a user's code raised, in one line; the cause is the original exception."""


@contextmanager
def users_code(name: str, call: str = "") -> Iterator[None]:
    """Context manager around code that a user wrote; global state that it changes is restored at the end.

    Args:
        name: of the model, the start of the message.
        call: what raised, in the message; blank: the import or the construction.

    Raises:
        UsersCodeError: for every exception but an interrupt, SystemExit included.
    """
    streams, words = (sys.stdout, sys.stderr), sys.argv
    restore = remember()
    modules, names = dict(sys.modules), dict(vars(builtins))
    sys.stdout = sys.stderr  # what it prints is no table
    sys.argv = words[:1]  # the options of this command are none of its own
    try:
        with warnings.catch_warnings():
            yield
    except (KeyboardInterrupt, UsersCodeError):
        raise
    except BaseException as error:
        raise UsersCodeError(f"{name}: {f'{call} ' if call else ''}raised {describe(error)}") from error
    finally:
        closed = any(stream is not None and stream.closed for stream in streams)
        sys.stdout, sys.stderr = (
            open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for the whole process
            if stream is not None and stream.closed
            else stream
            for number, stream in enumerate(streams, start=1)
        )
        sys.argv = words
        sys.modules.update(modules)
        vars(builtins).update(names)
        restore()
    if closed:
        raise UsersCodeError(f"{name}: closed the standard output or error of this process")


@contextmanager
def exits_refused() -> Iterator[None]:
    """Context manager in which os._exit and the like raise in this process; its forks end as they do."""
    process, ends = os.getpid(), {name: getattr(os, name) for name in _ENDS}

    def refusing(name: str) -> Callable[..., NoReturn]:
        def end(*args: Any) -> NoReturn:  # noqa: ANN401 - those of os
            if os.getpid() != process:
                ends[name](*args)
            raise RuntimeError(f"os.{name}() would end this process")

        return end

    for name in _ENDS:
        setattr(os, name, refusing(name))
    try:
        yield
    finally:
        for name, function in ends.items():
            setattr(os, name, function)


@contextmanager
def unchanged() -> Iterator[None]:
    """Context manager that restores the global state of this process at its end; see `remember`."""
    restore = remember()
    try:
        yield
    finally:
        restore()


@contextmanager
def reading(path: Path, what: str, refused: type[ValueError] = ValueError) -> Iterator[None]:
    """Context manager around a parser of a file, which may raise anything if the file is damaged or hostile.

    Args:
        path: of the file.
        what: it should have been.
        refused: raised for every exception but itself.

    Raises:
        ValueError: of the type `refused`: the file, what it should have been, and the parser's exception.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error says it
            yield
    except FileNotFoundError as error:
        raise refused(f"{path}: no such file or folder") from error
    except Exception as error:
        if type(error) is refused and refused is not ValueError:
            raise
        reason = str(error) if type(error) is ValueError else named(error)
        raise refused(f"{path}: not {what}: {reason}") from error


def describe(error: BaseException) -> str:
    """ValueError: its first line (net.py:12)."""
    where = _where(error)
    return f"{named(error)}{f' ({where})' if where else ''}"


def named(error: BaseException) -> str:
    """ValueError: its first line."""
    try:
        message = str(error).strip().partition("\n")[0]
    except BaseException:  # the message is the user's code too
        message = "a message that cannot be printed"
    return f"{type(error).__name__}{f': {message}' if message else ''}"


def _where(error: BaseException) -> str:
    """File and line of the innermost frame of a user's file; blank without one."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}:{error.lineno}"
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    frames = [(file, line) for file, line in frames if not file.startswith(("<", *_OURS))]
    users = [frame for frame in frames if not frame[0].startswith(_LIBRARIES)] or frames
    return f"{Path(users[-1][0]).name}:{users[-1][1]}" if users else ""


def remember() -> Callable[[], None]:
    """A function that restores this process's global state as it is now.

    torch's default type and device, threads, precisions, kernels and gradient mode, clocks, environment
    variables, the current folder, signal handlers and alarms, recursion limit, tracing, garbage collection.
    """
    import torch

    clocks = {name: getattr(time, name) for name in _CLOCKS}
    folder, variables, depth = Path.cwd(), dict(os.environ), sys.getrecursionlimit()
    collects, where = gc.isenabled(), torch.get_default_device()
    is_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals() if is_main}
    has_alarm, tracing = any(signal.getitimer(signal.ITIMER_REAL)), (sys.gettrace(), sys.getprofile())
    cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    matmul = cuda.matmul
    switches: list[tuple[Callable[[], Any], Callable[[Any], object]]] = [
        (torch.get_default_dtype, torch.set_default_dtype),
        (torch.get_num_threads, torch.set_num_threads),
        (torch.is_grad_enabled, torch.set_grad_enabled),
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
        (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
        *(
            (partial(getattr, module, name), partial(setattr, module, name))
            for module, name in (
                *((matmul, "allow_tf32"), (cudnn, "allow_tf32"), (cudnn, "benchmark"), (cudnn, "enabled")),
                *((cudnn, "deterministic"), (mkldnn, "enabled")),
            )
        ),
        *(
            (getattr(cuda, f"{kernel}_sdp_enabled"), getattr(cuda, f"enable_{kernel}_sdp"))
            for kernel in ("flash", "mem_efficient", "math", "cudnn")
        ),
    ]
    before = [read() for read, _ in switches]

    def restore() -> None:
        for name, clock in clocks.items():
            setattr(time, name, clock)
        for (read, write), value in zip(switches, before, strict=True):
            if read() != value:
                write(value)
        if dict(os.environ) != variables:
            os.environ.clear()
            os.environ.update(variables)
        os.chdir(folder)
        sys.setrecursionlimit(depth)
        (gc.enable if collects else gc.disable)()
        if torch.get_default_device() != where:
            torch.set_default_device(None)  # the default; a device set by name slows every call
        if is_main and not has_alarm:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        if (sys.gettrace(), sys.getprofile()) != tracing:
            sys.settrace(tracing[0])
            sys.setprofile(tracing[1])

    return restore
