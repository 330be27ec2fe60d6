"""Variants of the papers' ablations: counts against the tables, the contract of backbones, names."""

import sys
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from baselines import load
from bench import flops, throughput
from bench.counting import closed_form
from bench.counting.dispatch import CountingMode
from models import Task, names
from models.contract import build, condition_width, make_inputs
from models.dico import Config as DiCoConfig
from models.dico import DiCo
from models.dit import Config as DiTConfig
from models.dit import DiT
from models.fcdm import FCDM, Isotropic, IsotropicConfig
from models.fcdm import Config as FCDMConfig
from models.guidance import guide
from models.registry import FAMILIES, family_of, find, printed, published_task
from models.weights import randomise_zeros
from tests.cli.test_cli import run

TABLES = [f"fcdm_table{n:02}" for n in (6, 10, 12, 13, 14, 15)] + ["dico_table03", "dico_table04"]
ROWS = load.ablations()
CHANGED = {row.model: row for row in ROWS if row.model and "@" in row.model}
BACKBONES = names()
ABLATIONS = {name: factory for family in FAMILIES.values() for name, factory in family.ablations.items()}
HERE = [name for name in ABLATIONS if "natten" not in name]  # not installed in the test environment


def meta(name: str) -> nn.Module:
    return build(name, published_task(name)).eval()


def test_every_row_of_ablation_tables_has_a_model_or_a_note() -> None:
    assert [(row.table, row.row) for row in ROWS] == [
        (table, row + 1) for table in TABLES for row in range(len(load.table(table).rows))
    ]
    for row in ROWS:
        assert row.grade in ("sure", "likely", "guess", "open")
        assert row.model in {*BACKBONES, *ABLATIONS} if row.model else row.grade == "open" and row.note


@pytest.mark.parametrize("name", CHANGED)
def test_parameters_and_macs_equal_the_data_in_every_digit(name: str) -> None:
    model, row = meta(name), CHANGED[name]
    params = sum(p.numel() for p in model.parameters() if p.requires_grad)
    terms = closed_form.count(name, Task())  # traced in tests/counting/test_closed_form.py
    assert terms is not None
    macs = terms.torch.total() + terms.torchprofile.total()
    assert f"{params / 1e6:.{row.params_m.decimals}f}" == row.params_m.as_printed
    assert f"{macs / 1e9:.{row.gmacs.decimals}f}" == row.gmacs.as_printed


def test_counts_round_to_published_values_except_in_two_rows() -> None:
    odd = []
    for row in ROWS:
        for column, counted in (("gflops", row.gmacs), ("params_m", row.params_m)):
            cell = row.published.get(column)
            if row.model and cell and f"{counted.value:.{cell.decimals}f}" != cell.as_printed:
                odd.append((row.model, column))
                named = [r for r in load.remarks() if r.touches(row.table, column, row.published)]
                assert named
    assert odd == [("FCDM-L@k5", "gflops"), ("FCDM-L@uniform", "gflops")]


@pytest.mark.parametrize("name", HERE)
def test_output_has_the_latent_shape_and_variance_channels(name: str) -> None:
    task = Task(latent_size=(32, 64))
    model = build(name, task).eval()
    if name == "FCDM-B@iso" or not name.startswith(("FCDM-B", "FCDM-L", "FCDM-XL")):  # of another size alone
        with torch.no_grad(), CountingMode({}):  # which copies the results of repeated operators
            out = model(*make_inputs(task, 2, "meta", condition_width(model)))
        assert out.shape == (2, 8, 32, 64)


ONES = (1, 1, 1, 1, 1)
TINY: dict[str, Callable[[Task], nn.Module]] = {
    **{
        f"FCDM {change}": partial(FCDM, FCDMConfig(width=32, depths=ONES, **fields))
        for change, fields in {
            "k3": {"kernel": 3},
            "cca": {"enhancement": "attention"},
            "ffn": {"feedforward_ratio": 1},
            "noinv": {"mlp_ratio": 1, "enhancement": "attention"},
            "nogrn": {"enhancement": None},
            "resnet": {"block": "resnet"},
            "na7": {"neighbourhood": "masked"},
            "text": {"text_width": 12},
        }.items()
    },
    "FCDM iso": partial(Isotropic, IsotropicConfig(width=32, depth=2, patch=2)),
    **{
        f"DiCo {change}": partial(DiCo, DiCoConfig(width=32, depths=ONES, **fields))
        for change, fields in {
            "relu": {"activation": "relu"},
            "nocca": {"attention": None},
            "se": {"attention": "squeeze-excite"},
            "attention": {"heads": 2},
            "window": {"heads": 2, "window": 7, "last_ratio": 1},
        }.items()
    },
    "DiT skip": partial(DiT, DiTConfig(width=32, depth=4, heads=2, patch=2, skips=2)),
}
TASK = Task((28, 56), num_classes=1000)


