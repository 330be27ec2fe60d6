"""Memory: live bytes, predictions, lines over the batch, the command, the report."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bench import memory
from bench.analysis.memory import memory_claims, memory_fit
from bench.analysis.memory.memory_fit import GIB, MIB
from bench.counting.cuda_dispatch import CudaRules, fused_attention
from bench.jobs import memory as memory_jobs
from bench.jobs import worker
from bench.machine import environment
from bench.measure.memory.live_bytes import CUDA_BLOCK_BYTES, LiveBytes
from bench.measure.memory.peak import measure, predict, training, use_of
from bench.measure.memory.sections import CounterMarks, cpu_allocator
from bench.records.base import Skipped
from bench.records.memory import TABLE, Memory, MemoryCase, MemoryUse
from bench.store.codec import from_dict, read, to_line
from bench.tables.render import render
from models.checkpointing import checkpointed
from models.contract import build
from models.registry import task_at
from reports.sections import memory as report
from tests.analysis import builders
from tests.analysis.builders import META, SIZED, USE
from tests.commands import run
from tests.conftest import UNREAD

KB = 1000  # a vector of 250 float32


def vector(size: int = 250) -> Tensor:
    return torch.empty(size, device="meta")


# live bytes


def test_freed_temporaries_peak_at_two_tensors() -> None:
    with LiveBytes() as live:
        x = vector()
        for _ in range(5):
            x = x.sin()
    assert live.live_bytes == KB
    assert live.peak_bytes == 2 * KB


def test_an_operation_in_place_takes_no_memory() -> None:
    with LiveBytes() as live:
        vector().sin_().add_(1)
    assert live.peak_bytes == KB
    assert live.live_bytes == 0


def test_a_storage_lives_as_long_as_its_last_view() -> None:
    with LiveBytes() as live:
        x = vector()
        part = x.view(25, 10).transpose(0, 1)[:3]
        assert live.live_bytes == KB
        del x
        assert live.live_bytes == KB
        del part
        assert live.live_bytes == 0


def test_earlier_tensors_count_once_used_or_followed() -> None:
    x, y = vector(), vector()
    with LiveBytes() as live:
        x.sin()
        assert live.live_bytes == KB
        live.follow([x, y])
        assert live.live_bytes == 2 * KB


def test_lists_of_results_count_each() -> None:
    with LiveBytes() as live:
        kept = torch._foreach_add([vector(), vector(500)], 1)
        assert live.live_bytes == 3 * KB
        assert len(kept) == 2


def test_storages_are_rounded_up_to_blocks() -> None:
    with LiveBytes(block_bytes=512) as live:
        kept = [vector(1), vector(128), vector(129)]
        assert live.live_bytes == 512 + 512 + 1024
        assert len(kept) == 3


def test_other_devices_are_left_out() -> None:
    with LiveBytes("meta") as live:
        torch.zeros(250)
    assert live.peak_bytes == 0


def test_linears_keep_their_inputs_until_the_backward_pass() -> None:
    width, batch, depth = 64, 512, 4
    weights = [torch.empty(width, width, device="meta", requires_grad=True) for _ in range(depth)]
    hidden, weight = 4 * batch * width, 4 * width * width
    with LiveBytes() as live:
        live.follow(weights)
        x = torch.empty(batch, width, device="meta")
        for w in weights:
            x = x @ w
        # the input, three hidden activations that the backward pass needs, the output; the weights
        assert live.live_bytes == (depth + 1) * hidden + depth * weight
        x.backward(torch.empty_like(x))
        del x
    assert live.live_bytes == 2 * depth * weight  # and the gradients
    # at the third of four: its input and what lies before it, the output and the gradient that came in, the
    # gradients of its output and input; those of two weights
    assert live.peak_bytes == (3 + 2 + 2) * hidden + (depth + 2) * weight


class Stack(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64)) for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


def step_peak(model: nn.Module, x: Tensor) -> int:
    live = LiveBytes(x.device.type)
    live.follow([*model.parameters(), x])
    with live:
        model(x).sin().sum().backward()
    return live.peak_bytes


@pytest.mark.filterwarnings("ignore")  # torch's profiler warns of its own deprecations
def test_live_bytes_agree_with_torchs_allocator() -> None:
    torch.manual_seed(0)
    model, x = Stack(3), torch.randn(2048, 64)
    before = sum(p.untyped_storage().nbytes() for p in model.parameters()) + x.untyped_storage().nbytes()
    model(x).sin().sum().backward()  # warm-up: one-time allocations
    model.zero_grad()
    with cpu_allocator() as marks:
        marks.begin("step")
        model(x).sin().sum().backward()
        marks.begin("end")
    (step,) = marks.sections
    model.zero_grad()
    followed = step_peak(model, x)
    model.zero_grad()
    assert step_peak(model.to("meta"), x.to("meta")) == followed
    assert followed == pytest.approx(before + step.peak_bytes, rel=0.01)


def test_checkpointing_keeps_inputs_and_one_block() -> None:
    model, x = Stack(8).to("meta"), torch.empty(4096, 64, device="meta")
    kept = step_peak(model, x)
    model.zero_grad()
    with checkpointed(model):
        recomputed = step_peak(model, x)
    model.zero_grad()
    assert recomputed < kept / 3
    assert step_peak(model, x) == kept


# rules of CUDA on meta tensors

LOW = torch.bfloat16
AUTOCAST: dict[str, Callable[[Callable[..., Tensor]], Tensor]] = {
    "linear": lambda e: F.linear(e(2, 4), e(5, 4)),
    "matmul": lambda e: e(2, 4) @ e(4, 2),
    "einsum": lambda e: torch.einsum("ij,jk->ik", e(2, 4), e(4, 4)),
    "conv2d": lambda e: F.conv2d(e(2, 4, 8, 8), e(5, 4, 3, 3)),
    "layer_norm": lambda e: F.layer_norm(e(2, 4, dtype=LOW), (4,)),
    "rms_norm": lambda e: F.rms_norm(e(2, 4, dtype=LOW), (4,)),
    "group_norm": lambda e: F.group_norm(e(2, 4, 8, 8, dtype=LOW), 2),
    "gelu": lambda e: F.gelu(e(2, 4, dtype=LOW)),
    "silu": lambda e: F.silu(e(2, 4, dtype=LOW)),
    "sigmoid": lambda e: e(2, 4, dtype=LOW).sigmoid(),
    "vector_norm": lambda e: torch.linalg.vector_norm(e(2, 4, dtype=LOW), dim=1),
    "softmax": lambda e: e(2, 4, dtype=LOW).softmax(-1),
    "sum": lambda e: e(2, 4, dtype=LOW).sum(),
    "mean": lambda e: e(2, 4, dtype=LOW).mean(),
    "cumsum": lambda e: e(2, 4, dtype=LOW).cumsum(0),
    "norm": lambda e: e(2, 4, dtype=LOW).norm(),
    "exp": lambda e: e(2, 4, dtype=LOW).exp(),
    "pow": lambda e: e(2, 4, dtype=LOW).pow(2),
    "rsqrt": lambda e: e(2, 4, dtype=LOW).rsqrt(),
    "addcmul": lambda e: torch.addcmul(e(2, 4), e(2, 4, dtype=LOW), e(2, 4, dtype=LOW)),
    "cat": lambda e: torch.cat([e(2, 4), e(2, 4, dtype=LOW)]),
    "mse_loss": lambda e: F.mse_loss(e(2, 4, dtype=LOW), e(2, 4, dtype=LOW)),
    "interpolate": lambda e: F.interpolate(e(2, 4, 8, 8, dtype=LOW), scale_factor=2),
    "adaptive_avg_pool2d": lambda e: F.adaptive_avg_pool2d(e(2, 4, 8, 8, dtype=LOW), 1),
}


@pytest.mark.parametrize("name", AUTOCAST)
def test_operators_give_the_dtype_of_cuda_autocast(name: str) -> None:
    call = AUTOCAST[name]
    with CudaRules(torch.bfloat16):
        ours = call(lambda *shape, dtype=torch.float32: torch.empty(shape, dtype=dtype, device="meta"))
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        with FakeTensorMode(), torch.inference_mode():
            theirs = call(lambda *shape, dtype=torch.float32: torch.empty(shape, dtype=dtype, device="cuda"))
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()
    assert ours.dtype == theirs.dtype


def test_autocast_keeps_one_copy_of_a_weight_until_it_ends() -> None:
    weight = torch.empty(64, 64, device="meta", requires_grad=True)
    x = torch.empty(1, 64, device="meta", dtype=LOW)
    with LiveBytes() as live:
        live.follow([weight, x])
        before = live.live_bytes
        with CudaRules(LOW), torch.no_grad():
            for _ in range(3):
                F.linear(x, weight)
            assert live.live_bytes == before + 2 * weight.numel()
        assert live.live_bytes == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_keeps_its_inputs_its_output_and_no_scores(dtype: torch.dtype) -> None:
    N, heads, T, d = 2, 4, 1024, 64
    qkv = [torch.empty(N, heads, T, d, device="meta", dtype=dtype, requires_grad=True) for _ in range(3)]
    with LiveBytes() as live:
        live.follow(qkv)
        with CudaRules(None):
            out = F.scaled_dot_product_attention(*qkv)
        of_one = out.untyped_storage().nbytes()
        assert live.live_bytes == pytest.approx(4 * of_one + 4 * N * heads * T, rel=0.01)
        out.sum().backward()
    assert all(x.grad is not None for x in qkv)


def test_attention_takes_a_mask_and_groups_of_heads() -> None:
    q, kv = torch.empty(2, 4, 16, 8, device="meta"), torch.empty(2, 2, 16, 8, device="meta")
    mask = torch.empty(16, 16, device="meta")
    assert fused_attention(q, q, q, attn_mask=mask).shape == q.shape
    assert fused_attention(q, kv, kv, is_causal=True, enable_gqa=True).shape == q.shape


# predictions


def case_of(
    name: str, batch: int, precision: str, work: str, checkpointing: bool, res: int, on: str = "meta"
) -> MemoryCase:
    return MemoryCase(
        device=on, model=name, family="", res=res, latent_size=res // 8, batch=batch, precision=precision,
        work=work, checkpointing=checkpointing, limit_bytes=None,
    )  # fmt: skip


def predicted(
    name: str, batch: int, precision: str, work: str = "training", checkpointing: bool = False, res: int = 256
) -> MemoryUse:
    return predict(case_of(name, batch, precision, work, checkpointing, res))


@pytest.mark.parametrize(
    ("name", "precision", "checkpointing", "gib", "tolerance"),
    [
        # shared reference: fake-tensor runs of the published networks, batch 256, 256 px
        ("FCDM-XL", "bf16", True, 25.5, 0.003),
        ("FCDM-XL", "bf16", False, 100.4, 0.001),
        ("FCDM-XL", "tf32", True, 32.3, 0.025),
        ("FCDM-XL", "tf32", False, 144.8, 0.006),
        ("DiT-XL/2", "bf16", False, 107, 0.006),
    ],
)
def test_predictions_agree_with_independent_ones(
    name: str, precision: str, checkpointing: bool, gib: float, tolerance: float
) -> None:
    use = predicted(name, 256, precision, checkpointing=checkpointing)
    assert use.peak_bytes / GIB == pytest.approx(gib, rel=tolerance)


def test_parts_of_a_training_step_add_up(smallest: str) -> None:
    task = task_at(smallest, 256, 256)
    model = build(smallest, task)
    trained = 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    unread = 4 * sum(
        p.numel() for name, p in model.named_parameters() if p.requires_grad and UNREAD.search(name)
    )
    # MDT has tables of integers, JiT rotations that no checkpoint holds
    held = sum(value.nbytes for value in (*model.parameters(), *model.buffers()))
    use = predicted(smallest, 2, "fp32")
    rounding = 512 * 2 * len(list(model.parameters()))
    assert use.gradients_bytes == trained - unread
    assert use.parameters_bytes == use.ema_bytes == pytest.approx(held, abs=rounding)
    assert use.optimizer_bytes == pytest.approx(2 * (trained - unread), abs=rounding)
    parts = use.parameters_bytes + use.gradients_at_peak_bytes + use.optimizer_bytes + use.ema_bytes
    assert parts + use.activations_bytes == use.peak_bytes
    assert (use.reserved_bytes, use.process_bytes) == (None, None)


@pytest.mark.parametrize("name", ["FCDM-S", "DiCo-S", "DiC-S"])  # DiT's attention is another kernel on a CPU
def test_a_prediction_is_what_a_real_step_on_a_cpu_holds(name: str) -> None:
    counter = LiveBytes("cpu", CUDA_BLOCK_BYTES)
    marks = CounterMarks(counter)
    with counter:
        training(case_of(name, 2, "fp32", "training", True, 64, "cpu"), marks, nullcontext, nullcontext)
    real = use_of(marks.sections)
    use = predicted(name, 2, "fp32", checkpointing=True, res=64)
    assert use.parameters_bytes == real.parameters_bytes
    assert use.gradients_bytes == real.gradients_bytes
    assert use.passes_peak_phase == real.passes_peak_phase
    assert use.passes_peak_bytes == pytest.approx(real.passes_peak_bytes, rel=1e-3)
    assert use.update_peak_bytes == pytest.approx(real.update_peak_bytes, rel=1e-3)


def test_peak_of_the_update_is_independent_of_the_batch() -> None:
    one, two = predicted("DiT-S/8", 1, "fp32"), predicted("DiT-S/8", 2, "fp32")
    assert one.update_peak_bytes == pytest.approx(two.update_peak_bytes, rel=1e-3)  # but for the inputs
    assert one.update_peak_bytes == pytest.approx(6 * one.gradients_bytes, rel=0.01)
    assert (one.peak_phase, one.gradients_at_peak_bytes) == ("update", one.gradients_bytes)


def test_inference_holds_weights_in_its_precision() -> None:
    full, half = (predicted("FCDM-S", 8, precision, "inference") for precision in ("fp32", "bf16"))
    assert half.parameters_bytes == pytest.approx(full.parameters_bytes / 2, rel=0.01)
    assert half.activations_bytes == pytest.approx(full.activations_bytes / 2, rel=0.02)
    assert (full.gradients_bytes, full.optimizer_bytes, full.ema_bytes) == (0, 0, 0)
    assert full.update_peak_bytes is None
    assert predicted("FCDM-S", 8, "tf32", "inference") == full


def test_one_convolution_holds_its_hand_count() -> None:
    use = predicted("tests.tiny:Tiny", 64, "fp32", "inference")
    hidden = 4 * 64 * 8 * 32 * 32
    x = 4 * 64 * 4 * 32 * 32
    # x, and what each of the four operators takes beside what it gives
    assert use.activations_bytes == pytest.approx(x + 2 * hidden, rel=0.01)


# the line through the batches


def known(batch: int, passes: float, update: int | None = None, **changes: int) -> Memory:
    use = replace(
        USE, passes_peak_bytes=int(passes), update_peak_bytes=update, gradients_bytes=3 * GIB, **changes
    )
    return builders.memory(use, model="FCDM-XL", batch=batch, checkpointing=True)


def out_of_memory(batch: int = 512, limit_bytes: int | None = None) -> Skipped:
    case = replace(known(batch, 0).case, limit_bytes=limit_bytes)
    return Skipped(case=case, environment=META, status="out of memory", reason="asked for 9 TiB")


OUT = out_of_memory()


def test_a_line_is_found_and_gives_the_largest_batch() -> None:
    line = memory_fit.fit(
        [known(batch, 10 * GIB + batch * MIB, 11 * GIB) for batch in (64, 128, 256)] + [OUT]
    )
    assert line is not None
    assert line.fixed_bytes == pytest.approx(10 * GIB)
    assert line.per_image_bytes == pytest.approx(MIB)
    assert line.residual_bytes < 1
    assert line.batches == (64, 128, 256)
    assert line.max_batch(12 * GIB) in (2047, 2048)
    assert line.max_batch(int(10.5 * GIB)) == 0  # the update alone takes 11


def test_a_line_has_a_residual_and_needs_three_batches() -> None:
    bent = [known(1, GIB), known(2, 2 * GIB), known(3, 4 * GIB)]
    line = memory_fit.fit(bent)
    assert line is not None
    assert line.residual_bytes == pytest.approx(GIB / 3)
    assert memory_fit.fit([*bent[:2], OUT]) is None


def test_a_line_uses_batches_that_peak_like_the_largest() -> None:
    def late(batch: int) -> Memory:
        return known(batch, 10 * GIB, passes_gradients_bytes=2 * GIB)

    early = [known(batch, 9 * GIB + batch * MIB) for batch in (1024, 2048, 4096)]
    line = memory_fit.fit([late(1), late(2), *early])
    assert line is not None
    assert line.batches == (1024, 2048, 4096)
    assert not line.is_nonlinear
    bent = memory_fit.fit([late(1), late(2), *early[1:]])
    assert bent is not None
    assert bent.batches == (1, 2, 2048, 4096)
    assert bent.is_nonlinear


@pytest.mark.parametrize("guess", [0, 1, 50, 99, 100, 101, 150, 10**9])
@pytest.mark.parametrize("most", [0, 1, 100])
def test_the_largest_batch_is_found_from_any_guess(most: int, guess: int) -> None:
    asked = []

    def fits(batch: int) -> bool:
        asked.append(batch)
        return batch <= most

    assert memory_fit.largest(fits, guess) == most
    assert min(asked) > 0
    if guess == most:
        assert len(asked) <= 2


def test_devices_are_gpus_by_name_or_sizes() -> None:
    assert memory_fit.device("rtx  4090").capacity_bytes == 24 * GIB
    assert memory_fit.device("A100 PCIe 40GB").usable_bytes == 39 * GIB
    assert memory_fit.device("1.5GiB", 0).usable_bytes == 1.5 * GIB
    assert memory_fit.device("24GB").capacity_bytes == 24 * 10**9
    assert memory_fit.device("4090").name == "RTX 4090"
    with pytest.raises(ValueError, match="a100: may be several GPUs: A100 SXM4 40GB or A100 SXM4 80GB; say"):
        memory_fit.device("a100")
    nearest = r"RTX 4900: no such GPU; did you mean RTX 4090 or RTX 5090\?; a size"
    with pytest.raises(ValueError, match=nearest):
        memory_fit.device("RTX 4900")
    with pytest.raises(ValueError, match="600MiB: smaller than the reserve of 1 GiB"):
        memory_fit.device("600MiB")


def test_claims_are_judged_with_the_buckets_of_several_gpus() -> None:
    one, four = memory_claims.verdicts([known(256, 39 * GIB, GIB), known(64, 21 * GIB, GIB), known(32, GIB)])
    assert (one.text, one.buckets_bytes, one.margin_bytes) == ("probably fits", 0, 0)
    assert (four.text, four.buckets_bytes, four.margin_bytes) == ("probably does not fit", 3 * GIB, -GIB)
    (ran_out,) = memory_claims.verdicts([out_of_memory(256, 39 * GIB), out_of_memory(256, GIB)])
    assert (ran_out.text, ran_out.needed_bytes) == ("does not fit", None)


# records and the command


def test_memory_record_round_trips_through_its_line() -> None:
    for one in (known(4, GIB, 2), OUT):
        assert from_dict(json.loads(to_line(one))) == one


def test_impossible_memory_cannot_be_recorded() -> None:
    with pytest.raises(ValueError, match="a peak cannot be negative"):
        known(4, -GIB)
    with pytest.raises(ValueError, match="a prediction has no reserved memory"):
        known(4, GIB, reserved_bytes=1)


CASE = MemoryCase(
    **{**SIZED, "model": "DiT-S/8", "family": "DiT", "res": (64, 128), "latent_size": (8, 16), "batch": 2},
    device="meta",
    precision="bf16",
    work="training",
    checkpointing=True,
    limit_bytes=None,
)


def test_a_worker_measures_the_same_case() -> None:
    now = environment.gather("meta", "DiT-S/8")
    here = measure(CASE, now)
    from_worker = worker.run("bench.measure.memory.peak:measure", CASE, now, 120)
    assert here == from_worker
    assert here.case == CASE


def test_a_failed_allocation_of_a_library_is_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> NoReturn:
        raise RuntimeError(message)

    monkeypatch.setattr("bench.measure.memory.peak.predict", fails)
    message = "cuDNN error: CUDNN_STATUS_ALLOC_FAILED\nand more"
    found = memory_jobs.result_of(CASE)
    assert isinstance(found, Skipped)
    assert (found.status, found.reason) == ("out of memory", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED")
    message = "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"
    found = memory_jobs.result_of(CASE)
    assert isinstance(found, Skipped)
    assert (found.status, found.case) == ("error", CASE)
    assert found.reason == "on the meta device: RuntimeError: cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"


def test_a_failed_worker_gives_a_skipped_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.machine.environment.gather", lambda *_, **__: META)
    monkeypatch.setattr(
        worker,
        "run",
        lambda _, case, now, __: Skipped(case=case, environment=now, status="crashed", reason="SIGSEGV"),
    )
    on_cuda = replace(CASE, device="cuda")
    found = memory_jobs.result_of(on_cuda)
    assert found == Skipped(case=on_cuda, environment=META, status="crashed", reason="SIGSEGV")


QUICK = ["--device", "meta", "--model", "DiT-S/8", "--res", "64"]


def test_the_command_marks_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "records.jsonl"
    assert run(memory.main, *QUICK, "--batch", "2", "--format", "json", "--out", str(path)) == 0
    printed = capsys.readouterr()
    rows = json.loads(printed.out)
    assert [(row["work"], row["checkpointing"]) for row in rows] == [
        ("inference", False),
        ("training", False),
        ("training", True),
    ]
    assert all(row["predicted"] and row["status"] == "ok" for row in rows)
    assert all(row["reserved_bytes"] is None and row["process_bytes"] is None for row in rows)
    assert "predicted from the sizes of tensors" in printed.err
    assert json.loads(render(TABLE, read(path).records, "json")) == rows
    assert run(memory.main, *QUICK, "--batch", "2", "--work", "inference") == 0
    assert "predicted" in capsys.readouterr().out


def test_a_line_and_its_largest_batch_are_verified(capsys: pytest.CaptureFixture[str]) -> None:
    name = "tests.tiny:Tiny"
    args = ["--device", "meta", "--model", name, "--work", "training", "--checkpointing", "off"]
    assert run(memory.main, *args, "--fits", "2GiB", "--find-max-batch", "--format", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["device"] == "2GiB"
    assert row["batches"] == [64, 128, 256]
    assert abs(row["verified_max_batch"] - row["max_batch"]) <= 2
    fits, too_many = (
        measure(
            replace(
                CASE, model=name, res=256, latent_size=32, precision="fp32", checkpointing=False, batch=batch
            ),
            META,
        )
        for batch in (row["verified_max_batch"], row["verified_max_batch"] + 1)
    )
    assert fits.use.peak_bytes <= GIB < too_many.use.peak_bytes


def test_a_model_that_cannot_train_is_a_row(
    capsys: pytest.CaptureFixture[str],
) -> None:
    args = ["--device", "meta", "--model", "tests.tiny:RaisesInTraining", "tests.tiny:Tiny", "--batch", "2"]
    assert run(memory.main, *args, "--work", "training", "--checkpointing", "off", "--format", "json") == 0
    failed, fine = json.loads(capsys.readouterr().out)
    assert (failed["status"], failed["peak_bytes"]) == ("error", None)
    assert "only found out in training" in failed["reason"]
    assert fine["peak_bytes"] > 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--batch", "0"], "--batch: must be a whole number of at least 1, got '0'"),
        (["--model", "FDCM-XL"], "--model FDCM-XL: no such backbone; did you mean FCDM-XL"),
        (["--precision", "fp16"], "--precision: invalid choice: 'fp16'"),
        (["--device", "cpu", "--precision", "tf32"], "--precision tf32: only a CUDA device has it"),
        (["--device", "cpu", "--claims"], "--claims: is about a GPU's memory, got --device cpu"),
        (["--device", "cpu", "--fits"], "--fits: is about a GPU's memory, got --device cpu"),
        (["--device", "cpu", "meta", "--find-max-batch"], "--find-max-batch: is about a GPU's memory"),
        (
            ["--fits", "RTX 4900"],
            "--fits RTX 4900: no such GPU; did you mean RTX 4090 or RTX 5090?; a size such as 24GiB works",
        ),
        (["--fits", "0GiB"], "--fits 0GiB: smaller than the reserve"),
        (["--fits", "24GiB", "--batch", "1", "2"], "--batch 1 2: a line needs at least 3 batches"),
        (
            ["--find-max-batch", "--device", "meta"],
            "--find-max-batch: this machine has no GPU; name one or a size",
        ),
        (["--reserve", "much"], "--reserve: must be a size, as 1GiB or 600MiB, got 'much'"),
        (["--claims", "--model", "DiT-S/2"], "--claims: the claims fix what is measured; leave out --model"),
        (["--claims", "--batch", "4"], "leave out --batch"),
        (["--weights", __file__], "weights do not change memory; leave it out"),
        (["--out", "/"], "--out /: is a folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(memory.main, *args) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_cuda_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(memory.main, "--device", "cuda") == 2
    assert "sees no CUDA device; --device meta predicts" in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_on_a_gpu_the_prediction_is_near_what_is_measured(precision: str, checkpointing: bool) -> None:
    case = replace(
        CASE,
        model="FCDM-S",
        res=256,
        latent_size=32,
        batch=32,
        precision=precision,
        checkpointing=checkpointing,
        device="cuda",
    )
    measured, expected = map(memory_jobs.result_of, (case, replace(case, device="meta")))
    assert isinstance(measured, Memory), measured
    assert isinstance(expected, Memory)
    assert expected.use.peak_bytes == pytest.approx(measured.use.peak_bytes, rel=0.1)
    assert measured.use.reserved_bytes is not None
    assert measured.use.reserved_bytes >= measured.use.peak_bytes


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_case_over_its_limit_is_out_of_memory() -> None:
    case = replace(CASE, model="FCDM-S", res=256, latent_size=32, batch=64, device="cuda", limit_bytes=GIB)
    found = memory_jobs.result_of(case)
    assert isinstance(found, Skipped)
    assert found.status == "out of memory"


# the report's section


def test_report_section_has_peaks_lines_and_claims() -> None:
    cases = [known(batch, 10 * GIB + batch * MIB, 11 * GIB) for batch in (64, 128, 256)]
    text, _ = report.section([*cases, OUT])
    assert report.section([OUT, *reversed(cases)]) == (text, [])
    assert "**Predicted** figures" in text
    assert "out of memory" in text
    assert "With checkpointing every case probably fits." in text
    assert "| FCDM-XL, batch 256 on 4 x RTX 4090 24 GB, 64 each |" in " ".join(text.split())
    assert "64, 128, 256" in text
    assert report.section([]) == ("", [])


def test_report_section_uses_the_newest_record_of_a_case() -> None:
    old, new = known(64, GIB), known(64, 5 * GIB)
    new = replace(new, environment=replace(META, date="2026-11-22T00:00:00Z"))
    for order in ([old, new], [new, old]):
        text, _ = report.section(order)
        assert "5.00" in text
        assert "1.00" not in text
