"""Models as people bring them: tests/field has an input of each kind."""

import csv
import io
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench import flops
from bench.cli import models as cli_models
from models import Task, load_official
from models.contract import build
from models.weights import Weights, read_weights
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


Wrap = Callable[[dict[str, torch.Tensor], dict[str, torch.Tensor]], object]


def rename(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in tensors.items()}


def wrapped(tmp_path: Path, tensors: object) -> Weights:
    torch.save(tensors, tmp_path / "file.pt")
    return read_weights(tmp_path / "file.pt")


def test_containers_and_prefixes_of_checkpoints_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(FIELD.parents[1])
    monkeypatch.setattr(sys, "argv", ["containers.py", str(tmp_path)])
    runpy.run_path(str(FIELD / "containers.py"))
    model = build("DiT-S/2", Task()).to_empty(device="cpu")
    notes = {
        "ema_beside": "ema_beside.pt: model_ema is read",
        "prefixed": "prefixed.pt without the prefix '_orig_mod.module.' are read",
        "lightning": "lightning.pt: state_dict is read",
    }
    for name, note in notes.items():
        path = tmp_path / f"{name}.pt"
        cli_models.meta_models(["DiT-S/2"], [256], path)
        assert note in capsys.readouterr().err
        assert cli_models.container_of(path) == ("" if name == "prefixed" else note.split()[1])
        for parameter in model.parameters():
            parameter.data.fill_(torch.nan)
        load_official(model, read_weights(path))
        assert all(bool(p.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize(
    ("wrap", "container", "prefix"),
    [
        (lambda good, bad: {"ema": {"decay": 0.9, "shadow": good}, "model": bad}, "ema.shadow", ""),
        (lambda good, bad: {"model": good, "ema": [1]}, "model", ""),
        (lambda good, bad: rename("ema_model.", good) | rename("online.", good), "", "ema_model."),
        (lambda good, bad: {"state_dict": rename("net.", good) | rename("vae.", bad)}, "state_dict", "net."),
        (lambda good, bad: {"module": rename("module.", good), "step": 3}, "module", "module."),
    ],
)
def test_a_checkpoint_is_read_whatever_wraps_it(
    tmp_path: Path, wrap: Wrap, container: str, prefix: str
) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    good = {key: torch.full_like(value, 7) for key, value in model.state_dict().items()}
    read = wrapped(tmp_path, wrap(good, {"x.bias": torch.zeros(5)}))
    assert read.container == container
    assert load_official(model, read) == prefix
    assert all(bool((p == 7).all()) for p in model.parameters())


def test_what_does_not_fit_is_one_short_line(tmp_path: Path) -> None:
    tensors = {f"module.blocks.{i}.weight": torch.zeros(1, 1) for i in range(500)}
    model = torch.nn.ModuleDict({"blocks": torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(400))})
    with pytest.raises(ValueError, match=re.escape("file.pt: model_ema: does not fit")) as caught:
        load_official(model, wrapped(tmp_path, {"model_ema": tensors}))
    message = str(caught.value).replace(str(tmp_path), "")
    assert "without the prefix 'module.'" in message
    assert "missing: blocks.0.bias, blocks.1.bias and 398 more" in message
    assert len(message) < 300
