"""Fork server: imports the modules that workers share once, and forks every worker.

`bench.jobs.worker` starts a fork server for a command or a sweep. The server reads one request per line from
standard input and forks a worker for it. It answers with two lines on standard output: the worker's process
id at the start, and its exit code at the end. Every worker has its own memory and GPU context.

CUDA does not survive a fork. If an import opens a GPU, the server restarts without imports, and every worker
imports for itself. The same holds outside Linux, where forking after such imports is unsafe.
"""

import importlib
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

from bench.jobs import worker
from models.guard import named

IMPORTS = "bench.measure.passes"  # imports torch and the models
BARE = "--bare"  # without imports
REQUESTS, ANSWERS, ERRORS = 0, 1, 2  # file descriptors


def _opened_a_gpu() -> bool:
    """Whether this process has opened a device file of NVIDIA's driver."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the descriptor that listed this folder is closed
            if os.readlink(descriptor).startswith("/dev/nvidia"):
                return True
    return False


def _wait_for(pid: int, wakes: int) -> int:
    """The exit code of a worker at its end, or minus the number of the signal that ended it.

    If the parent ends first, the worker and this process end. `wakes` becomes readable when a child ends.
    """
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        ready, _, _ = select.select([REQUESTS, wakes], [], [])
        if REQUESTS in ready:  # during a worker's run only the parent's end makes it readable
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os._exit(1)  # without the slow teardown of torch
        os.read(wakes, 512)


def _work(request: dict[str, Any]) -> NoReturn:
    """Body of a forked process: reset pipes and signals, run the request, exit without a teardown."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    devnull = os.open(os.devnull, os.O_RDONLY)
    errors = os.open(request["errors"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for source, target in ((devnull, REQUESTS), (errors, ANSWERS), (errors, ERRORS)):
        os.dup2(source, target)
    threading.Thread(target=_die_with, args=(os.getppid(),), daemon=True).start()
    sys.excepthook = _end_with
    worker.work(request)
    os._exit(0)


def _end_with(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> NoReturn:
    """Print the exception; its last line, the type and the message's first line, is the record's reason."""
    sys.__excepthook__(kind, error, trace)
    print(named(error), file=sys.stderr)
    sys.stderr.flush()
    os._exit(1)


def _die_with(parent: int) -> None:
    """In a thread: end a worker and its children when the parent has ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(0, signal.SIGKILL)


@contextmanager
def _ends_with_parent() -> Iterator[None]:
    """Context manager in which this process exits when its parent has ended; its thread ends with it."""
    parent, is_done = int(sys.argv[1]), threading.Event()

    def watch() -> None:
        while not is_done.wait(0.5):
            if os.getppid() != parent:
                os._exit(1)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        is_done.set()
        thread.join()


def _on_child(_signal: int, _frame: FrameType | None) -> None:
    """Empty handler, required for SIGCHLD to wake `_wait_for`."""


def main() -> int:
    if BARE not in sys.argv:
        answers = os.dup(ANSWERS)
        os.dup2(ERRORS, ANSWERS)  # output of imports must not reach the answers
        forks = sys.platform.startswith("linux")
        if forks:
            with _ends_with_parent():
                importlib.import_module(IMPORTS)
        os.dup2(answers, ANSWERS)
        if not forks or _opened_a_gpu():
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], BARE])
    wakes, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, _on_child)
    os.write(ANSWERS, b"ready\n")
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            _work(json.loads(line))
        os.write(ANSWERS, f"{pid}\n".encode())
        os.write(ANSWERS, f"{_wait_for(pid, wakes)}\n".encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
