"""Environment of records: this machine and its software."""

import datetime
import functools
import hashlib
import os
import platform
import subprocess
from pathlib import Path

import torch

from bench.machine import sources
from bench.machine.sources import ROOT
from bench.records.base import Case, Environment
from models import users
from models.registry import ENTRIES, family_of, is_plugin

DRIVER = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")


def gather(device: str, model: str, *, fast: bool = False) -> Environment:
    """Describe a device and the software of a model, a user's too. ValueError: it cannot be imported."""
    kind = torch.device(device).type
    cuda = kind == "cuda"
    return Environment(
        device=_name(device, kind),
        device_type=kind,
        driver=_first_output_line(*DRIVER) if cuda else "",
        cuda=torch.version.cuda or "",
        torch=torch.__version__,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        threads=torch.get_num_threads(),
        commit=_commit(),
        code=_code(model, fast),
        unit=_unit(device) if cuda else "",
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    )


def of(case: Case) -> Environment:
    return gather(case.device, case.source_model, fast=case.runs_fast)


def _name(device: str, kind: str) -> str:
    """Name of a GPU from the driver; of a CPU with its threads, cores if only some, and vector instructions.

    Virtual machines give processors of different generations one name; their instructions change every ratio.
    """
    if kind == "cuda":
        return torch.cuda.get_device_name(device)
    instructions = torch.backends.cpu.get_cpu_capability()
    threads = torch.get_num_threads()
    noun = "thread" if threads == 1 else "threads"
    return f"{_cpu_name()} ({threads} {noun}, {instructions})" if kind == "cpu" else ""


def _unit(device: str) -> str:
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    return hashlib.sha256(uuid.encode()).hexdigest()[:8]


@functools.cache
def _code(model: str, fast: bool) -> str:
    """Identity of the code that decides a model's numbers; a blank name is that of an operator."""
    if is_plugin(model):
        return sources.digest(sources.deciding(None, fast=fast) | users.sources(model))
    module = ENTRIES[family_of(model)].module if model else None
    return sources.digest(sources.deciding(module, fast=fast))


@functools.cache
def _first_output_line(*command: str) -> str:
    """First line of a command's output; blank if it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip().partition("\n")[0]


@functools.cache
def _cpu_name() -> str:
    """The processor's name from the operating system."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        named = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = named[0].partition(":")[2].strip() if named else ""
    else:
        name = _first_output_line("sysctl", "-n", "machdep.cpu.brand_string")
    return name or platform.machine()


def _commit() -> str:
    """Commit of the checkout of this module, otherwise the variable BENCH_COMMIT.

    The commit is unknown in an installed copy, in a copy without its history, or if git is missing or refuses
    the checkout of another owner.
    """
    git = ("git", "-C", str(ROOT))
    # without .git here, git would report an enclosing repository
    commit = _first_output_line(*git, "rev-parse", "--short=12", "HEAD") if (ROOT / ".git").exists() else ""
    if not commit:
        return os.environ.get("BENCH_COMMIT", "")
    changed = _first_output_line(*git, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+dirty" if changed else commit
