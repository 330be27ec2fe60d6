"""Live bytes of the sections of a computation: those at the begin of each, and the peak in it.

A computation marks where its sections begin. The bytes come from a counter that is read while it runs
(LiveBytes, or the CUDA allocator), or from the events of torch's CPU allocator, which are known afterwards.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from bench.measure.memory.live_bytes import LiveBytes

_MARK = "section "  # prefix of the name of an event where a section begins


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a computation."""

    name: str
    gradients_bytes: int  # of the gradients that exist at its begin
    begin_bytes: int  # live at its begin
    peak_bytes: int  # largest live bytes in it


class CudaAllocator:
    """Bytes allocated by torch's caching allocator on a device."""

    def __init__(self, device: str) -> None:
        self.device = device

    @property
    def live_bytes(self) -> int:
        return torch.cuda.memory_allocated(self.device)

    @property
    def peak_bytes(self) -> int:
        return torch.cuda.max_memory_allocated(self.device)

    def reset_peak(self) -> None:
        torch.cuda.reset_peak_memory_stats(self.device)


class CounterMarks:
    """Sections read from a counter while they run."""

    def __init__(self, counter: LiveBytes | CudaAllocator) -> None:
        self.counter = counter
        self.sections: list[Section] = []
        self._open: tuple[str, int, int] | None = None

    def begin(self, name: str, gradients_bytes: int = 0) -> None:
        """End the current section and begin another; the last mark only ends the section before it."""
        if self._open is not None:
            opened, gradients, live = self._open
            peak = self.counter.peak_bytes
            self.sections.append(
                Section(name=opened, gradients_bytes=gradients, begin_bytes=live, peak_bytes=peak)
            )
        self.counter.reset_peak()
        self._open = name, gradients_bytes, self.counter.live_bytes


class CpuMarks:
    """Sections of the events of torch's CPU allocator; made by `cpu_allocator`."""

    def __init__(self) -> None:
        self.sections: list[Section] = []
        self.begun: list[tuple[str, int]] = []

    def begin(self, name: str, gradients_bytes: int = 0) -> None:
        """As `CounterMarks.begin`."""
        with record_function(f"{_MARK}{len(self.begun)}"):
            self.begun.append((name, gradients_bytes))


Marks = CounterMarks | CpuMarks


@contextmanager
def cpu_allocator() -> Iterator[CpuMarks]:
    """Context manager that follows every allocation and release of torch's CPU allocator in this thread.

    Memory within operators is included; what was allocated before is not. The sections are known at the exit.
    """
    marks = CpuMarks()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        yield marks
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiled.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    marks.sections = sections_of(events, marks.begun)


def sections_of(events: Iterable[Mapping[str, Any]], begun: Sequence[tuple[str, int]]) -> list[Section]:
    """Sections of a Chrome trace, from marks with their bytes of gradients. RuntimeError: it lacks a mark."""
    wanted = [event for event in events if event["name"] == "[memory]" or event["name"].startswith(_MARK)]
    begins: list[int] = []
    peaks: list[int] = []
    live = 0
    for event in sorted(wanted, key=lambda event: event["ts"]):
        if event["name"] == "[memory]":
            live += event["args"]["Bytes"]
            if peaks:
                peaks[-1] = max(peaks[-1], live)
        else:
            begins.append(live)
            peaks.append(live)
    if len(begins) != len(begun):
        raise RuntimeError(f"torch's profiler recorded {len(begins)} of {len(begun)} marks")
    return [
        Section(name=name, gradients_bytes=gradients, begin_bytes=begin, peak_bytes=peak)
        for (name, gradients), begin, peak in zip(begun, begins, peaks, strict=True)
    ][:-1]
