"""Random numbers of training: generators seeded by strings, and the state of the global generators."""

import hashlib
import random
from typing import Any

import numpy as np
import torch


def key(*words: int | str) -> int:
    """Hash strings to a 63-bit seed."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1  # all generators accept 63 bits


def generator(device: str, *words: int | str) -> torch.Generator:
    """A torch generator on a device, seeded by strings. CPU and CUDA generators give different numbers."""
    return torch.Generator(device).manual_seed(key(*words))


def permutation(n: int, *words: int | str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """A permutation of n seeded by strings, equal on every device."""
    order: np.ndarray[tuple[int], np.dtype[np.int64]] = np.random.Generator(
        np.random.PCG64(key(*words))
    ).permutation(n)
    return order


def seed_global(*words: int | str) -> None:
    """Seed the global generators of torch, Python and NumPy, from which layers may draw."""
    seed = key(*words)
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def state(device: str) -> dict[str, Any]:
    """The state of the global generators, in types that torch.load reads with weights_only=True."""
    drawn = np.random.get_state(legacy=False)
    assert isinstance(drawn, dict)  # guaranteed by legacy=False
    numbers = drawn["state"]["key"].astype(np.int64)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.startswith("cuda") else None,
        "python": random.getstate(),
        "numpy": {**drawn, "state": {**drawn["state"], "key": torch.from_numpy(numbers)}},
    }


def restore(state: dict[str, Any], device: str) -> None:
    """Set the global generators to a state."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
    random.setstate(state["python"])
    drawn = state["numpy"]
    numbers = drawn["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state({**drawn, "state": {**drawn["state"], "key": numbers}})
