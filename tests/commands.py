"""Runs a command in this process."""

from collections.abc import Callable, Sequence


def run(main: Callable[[Sequence[str]], int], *args: str) -> int:
    """The exit code of a command; argparse leaves through SystemExit."""
    try:
        return int(main(list(args)))
    except SystemExit as end:
        return int(end.code or 0)
