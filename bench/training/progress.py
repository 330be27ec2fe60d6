"""The progress of a training run; a worker writes it to a file and its parent process reads it."""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

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


def duration(seconds: float) -> str:
    """Seconds up to 100, then minutes."""
    return f"{seconds:.0f} s" if seconds < 100 or math.isnan(seconds) else f"{seconds / 60:.0f} min"


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
def followed(folder: Path, show: Callable[[Progress], None]) -> Iterator[None]:
    """Context manager with a thread that shows the progress a worker writes to a run folder."""
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(INTERVAL_S):
            try:
                show(Progress(**json.loads(_file(folder).read_text(encoding="utf-8"))))
            except (OSError, json.JSONDecodeError):
                continue  # the file does not exist yet, or is being written

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _file(folder: Path) -> Path:
    return folder / "progress.json"
