"""One case in a process of its own: what happens to it there is a record, never the end of the sweep.

The parent calls `run`; the child, forked by `bench.jobs.forkserver`, calls `work`. The case goes there as
JSON, and its record comes back in a file that the parent names.
"""

import atexit
import importlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import typing
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from bench.records.record import Record, Run, Skipped, StoreError, decode, from_dict, to_line

IMPORTS_S = 300.0  # at the most, for what all workers need
# NumPy's own, which nothing timed uses, would be there when the nursery forks
NO_THREADS = {"OPENBLAS_NUM_THREADS": "1"}
# what a failed allocation says: of C++, of torch's CPU, of CUDA and Triton, of cuBLAS and its like, of cuDNN
NO_MEMORY = ("bad_alloc", "allocate memory", ": out of memory", "_ALLOC_FAILED", "_ALLOCATION_FAILED")
MOST_S: ContextVar[float] = ContextVar("MOST_S", default=math.inf)  # of every worker's time
HEADROOM = 0.9  # of the free memory goes to a CPU case; the rest keeps the machine alive


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a worker is asked to measure."""

    run: Run
    weights: str | None  # the path of a checkpoint


class Asked(Protocol):
    """Any dataclass that says what a row is about where there is no record: a command's kind of case."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def run(self) -> Run: ...


@contextmanager
def killed_after(seconds: float) -> Iterator[None]:
    """Give no worker started within more time than this, whatever its command allows."""
    before = MOST_S.set(seconds)
    try:
        yield
    finally:
        MOST_S.reset(before)


def run(measure: str, case: Asked, timeout_s: float, memory_bytes: int | None = None) -> Record:
    """Measure one case in a process of its own.

    Args:
        measure: "module:function", called in the worker with the case; returns a Record. Its argument is
            called case, and annotated with the type that it is rebuilt as.
        case: what to measure: a Case, or another dataclass with a run.
        timeout_s: after this the worker is killed, and what it started with it; sooner in `killed_after`.
        memory_bytes: that a CPU case may take, on Linux; by default most of what is free.

    Returns:
        The worker's record, or Skipped with what became of the worker.
    """
    device_type = case.run.environment.device_type
    timeout_s = min(timeout_s, MOST_S.get())
    with tempfile.TemporaryDirectory() as folder:
        result, errors = Path(folder) / "record", Path(folder) / "errors"
        request = {
            "measure": measure,
            "case": asdict(case),
            "result": str(result),
            "errors": str(errors),
            "memory_bytes": _memory_limit(device_type) if memory_bytes is None else memory_bytes,
        }
        try:
            code = _nursery().work(request, timeout_s)
        except NurseryError as error:
            return Skipped(run=case.run, status="error", reason=str(error))
        if code is None:
            reason = f"still running after {timeout_s:g} s; killed"
            return Skipped(run=case.run, status="timed out", reason=reason)
        if code < 0:
            name = signal.Signals(-code).name
            hint = "; the system kills a process so when memory runs out" if name == "SIGKILL" else ""
            reason = f"the worker died of {name}{hint if device_type == 'cpu' else ''}"
            return Skipped(run=case.run, status="crashed", reason=reason)
        try:
            return from_dict(json.loads(result.read_text(encoding="utf-8")))
        except (OSError, json.JSONDecodeError, StoreError):
            reason = f"the worker ended with exit code {code}: {_last_line(errors)}"
            return Skipped(run=case.run, status="error", reason=reason)


def work(measure: str, case: dict[str, Any], result: Path, memory_bytes: int) -> None:
    """What a worker does: measure, and write the record.

    Args:
        measure: as of `run`.
        case: as JSON has it.
        result: the file that the record goes to.
        memory_bytes: that this process may take from now on; 0: no limit.
    """
    if memory_bytes:
        import resource

        # allocations then fail in this process before the machine runs out for all
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, resource.RLIM_INFINITY))
    module, _, name = measure.partition(":")
    function = getattr(importlib.import_module(module), name)
    asked = decode(typing.get_type_hints(function)["case"], case)
    try:
        record = function(asked)
    except (MemoryError, RuntimeError, ValueError) as error:
        record = Skipped(run=asked.run, status="out of memory", reason=memory_reason(error))
    result.write_text(to_line(record), encoding="utf-8")


class NurseryError(RuntimeError):
    """No worker could be started, with the last that was said of it."""


