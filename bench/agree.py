"""Do two runs of the same sweep agree, and if not, why?

    python -m bench.agree monday.jsonl friday.jsonl
    python -m bench.agree monday.jsonl friday.jsonl --within 1% --format md --out agreement.md
    python -m bench.agree h200.jsonl h100.jsonl --across
    python -m bench.agree runs.jsonl
    python -m bench.agree monday.jsonl friday.jsonl --note

Pairs the cases that both files hold: the same question, model and settings on the same kind of device; of
several records of a case in a file the newest counts. Machine, day, driver, torch and commit may differ, and
are named where they do; another device is refused without --across. One file alone is compared with itself:
the newest record of each case with every older one.

B/A is the ratio of the medians of a pass, step, chain, visit or ceiling, of sustained passes after a soak,
of the speed ratios of bench.versus, or of measured peaks of memory; its 95 % interval is bootstrapped from
the samples of both records, fewer of them where neighbours are alike. agree: all of the interval is within
the limit; differ: none of it is; cannot tell: it straddles the limit, or there are fewer than six samples.
The interval knows the noise within a record only: what lies between the sessions is what is looked for.

why: what differs in the records of a pair that does not agree: environment, clocks, power, temperature,
noise, a warm-up that was not stationary, sampling that its budget ended. What differs in all pairs, and a
factor that all times moved by, are told once, on stderr with the summary.

Exit code: 0 if no pair differs, 1 if one does or a case gave a number on one side only, 2 for bad input (no
case in common, the same file twice).
Nothing is measured, and no file is changed but by --note, which appends the summary to the last file.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench import note
from bench.analysis import agreement
from bench.analysis.agreement import AGREE, Agreement, Matched, Pair
from bench.cli import options, tables
from bench.records.record import Note


def within(text: str) -> float:
    """A limit: 2% or 0.02."""
    number = text.removesuffix("%")
    try:
        value = float(number) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and below 100 %, as 2% or 0.02, got {text!r}")
    return value


def _matched(files: Sequence[Path], across: bool) -> tuple[list[Matched], list[str]]:
    """Pairs of records, and what there is to say of cases that have no partner."""
    if len(files) == 1:
        if across:
            raise options.UsageError("--across: one file alone is compared with itself, device by device")
        found = agreement.repeats(options.records_of(files[0]))
        if not found:
            raise options.UsageError(
                f"{files[0]}: no case is in it twice; name a second file to compare it with"
            )
        return found, []
    if len(files) > 2:
        raise options.UsageError(f"compares two files, or one with itself, got {len(files)}")
    first, second = options.records_of(files[0]), options.records_of(files[1])
    if files[0].samefile(files[1]):
        raise options.UsageError(f"{files[0]}: named twice; alone it is compared with itself")
    found = agreement.match(first, second, across=across)
    if found:
        counts = agreement.alone(first, second, across=across)
        told = [f"{count} only in {file.name}" for count, file in zip(counts, files, strict=True) if count]
        return found, [f"cases without a partner: {', '.join(told)}"] if told else []
    if not across and agreement.match(first, second, across=True):
        a, b = (", ".join(agreement.devices(records)) for records in (first, second))
        raise options.UsageError(
            f"{files[0]} is of {a}, {files[1]} of {b}: --across compares them all the same"
        )
    raise options.UsageError(
        f"{files[0]}, {files[1]}: no timed case in common but what is the same record; a case is a "
        "question, a model and its settings"
    )


def _row(compared: Agreement, pair: Pair) -> tables.Row:
    residual = compared.residual(pair)
    return {
        "case": pair.case,
        "quantity": pair.quantity,
        "device": pair.device,
        "unit": pair.unit,
        "a": pair.a,
        "b": pair.b,
        "samples_a": pair.samples[0],
        "samples_b": pair.samples[1],
        "date_a": pair.dates[0],
        "date_b": pair.dates[1],
        "ratio": pair.ratio,
        "interval": None if pair.interval is None else list(pair.interval),
        "residual": None if residual is None else residual.ratio,
        "within": compared.within,
        "verdict": compared.verdict(pair),
        "why": compared.why(pair),
        "differences": [str(reason) for reason in (*compared.shared, *pair.reasons)],
    }


def _interval(row: tables.Row) -> str:
    return "-" if row["interval"] is None else "{:.4f} to {:.4f}".format(*row["interval"])


def _dates(side: str) -> tables.Column:
    return f"{side.upper()} of", lambda row: row[f"date_{side}"]


def _columns(alone: bool, moved: bool) -> list[tables.Column]:
    return [
        ("case", lambda row: row["case"]),
        ("of", lambda row: row["quantity"]),
        *([_dates("a"), _dates("b")] if alone else []),
        ("A", lambda row: agreement.value_text(row["a"], row["unit"])),
        ("B", lambda row: agreement.value_text(row["b"], row["unit"])),
        ("B/A", lambda row: f"{row['ratio']:.4f}"),
        ("95 % interval", _interval),
        *([_RESIDUAL] if moved else []),
        ("verdict", lambda row: row["verdict"]),
        ("why", lambda row: "; ".join(row["why"]) or "-"),
    ]


_RESIDUAL: tables.Column = (
    "without the common factor",
    lambda row: "-" if row["residual"] is None else f"{row['residual']:.4f}",
)


def _sides(files: Sequence[Path], compared: Agreement) -> str:
    if len(files) == 1:
        return f"{files[0].name} with itself: B is the newest record of a case, A each older one"
    days = [sorted({pair.dates[side] for pair in compared.pairs}) for side in (0, 1)]
    told = [
        f"{side}: {file.name}, {' to '.join(dict.fromkeys((of[0], of[-1])))}"
        for side, file, of in zip("AB", files, days, strict=True)
        if of
    ]
    return "; ".join(told)


def _summary(files: Sequence[Path], compared: Agreement) -> list[str]:
    agreeing = f"{compared.verdicts[AGREE]} of {len(compared.pairs)} pairs agree"
    first = f"{agreeing} within {100 * compared.within:g} %; {_sides(files, compared)}"
    return [first, *compared.findings()]


def _body(args: argparse.Namespace) -> int:
    if options.keeps_records(args.out):
        raise options.UsageError(
            f"--out {args.out}: no record comes of this; --note appends the finding to {args.files[-1]}"
        )
    options.check_output(args.out, args.force)
    if args.note and not options.keeps_records(args.files[-1]):
        raise options.UsageError(f"--note: {args.files[-1]} must end in .jsonl")
    matched, told = _matched(args.files, args.across)
    compared = agreement.compare(matched, args.within)
    if not compared.pairs and not compared.lacking:
        raise options.UsageError(
            f"{', '.join(map(str, args.files))}: no case in common gave a number on any side"
        )
    rows = [_row(compared, pair) for pair in compared.pairs]
    summary = [*_summary(args.files, compared), *told]
    moved = any(row["residual"] is not None for row in rows)
    text = tables.render(rows, _columns(len(args.files) == 1, moved), args.format)
    if args.note:
        devices = tuple(sorted({pair.device for pair in compared.pairs}))
        text_of_it = "; ".join(summary)
        finding = Note(text=text_of_it, about="", devices=devices, author="bench.agree", date=note.now())
        summary += note.append(args.files[-1], finding)
    tables.emit(text, summary, args.out)
    return int(compared.differs)


def parser() -> options.Parser:
    made = options.parser("bench.agree", __doc__)
    made.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="records of A and of B; or one, of both"
    )
    made.add_argument(
        "--within",
        type=within,
        default=agreement.WITHIN,
        metavar="LIMIT",
        help="how far apart two medians agree (default: 2%%)",
    )
    made.add_argument("--across", action="store_true", help="pair cases of different devices too")
    made.add_argument("--note", action="store_true", help="append the summary to the last FILE as a note")
    options.add_output(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return options.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
