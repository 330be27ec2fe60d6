"""Which commands are there?

python -m bench
"""

import ast
import sys
from collections.abc import Sequence
from pathlib import Path

HELPERS = ("__main__", "nursery")  # run as modules too, but not by hand


def commands() -> dict[str, str]:
    """Every command and the question it answers, read from its source: nothing is imported."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        if 'if __name__ == "__main__":' in source and path.stem not in HELPERS:
            found[f"bench.{path.stem}"] = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if argv is None else argv
    if given and given[0] not in ("-h", "--help"):
        told = f"python -m bench: takes no {given[0]}; it lists the commands, such as python -m bench.flops"
        print(told, file=sys.stderr)
        return 2
    for name, question in commands().items():
        print(f"python -m {name:<20} {question}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
