"""How fast does a backbone draw whole samples, and what do they look like?

    python -m bench.sample --model FCDM-S DiT-S/2 --steps 25 --batch 4
    python -m bench.sample --model FCDM-XL --weights FCDM-XL.pt --n 50000 --batch 64 --out-dir samples/fcdm
    python -m bench.sample --weights runs/DiT-S --ema 0.9999 --n 64 --out-dir samples/dit --out samples.jsonl
    python -m bench.sample --model SiT-S/2 --objective flow --sampler heun --steps 50 --guidance 1
    python -m bench.sample --model DiT-XL/2 --weights DiT.pt --decoder my_pkg.my_mod:factory --out-dir images

Timed: a whole chain, from before the noise of a batch is drawn until the device has finished its last step;
every step of the network, the sampler's arithmetic and the noise are in it, and nothing is extrapolated.
With guidance other than 1 each pass is over twice the batch. Not timed: building the model, compiling it,
three passes to warm up, decoding, writing. The last batch is drawn in full whatever --n is.

iddpm: 1000 linear steps respaced to --steps, ancestral or ddim; a network without a variance half has that
of the posterior. flow: t from 0 to 1 given as it is, Euler-Maruyama (sde; its last step is 0.04, without
noise) or the ODE by euler or heun. Sampling is in float32; bf16 and fp16 are autocast around the network,
whose weights stay float32 (bench.throughput casts them) and are cast in the first pass to warm up; with
--compile in every pass. Of images (n, C, H, W) in [-1, 1], C is 1 or 3.

Every image has noise of its own from --seed and its number: --batch does not change it, but for rounding.
Image i gets class i modulo the number of classes. --out-dir holds a part for every batch, so that a killed
run goes on; at the end samples-NxHxWxC.npz, 8-bit images as arr_0 and their classes as arr_1, and grid.png.
Latents are written as float32 (n, C, H, W): this package carries no VAE. --decoder names your own: a callable
that takes nothing and returns decode(latents) -> images in [-1, 1].

Without --weights the weights are random, with no layer left at zero: the speed is real, the images are noise.
"""

import argparse
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli import options, settings, tables
from bench.jobs import worker
from bench.jobs.job import Unit
from bench.records.record import Run, Sampled, Skipped

if TYPE_CHECKING:
    from bench.sampling.chains import Chain
    from bench.sampling.sample_folder import Part
    from bench.training.checkpoint import State
    from models.task import Task

MODELS = ("FCDM-S",)
CPU_BATCH, CPU_STEPS = 4, 25
BATCH, STEPS = 64, 250
GUIDED = 3  # channels, as the samplers of the DiT line guide
GRID = 64  # images of a grid, at the most
SAMPLES = re.compile(r"samples-(\d+)x.*\.npz")  # N first
TIMEOUT_S = 7 * 24 * 3600.0
TYPICAL_S = 60.0


