"""ADM and LDM-4: golden outputs, MACs by every counter, the parts of ADM-U, the effect of the label."""

from dataclasses import replace
from functools import cache, partial

import pytest
import torch
from torch import Tensor, nn

from baselines import load
from bench.counting import closed_form, counters
from bench.counting.dispatch import CountingMode
from bench.counting.rules import TORCH_RULES
from bench.measure import golden_calls
from models import Task, create
from models.adm import PAIRS, Attention, with_low_res
from models.registry import published_task
from models.weights import randomise_zeros

COUNTS = load.macs_unets()
SIDES = {model: int(size.split("x")[1]) for model, size, _ in COUNTS if model not in PAIRS}


@pytest.mark.parametrize("name", ["ADM-up-64-256", "LDM-4"])
def test_output_equals_that_of_the_released_code(name: str) -> None:
    golden = golden_calls.read(name)
    model = golden_calls.build(name, golden)

    def error(which: str) -> float:
        with torch.no_grad():  # the last image: images do not depend on each other
            out = model(*(values[-1:] for values in golden_calls.inputs(golden)))
        return golden_calls.error(out, torch.from_numpy(golden.outputs[which][-1:]))

    # float32 arithmetic accounts for 2e-6; a wrong eps would show as 1e-4 here
    assert error("out") < 1e-5
    golden_calls.sharpen(model, golden)
    # attention nearly uniform above is sharp here: exchanged queries and keys would show as 0.6
    assert error("out_n") < 1e-5


@cache
def counted(name: str, counter: str) -> tuple[int, counters.Count]:
    """Parameters, and the MACs of the side a model was published for."""
    task = replace(published_task(name), latent_size=SIDES[name])
    with torch.device("meta"):
        model = create(name, task)
    return sum(p.numel() for p in model.parameters()), counters.count_forward(model, task, counter=counter)


def macs(name: str, counter: str) -> int:
    """The counts of a row of the reference, by our own counters."""
    if counter == "torch":
        return counted(name, "torch")[1].macs
    terms = counted(name, "torchprofile-meta")[1]
    if counter == "torchprofile terms":
        # the released upsamplers resize the small image themselves: four MACs an element of it
        task = published_task(name)
        return terms.macs + 4 * task.given_channels * SIDES[name] ** 2
    assert counter == "torch + group norms"
    return counted(name, "torch")[1].macs + terms.by_op["native_group_norm"]


ADM_ROWS = [row for row in COUNTS if row[0].startswith("ADM-") and row[2] != "torchprofile"]


@pytest.mark.parametrize(("name", "size", "counter"), [row for row in ADM_ROWS if row[0] not in PAIRS])
def test_adm_macs_equal_the_release_exactly(name: str, size: str, counter: str) -> None:
    params = counted(name, "torch")[0]
    assert (params, macs(name, counter)) == COUNTS[name, size, counter]


@pytest.mark.parametrize(("name", "size", "counter"), [row for row in ADM_ROWS if row[0] in PAIRS])
def test_published_adm_u_is_a_base_and_an_upsampler(name: str, size: str, counter: str) -> None:
    params = sum(counted(part, "torch")[0] for part in PAIRS[name])
    total = sum(macs(part, counter) for part in PAIRS[name])
    assert (params, total) == COUNTS[name, size, counter]
    task = published_task(name)
    both = closed_form.count(name, task)
    assert both is not None
    if counter == "torch":
        assert (both.torch.total(), task.res) == (total, SIDES[PAIRS[name][1]])
    elif counter == "torchprofile terms":
        assert both.torch.total() + both.torchprofile.total() == total
    if counter == "torch + group norms":
        rows = load.table({"ADM-U-256": "dico_table08", "ADM-U-512": "dico_table09"}[name]).rows
        (row,) = (row for row in rows if row["model"].as_printed == "ADM-U")
        assert f"{total / 1e9:.0f}" == row["gflops"].as_printed
        rounded = sum(round(counted(part, "torch")[0] / 1e6) for part in PAIRS[name])
        assert f"{rounded}M" == row["params_as_printed"].as_printed


def test_a_trace_of_adm_also_counts_three_numbers_an_attention() -> None:
    # products of sizes that the released attention computes, one MAC each: an inference from the remainder
    count = counted("ADM-64", "torchprofile-meta")[1]
    attentions = len([m for m in create_meta("ADM-64").modules() if isinstance(m, Attention)])
    assert count.macs + 3 * attentions == COUNTS["ADM-64", "3x64x64", "torchprofile"][1]


def create_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return create(name)


# (tokens, width, transformers) of LDM-4's levels at 256 pixels, the middle with the last
LDM_LEVELS = ((1024, 384, 5), (256, 576, 5), (64, 960, 6))


