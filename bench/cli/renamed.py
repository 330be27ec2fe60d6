"""Renamed commands: print the new name, with exit code 2."""

import sys
from typing import NoReturn


def end(old: str, new: str) -> NoReturn:
    """Print the replacement of a command, and exit."""
    print(f"python -m bench.{old}: replaced by python -m {new}", file=sys.stderr)
    raise SystemExit(2)
