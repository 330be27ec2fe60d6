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
import typing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from bench.record import Record, Run, Size, Skipped, StoreError, decode, from_dict, to_line

HEADROOM = 0.9  # of the free memory goes to a CPU case; the rest keeps the machine alive


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a worker is asked to measure."""

    model: str
    res: Size
    batch: int
    device: str
    precision: str
    compile: bool
    channels_last: bool
    weights: str | None  # a path
    budget_s: float
    precision_target: float


class AnyCase(Protocol):
    """A dataclass that says what to measure, and on which device."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def device(self) -> str: ...


def run(measure: str, case: AnyCase, planned: Run, timeout_s: float) -> Record:
    """Measure one case in a process of its own.

    Args:
        measure: "module:function", called in the worker with the case; returns a Record. Its annotation of
            `case` says which dataclass the case is.
        case: what to measure.
        planned: what a row says of the case if there is no record of it.
        timeout_s: after this the worker is killed.

    Returns:
        The worker's record, or Skipped with what became of the worker.
    """
    with tempfile.TemporaryDirectory() as folder:
        result, errors = Path(folder) / "record", Path(folder) / "stderr"
        with errors.open("wb") as stderr:
            # the user's own modules are found as in the parent: from the folder it was started in
            worker = subprocess.Popen(
                [sys.executable, "-m", "bench.worker", measure, str(result)],
                stdin=subprocess.PIPE,
                stdout=stderr,
                stderr=stderr,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        try:
            worker.communicate(json.dumps(asdict(case)).encode(), timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return Skipped(
                run=planned, status="timed out", reason=f"still running after {timeout_s:g} s; killed"
            )
        finally:
            worker.kill()
            worker.wait()
        if worker.returncode < 0:
            name = signal.Signals(-worker.returncode).name
            killed = name == "SIGKILL" and case.device == "cpu"
            hint = "; the system kills a process so when memory runs out" if killed else ""
            return Skipped(run=planned, status="crashed", reason=f"the worker died of {name}{hint}")
        try:
            return from_dict(json.loads(result.read_text(encoding="utf-8")))
        except (OSError, json.JSONDecodeError, StoreError):
            said = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            last = said[-1] if said else "it said nothing"
            reason = f"the worker ended with exit code {worker.returncode}: {last}"
            return Skipped(run=planned, status="error", reason=reason)


def limit_memory(device: str) -> None:
    """On Linux, make allocations of this process fail before the machine runs out; CUDA has its own."""
    if device != "cpu" or not sys.platform.startswith("linux"):
        return
    import resource

    from bench.device import free_host_bytes

    free = free_host_bytes()
    if free is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (int(HEADROOM * free), resource.RLIM_INFINITY))


def main() -> int:
    measure, result = sys.argv[1:]
    module, _, name = measure.partition(":")
    function = getattr(importlib.import_module(module), name)
    case: AnyCase = decode(typing.get_type_hints(function)["case"], json.loads(sys.stdin.buffer.read()))
    limit_memory(case.device)
    record = function(case)
    Path(result).write_text(to_line(record), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
