"""Which backbone learns faster under one recipe?

    python -m bench.convergence --out runs.jsonl
    python -m bench.convergence --model DiT-S/2 FCDM-S DiCo-S --data cifar10 --steps 5000 --precision bf16
    python -m bench.convergence --model DiT-B/2 FCDM-B --data path/to/latents --objective flow --steps 50000
    python -m bench.convergence --model DiT-S/2 my_pkg.my_mod:factory --seeds 5 --steps 500 --budget 30m
    torchrun --nproc_per_node 4 -m bench.convergence --model DiT-XL/2 FCDM-XL --data path/to/latents

Every model is trained from every seed: AdamW at a constant rate, averages of the weights (EMA), flips and
dropped labels as asked for. For one seed the order of the images, flips, dropped labels, timesteps and noise
are the same for all models. A label is dropped at every level of a network that embeds it more than once.
All models at seed 0 come first, then all at seed 1: what is there of a study that was stopped is balanced.

The loss is that of training (iddpm: L_simple + L_vlb; flow: the velocity's squared error), on validation
images with timesteps and noise that are the same for all models, seeds and evaluations, no label dropped.
Timesteps are spread evenly over their range. The first model is the reference: differences are taken within
a seed, and intervals are 95 %, Student's t, over the seeds; below three seeds there are none.

Seconds and joules are those of training steps; evaluations, checkpoints and the first pass, which compiles,
are left out. FLOPs are 2 x the MACs of forward and backward, without what checkpointing computes again.
fp32 is fp32 everywhere, bf16 is torch.autocast around the network, weights and loss in fp32. A GPU does not
repeat itself to the last bit; a CPU does, with as many threads.

Each run trains in a process of its own and leaves checkpoints in a folder of its own: the same command goes
on where it was stopped, by a kill, by hand or by --budget; --force begins it anew. A folder with checkpoints
of another run is refused, with --force too. A run that crashed is tried again by the same command; a loss
that is not finite ends one, with a row that says where. Under torchrun the processes share each batch, with
the same images, noise and timesteps as one process has; that needs accelerate, and a --dir and data that
every machine sees.
"""

import argparse
import json
import math
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import convergence_rows
from bench.cli import options, settings, tables
from bench.jobs import worker
from bench.jobs.job import Unit
from bench.records import labels
from bench.records.record import Recipe, Run, Size, Skipped, Trained, key, size_text
from bench.records.store import Store
from bench.training import processes
from bench.training.identity import Identity

if TYPE_CHECKING:
    from bench.datasets.datasets import Dataset
    from bench.training.processes import Processes
    from bench.training.trainer import Progress

