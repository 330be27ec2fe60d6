"""Settings of torchrun for this process, read from the environment."""

import importlib.util
import os


def world_size() -> int:
    """Number of processes that torchrun started; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Index of this process among all processes of torchrun; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Index of this process among the processes of torchrun on this machine; 0 without torchrun."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def why_unreadable() -> str | None:
    """Reason why a variable of torchrun is not a number; None if all are."""
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        text = os.environ.get(name, "0")
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            return f"{name}: set by torchrun to a whole number, got {text!r}"
    return None


def why_not(count: int) -> str | None:
    """Reason why `count` processes cannot train together on this machine; None if they can."""
    if count > 1 and importlib.util.find_spec("accelerate") is None:
        return (
            f"WORLD_SIZE {count}: several processes need accelerate, which is not installed; "
            "pip install accelerate"
        )
    return None