class _Nursery:
    """The parent's side of `bench.jobs.forkserver`: one such process, and one worker of it at a time."""

    def __init__(self, surroundings: object) -> None:
        self.surroundings = surroundings
        self._answers = b""
        self._errors = Path(tempfile.mkstemp(prefix="bench-nursery-")[1])
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.jobs.forkserver"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                # the user's own modules are found as in the parent: from the folder it was started in
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **NO_THREADS},
                start_new_session=True,
            )
        self._answer(IMPORTS_S)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def work(self, request: dict[str, object], timeout_s: float) -> int | None:
        """Have one case measured.

        Returns:
            The worker's exit code, minus the number of a signal that ended it; None: killed for its time.

        Raises:
            NurseryError: the nursery ended first.
        """
        assert self._process.stdin is not None
        finished = False
        try:
            try:
                self._process.stdin.write(json.dumps(request).encode() + b"\n")
                self._process.stdin.flush()
            except BrokenPipeError as error:
                raise self._gone() from error
            worker = self._answer(IMPORTS_S)
            assert worker is not None
            code = self._answer(timeout_s)
            with suppress(ProcessLookupError, PermissionError):  # nothing of it is left
                os.killpg(worker, signal.SIGKILL)
            if code is None:
                self._answer(IMPORTS_S)
            finished = True
            return code
        finally:
            if not finished:  # interrupted: its next answer would be this worker's
                self.close()

    def _answer(self, timeout_s: float) -> int | None:
        """The next line of the nursery, a number or "ready", which is 0; None if it does not come in time."""
        assert self._process.stdout is not None
        until = time.monotonic() + timeout_s
        while b"\n" not in self._answers:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                return None
            read = os.read(self._process.stdout.fileno(), 4096)
            if not read:
                raise self._gone()
            self._answers += read
        line, _, self._answers = self._answers.partition(b"\n")
        return 0 if line == b"ready" else int(line)

    def _gone(self) -> NurseryError:
        return NurseryError(f"no worker could be started: {_last_line(self._errors)}")

    def close(self) -> None:
        """End it, and a worker that it may have."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.unlink(missing_ok=True)


_nurseries: list[_Nursery] = []  # the one in use, if any


def _nursery() -> _Nursery:
    """The nursery of this process, another if it is gone, or if what it was started in has changed since."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    surroundings = (variables, list(sys.path), Path.cwd())
    if _nurseries and not (_nurseries[0].alive and _nurseries[0].surroundings == surroundings):
        _close()
    if not _nurseries:
        _nurseries.append(_Nursery(surroundings))
    return _nurseries[0]


@atexit.register
def _close() -> None:
    while _nurseries:
        _nurseries.pop().close()


def _last_line(errors: Path) -> str:
    said = errors.read_text(encoding="utf-8", errors="replace").split("\n") if errors.exists() else []
    return next((line for line in reversed(said) if line.strip()), "it said nothing")


def _memory_limit(device_type: str) -> int:
    """Bytes for a worker on this device; 0 for none, as CUDA has its own and only Linux keeps to one."""
    if device_type != "cpu" or not sys.platform.startswith("linux"):
        return 0
    from bench.machine.device import free_host_bytes

    return int(HEADROOM * (free_host_bytes() or 0))


def first_line(error: BaseException) -> str:
    """What a row says of an error."""
    return str(error).strip().partition("\n")[0]


def memory_reason(error: Exception) -> str:
    """What a row says of memory that ran out; any other error is raised again."""
    failed = out_of_memory(error)
    if failed is None:
        raise error
    return first_line(failed)


def out_of_memory(error: BaseException) -> BaseException | None:
    """The failed allocation that an error was raised from, or is itself; None where it is another failure."""
    behind = out_of_memory(error.__cause__) if error.__cause__ else None
    return behind or (error if _is_allocation(error) else None)


def _is_allocation(error: BaseException) -> bool:
    """Tell a failed allocation, by its words where it has no exception of its own: on a CPU, in a library."""
    if type(error).__name__ in ("MemoryError", "OutOfMemoryError"):  # the second is torch's
        return True
    told = str(error)
    # cuDNN tries one engine after another and drops what each fails of: the allocator has counted it
    if "unable to find an engine" in told:
        import torch

        return bool(torch.cuda.memory_stats().get("num_ooms", 0))
    return any(words in told for words in NO_MEMORY)
