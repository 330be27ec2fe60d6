"""Paths of a network's modules, and the module that calls an operator."""

import re
from bisect import bisect_right
from collections.abc import Iterable
from typing import Self

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

ITSELF = "(itself)"  # path of the network
_NUMBER = re.compile(r"(\d+)")


def folded_paths(model: nn.Module) -> dict[str, str]:
    """Paths of a model's modules, by name, with * in place of what numbers repeated blocks.

    These are indices of lists, and numbers in which keys of one dict differ that are equal otherwise: of
    64x64_block0, 64x64_block1 and 8x8_block0, *x*_block*. The network itself is "(itself)".
    """
    modules = dict(model.named_modules())  # parents first
    keys = {name: _folded(part.keys()) for name, part in modules.items() if isinstance(part, nn.ModuleDict)}
    found = {"": ""}
    for name in modules:
        parent, _, key = name.rpartition(".")
        part = "*" if key.isdigit() else keys.get(parent, {}).get(key, key)
        found[name] = f"{found[parent]}.{part}".strip(".")
    return {name: path or ITSELF for name, path in found.items()}


def _folded(keys: Iterable[str]) -> dict[str, str]:
    """Keys with * for each number in which they differ from keys of the same text."""
    families: dict[tuple[str, ...], list[list[str]]] = {}
    for key in keys:
        parts = _NUMBER.split(key)
        families.setdefault(tuple(parts[::2]), []).append(parts)
    found = {}
    for members in families.values():
        common = [part[0] if len(set(part)) == 1 else "*" for part in zip(*members, strict=True)]
        found.update(dict.fromkeys(map("".join, members), "".join(common)))
    return found


class RunningModules:
    """Context manager that finds the module that calls an operator.

    A backward call belongs to the module of the differentiated forward call: autograd numbers its nodes in
    the order of the forward pass.
    """

    def __init__(self, model: nn.Module) -> None:
        paths = folded_paths(model)
        self._paths = {module: paths[name] for name, module in model.named_modules()}
        self._running = [ITSELF]
        # module _ran[i] made the nodes from autograd number _numbers[i] on
        self._numbers = [0]
        self._ran = self._running[:]

    def __enter__(self) -> Self:
        self._hooks = [
            register_module_forward_pre_hook(self._entered),
            register_module_forward_hook(self._left),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _entered(self, module: nn.Module, _args: object) -> None:
        self._running.append(self._paths.get(module, self._running[-1]))
        self._note()

    def _left(self, _module: nn.Module, _args: object, _out: object) -> None:
        self._running.pop()
        self._note()

    def _note(self) -> None:
        self._numbers.append(torch._C._autograd._get_sequence_nr())
        self._ran.append(self._running[-1])

    def calling(self, phase: str) -> str:
        """Path of the calling module, as of `folded_paths`."""
        if phase == "forward":
            return self._running[-1]
        node = torch._C._current_autograd_node()
        if node is not None and node._sequence_nr() <= self._numbers[-1]:
            self._running[-1] = self._ran[bisect_right(self._numbers, node._sequence_nr()) - 1]
        return self._running[-1]  # sums of gradients between two nodes belong to the earlier node
