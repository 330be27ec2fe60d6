"""Measurement of one case in its own process: a crash gives a record and does not end the sweep.

The parent calls `run`; the child, forked by `bench.jobs.forkserver`, calls `work`. The case is sent as JSON,
and its record is returned in a file that the parent names.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.machine.failures import known_failure
from bench.records.base import Case, Environment, Record, Skipped, StoreError
from bench.records.note import Note
from bench.store.codec import decode, decode_case, encode_case, from_dict, to_line
from bench.tables.text import message

IMPORTS_S = 300.0  # timeout of the fork server's imports
# NumPy's OpenBLAS threads must not exist when the fork server forks; no timed code uses them
NO_THREADS = {"OPENBLAS_NUM_THREADS": "1"}
# runs bench.jobs.forkserver of this suite, also where the current folder has a package `bench`
START = f"""
import sys
sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
import bench.jobs.forkserver as server
del sys.path[0]
raise SystemExit(server.main())
"""
TIME_LIMIT_S: ContextVar[float] = ContextVar("TIME_LIMIT_S", default=math.inf)  # of every worker
HEADROOM = 0.9  # share of the free memory for a CPU case; the machine keeps the rest


@contextmanager
def killed_after(seconds: float) -> Iterator[None]:
    """Context manager that limits the time of every worker, in addition to its own timeout."""
    before = TIME_LIMIT_S.set(seconds)
    try:
        yield
    finally:
        TIME_LIMIT_S.reset(before)


def run(
    measure: str,
    case: Case,
    environment: Environment,
    timeout_s: float,
    *,
    memory_bytes: int | None = None,
    **inputs: Any,  # noqa: ANN401 - JSON, checked against the annotations of `measure`
) -> Record:
    """Measure one case in its own process; a worker that ends without a record gives Skipped with the reason.

    Args:
        measure: "module:function", called in the worker as function(case, environment, **inputs);
            returns a Record. Inputs are decoded by their annotations.
        timeout_s: the worker and its children are killed after this; `killed_after` may shorten it.
        memory_bytes: limit of a CPU case, on Linux; by default HEADROOM of the free memory.
    """
    timeout_s = min(timeout_s, TIME_LIMIT_S.get())
    with tempfile.TemporaryDirectory() as folder:
        result, errors = Path(folder) / "record", Path(folder) / "errors"
        request = {
            "measure": measure,
            "case": encode_case(case),
            "environment": asdict(environment),
            "inputs": inputs,
            "result": str(result),
            "errors": str(errors),
            "memory_bytes": _memory_limit(case.device) if memory_bytes is None else memory_bytes,
        }

        def skipped(status: str, reason: str) -> Skipped:
            return Skipped(case=case, environment=environment, status=status, reason=message(reason))

        try:
            code = _work_in_server(request, timeout_s)
        except ForkServerError as error:
            return skipped("error", str(error))
        if code is None:
            return skipped("timed out", f"still running after {timeout_s:g} s; killed")
        if code < 0:
            name = _signal_name(-code)
            hint = "; the system kills a process so when memory runs out" if name == "SIGKILL" else ""
            return skipped("crashed", f"the worker died of {name}{hint if case.device == 'cpu' else ''}")
        try:
            record = from_dict(json.loads(result.read_text(encoding="utf-8")))
        except StoreError as error:
            return skipped("error", f"its record cannot be stored: {error}")
        except (OSError, ValueError, RecursionError):
            return skipped("error", f"the worker ended with exit code {code}: {_last_line(errors)}")
        assert not isinstance(record, Note)
        return record


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _work_in_server(request: dict[str, object], timeout_s: float) -> int | None:
    """As `_ForkServer.work`; a server that is killed during a case is replaced once."""
    try:
        return _server().work(request, timeout_s)
    except ForkServerError:
        return _server().work(request, timeout_s)


def work(request: dict[str, Any]) -> None:
    """Run a request in the worker, and write the record to the file that the request names."""
    if request["memory_bytes"]:
        import resource

        # allocations fail in this process before the machine runs out of memory
        resource.setrlimit(resource.RLIMIT_DATA, (request["memory_bytes"], resource.RLIM_INFINITY))
    module, _, name = request["measure"].partition(":")
    function = getattr(importlib.import_module(module), name)
    hints = typing.get_type_hints(function)
    case = decode_case(request["case"])
    environment = decode(Environment, request["environment"])
    inputs = {name: decode(hints[name], value) for name, value in request["inputs"].items()}
    record = answer(function, case, environment, **inputs)
    Path(request["result"]).write_text(to_line(record), encoding="utf-8")


def answer(
    measure: Callable[..., Record],
    case: Case,
    environment: Environment,
    **inputs: Any,  # noqa: ANN401 - as of `run`
) -> Record:
    """Measure one case in this process; Skipped for a failure of a known kind (bench.machine.failures)."""
    try:
        return measure(case, environment, **inputs)
    except (RuntimeError, ValueError, ArithmeticError, MemoryError) as error:
        return known_failure(case, environment, error)


class ForkServerError(RuntimeError):
    """No worker could be started; the message is the last line of the fork server's output."""