MODELS = ("DiT-Ti/2", "FCDM-Ti", "DiCo-Ti", "DiC-Ti")
RUNS = Path("reports/out/convergence")
PRECISIONS = ("fp32", "tf32", "bf16")  # fp16 would need a scaled loss
FLIPPED = (
    "cifar10",
    "fashion-mnist",
)  # by default: a mirrored digit is none, a mirrored latent not an image's
EVALUATIONS = 10  # by default, after the one before the first step
BINS = 10  # ranges of t that losses are kept for, each of which needs a validation timestep
FLOPS_PER_S = {"cpu": 3e10, "cuda": 5e13}  # that training does at the least, as a rule
TIMEOUT_S = 20 * 24 * 3600.0  # about the longest that a wait can be
FOLLOW_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One model from one seed: what a worker is asked to train."""

    identity: Identity
    data: str
    data_dir: str | None
    folder: str  # of the run
    checkpoint_every: int
    train_macs: int
    halve: bool  # the images of a pass when memory runs out
    budget_s: float | None  # of this attempt; None: until it is done

    @property
    def run(self) -> Run:
        return self.identity.run

    @property
    def seed(self) -> int:
        return self.identity.seed


class _ChangedError(ValueError):
    """The data is not what it was when the study was planned."""


# training


def measure(case: Arm) -> Trained | Skipped:
    """Train in this process, alone."""
    folder = Path(case.folder)
    told = 0.0

    def tell(progress: "Progress") -> None:
        nonlocal told
        if time.monotonic() - told > FOLLOW_S:
            told = time.monotonic()
            _progress_file(folder).write_text(json.dumps(asdict(progress)), encoding="utf-8")

    return _train(case, processes.join(case.run.environment.device_type), tell)


def _train(arm: Arm, together: "Processes", tell: "Callable[[Progress], None]") -> Trained | Skipped:
    from bench.datasets import datasets as datasets
    from bench.training import trainer

    begin = time.monotonic()
    budget = math.inf if arm.budget_s is None else arm.budget_s
    recipe = arm.identity.recipe
    data = datasets.load(arm.data, None if arm.data_dir is None else Path(arm.data_dir), recipe.classes)
    if data.sha256 != recipe.data_sha256:
        raise _ChangedError(f"{arm.data}: changed since the study was planned")
    try:
        return trainer.train(
            arm.identity,
            data,
            Path(arm.folder),
            processes=together,
            checkpoint_every=arm.checkpoint_every,
            train_macs=arm.train_macs,
            progress=tell,
            out_of_time=lambda: time.monotonic() - begin > budget,
        )
    except trainer.OutOfTimeError as stopped:
        reason = f"at step {stopped.step} of {recipe.steps}: the time was up"
        return Skipped(run=arm.run, status="stopped", reason=reason)


def train(arm: Arm) -> Trained:
    """Train in a worker, dated now; whatever becomes of it is a record."""
    for smaller in _halvings(arm):
        now = replace(smaller, identity=replace(smaller.identity, run=settings.dated(smaller.run)))
        result = worker.run("bench.convergence:measure", now, TIMEOUT_S)
        if not isinstance(result, Skipped) or result.status != "out of memory":
            break
    if isinstance(result, Trained):
        return result
    assert isinstance(result, Skipped)
    return blank(now, result.status, result.reason)


def _halvings(arm: Arm) -> Iterator[Arm]:
    """The arm, and with half as many images a pass again and again if it may."""
    yield arm
    while arm.halve and arm.run.batch > 1:
        run = replace(arm.run, batch=arm.run.batch // 2)
        arm = replace(arm, identity=replace(arm.identity, run=run))
        yield arm


def blank(arm: Arm, status: str = "ok", reason: str = "") -> Trained:
    """The record of an arm without evaluations: what a store knows it by, or what became of it."""
    return Trained(
        run=arm.run,
        recipe=arm.identity.recipe,
        seed=arm.seed,
        processes=arm.identity.processes,
        train_macs=arm.train_macs,
        evaluations=(),
        status=status,
        reason=reason,
    )


def _progress_file(folder: Path) -> Path:
    return folder / "progress.json"


@contextmanager
def _followed(arm: Arm, say: Callable[[str], None]) -> Iterator[None]:
    """Within it, what the worker of an arm writes of its progress is said."""
    path, over = _progress_file(Path(arm.folder)), threading.Event()

    def follow() -> None:
        while not over.wait(FOLLOW_S):
            try:
                say(_told(arm, **json.loads(path.read_text(encoding="utf-8"))))
            except (OSError, json.JSONDecodeError):
                continue  # not there yet, or being written

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _told(arm: Arm, step: int, steps: int, loss: float, seconds: float) -> str:
    left = seconds / step * (steps - step) if step else math.nan
    return f"{_short(arm)}: step {step} of {steps}, loss {loss:.4f}, {_duration(left)} left"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 or math.isnan(seconds) else f"{seconds / 60:.0f} min"


def _short(arm: Arm) -> str:
    return f"{arm.run.model} seed {arm.seed}"


def label(arm: Arm) -> str:
    """The arm in words."""
    run, recipe = arm.run, arm.identity.recipe
    words = [f"{_short(arm)}, {recipe.data} {recipe.objective}", f"{recipe.steps} steps of {recipe.batch}"]
    words += [run.precision, *labels.switches(run)]
    words += [f"{arm.identity.processes} processes"] if arm.identity.processes > 1 else []
    return ", ".join(words)


# planning


def planned(args: argparse.Namespace) -> list[Arm]:
    """Every model from every seed, all models of a seed together, checked before anything is trained.

    Raises:
        UsageError: data, models, settings or run folders that cannot be.
    """
    from bench.machine import device, environment
    from bench.training import objective
    from models.registry import family_of

    where = args.device or device.default()
    count = processes.expected()
    for reason in (device.why_not(where, args.precision), processes.why_not(count)):
        if reason is not None:
            raise options.UsageError(reason)
    if count > 1 and args.micro_batch == "auto":
        raise options.UsageError(
            f"--micro-batch auto: one of {count} processes that runs out of memory ends them all; "
            "name a number"
        )
    share, rest = divmod(args.batch, count)
    if rest:
        raise options.UsageError(
            f"--batch {args.batch}: must be a multiple of the {count} processes; "
            f"{(share + 1) * count} would work"
        )
    data = _data(args)
    C, H, W = data.shape
    size: Size = H if H == W else (H, W)
    recipe = _recipe(args, data)
    task_of = {"in_channels": C, "num_classes": recipe.classes, "latent_size": size}
    learn_sigma = objective.find(recipe.objective).learn_sigma
    names = options.model_names(args.model, default=MODELS)
    macs = {name: _train_macs(name, {**task_of, "learn_sigma": learn_sigma}, args.data) for name in names}
    halve = args.micro_batch == "auto"
    arms = []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for name in names:
            run = Run(
                question="convergence",
                model=name,
                family=family_of(name),
                res=size if data.kind == "pixels" else _pixels(size),
                latent_size=size,
                batch=share if halve or args.micro_batch is None else min(args.micro_batch, share),
                precision=args.precision,
                compile=args.compile,
                channels_last=args.channels_last,
                checkpointing=args.checkpointing,
                environment=environment.gather(where, name),
            )
            arm = Arm(
                identity=Identity(run=run, recipe=recipe, seed=seed, processes=count),
                data=args.data,
                data_dir=None if args.data_dir is None else str(args.data_dir),
                folder="",
                checkpoint_every=args.checkpoint_every or recipe.evaluate_every,
                train_macs=macs[name],
                halve=halve,
                budget_s=None,
            )
            arms.append(replace(arm, folder=str(_folder(arm, args.dir))))
    return list(map(_placed, arms))


def _placed(arm: Arm) -> Arm:
    """The arm as its run folder lets it go on: with fewer images a pass where they were halved before.

    Raises:
        UsageError: the folder holds another run's checkpoints, or damaged ones only.
    """
    from bench.training import checkpoint

    wrong: checkpoint.CheckpointError | None = None
    for smaller in _halvings(arm):
        try:
            checkpoint.check(Path(arm.folder), smaller.identity)
        except checkpoint.CheckpointError as error:
            wrong = wrong or error
        else:
            return smaller
    raise options.UsageError(f"--dir {wrong}") from wrong


def _data(args: argparse.Namespace) -> "Dataset":
    from bench.datasets import datasets as datasets

    try:
        data = datasets.load(args.data, args.data_dir, args.classes or datasets.MOST_CLASSES)
    except ValueError as error:
        raise options.UsageError(f"--data {error}") from error
    if args.classes is not None and args.classes < data.classes:
        raise options.UsageError(f"--classes {args.classes}: {data.name} has {data.classes}")
    return data


def _recipe(args: argparse.Namespace, data: "Dataset") -> Recipe:
    images = min(args.validation_images, len(data.validation))
    if images * args.validation_draws < BINS:
        raise options.UsageError(
            f"--validation-images {images}: with --validation-draws {args.validation_draws} they make "
            f"{images * args.validation_draws} pairs, fewer than the {BINS} ranges of timesteps; "
            f"--validation-draws {math.ceil(BINS / images)} would work"
        )
    return Recipe(
        objective=args.objective,
        data=data.name,
        data_sha256=data.sha256,
        channels=data.shape[0],
        classes=args.classes or data.classes,
        train_images=len(data.train),
        validation_images=images,
        validation_draws=args.validation_draws,
        batch=args.batch,
        steps=args.steps,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        ema_decays=tuple(dict.fromkeys(args.ema_decay)),
        flip=data.name in FLIPPED if args.flip is None else args.flip,
        label_dropout=args.label_dropout,
        evaluate_every=args.evaluate_every or max(1, args.steps // EVALUATIONS),
    )


def _pixels(latent_size: Size) -> Size:
    """The size of the images that latents are of."""
    pixels = options.PIXELS_PER_LATENT
    if isinstance(latent_size, int):
        return pixels * latent_size
    return pixels * latent_size[0], pixels * latent_size[1]


def _train_macs(name: str, task_of: dict[str, Any], data: str) -> int:
    """MACs of forward and backward of one image; a model that cannot be trained so is known by it now."""
    from bench.counting import counters
    from models.contract import build, check, condition_width
    from models.registry import is_plugin
    from models.task import Task

    task: Task = Task(**task_of)
    where = f"(for --data {data}, {task.in_channels} x {task.height} x {task.width})"
    try:
        model = check(name, task) if is_plugin(name) else build(name, task)
    except ValueError as error:
        raise options.UsageError(f"--model {error} {where}") from error
    if condition_width(model) is not None:
        raise options.UsageError(
            f"--model {name}: takes float vectors for y; only labels are trained on here"
        )
    try:
        return counters.count_step(model, task).train_macs
    except (TypeError, ValueError, AttributeError, RuntimeError, LookupError, ArithmeticError) as error:
        told = f"{type(error).__name__}: {worker.first_line(error)}"
        raise options.UsageError(
            f"--model {name}: a training pass on the meta device raised {told} {where}"
        ) from error


def _folder(arm: Arm, base: Path | None) -> Path:
    """The run folder: below --dir, or one for this model, recipe, device and software alone."""
    name = re.sub(r"[^\w.@-]+", "-", f"{arm.run.model}-seed{arm.seed}")
    if base is not None:
        return base / name
    recipe = arm.identity.recipe
    study = re.sub(r"[^\w.@-]+", "-", f"{recipe.data}-{recipe.objective}-{recipe.steps}")
    return RUNS / study / f"{name}-{key(blank(arm))[:8]}"


def estimate_s(arm: Arm) -> float:
    """Seconds that an arm takes at the most, as a rule: its FLOPs at a slow pace, evaluations included."""
    recipe = arm.identity.recipe
    evaluations = 1 + math.ceil(recipe.steps / recipe.evaluate_every)
    looked_at = (
        evaluations * (1 + len(recipe.ema_decays)) * recipe.validation_images * recipe.validation_draws
    )
    images = recipe.steps * recipe.batch / arm.identity.processes + looked_at / 3  # a third: forward only
    pace = FLOPS_PER_S[arm.run.environment.device_type]
    return 2 * settings.TYPICAL_STARTUP_S + 2 * arm.train_macs * images / pace


def units(args: argparse.Namespace) -> list[Unit]:
    """The arms of `planned` for a sweep."""
    return [
        Unit(
            label=label(arm),
            about=blank(arm),
            estimate_s=estimate_s(arm),
            measure=partial(train, arm),
            found=partial(_held, arm),
            forget=partial(_forget, arm),
        )
        for arm in planned(args)
    ]


# the command


def _held(arm: Arm, store: Store | None) -> Trained | None:
    """What a store holds of an arm that ended, with fewer images a pass too if memory may have run out."""
    for smaller in _halvings(arm):
        found = store.held(blank(smaller)) if store is not None else None
        if isinstance(found, Trained) and found.status in ("ok", "not finite"):
            return found
    return None


def _study(
    arms: Sequence[Arm], args: argparse.Namespace, together: "Processes | None"
) -> tuple[list[Trained], list[str]]:
    """Train what the store does not hold, while the budget lasts.

    Args:
        arms: in order.
        args: --out, --force and --budget.
        together: the processes of torchrun, all of which are here; None: each arm has a worker.
    """
    begin = time.monotonic()
    first = together is None or together.rank == 0
    records: list[Trained] = []
    notes: list[str] = []
    found = 0
    with (
        options.store(args.out if first else None) as store,
        options.live_progress("training", len(arms)) as (next_arm, say),
    ):
        notes += options.store_notes(store) if store is not None else []
        for at, arm in enumerate(arms):
            next_arm(_short(arm))
            left = None if args.budget is None else args.budget - (time.monotonic() - begin)
            ask = partial(_ask, store, arm, args.force, left)
            answer, held = ask() if together is None else together.first(ask)
            if answer == "stop":
                notes.append(f"stopped by --budget with {len(arms) - at} of {len(arms)} runs not begun")
                break
            if held is not None:
                found += 1
                records.append(held)
                continue
            if first and args.force:
                _forget(arm)
            arm = replace(arm, budget_s=left)
            if together is None:
                with _followed(arm, say):
                    record = train(arm)
            else:
                record = _train_together(arm, together, say)
            records.append(record)
            if store is not None and record.status != "stopped":
                store.append(record)
    if found:
        notes.append(f"{found} of {len(arms)} were in {args.out} already; --force trains them again")
    if any(record.status == "stopped" for record in records):
        notes.append("the same command goes on where it was stopped")
    return records, notes


def _ask(store: Store | None, arm: Arm, force: bool, left: float | None) -> tuple[str, Trained | None]:
    """What to do with an arm: take what is held, stop, or train."""
    held = None if force else _held(arm, store)
    if held is not None:
        return "held", held
    return ("stop" if left is not None and left <= 0 else "train"), None


def _forget(arm: Arm) -> None:
    from bench.training import checkpoint

    checkpoint.forget(Path(arm.folder))


def _train_together(arm: Arm, together: "Processes", say: Callable[[str], None]) -> Trained:
    """Train among the processes of torchrun; the first says how it goes, in a pipe at every evaluation."""
    every = arm.identity.recipe.evaluate_every

    def tell(progress: "Progress") -> None:
        text = _told(arm, **asdict(progress))
        if sys.stderr.isatty():
            say(text)
        elif progress.step % every == 0:
            print(text, file=sys.stderr, flush=True)

    arm = replace(arm, identity=replace(arm.identity, run=settings.dated(arm.run)))
    result = _train(arm, together, tell)
    return result if isinstance(result, Trained) else blank(arm, result.status, result.reason)


def _plan_rows(arms: Sequence[Arm], store: Store | None) -> list[tables.Row]:
    from bench.training import checkpoint

    return [
        {
            "case": label(arm),
            "held": _held(arm, store) is not None,
            "step": checkpoint.check(Path(arm.folder), arm.identity)[0],
            "estimate_s": estimate_s(arm),
            "folder": arm.folder,
        }
        for arm in arms
    ]


_PLAN: list[tables.Column] = [
    ("run", lambda row: row["case"]),
    ("held", lambda row: "yes" if row["held"] else "no"),
    ("at step", lambda row: str(row["step"])),
    ("at most", lambda row: _duration(row["estimate_s"])),
    ("folder", lambda row: row["folder"]),
]


def _body(args: argparse.Namespace) -> int:
    from bench.training.checkpoint import CheckpointError

    several = processes.expected() > 1
    first = processes.rank() == 0
    if first and not args.dry_run:
        options.check_output(args.out, args.force)
    arms = planned(args)
    if args.dry_run and not first:
        return 0
    if args.dry_run:
        with options.store(args.out if args.out and args.out.exists() else None) as store:
            tables.emit(tables.render(_plan_rows(arms, store), _PLAN, args.format), [], None)
        return 0
    together = processes.join(arms[0].run.environment.device_type) if several else None
    try:
        records, notes = _study(arms, args, together)
    except CheckpointError as error:
        raise options.UsageError(f"--dir {error}") from error
    finally:
        if together is not None:
            together.close()
    if first:
        told = convergence_rows.rows(records, arms[0].run.model)
        text = tables.render(told, convergence_rows.columns(told), args.format) if records else ""
        notes += _notes(records, arms) if records else []
        tables.emit(text, notes, None if options.keeps_records(args.out) else args.out)
    return 0


def _notes(records: Sequence[Trained], arms: Sequence[Arm]) -> list[str]:
    here, recipe, run = records[0].run.environment, records[0].recipe, records[0].run
    return [
        f"validation loss after {recipe.steps} steps of {recipe.batch} images, {recipe.objective}; "
        f"{recipe.data} ({recipe.train_images} + {recipe.validation_images} images of "
        f"{recipe.channels} x {size_text(run.latent_size)}), {recipe.validation_draws} timesteps for each",
        f"{here.device}; torch {here.torch}; driver {here.driver or '-'}; {here.threads} CPU threads; "
        f"{run.precision}; processes {records[0].processes}; commit {here.commit or '-'}; {here.date}",
        f"checkpoints: {Path(arms[0].folder).parent}",
    ]


def _micro_batch(text: str) -> int | str:
    return text if text == "auto" else options.positive_int(text)


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, got {text!r}")
    return int(text)


def _number(low: float, high: float, what: str) -> Callable[[str], float]:
    """A type of numbers from low, inclusive, to high, exclusive."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value < high:
            raise argparse.ArgumentTypeError(f"must be {what}, got {text!r}")
        return value

    return parse


