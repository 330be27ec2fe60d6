"""Draw whole samples, timed, and compare files of samples with real images.

python -m bench.sample --model FCDM-S DiT-S/2 --steps 25 --batch 4 --autoencoder sd-f8
python -m bench.sample --weights runs/DiT-S --ema 0.9999 --n 64 --out-dir samples/dit
python -m bench.sample --compare samples/dit/samples-64x32x32x3.npz --reference cifar10
"""

import argparse
from dataclasses import asdict
from dataclasses import fields as fields_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli import models, options, records, settings, values
from bench.cli.networks import sampling_options, trained
from bench.cli.networks.trained import Weights
from bench.cli.progress import progress
from bench.jobs import runner
from bench.jobs.job import Job, in_worker
from bench.records import pictures, quality, sampling
from bench.records.base import ModelCase, Record, size_text
from bench.records.pictures import PictureCase, PictureRun
from bench.records.sampling import SamplingCase
from bench.tables.table import Table

if TYPE_CHECKING:
    from bench.sampling.chains import Source
    from models.task import Task

MODELS = ("FCDM-S",)
TIMEOUT_S = 7 * 24 * 3600.0
TYPICAL_S = 60.0


# drawing


def plan(args: argparse.Namespace) -> "list[tuple[SamplingCase, Source]]":
    """Every combination of the requested settings, checked before sampling."""
    if any(args.cuda_graphs):
        raise options.UsageError("--cuda-graphs: bench.sample does not record chains as graphs; leave it out")
    sampling_options.check_decoding(args)
    if "aoti" in args.engine:
        raise options.UsageError("--engine aoti: a chain has calls of two shapes; compile would work")
    device = settings.device_of(args)
    usual_batch, usual_steps = sampling_options.CPU_DEFAULTS if device == "cpu" else sampling_options.DEFAULTS
    args.batch = args.batch or [usual_batch]
    weights = trained.read(args)
    names = trained.names(args, weights, MODELS)
    chosen = {name: trained.objective(args, weights, name) for name in names}
    trained.check_guidance(args, weights)
    steps = args.steps or usual_steps
    chain_of = {
        model: {"objective": objective, "sampler": _sampler(args, objective, steps), "steps": steps}
        for model, objective in chosen.items()
    }
    if weights.trained is None:
        args.res = args.res or options.DefaultSizes([256])
        models.check_models(names, args.res, args.weights)
    elif args.res:
        raise options.UsageError(
            f"--res: {weights.path} was trained at {size_text(weights.trained.res)}; leave it out"
        )
    else:
        args.res = [weights.trained.res]
    average = "" if args.ema is None else f", ema {args.ema}"
    container = models.container_of(args.weights) if weights.trained is None else ""
    name = settings.weights_name(weights.path, container) + average
    found = [
        _case(args, fields, weights, chain_of[fields["model"]])
        for group in settings.model_fields(args, device, names, name)
        for fields in group
    ]
    if args.out_dir is not None and len(found) != 1:
        raise options.UsageError(
            f"--out-dir {args.out_dir}: holds the samples of one case, got {len(found)} combinations of "
            "settings; name one model, size, batch and precision"
        )
    return found


def _sampler(args: argparse.Namespace, objective: str, steps: int) -> str:
    from bench.sampling import samplers

    with options.usage_errors("--"):
        return samplers.find(args.sampler, objective, steps)


def _case(
    args: argparse.Namespace, fields: dict[str, Any], weights: Weights, chain: dict[str, Any]
) -> "tuple[SamplingCase, Source]":
    from bench.sampling import chains

    if weights.trained is not None:
        fields = {**fields, "latent_size": weights.trained.latent_size}
    name = fields["model"]
    source = chains.Source(
        weights=None if weights.path is None else str(weights.path),
        trained_here=weights.trained is not None,
        ema=args.ema,
        decoder=args.decoder,
        folder=None if args.out_dir is None else str(args.out_dir),
    )
    task = chains.task_of(ModelCase(**fields), source)
    if task.given_channels:
        raise options.UsageError(
            f"--model {name}: an upsampler needs a low-resolution image, which bench.sample does not supply"
        )
    guided: int | None = args.guided_channels
    if guided is not None and guided > task.in_channels:
        raise options.UsageError(f"--guided-channels {guided}: {name} has {task.in_channels} here")
    for label in args.classes:
        if label >= task.num_classes:
            raise options.UsageError(
                f"--classes {label}: {name} has classes 0 to {task.num_classes - 1} here"
            )
    described = {
        **fields,
        **chain,
        "guidance": args.guidance,
        "guided_channels": guided or min(sampling_options.GUIDED, task.in_channels),
        "images": args.n or fields["batch"],
        "seed": args.seed,
        "classes": tuple(args.classes),
    }
    if args.autoencoder is None:
        return SamplingCase(**described), source
    case = PictureCase(**described, autoencoder=args.autoencoder)
    _check_space(case, task, source)
    return case, source


