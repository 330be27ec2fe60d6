"""Analyse trained networks: the frequencies that they predict, or the channels that they use.

python -m bench.analyse spectrum --checkpoint runs/FCDM-S-seed0 runs/DiT-S-2-seed0
python -m bench.analyse spectrum --checkpoint runs/FCDM-S-seed0 --ema 0.9999 --levels 10 100 500 900
python -m bench.analyse channels --checkpoint runs/FCDM-S-seed0 runs/FCDM-S@cca-seed0 --by layer
python -m bench.analyse channels --model FCDM-XL --weights FCDM-XL.pt --data path/to/latents
"""

import argparse
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bench.cli import models, options, probe_options, records
from bench.jobs.job import Job
from bench.records import probes
from bench.records.base import Environment, Record, SizedCase
from bench.records.probes import ChannelCase, SpectrumCase

if TYPE_CHECKING:
    from bench.training.probe import Request, Subject

LAYER = r"(.*\.)?contract"  # the name that our networks give the layer behind the hidden channels


def _request(args: argparse.Namespace) -> "Request":
    from bench.training.probe import Request

    name = None if args.model is None else models.model_names([args.model], default=())[0]
    return Request(
        checkpoints=tuple(args.checkpoint or ()),
        ema=args.ema,
        model=name,
        weights=args.weights,
        objective=args.objective,
        data=args.data,
        data_dir=args.data_dir,
        images=args.images,
        levels=tuple(dict.fromkeys(args.levels)),
        batch=args.batch,
        device=args.device,
    )


def _body(args: argparse.Namespace) -> int:
    records.check_output(args.out, args.force)
    probe_options.check(args)
    from bench.machine import environment
    from bench.training import channels, probe, spectrum

    try:
        subjects, inputs, notes = probe.load_subjects(_request(args))
    except ValueError as error:
        raise options.UsageError(str(error)) from error
    try:
        for subject in subjects if args.what == "channels" else ():
            channels.find_layers(subject.model, args.layer)
    except ValueError as error:
        raise options.UsageError(f"--layer {error}") from error

    def case_of(subject: "Subject") -> SizedCase:
        if args.what == "spectrum":
            return SpectrumCase(**subject.fields, probe=subject.probe)
        return ChannelCase(**subject.fields, probe=subject.probe, pattern=args.layer)

    def measure(subject: "Subject", now: Environment) -> Record:
        if args.what == "spectrum":
            return spectrum.measure(subject, inputs, now)
        return channels.measure(subject, inputs, now, args.layer)

    def job(subject: "Subject") -> Job:
        case = case_of(subject)
        now = environment.gather(case.device, subject.fields["model"])
        run: Callable[[], Record] = lambda: probe.guarded(case, now, lambda: measure(subject, now))  # noqa: E731
        return Job(case=case, environment=now, measure=run, estimate_s=60.0)

    results, found = records.run_jobs([job(subject) for subject in subjects], args.out, force=args.force)
    notes += found + probe_options.notes(results[0].environment, "fp32", subjects[0].probe)
    if args.what == "spectrum":
        rows = [row for result in results for row in probes.levels(result)]
        records.show(probes.SPECTRA, rows, notes, args)
    else:
        rows = [row for result in results for row in probes.layers(result, by_layer=args.by == "layer")]
        records.show(probes.CHANNELS, rows, notes, args)
    return 0


def pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"must be a regular expression, got {text!r}: {error}") from error
    return text


def parser() -> options.Parser:
    made = options.parser("bench.analyse", __doc__, "spectrum|channels")
    made.add_argument("what", choices=("spectrum", "channels"), help="what to analyse")
    probe_options.add_options(made)
    group = made.add_argument_group("channels")
    group.add_argument(
        "--layer",
        type=pattern,
        default=LAYER,
        metavar="REGEX",
        help="layers whose inputs are scored (default: those called contract)",
    )
    group.add_argument("--by", choices=("layer",), help="a row for every layer")
    options.add_output(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return options.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
