"""Users' networks called as model(x, t, y): arguments by the field's names, and the sample in the output."""

import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from models.users.names import UnfitError

# the field's names of a network's arguments
NAMES = {
    "x": (
        *("x", "sample", "samples", "hidden_states", "latents", "latent", "z", "x_t", "xt", "x_in", "noisy"),
        *("input", "inputs", "img", "image", "images"),
    ),
    "t": (
        *("t", "timesteps", "timestep", "time", "times", "time_step", "time_steps", "ts", "t_emb"),
        *("sigma", "sigmas", "noise_labels", "noise_level", "noise_levels"),
    ),
    "y": ("y", "class_labels", "class_label", "labels", "label", "classes", "class_ids", "cls"),
}
LETTERS = {name: letter for letter, names in NAMES.items() for name in names}
TEXT = {"encoder_hidden_states", "context", "prompt_embeds", "text", "text_embeds", "caption", "crossattn"}
_notes: WeakKeyDictionary[nn.Module, list[str]] = WeakKeyDictionary()


def notes_of(model: nn.Module) -> list[str]:
    """What was done to call a user's network as model(x, t, y), in words."""
    return _notes.setdefault(model, [])


def adapt(model: nn.Module, *, conditional: bool = True) -> None:
    """Make a user's network callable as model(x, t, y) by hooks; its class and keys stay as they are.

    Args:
        model: its `forward` takes the three in this order, or under the field's names.
        conditional: whether it takes labels.

    Raises:
        UnfitError: it needs an argument that is none of the three.
    """
    order = arguments(model, conditional=conditional)
    if order is not None:
        called = ", ".join(f"{name}={letter}" for name, letter in order.items())
        notes_of(model).append(f"called with {called}{'' if 'y' in order.values() else ', without labels'}")

        def rename(_: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:  # noqa: ANN401
            given = dict(zip("xty", args, strict=False))
            return (), {**{name: given[letter] for name, letter in order.items()}, **keywords}

        model.register_forward_pre_hook(rename, with_kwargs=True)
    model.register_forward_hook(_sample)


def arguments(model: nn.Module, *, conditional: bool = True) -> Mapping[str, str] | None:
    """The letter that each argument of a network's `forward` gets; None if x, t, y fit in this order.

    UnfitError: as `adapt`.
    """
    try:
        parameters = list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):  # compiled by TorchScript
        return None
    named = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
    if any(p.kind is p.VAR_POSITIONAL for p in named):
        return None
    found: dict[str, str] = {}
    for p in named:
        letter = LETTERS.get(p.name)
        if letter is not None and letter not in found.values() and (conditional or letter != "y"):
            found[p.name] = letter
    others = [p.name for p in named if p.default is p.empty and p.name not in found]
    missing = [letter for letter in "xty"[: 3 if conditional else 2] if letter not in found.values()]
    if len(others) <= len(missing) and not set(others) & TEXT:
        # as many arguments of other names as letters left, in order
        found = {**found, **dict(zip(others, missing, strict=False))}
        others = []
    signature = f"forward({', '.join([p.name for p in named[:5]] + ['...'] * (len(named) > 5))})"
    if others:
        known = "; ".join(f"{letter}: {', '.join(names[:4])}" for letter, names in NAMES.items())
        raise UnfitError(f"{signature} needs {', '.join(others)}, none of x, t, y; known are {known}")
    if not {"x", "t"} <= set(found.values()):
        return None  # the call says what is wrong
    if conditional and len(named) < len(parameters) and "y" not in found.values():
        found["y"] = "y"  # in **kwargs, as releases pass model_kwargs
    by_place = [found.get(p.name) for p in named[:3] if p.kind is not p.KEYWORD_ONLY]
    return None if by_place == ["x", "t", "y"] else found


def _sample(_: nn.Module, args: object, out: object) -> Tensor | None:
    """Forward hook: the sample in an output that is no tensor; None leaves an output as it is."""
    if isinstance(out, Tensor):
        return None
    found = sample_in(out)
    return None if found is None else found[0]


def sample_in(out: object) -> tuple[Tensor, str] | None:
    """The sample in an output, and where it is; None if there is none.

    `.sample` as in diffusers, the entry "sample" of a mapping, or the first image (N, C, H, W) of a sequence,
    a mapping, a dataclass or an object's attributes.
    """
    named = getattr(out, "sample", None)
    if isinstance(named, Tensor):
        return named, ".sample"
    if isinstance(out, Mapping):
        entries = [(f"[{key!r}]", value) for key, value in out.items()]
        entries.sort(key=lambda entry: entry[0] != "['sample']")
    elif isinstance(out, list | tuple):
        entries = [(f"[{index}]", value) for index, value in enumerate(out)]
    else:
        names = [one.name for one in fields(out)] if is_dataclass(out) else [*getattr(out, "__dict__", {})]
        entries = [(f".{name}", getattr(out, name, None)) for name in names]
    return next(
        ((value, where) for where, value in entries if isinstance(value, Tensor) and value.dim() == 4), None
    )
