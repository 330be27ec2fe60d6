"""The device at hand: waiting for it, timing on it, its precision switches, its memory."""

import os
from collections.abc import Callable
from pathlib import Path

import torch

DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "torch-default": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def default() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def synchronise(device: str) -> Callable[[], None]:
    """What waits until the device has finished; a CPU has when a call returns."""
    if device.startswith("cuda"):
        return lambda: torch.cuda.synchronize(device)
    return lambda: None


def cuda_timer(call: Callable[[], object]) -> Callable[[], float]:
    """Run a call between two events of the current stream; read gives the seconds between them."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    call()
    end.record()
    return lambda: start.elapsed_time(end) / 1e3


def set_precision(precision: str) -> tuple[bool, bool]:
    """Set both TF32 switches, that of matrix products and that of convolutions.

    fp32 turns both off and tf32 both on. torch by itself, "torch-default", has the second on and the first
    off, so that tables measured under it as "fp32" favour convolutional networks.

    Matrix products within Triton kernels, such as those of flash-linear-attention, know no switch of torch's
    and take TF32 by themselves: under fp32 Triton is told not to, under torch-default it is left to itself. A
    kernel that asks for TF32 itself has it all the same.

    Returns:
        Both as they read back: matrix products, convolutions.
    """
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision in ("tf32", "torch-default")
    os.environ.pop("TRITON_F32_DEFAULT", None)
    if precision in ("fp32", "tf32"):
        os.environ["TRITON_F32_DEFAULT"] = "ieee" if precision == "fp32" else "tf32"
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def why_not(device: str, precision: str) -> str | None:
    """Say why a precision cannot be measured on a device; None where it can."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        return (
            f"--device {device}: torch {torch.__version__} sees no CUDA device here; --device cpu would work"
        )
    if precision == "tf32":
        if not device.startswith("cuda"):
            return "--precision tf32: only a CUDA device has it; fp32 would work"
        if torch.cuda.get_device_capability(device) < (8, 0):
            return "--precision tf32: this GPU is older than Ampere; fp32 would work"
    return None


def free_host_bytes() -> int | None:
    """Bytes that a new process may take before the system or its container kills something; None: unknown."""
    limits = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(1024 * int(line.split()[1]))
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    cap, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if cap.exists() and used.exists() and (text := cap.read_text().strip()).isdigit():
        limits.append(int(text) - int(used.read_text()))
    return min(limits) if limits else None


def cuda_bytes(device: str) -> int:
    """Memory of a CUDA device, as torch sees it: less than its nominal size by what the driver keeps."""
    return torch.cuda.get_device_properties(device).total_memory
