"""A progress bar on stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench.tables.text import plain


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[str], None]]:
    """Progress bar on stderr; none if stderr is not a terminal.

    Yields:
        A function to call with the name of each case before it starts; the previous case is then done.
    """
    with live_progress(what, total) as (begin, _):
        yield begin


@contextmanager
def live_progress(what: str, total: int) -> Iterator[tuple[Callable[[str], None], Callable[[str], None]]]:
    """The bar of `progress` with status updates during a case.

    Yields:
        The function of `progress`, and a function that replaces the text of the current case.
    """
    if not sys.stderr.isatty():
        yield (lambda name: None), (lambda name: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn(what, markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[name]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, name="")
        started = 0

        def begin(name: str) -> None:
            nonlocal started
            bar.update(task, completed=started, name=plain(name))
            started += 1

        yield begin, lambda name: bar.update(task, name=plain(name))
