"""Weights of a backbone: loading the authors' checkpoints, and random values in place of initial zeros."""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.guard import reading
from models.registry import FAMILIES

# keys under which training scripts store averaged weights, and others
AVERAGED = (
    *("ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "model_ema_state_dict"),
    *("ema_params", "params_ema", "ema_weights", "averaged_model", "averaged", "shadow"),
)
PLAIN = (
    *("model", "state_dict", "model_state_dict", "module", "net", "network", "params", "weights"),
    *("backbone", "denoiser", "generator"),
)
MAX_CONTAINERS = 8  # a hostile file may contain itself
# last parts of the keys of tables that a model computes: where not trained, a checkpoint may lack them
COMPUTED = (
    *("pos_embed", "pos_embed_downsampled", "pos_embed_lvl1", "pos_embed_lvl2"),
    *("freqs_cos", "freqs_sin"),
)


def official_name(model: nn.Module, name: str) -> str:
    """The name of a parameter in the authors' checkpoint; a user's model keeps its own names."""
    renames = next((family.official for family in FAMILIES.values() if type(model) is family.network), ())
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def load_official(model: nn.Module, state_dict: Mapping[str, Tensor]) -> str:
    """Load a checkpoint under its authors' names. Every key is checked before anything is copied.

    Only fixed tables of positions, which the model computes, may be missing. A model on the meta device is
    checked in the same way and stays there.

    Args:
        model: one of our backbones, or a user's, whose keys are those of its own state_dict.
        state_dict: released name -> tensor. Where the keys fit without a wrapper's prefix only ("module.",
            "_orig_mod."), they are taken without it, and what has another prefix is left out.

    Returns:
        The prefix; blank for most.

    Raises:
        ValueError: names the file and the first keys that are missing, unexpected or of the wrong shape.
    """
    wanted = {official_name(model, name): tensor for name, tensor in model.state_dict().items()}
    trained = {official_name(model, name) for name, p in model.named_parameters() if p.requires_grad}
    optional = {key for key in wanted if key not in trained and key.rpartition(".")[2] in COMPUTED}
    prefixes = _prefixes(state_dict, wanted)
    odd, given, prefix = min(
        ((_odd(part, wanted, optional), part, p) for p in prefixes if (part := _without(p, state_dict))),
        key=lambda found: sum(map(len, found[0].values())),
        default=({"missing": list(wanted)}, {}, ""),
    )
    if any(odd.values()):
        source = state_dict.source if isinstance(state_dict, Weights) else "state_dict"
        tried = f" without the prefix {prefix!r}" if prefix else ""
        listed = "; ".join(f"{what}: {_first(keys)}" for what, keys in odd.items() if keys)
        raise ValueError(f"{source}: does not fit this {type(model).__name__}{tried}: {listed}")
    with torch.no_grad():
        for key, value in given.items():
            wanted[key].copy_(value)
    return prefix


def _prefixes(state_dict: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """What may stand before the wanted keys of a checkpoint: nothing, then averages, then the shortest."""
    found = {""}
    for key in state_dict:
        parts = key.split(".")
        rests = {".".join(parts[start:]): ".".join(parts[:start]) + "." for start in range(1, len(parts))}
        found |= {prefix for rest, prefix in rests.items() if rest in wanted}
    return sorted(found, key=lambda prefix: (prefix != "", "ema" not in prefix.lower(), len(prefix), prefix))


def _without(prefix: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}


def _odd(
    given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], optional: set[str]
) -> dict[str, list[str]]:
    """Keys that do not fit, by what is wrong with them."""
    return {
        "missing": [key for key in wanted if key not in given and key not in optional],
        "unexpected": [key for key in given if key not in wanted],
        "of the wrong shape": [
            f"{key} {tuple(value.shape)} instead of {tuple(wanted[key].shape)}"
            for key, value in given.items()
            if key in wanted and value.shape != wanted[key].shape
        ],
    }


def _first(keys: Sequence[str], most: int = 2) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more


class Weights(dict[str, Tensor]):
    """Tensors of a checkpoint file by key.

    Attributes:
        file: the path.
        container: the key, or keys joined by dots, under which the file has them; blank at its top.
    """

    def __init__(self, tensors: Mapping[str, Tensor], file: Path, container: str) -> None:
        super().__init__(tensors)
        self.file = file
        self.container = container

    @property
    def source(self) -> str:
        return f"{self.file}: {self.container}" if self.container else str(self.file)


def read_weights(path: Path) -> Weights:
    """Read a checkpoint file, .safetensors or of torch.save, without running code from it.

    Of a training checkpoint the averaged weights are taken (AVERAGED), else those of a container (PLAIN).

    Raises:
        ValueError: no such file, not a checkpoint, or no named tensors in it.
    """
    if not path.is_file():
        raise ValueError(f"{path}: {'is not a file' if path.exists() else 'no such file'}")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        with reading(path, "a safetensors file"):
            return Weights(load_file(path), path, "")
    # DiT's training script and its descendants store their argparse.Namespace in the checkpoint
    what = "a checkpoint: neither .safetensors nor tensors that torch.load reads with weights_only=True"
    with reading(path, what), torch.serialization.safe_globals([argparse.Namespace]):
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    container: list[str] = []
    while isinstance(loaded, Mapping) and not _are_tensors(loaded):
        if len(container) > MAX_CONTAINERS:
            raise ValueError(f"{path}: contains containers in containers without named tensors")
        key = next((key for key in (*AVERAGED, *PLAIN) if isinstance(loaded.get(key), Mapping)), None)
        if key is None:
            known = ", ".join([*AVERAGED[:3], *PLAIN[:3]])
            held = f"; it has {_first([str(key)[:40] for key in loaded], 4)}" if loaded else ""
            raise ValueError(f"{path}: contains no named tensors, at the top or under {known}, ...{held}")
        container.append(key)
        loaded = loaded[key]
    if not isinstance(loaded, Mapping):
        raise ValueError(f"{path}: contains no named tensors but a {type(loaded).__name__}")
    return Weights(loaded, path, ".".join(container))


def _are_tensors(loaded: Mapping[Any, Any]) -> bool:
    return bool(loaded) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items())


def randomise_zeros(model: nn.Module, seed: int = 0) -> list[str]:
    """Fill every parameter that is all zeros with random values, so that no kernel is measured on zeros.

    Weights become N(0, 1/fan-in), with fan-in the product of all dimensions but the first; vectors, which
    are biases, N(0, 0.02); single numbers, which are gains, N(0, 1). Modulations, gates and last projections
    start at zero in these networks: left so, whole branches would add nothing, and zeros multiply faster on
    some devices.

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
            fan_in = 1 if parameter.dim() == 0 else parameter[0].numel()
            std = 0.02 if parameter.dim() == 1 else fan_in**-0.5
            parameter.normal_(std=std, generator=generators[device])
            filled.append(name)
    return filled
