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
    """The modules of bench that define a function, most used first, with the first line of their docstrings.

    Args:
        function: main for all commands; jobs for those that a suite can name.
    """
    found = {}
    for path in sorted(FOLDER.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == function for node in tree.body):
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    found.pop("__main__", None)
    first = [name for name in ORDER if name in found]
    return {name: found[name] for name in [*first, *sorted(found.keys() - set(first))]}