@pytest.fixture(scope="module", params=TINY)
def tiny(request: pytest.FixtureRequest) -> tuple[Callable[[Task], nn.Module], nn.Module]:
    """A factory of each kind of change, small, and its model with no layer left at zero."""
    factory = TINY[request.param]
    model = factory(TASK).eval()
    randomise_zeros(model)
    return factory, model


Args = tuple[Tensor, Tensor, Tensor]


def inputs(model: nn.Module, batch: int) -> Args:
    return make_inputs(TASK, batch, "cpu", condition_width(model))


def test_rows_do_not_depend_on_their_batch(tiny: tuple[object, nn.Module]) -> None:
    model = tiny[1]
    args = inputs(model, 3)
    with torch.no_grad():
        alone = torch.cat([model(*(arg[i : i + 1] for arg in args)) for i in range(3)])
        torch.testing.assert_close(model(*args), alone, atol=1e-4, rtol=1e-4)


def test_output_depends_on_image_timestep_and_condition(tiny: tuple[object, nn.Module]) -> None:
    model = tiny[1]
    x, t, y = inputs(model, 1)
    with torch.no_grad():
        base = model(x, t, y)
        assert torch.equal(model(x, t, y), base)
        for other in (model(x + 1, t, y), model(x, t + 1, y), model(x, t, y.flip(-1) + 1 - y)):
            assert (other - base).abs().max() > 1e-4


def test_every_trainable_parameter_gets_a_gradient_in_training(tiny: tuple[object, nn.Module]) -> None:
    model = tiny[1].train()
    model(*inputs(model, 4)).square().mean().backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and not p.grad.any()]
    assert without == []
    model.zero_grad()
    model.eval()


def test_fresh_model_outputs_zeros_and_loads_a_state_dict(
    tiny: tuple[Callable[[Task], nn.Module], nn.Module],
) -> None:
    factory, model = tiny
    args = inputs(model, 2)
    with torch.no_grad():
        fresh = factory(TASK).eval()
        assert not fresh(*args).any()
        fresh.load_state_dict(model.state_dict())
        exact = model(*args)
        assert torch.equal(fresh(*args), exact)
        x, t, y = args
        rounded = fresh.bfloat16()(x.bfloat16(), t, y).float()
    # bf16 keeps 8 bits, 4e-3 a rounding; some tens of rounded layers in a row add up to a few per cent
    assert (rounded - exact).norm() / exact.norm() < 0.05


@pytest.mark.parametrize("change", ["FCDM ffn", "FCDM na7", "FCDM text", "DiCo window", "DiT skip"])
def test_compiles_without_a_graph_break(change: str) -> None:
    model = TINY[change](TASK).eval()
    randomise_zeros(model)
    args = inputs(model, 2)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="eager")(*args)
        torch.testing.assert_close(compiled, model(*args))
    torch.compiler.reset()


def test_skips_join_the_latest_block_first() -> None:
    model = DiT(DiTConfig(width=32, depth=5, heads=2, patch=2, skips=2), TASK).eval()
    randomise_zeros(model)
    given, joined = [], []
    for block in model.blocks:
        block.register_forward_hook(lambda _module, _args, out: given.append(out))
    for block in model.skip_blocks:
        block.register_forward_pre_hook(lambda _module, args: joined.append(args[1]))
    with torch.no_grad():
        model(*inputs(model, 1))
    assert [joined[0] is given[1], joined[1] is given[0], len(given)] == [True, True, 3]


def test_windows_keep_attention_to_their_own_pixels() -> None:
    model = DiCo(DiCoConfig(width=32, depths=(1, 0, 0, 0, 0), heads=2, window=7), TASK)
    mixer = model.unet.encoder1[0].mixer
    h = torch.randn(1, 32, 14, 21)
    other = h.clone()
    other[..., :7, :7] += 1
    with torch.no_grad():
        moved = (mixer(other) - mixer(h)).abs().amax(dim=(0, 1)) > 1e-6
    assert moved[:7, :7].all()
    assert moved.sum() == 49


