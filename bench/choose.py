"""Choose a backbone for a GPU: each is ranked, or dropped with the reason.

    python -m bench.choose --gpu h100-sxm --res 512 --min-images-per-s 20 --memory 24GiB --max-fid 12
    python -m bench.choose --gpu rtx4090 --res 512 --batch 8 --memory 12GiB --max-fid 12
    python -m bench.choose --gpu rtx4090 --work training --batch 16 --objective memory
    python -m bench.choose --gpu l4 --model 'FCDM-*' 'DiT-*/2' --max-fid 3 --fid guided

Reads records and the papers, measures nothing: speed and memory are measured where the records have this GPU,
else predicted; FID is published. Where intervals overlap it says so, with the command that decides.
Method: docs/choose.md
"""

import argparse
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from baselines import load
from bench.analysis.choice import choice, published_fid
from bench.analysis.choice.choice import MEASURED, PREDICTED, Candidate, Figure, Limits
from bench.analysis.memory import memory_fit, memory_ratios
from bench.analysis.projection.passes import PassKey, key_of, pass_key, usable
from bench.analysis.projection.predictions import MemoryErrors, measured_memory
from bench.analysis.projection.projector import Projector
from bench.analysis.rooflines import roofline
from bench.analysis.rooflines.roofline import Peaks
from bench.cli import models, options, records, settings, values
from bench.cli.progress import progress
from bench.jobs.pass_costs import CostSource
from bench.records.base import Record, size_text
from bench.records.comparison import Comparison
from bench.records.memory import Memory
from bench.stats import ratios
from bench.store.store import REPORTED
from bench.tables.render import render

DECIDED = (ratios.FASTER, ratios.SLOWER)
SHOWN = 3  # undecided backbones that are named, the highest rank first
NEAREST = 3  # others in the command that decides


class _Knowledge:
    """Speed and memory of passes on one GPU: measured where records have them, else predicted."""

    def __init__(self, known: Sequence[Record], peaks: Peaks, precision: str, work: str) -> None:
        self._peaks = peaks
        self._precision = precision
        self._source = CostSource(known, None, force=False)
        self._known = known
        self._predictor: tuple[Projector, MemoryErrors] | None = None
        self._work = work
        timed = [record for record in usable(known)[0] if _is_of(record, peaks.device)]
        self._timed = {key_of(record.case): record for record in timed if record.case.precision == precision}
        self._memory = {
            key: record
            for (_, key, given), record in measured_memory(known).items()
            if given == precision and _is_of(record, peaks.device)
        }

    def speed(self, key: PassKey) -> Figure:
        """Images per second. ValueError: it is not measured, and cannot be predicted."""
        if timed := self._timed.get(key):
            return Figure(value=timed.images_per_s, interval=timed.images_per_s_interval, status=MEASURED)
        made = self.predictor[0].predict(self._source.work(key), self._peaks, self._precision)
        batch = key[2]
        bounds = batch / made.high_s, batch / made.low_s
        return Figure(value=batch / made.seconds, interval=bounds, status=PREDICTED)

    def memory(self, key: PassKey) -> Figure:
        """Peak bytes. ValueError: it is not measured, and cannot be predicted."""
        if measured := self._memory.get(key):
            return Figure(value=measured.use.peak_bytes, interval=None, status=MEASURED)
        predicted = self._source.memory(key)
        if not isinstance(predicted, Memory):
            raise ValueError(f"{key[0]}: memory: {getattr(predicted, 'reason', '')}")
        peak = predicted.use.peak_bytes
        return Figure(value=peak, interval=self.predictor[1].interval(peak, self._work), status=PREDICTED)

    def macs(self, key: PassKey) -> float:
        """Counted MACs of a forward pass of one image."""
        forward = (*key[:4], "inference")
        return self._source.work(forward).macs / key[2]

    @property
    def predictor(self) -> tuple[Projector, MemoryErrors]:
        """Calibrated when it is first needed."""
        if self._predictor is None:
            made, _ = self._source.calibrated(self._known)
            self._predictor = made, self._source.memory_errors(self._known, [self._work])[0]
        return self._predictor


