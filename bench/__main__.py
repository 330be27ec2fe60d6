"""List the commands.

python -m bench
"""

import ast
import sys
from collections.abc import Sequence
from pathlib import Path

# most used first
ORDER = ("flops", "throughput", "versus", "memory", "roofline", "scaling", "sweep", "compare", "golden")


def commands() -> dict[str, str]:
    """Commands with the first sentence of their docstrings, read from the sources without imports."""
    found = {}
    for path in Path(__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    del found["__main__"]
    first = [name for name in ORDER if name in found]
    return {f"bench.{name}": found[name] for name in [*first, *sorted(found.keys() - set(first))]}


def main(argv: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if argv is None else argv
    if given and given[0] not in ("-h", "--help"):
        message = (
            f"python -m bench: takes no {given[0]}; it lists the commands, such as python -m bench.flops"
        )
        print(message, file=sys.stderr)
        return 2
    for name, purpose in {
        "models": "List the backbones, their sizes and sources.",
        **commands(),
        "reports": "Write the report of all records.",
    }.items():
        print(f"python -m {name:<18} {purpose}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
