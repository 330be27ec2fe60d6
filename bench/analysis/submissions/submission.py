"""Findings in files of records that somebody submits. Imports no torch; nothing is measured.

Checks: schema, units, device identity, times below the floor of the device, golden outputs of the same
device and commit, duplicates, notes. Each is a function from records to findings.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from baselines import macs as baseline_macs
from bench.analysis.projection.passes import PassKey, costs_in, pass_key, peaks_of
from bench.analysis.rooflines import roofline
from bench.analysis.rooflines.roofline import Peaks
from bench.analysis.submissions import units
from bench.records.base import Environment, ModelCase, Record, StoreError
from bench.records.ceiling import Ceiling
from bench.records.comparison import Comparison
from bench.records.counts import MacCount
from bench.records.golden import REPRODUCED, Golden, GoldenCase
from bench.records.note import Note
from bench.records.operators import WINOGRAD, OperatorCosts
from bench.records.throughput import TimedPasses
from bench.store.codec import from_dict, to_line

SLACK = 0.1  # share of a floor that a time may fall short of it: clocks above those of the data sheet
COUNT_TOLERANCE = 0.03  # counters differ by elementwise products and scans


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something a reviewer must see, on one or more lines of a file."""

    file: str
    line: int | None  # from 1; None: the whole file
    what: str

    def text(self, more: int = 0) -> str:
        """FILE:LINE: what; `more` lines have the same finding. Never more than one line of text."""
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        others = f" (and {more} more line{'s' if more > 1 else ''})" if more else ""
        return units.printable(f"{where}: {self.what}{others}")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A readable line of a submitted file."""

    file: str
    line: int
    entry: Record | Note

    def finding(self, what: str) -> Finding:
        return Finding(file=self.file, line=self.line, what=what)


def findings(files: Sequence[tuple[str, str]], known: Sequence[Record]) -> list[str]:
    """All findings in files (name, text) of one submission; the suite's records give costs and ceilings."""
    found: list[Finding] = []
    entries: list[Entry] = []
    for name, text in files:
        read, wrong = read_lines(name, text)
        entries += read
        found += wrong
        if not read and not wrong:
            found.append(Finding(file=name, line=None, what="holds no records"))
    found += [entry.finding(what) for entry in entries for what in units.implausible(entry.entry)]
    records = [entry for entry in entries if isinstance(entry.entry, Record)]
    found += [*_identity(records), *_below_floor(records, known), *_goldens(records)]
    found += [*_duplicates(entries, known), *_notes(entries)]
    order = {name: number for number, (name, _) in enumerate(files)}
    groups: dict[tuple[str, str], list[Finding]] = {}
    for one in sorted(found, key=lambda one: (order[one.file], one.line or 0)):
        groups.setdefault((one.file, one.what), []).append(one)
    return [group[0].text(more=len(group) - 1) for group in groups.values()]


# schema


def read_lines(name: str, text: str) -> tuple[list[Entry], list[Finding]]:
    """Every readable line of a file, and the findings on the others."""
    entries: list[Entry] = []
    found: list[Finding] = []
    *lines, torn = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = from_dict(json.loads(line))
        except (StoreError, ValueError, RecursionError) as error:
            found.append(Finding(file=name, line=number, what=f"schema: {_reason(error)}"))
            continue
        entries.append(Entry(file=name, line=number, entry=entry))
    if torn:
        what = "torn: the last line has no line break; a killed writer left it, delete it"
        found.append(Finding(file=name, line=len(lines) + 1, what=what))
    return entries, found


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at column {error.colno}"
    if type(error) is ValueError:  # of json.loads: Python reads no longer ones
        return "not JSON: a whole number of more than 4,300 digits"
    return str(error)


# device identity


