"""Imports of a user's repository, separate from ours and from other users' of the same names.

A user's modules are loaded below a package of their own, `_user1`: his models/dit.py is `_user1.models.dit`,
and ours stays `models.dit`. His import statements, run at any time, look in his folders first. What he has no
file for (torch, timm, and ours) is the installed module.
"""

import builtins
import functools
import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from models.users.files import NAMES, Located, holds_code, is_ours

_repositories: dict[str, "Repository"] = {}  # by the name of its package


class Repository:
    """The modules of one user's repository.

    Args:
        folders: where his imports are looked for, in order.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.name = f"_user{len(_repositories) + 1}"
        self.folders = [str(folder) for folder in folders]
        self.builtins: Mapping[str, Any] = {**vars(builtins), "__import__": self._import}
        self._importlib = _Importlib(self)
        self._has: dict[str, bool] = {}
        self._own: set[str] = set()  # packages of loaded files
        package = ModuleType(self.name)
        package.__path__ = self.folders
        sys.modules[self.name] = package
        _repositories[self.name] = self

    def load(self, path: Path) -> ModuleType:
        """Import a file below one of the folders by its dotted name."""
        folder = next(Path(folder) for folder in self.folders if path.is_relative_to(folder))
        parts = path.relative_to(folder).with_suffix("").parts
        if any("." in part for part in parts):  # net.v2.py
            return self._load_by_path(path)
        self._own.add(parts[0])
        return importlib.import_module(".".join((self.name, *parts)).removesuffix(".__init__"))

    def _load_by_path(self, path: Path) -> ModuleType:
        name = f"{self.name}.{path.stem.replace('.', '_')}"
        if name not in sys.modules:
            spec = importlib.util.spec_from_loader(name, _Loader(self, name, str(path)))
            assert spec is not None
            assert spec.loader is not None
            sys.modules[name] = importlib.util.module_from_spec(spec)
            try:
                spec.loader.exec_module(sys.modules[name])
            except BaseException:
                del sys.modules[name]
                raise
        return sys.modules[name]

    def has(self, package: str) -> bool:
        """Whether a package or module of the top level is the user's."""
        if package not in self._has:
            self._has[package] = f"{self.name}.{package}" in sys.modules or self.find(package) is not None
        return self._has[package]

    def find(self, package: str) -> ModuleSpec | None:
        """Find a package or module of the top level in the user's folders; None if it is not his.

        A folder without __init__.py is a package only where no installed package has its name.
        """
        if package in sys.builtin_module_names:
            return None
        spec = PathFinder.find_spec(f"{self.name}.{package}", self.folders)
        if spec is None or is_ours(spec):
            return None
        if spec.origin is not None or package in self._own or (package in NAMES and holds_code(spec)):
            return spec
        return None if _installed(package) else spec

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,  # noqa: A002 - names of __import__
        locals: Mapping[str, object] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """__import__ of the user's modules."""
        top = name.partition(".")[0]
        if level or not self.has(top):
            found = builtins.__import__(name, globals, locals, fromlist or (), level)
            return self._importlib if found is importlib else found
        found = builtins.__import__(f"{self.name}.{name}", globals, locals, fromlist or (), 0)
        return found if fromlist else sys.modules[f"{self.name}.{top}"]


class _Importlib(ModuleType):
    """importlib as a user's modules see it: import_module looks in his repository first."""

    def __init__(self, repository: Repository) -> None:
        super().__init__("importlib")
        self._repository = repository

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(importlib, name)

    def import_module(self, name: str, package: str | None = None) -> ModuleType:
        if not name.startswith(".") and self._repository.has(name.partition(".")[0]):
            name = f"{self._repository.name}.{name}"
        return importlib.import_module(name, package)


class _Finder:
    """Finder of the modules below the packages of repositories."""

    @staticmethod
    def find_spec(
        fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, rest = fullname.partition(".")
        repository = _repositories.get(package)
        if repository is None or not rest:
            return None
        spec = PathFinder.find_spec(fullname, path) if "." in rest else repository.find(rest)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(repository, fullname, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    """Loader of a source file whose import statements are resolved in its repository."""

    def __init__(self, repository: Repository, fullname: str, path: str) -> None:
        super().__init__(fullname, path)
        self._repository = repository

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = self._repository.builtins
        super().exec_module(module)


sys.meta_path.insert(0, _Finder)  # finds nothing but modules of repositories


@functools.cache
def _installed(package: str) -> bool:
    """Whether a regular package of this name can be imported."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


def load(located: Located) -> ModuleType:
    """Import a located file in its repository, or by its dotted name; raises whatever the file raises."""
    if located.path is not None and located.is_separate:
        return _repository(located.folders).load(located.path)
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.append(str(Path.cwd()))  # a console script has no current folder on its path
    return importlib.import_module(located.module)


@functools.cache
def _repository(folders: tuple[Path, ...]) -> Repository:
    return Repository(folders)
