"""The store: a single writer, and no record lost when it is killed at any time."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bench.records.base import StoreError
from bench.store import codec
from bench.store.codec import case_key, key
from bench.store.store import open_store
from tests.records.examples import CASE, COUNT, ENVIRONMENT, SKIPPED, THROUGHPUT

ROOT = Path(__file__).resolve().parents[2]


def test_records_are_found_again_by_their_case(tmp_path: Path) -> None:
    path = tmp_path / "new" / "records.jsonl"
    with open_store(path) as store:
        assert store.find(CASE, ENVIRONMENT) is None
        store.append(THROUGHPUT)
        assert store.find(CASE, ENVIRONMENT) == THROUGHPUT
    with open_store(path) as store:
        assert store.find(CASE, ENVIRONMENT) == THROUGHPUT
        assert store.find(replace(CASE, batch=5), ENVIRONMENT) is None
        store.append(COUNT)
    assert codec.read(path).records == [THROUGHPUT, COUNT]


def test_a_key_is_of_case_device_and_software_not_date() -> None:
    known = key(CASE, ENVIRONMENT)
    assert key(CASE, replace(ENVIRONMENT, date="2027-01-01T00:00:00Z", commit="other")) == known
    for field, value in [("torch", "2.14.0"), ("device", "another"), ("code", "4567"), ("driver", "1")]:
        assert key(CASE, replace(ENVIRONMENT, **{field: value})) != known
    for field, value in [("precision", "bf16"), ("work", "training"), ("res", 512), ("budget_s", 60.0)]:
        assert key(replace(CASE, **{field: value}), ENVIRONMENT) != known


def test_a_case_key_leaves_out_the_budget() -> None:
    assert case_key(replace(CASE, budget_s=60.0, precision_target=0.02)) == case_key(CASE)
    assert case_key(COUNT.case) != case_key(CASE)
    for field, value in [("precision", "bf16"), ("batch", 5), ("soak_s", 60.0), ("weights", "a file")]:
        assert case_key(replace(CASE, **{field: value})) != case_key(CASE)


def test_other_software_answers_a_case_but_a_failure_not(tmp_path: Path) -> None:
    older = replace(ENVIRONMENT, code="0ld")
    path = tmp_path / "records.jsonl"
    with open_store(path) as store:
        store.append(replace(SKIPPED, environment=older))
        assert not store.is_answered(CASE, ENVIRONMENT)
        store.append(replace(THROUGHPUT, environment=older))
        assert store.is_answered(CASE, ENVIRONMENT)
        assert not store.is_answered(CASE, replace(ENVIRONMENT, device="another"))
    with open_store(path) as store:
        assert store.is_answered(CASE, ENVIRONMENT)
        assert store.find(CASE, ENVIRONMENT) is None


def test_a_second_writer_is_refused_while_the_first_writes(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with (
        open_store(path),
        pytest.raises(StoreError, match="another process is writing to it"),
        open_store(path),
    ):
        pass
    with open_store(path) as store:
        store.append(THROUGHPUT)


def test_a_torn_last_line_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    whole, torn = codec.to_line(THROUGHPUT), codec.to_line(SKIPPED)[:40]
    path.write_text(whole + torn)
    assert codec.read(path).records == [THROUGHPUT]
    with open_store(path) as store:
        assert store.torn == torn.encode()
        store.append(COUNT)
    assert codec.read(path).records == [THROUGHPUT, COUNT]
    assert (tmp_path / "records.jsonl.torn").read_text() == torn + "\n"


@pytest.mark.parametrize(
    ("middle", "message"),
    [
        (codec.to_line(SKIPPED)[:40] + "\n", "line 2: not a record"),
        (codec.to_line(SKIPPED).replace('"format": 3', '"format": 0'), "line 2: .*format 0; this version"),
    ],
)
def test_a_file_that_is_no_store_is_refused_and_kept(middle: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    text = codec.to_line(THROUGHPUT) + middle + codec.to_line(COUNT)
    path.write_text(text)
    with pytest.raises(StoreError, match=message), open_store(path):
        pass
    assert path.read_text() == text


WRITER = """
import sys, time
from dataclasses import replace
from pathlib import Path
from bench.store.store import open_store
from tests.records.examples import CASE, ENVIRONMENT, THROUGHPUT
with open_store(Path(sys.argv[1])) as store:
    print("open", flush=True)
    for batch in range(1, 10**6):
        case = replace(CASE, batch=batch)
        if store.find(case, ENVIRONMENT) is None:
            store.append(replace(THROUGHPUT, case=case, times_s=(0.1,) * 2000))
"""


def test_a_writer_killed_at_random_moments_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    draw = random.Random(0)
    written = 0
    # a fork of one warm interpreter would share its locks: each writer is a process of its own
    for _ in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"open\n"
        while path.read_bytes().count(b"\n") == written:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.03))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        whole = path.read_bytes().count(b"\n")
        assert whole >= written
        written = whole
    with open_store(path) as store:
        store.append(COUNT)
    records = codec.read(path).records
    batches = [one.case.batch for one in records if isinstance(one, type(THROUGHPUT))]
    assert batches == list(range(1, written + 1))  # each case once, in order, none missing
    assert written >= 8


LINE = codec.to_line(THROUGHPUT)
DEEP = '"work": ' + "[" * 900 + "]" * 900


@pytest.mark.parametrize(
    "line",
    [
        "[1, 2]\n",
        LINE.replace('"kind": "throughput"', '"kind": ["throughput"]'),
        LINE.replace('"kind": "throughput"', '"kind": {"a": 1}'),
        '{"schema": 1, "kind": ["x"]}\n',
        "[" * 100_000 + "]" * 100_000 + "\n",
        LINE.replace('"work": "inference"', DEEP),
        LINE.replace('"batch": ', '"batch": ' + "9" * 400),
        LINE.replace('"batch": ', '"batch": ' + "9" * 5000),
        LINE.replace('"times_s": [', '"times_s": [NaN, '),
        LINE.replace('"times_s": [', '"times_s": [1e999, '),
        LINE.replace('"times_s": [', f'"times_s": [{"9" * 400}, '),
        LINE.replace('"batch": ', '"batch": 1, "more": '),
        LINE.replace('"cpu"', '"\\ud800"'),
        "\x1b[2J\u202e\0\n",
        "\udcff\n",
    ],
    ids=str,
)
def test_a_hostile_line_is_named_by_file_and_number(line: str, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    assert line != LINE
    path.write_bytes((LINE + line).encode(errors="surrogateescape"))
    with pytest.raises(StoreError, match=r"records\.jsonl, line 2: not a record of this suite: "):
        codec.read(path)


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "link"])
def test_what_is_no_file_is_refused_unread(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path)
    for use in (codec.read, lambda path: open_store(path).__enter__()):
        with pytest.raises(
            (StoreError, OSError), match=r"is a (FIFO|folder|device), not a file|symbolic link"
        ):
            use(path)


def test_a_full_disk_leaves_the_file_as_before(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with open_store(path) as store:
        store.append(THROUGHPUT)
        before = path.read_bytes()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
        try:
            with pytest.raises(StoreError, match=r"cannot be written: .*; earlier records are kept"):
                store.append(COUNT)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == before
        store.append(COUNT)
    assert codec.read(path).records == [THROUGHPUT, COUNT]