def scale(text: str) -> float:
    """A guidance scale, from 0 on."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, as 1.5; 1 is none; got {text!r}")
    return value


def seed(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, got {text!r}")
    return int(text)


def decay(text: str) -> float | None:
    """The decay of an average, or none."""
    return None if text == "none" else options.share(text)


# what is asked for, checked


def planned(args: argparse.Namespace) -> "list[Chain]":
    """Every combination of the settings asked for, checked before anything is drawn.

    Raises:
        UsageError: names, sizes, weights, samplers or settings that cannot be.
    """
    if any(args.cuda_graphs):
        raise options.UsageError("--cuda-graphs: bench.sample does not record chains as graphs; leave it out")
    where = settings.device_of(args)
    on_cpu = where == "cpu"
    args = argparse.Namespace(**{**vars(args), "batch": args.batch or [CPU_BATCH if on_cpu else BATCH]})
    state, weights = _trained(args)
    names = _names(args, state)
    objective = _objective(args, state)
    _check_guidance(args, state)
    steps = args.steps or (CPU_STEPS if on_cpu else STEPS)
    sampler = _sampler(args, objective, steps)
    if state is None:
        options.check_models(names, args.res or [256], args.weights)
    elif args.res:
        raise options.UsageError(
            f"--res: {weights} was trained at {tables.size(state.identity.run.res)}; leave it out"
        )
    sizes = args.res or [256] if state is None else [state.identity.run.res]
    found = [
        _chain(args, run, state, weights, objective=objective, sampler=sampler, steps=steps)
        for group in settings.runs(argparse.Namespace(**{**vars(args), "res": sizes}), "sample", where, names)
        for run in group
    ]
    if args.out_dir is not None and len(found) != 1:
        raise options.UsageError(
            f"--out-dir {args.out_dir}: holds the samples of one case, got {len(found)} combinations of "
            "settings; name one model, size, batch and precision"
        )
    return found


def _trained(args: argparse.Namespace) -> "tuple[State | None, Path | None]":
    """What bench.convergence trained, if --weights is a checkpoint of it, and the file."""
    from bench.training import checkpoint

    path: Path | None = args.weights
    state = None
    if path is not None and path.is_dir():
        found = checkpoint.paths(path)
        if not found:
            raise options.UsageError(f"--weights {path}: holds no checkpoint of bench.convergence")
        path = found[0]
    if path is not None and path.is_file() and path.suffix != ".safetensors":
        try:
            state = checkpoint.read(path)
        except checkpoint.CheckpointError as error:
            if checkpoint.NAME.fullmatch(path.name):
                raise options.UsageError(f"--weights {error}") from error
            state = None  # an authors' checkpoint, then: `cli.check_models` says what is wrong with it
    if state is None and args.ema is not None:
        raise options.UsageError(
            f"--ema {args.ema}: belongs to --weights of a checkpoint of bench.convergence"
        )
    if state is not None and args.ema is not None and checkpoint.decay_name(args.ema) not in state.ema:
        raise options.UsageError(f"--ema {args.ema}: {path} has {', '.join(state.ema) or 'none'}")
    return state, path


def _names(args: argparse.Namespace, state: "State | None") -> list[str]:
    if state is None:
        return options.model_names(args.model, MODELS)
    name = state.identity.run.model
    for other in options.model_names(args.model, (name,)):
        if other != name:
            raise options.UsageError(f"--model {other}: {args.weights} holds {name}")
    return [name]


def _objective(args: argparse.Namespace, state: "State | None") -> str:
    asked: str | None = args.objective
    if state is None:
        return asked or "iddpm"
    trained = state.identity.recipe.objective
    if asked not in (None, trained):
        raise options.UsageError(f"--objective {asked}: {args.weights} was trained under {trained}")
    return trained


def _check_guidance(args: argparse.Namespace, state: "State | None") -> None:
    """Refuse to guide by a null class that training never saw, which is as random as it began."""
    if state is not None and args.guidance != 1 and not state.identity.recipe.label_dropout:
        raise options.UsageError(
            f"--guidance {args.guidance:g}: {args.weights} was trained with --label-dropout 0, so nothing is "
            "known of it without labels; --guidance 1 would work"
        )


def _sampler(args: argparse.Namespace, objective: str, steps: int) -> str:
    from bench.sampling import samplers

    try:
        return samplers.find(args.sampler, objective, steps)
    except ValueError as error:
        raise options.UsageError(f"--{error}") from error


def _chain(
    args: argparse.Namespace,
    run: Run,
    state: "State | None",
    weights: Path | None,
    *,
    objective: str,
    sampler: str,
    steps: int,
) -> "Chain":
    """One case, as a store knows it."""
    from bench.sampling import chains as drawing

    if state is not None:
        run = replace(run, latent_size=state.identity.run.latent_size)
    task = drawing.task_of(run, weights, state is not None)
    if task.given_channels:
        raise options.UsageError(
            f"--model {run.model}: draws from a small image as well, which nothing gives it"
        )
    guided = _guided(args, run, task)
    for label in args.classes:
        if label >= task.num_classes:
            raise options.UsageError(
                f"--classes {label}: {run.model} has classes 0 to {task.num_classes - 1} here"
            )
    count = args.n or run.batch
    told = [f"{count} by {sampler} of {objective} in {steps} steps", f"seed {args.seed}"]
    told += [f"guidance {args.guidance:g} of {guided} channels"] if args.guidance != 1 else []
    told += [f"classes {' '.join(map(str, args.classes))}"] if args.classes else []
    averaged = "" if args.ema is None else f", ema {args.ema}"
    return drawing.Chain(
        run=replace(
            run,
            question=f"sample: {', '.join(told)}",
            weights="random" if weights is None else settings.named(weights) + averaged,
        ),
        objective=objective,
        sampler=sampler,
        steps=steps,
        guidance=args.guidance,
        guided_channels=guided,
        images=count,
        seed=args.seed,
        classes=tuple(args.classes),
        weights=None if weights is None else str(weights),
        trained_here=state is not None,
        ema=args.ema,
        decoder=args.decoder,
        folder=None if args.out_dir is None else str(args.out_dir),
    )


def _guided(args: argparse.Namespace, run: Run, task: "Task") -> int:
    asked: int | None = args.guided_channels
    if asked is not None and asked > task.in_channels:
        raise options.UsageError(f"--guided-channels {asked}: {run.model} has {task.in_channels} here")
    return asked or min(GUIDED, task.in_channels)


# drawing


def measure(case: "Chain") -> Sampled | Skipped:
    """Draw in a worker, dated now; whatever becomes of it is a record."""
    now = replace(case, run=settings.dated(case.run))
    result = worker.run("bench.sampling.chains:measure", now, TIMEOUT_S)
    assert isinstance(result, Sampled | Skipped)
    return result


def units(args: argparse.Namespace) -> list[Unit]:
    """The cases for a sweep, which keeps times and no samples."""
    if args.out_dir is not None:
        raise options.UsageError(f"--out-dir {args.out_dir}: a sweep keeps no samples")
    return [
        Unit(label=label(case), about=case.run, estimate_s=TYPICAL_S, measure=partial(measure, case))
        for case in planned(args)
    ]


def label(case: "Chain") -> str:
    """The case in words."""
    return f"{settings.label(worker.Case(run=case.run, weights=None))}, {case.run.question}"


def _into_folder(case: "Chain", args: argparse.Namespace) -> tuple[list[Sampled | Skipped], list[str]]:
    """Draw what the folder lacks, and write its samples and their grid when it has them all."""
    from bench.sampling import sample_folder as parts

    folder = Path(str(case.folder))
    about: dict[str, Any] = {**asdict(case), **asdict(case.run)}
    for other in (
        "run",
        "question",
        "environment",
        "images",
        "folder",
        "budget_s",
        "precision_target",
        "soak_s",
    ):
        del about[other]
    about["device_type"] = case.run.environment.device_type
    notes: list[str] = []
    with options.store(args.out) as store:
        notes += options.store_notes(store) if store is not None else []
        try:
            parts.claim(folder, about)
            with parts.locked(folder):
                todo = parts.missing(folder, case.images, case.run.batch)
                held = store.held(case.run) if store is not None and not args.force and not todo else None
                if isinstance(held, Sampled | Skipped):
                    result = held
                else:
                    with _watched(folder, todo):
                        result = measure(case)
                    if store is not None:
                        store.append(result)
                drawn = -(-case.images // case.run.batch)
                notes.append(f"{drawn - len(todo)} of {drawn} batches were in {folder} already")
                if not parts.missing(folder, case.images, case.run.batch):
                    notes += _assemble(folder, case)
        except ValueError as error:
            raise options.UsageError(f"--out-dir {error}") from error
    return [result], notes


@contextmanager
def _watched(folder: Path, todo: Sequence[int]) -> Iterator[None]:
    """Show the parts that a worker writes as they come."""
    from bench.sampling import sample_folder as parts

    done = threading.Event()
    with options.progress("sampling", len(todo)) as begin:

        def watch() -> None:
            begun = 0
            while True:
                there = len(parts.held(folder).intersection(todo))
                while begun <= min(there, len(todo) - 1):
                    begin(f"images from {todo[begun]}")
                    begun += 1
                if done.wait(0.5):
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()


def _assemble(folder: Path, case: "Chain") -> list[str]:
    """Write the samples of all parts as one file, and a grid of the first where they are images."""
    import numpy as np

    from bench.datasets import images
    from bench.sampling import sample_folder as parts

    firsts = range(0, case.images, case.run.batch)

    def cut(first: int) -> "Part":
        part, left = parts.read(folder, first), case.images - first
        return replace(part, samples=part.samples[:left], labels=part.labels[:left])

    labels = np.concatenate([cut(first).labels for first in firsts])
    one = cut(0).samples
    shape = (case.images, *one.shape[1:])
    path = folder / f"samples-{'x'.join(map(str, shape))}.npz"
    images.write_samples(path, (cut(first).samples for first in firsts), shape, labels)
    if one.dtype != np.uint8:
        return [
            f"{path}: latents, as they are: this package carries no VAE; --decoder my_pkg.my_mod:factory, "
            "a callable that returns decode(latents) -> images, makes images of them"
        ]
    wanted = min(GRID, case.images)
    grid = folder / "grid.png"
    most = max(int(name[1]) for other in folder.iterdir() if (name := SAMPLES.fullmatch(other.name)))
    if wanted < min(GRID, most) and grid.exists():
        return [f"{path}: {case.images} images; {grid} stays that of {most}"]
    shown = np.concatenate([cut(first).samples for first in range(0, wanted, case.run.batch)])[:wanted]
    images.write_png(grid, images.grid(shown))
    return [f"{path}: {case.images} images; {grid}: the first {wanted}"]


# what is printed


def row(result: Sampled | Skipped) -> tables.Row:
    """One object of the JSON output; what a skipped case lacks is None."""
    run = result.run
    made = result if isinstance(result, Sampled) else None
    interval = made.images_per_s_interval if made else None
    return {
        **settings.described(run),
        "weights": run.weights,
        "status": result.status if isinstance(result, Skipped) else "ok",
        "reason": result.reason if isinstance(result, Skipped) else "",
        "objective": made and made.objective,
        "sampler": made and made.sampler,
        "steps": made and made.steps,
        "passes": made and made.passes,
        "guidance": made and made.guidance,
        "guided_channels": made and made.guided_channels,
        "seed": made and made.seed,
        "images_per_s": made and made.images_per_s,
        "images_per_s_interval": list(interval) if interval else None,
        "median_s": made and made.median_s,
        "joules_per_image": made and made.joules_per_image,
        "compile_s": made and made.compile_s,
        "times_s": list(made.times_s) if made else [],
    }


def _speed(row: tables.Row) -> str:
    return str(row["status"]) if row["images_per_s"] is None else tables.significant(row["images_per_s"])


def _interval(row: tables.Row) -> str:
    bounds = row["images_per_s_interval"]
    return f"{tables.significant(bounds[0])} to {tables.significant(bounds[1])}" if bounds else "-"


def _text(key: str) -> tables.Column:
    return key, lambda row: "-" if row[key] is None else str(row[key])


def _columns(rows: Sequence[tables.Row]) -> list[tables.Column]:
    return [
        *(_text(key) for key in ("model", "res", "batch", "precision")),
        *settings.unusual(rows),
        *(_text(key) for key in ("sampler", "steps", "passes", "guidance")),
        ("images/s", _speed),
        ("95 % interval", _interval),
        ("s/chain", lambda row: tables.significant(row["median_s"])),
        ("chains", lambda row: str(len(row["times_s"]))),
        *([settings.JOULES] if any(row["joules_per_image"] for row in rows) else []),
        *([_text("reason")] if any(row["reason"] for row in rows) else []),
    ]


def _notes(results: Sequence[Sampled | Skipped]) -> list[str]:
    here = results[0].run.environment
    notes = []
    if any(result.run.weights == "random" for result in results):
        notes.append("weights are random: the speed is real, the images are noise; --weights gives others")
    notes.append(
        f"{here.device}; torch {here.torch}; driver {here.driver or '-'}; {here.threads} CPU threads; "
        f"commit {here.commit or '-'}; {here.date}; median of whole chains"
    )
    return notes


def _body(args: argparse.Namespace) -> int:
    options.check_output(args.out, args.force)
    if args.decoder is not None:
        from bench.sampling import chains as drawing

        try:
            drawing.decoder(args.decoder)
        except ValueError as error:
            raise options.UsageError(f"--decoder {error}") from error
        if args.out_dir is None:
            raise options.UsageError(
                f"--decoder {args.decoder}: belongs to --out-dir; without it nothing is kept"
            )
    chains = planned(args)
    if args.out_dir is not None:
        results, notes = _into_folder(chains[0], args)
    else:
        results, notes = settings.each(
            chains, about=lambda case: case.run, measure=measure, label=label, args=args
        )
    rows = [row(result) for result in results]
    text = tables.render(rows, _columns(rows), args.format)
    tables.emit(text, notes + _notes(results), None if options.keeps_records(args.out) else args.out)
    return 0


def parser() -> options.Parser:
    made = options.parser("bench.sample", __doc__)
    options.add_models(made, default=MODELS[0])
    made.add_argument(
        "--ema",
        type=decay,
        metavar="DECAY",
        help="the average of this decay out of a checkpoint of bench.convergence (default: none, the trained "
        "weights)",
    )
    made.add_argument("--objective", choices=("iddpm", "flow"), help="default: the checkpoint's, else iddpm")
    made.add_argument(
        "--sampler",
        metavar="NAME",
        help="ancestral or ddim; sde, euler or heun (default: the first of these)",
    )
    made.add_argument(
        "--steps",
        type=options.positive_int,
        help=f"of the sampler (default: {STEPS} on a GPU, {CPU_STEPS} on a CPU)",
    )
    made.add_argument(
        "--guidance",
        type=scale,
        default=1.5,
        metavar="SCALE",
        help="1 is none; any other needs a network that was trained with labels dropped (default: 1.5)",
    )
    made.add_argument(
        "--guided-channels",
        type=options.positive_int,
        metavar="C",
        help=f"guided ones, from the first (default: {GUIDED}, as in the DiT line, or all if fewer)",
    )
    made.add_argument("--n", type=options.positive_int, help="images (default: one batch)")
    made.add_argument("--seed", type=seed, default=0, help="of the noise (default: 0)")
    made.add_argument(
        "--classes",
        nargs="+",
        type=seed,
        default=[],
        metavar="LABEL",
        help="the labels that images get in turn (default: all there are)",
    )
    made.add_argument(
        "--out-dir", type=Path, metavar="DIR", help="write samples there (default: they are only timed)"
    )
    made.add_argument(
        "--decoder", metavar="my_pkg.my_mod:factory", help="what makes images of latents, outside of the time"
    )
    options.add_res(made, default=(256,))
    made.set_defaults(res=None)
    settings.add_settings(made, BATCH, cpu_batch=CPU_BATCH)
    options.add_output(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return options.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
