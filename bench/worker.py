"""One case in a fresh process: what happens to it there is a record, never the end of the sweep.

The parent calls `run`; the child is `python -m bench.worker`, which reads the case as JSON from standard
input and writes its record to a file that the parent names.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import typing
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from bench.record import Record, Run, Skipped, StoreError, decode, from_dict, to_line

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


def run(measure: str, case: Asked, timeout_s: float, memory_bytes: int | None = None) -> Record:
    """Measure one case in a process of its own.

    Args:
        measure: "module:function", called in the worker with the case; returns a Record. Its argument is
            called case, and annotated with the type that it is rebuilt as.
        case: what to measure: a Case, or another dataclass with a run.
        timeout_s: after this the worker is killed, and what it started with it.
        memory_bytes: that a CPU case may take, on Linux; by default most of what is free.

    Returns:
        The worker's record, or Skipped with what became of the worker.
    """
    with tempfile.TemporaryDirectory() as folder:
        result, errors = Path(folder) / "record", Path(folder) / "stderr"
        limit = str(_memory_limit(case.run.environment.device_type) if memory_bytes is None else memory_bytes)
        with errors.open("wb") as stderr:
            worker = subprocess.Popen(
                [sys.executable, "-m", "bench.worker", measure, str(result), limit],
                stdin=subprocess.PIPE,
                stdout=stderr,
                stderr=stderr,
                # the user's own modules are found as in the parent: from the folder it was started in
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,
            )
        try:
            worker.communicate(json.dumps(asdict(case)).encode(), timeout=timeout_s)
        except subprocess.TimeoutExpired:
            reason = f"still running after {timeout_s:g} s; killed"
            return Skipped(run=case.run, status="timed out", reason=reason)
        finally:
            with suppress(ProcessLookupError, PermissionError):  # nothing of it is left
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        said = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = said[-1] if said else "it said nothing"
        if worker.returncode < 0:
            name = signal.Signals(-worker.returncode).name
            killed = name == "SIGKILL" and case.run.environment.device_type == "cpu"
            hint = "; the system kills a process so when memory runs out" if killed else ""
            return Skipped(run=case.run, status="crashed", reason=f"the worker died of {name}{hint}")
        try:
            return from_dict(json.loads(result.read_text(encoding="utf-8")))
        except (OSError, json.JSONDecodeError, StoreError):
            reason = f"the worker ended with exit code {worker.returncode}: {last}"
            return Skipped(run=case.run, status="error", reason=reason)


def _memory_limit(device_type: str) -> int:
    """Bytes for a worker on this device; 0 for none, as CUDA has its own and only Linux keeps to one."""
    if device_type != "cpu" or not sys.platform.startswith("linux"):
        return 0
    from bench.device import free_host_bytes

    return int(HEADROOM * (free_host_bytes() or 0))


def out_of_memory(error: BaseException) -> bool:
    """Tell a failed allocation; the CPU's allocator has no exception of its own."""
    told = str(error)
    kinds = ("MemoryError", "OutOfMemoryError")  # the second is torch's, which this file does not import
    return type(error).__name__ in kinds or "allocate memory" in told or "bad_alloc" in told


def _die_with(parent: int) -> None:
    """End this process once its parent is gone: a sweep that was killed must leave nothing running."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main() -> int:
    measure, result, limit = sys.argv[1:]
    threading.Thread(target=_die_with, args=(os.getppid(),), daemon=True).start()
    if int(limit):
        import resource

        # allocations then fail in this process before the machine runs out for all
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit), resource.RLIM_INFINITY))
    module, _, name = measure.partition(":")
    function = getattr(importlib.import_module(module), name)
    case = decode(typing.get_type_hints(function)["case"], json.loads(sys.stdin.buffer.read()))
    try:
        record = function(case)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        record = Skipped(run=case.run, status="out of memory", reason=str(error).strip().partition("\n")[0])
    Path(result).write_text(to_line(record), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
