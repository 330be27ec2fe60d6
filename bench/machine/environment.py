"""The machine and the software at hand, as a record holds them."""

import datetime
import functools
import hashlib
import importlib.util
import os
import platform
import subprocess
from pathlib import Path

import torch

from bench.records.record import Environment
from models.registry import is_plugin

ROOT = Path(__file__).resolve().parents[2]


def gather(device: str, model: str) -> Environment:
    """Describe a device and the software that a model runs on.

    Args:
        device: cpu, cuda, or meta for counts, which no device makes.
        model: its name; the sources of a user's "my_pkg.my_mod:factory" count among the software.

    Raises:
        ValueError: a package of a user's module cannot be imported.
    """
    kind = torch.device(device).type
    cuda = kind == "cuda"
    return Environment(
        device=_name(device, kind),
        device_type=kind,
        driver=_driver() if cuda else "",
        cuda=torch.version.cuda or "",
        torch=torch.__version__,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        threads=torch.get_num_threads(),
        commit=_commit(),
        code=_code(model),
        unit=_unit(device) if cuda else "",
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    )


def _name(device: str, kind: str) -> str:
    """As the driver names a GPU; a CPU with its threads, as few of a shared machine's cores may be ours."""
    if kind == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_cpu_name()} ({torch.get_num_threads()} threads)" if kind == "cpu" else ""


def _unit(device: str) -> str:
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    return hashlib.sha256(uuid.encode()).hexdigest()[:8]


@functools.cache
def _code(model: str) -> str:
    """Head of the SHA-256 over the sources of the backbones, of the benches and of a user's own module."""
    files = sorted(path for package in ("models", "bench") for path in (ROOT / package).rglob("*.py"))
    if is_plugin(model):
        module = model.partition(":")[0]
        try:
            spec = importlib.util.find_spec(module)  # imports the packages that hold it
        except (ImportError, ValueError, SyntaxError) as error:
            raise ValueError(f"{model}: cannot import {module!r}: {error}") from error
        if spec is not None and spec.origin is not None:
            files.append(Path(spec.origin))
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@functools.cache
def _said(*command: str) -> str:
    """The first line a command prints; blank where it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip().partition("\n")[0]


@functools.cache
def _cpu_name() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        named = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = named[0].partition(":")[2].strip() if named else ""
    else:
        name = _said("sysctl", "-n", "machdep.cpu.brand_string")
    return name or platform.machine()


def _driver() -> str:
    return _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")


def _commit() -> str:
    """The commit of the checkout that this module lies in.

    An installed copy, or one that was taken to another machine without its history, does not know, nor does
    a checkout whose git is missing or refuses, as it does another owner's: there the variable BENCH_COMMIT
    says it, if it is set.
    """
    git = ("git", "-C", str(ROOT))
    # without a .git here, git would answer for a repository that this folder happens to lie in
    commit = _said(*git, "rev-parse", "--short=12", "HEAD") if (ROOT / ".git").exists() else ""
    if not commit:
        return os.environ.get("BENCH_COMMIT", "")
    changed = _said(*git, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+dirty" if changed else commit
