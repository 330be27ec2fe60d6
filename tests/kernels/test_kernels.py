"""Triton kernels against float64 references: compiled on a GPU, interpreted on a CPU."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.fcdm import make_depthwise
from models.kernels import depthwise as conv
from models.kernels import norm_modulate as norm
from models.kernels.depthwise import (
    Tiling,
    channels_last_weight,
    depthwise,
    depthwise_reference,
    depthwise_triton,
)
from models.kernels.norm_modulate import norm_modulate, norm_modulate_reference, norm_modulate_triton
from models.layers.modulation import ChannelNorm, modulate_addcmul

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")

ROOT = Path(__file__).resolve().parents[2]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# of ||out - exact|| / ||exact||: float32 sums of 49 products, or of a thousand squares, round to some 1e-7 of
# their size; a result in bf16 keeps 8 bits, so it is off by some 1.7e-3 where it is rounded to them, and by
# twice that in Triton's interpreter, which cuts the other bits off
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 2**-9 if DEVICE == "cuda" else 2**-8}


def image(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, dtype=torch.float32).to(DEVICE, dtype)


def filters(K: int, C: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return image(K, K, C, dtype=dtype), image(C, dtype=dtype)


def error(out: Tensor, exact: Tensor) -> float:
    """||out - exact|| / ||exact||; nan where out holds one."""
    return float((out.double() - exact).norm() / exact.norm())


@pytest.fixture
def poisoned() -> Iterator[None]:
    """New memory is filled with NaN, so that unwritten values are detected."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(5).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


# the sides of a tile, less, more and no multiple of them; channels that fill no block, one and a part of one
DEPTHWISE = (
    ((2, 1, 1, 5), 7, Tiling()),
    ((1, 2, 9, 3), 7, Tiling(columns=8)),
    ((2, 7, 13, 16), 7, Tiling(rows=5, block=16)),
    ((1, 13, 7, 40), 7, Tiling(rows=64, columns=4, block=32)),
    ((1, 96, 1, 2), 3, Tiling(rows=64)),
    ((1, 3, 5, 4), 5, Tiling(rows=1)),
    ((1, 4, 6, 4), 9, Tiling(rows=2)),
    ((1, 3, 3, 4), 1, Tiling()),
)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(
    ("shape", "K", "tiling", "dtype"),
    [
        *((*case, torch.float32) for case in DEPTHWISE),
        *((*case, torch.bfloat16) for case in (DEPTHWISE[0], DEPTHWISE[3], DEPTHWISE[5])),
    ],
    ids=str,
)
def test_a_depthwise_convolution_is_that_of_float64(
    shape: tuple[int, int, int, int], K: int, tiling: Tiling, dtype: torch.dtype
) -> None:
    x, (weight, bias) = image(*shape, dtype=dtype), filters(K, shape[3], dtype)
    out = depthwise_triton(x, weight, bias, tiling)
    assert (out.shape, out.dtype, out.is_contiguous()) == (x.shape, dtype, True)
    assert error(out, depthwise_reference(x.double(), weight.double(), bias.double())) < TOLERANCE[dtype]


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    ("shape", "pixels"), [((2, 1, 1, 5), 2), ((2, 7, 3, 96), 4), ((3, 5, 13, 130), 8), ((1, 1, 7, 2048), 1)]
)
def test_a_norm_with_its_modulation_is_that_of_float64(
    shape: tuple[int, int, int, int], pixels: int, dtype: torch.dtype
) -> None:
    N, _, _, C = shape
    # a mean far from 0: the squares' mean less the mean's square would lose what is left of the variance
    x = 3 + image(*shape, dtype=dtype)
    shift, scale = image(N, C, dtype=dtype), image(N, C, dtype=dtype)
    out = norm_modulate_triton(x, shift, scale, pixels=pixels)
    assert (out.shape, out.dtype) == (x.shape, dtype)
    exact = norm_modulate_reference(x.double(), shift.double(), scale.double())
    assert error(out, exact) < TOLERANCE[dtype]


def test_both_kernels_equal_the_start_of_an_fcdm_block() -> None:
    mixer = make_depthwise(24, 7).to(DEVICE).requires_grad_(False)
    x, (shift, scale) = image(2, 24, 5, 6), (image(2, 24), image(2, 24))
    block = modulate_addcmul(
        ChannelNorm()(mixer(x)), shift[:, :, None, None], scale[:, :, None, None]
    )  # (N, C, H, W)
    assert mixer.bias is not None
    h = depthwise_triton(
        x.permute(0, 2, 3, 1), channels_last_weight(mixer.weight), mixer.bias, Tiling(rows=64)
    )
    fused = norm_modulate_triton(h, shift, scale)
    torch.testing.assert_close(fused.permute(0, 3, 1, 2), block, rtol=1e-4, atol=1e-5)


