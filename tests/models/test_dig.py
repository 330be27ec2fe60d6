"""DiG: against the released outputs and terms of MACs, its scan orders, its back ends by name."""

import pytest
import torch
from torch import Tensor, nn

from baselines import load
from bench.counting import counters
from bench.measure import golden_calls
from models import Task, create, names
from models.contract import build
from models.dig import Block, Config, DiG
from models.registry import family_of, printed, task_at
from models.weights import randomise_zeros


def meta(name: str, latent: int = 32) -> DiG:
    with torch.device("meta"):
        model = create(name, latent_size=latent).eval()
    assert isinstance(model, DiG)
    return model


def test_output_equals_that_of_the_released_code_with_norm_weights_near_1() -> None:
    golden = golden_calls.read("DiG-S/2")
    model = golden_calls.build("DiG-S/2", golden)
    golden_calls.sharpen(model, golden)
    with torch.no_grad():
        out = model(*golden_calls.inputs(golden))
    # float32 arithmetic: 1e-6
    assert golden_calls.error(out, torch.from_numpy(golden.outputs["out_n"])) < 1e-5


@pytest.mark.parametrize(("name", "latent"), load.dig_macs())
def test_macs_are_the_terms_of_the_released_network(name: str, latent: int) -> None:
    terms, model, task = load.dig_macs()[name, latent], meta(name, latent), Task(latent)
    assert sum(p.numel() for p in model.parameters()) == terms["params"]
    count = counters.count_forward(model, task)
    assert count.macs == terms["matmul_conv_gla_all"]
    assert count.by_op["gla"] == terms["gla_core"]
    # torchprofile sees the feed-forward that the release hides from it, but no recurrence
    hidden = terms["mlp_down"] + terms["swiglu_elem"]
    gate = model.positions.numel() * (latent // 2) ** 2 // len(model.positions[0]) * len(model.blocks)
    time_features = 2 * 128
    counted = counters.count_forward(model, task, counter="torchprofile-meta")
    assert counted.macs == terms["torchprofile_approx"] + hidden + gate + time_features
    assert {"gla", "rms_norm"} <= set(counted.not_counted)


def test_macs_by_module_are_the_terms_too() -> None:
    terms = load.dig_macs()["DiG-S/2", 32]
    parts = counters.count_forward(meta("DiG-S/2"), Task(), by_module=True).by_module
    assert parts["blocks.*.attention"] == terms["gla_core"]
    assert parts["blocks.*.feed_forward.contract"] == terms["mlp_down"]
    assert parts["blocks.*.feed_forward.expand"] == terms["mlp_gate"]
    assert parts["blocks.*.depthwise"] == terms["dw"]
    assert parts["blocks.*.attention.decay1"] + parts["blocks.*.attention.decay2"] == terms["gk"]


def test_four_blocks_scan_rows_and_columns_forwards_and_backwards() -> None:
    # blocks that only look: at each token's number, given to it as its position
    model = create("DiG-S/2", latent_size=(4, 6)).eval()
    seen: list[list[int]] = []

    class Looks(nn.Module):
        def forward(self, x: Tensor, c: Tensor) -> Tensor:
            seen.append(x[0, ..., 0].flatten().int().tolist())
            return x

    model.blocks = nn.ModuleList(Looks() for _ in range(5))
    model.positions = nn.Parameter(torch.arange(6.0).view(1, 6, 1).expand(1, 6, 384).contiguous())
    with torch.no_grad():
        model.embed.weight.zero_()
        model(torch.zeros(1, 4, 4, 6), torch.zeros(1), torch.zeros(1, dtype=torch.int64))
    rows, columns = [0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5]
    assert seen == [rows, rows[::-1], columns, columns[::-1], rows]


def test_depthwise_convolutions_start_as_the_identity_and_attention_with_a_small_gain() -> None:
    model = create("DiG-S/2", latent_size=8)
    for block in model.blocks:
        assert isinstance(block, Block)
        x = torch.randn(1, 384, 3, 5)
        with torch.no_grad():
            assert torch.equal(block.depthwise(x), x)
        bound = 2**-2.5 * (6 / (384 + 384)) ** 0.5
        assert 0.9 * bound < block.attention.v.weight.abs().max() <= bound
        assert not block.attention.decay2.bias.any()
        assert (block.attention.norm.weight == 1).all()


def test_a_back_end_by_name_is_the_same_network() -> None:
    plain, named = (create(name, latent_size=8).eval() for name in ("DiG-S/2", "dig-s/2@TORCH"))
    randomise_zeros(plain)
    named.load_state_dict(plain.state_dict())
    args = counters.inputs(Task(8), 1, "cpu")
    with torch.no_grad():
        assert torch.equal(plain(*args), named(*args))
    assert printed("dig-xl/2@FLA") == "DiG-XL/2@fla"
    assert family_of("DiG-XL/2@fla") == "DiG"
    assert task_at("DiG-XL/2@torch", 256, 256) == Task()
    assert names("DiG-*") == ["DiG-S/2", "DiG-B/2", "DiG-L/2", "DiG-XL/2"]


def test_a_back_end_that_is_not_there_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"^DiG-S/2@fla: backend: fla cannot run: .*; torch would work$"):
        build("DiG-S/2@fla", Task())


def test_a_depth_that_does_not_end_in_the_first_order_is_refused() -> None:
    with pytest.raises(ValueError, match="depth: must be a multiple of 4, one block a direction, got 6"):
        DiG(Config(width=128, depth=6), Task(8))


def test_compiles_as_one_graph_with_gradients() -> None:
    model = DiG(Config(width=128, depth=4), Task((4, 6))).eval()
    randomise_zeros(model)
    args = counters.inputs(Task((4, 6)), 2, "cpu")
    model(*args).square().mean().backward()
    plain = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    torch.compile(model, fullgraph=True, backend="aot_eager")(*args).square().mean().backward()
    for name, grad in plain.items():
        torch.testing.assert_close(model.get_parameter(name).grad, grad)
