"""Synchronisation, event timing, precision switches and memory of a device."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "torch-default": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def default() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def in_hardware(where: str, precisions: Sequence[str]) -> list[str]:
    """Those of some precisions that are not emulated: all, but for bf16 on a CPU without its instructions."""
    emulates = where == "cpu" and not has_bf16_instructions()
    return [precision for precision in precisions if not (emulates and precision == "bf16")]


def has_bf16_instructions() -> bool:
    """Whether the CPU multiplies bf16 in hardware; otherwise torch emulates it, slower than fp32."""
    has = torch.cpu.get_capabilities()
    return any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))


def synchronise(device: str) -> Callable[[], None]:
    """Function that waits until the device has finished; it does nothing on a CPU."""
    if device.startswith("cuda"):
        return lambda: torch.cuda.synchronize(device)
    return lambda: None


def cuda_timer(call: Callable[[], object]) -> Callable[[], float]:
    """Run a call between two events of the current stream; returns a reader of the seconds between them."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    call()
    end.record()
    return lambda: start.elapsed_time(end) / 1e3


def set_precision(precision: str) -> tuple[bool, bool]:
    """Set the TF32 switches of matrix products and of convolutions.

    fp32 turns both off and tf32 both on. Torch's own default, "torch-default", is off for products and on for
    convolutions, so tables measured under it as "fp32" favour convolutional networks.

    Matrix products in Triton kernels, such as those of flash-linear-attention, ignore torch's switches and
    use TF32 by default; fp32 turns this off in Triton too, unless a kernel requests TF32 explicitly.

    Returns:
        The switches as read back: matrix products, convolutions.
    """
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision in ("tf32", "torch-default")
    os.environ.pop("TRITON_F32_DEFAULT", None)
    if precision in ("fp32", "tf32"):
        os.environ["TRITON_F32_DEFAULT"] = "ieee" if precision == "fp32" else "tf32"
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def lay_channels_last(network: nn.Module) -> None:
    """Lay the kernels of a network out channels last, in place."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in its stub


def why_not(device: str, precision: str) -> str | None:
    """Reason why a precision cannot be measured on a device; None if it can."""
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
    """Free memory for a new process within the limits of system and container; None: unknown."""
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


def resident_peak_bytes() -> int | None:
    """Peak resident memory of this process, with Python and torch's libraries; None outside Linux."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def cuda_bytes(device: str) -> int:
    """Memory of a CUDA device visible to torch: its nominal size less the driver's share."""
    return torch.cuda.get_device_properties(device).total_memory
