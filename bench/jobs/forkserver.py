"""The process that workers are forked from: what each would import by itself, it imports once.

`bench.jobs.worker` starts one for a command or a sweep. It reads a request a line from standard input, forks
a worker for it, and answers with two lines on standard output: the worker's process number when it begins,
its exit code when it has ended. A worker is a process of its own, with its own memory and GPU context.

CUDA does not survive a fork, so nothing here may touch it: should an import have opened a GPU, the nursery
starts itself again and imports nothing, and the workers import for themselves. So it does on anything but
Linux, where it is not safe to fork after such imports.
"""

import importlib
import json
import os
import select
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

from bench.jobs import worker

IMPORTS = "bench.measure.passes"  # and with it torch and the models
BARE = "--bare"  # import nothing
REQUESTS, ANSWERS, ERRORS = 0, 1, 2  # descriptors


def _opened_a_gpu() -> bool:
    """Whether this process holds a device file of NVIDIA's driver."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists this folder is gone by now
            if os.readlink(descriptor).startswith("/dev/nvidia"):
                return True
    return False


def _wait_for(pid: int, wakes: int) -> int:
    """Wait for a worker to end; should the parent end before it, both that worker and this process do.

    Args:
        pid: the worker.
        wakes: a descriptor that becomes readable when a child ends.

    Returns:
        Its exit code, or minus the number of the signal that ended it.
    """
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        ready, _, _ = select.select([REQUESTS, wakes], [], [])
        if REQUESTS in ready:  # nothing comes while a worker works but the parent's end
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            raise SystemExit(1)
        os.read(wakes, 512)


def _work(request: dict[str, Any]) -> NoReturn:
    """What a forked process does: it leaves the nursery's pipes and signals, works and ends.

    It ends at once: an interpreter that dismantled torch first would do so for nothing.
    """
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    said = os.open(request["errors"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for source, target in ((nothing, REQUESTS), (said, ANSWERS), (said, ERRORS)):
        os.dup2(source, target)
    threading.Thread(target=_die_with, args=(os.getppid(),), daemon=True).start()
    sys.excepthook = _end_with
    worker.work(request["measure"], request["case"], Path(request["result"]), request["memory_bytes"])
    os._exit(0)


def _end_with(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> NoReturn:
    """Say what was raised, the last line being the row's reason, and end."""
    sys.__excepthook__(kind, error, trace)
    sys.stderr.flush()
    os._exit(1)


def _die_with(parent: int) -> None:
    """End this process once its parent is gone: a sweep that was killed must leave nothing running."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _on_child(_signal: int, _frame: FrameType | None) -> None:
    """A handler there must be, for the end of a child to wake `_wait_for`."""


def main() -> int:
    if BARE not in sys.argv:
        answers = os.dup(ANSWERS)
        os.dup2(ERRORS, ANSWERS)  # what an import prints is no answer
        forks = sys.platform.startswith("linux")
        if forks:
            importlib.import_module(IMPORTS)
        os.dup2(answers, ANSWERS)
        if not forks or _opened_a_gpu():
            os.execv(sys.executable, [sys.executable, "-m", "bench.jobs.forkserver", BARE])
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
