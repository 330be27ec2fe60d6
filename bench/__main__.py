"""List the commands, or run one: `diffusion-bench flops` is `python -m bench.flops` from any folder.

python -m bench
"""

import importlib
import sys
from collections.abc import Sequence

from bench.cli.commands import commands

PACKAGES = {
    "models": "List the backbones, their sizes and sources.",
    "reports": "Write the report of all records.",
}


def main(argv: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if argv is None else argv)
    known = commands()
    if given and given[0] in (*known, *PACKAGES):
        name, *rest = given
        command = importlib.import_module(f"{name}.__main__" if name in PACKAGES else f"bench.{name}")
        return int(command.main(rest))
    if given and given[0] not in ("-h", "--help"):
        print(
            f"python -m bench: takes no {given[0]}; it lists the commands, such as python -m bench.flops",
            file=sys.stderr,
        )
        return 2
    named = {f"bench.{name}": purpose for name, purpose in known.items()}
    for name, purpose in {"models": PACKAGES["models"], **named, "reports": PACKAGES["reports"]}.items():
        print(f"python -m {name:<18} {purpose}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
