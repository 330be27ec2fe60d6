"""Workers: whatever becomes of one is a row with its reason."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bench.jobs import worker
from bench.jobs.worker import Case
from bench.records import record
from bench.records.record import Record, Skipped, Throughput
from tests.records.test_record import RUN, TIMED

CASE = Case(run=RUN, weights=None)
ROOT = Path(__file__).resolve().parents[2]


# what a worker is asked to call: found by name in its own process


def answers(case: Case) -> Record:
    return replace(TIMED, run=case.run)


def prints_and_answers(case: Case) -> Record:
    print("noise on standard output")
    return answers(case)


def raises(case: Case) -> Record:
    raise LookupError(f"nothing for {case.run.model}")


def exits(case: Case) -> Record:
    raise SystemExit(7)


def hangs(case: Case) -> Record:
    time.sleep(600)
    raise AssertionError("not killed")


def hangs_with_a_child(case: Case) -> Record:
    import subprocess

    subprocess.run(["sleep", "600"])
    raise AssertionError("not killed")


def segfaults(case: Case) -> Record:
    import ctypes

    ctypes.string_at(0)
    raise AssertionError("still there")


def kills_itself(case: Case) -> Record:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still there")


def takes_all_memory(case: Case) -> Record:
    import torch

    kept = [torch.ones(2**28) for _ in range(10**4)]  # 1 GiB each
    raise AssertionError(f"{len(kept)} GiB were there")


def tells_its_surroundings(case: Case) -> Record:
    told = f"{os.environ.get('COLOUR')} in {Path.cwd()}, child of {os.getppid()}"
    return Skipped(run=case.run, status="told", reason=told)


calls = 0


def counts_its_calls(case: Case) -> Record:
    global calls
    calls += 1
    return Skipped(run=case.run, status="told", reason=f"call {calls}")


def work(name: str, timeout_s: float = 60) -> Record:
    return worker.run(f"tests.jobs.test_worker:{name}", CASE, timeout_s)


@pytest.mark.parametrize("name", ["answers", "prints_and_answers"])
def test_a_worker_gives_back_its_record_whatever_it_prints(name: str) -> None:
    result = work(name)
    assert isinstance(result, Throughput)
    assert result == replace(TIMED, run=RUN)


@pytest.mark.parametrize(
    ("name", "status", "told"),
    [
        ("raises", "error", "LookupError: nothing for FCDM-S"),
        ("exits", "error", "exit code 7"),
        ("segfaults", "crashed", "died of SIGSEGV"),
        ("kills_itself", "crashed", "died of SIGKILL; the system kills a process so when memory runs out"),
    ],
)
def test_a_worker_that_fails_is_a_row_with_status_and_reason(name: str, status: str, told: str) -> None:
    result = work(name)
    assert isinstance(result, Skipped)
    assert result.run == RUN
    assert result.status == status
    assert told in result.reason


@pytest.mark.parametrize("name", ["hangs", "hangs_with_a_child"])
def test_a_worker_that_hangs_is_killed_at_its_time_limit(name: str) -> None:
    begin = time.monotonic()
    result = work(name, timeout_s=1.5)
    assert isinstance(result, Skipped)
    assert (result.status, result.reason) == ("timed out", "still running after 1.5 s; killed")
    assert time.monotonic() - begin < 30


def test_a_worker_leaves_nothing_to_the_next() -> None:
    for _ in range(2):
        assert work("counts_its_calls") == Skipped(run=RUN, status="told", reason="call 1")


def test_a_worker_has_the_environment_and_the_folder_of_its_parent_as_they_are_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLOUR", "green")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT)
    told = work("tells_its_surroundings")
    assert isinstance(told, Skipped)
    assert told.reason.startswith(f"green in {tmp_path}")


def test_a_nursery_that_was_killed_is_replaced() -> None:
    def nursery() -> int:
        told = work("tells_its_surroundings")
        assert isinstance(told, Skipped)
        return int(told.reason.rpartition(" ")[2])

    first = nursery()
    assert nursery() == first
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    assert nursery() != first


def test_a_nursery_that_imports_nothing_serves_as_well(tmp_path: Path) -> None:
    request = {
        "measure": "tests.jobs.test_worker:answers",
        "case": asdict(CASE),
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
    assert record.read(tmp_path / "record") == [replace(TIMED, run=RUN)]


def test_a_worker_that_wants_more_memory_than_there_is_ends_without_the_machine() -> None:
    result = worker.run("tests.jobs.test_worker:takes_all_memory", CASE, 120, memory_bytes=3 * 2**30)
    assert isinstance(result, Skipped)
    assert result.status == "out of memory"
    assert "allocate" in result.reason


def test_a_case_survives_its_journey_to_the_worker() -> None:
    from bench.records.record import decode

    case = Case(run=replace(RUN, res=(256, 512), latent_size=(32, 64)), weights="a.pt")
    assert decode(Case, json.loads(json.dumps(asdict(case)))) == case


NO_ENGINE = "GET was unable to find an engine to execute this computation"


@pytest.mark.parametrize(
    ("told", "expected"),
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
def test_memory_that_ran_out_is_known_by_the_words_of_every_library(
    told: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # of whatever process this is, allocations may have failed before
    monkeypatch.setattr("torch.cuda.memory_stats", lambda: {"num_ooms": 0})
    assert (worker.out_of_memory(RuntimeError(told)) is not None) == expected


def test_cudnn_without_an_engine_is_out_of_memory_where_the_allocator_counted_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.memory_stats", lambda: {"num_ooms": 3})
    assert worker.out_of_memory(RuntimeError(NO_ENGINE))
    monkeypatch.setattr("torch.cuda.memory_stats", lambda: {"num_ooms": 0})
    assert not worker.out_of_memory(RuntimeError(NO_ENGINE))


def test_memory_that_ran_out_behind_an_error_is_the_reason_and_any_other_error_is_raised_again() -> None:
    behind = ValueError("mine: building it raised RuntimeError: std::bad_alloc")
    behind.__cause__ = RuntimeError("std::bad_alloc\nand more")
    assert worker.memory_reason(behind) == "std::bad_alloc"
    with pytest.raises(ValueError, match="of another kind"):
        worker.memory_reason(ValueError("of another kind"))
