"""What torchrun tells the processes that it starts, read from the environment."""

import importlib.util
import os


def world_size() -> int:
    """The number of processes that torchrun started; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process among all that torchrun started; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """The number of this process among those of torchrun on this machine; 0 without torchrun."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def why_not(count: int) -> str | None:
    """The reason why so many processes cannot train together on this machine; None if they can."""
    if count > 1 and importlib.util.find_spec("accelerate") is None:
        return (
            f"WORLD_SIZE {count}: several processes need accelerate, which is not installed; "
            "pip install accelerate"
        )
    return None
