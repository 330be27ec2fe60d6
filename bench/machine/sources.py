"""Identity of the code that decides a measured number.

A stored case is found again while the code that decides its number is the same: the backbone's own module
with what it imports from models/, and the rooms of bench that prepare, time, count, train and sample.
Compiled code is hashed, so that prose, another command, table or backbone leave stored cases valid.
"""

import functools
import hashlib
import re
import types
from collections.abc import Iterable, Set
from pathlib import Path

from models.registry import ENTRIES

ROOT = Path(__file__).resolve().parents[2]
DECIDING = ("counting", "measure", "training", "sampling", "datasets")  # rooms of bench
IMPORT = re.compile(r"^\s*from (models[\w.]*) import (\([^)]*\)|.*)$", re.MULTILINE)


def digest(paths: Iterable[Path]) -> str:
    """Head of the SHA-256 of the compiled code of some files, in the order of their names."""
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(_read(path)[0])
    return total.hexdigest()[:12]


def deciding(module: str | None, *, fast: bool = False) -> set[Path]:
    """Files that decide the numbers of the backbone in a module such as models.dit; None: an operator."""
    named = filter(None, (module, "models.fast" if fast else None))
    return set(_of_rooms()).union(*(_closure(_file(name)) for name in named))


@functools.cache
def _of_rooms() -> frozenset[Path]:
    """Files that decide the numbers of every backbone."""
    files = {path for room in DECIDING for path in (ROOT / "bench" / room).rglob("*.py")}
    others = {_file(entry.module) for entry in ENTRIES.values()}
    return frozenset(files.union(*(_closure(path, without=others) for path in files)))


def _closure(path: Path | None, without: Set[Path | None] = frozenset()) -> set[Path]:
    """Files of models/ among a file and its imports, however deep; the list of names decides nothing.

    Files `without` are not followed: a backbone's module decides the numbers of that backbone alone.
    """
    names = ROOT / "models" / "registry.py"
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        path = waiting.pop()
        if path is not None and path not in found and path != names and path not in without:
            found.add(path)
            waiting += [_file(name) for name in _read(path)[1]]
    return {path for path in found if path.is_relative_to(ROOT / "models")}


@functools.cache
def _read(path: Path) -> tuple[bytes, tuple[str, ...]]:
    """A file's compiled code without docstrings and positions, and the names that it imports from models/."""
    source = path.read_bytes()
    if path.suffix != ".py":  # a configuration
        return source, ()
    names: list[str] = []
    for module, things in IMPORT.findall(source.decode(errors="replace")):
        names += [module, *(f"{module}.{name}" for name in re.findall(r"\w+", things))]
    try:
        return _essence(compile(source, "", "exec", dont_inherit=True, optimize=2)), tuple(names)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # a user's, which another file may expect
        return source, tuple(names)


def _essence(code: types.CodeType) -> bytes:
    inner = b"".join(_essence(item) for item in code.co_consts if isinstance(item, types.CodeType))
    sets = [sorted(map(repr, item)) for item in code.co_consts if isinstance(item, frozenset)]
    plain = [item for item in code.co_consts if not isinstance(item, types.CodeType | frozenset)]
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_argcount, code.co_kwonlyargcount)
    return hashlib.sha256(code.co_code + repr((plain, sets, names)).encode() + inner).digest()


def _file(module: str) -> Path | None:
    """The file of a module of this project; None if the name is a thing in a module."""
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