def _identity(records: Sequence[Entry]) -> Iterator[Finding]:
    for entry in records:
        record = _record(entry)
        for what in _of_environment(record.case.device, record.environment):
            yield entry.finding(f"device: {what}")
    for file in dict.fromkeys(entry.file for entry in records):
        of_file = [_record(entry).environment for entry in records if entry.file == file]
        devices = sorted({f"{e.device} {e.unit}".strip() for e in of_file if e.device_type != "meta"})
        if len(devices) > 1:
            what = f"device: {len(devices)} devices in one file: {', '.join(devices)}; one file a device"
            yield Finding(file=file, line=None, what=what)


def _of_environment(device: str, environment: Environment) -> Iterator[str]:
    if device != environment.device_type:
        yield f"the case is of {device!r}, the environment of {environment.device_type!r}"
    if environment.device_type not in ("cpu", "cuda", "meta"):
        yield f"device_type {environment.device_type!r}; known are cpu, cuda and meta"
    needed = ["torch", "python", "date", "code", "commit"]
    if environment.device_type != "meta":
        needed.append("device")
    if environment.device_type == "cuda":
        needed += ["unit", "driver", "cuda"]
    if blank := [name for name in needed if not getattr(environment, name)]:
        yield f"blank: {', '.join(blank)}"
    if environment.commit.endswith("+dirty"):
        yield f"commit {environment.commit}: measured with uncommitted changes; measure a commit"
    if not units.is_date(environment.date):
        yield f"date {environment.date!r} is not ISO 8601 in UTC, as 2026-01-31T12:00:00Z"


# floors


def _below_floor(records: Sequence[Entry], known: Sequence[Record]) -> Iterator[Finding]:
    submitted = [_record(entry) for entry in records]
    everything = [*known, *submitted]
    costs = costs_in(everything).operators
    counts = _macs(everything)
    # a single pass is compared, hence the fastest call of each ceiling in place of the median
    measured = (record for record in everything if isinstance(record, Ceiling))
    ceilings = [replace(record, times_s=(min(record.times_s),)) for record in measured]
    peaks: dict[tuple[str, str], Peaks | None] = {}
    for entry in records:
        record = _record(entry)
        for case, work, fastest_s in _fastest(record):
            device = record.environment.device, record.environment.device_type
            if device not in peaks:
                peaks[device] = peaks_of(record.environment, ceilings)[1]
                if peaks[device] is None:
                    yield entry.finding(
                        f"floor: {device[0]} is not in baselines/gpus.csv and has no ceilings; "
                        "python -m bench.roofline --measure-ceilings adds them"
                    )
            floor_s = _floor_s(case, work, peaks[device], costs, counts)
            if floor_s is not None and fastest_s < (1 - SLACK) * floor_s:
                yield entry.finding(
                    f"floor: {case.model} {case.settings} took {1e3 * fastest_s:.4g} ms, below the floor of "
                    f"{1e3 * floor_s:.4g} ms of {device[0]}"
                )


def _fastest(record: Record) -> Iterator[tuple[ModelCase, str, float]]:
    """(case, work, seconds) of the fastest pass of every model in a record."""
    if isinstance(record, TimedPasses):
        yield record.case, record.case.work, min(record.times_s)
    elif isinstance(record, Comparison):
        for number, arm in enumerate(record.arm_cases):
            yield arm, "inference", min(record.times_s(number))


def _macs(records: Iterable[Record]) -> dict[tuple[str, object], float]:
    """MACs of a forward pass of one image by (model, latent size): the authors', else counted here."""
    found: dict[tuple[str, object], float] = {
        (record.case.model, record.case.latent_size): record.macs_per_image
        for record in records
        if isinstance(record, MacCount) and record.case.counter == "torch"
    }
    return {**found, **{name: float(count) for name, (_, count) in baseline_macs.macs().items()}}