def parser() -> options.Parser:
    made = options.parser("bench.convergence", __doc__)
    made.add_argument(
        "--model",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="the reference first: as published, in any case; a pattern such as 'FCDM-*'; or your own "
        f"my_pkg.my_mod:factory, a callable that takes a models.Task (default: {' '.join(MODELS)})",
    )
    data = made.add_argument_group("data")
    data.add_argument(
        "--data",
        default="digits",
        metavar="NAME|PATH",
        help="digits, fashion-mnist, cifar10 (python -m bench.data fetches the last two), or latents: a "
        "folder of .npy files, an .npz or a zarr store (default: digits)",
    )
    data.add_argument("--data-dir", type=Path, metavar="DIR", help="of fetched data (default: data)")
    data.add_argument(
        "--classes",
        type=options.positive_int,
        metavar="N",
        help="that labels of latents may name (default: as many as they do, at most 1000)",
    )
    data.add_argument(
        "--validation-images",
        type=options.positive_int,
        default=2000,
        metavar="N",
        help="(default: 2000, or all)",
    )
    data.add_argument(
        "--validation-draws",
        type=options.positive_int,
        default=1,
        metavar="N",
        help="timesteps for each (default: 1)",
    )
    recipe = made.add_argument_group("recipe")
    recipe.add_argument("--objective", choices=("iddpm", "flow"), default="iddpm", help="default: iddpm")
    recipe.add_argument("--steps", type=options.positive_int, default=300, help="default: 300")
    recipe.add_argument(
        "--seeds", type=options.positive_int, default=3, metavar="N", help="how many (default: 3)"
    )
    recipe.add_argument("--first-seed", type=_whole, default=0, metavar="K", help="default: 0")
    recipe.add_argument(
        "--batch", type=options.positive_int, default=256, help="images of an optimizer step (default: 256)"
    )
    recipe.add_argument(
        "--learning-rate",
        type=_number(0, math.inf, "0 or above"),
        default=1e-4,
        metavar="LR",
        help="default: 1e-4",
    )
    recipe.add_argument(
        "--weight-decay", type=_number(0, math.inf, "0 or above"), default=0.0, metavar="W", help="default: 0"
    )
    share = _number(0, 1, "from 0 to below 1")
    recipe.add_argument(
        "--ema-decay",
        nargs="*",
        type=share,
        default=[0.9999, 0.99],
        metavar="D",
        help="of averages of the weights, each evaluated (default: 0.9999 0.99)",
    )
    recipe.add_argument("--label-dropout", type=share, default=0.1, metavar="SHARE", help="default: 0.1")
    recipe.add_argument(
        "--flip",
        nargs="?",
        const=True,
        type=options.on_or_off,
        metavar="on|off",
        help=f"mirror half of the images (default: on for {' and '.join(FLIPPED)})",
    )
    recipe.add_argument(
        "--evaluate-every", type=options.positive_int, metavar="STEPS", help="default: a tenth of the steps"
    )
    how = made.add_argument_group("how it is computed")
    options.add_device(how)
    how.add_argument("--precision", choices=PRECISIONS, default="fp32", help="default: fp32")
    how.add_argument("--compile", action="store_true", help="train under torch.compile")
    how.add_argument("--channels-last", action="store_true", help="lay images and kernels out channels last")
    how.add_argument(
        "--checkpointing", action="store_true", help="keep blocks' inputs only, and compute them again"
    )
    how.add_argument(
        "--micro-batch",
        type=_micro_batch,
        metavar="N|auto",
        help="images of one pass on one process; gradients of several add up to --batch (default: all at "
        "once). auto: all at once, and half as many for each time that memory runs out, which is recorded; "
        "not for several processes",
    )
    keep = made.add_argument_group("stopping and going on")
    keep.add_argument(
        "--dir",
        type=Path,
        help="below it each run has its folder, MODEL-seedK, with its checkpoints (default: one below "
        f"{RUNS}, by what is trained on which software)",
    )
    keep.add_argument(
        "--checkpoint-every", type=options.positive_int, metavar="STEPS", help="default: at every evaluation"
    )
    keep.add_argument(
        "--budget",
        type=options.positive_seconds,
        metavar="TIME",
        help="stop then, to go on another time: 90s, 8m or 1h",
    )
    keep.add_argument(
        "--dry-run", action="store_true", help="print the runs and where they stand; train nothing"
    )
    options.add_output(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return options.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
