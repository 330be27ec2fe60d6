"""LightningDiT, DDT, MPDiT and JiT: counts of their releases, rotations, levels and label tokens."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from baselines import load
from bench.counting import closed_form
from models import Task, create
from models.checkpointing import blocks
from models.ddt import DDT
from models.ddt import Config as DDTConfig
from models.jit import Config as JiTConfig
from models.jit import JiT
from models.layers.rms_transformer import attend_in_float32
from models.layers.rotary import grid_angles, paired, spread_angles, turn, turn_complex
from models.registry import printed, published_task
from models.weights import randomise_zeros

FAMILIES = ("LightningDiT", "DDT", "ImprovedDiT", "MPDiT", "MPDiTv2", "JiT")
COUNTS = {row: counts for row, counts in load.macs_2026().items() if row[0].split("-")[0] in FAMILIES}


def test_formulas_give_the_counts_of_the_releases() -> None:
    found = {}
    for name, latent in COUNTS:
        terms = closed_form.count(name, replace(published_task(name), latent_size=latent))
        assert terms is not None
        found[name, latent] = (terms.torch.total() + terms.torchprofile.total(), terms.torch.total())
    assert found == {row: counts[1:] for row, counts in COUNTS.items()}
    assert len(found) == 18 + 6 + 6 + 6 + 6 + 12


def test_networks_state_what_they_were_published_for() -> None:
    tasks = {name: published_task(name) for name, _ in COUNTS}
    assert tasks["LightningDiT-XL/1"].space == "f16d32"
    assert tasks["LightningDiT-XL/2"].space == tasks["DDT-XL/2"].space == "sd-f8"
    assert {name: task.res for name, task in tasks.items() if task.res != 256} == {
        f"JiT-{size}/32": 512 for size in "BLH"
    }
    assert {task.prediction for name, task in tasks.items() if name.startswith("JiT")} == {"x"}
    assert {task.prediction for name, task in tasks.items() if "MP" in name} == {"reverse-velocity"}
    assert printed("ddt-xl/2-22en6de") == "DDT-XL/2"


def test_rotations_turn_adjacent_pairs_by_their_angle() -> None:
    x, angles = torch.randn(2, 3, 6, 8), grid_angles(2, 3, 8)
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    wanted = torch.view_as_real(pairs * torch.polar(torch.ones(6, 4), angles)).flatten(-2)
    twice = paired(partial(grid_angles, 2, 3, 8))
    torch.testing.assert_close(turn(x, twice.cos(), twice.sin()), wanted)
    torch.testing.assert_close(turn_complex(x, angles.cos(), angles.sin()), wanted)
    assert turn_complex(x.bfloat16(), angles.cos(), angles.sin()).dtype == torch.bfloat16


def test_angles_of_the_grid_are_rows_then_columns() -> None:
    angles = grid_angles(3, 5, 8)[2 * 5 + 4]  # row 2, column 4
    torch.testing.assert_close(angles, torch.tensor([2.0, 0.02, 4.0, 0.04]))
    assert not paired(partial(grid_angles, 3, 5, 8), first=2)[:2].any()


def test_spread_angles_reach_16_on_every_grid_and_alternate() -> None:
    for side in (2, 16):
        corner = spread_angles(side, side, 8)[side - 1]  # first row, last column
        torch.testing.assert_close(corner, torch.tensor([16.0, 0.0, 0.16, 0.0]))
    assert not spread_angles(1, 1, 8).any()


def filled(model: nn.Module) -> nn.Module:
    randomise_zeros(model)
    return model.eval()


def test_fused_attention_of_jit_gives_the_same_output() -> None:
    config = JiTConfig(width=48, depth=3, heads=2, patch=2, bottleneck=8, label_start=1, label_tokens=3)
    task = Task((4, 6), 3, 10, learn_sigma=False)
    steps = filled(JiT(config, task))
    fused = JiT(replace(config, fused=True), task).eval()
    fused.load_state_dict(steps.state_dict())
    args = torch.randn(2, 3, 4, 6), torch.tensor([0.2, 0.8]), torch.tensor([1, 7])
    with torch.no_grad():
        torch.testing.assert_close(fused(*args), steps(*args), atol=1e-5, rtol=1e-4)


def test_logits_stay_in_float32_under_autocast() -> None:
    q, k, v = 30 * torch.randn(1, 1, 4, 16), torch.randn(1, 1, 4, 16), torch.eye(4)[None, None]
    exact = attend_in_float32(q, k, v)
    with torch.autocast("cpu", torch.bfloat16):
        out = attend_in_float32(q, k, v)
    assert out.dtype == torch.bfloat16
    # logits of 30 in bf16 would be wrong by 0.1, and weights by a tenth
    torch.testing.assert_close(out.float(), exact, atol=0.005, rtol=0.01)


def test_decoder_of_ddt_sees_the_encoder_for_every_token() -> None:
    model = filled(DDT(DDTConfig(width=48, encoder=1, decoder=1, heads=2), Task(8, learn_sigma=False)))
    seen: list[torch.Size] = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda _, args: seen.append(args[1].shape))
    with torch.no_grad():
        model(torch.randn(2, 4, 8, 8), torch.rand(2), torch.tensor([1, 7]))
    assert seen == [(2, 1, 48), (2, 16, 48)]


@pytest.mark.parametrize(("name", "depth"), [("MPDiT-XL/4x", 28), ("MPDiTv2-B", 12), ("DDT-L/2", 24)])
def test_blocks_of_all_levels_are_checkpointed(name: str, depth: int) -> None:
    with torch.device("meta"):
        assert len(blocks(create(name))) == depth