class _ForkServer:
    """Parent's side of `bench.jobs.forkserver`: one server process with one worker at a time."""

    def __init__(self, surroundings: object) -> None:
        self.surroundings = surroundings
        self._answers = b""
        descriptor, name = tempfile.mkstemp(prefix="bench-forkserver-")
        self._errors = Path(name)
        with os.fdopen(descriptor, "wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                # the user's modules are found as in the parent, relative to its start folder
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(p or os.curdir for p in sys.path),
                    **NO_THREADS,
                },
                start_new_session=True,
            )
        try:
            self._answer(IMPORTS_S)
        except BaseException:  # killed, or an interrupt
            self.close()
            raise

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def work(self, request: dict[str, object], timeout_s: float) -> int | None:
        """Run one request in a worker: its exit code, or minus the number of the signal that ended it.

        None: killed at the timeout. ForkServerError: the fork server ended first.
        """
        assert self._process.stdin is not None
        worker: int | None = None
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
            _kill_group(worker)
            if code is None:
                self._answer(IMPORTS_S)
            finished = True
            return code
        finally:
            if not finished:  # interrupted: the server's next answer would belong to this worker
                if worker is not None:
                    _kill_group(worker)
                self.close()

    def _answer(self, timeout_s: float) -> int | None:
        """The number in the server's next line, 0 for "ready"; None after the timeout."""
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

    def _gone(self) -> ForkServerError:
        return ForkServerError(f"no worker could be started: {_last_line(self._errors)}")

    def close(self) -> None:
        """End the server and its worker."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.unlink(missing_ok=True)


def _kill_group(worker: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # the process group has already ended
        os.killpg(worker, signal.SIGKILL)


_servers: list[_ForkServer] = []  # at most one: the current server


def _server() -> _ForkServer:
    """Fork server of this process; a new one if it has ended or the environment variables have changed."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    surroundings = (variables, list(sys.path), Path.cwd())
    if _servers and not (_servers[0].alive and _servers[0].surroundings == surroundings):
        _close()
    if not _servers:
        _servers.append(_ForkServer(surroundings))
    return _servers[0]


@atexit.register
def _close() -> None:
    while _servers:
        _servers.pop().close()


def _last_line(errors: Path) -> str:
    lines = errors.read_text(encoding="utf-8", errors="replace").split("\n") if errors.exists() else []
    return next((line for line in reversed(lines) if line.strip()), "no message on standard error")


def _memory_limit(device_type: str) -> int:
    """Memory limit of a worker in bytes; 0 (no limit) on CUDA, with its own memory, and outside Linux."""
    if device_type != "cpu" or not sys.platform.startswith("linux"):
        return 0
    from bench.machine.device import free_host_bytes

    return int(HEADROOM * (free_host_bytes() or 0))