def _known(given: Sequence[Path] | None) -> tuple[list[Record], list[str]]:
    """Records of --records or of the suite, and notes on torn last lines."""
    known: list[Record] = []
    notes = []
    for path in records.record_files(given):
        contents = records.read_contents(path, "--records ")
        if contents.torn and not contents.records:
            raise options.UsageError(f"--records {path}: holds no record, only a line without its end")
        if contents.torn:
            notes.append(f"{path}: its last line is incomplete and is not read (bench.check)")
        known += contents.records
    return known, notes


def _is_of(record: Record, gpu: str) -> bool:
    return roofline.gpu_named(record.environment.device) == gpu


def _candidates(
    names: Sequence[str], args: argparse.Namespace, limits: Limits, known: _Knowledge
) -> Iterator[Candidate]:
    """What is known of every backbone; one that its published FID drops is not predicted."""
    with progress("predicting", len(names)) as begin:
        for name in names:
            begin(name)
            fid = published_fid.lowest(name, args.res, args.fid)
            if choice.against_fid(fid, limits, args.objective):
                yield Candidate(model=name, fid=fid)
                continue
            key = pass_key(name, args.res, args.batch, args.precision, args.work)
            try:
                yield Candidate(
                    model=name,
                    images_per_s=known.speed(key),
                    peak_bytes=known.memory(key),
                    macs=known.macs(key),
                    fid=fid,
                )
            except ValueError as error:
                yield Candidate(model=name, fid=fid, unknown=str(error))


def _comparisons(known: Iterable[Record], args: argparse.Namespace, gpu: str) -> dict[frozenset[str], str]:
    """Decided pairs of interleaved comparisons on this GPU in this setting, with their ratio, in words."""
    found: dict[frozenset[str], str] = {}
    for record in known:
        if not isinstance(record, Comparison) or not _is_of(record, gpu) or args.work != "inference":
            continue
        arms = record.case.arms
        setting = args.res, args.batch, args.precision, ()
        if any((arm.res, arm.batch, arm.precision, arm.nondefault_settings) != setting for arm in arms):
            continue
        for number, arm in enumerate(arms[1:], start=1):
            verdict, bounds = record.verdict(number), record.interval(number)
            if verdict in DECIDED and bounds is not None:
                pair = frozenset((arms[0].model, arm.model))
                found[pair] = (
                    f"measured interleaved: {arm.model} is {record.ratio(number):.3f} "
                    f"[{bounds[0]:.3f}, {bounds[1]:.3f}] times as fast as {arms[0].model}"
                )
    return found


def _command(group: Sequence[str], args: argparse.Namespace) -> str:
    where = f"--res {size_text(args.res)} --batch {args.batch} --precision {args.precision} --device cuda"
    if args.objective == "memory":
        return f"python -m bench.memory --model {' '.join(group)} {where} --work {args.work}"
    if args.work == "training":
        return f"python -m bench.throughput --work training --model {' '.join(group)} {where}"
    return f"python -m bench.versus {' '.join(group)} {where}"


def _limits(args: argparse.Namespace, peaks: Peaks) -> Limits:
    usable_bytes = memory_fit.device(peaks.device).usable_bytes
    if args.memory is not None:
        usable_bytes = min(usable_bytes, args.memory.usable_bytes)
    return Limits(
        images_per_s=args.min_images_per_s,
        peak_bytes=usable_bytes,
        fid=args.max_fid,
    )


def _body(args: argparse.Namespace) -> int:
    records.check_table_output(args.out, args.force, "a choice")
    if args.work == "training":
        settings.check_training((), [args.precision])
    peaks = settings.gpu_peaks(args.gpu, [args.precision], "--gpu")
    names = models.model_names(args.model, default=["*"])
    known, notes = _known(args.records)
    limits = _limits(args, peaks)
    knowledge = _Knowledge(known, peaks, args.precision, args.work)
    rows = choice.choose(list(_candidates(names, args, limits, knowledge)), limits, args.objective)
    decided = _comparisons(known, args, peaks.device)
    lines = _answer(rows, args, peaks.device, limits, decided)
    text = render(choice.TABLE, rows, args.format)
    # the answer is part of a text; other forms are the whole table alone
    if args.format in ("table", "md"):
        without = [row.candidate.model for row in rows if row.remarks == (choice.NO_FID,)]
        text = render(choice.TABLE, [row for row in rows if row.candidate.model not in without], args.format)
        if without:
            lines.append(
                f"not shown: {len(without)} without a published FID of this kind (--format csv has them)"
            )
        mark = "- " if args.format == "md" else ""
        text = f"{text}\n" + "".join(f"{mark}{line}\n" for line in lines)
        lines = []
    kept = [row.candidate for row in rows if row.is_kept]
    if any(one.images_per_s and one.images_per_s.status == PREDICTED for one in kept):
        lines.append(f"predicted, not measured; {knowledge.predictor[0].describe()}")
    if any(one.peak_bytes and one.peak_bytes.status == PREDICTED for one in kept):
        lines += memory_ratios.known_errors(known, [args.work])
    records.emit(text, [*lines, *_remarks(kept), *notes], args.out)
    return 0


