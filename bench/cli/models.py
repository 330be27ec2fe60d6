"""Model names from the command line, checked before measuring."""

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.options import DefaultSizes, UsageError, usage_errors
from bench.records.base import Size, height_width, size_text

if TYPE_CHECKING:
    from torch import nn

USUAL_RES = 256  # px, of most papers


def model_names(given: Sequence[str] | None, default: Sequence[str], flag: str = "--model") -> list[str]:
    """Names of --model or another argument, with patterns expanded, without repetitions, in order."""
    from models.registry import is_plugin, names, printed

    found: list[str] = []
    for name in given or default:
        if not is_plugin(name) and any(sign in name for sign in "*?["):
            matches = names(name)
            if not matches:
                all_of_them = names("*@*" if "@" in name else "*")
                raise UsageError(
                    f"{flag} {name}: matches no backbone; all of them are {', '.join(all_of_them)}"
                )
            found += matches
        else:
            with usage_errors(f"{flag} "):
                found.append(printed(name))
    return list(dict.fromkeys(found))


def sizes_of(name: str, sizes: Sequence[Size], flag: str = "--model") -> list[Size]:
    """The sizes of a model: those given, or in place of default ones its own, where that is not 256 px."""
    from models.registry import published_task

    with usage_errors(f"{flag} "):
        own = published_task(name).res
    if own != USUAL_RES and isinstance(sizes, DefaultSizes):
        return [own]
    return list(dict.fromkeys(sizes))


def by_size(names: Sequence[str], sizes: Sequence[Size]) -> list[list[tuple[str, Size]]]:
    """Models with their sizes, in groups of one size; a model at its own size is in the first group."""
    sized = {name: sizes_of(name, sizes) for name in names}
    return [
        [(name, sized[name][at]) for name in names if at < len(sized[name])]
        for at in range(max(map(len, sized.values())))
    ]


@cache
def _note_other_sizes(sized: tuple[tuple[str, Size], ...]) -> None:
    """Name in one line the models that were published for another size; once in a command."""
    from models.registry import published_task

    others = [(name, size) for name, size in sized if size != published_task(name).res != USUAL_RES]
    if not others:
        return
    names = list(dict.fromkeys(name for name, _ in others))
    here = ", ".join(dict.fromkeys(size_text(size) for _, size in others))
    if len(names) == 1:
        _say(f"{names[0]} was published for {size_text(published_task(names[0]).res)} px; here at {here} px")
        return
    own = ", ".join(f"{name} ({size_text(published_task(name).res)} px)" for name in names)
    _say(f"published for another size, here at {here} px: {own}")


def meta_models(
    names: Sequence[str], sizes: Sequence[Size], weights: Path | None, flag: str = "--model"
) -> dict[tuple[str, Size], "nn.Module"]:
    """Build every model at every size on the meta device, to find errors before measuring.

    A user's model is also called once and checked against the interface; one that meta tensors cannot bear is
    on a real device.
    """
    from models.weights import load_official, read_weights

    if weights is not None and len(names) != 1:
        raise UsageError(f"--weights {weights}: belongs to one --model, got {len(names)}: {', '.join(names)}")
    sized = _sized(names, sizes, flag)
    built = {(name, size): _on_meta(name, size, flag) for name, size in sized}
    _note_other_sizes(sized)
    if weights is not None:
        with usage_errors("--weights "):
            read = read_weights(weights)
            prefixes = {load_official(model, read) for model in built.values()}
        taken = [f"without the prefix {prefix!r}" for prefix in prefixes if prefix]
        if read.container or taken:
            _say(" ".join(["--weights", read.source, *taken, "is read" if read.container else "are read"]))
    return built


def container_of(weights: Path | None) -> str:
    """Key of the weights within a checkpoint that was checked; blank for a plain state_dict."""
    from models.weights import read_weights

    return "" if weights is None else read_weights(weights).container


def check_models(
    names: Sequence[str], sizes: Sequence[Size], weights: Path | None, flag: str = "--model"
) -> "dict[tuple[str, Size], nn.Module | None]":
    """Check as `meta_models`, without building models of ours unless weights are given.

    Returns:
        The models that were built: a user's, as of `meta_models`; None for ours.
    """
    if weights is not None:
        return dict(meta_models(names, sizes, weights, flag))
    sized = _sized(names, sizes, flag)
    found = {(name, size): _checked(name, size, flag) for name, size in sized}
    _note_other_sizes(sized)
    return found


def _sized(names: Sequence[str], sizes: Sequence[Size], flag: str) -> tuple[tuple[str, Size], ...]:
    return tuple((name, size) for name in names for size in sizes_of(name, sizes, flag))


def check_impl(names: Sequence[str], impls: Sequence[str]) -> None:
    for impl in set(impls) - {"reference"}:
        for name in names:
            _has(name, impl)


@cache
def _has(name: str, impl: str) -> None:
    from models.contract import build
    from models.registry import published_task

    with usage_errors(f"--impl {impl}: "):
        build(name, published_task(name), impl=impl)


@cache
def _checked(name: str, size: Size, flag: str) -> "nn.Module | None":
    """As `_on_meta`, once in a process, without building a model of ours."""
    from models.contract import check_task
    from models.registry import find, is_plugin, task_at

    if is_plugin(name):
        return _on_meta(name, size, flag)
    with usage_errors(f"{flag} "):
        find(name)
    with usage_errors(f"{flag} ", f" (at --res {size_text(size)})"):
        check_task(name, task_at(name, *height_width(size)))
    return None


def _on_meta(name: str, size: Size, flag: str) -> "nn.Module":
    from models.contract import build, check
    from models.registry import find, is_plugin, task_at
    from models.users.calls import notes_of

    with usage_errors(f"{flag} "):
        find(name)
    with usage_errors(f"{flag} ", f" (at --res {size_text(size)})"):
        task = task_at(name, *height_width(size))
        if not is_plugin(name):
            return build(name, task)
        model = check(name, task, either_sigma=True)
    for note in notes_of(model):
        _say(f"{name}: {note}")
    return model


@cache
def _say(note: str) -> None:
    print(note, file=sys.stderr)
