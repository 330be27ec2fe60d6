"""A progress bar on stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[str], None]]:
    """A bar on stderr where that is a terminal, nothing in a pipe.

    Yields:
        A function to call with the name of the case that begins; the one before it is then done.
    """
    with live_progress(what, total) as (begin, _):
        yield begin


@contextmanager
def live_progress(what: str, total: int) -> Iterator[tuple[Callable[[str], None], Callable[[str], None]]]:
    """The bar of `progress`, for cases that have something to say while they last.

    Yields:
        The function of `progress`, and one to call with another name for the case at hand.
    """
    if not sys.stderr.isatty():
        yield (lambda name: None), (lambda name: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[name]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, name="")
        started = 0

        def begin(name: str) -> None:
            nonlocal started
            bar.update(task, completed=started, name=name)
            started += 1

        yield begin, lambda name: bar.update(task, name=name)
