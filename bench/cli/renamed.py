"""Commands that have another name now: one line that says which, exit code 2."""

import sys
from typing import NoReturn


def end(old: str, new: str) -> NoReturn:
    """Say what replaces a command, and end."""
    print(f"python -m bench.{old}: is now python -m {new}", file=sys.stderr)
    raise SystemExit(2)
