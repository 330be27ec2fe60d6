"""List the commands.

python -m bench
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from bench.cli import options
from bench.cli.commands import commands
from bench.cli.ending import leave_threads

PACKAGES = {
    "models": "List the backbones, their sizes and sources.",
    "reports": "Write the report of all records.",
}


def _body(_: argparse.Namespace) -> int:
    named = {f"bench.{name}": purpose for name, purpose in commands().items()}
    for name, purpose in {"models": PACKAGES["models"], **named, "reports": PACKAGES["reports"]}.items():
        print(f"python -m {name:<18} {purpose}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if argv is None else argv)
    if given and given[0] in (*commands(), *PACKAGES):
        name, *rest = given
        command = importlib.import_module(f"{name}.__main__" if name in PACKAGES else f"bench.{name}")
        code = int(command.main(rest))
        if argv is None:
            leave_threads(code)
        return code
    return options.run(options.parser("bench", __doc__), _body, given)


if __name__ == "__main__":
    raise SystemExit(main())
