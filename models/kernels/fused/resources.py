"""Registers, shared memory and spills of the fused kernels, compiled ahead of time: no GPU is needed.

python -m models.kernels.fused.resources > baselines/kernel_resources.csv
"""

import csv
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from models.kernels import triton_depthwise
from models.kernels.fused import triton_depthwise_norm, triton_group_norm_gelu, triton_product
from models.kernels.fused.depthwise_gelu import TILING

ARCHITECTURES = (80, 89, 90)
TYPES = {torch.bfloat16: "bf16", torch.float32: "fp32"}


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one compiled kernel takes."""

    kernel: str
    sizes: str
    dtype: str
    sm: int
    warps: int
    registers: int  # of a thread
    shared_bytes: int  # of a program
    spilled_bytes: int  # of a thread, in local memory
    source: str


@dataclass(frozen=True, kw_only=True)
class Compilation:
    """A kernel with the constants of one size."""

    name: str
    sizes: str
    kernel: Any  # triton.JITFunction: triton has no types
    constants: dict[str, Any]
    warps: int


def compilations(dtype: torch.dtype) -> Iterator[Compilation]:
    """The kernels at the sizes of the finest and the widest level of DiCo-XL, DiC-XL and FCDM-XL, 256 px."""
    for width in (416, 1664):
        tile: dict[str, Any] = {"CHANNELS": width, "K": 3, "COLUMNS": TILING.columns, "BLOCK": TILING.block}
        tile |= {"GELU": True, "num_warps": TILING.block // 32}
        yield _compilation("depthwise_gelu", f"C {width}, K 3", triton_depthwise.depthwise_kernel, tile)
    for side, width in ((32, 384), (8, 1536)):
        tile = triton_group_norm_gelu.options(side**2, width, 32, dtype.itemsize, modulated=True)
        kernel = triton_group_norm_gelu.group_norm_gelu_kernel
        yield _compilation("group_norm_gelu", f"C {width}, 32 groups", kernel, tile)
    for side, width in ((32, 512), (8, 2048)):
        tile = triton_depthwise_norm.options(width, 7, dtype.itemsize)
        kernel = triton_depthwise_norm.depthwise_norm_kernel
        yield _compilation("depthwise_norm", f"C {width}, K 7", kernel, tile)
        for name, C, D, skip in (
            ("gelu_product", width, 3 * width, 0),
            ("scaled_product", 3 * width, width, 0),
            ("shuffled_product", width, width, width),
        ):
            out = torch.empty(1, side, side, D, dtype=dtype, device="meta")
            scaled = name == "scaled_product"
            what = {"C": C, "SKIP": skip, "D": D, "GELU": name == "gelu_product", "INTERPRETED": False}
            what |= dict.fromkeys(("SCALED", "SHIFTED", "GATED"), scaled)
            tile = {**what, **triton_product.options(out, scaled=scaled), "PRECISION": "ieee"}
            sizes = f"C {C}, D {D}" + f", skip {skip}" * (skip > 0)
            yield _compilation(name, sizes, triton_product.product_kernel, tile)


def _compilation(name: str, sizes: str, kernel: Any, tile: dict[str, Any]) -> Compilation:  # noqa: ANN401
    warps = tile.pop("num_warps")
    return Compilation(name=name, sizes=sizes, kernel=kernel, constants=tile, warps=warps)


def compiled(one: Compilation, dtype: torch.dtype, sm: int) -> Resources:
    """Compile for one architecture, and read what the assembler reports."""
    pointers = {"squares": "*fp32", "totals": "*fp32"}
    scalars = {"height": "i32", "width": "i32", "rows": "i32", "pixels": "i32", "eps": "fp32"}
    types = {
        name: "constexpr"
        if name in one.constants
        else scalars.get(name) or pointers.get(name, f"*{TYPES[dtype]}")
        for name in one.kernel.arg_names
    }
    # pointers of torch are aligned to 16 bytes, which the kernel is specialised for when it is called
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(one.kernel.arg_names)
        if types[name].startswith("*")
    }
    source = ASTSource(one.kernel, types, one.constants, aligned)
    made = triton.compile(source, target=GPUTarget("cuda", sm, 32), options={"num_warps": one.warps})
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        usage = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    return Resources(
        kernel=one.name,
        sizes=one.sizes,
        dtype=TYPES[dtype],
        sm=sm,
        warps=one.warps,
        registers=found["REG"],
        shared_bytes=made.metadata.shared,
        spilled_bytes=found["STACK"] + found["LOCAL"],
        source=f"models.kernels.fused.resources with Triton {triton.__version__}",
    )


def main() -> int:
    rows = [
        asdict(compiled(one, dtype, sm))
        for dtype in TYPES
        for sm in ARCHITECTURES
        for one in compilations(dtype)
    ]
    writer = csv.DictWriter(sys.stdout, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
