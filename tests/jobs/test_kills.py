"""A sweep whose processes are killed: no process left, no case lost or measured twice."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from bench import sweep
from bench.records.base import Skipped
from bench.store import codec
from bench.store.store import open_store
from tests.commands import run

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("BENCH_KILLS", "3"))  # each signal once; 20 in a long run
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)
SUITE = """
[[run]]
command = "flops"
model = ["tests.tiny:Tiny"]
res = [64, 128]

[[run]]
command = "throughput"
device = "cpu"
model = ["tests.tiny:Tiny"]
res = [64]
batch = [1, 2, 3]
budget = "0.2s"
"""
CASES = 5


@pytest.fixture
def args(tmp_path: Path) -> list[str]:
    (tmp_path / "mine.toml").write_text(SUITE)
    return [str(tmp_path / "mine.toml"), "--out", str(tmp_path / "records.jsonl")]


def processes() -> dict[int, tuple[int, str]]:
    """Parents and command lines of running processes, by process id; zombies have ended."""
    rows = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            words = (folder / "cmdline").read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            rows[int(folder.name)] = int(parent), words
    return rows


def servers_and_workers(parent: int) -> tuple[list[int], list[int]]:
    """Process ids of the fork server of a process, and of the workers of that server."""
    rows = processes()
    servers = [pid for pid, (of, words) in rows.items() if of == parent and "forkserver" in words]
    return servers, [pid for pid, (of, _) in rows.items() if of in servers]


def wait_for(condition: Callable[[], object], seconds: float = 300) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.02)
    return False


def has_started(command: subprocess.Popen[str]) -> bool:
    """Whether a sweep has its fork server, or has ended."""
    return bool(servers_and_workers(command.pid)[0]) or command.poll() is not None


def test_two_sweeps_do_not_write_to_one_file(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with open_store(Path(args[-1])):
        assert run(sweep.main, *args) == 2
    assert "another process is writing to it" in capsys.readouterr().err


def test_a_sweep_killed_at_any_moment_is_resumed(args: list[str]) -> None:
    draw, out = random.Random(KILLS), Path(args[-1])
    before: list[object] = []

    def has_recorded(more: int, command: subprocess.Popen[str]) -> bool:
        lines = out.read_bytes().count(b"\n") if out.exists() else 0
        return lines >= len(before) + more or command.poll() is not None

    for number in range(KILLS):
        killed = subprocess.Popen(
            [sys.executable, "-m", "bench.sweep", *args],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert wait_for(partial(has_started, killed))
        if number == 0:
            assert wait_for(lambda of=killed: servers_and_workers(of.pid)[1] or of.poll() is not None)
        else:
            assert wait_for(partial(has_recorded, draw.randrange(3), killed))
            time.sleep(draw.uniform(0, 0.3))
        started = [pid for group in servers_and_workers(killed.pid) for pid in group]
        killed.send_signal(sent := SIGNALS[number % len(SIGNALS)])
        _, err = killed.communicate(timeout=300)
        assert wait_for(lambda of=started: not set(of) & processes().keys(), 60)
        records = codec.read(out).records
        if killed.returncode == -sent:  # a sweep that has ended catches no signal as it exits
            assert sent == signal.SIGKILL or len(records) == CASES
        elif killed.returncode:
            assert (killed.returncode, err.count("\n")) == (128 + sent, 1)
        assert records[: len(before)] == before
        before = list(records)
    assert run(sweep.main, *args) == 0
    records = codec.read(out).records
    assert records[: len(before)] == before
    assert len({codec.key(one.case, one.environment) for one in records}) == len(records) == CASES
    assert not any(isinstance(one, Skipped) for one in records)


@pytest.mark.parametrize("victim", ["worker", "server"])
def test_a_killed_worker_or_server_loses_no_case(victim: str, args: list[str]) -> None:
    def is_killed() -> bool:
        servers, workers = servers_and_workers(os.getpid())
        if not workers:
            return False
        try:
            os.kill((workers if victim == "worker" else servers)[0], signal.SIGKILL)
        except ProcessLookupError:  # ended since
            return False
        return True

    killer = threading.Thread(target=wait_for, args=(is_killed,))
    killer.start()
    assert run(sweep.main, *args) == 0
    killer.join()
    records = codec.read(Path(args[-1])).records
    assert len({codec.key(one.case, one.environment) for one in records}) == len(records) == CASES
    crashed = [one for one in records if isinstance(one, Skipped)]
    assert [one.status for one in crashed] == (["crashed"] if victim == "worker" else [])
