"""bench.flops: stored counts, failures, and modes that exclude each other."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench import flops
from bench.counting import counters
from bench.store.codec import read
from tests.commands import run

SMALL = ("--model", "DiT-S/8", "--res", "64")


def rows(capsys: pytest.CaptureFixture[str], *args: str) -> list[dict[str, Any]]:
    assert run(flops.main, *args, "--format", "json") == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_stored_counts_are_not_counted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "counts.jsonl")
    first = rows(capsys, *SMALL, "--out", store)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("counted again")

    monkeypatch.setattr(counters, "count_forward", refuse)
    assert run(flops.main, *SMALL, "--out", store, "--format", "json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == first
    assert "1 of 1 were in" in printed.err
    assert len(read(Path(store)).records) == 1


def test_counts_of_explain_get_their_training_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "counts.jsonl")
    assert run(flops.main, "--explain", "DiT-S/8", "--res", "64", "--counter", "torch", "--out", store) == 0
    capsys.readouterr()
    (row,) = rows(capsys, *SMALL, "--out", store)
    assert row["train_macs"] > 2.9 * row["macs"]


def test_a_failed_count_is_a_row_and_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    args = ("--model", "tests.tiny:RaisesWhenReal", "DiT-S/8", "--res", "64", "--counter", "fvcore")
    failed, counted = rows(capsys, *args)
    assert (failed["status"], failed["reason"]) == ("error", "KeyError: 'only found out now'")
    assert failed["macs"] is None
    assert counted["macs"] > 0
    assert [row["model"] for row in rows(capsys, *args, "--by", "op")][:2] == [args[1], "DiT-S/8"]
    assert run(flops.main, *args) == 0
    assert "KeyError: 'only found out now'" in capsys.readouterr().out


def test_weights_that_do_not_fit_are_a_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.counting.count.free_host_bytes", lambda: 2**20)
    (row,) = rows(capsys, *SMALL, "--counter", "fvcore")
    assert row["status"] == "out of memory"
    assert row["reason"] == "about 0.2 GiB of memory needed, 0.0 are free"


def test_a_failed_explanation_is_a_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no shape function")

    monkeypatch.setattr(counters, "count_side_by_side", fail)
    found = rows(capsys, "--explain", "DiT-S/8", "--res", "64")
    assert [row["part"] for row in found] == ["count", "verdict"]
    assert found[-1]["text"] == "no count: error: RuntimeError: no shape function"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--steps", "5"], "without --training: takes no --steps"),
        (["--records", __file__], "without --training: takes no --records"),
    ],
)
def test_options_of_another_mode_are_refused(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(flops.main, *SMALL, *args) == 2
    assert message in capsys.readouterr().err