def test_ldm_macs_equal_the_release_except_for_its_einsums() -> None:
    params, count = counted("LDM-4", "torch")
    # The release weights the values by an einsum that sums over the context tokens. There is one of them,
    # so torch makes a product of elements of it, which its counter passes over. Ours is a matrix product.
    values_of_context = sum(tokens * width * blocks for tokens, width, blocks in LDM_LEVELS)
    assert (params, count.macs - values_of_context) == COUNTS["LDM-4", "3x64x64", "torch"]


def test_torchprofile_counts_the_scaling_of_unfused_attention() -> None:
    params, count = counted("LDM-4", "torchprofile-meta")
    # one product for each query and key, in attention to the tokens and to the context of one
    scalings = sum(tokens * (tokens + 1) * blocks for tokens, _, blocks in LDM_LEVELS)
    transformers = sum(blocks for *_, blocks in LDM_LEVELS)
    # the rest divides evenly: products of sizes, as in ADM; an inference
    assert (params, count.macs + scalings + 34 * transformers) == COUNTS["LDM-4", "3x64x64", "torchprofile"]


def test_einsum_over_one_key_is_not_counted_by_torch() -> None:
    counted = CountingMode(TORCH_RULES)
    with counted:
        torch.einsum("nts,nsd->ntd", torch.empty(1, 8, 1, device="meta"), torch.empty(1, 1, 4, device="meta"))
    assert counted.total == 0


def test_average_pooling_costs_one_mac_per_output() -> None:
    pytest.importorskip("torchprofile")

    class Pool(nn.Module):
        def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            return torch.nn.functional.avg_pool2d(x, 2)

    for counter in ("torchprofile", "torchprofile-meta"):
        assert counters.count_forward(Pool(), Task(8), counter=counter).macs == 4 * 4 * 4


def test_both_orders_of_qkv_give_equal_attention() -> None:
    heads, width = 2, 64
    grouped, ungrouped = Attention(width, heads, by_head=True), Attention(width, heads, by_head=False)
    state = grouped.state_dict()
    for key in ("qkv.weight", "qkv.bias"):
        state[key] = state[key].unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)
    ungrouped.load_state_dict(state)
    x = torch.randn(2, width, 4, 6)
    torch.testing.assert_close(ungrouped(x, x), grouped(x, x))


def test_an_upsampler_predicts_only_the_channels_that_are_noise() -> None:
    task = published_task("ADM-up-64-256")
    assert (task.in_channels, task.given_channels, task.out_channels) == (6, 3, 6)
    assert replace(task, learn_sigma=False).out_channels == 3
    x = with_low_res(torch.zeros(2, 3, 8, 8), torch.arange(4.0).view(1, 1, 2, 2).expand(2, 3, 2, 2))
    assert x.shape == (2, 6, 8, 8)
    assert not x[:, :3].any()
    assert x[0, 3, 0].tolist() == [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]  # half-pixel centres


@pytest.mark.parametrize("given", [-1, 3])
def test_a_task_without_a_channel_to_predict_is_refused(given: int) -> None:
    with pytest.raises(ValueError, match="given_channels: must be from 0 to below the 3 in_channels"):
        Task(in_channels=3, given_channels=given)


def test_tasks_are_those_of_the_papers_at_their_resolutions() -> None:
    assert {name: published_task(name) for name in ("ADM-64", "ADM-up-128-512", "LDM-4")} == {
        "ADM-64": Task(64, 3, factor=1),
        "ADM-up-128-512": Task(512, 6, given_channels=3, factor=1),
        "LDM-4": Task(64, 3, learn_sigma=False, factor=4),
    }
    assert {name: published_task(name).height for name in SIDES} == SIDES


def narrow(name: str) -> tuple[nn.Module, partial[Tensor]]:
    model = create(name, latent_size=8)
    randomise_zeros(model)
    return model, partial(model, torch.randn(2, 4, 8, 8), torch.tensor([3, 977]))


def test_dropout_acts_in_training_only() -> None:
    model, call = narrow("tests.narrow:adm")
    y = torch.tensor([1, 7])
    assert torch.equal(model.eval()(*call.args, y), call(y))
    model.train()
    assert not torch.equal(call(y), call(y))


def test_ldm_label_acts_through_attention_values_only() -> None:
    model, call = narrow("tests.narrow:ldm")
    model.eval()
    y = torch.tensor([1, 7])
    with torch.no_grad():
        before = call(y)
        for key, parameter in model.named_parameters():
            if "norm_context" in key or "attend_context.query" in key or "attend_context.key" in key:
                parameter.normal_()
        torch.testing.assert_close(call(y), before)
        for key, parameter in model.named_parameters():
            if "attend_context.value" in key:
                parameter.normal_()
        assert (call(y) - before).abs().max() > 1e-2


def test_ldm_has_a_null_class_and_adm_has_none() -> None:
    assert create_meta("LDM-4").labels.num_embeddings == 1001
    assert create_meta("ADM-64").labels.num_embeddings == 1000
