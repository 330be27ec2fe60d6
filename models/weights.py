"""Weights of a backbone: loading the authors' checkpoints, and random values in place of initial zeros."""

import argparse
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from models.registry import FAMILIES

COMPUTED = ("pos_embed",)  # tables that a model computes: where not trained, a checkpoint may lack them


def official_name(model: nn.Module, name: str) -> str:
    """The name of a parameter in the authors' checkpoint; a user's model keeps its own names."""
    renames = next((family.official for family in FAMILIES.values() if type(model) is family.network), ())
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def load_official(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load a checkpoint under its authors' names. Every key is checked before anything is copied.

    Only DiT's fixed `pos_embed`, which the model computes, may be missing. A model on the meta device is
    checked in the same way and stays there.

    Args:
        model: one of our backbones, or a user's, whose keys are those of its own state_dict.
        state_dict: released name -> tensor.

    Raises:
        ValueError: names every key that is missing, unexpected or of the wrong shape.
    """
    wanted = {official_name(model, name): tensor for name, tensor in model.state_dict().items()}
    fixed = {official_name(model, name) for name, p in model.named_parameters() if not p.requires_grad}
    optional = fixed.intersection(COMPUTED)
    odd = {
        "missing": [key for key in wanted if key not in state_dict and key not in optional],
        "unexpected": [key for key in state_dict if key not in wanted],
        "of the wrong shape": [
            f"{key} {tuple(value.shape)} instead of {tuple(wanted[key].shape)}"
            for key, value in state_dict.items()
            if key in wanted and value.shape != wanted[key].shape
        ],
    }
    if any(odd.values()):
        listed = "; ".join(f"{what}: {', '.join(keys)}" for what, keys in odd.items() if keys)
        raise ValueError(f"state_dict: does not fit this {type(model).__name__}: {listed}")
    with torch.no_grad():
        for key, value in state_dict.items():
            wanted[key].copy_(value)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint file, .safetensors or of torch.save, without running code from it.

    Of a training checkpoint the averaged weights ("ema") are taken, else "model".

    Raises:
        ValueError: no such file, not a checkpoint, or no named tensors in it.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                return load_file(path)
            except SafetensorError as error:
                raise ValueError(f"{path}: not a safetensors file: {error}") from error
        # DiT's training script and its descendants store their argparse.Namespace in the checkpoint
        with torch.serialization.safe_globals([argparse.Namespace]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, OSError, LookupError) as error:
        raise ValueError(
            f"{path}: not a checkpoint: neither .safetensors nor a file of tensors that torch.load reads "
            f"with weights_only=True ({type(error).__name__})"
        ) from error
    for key in ("ema", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not (
        isinstance(loaded, Mapping)
        and loaded
        and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in loaded.items())
    ):
        raise ValueError(f"{path}: contains no named tensors, at the top or under ema or model")
    return dict(loaded)


def randomise_zeros(model: nn.Module, seed: int = 0) -> list[str]:
    """Fill every parameter that is all zeros with random values, so that no kernel is measured on zeros.

    Weights become N(0, 1/fan-in), with fan-in the product of all dimensions but the first; vectors, which
    are biases, N(0, 0.02). Modulations, gates and last projections start at zero in these networks: left so,
    whole branches would add nothing, and zeros multiply faster on some devices.

    Args:
        model: on any device; a model on the meta device is left unchanged.
        seed: the same seed gives the same values on the same kind of device.

    Returns:
        The names of the filled parameters.
    """
    filled = []
    generators: dict[torch.device, torch.Generator] = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.is_meta or not parameter.is_floating_point() or torch.any(parameter != 0):
                continue
            device = parameter.device
            if device not in generators:
                generators[device] = torch.Generator(device).manual_seed(seed)
            std = 0.02 if parameter.dim() < 2 else parameter[0].numel() ** -0.5
            parameter.normal_(std=std, generator=generators[device])
            filled.append(name)
    return filled
