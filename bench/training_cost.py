"""What does a training cost: in the papers' unit, in real FLOPs, in joules and GPU-hours?

    python -m bench.training_cost
    python -m bench.training_cost --records runs.jsonl
    python -m bench.training_cost --model FCDM-XL DiT-XL/2 --steps 400000 --batch 256

Without --model: the rows of FCDM's Table 17, beside what it prints. Its unit, Z, is 3 x MACs of a forward
pass x steps x batch, in zetta (1e21), a MAC counted as one FLOP. "from printed" works it out from the MACs
that the table prints, "from counted" from those counted here by the same rules (torchprofile's).

Real FLOPs are twice the MACs of every forward and backward pass, counted by torch's rules, without the
optimizer: "kept" with all activations kept, "recomputed" with every block computed again in the backward
pass, as FCDM's release does. "as released" says which of them it is; over it where a release has passes
that are not counted, as MDT's over masked tokens. All at 256 px.

--records names records of bench.train_step, by default those that python -m reports reads: each device,
precision and batch in them is a row with the device-hours of the whole training at that speed, and, where the
device's energy was read, its joules.
"""

import argparse
from collections.abc import Callable, Sequence

from bench.analysis import training_cost
from bench.analysis.training_cost import Cost, Measured, Training
from bench.cli import options, tables
from bench.records.record import Counted

COUNTERS = ("torch", "torchprofile-meta")
STEPS = 400_000


def planned(args: argparse.Namespace) -> list[Training]:
    """The trainings that are asked about.

    Raises:
        UsageError: no such model, or steps without one.
    """
    if args.model is None:
        for option in ("steps", "batch"):
            if getattr(args, option) is not None:
                raise options.UsageError(f"--{option}: Table 17 says its own; name a --model with it")
        return list(training_cost.published())
    if args.weights:
        raise options.UsageError(f"--weights {args.weights}: their values change no cost; leave it out")
    return [
        Training(
            model=name,
            steps=args.steps or STEPS,
            batch=args.batch or training_cost.BATCH,
            source="",
            printed_macs=None,
            printed=None,
        )
        for name in options.model_names(args.model, default=())
    ]


def counted(trainings: Sequence[Training]) -> list[Counted]:
    """Count every model under both rules.

    Raises:
        UsageError: a model that cannot be built.
    """
    from bench import flops

    args = flops.parser().parse_args(
        [
            "--model",
            *(one.model for one in trainings),
            "--res",
            str(training_cost.RES),
            "--counter",
            *COUNTERS,
        ]
    )
    return [flops.measure(blank, built=model)[0] for blank, model in flops.planned(args)]


def rows(costs: Sequence[Cost]) -> list[tables.Row]:
    """One object for every training, or for every setting that its steps were measured under."""
    return [_row(one, measured) for one in costs for measured in one.measured or (None,)]


def _row(one: Cost, measured: Measured | None) -> tables.Row:
    training = one.training
    run = measured.of.run if measured else None
    return {
        "model": training.model,
        "steps": training.steps,
        "batch": training.batch,
        "source": training.source,
        "printed_zetta_macs": training.printed.value if training.printed else None,
        "as_printed": training.printed.as_printed if training.printed else "",
        "zetta_macs_from_printed": one.from_printed,
        "zetta_macs_from_counted": one.from_counted,
        "verdict": one.verdict,
        "flops_kept": one.flops(False),
        "flops_recomputed": one.flops(True),
        "release_recomputes": one.recomputes,
        "flops_as_released": one.release_flops,
        "released_passes_not_counted": one.at_least,
        "device": run.environment.device if run else "",
        "precision": run.precision if run else "",
        "step_batch": run.batch if run else None,
        "checkpointing": run.checkpointing if run else None,
        "settings": training_cost.settings(run) if run else "",
        "torch": run.environment.torch if run else "",
        "date": run.environment.date if run else "",
        "images_per_s": measured.of.images_per_s if measured else None,
        "device_hours": measured.hours if measured else None,
        "joules": measured.joules if measured else None,
    }


def _zetta(key: str) -> Callable[[tables.Row], str]:
    return lambda row: tables.significant(None if row[key] is None else row[key] / training_cost.ZETTA)


def _released(row: tables.Row) -> str:
    text = _zetta("flops_as_released")(row)
    return f"over {text}" if row["released_passes_not_counted"] else text


_COLUMNS: list[tables.Column] = [
    ("model", lambda row: row["model"]),
    ("steps", lambda row: str(row["steps"])),
    ("batch", lambda row: str(row["batch"])),
    ("published ZMACs", lambda row: row["as_printed"] or "-"),
    ("from printed", lambda row: tables.significant(row["zetta_macs_from_printed"])),
    ("from counted", lambda row: tables.significant(row["zetta_macs_from_counted"])),
    ("printed is", lambda row: row["verdict"] or "-"),
    ("ZFLOPs kept", _zetta("flops_kept")),
    ("recomputed", _zetta("flops_recomputed")),
    ("as released", _released),
]
_MEASURED: list[tables.Column] = [
    ("device", lambda row: row["device"] or "-"),
    ("precision", lambda row: row["precision"] or "-"),
    ("step batch", lambda row: str(row["step_batch"] or "-")),
    ("checkpointing", lambda row: {None: "-", True: "on", False: "off"}[row["checkpointing"]]),
    ("settings", lambda row: row["settings"] or "-"),
    ("measured with", lambda row: f"torch {row['torch']}, {row['date'][:10]}" if row["device"] else "-"),
    ("images/s", lambda row: tables.significant(row["images_per_s"])),
    ("device-hours", lambda row: tables.significant(row["device_hours"])),
    ("MJ", lambda row: tables.significant(None if row["joules"] is None else row["joules"] / 1e6)),
]


def _body(args: argparse.Namespace) -> int:
    options.check_output(args.out, args.force)
    trainings = planned(args)
    steps = options.known_records(args.records)
    counts = counted(trainings)
    if args.out is not None and options.keeps_records(args.out):
        with options.store(args.out) as store:
            assert store is not None
            for one in counts:
                if args.force or store.held(one) is None:
                    store.append(one)
    found = rows(training_cost.costs(trainings, [*counts, *steps]))
    measured = any(row["device"] for row in found)
    text = tables.render(found, [*_COLUMNS, *(_MEASURED if measured else [])], args.format)
    here = counts[0].environment
    notes = [
        "ZMACs are the papers' Z: 3 x MACs x steps x batch / 1e21; 1 MAC = 2 FLOPs; 256 px; "
        f"torch {here.torch}; {here.date}",
        *(
            [f"published: FCDM Table 17. {statement}" for statement in training_cost.remarks()]
            if args.model is None
            else []
        ),
    ]
    tables.emit(text, notes, None if options.keeps_records(args.out) else args.out)
    return 0


def parser() -> options.Parser:
    made = options.parser("bench.training_cost", __doc__)
    options.add_models(made, default="those of FCDM's Table 17")
    made.add_argument(
        "--steps", type=options.positive_int, help=f"of a --model's training (default: {STEPS})"
    )
    made.add_argument(
        "--batch", type=options.positive_int, help=f"images of a step (default: {training_cost.BATCH})"
    )
    made.add_argument(
        "--records", type=options.records_file, nargs="+", metavar="FILE.jsonl", help="of bench.train_step"
    )
    options.add_output(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return options.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
