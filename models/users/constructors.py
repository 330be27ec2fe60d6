"""Calls of users' constructors with the values of a task, by the field's keywords."""

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from models.task import LATENTS, PIXELS, Task, named_task
from models.users.names import UnfitError

if TYPE_CHECKING:
    from torch import nn

Constructor = Callable[..., "nn.Module"]

SIDES = ("input_size", "img_size", "image_size", "sample_size", "latent_size", "img_resolution", "resolution")
IN_CHANNELS = ("in_channels", "in_chans", "input_channels", "img_channels", "in_ch")
OUT_CHANNELS = ("out_channels", "out_chans", "output_channels", "out_ch")
CLASSES = ("num_classes", "n_classes", "class_num", "num_class_embeds", "num_embeds_ada_norm")
LEARN_SIGMA = ("learn_sigma",)

_VALUES: dict[str, Callable[[Task], Any]] = {
    **dict.fromkeys(SIDES, lambda task: task.latent_size),
    **dict.fromkeys(IN_CHANNELS, lambda task: task.in_channels),
    **dict.fromkeys(OUT_CHANNELS, lambda task: task.out_channels),
    **dict.fromkeys(CLASSES, lambda task: task.num_classes),
    **dict.fromkeys(LEARN_SIGMA, lambda task: task.learn_sigma),
}


def task_of(given: Mapping[str, Any]) -> Task:
    """The task of a model with the given arguments: latents of 32 x 32 x 4, or for three channels pixels.

    Args:
        given: replaces fields of the task, or names it by "task" (see `named_task`). A size is that of the
            latent at 256 px, or of an image in px.

    Raises:
        ValueError: a value that no task has.
    """
    fields: dict[str, Any] = {}
    for field, keys in (
        ("latent_size", SIDES),
        ("in_channels", IN_CHANNELS),
        ("num_classes", CLASSES),
        ("learn_sigma", LEARN_SIGMA),
    ):
        values = [given[key] for key in keys if given.get(key) is not None]
        if values:
            fields[field] = values[0]
    for field, value in fields.items():
        sides = value if field == "latent_size" and isinstance(value, tuple | list) else (value,)
        if len(sides) > 2 or not all(isinstance(side, int) for side in sides):
            raise ValueError(f"{field}: must be a whole number, got {value!r}")
        fields[field] = value if len(sides) == 1 else tuple(sides)
    if isinstance(named := given.get("task"), str):
        return replace(named_task(named), **fields)
    task = replace(PIXELS if fields.get("in_channels") == 3 else LATENTS, **fields)
    if "latent_size" not in fields or task.factor == 1:
        return task
    if 256 % task.height or task.height != task.width:
        raise ValueError(f"latent_size: must be a divisor of 256 px, got {task.latent_size}")
    return replace(task, factor=256 // task.height)


def call(constructor: Constructor, task: Task, given: Mapping[str, Any]) -> "nn.Module":
    """Call a constructor with a task's values and the given arguments, which come first.

    A constructor gets the task itself for a parameter `task`, for its one required parameter where that is no
    keyword of the field, and for *args alone.

    Raises:
        UnfitError: arguments that it does not take, or others that it needs.
        whatever the constructor raises.
    """
    from torch import nn

    if isinstance(constructor, type) and constructor.__init__ is nn.Module.__init__ and not given:  # type: ignore[misc]
        return constructor()
    known, takes_any = parameters(constructor)
    # at another size of the image than `task_of` assumes, a given size is the task's
    given = {
        key: task.latent_size if key in SIDES and value else value
        for key, value in given.items()
        if not (key == "task" and isinstance(value, str))  # a name that `task_of` reads
    }
    unknown = [key for key in given if key not in known]
    if unknown and not takes_any:
        names = ", ".join(known) or "none"
        raise UnfitError(f"takes no {', '.join(unknown)}; its arguments are {names}")
    needed = [name for name, p in known.items() if p.default is p.empty and name not in given]
    whole = [name for name, p in known.items() if name == "task" or p.annotation in (Task, "Task")]
    if not whole and len(needed) == 1 and needed[0] not in _VALUES:
        whole = needed
    if whole and known[whole[0]].kind is inspect.Parameter.POSITIONAL_ONLY:
        return constructor(task, **given)
    if whole:
        return constructor(**{whole[0]: task, **given})
    if takes_any and not known and not _takes_keywords_only(constructor):
        return constructor(task, **given)
    if missing := [name for name in needed if name not in _VALUES]:
        raise UnfitError(f"needs {', '.join(missing)}: --model-args {','.join(f'{m}=...' for m in missing)}")
    values = {name: _VALUES[name](task) for name in known if name in _VALUES}
    return constructor(**{**values, **given})


def _takes_keywords_only(constructor: Constructor) -> bool:
    try:
        kinds = {p.kind for p in inspect.signature(constructor).parameters.values()}
    except (TypeError, ValueError):
        return False
    return kinds == {inspect.Parameter.VAR_KEYWORD}


def parameters(constructor: Constructor) -> tuple[dict[str, inspect.Parameter], bool]:
    """Named parameters of a callable, those behind its **kwargs included, and whether it takes others too."""
    try:
        signature = inspect.signature(constructor)
    except (TypeError, ValueError):
        return {}, True
    found = {
        name: p for name, p in signature.parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }
    rest = next((name for name, p in signature.parameters.items() if p.kind is p.VAR_KEYWORD), None)
    if rest is None:
        return found, any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values())
    behind, takes_any = _behind(constructor, rest)
    return {**behind, **found}, takes_any


def _behind(constructor: Constructor, rest: str) -> tuple[dict[str, inspect.Parameter], bool]:
    """Parameters of what a function passes its **kwargs on to, without those that it sets itself.

    As in DiT's `def DiT_XL_2(**kwargs): return DiT(depth=28, hidden_size=1152, **kwargs)`.
    """
    fixed: set[str] = set()
    after: tuple[type, ...] = ()
    while isinstance(constructor, functools.partial):
        fixed |= constructor.keywords.keys()
        constructor = constructor.func
    function: Any = constructor
    if isinstance(constructor, type):
        owner = next(base for base in constructor.__mro__ if "__init__" in vars(base))
        function, after = vars(owner)["__init__"], constructor.__mro__[constructor.__mro__.index(owner) + 1 :]
    function = inspect.unwrap(function)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return {}, True
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        passes_on = any(
            word.arg is None and isinstance(word.value, ast.Name) and word.value.id == rest
            for word in node.keywords
        )
        target = _target(node.func, function, after) if passes_on else None
        if target is None:
            continue
        behind, takes_any = parameters(target)
        fixed |= {word.arg for word in node.keywords if word.arg is not None}
        fixed |= set(list(behind)[: len(node.args)])
        return {name: p for name, p in behind.items() if name not in fixed}, takes_any
    return {}, True


def _target(node: ast.expr, function: Any, after: Sequence[type]) -> Constructor | None:  # noqa: ANN401
    """The callable that a call in a function's source names; None if the source does not say.

    Args:
        node: what is called.
        function: in which it is called.
        after: classes after that of a method, for super().
    """
    names = ast.unparse(node).split(".")
    if names[0].startswith("super("):
        return next((base for base in after if "__init__" in vars(base)), None)
    found = getattr(function, "__globals__", {}).get(names[0])
    for name in names[1:]:
        found = getattr(found, name, None)
    return found if callable(found) else None
