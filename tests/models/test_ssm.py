"""Networks with Mamba mixers: DiS, DiM, DiMSUM."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines import load
from bench.counting import counters
from bench.measure import golden_calls
from models import Task, create, names
from models.contract import build, make_inputs
from models.dim import Config as DiMConfig
from models.dim import DiM, Padding, along, along_rows
from models.dimsum import Config as DiMSUMConfig
from models.dimsum import DiMSUM, FrequencyScan, Haar, InverseHaar
from models.dis import Config as DiSConfig
from models.dis import DiS, StochasticDepth
from models.family import Factory
from models.layers.mamba import Mamba
from models.registry import family_of, printed, published_task, task_at
from models.weights import official_name, randomise_zeros
from tests.conftest import NARROW

SCANNING = [NARROW[family] for family in ("DiS", "DiM", "DiMSUM")]


def test_dis_outputs_what_the_released_code_does() -> None:
    golden = golden_calls.read("DiS-S/2")
    model = golden_calls.build("DiS-S/2", golden)

    def error(which: str) -> float:
        with torch.no_grad():  # the last image: images do not depend on each other
            out = model(*(values[-1:] for values in golden_calls.inputs(golden)))
        return golden_calls.error(out, torch.from_numpy(golden.outputs[which][-1:]))

    assert error("out") < 3e-6
    golden_calls.sharpen(model, golden)
    # the released code itself differs by 1.1e-5 between float32 and float64
    assert error("out_n") < 3e-5


@pytest.mark.parametrize(
    "network",
    [
        lambda task: DiS(DiSConfig(width=32, depth=2), task),
        lambda task: DiM(DiMConfig(width=32, depth=3), task),
        lambda task: DiMSUM(DiMSUMConfig(width=32, depth=1, heads=2, attention_every=1), task),
    ],
    ids=["DiS", "DiM", "DiMSUM"],
)
def test_compiles_as_one_graph_with_gradients(network: Factory) -> None:
    task = Task((8, 16))
    model = network(task).eval()
    randomise_zeros(model)
    args = make_inputs(task, 2, "cpu")
    model(*args).square().mean().backward()
    plain = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    torch.compile(model, fullgraph=True, backend="aot_eager")(*args).square().mean().backward()
    for key, grad in plain.items():
        torch.testing.assert_close(model.get_parameter(key).grad, grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", SCANNING)
def test_torchprofile_itself_sees_no_scan(name: str) -> None:
    task = Task(16)
    count = counters.count_forward(create(name, task), task, counter="torchprofile")
    with torch.device("meta"):
        model = create(name, task)
    rules = counters.count_forward(model, task, counter="torchprofile-meta").macs
    # a traced graph leaves out what nothing reads
    unread = sum(p.numel() for key, p in model.named_parameters() if key.endswith(".unread.weight"))
    assert count.macs == rules - unread
    assert "rms_norm" in count.not_counted


def test_names_in_print_and_back_ends_by_name() -> None:
    assert printed("dim-h") == printed("DiM-H/2") == "DiM-H/2"
    assert printed("dis-h/2@MAMBA-SSM") == "DiS-H/2@mamba-ssm"
    assert family_of("DiM-H/2@torch") == "DiM"
    assert published_task("DiM-H") == task_at("DiMSUM-L/2@torch", 256, 256) == Task(learn_sigma=False)
    assert names("DiS-*") == ["DiS-S/2", "DiS-B/2", "DiS-M/2", "DiS-L/2", "DiS-H/2"]
    rows = {load.row_name(row): row for row in load.table("dico_table01").rows}
    assert load.backbone_name(rows["DiM-H"]) == "DiM-H/2"


def test_a_back_end_by_name_is_the_same_network() -> None:
    plain, named = (create(name, latent_size=8).eval() for name in ("DiS-S/2", "DiS-S/2@torch"))
    named.load_state_dict(plain.state_dict())
    args = make_inputs(Task(8), 1, "cpu")
    with torch.no_grad():
        assert torch.equal(plain(*args), named(*args))


@pytest.mark.parametrize("name", ["DiS-S/2", "DiM-H/2", "DiMSUM-L/2"])
def test_missing_back_end_is_refused_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        ValueError, match=rf"^{name}@mamba-ssm: backend: mamba-ssm cannot run: .*; torch would work$"
    ):
        build(f"{name}@mamba-ssm", Task())


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ValueError, match=r"latent_size: must be a multiple of .* 8, got 20; 24 would work"):
        create("DiMSUM-L/2", latent_size=20)
    with pytest.raises(ValueError, match=r"depth: must be even, .* got 5"):
        DiS(DiSConfig(width=32, depth=5), Task(8))
    with pytest.raises(ValueError, match=r"depth: must be odd, .* got 4"):
        DiM(DiMConfig(width=32, depth=4), Task(8))


@pytest.mark.parametrize("name", SCANNING)
def test_mixers_start_as_the_release_starts_them(name: str) -> None:
    model = create(name, latent_size=8)
    mixers = [module for module in model.modules() if isinstance(module, Mamba)]
    assert mixers
    for mixer in mixers:
        ssm = mixer.forwards
        steps = F.softplus(ssm.step.bias)
        assert ((steps > 0.00099) & (steps < 0.101)).all()
        assert ssm.step.weight.abs().max() <= mixer.rank**-0.5
        assert torch.allclose(ssm.decay.exp(), torch.arange(1.0, 17.0))
        assert (ssm.skip == 1).all()
        bound = mixer.inner**-0.5 / math.sqrt(depth(model))
        assert 0.9 * bound < mixer.project_out.weight.abs().max() <= bound
        if hasattr(mixer, "backwards"):
            assert not mixer.backwards.step.bias.any()


def depth(model: nn.Module) -> int:
    return len(model.blocks) if hasattr(model, "blocks") else 2 * len(model.encoder)


def test_stochastic_depth_grows_to_a_tenth_and_keeps_the_mean() -> None:
    with torch.device("meta"):
        model = create("DiS-S/2")
    rates = [module.rate for module in model.modules() if isinstance(module, StochasticDepth)]
    assert rates == pytest.approx(np.linspace(0, 0.1, 25))
    drop = StochasticDepth(0.1)
    x = torch.ones(4000, 1, 1)
    dropped = drop.train()(x)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.9])
    assert dropped.mean().item() == pytest.approx(1, abs=0.03)  # 4000 draws: 6 standard errors
    assert torch.equal(drop.eval()(x), x)


def test_dis_trains_on_a_cpu() -> None:
    model = create("tests.narrow:dis", latent_size=8).train()
    x, t, y = make_inputs(Task(8), 8, "cpu")
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(30):
        loss = (model(x, t, y)[:, :4] - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_dim_cycles_four_scan_orders_and_skips_join_equal_ones() -> None:
    with torch.device("meta"):
        blocks = create("DiM-H/2").blocks
    orders = [block.order for block in blocks]
    assert orders[:25] == [0, 1, 2, 3] * 6 + [0]
    assert orders[25:33] == [3, 2, 1, 0, 3, 2, 1, 0]
    # a skip joins before a block reorders: in the order of the block before it
    assert all(orders[i - 1] == orders[49 - i] for i in range(25, 49))

    front = [-5.0, -4, -3, -2, -1]
    x = torch.tensor([*front, 0, 1, 2, 3, 4, 5]).view(1, 11, 1)
    rows, columns = [0.0, 1, 2, 3, 4, 5], [0.0, 3, 1, 4, 2, 5]
    for order, wanted in enumerate((rows, rows[::-1], columns, columns[::-1])):
        scanned = along(x, (2, 3), order)
        assert scanned.flatten().tolist() == front + wanted
        assert torch.equal(along_rows(scanned, (2, 3), order), x)


def test_dim_pads_below_by_rows_for_256_px_and_in_turn_for_512() -> None:
    padding = Padding(1)
    with torch.no_grad():
        padding.cells.copy_(torch.tensor([10.0, 11, 12]).view(1, 1, 3))
        small, large = padding(torch.zeros(1, 1, 1, 2))[0, 0], padding(torch.zeros(1, 1, 32, 32))[0, 0]
    assert small.tolist() == [[0, 0, 10, 11, 12], [10] * 5, [11] * 5, [12] * 5]
    assert large.shape == (35, 35)
    beside_and_below = [*large[:32, 32:].flatten().tolist(), *large[32:].flatten().tolist()]
    assert beside_and_below == [10, 11, 12] * ((32 * 3 + 3 * 35) // 3)


def test_haar_is_orthonormal_and_in_the_order_of_its_bands() -> None:
    haar, inverse = Haar(), InverseHaar()
    x = torch.randn(2, 3, 4, 6)
    bands = haar(x)
    assert bands.shape == (2, 12, 2, 3)
    torch.testing.assert_close(bands.square().sum(), x.square().sum())
    torch.testing.assert_close(inverse(bands), x)
    a, b, c, d = x[0, 1, 0, 0], x[0, 1, 0, 1], x[0, 1, 1, 0], x[0, 1, 1, 1]  # the first 2 x 2 pixels
    wanted = torch.stack([a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d]) / 2
    torch.testing.assert_close(bands[0, 1::3, 0, 0], wanted)


@pytest.mark.parametrize("index", [0, 1])
def test_frequency_scan_reads_windows_and_restores_the_tokens(index: int) -> None:
    scan = FrequencyScan(64, kernel=4, backend="auto", grid=(8, 12), index=index)
    seen: list[Tensor] = []

    def mix(x: Tensor, c: Tensor) -> Tensor:
        seen.append(x)
        return x

    scan.mix = mix
    x = torch.randn(2, 96, 32)
    torch.testing.assert_close(scan(x, torch.zeros(2, 64)), x)

    # by the words of the release: band = 4 first + second; (band, channel) read as (channel, row, column)
    haar, image = Haar(), x.transpose(1, 2).unflatten(2, (8, 12))
    bands = torch.cat([haar(band) for band in haar(image).chunk(4, dim=1)], dim=1) / 4  # (2, 16 * 32, 2, 3)
    cells = bands.reshape(2, 32, 4, 4, 2, 3)
    grid = torch.zeros(2, 8, 12, 32)
    for h in range(2):
        for w in range(3):
            grid[:, 4 * h : 4 * h + 4, 4 * w : 4 * w + 4] = cells[..., h, w].permute(0, 2, 3, 1)
    windows = [(h, w) for h in range(4) for w in range(4)]
    tokens = []
    for first, second in windows:
        h, w = (second, first) if index else (first, second)
        window = grid[:, 2 * h : 2 * h + 2, 3 * w : 3 * w + 3]
        tokens.append((window.transpose(1, 2) if index else window).flatten(1, 2))
    torch.testing.assert_close(seen[0], torch.cat(tokens, dim=1))


def test_dimsum_unread_projections_are_counted_without_effect() -> None:
    model = create("tests.narrow:dimsum", latent_size=8).eval()
    args = make_inputs(Task(8), 1, "cpu")
    unread = [key for key, _ in model.named_parameters() if ".unread." in key]
    assert len(unread) == 2 * 2 * 4  # weight and bias, space and frequency, blocks
    with torch.no_grad():
        before = model(*args)
        for key in unread:
            model.get_parameter(key).normal_()
        assert torch.equal(model(*args), before)
    with torch.device("meta"):
        model = create("tests.narrow:dimsum", latent_size=8)
    parts = counters.count_forward(model, Task(8), by_module=True).by_module
    assert parts["blocks.*.space.mixer.unread"] == 4 * 64 * 64


def test_dimsum_attends_after_every_fourth_block() -> None:
    with torch.device("meta"):
        model = create("DiMSUM-L/2").eval()
    assert isinstance(model, DiMSUM)
    calls: list[str] = []
    for i, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, i=i: calls.append(str(i)))
    model.attention[0].register_forward_hook(lambda *_: calls.append("attention"))
    model(*make_inputs(Task(), 1, "meta"))
    assert [calls[i - 1] for i, call in enumerate(calls) if call == "attention"] == ["3", "7", "11", "15"]


def test_official_names_are_unique_and_equal_the_manifest() -> None:
    for family in ("DiS-B/2", "DiM-H/2", "DiMSUM-L/2"):
        with torch.device("meta"):
            model = create(family)
        keys = [official_name(model, key) for key in model.state_dict()]
        assert sorted(keys) == sorted(load.manifest(family).shapes)
        assert len(set(keys)) == len(keys)