def _floor_s(
    case: ModelCase,
    work: str,
    peaks: Peaks | None,
    costs: dict[PassKey, OperatorCosts],
    counts: dict[tuple[str, object], float],
) -> float | None:
    """The fused floor of a pass; from its MACs alone if its operator costs are unknown.

    A finding must be an impossible time, so any convolution may need only the products of F(4x4, 3x3), a
    quarter: cuDNN has it for 3x3 windows, and records do not name the algorithm that ran. Our own F(2x2, 3x3)
    needs 16 for 36. Larger tiles lose digits: NNPACK's, which torch takes where oneDNN is switched off,
    are left out. The bytes of a convolution stay those of the direct one.
    """
    if peaks is None:
        return None
    known = costs.get(pass_key(case.model, case.res, case.batch, case.precision, work))
    if known is not None:
        parts = tuple(
            replace(part, macs=round(WINOGRAD * part.macs)) if part.kind == "convolution" else part
            for part in known.parts
        )
        if floor := roofline.floor(replace(known, parts=parts), peaks, case.precision, "fused"):
            return floor.total_s
    rates = [peaks.flops_per_s(case.precision, kind) for kind in ("convolution", "linear")]
    highest = max((rate for rate in rates if rate), default=None)
    macs = counts.get((case.model, case.latent_size))
    passes = 3 if work == "training" else 1  # a backward pass has twice the MACs, less the input's gradient
    slack = WINOGRAD * (1 - COUNT_TOLERANCE * passes)
    return slack * passes * 2 * macs * case.batch / highest if highest and macs else None


# goldens


def _goldens(records: Sequence[Entry]) -> Iterator[Finding]:
    compared = set()
    for entry in records:
        record = _record(entry)
        if not isinstance(record.case, GoldenCase):
            continue
        if isinstance(record, Golden) and record.verdict == REPRODUCED:
            compared.add((record.environment.device, record.environment.commit))
        else:
            verdict = getattr(record, "verdict", "") or getattr(record, "status", "")
            yield entry.finding(f"golden: {record.case.model} {record.case.precision}: {verdict}")
    seen = set()
    for entry in records:
        record = _record(entry)
        software = record.environment.device, record.environment.commit
        if _is_measured(record) and software not in compared and software not in seen:
            seen.add(software)
            yield entry.finding(
                f"golden: none reproduced on {software[0]} at commit {software[1] or 'unknown'}; "
                "python -m bench.golden --out FILE.jsonl adds them"
            )


def _is_measured(record: Record) -> bool:
    """Whether a model ran, whose outputs a golden record can confirm."""
    return bool(record.case.source_model) and record.case.device != "meta" and not record.is_skipped


# duplicates and notes


def _duplicates(entries: Sequence[Entry], known: Sequence[Record]) -> Iterator[Finding]:
    suite = {to_line(record) for record in known}
    lines: dict[str, Entry] = {}
    cases: dict[tuple[object, ...], Entry] = {}
    for entry in entries:
        line = to_line(entry.entry)
        if (first := lines.setdefault(line, entry)) is not entry:
            yield entry.finding(f"duplicate: equal to {first.file}:{first.line}")
        elif line in suite:
            yield entry.finding("duplicate: baselines/measured has this record already")
        elif isinstance(record := entry.entry, Record) and record.environment.device_type != "meta":
            same = (type(record.case), record.case, record.environment)
            if (first := cases.setdefault(same, entry)) is not entry:
                yield entry.finding(
                    f"duplicate: same case, device and second as {first.file}:{first.line}, other numbers"
                )


def _notes(entries: Sequence[Entry]) -> Iterator[Finding]:
    for entry in entries:
        note = entry.entry
        if not isinstance(note, Note):
            continue
        earlier = [_record(e) for e in entries if e.file == entry.file and isinstance(e.entry, Record)]
        if note.about and not any(fnmatchcase(record.name, note.about) for record in earlier):
            yield entry.finding(f"note: its pattern {note.about!r} names no case of the file")
        if unknown := sorted(set(note.devices) - {record.environment.device for record in earlier}):
            yield entry.finding(f"note: the file has no record of {', '.join(unknown)}")


def _record(entry: Entry) -> Record:
    assert isinstance(entry.entry, Record)
    return entry.entry
