"""Files of a user's repository, found without running them: where a model is, and what its file imports."""

import ast
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

OURS = Path(__file__).resolve().parents[2]
NAMES = ("models", "bench", "reports", "baselines")  # of our packages, which a user's repository may have too


@dataclass(frozen=True)
class Located:
    """Where a user's model is.

    Attributes:
        module: its dotted name, for an ordinary import.
        path: of its file; None for a module without a source file.
        folders: where its imports are looked for, in order, the root of its repository first.
        is_separate: its imports must be kept separate from ours and from other repositories.
    """

    module: str
    path: Path | None
    folders: tuple[Path, ...]
    is_separate: bool


def is_ours(spec: ModuleSpec) -> bool:
    """Whether a package is one of this suite's."""
    folders = [Path(folder).resolve() for folder in spec.submodule_search_locations or ()]
    return any(folder == OURS / name for folder in folders for name in NAMES)


def holds_code(spec: ModuleSpec) -> bool:
    """Whether a package without __init__.py has any module."""
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    return any(any(folder.glob("*.py")) or any(folder.glob("*/*.py")) for folder in folders)


def of_file(name: str) -> Located:
    """Locate net.py by its path.

    Raises:
        ValueError: no such file.
    """
    path = Path(name)
    try:
        path = path.expanduser().resolve()
        if not path.is_file():
            raise ValueError(f"{name}: {'is not a file' if path.exists() else 'no such file'}")
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{name}: cannot be read: {error}") from error
    if any(path.is_relative_to(OURS / package) for package in NAMES):
        module = ".".join(path.relative_to(OURS).with_suffix("").parts)
        return Located(module, path, (OURS,), is_separate=False)
    root = root_of(path)
    here = Path.cwd()
    ancestors = [folder for folder in path.parents if folder.is_relative_to(here)] or [root.parent]
    return Located(path.stem, path, tuple(dict.fromkeys((root, path.parent, *ancestors))), is_separate=True)


def of_module(module: str) -> Located:
    """Locate pkg.mod in the current folder or on the path; a package of ours if no other has its name.

    Raises:
        ValueError: no such package.
    """
    top, *rest = module.split(".")
    if "" in (top, *rest):
        raise ValueError(f"cannot import {module!r}: not the name of a module")
    entries = [Path.cwd(), *(Path(entry or ".").resolve() for entry in sys.path)]
    ours: Located | None = None
    for folder in dict.fromkeys(entries):
        spec = PathFinder.find_spec(top, [str(folder)])
        path = _source(folder, [top, *rest])
        if spec is None or (spec.origin is None and path is None):
            continue
        if not is_ours(spec):
            return Located(module, path, (folder,), is_separate=_conflicts(folder))
        ours = ours or Located(module, path, (folder,), is_separate=False)
    if ours is None and importlib.util.find_spec(top) is None:
        raise ValueError(f"cannot import {module!r}: No module named {top!r}")
    return ours or Located(module, None, (), is_separate=False)


def _conflicts(folder: Path) -> bool:
    """Whether a folder has a package that has the name of one of ours."""
    for name in NAMES:
        spec = PathFinder.find_spec(name, [str(folder)])
        if spec is not None and not is_ours(spec) and (spec.origin is not None or holds_code(spec)):
            return True
    return False


def root_of(path: Path) -> Path:
    """The folder from which a file's repository imports its packages.

    The outermost of: the folder of the file; that of its topmost package; what its relative imports need; and
    the parent of an ancestor whose modules it imports by name, as models/dit.py with `import models.blocks`.
    """
    root = path.parent
    while (root / "__init__.py").exists():
        root = root.parent
    wanted = [root]
    for module, level in statements(path):
        if level:
            wanted.append(path.parents[min(level, len(path.parents) - 1)])
            continue
        top, *rest = module.split(".")
        wanted += [
            folder.parent
            for folder in path.parents
            if rest and folder.name == top and _source(folder, rest[:1]) is not None
        ]
    return min(wanted, key=lambda folder: len(folder.parts))


def statements(path: Path) -> Iterator[tuple[str, int]]:
    """Modules and levels of a file's import statements; a name of a `from` import may be a module too."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):
        return  # importing it reports the error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, 0
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield f"{node.module or ''}.{alias.name}".strip("."), node.level


def closure(located: Located) -> set[Path]:
    """A model's file, and the files of its folders that it imports, directly and indirectly; never ours."""
    found: set[Path] = set()
    waiting = [located.path] if located.path is not None else []
    while waiting:
        path = waiting.pop()
        if path in found or any(path.is_relative_to(OURS / name) for name in NAMES):
            continue
        found.add(path)
        for module, level in statements(path):
            folders: Sequence[Path] = located.folders
            if level:
                folders = [path.parents[min(level, len(path.parents)) - 1]]
            waiting += _files(folders, module.split("."))
    return found


def _files(folders: Sequence[Path], parts: Sequence[str]) -> list[Path]:
    """Files of a dotted name in the first folder that has it: its packages' and its own."""
    for folder in folders:
        found = [_source(folder, parts[:depth]) for depth in range(1, len(parts) + 1)]
        if any(found) or (folder / parts[0]).is_dir():
            return [path for path in found if path is not None]
    return []


def _source(folder: Path, parts: Sequence[str]) -> Path | None:
    """The source file of a dotted name in a folder."""
    base = folder.joinpath(*parts)
    return next((p for p in (base / "__init__.py", base.with_name(f"{base.name}.py")) if p.is_file()), None)
