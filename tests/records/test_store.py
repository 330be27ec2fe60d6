"""The store: one writer, nothing lost, killed at any moment."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bench.records import record
from bench.records.record import StoreError, case, key
from bench.records.store import open_store
from tests.records.test_record import COUNTED, RUN, SKIPPED, TIMED

ROOT = Path(__file__).resolve().parents[2]


def test_records_are_found_again_by_what_they_asked(tmp_path: Path) -> None:
    path = tmp_path / "new" / "records.jsonl"
    with open_store(path) as store:
        assert store.held(RUN) is None
        store.append(TIMED)
        assert store.held(RUN) == TIMED
    with open_store(path) as store:
        assert store.held(RUN) == TIMED
        assert store.held(replace(RUN, batch=5)) is None
        store.append(COUNTED)
    assert record.read(path) == [TIMED, COUNTED]


def test_a_key_stands_for_case_device_and_software_and_not_for_the_day() -> None:
    later = replace(RUN.environment, date="2027-01-01T00:00:00Z", commit="other")
    assert key(replace(RUN, environment=later)) == key(RUN) == key(TIMED) == key(SKIPPED)
    for field, value in [("torch", "2.14.0"), ("device", "another"), ("code", "4567"), ("driver", "1")]:
        assert key(replace(RUN, environment=replace(RUN.environment, **{field: value}))) != key(RUN)
    for field, value in [("precision", "bf16"), ("question", "latency"), ("res", 512), ("budget_s", 60.0)]:
        assert key(replace(RUN, **{field: value})) != key(RUN)
    assert key(replace(COUNTED, macs=7)) == key(COUNTED)


def test_a_case_is_what_was_asked_whatever_the_machine_the_software_and_the_budget() -> None:
    elsewhere = replace(RUN.environment, device="another", torch="2.14.0", code="4567", threads=9)
    there = replace(TIMED, run=replace(RUN, environment=elsewhere, budget_s=60.0, precision_target=0.02))
    assert case(there) == case(TIMED) == case(SKIPPED)
    assert case(replace(COUNTED, environment=elsewhere)) == case(COUNTED) != case(TIMED)
    for field, value in [("precision", "bf16"), ("batch", 5), ("soak_s", 60.0), ("weights", "a file")]:
        assert case(replace(TIMED, run=replace(RUN, **{field: value}))) != case(TIMED)


def test_a_case_is_answered_by_other_software_of_the_device_but_not_by_a_failure(tmp_path: Path) -> None:
    older = replace(RUN, environment=replace(RUN.environment, code="0ld"))
    path = tmp_path / "records.jsonl"
    with open_store(path) as store:
        store.append(replace(SKIPPED, run=older))
        assert not store.answered(RUN)
        store.append(replace(TIMED, run=older))
        assert store.answered(RUN)
        assert not store.answered(replace(RUN, environment=replace(RUN.environment, device="another")))
    with open_store(path) as store:
        assert store.answered(RUN)
        assert store.held(RUN) is None


def test_a_second_writer_is_refused_and_a_third_after_the_first_is_not(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with (
        open_store(path),
        pytest.raises(StoreError, match="another process is writing to it"),
        open_store(path),
    ):
        pass
    with open_store(path) as store:
        store.append(TIMED)


def test_a_torn_last_line_is_set_aside_and_the_rest_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    whole, torn = record.to_line(TIMED), record.to_line(SKIPPED)[:40]
    path.write_text(whole + torn)
    assert record.read(path) == [TIMED]
    with open_store(path) as store:
        assert store.torn == torn
        store.append(COUNTED)
    assert record.read(path) == [TIMED, COUNTED]
    assert (tmp_path / "records.jsonl.torn").read_text() == torn + "\n"


@pytest.mark.parametrize(
    ("middle", "told"),
    [
        (record.to_line(SKIPPED)[:40] + "\n", "line 2: not a record"),
        (record.to_line(SKIPPED).replace('"schema": 1', '"schema": 0'), "line 2: .*schema 0; this version"),
    ],
)
def test_a_store_that_is_not_ours_is_refused_and_left_as_it_is(
    middle: str, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "records.jsonl"
    text = record.to_line(TIMED) + middle + record.to_line(COUNTED)
    path.write_text(text)
    with pytest.raises(StoreError, match=told), open_store(path):
        pass
    assert path.read_text() == text


WRITER = """
import sys, time
from dataclasses import replace
from pathlib import Path
from bench.records.store import open_store
from tests.records.test_record import RUN, TIMED
with open_store(Path(sys.argv[1])) as store:
    print("open", flush=True)
    for batch in range(1, 10**6):
        run = replace(RUN, batch=batch)
        if store.held(run) is None:
            store.append(replace(TIMED, run=run, times_s=(0.1,) * 2000))
"""


def test_a_writer_killed_at_twenty_random_moments_loses_nothing_that_it_had_written(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    draw = random.Random(0)
    written = 0
    # a fork of one warm interpreter would share its locks: each writer is a process of its own
    for _ in range(20):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"open\n"
        time.sleep(draw.uniform(0, 0.03))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        whole = path.read_bytes().count(b"\n")
        assert whole >= written
        written = whole
    with open_store(path) as store:
        store.append(COUNTED)
    records = record.read(path)
    batches = [one.run.batch for one in records if isinstance(one, type(TIMED))]
    assert batches == list(range(1, written + 1))  # each case once, in order, none missing
    assert written > 20