def _check_space(case: PictureCase, task: "Task", source: "Source") -> None:
    from bench.sampling import autoencoder, chains

    space = "pixels" if chains.draws_images(case, source) else task.space
    if (reason := autoencoder.why_not(case.autoencoder, case.model, space)) is not None:
        raise options.UsageError(f"--autoencoder {case.autoencoder}: {reason}")


def jobs(args: argparse.Namespace) -> list[Job]:
    """Jobs for a sweep, which stores times and no samples."""
    if args.out_dir is not None:
        raise options.UsageError(f"--out-dir {args.out_dir}: a sweep keeps no samples")
    return [_job(case, source) for case, source in plan(args)]


def _job(case: SamplingCase, source: "Source") -> Job:
    module = "autoencoder" if isinstance(case, PictureCase) else "chains"
    measure = f"bench.sampling.{module}:measure"
    return in_worker(measure, case, estimate_s=TYPICAL_S, timeout_s=TIMEOUT_S, source=asdict(source))


def _into_folder(job: Job, source: "Source", args: argparse.Namespace) -> tuple[list[Record], list[str]]:
    """Draw the samples missing from the folder; when complete, write the sample file and its grid."""
    from bench.sampling import assembly, sample_folder

    case, folder = job.case, Path(args.out_dir)
    assert isinstance(case, SamplingCase)
    determined = {name: value for name, value in asdict(source).items() if name != "folder"}
    determined = {**asdict(case), **determined, "weights": case.weights}
    del determined["images"]
    count, batch = case.images, case.batch
    with records.store(args.out) as store:
        notes = records.store_notes(store) if store is not None else []
        try:
            sample_folder.claim(folder, determined)
            with sample_folder.locked(folder):
                missing = sample_folder.missing(folder, count, batch)
                again = args.force or bool(missing)
                with progress("sampling", len(missing)) as begin, assembly.watched(folder, missing, begin):
                    results = runner.run([job], store, force=again, begin=lambda name: None)
                batches = -(-count // batch)
                notes.append(f"{batches - len(missing)} of {batches} batches were in {folder} already")
                if not sample_folder.missing(folder, count, batch):
                    notes += assembly.assemble(folder, count, batch)
        except ValueError as error:
            raise options.UsageError(f"--out-dir {error}") from error
    return list(results.records), notes


def _draw(args: argparse.Namespace) -> int:
    planned = plan(args)
    if args.out_dir is not None:
        ((case, source),) = planned
        results, notes = _into_folder(_job(case, source), source, args)
    else:
        made = [_job(case, source) for case, source in planned]
        results, notes = records.run_jobs(made, args.out, force=args.force)
    if any(case.weights == "random" for case, _ in planned):
        notes.append("weights are random: the speed is real, the images are noise; --weights gives others")
    notes.append(f"{results[0].environment.describe()}; median of whole chains")
    decoded = [result for result in results if isinstance(result, PictureRun)]
    notes += dict.fromkeys(map(pictures.about_decoder, decoded))
    table: Table[Any] = sampling.TABLE if args.autoencoder is None else pictures.TABLE
    records.show(table, results, notes, args)
    return 0


# comparing


def _compare(args: argparse.Namespace) -> int:
    from bench.machine import device, environment
    from bench.sampling import quality as library

    where = settings.device_for(args.device, ["fp32"])
    if args.reference is None:
        raise options.UsageError("--compare: needs --reference, a data set or an .npz of images")
    device.set_precision("fp32")
    given = {field.name: getattr(args, field.name) for field in fields_of(library.Settings)}
    with options.usage_errors(), progress("comparing", len(args.compare)) as begin:
        compared = library.Comparison(args.compare, library.Settings(**given), where, begin)

    def job(path: Path) -> Job:
        case = compared.cases[path]
        return Job(
            case=case,
            environment=environment.of(case),
            measure=lambda: compared.measure(path, environment.of(case)),
            estimate_s=TYPICAL_S,
        )

    results, notes = records.run_jobs([job(path) for path in args.compare], args.out, force=args.force)
    distances = [result for result in results if isinstance(result, quality.Quality)]
    notes += [*compared.notes, *library.notes(distances), results[0].environment.describe()]
    records.show(quality.TABLE, results, notes, args)
    return 0


def _body(args: argparse.Namespace) -> int:
    records.check_output(args.out, args.force)
    return _compare(args) if args.compare else _draw(args)


def parser() -> options.Parser:
    made = options.parser("bench.sample", __doc__)
    options.add_models(made, default=MODELS[0], weights=values.file_or_folder)
    options.add_res(made, default=(256,))
    made.set_defaults(res=None)
    sampling_options.add_chain(made)
    settings.add_settings(made, sampling_options.BATCH, cpu_batch=sampling_options.CPU_BATCH)
    sampling_options.add_comparison(made)
    options.add_output(made)
    return made


main = options.command(parser, _body)

if __name__ == "__main__":
    raise SystemExit(main())
