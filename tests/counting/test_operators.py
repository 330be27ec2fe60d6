"""Operator costs: bytes against arithmetic by hand, kinds, MACs against the counters, and the profile."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import roofline
from bench.analysis.rooflines.roofline import KINDS
from bench.counting import counters, kernels
from bench.counting.paths import folded_paths
from bench.jobs import worker
from bench.measure import profiler
from bench.records.base import Skipped
from bench.records.operators import OperatorCost, OperatorCosts
from bench.records.profile import Profile, ProfileCase
from bench.store.codec import read
from models import Task, create
from models.registry import task_at
from tests.commands import run
from tests.records.examples import ENVIRONMENT, PROFILE

N, C, H, W = 2, 4, 6, 8
TASK = Task((H, W), in_channels=C)
PIXELS = N * H * W  # 96


class Only(nn.Module):
    """A network of one function of x and one layer."""

    def __init__(self, layer: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = layer
        self.call = call

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.call(self.layer, x)


def parts(
    layer: nn.Module,
    call: Callable[[Any, Tensor], Tensor] = lambda layer, x: layer(x),
    precision: str = "fp32",
    work: str = "inference",
) -> tuple[OperatorCost, ...]:
    model = Only(layer.to("meta"), call)
    return kernels.trace(model, TASK, N, precision, work)


def only(found: tuple[OperatorCost, ...]) -> OperatorCost:
    (part,) = found
    return part


@pytest.mark.parametrize(("precision", "size"), [("fp32", 4), ("tf32", 4), ("bf16", 2), ("fp16", 2)])
def test_a_linear_layer_reads_its_operands_and_writes_its_output(precision: str, size: int) -> None:
    part = only(parts(nn.Linear(W, 16), precision=precision))
    rows = N * C * H
    assert (part.kind, part.op, part.module, part.phase) == ("linear", "addmm", "layer", "forward")
    assert (part.calls, part.macs) == (1, rows * W * 16)
    assert part.eager_bytes == part.fused_bytes == size * (rows * W + W * 16 + 16 + rows * 16)


def test_a_depthwise_convolution_is_one_kernel_with_its_bias() -> None:
    part = only(parts(nn.Conv2d(C, C, 3, padding=1, groups=C)))
    assert (part.kind, part.calls, part.macs) == ("depthwise", 1, PIXELS * C * 9)
    assert part.eager_bytes == part.fused_bytes == 4 * (2 * PIXELS * C + 9 * C + C)


@pytest.mark.parametrize(("side", "kind"), [(1, "pointwise"), (3, "convolution")])
def test_the_bias_of_other_convolutions_is_a_kernel_of_its_own(side: int, kind: str) -> None:
    bare = only(parts(nn.Conv2d(C, 12, side, padding=side // 2, bias=False)))
    biased = only(parts(nn.Conv2d(C, 12, side, padding=side // 2)))
    moved = 4 * (PIXELS * C + 12 * C * side**2 + PIXELS * 12)
    assert (bare.kind, bare.calls, bare.eager_bytes, bare.fused_bytes) == (kind, 1, moved, moved)
    assert (biased.kind, biased.calls) == (kind, 2)
    assert biased.eager_bytes == moved + 4 * 12 + 2 * 4 * PIXELS * 12
    assert biased.fused_bytes == moved + 4 * 12


def test_a_norm_copies_strided_rows_first() -> None:
    norm = nn.LayerNorm(W, elementwise_affine=False)
    rows = N * C * H
    whole = only(parts(norm))
    assert (whole.kind, whole.macs, whole.calls) == ("norm", 0, 1)
    assert whole.eager_bytes == 4 * (2 * rows * W + 2 * rows)  # mean and deviation of every row
    assert whole.fused_bytes == 0

    channels = nn.LayerNorm(C, elementwise_affine=False)
    strided = only(parts(channels, lambda layer, x: layer(x.permute(0, 2, 3, 1))))
    assert strided.calls == 2
    assert strided.eager_bytes == 4 * (4 * PIXELS * C + 2 * PIXELS)


def test_a_group_norm_passes_over_its_input_twice() -> None:
    part = only(parts(nn.GroupNorm(2, C, affine=False)))
    assert (part.kind, part.calls) == ("norm", 2)
    assert part.eager_bytes == 4 * (3 * PIXELS * C + 2 * N * 2)


def test_an_expanded_tensor_is_read_once() -> None:
    part = only(parts(nn.Identity(), lambda _, x: x + x[:1, :1].expand_as(x)))
    assert (part.kind, part.eager_bytes) == ("elementwise", 4 * (2 * PIXELS * C + H * W))


def test_views_are_free_and_a_copy_reads_and_writes() -> None:
    assert parts(nn.Identity(), lambda _, x: x.permute(0, 2, 3, 1).unsqueeze(0)[0]) == ()
    part = only(parts(nn.Identity(), lambda _, x: x.permute(0, 2, 3, 1).contiguous()))
    assert (part.kind, part.op, part.eager_bytes) == ("movement", "clone", 4 * 2 * PIXELS * C)


def test_an_embedding_reads_the_rows_that_it_looks_up() -> None:
    class LooksUp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(1000, 16)

        def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            return self.table(y)

    part = only(kernels.trace(LooksUp().to("meta"), TASK, N, "fp32", "inference"))
    assert (part.kind, part.eager_bytes) == ("movement", 4 * 2 * N * 16 + 8 * N)


def test_a_fused_product_reads_the_residual_it_is_added_to() -> None:
    layer = nn.Conv2d(C, C, 1)
    product = 4 * (2 * PIXELS * C + C * C + C)

    def fused(call: Callable[[Any, Tensor], Tensor]) -> int:
        return sum(part.fused_bytes for part in parts(layer, call))

    assert fused(lambda layer, x: F.gelu(layer(x)) * 2) == product
    assert fused(lambda layer, x: x + F.gelu(layer(x))) == product + 4 * PIXELS * C
    # a tensor used twice is read once; values derived from the product itself are not read
    assert fused(lambda layer, x: (x + layer(x)) * x) == product + 4 * PIXELS * C
    assert fused(lambda layer, x: (h := layer(x)) * h.mean((2, 3), keepdim=True)) == product
    # a norm and a copy of the input are fused, too, and the product reads their result
    assert fused(lambda layer, x: layer(F.layer_norm(x, (W,)).contiguous())) == product


def test_a_fused_skip_is_read_once_more() -> None:
    both = nn.ModuleList([nn.Conv2d(C, C, 1, bias=False), nn.Conv2d(C, C, 1, bias=False)])
    found = parts(both, lambda both, x: (h := both[0](x)) + both[1](h).tanh())
    product, image = 4 * (2 * PIXELS * C + C * C), 4 * PIXELS * C
    assert sum(part.fused_bytes for part in found) == 2 * product + image
    assert {part.module for part in found if part.kind == "pointwise"} == {"layer.*"}


def attend(_: nn.Module, x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, x, x)


@pytest.mark.parametrize(("precision", "size"), [("fp32", 4), ("bf16", 2)])
def test_attention_is_one_kernel_that_writes_no_scores(precision: str, size: int) -> None:
    part = only(parts(nn.Identity(), attend, precision))
    assert (part.kind, part.calls, part.macs) == ("attention", 1, 2 * N * C * H * H * W)
    assert part.eager_bytes == part.fused_bytes == size * 4 * N * C * H * W


def test_unfused_attention_moves_its_scores() -> None:
    found = parts(nn.Identity(), lambda _, x: (x @ x.mT).softmax(-1) @ x)
    image, scores = 4 * N * C * H * W, 4 * N * C * H * H
    assert {part.kind for part in found} == {"attention"}
    assert sum(part.eager_bytes for part in found) == (2 * image + scores) + 2 * scores + (scores + 2 * image)
    assert sum(part.fused_bytes for part in found) == 2 * (2 * image + scores)


def test_a_batched_product_with_weights_is_linear() -> None:
    frozen = nn.Linear(W, 16).requires_grad_(
        False
    )  # for these torch repeats the weights instead of copying x
    found = parts(frozen, lambda layer, x: layer(x.transpose(1, 2)))
    assert [part.op for part in found if part.macs] == ["bmm"]
    assert {part.kind for part in found if part.macs} == {"linear"}


@pytest.mark.parametrize(
    ("op", "weight", "channels", "kind"),
    [
        ("convolution", (8, 1, 7, 7), 8, "depthwise"),
        ("convolution", (8, 1, 4), 8, "depthwise"),
        ("convolution", (8, 1, 3, 3), 1, "convolution"),
        ("convolution", (8, 2, 3, 3), 8, "convolution"),
        ("convolution", (16, 8, 1, 1), 8, "pointwise"),
        ("convolution", (16, 4, 2, 2), 4, "convolution"),
        ("convolution_backward", (8, 1, 7, 7), 8, "depthwise"),
        ("addmm", (), 0, "linear"),
        ("_scaled_dot_product_flash_attention_backward", (), 0, "attention"),
        ("neighbourhood_attention", (), 0, "attention"),
        ("selective_scan", (), 0, "scan"),
        ("gla_backward", (), 0, "scan"),
        ("native_layer_norm_backward", (), 0, "norm"),
        ("linalg_vector_norm", (), 0, "norm"),
        ("addcmul", (), 0, "elementwise"),
        ("mean", (), 0, "elementwise"),
        ("cat", (), 0, "movement"),
        ("pixel_shuffle", (), 0, "movement"),
    ],
)
def test_operators_are_of_one_kind(op: str, weight: tuple[int, ...], channels: int, kind: str) -> None:
    assert kind in KINDS
    assert kernels.kind_of(op, weight, channels) == kind


def built(name: str) -> tuple[nn.Module, Task]:
    task = task_at(name, 256, 256)
    with torch.device("meta"):
        return create(name, task).eval(), task


def test_macs_equal_those_of_the_counters(smallest: str) -> None:
    model, task = built(smallest)
    forward = kernels.trace(model, task, 2, "bf16", "inference")
    assert sum(part.macs for part in forward) == counters.count_forward(model, task, batch=2).macs
    both = kernels.trace(model, task, 2, "bf16", "training")
    assert sum(part.macs for part in both) == counters.count_step(model, task, batch=2).train_macs
    assert {part.phase for part in forward} == {"forward"}
    assert {part.phase for part in both} == {"forward", "backward"}
    assert {part.kind for part in both} <= set(KINDS)
    assert not [part for part in both if any(name.isdigit() for name in part.module.split("."))]
    assert 0 < sum(part.fused_bytes for part in forward) < sum(part.eager_bytes for part in forward)


def test_tracing_leaves_the_model_as_it_was() -> None:
    model, task = built("DiT-S/2")
    first = kernels.trace(model, task, 1, "bf16", "training")
    kernels.trace(model, task, 1, "bf16", "inference")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(p.grad is None for p in model.parameters())
    assert kernels.trace(model, task, 1, "bf16", "training") == first


def test_numbered_keys_of_a_dict_are_one_path() -> None:
    model, task = built("EDM2-Ti")
    modules = {part.module for part in kernels.trace(model, task, 1, "fp32", "inference")}
    blocks = {".".join(name.split(".")[1:3]) for name in modules}
    assert {"encoder.*x*_block*", "encoder.*x*_down", "decoder.*x*_block*", "decoder.*x*_up"} <= blocks
    assert sum(name.endswith("_in*") for name in blocks) == 1  # two at one level
    assert sum(name.endswith("_conv") for name in blocks) == 1  # alone
    by_module = counters.count_forward(model, task, by_module=True).by_module
    assert {name for name, macs in by_module.items() if macs} <= modules
    two = nn.Module()
    two.fc1, two.fc2 = nn.Linear(1, 1), nn.Linear(1, 1)
    two.blocks = nn.ModuleList([nn.ModuleDict({"a1": nn.Linear(1, 1), "b1": nn.Linear(1, 1)})])
    assert [*folded_paths(two).values()] == [
        "(itself)",
        "fc1",
        "fc2",
        "blocks",
        "blocks.*",
        "blocks.*.a1",
        "blocks.*.b1",
    ]


def test_a_backward_pass_has_the_modules_of_the_forward_pass() -> None:
    model, task = built("FCDM-S")
    found = kernels.trace(model, task, 1, "fp32", "training")

    def macs(phase: str) -> dict[str, int]:
        modules: dict[str, int] = {}
        for part in found:
            if part.phase == phase and part.macs:
                modules[part.module] = modules.get(part.module, 0) + part.macs
        return modules

    forward, backward = macs("forward"), macs("backward")
    assert backward.pop("stem") == forward.pop("stem")  # x needs no gradient
    for number in (1, 2, 3):  # nor do the features of the timesteps
        name = f"condition{number}.time1"
        assert backward.pop(name) == forward.pop(name)
    assert backward == {name: 2 * macs for name, macs in forward.items()}


def test_the_gradients_of_a_convolution_are_a_kernel_each() -> None:
    both = nn.Sequential(nn.Conv2d(C, C, 1, bias=False), nn.Conv2d(C, 12, 3, padding=1))
    found = [part for part in parts(both, work="training") if part.op == "convolution_backward"]
    x, w, out = 4 * PIXELS * C, 4 * 12 * C * 9, 4 * PIXELS * 12
    first, second = (
        next(part for part in found if part.kind == kind) for kind in ("pointwise", "convolution")
    )
    assert (first.calls, first.eager_bytes) == (1, 2 * x + 4 * C * C)  # of the weight alone
    assert second.calls == 3
    assert second.eager_bytes == (out + w + x) + (out + x + w) + (out + 4 * 12)


def test_autocast_halves_the_bytes_of_products_and_casts() -> None:
    layer = nn.Linear(W, W)
    full, half = (parts(layer, precision=precision, work="training") for precision in ("fp32", "bf16"))
    products = [[part for part in found if part.macs] for found in (full, half)]
    assert sum(p.eager_bytes for p in products[0]) == 2 * sum(p.eager_bytes for p in products[1])
    assert not [part for part in full if part.op == "_to_copy"]
    assert [part for part in half if part.op == "_to_copy" and part.kind == "movement"]


# the profile


@dataclass
class Seen:
    """An event of torch.profiler."""

    name: str
    cpu_parent: "Seen | None" = None
    input_shapes: list[list[int]] = field(default_factory=list)
    device_type: Any = field(default_factory=lambda: SimpleNamespace(name="CPU"))
    is_user_annotation: bool = False
    self_cpu_time_total: float = 0.0
    self_device_time_total: float = 0.0
    device_time_total: float = 0.0


CUDA = SimpleNamespace(name="CUDA")


CONV = [[2, 8, 4, 4], [8, 1, 3, 3], [8], [], [], [], []]


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (Seen("aten::copy_", Seen("aten::addmm", Seen("aten::linear"))), "linear"),
        (Seen("aten::bmm", Seen("aten::matmul")), "attention"),
        (Seen("aten::bmm", Seen("aten::matmul", Seen("aten::linear"))), "linear"),
        (Seen("aten::mkldnn_convolution", Seen("aten::conv2d", None, CONV)), "depthwise"),
        (
            Seen("aten::native_layer_norm", Seen("aten::layer_norm", Seen("bench pass"))),
            "norm",
        ),
        (Seen("aten::mul", Seen("aten::scaled_dot_product_attention")), "attention"),
        (Seen("aten::addcmul_", Seen("backbones::selective_scan")), "scan"),
        (Seen("aten::copy_", Seen("aten::clone", Seen("aten::reshape"))), "movement"),
        (Seen("aten::gelu"), "elementwise"),
        (Seen("aten::view"), None),
        (Seen("aten::reshape"), None),
        (Seen("cudaLaunchKernel"), None),
    ],
)
def test_time_belongs_to_the_outermost_operator_of_a_kind(event: Seen, kind: str | None) -> None:
    assert profiler.kind(event) == kind


def test_self_times_add_up_by_kind() -> None:
    conv = Seen("aten::conv2d", None, CONV)
    times = [
        (conv, 2.0),
        (Seen("aten::empty", conv), 1.0),
        (Seen("aten::view"), 7.0),
        (Seen("aten::add"), 4.0),
    ]
    assert profiler.seconds_by_kind(times) == {"depthwise": 3e-6, "elementwise": 4e-6}


def test_time_counts_for_the_innermost_module() -> None:
    block = Seen("module blocks.*", Seen("module (itself)"))
    linear = Seen("aten::linear", Seen("module blocks.*.proj", block))
    times = [
        (Seen("aten::addmm", linear), 2.0),
        (Seen("aten::mul", block), 3.0),
        (block, 100.0),  # Python in between
        (Seen("aten::view", block), 7.0),
        (Seen("aten::add"), 50.0),
    ]
    assert profiler.seconds_by_module(times) == {"blocks.*.proj": 2e-6, "blocks.*": 3e-6}


def test_on_cuda_seconds_are_those_of_kernels() -> None:
    events = [
        Seen("aten::add", self_cpu_time_total=9.0, self_device_time_total=4.0),
        Seen("cudaLaunchKernel", self_cpu_time_total=9.0),
        Seen("add_kernel", device_type=CUDA, device_time_total=4.0),
        Seen("unknown_kernel", device_type=CUDA, device_time_total=2.0),
        Seen("module blocks", device_type=CUDA, device_time_total=6.0, is_user_annotation=True),
    ]
    found = profiler.seconds_of(events, 1.0, cuda=True, by_module=False)
    assert found == pytest.approx({"elementwise": 4e-6, "other": 2e-6})
    on_host = profiler.seconds_of(events[:2], 1.0, cuda=False, by_module=False)
    assert on_host == pytest.approx({"elementwise": 9e-6, "other": 1 - 9e-6})


def test_a_part_that_one_pass_lacks_took_no_time_in_it() -> None:
    profiled = profiler.record_of(
        PROFILE.case, ENVIRONMENT, [({"linear": 1.0, "other": 0.5}, 2.0), ({"other": 1.0}, 3.0)]
    )
    assert isinstance(profiled, Profile)
    assert profiled.seconds == (("linear", (1.0, 0.0)), ("other", (0.5, 1.0)))
    assert profiled.wall_s == (2.0, 3.0)


def test_a_profile_without_kernels_is_skipped() -> None:
    nothing = profiler.seconds_of([Seen("aten::add")], 1.0, cuda=True, by_module=False)
    skipped = profiler.record_of(
        PROFILE.case, ENVIRONMENT, [({"linear": 1.0, "other": 0.0}, 1.0), (nothing, 1.0)]
    )
    assert isinstance(skipped, Skipped)
    assert (skipped.status, skipped.reason) == ("not timed", "the profiler saw no kernels")


def disturbed(case: ProfileCase) -> Profile:
    """The profile of a busy machine."""
    return Profile(
        case=case,
        environment=ENVIRONMENT,
        seconds=(("convolution", (0.1, 0.1, 0.3)), ("other", (0.1, 0.1, 0.1))),
        wall_s=(0.2, 0.2, 0.4),
    )


TINY = ("--model", "tests.tiny:Tiny", "--batch", "2", "--res", "64", "--device-peaks", "none")
PROFILED = ("--profile", "--device", "cpu")


def test_every_row_of_a_disturbed_profile_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        worker, "run", lambda _, case, now, *__, **___: replace(disturbed(case), environment=now)
    )
    assert run(roofline.main, *TINY, *PROFILED) == 0
    printed = capsys.readouterr()
    header, _, *lines = printed.out.splitlines()
    assert header.endswith("spread, %  noise")
    assert all(line.endswith("passes differ by 100 %") for line in lines)
    assert "median of 3 passes, spread 100 %; DISTURBED: passes differ by 100 %" in printed.err
    assert run(roofline.main, *TINY, *PROFILED, "--format", "json") == 0
    rows = {row["part"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["convolution"]["seconds_share"] == 0.5
    assert rows["convolution"]["seconds_of_passes"] == [0.1, 0.1, 0.3]
    assert rows["linear"]["seconds_spread"] is None
    assert rows["all"]["seconds_spread"] == pytest.approx(1)


def test_a_profile_by_module_has_the_names_of_the_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "a.jsonl"
    asked = ["--model", "FCDM-Ti", "--batch", "1", "--res", "64", "--device-peaks", "none", *PROFILED]
    assert run(roofline.main, *asked, "--by", "module", "--format", "json", "--out", str(store)) == 0
    rows = {row["part"]: row for row in json.loads(capsys.readouterr().out)}
    timed = {name for name, row in rows.items() if row["seconds"]}
    assert {name for name, row in rows.items() if row["macs"]} <= timed
    (profiled,) = (record for record in read(store).records if isinstance(record, Profile))
    assert timed == {*profiled.medians, "all"}
    assert profiled.whole_s == pytest.approx(profiled.wall_s)


def test_a_profile_is_shown_with_the_costs_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "a.jsonl"
    assert run(roofline.main, *TINY, *PROFILED, "--format", "json", "--out", str(store)) == 0
    rows = json.loads(capsys.readouterr().out)
    whole = rows[-1]
    assert whole["part"] == "all"
    for key in ("calls", "macs", "eager_bytes", "fused_bytes", "seconds"):
        assert whole[key] == pytest.approx(sum(row[key] for row in rows[:-1]))
    assert {row["part"] for row in rows} >= {"convolution", "linear", "other"}
    kept = {type(record): record for record in read(store).records}
    profiled, costs = kept[Profile], kept[OperatorCosts]
    assert isinstance(profiled, Profile)
    assert isinstance(costs, OperatorCosts)
    assert profiled.whole_s == pytest.approx(profiled.wall_s)
    assert whole["seconds_of_passes"] == list(profiled.whole_s)
    assert profiled.passes == profiler.PASSES
    assert min(profiled.samples["convolution"]) > 0
    assert costs.macs == whole["macs"]


def test_a_profile_that_failed_is_a_note(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def skipped(case: ProfileCase) -> Skipped:
        return Skipped(case=case, environment=ENVIRONMENT, status="out of memory", reason="no room")

    monkeypatch.setattr(worker, "run", lambda _, case, *__, **___: skipped(case))
    assert run(roofline.main, *TINY, *PROFILED) == 0
    printed = capsys.readouterr()
    assert "not profiled: by kind tests.tiny:Tiny 64 px, batch 2, fp32: out of memory: no room" in printed.err
    assert "ms profiled" not in printed.out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--by", "op"], "--profile: goes with --by kind or module and --work inference, got --by op"),
        (["--work", "training"], "--work training"),
        (["--precision", "tf32"], "--precision tf32: only a CUDA device has it"),
    ],
)
def test_a_profile_of_what_cannot_be_is_refused(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(roofline.main, *TINY, *PROFILED, *args) == 2
    assert message in capsys.readouterr().err
