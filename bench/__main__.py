"""List the commands.

python -m bench
"""

import sys
from collections.abc import Sequence

from bench.cli.commands import commands


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
        **{f"bench.{name}": purpose for name, purpose in commands().items()},
        "reports": "Write the report of all records.",
    }.items():
        print(f"python -m {name:<18} {purpose}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
