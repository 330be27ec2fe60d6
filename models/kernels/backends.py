"""Which implementations of an operator can run: Triton kernels, and CUDA kernels of other packages.

Nothing is imported to find out. A reason is given in words, empty where nothing is missing.
"""

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


_FOUND: dict[str, bool] = {}


def installed(module: str) -> bool:
    """Whether a module can be imported; searched for once, so that torch.compile traces a look-up only."""
    if module not in _FOUND:
        _FOUND[module] = importlib.util.find_spec(module) is not None
    return _FOUND[module]


def why_no_triton() -> str:
    """Why Triton kernels cannot run."""
    return "" if installed("triton") else "triton is not installed (pip install triton)"


def why_not_forward(*given: Tensor) -> str:
    """Why a Triton kernel without gradients cannot take these tensors."""
    first = given[0]
    if autocasts(first):
        return "autocast casts the inputs of torch's operators only"
    if first.dtype not in DTYPES:
        return f"the kernel takes fp32, bf16 and fp16, got {str(first.dtype).removeprefix('torch.')}"
    if torch.is_grad_enabled() and any(one.requires_grad for one in given):
        return "the kernel has no gradient"
    if first.device.type != "cuda":
        return f"the kernel takes CUDA tensors, got {first.device.type}"
    return why_no_triton()


def interpreted() -> bool:
    """Whether Triton interprets its kernels (TRITON_INTERPRET=1); they then take CPU tensors."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def autocasts(x: Tensor) -> bool:
    """Whether autocast is on for the device of x."""
    return x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)


def require_same(what: str, *given: Tensor) -> None:
    """Refuse tensors on different devices, or of different types without autocast.

    Raises:
        ValueError: names the types or the devices.
    """
    first = given[0]
    dtype, device = first.dtype, first.device
    if all(one.dtype == dtype and one.device == device for one in given):
        return
    for kind in ("device",) if autocasts(first) else ("dtype", "device"):
        if any(getattr(one, kind) != getattr(first, kind) for one in given):
            found = (str(getattr(one, kind)).removeprefix("torch.") for one in given)
            raise ValueError(f"{what}: all must have the same {kind}, got {', '.join(found)}")


@dataclass(frozen=True)
class CudaPackage:
    """CUDA kernels of another project for an operator that plain torch computes on any device.

    A back end is "torch", the package by name, or "auto": the package for CUDA tensors where it can run.
    """

    name: str
    modules: Mapping[str, str]  # each module that it needs -> the package to install

    def why_not(self) -> str:
        """Why the package cannot run here. That it can be imported is not enough: fla can without a GPU."""
        if not torch.cuda.is_available():
            return "torch sees no CUDA device here"
        for module, package in self.modules.items():
            if not installed(module):
                return f"{module} is not installed (pip install {package})"
        return ""

    def require(self, backend: str) -> None:
        """Refuse the package by name where it cannot run. A network calls it before any pass is compiled.

        Raises:
            ValueError: says what is missing.
        """
        reason = self.why_not()
        if backend == self.name and reason:
            raise ValueError(f"backend: {self.name} cannot run: {reason}; torch would work")

    def takes(self, backend: str, device: torch.device) -> bool:
        """Whether the package, and not torch, computes on a device. Meta tensors always take torch.

        Raises:
            ValueError: the package by name where it cannot run, or for a device that is not CUDA.
        """
        if device.type == "meta" or backend == "torch":
            return False
        if backend == "auto":
            return device.type == "cuda" and not self.why_not()
        self.require(backend)
        if device.type != "cuda":
            raise ValueError(f"backend: {self.name} takes CUDA tensors, got {device.type}; torch would work")
        return True
