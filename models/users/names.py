"""Names of users' models: net.py:Net, pkg.mod:factory or diffusers:Class, with arguments in parentheses.

Imports no torch and runs no code of the user's.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DIFFUSERS = "diffusers"
FORMS = "net.py:Net, pkg.mod:factory, diffusers:Class or a config.json of diffusers"
_FORM = re.compile(r"(?P<where>.+?)(?::(?P<attribute>[^\W\d][\w.]*))?(?:\((?P<arguments>.*)\))?", re.DOTALL)
_WORDS = {"true": True, "false": False, "null": None}  # of JSON


class UnfitError(ValueError):
    """A user's constructor or network cannot be called with a task, or with x, t and y."""


@dataclass(frozen=True)
class UserModel:
    """A user's model by name."""

    where: str  # a path ending in .py, a dotted module, "diffusers", or a path ending in .json
    attribute: str  # what is called to build it; blank for a config.json
    arguments: Mapping[str, Any]  # keywords given by the user, which replace those of the task

    @property
    def is_file(self) -> bool:
        return self.where.endswith(".py")

    @property
    def is_diffusers(self) -> bool:
        return self.where == DIFFUSERS or self.where.endswith(".json")

    @property
    def name(self) -> str:
        """The name in its printed form: arguments without spaces."""
        base = f"{self.where}:{self.attribute}" if self.attribute else self.where
        given = ",".join(f"{key}={_text(value)}" for key, value in self.arguments.items())
        return f"{base}({given})" if given else base


def is_users(name: str) -> bool:
    """Whether a name is a user's model rather than one of ours."""
    return ":" in name or name.partition("(")[0].endswith(".json")


def file_of(name: str) -> Path | None:
    """The net.py or config.json of a name, which may be missing; None for a name of another form."""
    try:
        model = parse(name)
    except ValueError:
        return None
    return Path(model.where) if model.is_file or model.where.endswith(".json") else None


def parse(name: str) -> UserModel:
    """Take a name apart. ValueError: another form, or arguments that are not key=value."""
    found = _FORM.fullmatch(name)
    where, attribute = (found["where"], found["attribute"] or "") if found else ("", "")
    if found is None or bool(attribute) == where.endswith(".json"):
        raise ValueError(f"{name}: must be {FORMS}")
    if where == DIFFUSERS and attribute.endswith(".json"):  # diffusers:config.json
        where, attribute = attribute, ""
    return UserModel(where, attribute, arguments_of(found["arguments"] or "", f"{name}: "))


def with_arguments(name: str, arguments: Mapping[str, Any]) -> str:
    """The name with more arguments. ValueError: as `parse`, or one given twice with different values."""
    model = parse(name)
    for key, value in arguments.items():
        if model.arguments.get(key, value) != value:
            raise ValueError(f"{name}: has {key}={_text(model.arguments[key])}, got {key}={_text(value)} too")
    return UserModel(model.where, model.attribute, {**model.arguments, **arguments}).name


def arguments_of(text: str, where: str = "") -> dict[str, Any]:
    """Keywords of text such as depth=12,act=gelu,widths=(64,128): literals of Python, or plain words.

    Args:
        text: separated by commas.
        where: start of the error.

    Raises:
        ValueError: text of another form.
    """
    source = f"f({text})"
    try:
        call = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{where}must be key=value,key=value, got {text}") from error
    if not isinstance(call, ast.Call) or call.args or any(word.arg is None for word in call.keywords):
        raise ValueError(f"{where}must be key=value,key=value, got {text}")
    found: dict[str, Any] = {}
    for word in call.keywords:
        assert word.arg is not None
        found[word.arg] = _value(word.value, source)
    return found


def _value(node: ast.expr, source: str) -> Any:  # noqa: ANN401 - whatever the user's code takes
    """A literal of Python; true, false and null of JSON; any other text as a string, in sequences too."""
    if isinstance(node, ast.Tuple | ast.List):
        items = [_value(item, source) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    try:
        return ast.literal_eval(node)
    except ValueError:
        plain = ast.get_source_segment(source, node) or ""
        return _WORDS.get(plain, plain)


def _text(value: object) -> str:
    """A value as `arguments_of` reads it, without spaces between items."""
    if isinstance(value, str) and value.isidentifier() and value not in (*_WORDS, "None", "True", "False"):
        return value
    if isinstance(value, list | tuple):
        items = ",".join(map(_text, value)) + "," * (len(value) == 1)
        return f"[{items}]" if isinstance(value, list) else f"({items})"
    return repr(value)
