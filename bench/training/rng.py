"""Random numbers of training: those that a step's place in the run determines, and the global generators."""

import hashlib
import random
from typing import Any

import numpy as np
import torch


def key(*words: int | str) -> int:
    """A seed for what these words name: the same words, the same seed, and no other words' seed."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1  # of 63 bits, which every generator takes


def generator(device: str, *words: int | str) -> torch.Generator:
    """torch's generator on a device, seeded by these words. Kinds of devices give different numbers."""
    return torch.Generator(device).manual_seed(key(*words))


def permutation(n: int, *words: int | str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """An order of n things that the words determine, the same on every device."""
    order: np.ndarray[tuple[int], np.dtype[np.int64]] = np.random.Generator(
        np.random.PCG64(key(*words))
    ).permutation(n)
    return order


def seed_global(*words: int | str) -> None:
    """Seed what a network's layers may draw from by themselves: torch, Python and NumPy."""
    seed = key(*words)
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def state(device: str) -> dict[str, Any]:
    """Where the global generators stand, as what torch.load reads with weights_only=True."""
    drawn = np.random.get_state(legacy=False)
    assert isinstance(drawn, dict)  # without the legacy form
    numbers = drawn["state"]["key"].astype(np.int64)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.startswith("cuda") else None,
        "python": random.getstate(),
        "numpy": {**drawn, "state": {**drawn["state"], "key": torch.from_numpy(numbers)}},
    }


def restore(state: dict[str, Any], device: str) -> None:
    """Put the global generators where they stood."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
    random.setstate(state["python"])
    drawn = state["numpy"]
    numbers = drawn["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state({**drawn, "state": {**drawn["state"], "key": numbers}})
