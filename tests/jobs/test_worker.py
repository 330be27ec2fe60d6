"""Workers: every outcome is a record; a failure has its reason."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bench.jobs import forkserver, worker
from bench.machine import failures
from bench.records.base import Case, Environment, Record, Skipped
from bench.records.throughput import Throughput
from bench.store import codec
from tests.records.examples import CASE, ENVIRONMENT, THROUGHPUT

ROOT = Path(__file__).resolve().parents[2]
CASES = int(os.environ.get("BENCH_CASES", "5"))  # 300 in a long run


# functions that workers call by name, each in its own process


def answers(case: Case, environment: Environment) -> Record:
    return replace(THROUGHPUT, case=case)


def prints_and_answers(case: Case, environment: Environment) -> Record:
    print("noise on standard output")
    return answers(case, environment)


def raises(case: Case, environment: Environment) -> Record:
    raise LookupError(f"nothing for {case.label}")


def exits(case: Case, environment: Environment) -> Record:
    raise SystemExit(7)


def hangs(case: Case, environment: Environment) -> Record:
    time.sleep(600)
    raise AssertionError("not killed")


def hangs_with_a_child(case: Case, environment: Environment) -> Record:
    import subprocess

    subprocess.run(["sleep", "600"])
    raise AssertionError("not killed")


def segfaults(case: Case, environment: Environment) -> Record:
    import ctypes

    ctypes.string_at(0)
    raise AssertionError("still there")


def kills_itself(case: Case, environment: Environment) -> Record:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still there")


def takes_all_memory(case: Case, environment: Environment) -> Record:
    import torch

    kept = [torch.empty(2**28) for _ in range(10**4)]  # 1 GiB each, of which nothing is written
    raise AssertionError(f"{len(kept)} GiB were there")


def gives_its_surroundings(case: Case, environment: Environment) -> Record:
    surroundings = f"{os.environ.get('COLOUR')} in {Path.cwd()}, child of {os.getppid()}"
    return Skipped(case=case, environment=environment, status="seen", reason=surroundings)


calls = 0


def counts_its_calls(case: Case, environment: Environment) -> Record:
    global calls
    calls += 1
    return Skipped(case=case, environment=environment, status="seen", reason=f"call {calls}")


def work(name: str, timeout_s: float = 300) -> Record:
    return worker.run(f"tests.jobs.test_worker:{name}", CASE, ENVIRONMENT, timeout_s)


@pytest.mark.parametrize("name", ["answers", "prints_and_answers"])
def test_a_worker_gives_back_its_record_whatever_it_prints(name: str) -> None:
    result = work(name)
    assert isinstance(result, Throughput)
    assert result == THROUGHPUT


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("raises", "error", "LookupError: nothing for FCDM-S"),
        ("exits", "error", "exit code 7"),
        ("segfaults", "crashed", "died of SIGSEGV"),
        ("kills_itself", "crashed", "died of SIGKILL; the system kills a process so when memory runs out"),
    ],
)
def test_a_worker_that_fails_is_a_row_with_status_and_reason(name: str, status: str, message: str) -> None:
    result = work(name)
    assert isinstance(result, Skipped)
    assert (result.case, result.environment) == (CASE, ENVIRONMENT)
    assert result.status == status
    assert message in result.reason


@pytest.mark.parametrize("name", ["hangs", "hangs_with_a_child"])
def test_a_worker_that_hangs_is_killed_at_its_time_limit(name: str) -> None:
    begin = time.monotonic()
    result = work(name, timeout_s=1.5)
    assert isinstance(result, Skipped)
    assert (result.status, result.reason) == ("timed out", "still running after 1.5 s; killed")
    assert time.monotonic() - begin < 300


def test_a_worker_leaves_nothing_to_the_next() -> None:
    for _ in range(2):
        assert work("counts_its_calls") == Skipped(
            case=CASE, environment=ENVIRONMENT, status="seen", reason="call 1"
        )


@pytest.fixture
def imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """New fork servers start without the imports that workers share, which take seconds."""
    monkeypatch.setattr(worker, "START", f"import sys\nsys.argv.append({forkserver.BARE!r})\n{worker.START}")


@pytest.mark.usefixtures("imports_nothing")
def test_worker_inherits_current_env_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLOUR", "green")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT)
    result = work("gives_its_surroundings")
    assert isinstance(result, Skipped)
    assert result.reason.startswith(f"green in {tmp_path}")


@pytest.mark.usefixtures("imports_nothing")
def test_a_killed_fork_server_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    def server() -> int:
        result = work("gives_its_surroundings")
        assert isinstance(result, Skipped)
        return int(result.reason.rpartition(" ")[2])

    monkeypatch.setenv("COLOUR", "green")  # so that later tests get a server of their own
    first = server()
    assert server() == first
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    assert server() != first


def test_a_fork_server_that_imports_nothing_serves_too(tmp_path: Path) -> None:
    request = {
        "measure": "tests.jobs.test_worker:answers",
        "case": codec.encode_case(CASE),
        "environment": asdict(ENVIRONMENT),
        "inputs": {},
        "result": str(tmp_path / "record"),
        "errors": str(tmp_path / "errors"),
        "memory_bytes": 0,
    }
    serving = subprocess.Popen(
        [sys.executable, "-m", "bench.jobs.forkserver", "--bare"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with serving:
        assert serving.stdin
        assert serving.stdout
        serving.stdin.write(json.dumps(request) + "\n")
        serving.stdin.flush()
        ready, _, code = (serving.stdout.readline().strip() for _ in range(3))
    assert (ready, code) == ("ready", "0")
    assert serving.returncode == 0
    assert codec.read(tmp_path / "record").records == [THROUGHPUT]


def test_a_worker_out_of_memory_ends_alone() -> None:
    result = worker.run(
        "tests.jobs.test_worker:takes_all_memory", CASE, ENVIRONMENT, 120, memory_bytes=3 * 2**30
    )
    assert isinstance(result, Skipped)
    assert result.status == "out of memory"
    assert "allocate" in result.reason


def takes_a_path(case: Case, environment: Environment, *, weights: str | None) -> Record:
    return Skipped(case=case, environment=environment, status="ok", reason=str(weights))


def test_inputs_reach_the_worker_beside_the_case() -> None:
    result = worker.run("tests.jobs.test_worker:takes_a_path", CASE, ENVIRONMENT, 60, weights="a.pt")
    assert isinstance(result, Skipped)
    assert result.reason == "a.pt"


NO_ENGINE = "GET was unable to find an engine to execute this computation"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory", True),
        ("std::bad_alloc", True),
        ("CUDA error: out of memory\nCUDA kernel errors might be reported at some other call", True),
        ("Triton Error [CUDA]: out of memory", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", True),
        ("CUDA error: an illegal memory access was encountered", False),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", False),
        ("out of resource: shared memory, Required: 294912, Hardware limit: 232448", False),
        (NO_ENGINE, False),
    ],
)
def test_failed_allocations_of_every_library_are_recognised(
    message: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # allocations may have failed earlier in this process
    monkeypatch.setattr("torch.cuda.memory_stats", lambda: {"num_ooms": 0})
    assert (failures.out_of_memory(RuntimeError(message)) is not None) == expected


def test_cudnn_without_engine_is_out_of_memory_if_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.memory_stats", lambda: {"num_ooms": 3})
    assert failures.out_of_memory(RuntimeError(NO_ENGINE))
    monkeypatch.setattr("torch.cuda.memory_stats", lambda: {"num_ooms": 0})
    assert not failures.out_of_memory(RuntimeError(NO_ENGINE))


def test_memory_behind_an_error_is_its_reason() -> None:
    behind = ValueError("mine: building it raised RuntimeError: std::bad_alloc")
    behind.__cause__ = RuntimeError("std::bad_alloc\nand more")
    assert failures.memory_reason(behind) == "std::bad_alloc"
    with pytest.raises(ValueError, match="of another kind"):
        failures.memory_reason(ValueError("of another kind"))


def test_many_cases_leak_no_process_file_or_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # without the files of other tests

    def open_things() -> tuple[set[str], int, int]:
        children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
        files = {path.name for path in tmp_path.iterdir()}
        return files, len(os.listdir("/proc/self/fd")), len(children)

    work("answers")
    before = open_things()
    for _ in range(CASES):
        work("answers")
    assert open_things() == before
