"""Models as people bring them: tests/field has an input of each kind."""

import csv
import io
from pathlib import Path

import pytest

from bench import flops, throughput
from tests.commands import run

FIELD = Path(__file__).parents[1] / "field"


def counts(capsys: pytest.CaptureFixture[str], *names: str, res: int = 128) -> dict[str, dict[str, str]]:
    """Rows of bench.flops by class."""
    argv = [name if "/" in name else f"{FIELD}/{name}" for name in names]
    assert run(flops.main, "--model", *argv, "--res", str(res), "--format", "csv") == 0
    rows = csv.DictReader(io.StringIO(capsys.readouterr().out))
    return {row["model"].rpartition(":")[2]: row for row in rows}


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("prefix", ["", "Attention"])
def test_own_checkpointing_is_not_training(capsys: pytest.CaptureFixture[str], prefix: str) -> None:
    kinds = [f"{prefix}{kind}" for kind in ("Plain", "Reentrant", "Net", "OfFunctions")]
    rows = counts(capsys, *(f"own_checkpointing.py:{kind}" for kind in kinds))
    plain = rows.pop(kinds[0])
    assert "recomputes" not in plain["remarks"]
    for row in rows.values():
        for column in ("macs", "train_macs", "train_macs_checkpointed"):
            assert row[column] == plain[column]
        assert "the network itself recomputes" in row["remarks"]
    blocks = int(plain["train_macs_checkpointed"]) - int(plain["train_macs"])
    assert 0 < blocks < int(plain["macs"])


@pytest.mark.parametrize(
    "kind", ["Net", "Inference", "Detached", "WithoutParameters", "RaisesInBackward", "RaisesInTraining"]
)
def test_what_cannot_be_trained_is_counted_forward(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    rows = counts(capsys, f"no_grad_forward.py:{kind}", "DiT-S/8")
    assert int(rows["DiT-S/8"]["train_macs"]) > 0
    row = rows[kind]
    assert int(row["macs"]) == (0 if kind == "WithoutParameters" else 4 * 8 * 9 * 16 * 16)
    assert row["train_macs"] == row["train_macs_checkpointed"] == ""
    assert "training not counted: " in row["remarks"]


def test_products_in_place_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    rows = counts(
        capsys, "in_place_product.py:Out", "in_place_product.py:InPlace", "in_place_product.py:Unknown"
    )
    assert {row["macs"] for row in rows.values()} == {"2146304"}
    assert "addr_" in rows["Unknown"]["not_counted"]


KINDS = ["Net", "ToList", "ToNumpy", "InForward", "Attention"]


def test_without_meta_tensors_real_ones_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    rows = counts(capsys, *(f"item_in_constructor.py:{kind}" for kind in (*KINDS, "OnMeta")))
    for kind in KINDS[:-1]:
        assert rows[kind]["macs"] == str(4 * 8 * 9 * 16 * 16)
        assert int(rows[kind]["train_macs"]) > 0
        assert "counted on real tensors" in rows[kind]["remarks"]
    for column in ("macs", "train_macs"):
        assert rows["Attention"][column] == rows["OnMeta"][column]


def test_without_meta_tensors_a_model_is_timed(capsys: pytest.CaptureFixture[str]) -> None:
    argv = [
        "--model",
        f"{FIELD}/item_in_constructor.py:Net",
        "--res",
        "64",
        "--batch",
        "1",
        "--device",
        "cpu",
    ]
    assert run(throughput.main, *argv, "--budget", "0.1", "--format", "csv") == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["status"] == "ok"
