"""The progress of a training run; a worker writes it to a file and its parent process reads it."""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.tables.numbers import duration

INTERVAL_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The progress of a run."""

    step: int
    steps: int
    loss: float  # training loss of the last step read
    seconds: float  # of training so far

    @property
    def left_s(self) -> float:
        """Remaining seconds of training at the mean pace so far; evaluations are not included."""
        return self.seconds / self.step * (self.steps - self.step) if self.step else math.nan

    @property
    def text(self) -> str:
        return f"step {self.step} of {self.steps}, loss {self.loss:.4f}, {duration(self.left_s)} left"


def writer(folder: Path) -> Callable[[Progress], None]:
    """Return a function that writes progress to a run folder, at most once a second."""
    written = -math.inf

    def write(progress: Progress) -> None:
        nonlocal written
        if time.monotonic() - written > INTERVAL_S:
            written = time.monotonic()
            _file(folder).write_text(json.dumps(asdict(progress)), encoding="utf-8")

    return write


@contextmanager
def polled(look: Callable[[], None], interval_s: float) -> Iterator[None]:
    """Context manager with a thread that calls a function at once and after every interval."""
    ended = threading.Event()

    def poll() -> None:
        look()
        while not ended.wait(interval_s):
            look()

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def followed(folder: Path, show: Callable[[Progress], None]) -> AbstractContextManager[None]:
    """Context manager that shows the progress a worker writes to a run folder."""

    def follow() -> None:
        with suppress(OSError, json.JSONDecodeError):  # the file does not exist yet, or is being written
            show(Progress(**json.loads(_file(folder).read_text(encoding="utf-8"))))

    return polled(follow, INTERVAL_S)


def _file(folder: Path) -> Path:
    return folder / "progress.json"
