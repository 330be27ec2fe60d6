"""Analyse trained networks: the spectrum of their predictions, or the use of their channels.

python -m bench.analyse spectrum --checkpoint runs/FCDM-S-seed0 runs/DiT-S-2-seed0
python -m bench.analyse spectrum --checkpoint runs/FCDM-S-seed0 --ema 0.9999 --levels 10 100 500 900
python -m bench.analyse channels --checkpoint runs/FCDM-S-seed0 runs/FCDM-S@cca-seed0 --by layer
python -m bench.analyse channels --model FCDM-XL --weights FCDM-XL.pt --data path/to/latents
"""

import argparse
import re
from functools import partial
from typing import TYPE_CHECKING

from bench.cli import models, options, records
from bench.cli.networks import probe_options
from bench.jobs.job import Job
from bench.records import probes
from bench.records.base import Environment, Record
from bench.records.probes import Probe

if TYPE_CHECKING:
    from bench.training.probes.probe import Request, Subject

TYPICAL_S = 60.0
LAYER = r"(.*\.)?contract"  # name of the layer that reads the hidden channels, in the networks of models/


def _request(args: argparse.Namespace) -> "Request":
    from bench.machine import device
    from bench.training.probes.probe import Request, Weights

    weights = None
    if args.model is not None:
        (name,) = models.model_names([args.model], default=())
        weights = Weights(model=name, file=args.weights, objective=args.objective)
    return Request(
        device=args.device or device.default(),
        checkpoints=tuple(args.checkpoint or ()),
        ema=args.ema,
        weights=weights,
        data=args.data,
        data_dir=args.data_dir,
        images=args.images,
        levels=args.levels,
        batch=args.batch,
    )


def _body(args: argparse.Namespace) -> int:
    records.check_output(args.out, args.force)
    probe_options.check(args)
    from bench.training.probes import channels, probe, spectrum

    with options.usage_errors():
        subjects, images, notes = probe.subjects(_request(args))
    spectra = args.what == "spectrum"
    if not spectra:
        with options.usage_errors("--layer "):
            for subject in subjects:
                channels.find_layers(subject.model, args.layer)

    def job(subject: "Subject") -> Job:
        case = spectrum.case_of(subject) if spectra else channels.case_of(subject, args.layer)

        def analyse() -> Record:
            if spectra:
                return spectrum.measure(subject, images)
            return channels.measure(subject, images, args.layer)

        measure = partial(probe.guarded, case, subject.environment, analyse)
        return Job(case=case, environment=subject.environment, measure=measure, estimate_s=TYPICAL_S)

    results, found = records.run_jobs([job(subject) for subject in subjects], args.out, force=args.force)
    notes += [*found, _note(results[0].environment, subjects[0].probe)]
    if spectra:
        rows = [row for result in results for row in probes.levels(result)]
        records.show(probes.SPECTRA, rows, notes, args)
    else:
        rows = [row for result in results for row in probes.layers(result, by_layer=args.by == "layer")]
        records.show(probes.CHANNELS, rows, notes, args)
    return 0


def _note(here: Environment, of: Probe) -> str:
    return (
        f"{of.images} validation images of {of.data} (sha256 {of.data_sha256}), the same images and noise "
        f"for every network and level; fp32; {here.device}; torch {here.torch}; commit {here.commit or '-'}; "
        f"{here.date}"
    )


def pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"must be a regular expression, got {text!r}: {error}") from error
    return text


def parser() -> options.Parser:
    made = options.parser("bench.analyse", __doc__, "spectrum|channels")
    made.add_argument("what", choices=("spectrum", "channels"), help="what to analyse")
    probe_options.add_options(made)
    group = made.add_argument_group("channels")
    text = "layers whose inputs are scored (default: those called contract)"
    options.add(group, "--layer", pattern, text, default=LAYER, metavar="REGEX")
    group.add_argument("--by", choices=("layer",), help="a row for every layer")
    options.add_output(made)
    return made


main = options.command(parser, _body)

if __name__ == "__main__":
    raise SystemExit(main())
