"""Class- and unconditional networks of diffusers, by the name of their class or from a config.json."""

import difflib
import importlib.util
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.family import Factory
from models.guard import UsersCodeError
from models.task import Task
from models.users import constructors
from models.users.names import DIFFUSERS, UnfitError, UserModel

if TYPE_CHECKING:
    from torch import nn

CLASSES = ("num_class_embeds", "num_embeds_ada_norm", "class_embed_type")  # arguments of conditional networks
CLASS = "_class_name"  # key of a config.json


def arguments(model: UserModel) -> dict[str, Any]:
    """Arguments of the class: those of the config.json, then those of the name.

    Raises:
        ValueError: not a config.json of diffusers.
    """
    config = _config(model)
    return {**{k: v for k, v in config.items() if not k.startswith("_")}, **model.arguments}


def _config(model: UserModel) -> dict[str, Any]:
    if model.where == DIFFUSERS:
        return {CLASS: model.attribute}
    try:
        if Path(model.where).exists() and not Path(model.where).is_file():
            raise ValueError(f"{model.where}: is not a file")
        read = json.loads(Path(model.where).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{model.where}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{model.where}: not JSON: {error}") from error
    if not isinstance(read, dict) or not isinstance(read.get(CLASS), str):
        raise ValueError(f"{model.where}: not a config.json of diffusers: no {CLASS} in it")
    return read


def factory(model: UserModel) -> Factory:
    """Import a class of diffusers and return its factory.

    Raises:
        ValueError: diffusers is not installed, or has no network of this name.
    """
    if importlib.util.find_spec(DIFFUSERS) is None:
        raise ValueError(
            f"{model.name}: diffusers is not installed; pip install diffusers (the extra diffusers)"
        )
    import diffusers

    config, given = _config(model), arguments(model)
    name = config[CLASS]
    found = getattr(diffusers, name, None)
    if found is None:
        close = difflib.get_close_matches(name, dir(diffusers), n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(f"{model.name}: diffusers {diffusers.__version__} has no {name}{hint}")

    def build(task: Task) -> "nn.Module":
        from models.users.calls import TEXT, adapt

        known, takes_any = constructors.parameters(found)
        # a config.json may have keys of other versions of diffusers
        taken = {key: v for key, v in given.items() if takes_any or key in known or key in model.arguments}
        try:
            made = constructors.call(found, task, taken)
            if text := TEXT & inspect.signature(made.forward).parameters.keys():
                raise UnfitError(
                    f"{name} takes {', '.join(text)}: only networks of labels, or of none, are called"
                )
            settings = getattr(made, "config", {})
            adapt(made, conditional=any(getattr(settings, key, None) is not None for key in CLASSES))
        except UnfitError as error:
            raise UsersCodeError(f"{model.name}: {error}") from error
        return made

    return build


def sources(model: UserModel) -> set[Path]:
    """The config.json, and the file of diffusers that has its version."""
    spec = importlib.util.find_spec(DIFFUSERS)
    found = {Path(spec.origin)} if spec is not None and spec.origin is not None else set()
    return found | ({Path(model.where)} if model.where != DIFFUSERS else set())