def test_program_writes_only_its_own_rows_and_columns() -> None:
    from models.kernels.triton_depthwise import depthwise_kernel

    x, (weight, bias) = image(1, 9, 7, 4), filters(7, 4)
    out = torch.full_like(x, float("nan"))
    tile = {"CHANNELS": 4, "K": 7, "COLUMNS": 4, "rows": 3, "BLOCK": 32, "GELU": False, "num_warps": 1}
    depthwise_kernel[(1,)](x, weight, bias, out, out, 9, 7, **tile)  # of 3 bands times 2 strips
    exact = depthwise_reference(x.double(), weight.double(), bias.double())
    assert error(out[:, :3, :4], exact[:, :3, :4]) < 1e-6
    assert out[:, 3:].isnan().all()
    assert out[:, :, 4:].isnan().all()


def test_images_of_a_batch_are_independent() -> None:
    x, (weight, bias) = image(3, 4, 5, 6), filters(7, 6)
    alone = depthwise_triton(x[1:2], weight, bias, Tiling())
    x[0], x[2] = float("nan"), float("nan")
    assert torch.equal(depthwise_triton(x, weight, bias, Tiling())[1:2], alone)


def test_empty_batch_gives_an_empty_output() -> None:
    assert depthwise_triton(image(0, 4, 4, 6), *filters(7, 6)).shape == (0, 4, 4, 6)


@pytest.mark.skipif(DEVICE == "cuda", reason="a GPU times the tilings, see the next test")
def test_fastest_tiling_that_fits_a_size_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    from models.kernels import triton_depthwise, triton_norm_modulate

    tried: list[dict[str, int]] = []

    def timed(_self: object, *_args: object, config: Any, **_meta: object) -> list[float]:  # noqa: ANN401
        tried.append({**config.kwargs, "warps": config.num_warps})
        return [float(len(tried) != 2)] * 3  # the second one is the fastest

    monkeypatch.setattr("triton.runtime.autotuner.Autotuner._bench", timed)
    x, (weight, bias) = image(1, 11, 3, 70), filters(3, 70)
    out = torch.empty_like(x)
    triton_depthwise.launch(x, weight, bias, out, None)
    assert error(out, depthwise_reference(x.double(), weight.double(), bias.double())) < 1e-6
    # 64 rows are as good as 16 for an image of 11
    assert [(t["COLUMNS"], t["rows"]) for t in tried] == [(4, 8), (4, 16), (8, 8), (8, 16)]
    x, (weight, bias) = image(1, 33, 1, 1), filters(9, 1)
    tried.clear()
    triton_depthwise.launch(x, weight, bias, torch.empty_like(x), None)
    assert [(t["COLUMNS"], t["rows"]) for t in tried] == [(4, 8), (4, 16), (4, 64)]

    x, shift, scale = image(2, 3, 3, 512), image(2, 512), image(2, 512)
    out = torch.empty_like(x)
    tried.clear()
    triton_norm_modulate.launch(x, shift, scale, out, 1e-6, None)
    exact = norm_modulate_reference(x.double(), shift.double(), scale.double())
    assert error(out, exact) < 1e-6
    assert all(8 <= 512 * t["PIXELS"] / (32 * t["warps"]) <= 64 for t in tried)
    assert len(tried) > 1


HOPPER = """
import re, subprocess
from pathlib import Path
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from models.kernels.triton_depthwise import depthwise_kernel
from models.kernels.triton_norm_modulate import norm_modulate_kernel

def compile(kernel, types, constants, warps, cubin):
    types |= dict.fromkeys(constants, "constexpr")
    ordered = {name: types[name] for name in kernel.arg_names}
    source = ASTSource(kernel, ordered, constants)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    Path(cubin).write_bytes(made.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    used = subprocess.run([tool, "-res-usage", cubin], capture_output=True, text=True, check=True).stdout
    print(made.asm["ptx"].count("fma.rn.f32"), *re.findall(r"STACK:\\d+|LOCAL:\\d+", used))

four = {name: "*bf16" for name in ("x", "weight", "bias", "out", "totals", "shift", "scale")}
whole = dict.fromkeys(("height", "width", "rows", "pixels"), "i32")
tile = {"CHANNELS": 512, "K": 7, "COLUMNS": 4, "BLOCK": 64, "GELU": False}
compile(depthwise_kernel, four | whole, tile, 2, "a.cubin")
tile = {"CHANNELS": 2048, "BLOCK": 2048, "PIXELS": 2}
compile(norm_modulate_kernel, four | whole | {"eps": "fp32"}, tile, 4, "b.cubin")
"""


def test_kernels_compile_for_hopper_without_register_spills(tmp_path: Path) -> None:
    # in a process where Triton compiles: in this one it may be set to interpret
    here = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    here |= {"PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", HOPPER], capture_output=True, text=True, cwd=tmp_path, env=here
    )
    assert done.returncode == 0, done.stderr
    depthwise_said, norm_said = done.stdout.splitlines()
    # 49 multiply-adds for each of 4 columns in the loop over rows, and no other loop
    assert depthwise_said == f"{49 * 4} STACK:0 LOCAL:0"
    assert norm_said.endswith("STACK:0 LOCAL:0")


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU to be tuned on")
@pytest.mark.parametrize("K", [7, 9])
def test_on_a_gpu_the_function_uses_the_tuned_kernel(K: int) -> None:
    x, (weight, bias) = image(2, 13, 9, 96), filters(K, 96)
    assert conv.why_not_triton(x, weight, bias) == ""
    exact = depthwise_reference(x.double(), weight.double(), bias.double())
    assert error(depthwise(x, weight, bias), exact) < 1e-6
    compiled = torch.compile(depthwise, fullgraph=True)
    assert error(compiled(x, weight, bias), exact) < 1e-6
    shift, scale = image(2, 96), image(2, 96)
    exact = norm_modulate_reference(x.double(), shift.double(), scale.double())
    assert error(norm_modulate(x, shift, scale), exact) < 1e-6


