"""The commands of the suite, found in their sources: nothing is imported."""

import ast
from pathlib import Path

# most used first; the rest follow by name
ORDER = (
    *("flops", "throughput", "versus", "memory", "choose", "roofline", "scaling", "sweep", "compare"),
    *("check", "golden"),
)
FOLDER = Path(__file__).resolve().parents[1]


def commands(function: str = "main") -> dict[str, str]:
    """The modules of bench with `main`, or the `jobs` of a suite, most used first, and their purposes."""
    found = {}
    for path in sorted(FOLDER.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [name for node in tree.body for name in _defined(node)]
        if function in names:
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    found.pop("__main__", None)
    first = [name for name in ORDER if name in found]
    return {name: found[name] for name in [*first, *sorted(found.keys() - set(first))]}


def _defined(node: ast.stmt) -> list[str]:
    """Names that a statement of a module defines as functions, or assigns."""
    if isinstance(node, ast.Assign):
        return [ast.unparse(target) for target in node.targets]
    return [node.name] if isinstance(node, ast.FunctionDef) else []