def test_names_list_variants_only_where_the_pattern_has_an_at() -> None:
    assert not any("@" in name for name in names())
    assert names("fcdm-l@na7*") == ["FCDM-L@na7"]
    assert names("fcdm-l@na7-*") == ["FCDM-L@na7-masked", "FCDM-L@na7-flex", "FCDM-L@na7-natten"]
    assert set(names("*@*") + names("*@*-*")) == set(ABLATIONS)
    assert printed("fcdm-l@RESNET") == "FCDM-L@resnet"
    assert family_of("FCDM-L@na7") == "FCDM"
    assert published_task("DiT-S/2@skip") == Task()
    assert find("FCDM-L@k3") is ABLATIONS["FCDM-L@k3"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("FCDM-L@k4", "FCDM-L@k4: no such variant; kernels must be odd; the variants of FCDM-L are k3, k5"),
        ("FCDM-L@resnt", "did you mean FCDM-L@resnet? the variants of FCDM-L are k3"),
        ("FCDM-L@", "the variants of FCDM-L are k3"),
        ("DiC-S@k3", "DiC-S has none; those that have some are FCDM-S"),
        ("FDCM-XL@k3", "FDCM-XL@k3: no such backbone; did you mean FCDM-XL"),
        ("FCDM-L@k4*", "FCDM-L@k4*: matches no backbone; all of them are FCDM-S@k3"),
        (
            "FCDM-S@na7",
            "FCDM-S@na7: latent_size: must be at least 28, 4 times the attention's window of 7, got",
        ),
        (
            "DiCo-S@window",
            "must be a multiple of the windows of 8 at a quarter of the resolution: 32, got 24",
        ),
    ],
)
def test_unknown_or_misfit_variant_is_one_line_and_exit_code_2(
    name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(flops.main, "--model", name, "--res", "192") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_missing_back_end_error_names_the_package_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "natten", None)
    assert run(flops.main, "--model", "FCDM-S@na7-natten", "--res", "256") == 2
    assert "natten is not installed here; pip install natten" in capsys.readouterr().err


@pytest.mark.parametrize("make", [FCDMConfig, DiCoConfig])
@pytest.mark.parametrize("kernel", [0, 4])
def test_a_kernel_without_a_middle_is_refused(make: Callable[..., object], kernel: int) -> None:
    with pytest.raises(ValueError, match=f"kernel: must be odd, got {kernel}; .* would work"):
        make(width=32, depths=ONES, kernel=kernel)


TEXT = TINY["FCDM text"]


def test_training_drops_a_tenth_of_the_texts_at_each_level() -> None:
    model = TEXT(TASK).train()
    seen: list[Tensor] = []
    for condition in (model.condition1, model.condition2, model.condition3):
        condition.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    x, t, y = inputs(model, 1)
    with torch.no_grad():
        model(x.expand(400, -1, -1, -1)[:, :, :4, :4], t.expand(400), y.expand(400, -1))
    dropped = [(texts == 0).all(dim=1) for texts in seen]
    assert all(
        torch.equal(text[~gone], y.expand(400, -1)[~gone]) for text, gone in zip(seen, dropped, strict=True)
    )
    assert all(0.05 < gone.float().mean() < 0.16 for gone in dropped)  # 400 draws: 0.1 +- 4 standard errors
    assert not torch.equal(dropped[0], dropped[1])


def test_text_is_guided_against_zeros() -> None:
    model = TEXT(TASK).eval()
    randomise_zeros(model)
    x, t, y = inputs(model, 2)
    with torch.no_grad():
        guided = guide(model, x, t, y, scale=0.0, null=0)
        torch.testing.assert_close(guided[:, :3], model(x, t, torch.zeros_like(y))[:, :3])


@pytest.mark.parametrize("name", ["FCDM-S@text", "tests.tiny:TakesVectors"])
def test_a_network_that_takes_vectors_is_counted(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(flops.main, "--model", name, "--res", "256", "--format", "json") == 0
    assert f'"model": "{name}"' in capsys.readouterr().out


def test_a_network_that_takes_vectors_is_timed(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--model", "tests.tiny:TakesVectors", "--res", "64", "--batch", "2", "--budget", "0.3s"]
    assert run(throughput.main, *args, "--device", "cpu", "--precision", "bf16", "--format", "json") == 0
    assert '"status": "ok"' in capsys.readouterr().out
