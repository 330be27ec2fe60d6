"""Published weights: golden outputs, strict loading, file formats."""

import argparse
from pathlib import Path

import pytest
import torch

from baselines import load
from bench.measure import golden_calls
from models import create, load_official
from models.registry import ENTRIES, family_of
from models.weights import COMPUTED, official_name, randomise_zeros, read_weights
from tests.conftest import is_small

ELSEWHERE = ("models.adm", "models.ldm", "models.dis", "models.uvit", "models.dig")  # tests of their own


def computed() -> list[str]:
    """Goldens of small networks, and of each module without a small one the first; bench.golden has all."""
    by_module: dict[str, list[str]] = {}
    for name in golden_calls.names():
        by_module.setdefault(ENTRIES[family_of(name)].module, []).append(name)
    return [
        name
        for module, names in by_module.items()
        if module not in ELSEWHERE
        for name in [small for small in names if is_small(small)] or names[:1]
    ]


@pytest.mark.parametrize("name", computed())
def test_output_equals_that_of_the_released_code(name: str) -> None:
    golden = golden_calls.read(name)
    model = golden_calls.build(name, golden)
    with torch.no_grad():
        out = model(*golden_calls.inputs(golden))
    # float32 arithmetic accounts for 1e-6; the wrong GELU would show as 8e-5
    assert golden_calls.error(out, torch.from_numpy(golden.out)) < 1e-5


def test_every_golden_file_is_of_a_network_of_the_registry() -> None:
    assert {*golden_calls.names()} == {*load.goldens()}


def test_load_error_names_missing_unexpected_and_misshapen_keys(smallest: str) -> None:
    model = create(smallest)
    given = {official_name(model, name): value for name, value in model.state_dict().items()}
    lost, bent = [key for key in given if key.rpartition(".")[2] not in COMPUTED][:2]
    del given[lost]
    given[bent] = torch.zeros(2, 3)
    given["surplus.weight"] = torch.zeros(1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="state_dict: does not fit") as caught:
        load_official(model, given)
    message = str(caught.value)
    assert f"missing: {lost}" in message
    assert "unexpected: surplus.weight" in message
    assert f"of the wrong shape: {bent} (2, 3) instead of" in message
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_dit_keeps_its_position_table_if_a_checkpoint_has_none() -> None:
    model = create("DiT-S/8")
    given = {official_name(model, name): value + 1 for name, value in model.state_dict().items()}
    del given["pos_embed"]
    before = model.positions.clone()
    load_official(model, given)
    assert torch.equal(model.positions, before)


@pytest.mark.parametrize("name", ["MDT-S/2", "tests.narrow:uvit"])
def test_a_trained_position_table_may_not_be_missing(name: str) -> None:
    model = create(name, latent_size=8)
    given = {official_name(model, key): value for key, value in model.state_dict().items()}
    del given["pos_embed"]
    with pytest.raises(ValueError, match=r"missing: pos_embed$"):
        load_official(model, given)


@pytest.mark.parametrize("form", ["bare", "model", "ema", "safetensors"])
def test_checkpoint_files_of_every_kind_are_read(form: str, tmp_path: Path) -> None:
    wanted = {"a.weight": torch.randn(2, 3)}
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pt")
    if form == "safetensors":
        from safetensors.torch import save_file

        save_file(wanted, path)
    else:
        other = {"a.weight": torch.zeros(2, 3)}
        held = {
            "bare": wanted,
            "model": {"model": wanted, "args": argparse.Namespace(lr=1e-4)},
            "ema": {"model": other, "ema": wanted, "opt": {}, "args": argparse.Namespace(lr=1e-4)},
        }
        torch.save(held[form], path)
    read = read_weights(path)
    assert list(read) == ["a.weight"]
    assert torch.equal(read["a.weight"], wanted["a.weight"])


class Code:
    """An object that a pickle would run on loading."""


@pytest.mark.parametrize(
    "kind", ["absent", "text.pt", "empty.pt", "text.safetensors", "code.pt", "numbers.pt"]
)
def test_file_that_is_no_checkpoint_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / kind
    if kind.startswith("text"):
        path.write_text("not a checkpoint")
    elif kind.startswith("empty"):
        path.touch()
    elif kind == "code.pt":
        torch.save(Code(), path)
    elif kind == "numbers.pt":
        torch.save({"model": {"a": 1}}, path)
    with pytest.raises(ValueError, match=f"{kind}: (no such file|not a|contains no named)"):
        read_weights(path)


def test_randomise_zeros_leaves_no_zeros_and_is_reproducible(smallest: str) -> None:
    model = create(smallest, latent_size=8)
    zero = [name for name, value in model.named_parameters() if not value.any()]
    kept = {name: value.clone() for name, value in model.named_parameters() if name not in zero}
    assert zero
    assert randomise_zeros(model, seed=3) == zero
    assert all(value.any() for value in model.parameters())
    assert all(torch.equal(model.get_parameter(name), value) for name, value in kept.items())
    again = create(smallest, latent_size=8)
    randomise_zeros(again, seed=3)
    assert all(torch.equal(model.get_parameter(name), again.get_parameter(name)) for name in zero)