def test_calls_without_a_kernel_use_the_reference() -> None:
    x, (weight, bias) = image(2, 5, 6, 4).double(), filters(11, 4)
    leaves = [one.double().requires_grad_() for one in (x, weight, bias)]
    out = depthwise(*leaves)
    assert torch.equal(out, depthwise_reference(*leaves))
    assert torch.autograd.gradcheck(depthwise, leaves, fast_mode=True)
    shift, scale = image(2, 4).double(), image(2, 4).double()
    assert torch.equal(norm_modulate(x, shift, scale), norm_modulate_reference(x, shift, scale))


def test_why_not_triton_states_the_reason() -> None:
    x, (weight, bias) = torch.ones(1, 3, 3, 4), (torch.ones(7, 7, 4), torch.ones(4))
    assert "takes CUDA tensors, got cpu" in conv.why_not_triton(x, weight, bias)
    assert "takes CUDA tensors, got meta" in conv.why_not_triton(x.to("meta"), weight, bias)
    assert "got float64" in conv.why_not_triton(x.double(), weight, bias)
    assert "up to 9, got 11" in conv.why_not_triton(x, torch.ones(11, 11, 4), bias)
    assert "no gradient" in conv.why_not_triton(x, weight.requires_grad_(), bias)
    with torch.no_grad():
        assert "no gradient" not in conv.why_not_triton(x, weight, bias)
    assert "16384 channels, got 20000" in norm.why_not_triton(*(torch.ones(1, 1, 1, 20000),) * 3)


def test_kernel_flops_equal_the_reference_on_meta_tensors() -> None:
    x, (weight, bias) = image(2, 3, 5, 4), filters(3, 4)
    counted = []
    with FlopCounterMode(display=False) as kernel:
        torch.ops.backbones.depthwise(x, weight, bias)
    for given in (x, x.permute(0, 2, 1, 3)):
        with FlopCounterMode(display=False) as reference:
            assert depthwise(*(one.to("meta") for one in (given, weight, bias))).shape == given.shape
        counted.append(reference.get_total_flops())
    assert [kernel.get_total_flops()] * 2 == counted == [2 * 2 * 3 * 5 * 4 * 9] * 2


def test_each_kernel_is_one_torch_operator_with_a_shape() -> None:
    x, (weight, bias), shift = image(2, 3, 2, 4), filters(3, 4), image(2, 4)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.backbones.depthwise.default, (x, weight, bias), test_utils=checks)
    torch.library.opcheck(
        torch.ops.backbones.norm_modulate.default, (x, shift, shift, 1e-6), test_utils=checks
    )


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 4, 4, 6), (3, 3, 5), (6,)), r"takes .* and \(C,\), got \(2, 4, 4, 6\), \(3, 3, 5\), \(6,\)"),
        (((2, 4, 4, 6), (3, 3, 6), (5,)), r"got \(2, 4, 4, 6\), \(3, 3, 6\), \(5,\)"),
        (((4, 4, 6), (3, 3, 6), (6,)), r"takes \(N, H, W, C\)"),
        (((2, 4, 4, 6), (4, 4, 6), (6,)), r"must be square and odd, got \(4, 4\); \(7, 7\) would work"),
        (((2, 4, 4, 6), (3, 5, 6), (6,)), r"must be square and odd, got \(3, 5\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        depthwise(*(torch.ones(shape) for shape in shapes))


def test_a_modulation_of_another_batch_or_type_is_refused() -> None:
    x = torch.ones(2, 3, 3, 4)
    with pytest.raises(ValueError, match=r"takes .*, got \(2, 3, 3, 4\), \(1, 4\), \(2, 4\)"):
        norm_modulate(x, torch.ones(1, 4), torch.ones(2, 4))
    with pytest.raises(ValueError, match=r"same dtype, got float32, bfloat16, float32"):
        norm_modulate(x, torch.ones(2, 4).bfloat16(), torch.ones(2, 4))


def test_kernels_are_not_imported_before_one_runs() -> None:
    code = (
        "import sys, torch; from models.kernels import depthwise, norm_modulate\n"
        "x, w = torch.ones(1, 3, 3, 4), torch.ones(7, 7, 4)\n"
        "depthwise.depthwise(x, w, x[0, 0, 0])\n"
        "norm_modulate.norm_modulate(x, x[:, 0, 0], x[:, 0, 0])\n"
        "ours = [name for name in sys.modules if name.startswith('models.kernels.triton_')]\n"
        "assert ours == [], ours"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