def _answer(
    rows: Sequence[choice.Choice],
    args: argparse.Namespace,
    gpu: str,
    limits: Limits,
    decided: dict[frozenset[str], str],
) -> list[str]:
    kept = [row.candidate.model for row in rows if row.is_kept]
    setting = f"{args.work}, {size_text(args.res)} px, batch {args.batch}, {args.precision}, eager"
    lines = [
        f"{len(kept)} of {len(rows)} backbones kept on {gpu} ({setting}), ranked by "
        f"{choice.OBJECTIVES[args.objective].text}; {limits.peak_bytes / memory_fit.GIB:.1f} GiB usable; "
        f"FID as published, {published_fid.KINDS[args.fid]}"
    ]
    groups = choice.undecided(rows, args.objective, decided)
    for first, *others in groups[:SHOWN]:
        nearest = [first, *others[:NEAREST]]
        lines.append(
            f"cannot tell {first} from {', '.join(others)}: the intervals overlap; {_command(nearest, args)}"
        )
    if len(groups) > SHOWN:
        lines.append(f"nor {len(groups) - SHOWN} lower-ranked backbones from those that follow them")
    if args.objective == "images-per-s":
        lines += [text for pair, text in decided.items() if pair <= set(kept)]
    return lines


def _remarks(kept: Sequence[Candidate]) -> list[str]:
    """The remarks on the published FID of the kept backbones."""
    ids = sorted({remark for one in kept if one.fid for remark in one.fid.remarks})
    return [f"[r{number}] {load.remark(number).statement}" for number in ids]


def _memory(text: str) -> memory_fit.Device:
    if not text[:1].isdigit():
        raise ValueError(f"must be a size such as 24GB or 40GiB, got {text!r}")
    try:
        return memory_fit.device(text)
    except ValueError:
        reserve = memory_fit.RESERVE_BYTES / memory_fit.GIB
        raise ValueError(
            f"must be a size above the reserve of {reserve:g} GiB, such as 24GB or 40GiB, got {text!r}"
        ) from None


_positive = values.number_in(0, math.inf, "a number above zero", above=True)


def parser() -> options.Parser:
    made = options.parser("bench.choose", __doc__)
    text = "a GPU of baselines/gpus.csv, by name or a unique part of it"
    made.add_argument("--gpu", required=True, metavar="GPU", help=text)
    options.add(made, "--res", values.resolution, default=256)
    options.add(made, "--batch", values.positive_int, "images a pass", default=64)
    options.add(made, "--precision", options.PRECISIONS, default="bf16")
    options.add(made, "--work", options.WORKS, default="inference")
    options.add_model(made, "candidates (default: all as published)")
    limits = made.add_argument_group("limits")
    options.add(limits, "--min-images-per-s", _positive, "lowest speed", metavar="X")
    options.add(limits, "--memory", _memory, "as 12GiB (default: that of the GPU)", metavar="SIZE")
    options.add(limits, "--max-fid", _positive, "highest published FID", metavar="X")
    text = "published FID: best without guidance (default), at 400K steps, or guided"
    options.add(limits, "--fid", published_fid.KINDS, text, default=published_fid.BEST)
    text = f"rank by {', '.join(choice.OBJECTIVES)}"
    options.add(made, "--objective", choice.OBJECTIVES, text, default="images-per-s")
    options.add_records(made, f"to read (default: {REPORTED} and the suite's own)")
    options.add_output(made)
    return made


main = options.command(parser, _body)

if __name__ == "__main__":
    raise SystemExit(main())
