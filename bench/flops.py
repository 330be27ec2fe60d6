"""How many multiply-accumulates does an image cost?

    python -m bench.flops
    python -m bench.flops --model 'FCDM-*' --model DiT-XL/2 --res 256 512 --format json
    python -m bench.flops --model FCDM-XL --by op
    python -m bench.flops --model FCDM-S DiT-S/2 --counter torch torchprofile-meta torchprofile fvcore
    python -m bench.flops --model my_pkg.my_mod:factory
    python -m bench.flops --explain FCDM-XL DiT-XL/2
    python -m bench.flops --explain '*' --res 256 512 1024 2048

Counted: one denoising forward pass model(x, t, y), and forward plus backward pass of a training step,
without and with activation checkpointing (every block of the network computed twice). One MAC is two
FLOPs; papers on diffusion backbones print MACs under the name of FLOPs or Gflops.

Counters: torch, the default, counts convolutions, matrix products and attention, linear attention as the
recurrence that it is. torchprofile-meta also counts elementwise products, means and affine norms, but no
linear attention, as the package does that the papers used; it equals that package to the last digit, but
for what a trace on real weights drops or computes otherwise (DiMSUM, neighbourhood attention).
torchprofile-unfused is the same where attention is not one operator and the scaling of the queries counts;
the DiT rows of DiCo's Table 1 round to it. module-hooks sees layers only and no function, so no attention,
as thop does; calflops, which is never run here, also counts functional convolutions and matrix products,
but not scaled_dot_product_attention. All of these run on the meta device: nothing is computed, nothing
allocated.
closed-form does not run the model at all: formulas of its Config and the Task, in bench/closed_form.py.
torchprofile and fvcore are the packages themselves; they trace real weights, so the XL models take them
seconds and gigabytes. What each counter saw and gave nothing for is listed below the table.

--explain sets the counters side by side, names every difference to torch's count with its MACs (what finds
no name is called unexplained), breaks the closed form into its terms, says which counts round to the
published figures, which proves no counter to be theirs, and which count to trust, and ends with FCDM-XL /
DiT-XL/2 under each counter. It counts forward passes only, and exits 1 where a closed form is not the
traced count. The packages run where they are installed, at most 4 models times sizes are explained, one
pass costs at most 150 GMACs and the weights fit. --counter names those that run whatever the models and
their MACs are, and no other counter, as those need no asking; --counter torch runs no package. The ratio has
a package's row where both of its models are explained.
"""

import argparse
import importlib.util
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from bench.cli import options, tables
from bench.counting import explain
from bench.jobs.job import Unit
from bench.records.record import Counted, Size, height_width, size_text

if TYPE_CHECKING:
    from torch import nn

    from bench.counting.counters import Count

COUNTERS = tuple(explain.COUNTERS)
TYPICAL_S = 0.5  # of one model at one size
SIZES = (256, 512, 1024)
EXPLAINED_SIZES = (256,)
BY_MODULE = ("torch", "torchprofile-meta")


@dataclass(frozen=True, kw_only=True)
class Share:
    """A line of --by: the part of one model's MACs that an operator or a module has."""

    counted: Counted
    part: str
    macs: int


def _blank(name: str, res: Size, counter: str, batch: int) -> Counted:
    """The record of a count before it is made."""
    from bench.machine import environment
    from models.registry import family_of, task_at

    return Counted(
        model=name,
        family=family_of(name),
        res=res,
        latent_size=task_at(name, *height_width(res)).latent_size,
        batch=batch,
        counter=counter,
        params=0,
        params_trainable=0,
        macs=0,
        train_macs=None,
        train_macs_checkpointed=None,
        not_counted=(),
        environment=environment.gather("cpu" if counter in explain.PACKAGES else "meta", name),
    )


def measure(
    blank: Counted, by: str | None = None, built: "nn.Module | None" = None
) -> tuple[Counted, list[Share]]:
    """Count one model at one size under one counter.

    Args:
        blank: says which, as `planned` gives it.
        by: "op" or "module", to have the parts too; None for the whole alone.
        built: the model on the meta device, where it is there already.
    """
    from bench.counting import counters as counters
    from models.contract import build
    from models.registry import task_at

    task = task_at(blank.model, *height_width(blank.res))
    real = blank.counter in explain.PACKAGES
    model = None if real else built
    if model is None:
        model = build(blank.model, task, device="cpu" if real else "meta")
    step = counters.count_step(model, task, blank.batch) if blank.counter == "torch" else None
    if blank.counter == "closed-form":
        forward = _formula(blank)
    else:
        # not the step's: a network may run another form of itself where no gradient is asked for (U-DiT)
        forward = counters.count_forward(
            model, task, counter=blank.counter, batch=blank.batch, by_module=by == "module"
        )
    parameters = list(model.parameters())
    counted = replace(
        blank,
        params=sum(p.numel() for p in parameters),
        params_trainable=sum(p.numel() for p in parameters if p.requires_grad),
        macs=forward.macs,
        train_macs=step.train_macs if step else None,
        train_macs_checkpointed=step.train_macs_checkpointed if step else None,
        not_counted=forward.not_counted,
    )
    parts = {"op": forward.by_op, "module": forward.by_module, None: {}}[by]
    return counted, [Share(counted=counted, part=part, macs=macs) for part, macs in parts.items() if macs]


def _formula(blank: Counted) -> "Count":
    from bench import closed_form
    from bench.counting import counters as counters
    from models.registry import task_at

    terms = closed_form.count(blank.model, task_at(blank.model, *height_width(blank.res)), blank.batch)
    assert terms is not None  # `planned` has seen to it
    return counters.Count(by_op=dict(terms.torch.most_common()), by_module={}, not_counted=())


def _row(counted: Counted) -> tables.Row:
    return {
        "model": counted.model,
        "family": counted.family,
        "res": tables.size(counted.res),
        "latent_size": tables.size(counted.latent_size),
        "batch": counted.batch,
        "params": counted.params,
        "params_trainable": counted.params_trainable,
        "macs": counted.macs,
        "flops": counted.flops,
        "train_macs": counted.train_macs,
        "train_macs_checkpointed": counted.train_macs_checkpointed,
        "counter": counted.counter,
        "not_counted": list(counted.not_counted),
    }


def _giga(value: int | None) -> str:
    return tables.fixed(3, None if value is None else value / 1e9)


def _columns(batch: int) -> list[tables.Column]:
    of = "" if batch == 1 else f" of {batch}"
    return [
        ("model", lambda row: row["model"]),
        ("res", lambda row: str(row["res"])),
        ("params M", lambda row: tables.fixed(2, row["params"] / 1e6)),
        (f"GMACs{of}", lambda row: _giga(row["macs"])),
        (f"GFLOPs{of}", lambda row: _giga(row["flops"])),
        (f"train GMACs{of}", lambda row: _giga(row["train_macs"])),
        ("checkpointed", lambda row: _giga(row["train_macs_checkpointed"])),
        ("counter", lambda row: row["counter"]),
    ]


def _share_row(share: Share) -> tables.Row:
    row = _row(share.counted)
    kept = {key: row[key] for key in ("model", "family", "res", "latent_size", "batch", "counter")}
    total = share.counted.macs
    return {**kept, "part": share.part, "macs": share.macs, "share": share.macs / total if total else 0.0}


_SHARE_COLUMNS: list[tables.Column] = [
    ("model", lambda row: row["model"]),
    ("res", lambda row: str(row["res"])),
    ("counter", lambda row: row["counter"]),
    ("part", lambda row: row["part"]),
    ("GMACs", lambda row: tables.fixed(4, row["macs"] / 1e9)),
    ("share %", lambda row: tables.fixed(2, 100 * row["share"])),
]


def planned(args: argparse.Namespace) -> list[tuple[Counted, "nn.Module"]]:
    """Every count that is asked for, as a store knows it before it is made, and its model on meta.

    Raises:
        UsageError: names, sizes, weights or counters that cannot be.
    """
    if args.explain:
        raise options.UsageError(
            "--explain: a table of its own, which no suite runs; name a --counter instead"
        )
    asked = list(dict.fromkeys(args.counter or ["torch"]))
    if args.by == "module" and (without := [c for c in asked if c not in BY_MODULE]):
        raise options.UsageError(
            f"--by module: not with --counter {' '.join(without)}; works with {' '.join(BY_MODULE)}"
        )
    for package in explain.PACKAGES:
        if package in asked and importlib.util.find_spec(package) is None:
            raise options.UsageError(f"--counter {package}: not installed here; pip install {package}")
    names = options.model_names(args.model, default=["*"])
    models = options.meta_models(names, args.res or SIZES, args.weights)
    if "closed-form" in asked:
        _require_formulas(models)
    return [
        (_blank(name, res, counter, args.batch), model)
        for (name, res), model in models.items()
        for counter in asked
    ]


def units(args: argparse.Namespace) -> list[Unit]:
    """The counts of `planned` for a sweep."""
    return [
        Unit(
            label=f"{blank.model} {size_text(blank.res)} px, {blank.counter}",
            about=blank,
            estimate_s=TYPICAL_S,
            measure=partial(_whole, blank),
        )
        for blank, _ in planned(args)
    ]


def _whole(blank: Counted) -> Counted:
    return measure(blank)[0]


def _require_formulas(models: Iterable[tuple[str, Size]]) -> None:
    from bench import closed_form
    from models.registry import task_at

    for name, res in models:
        if closed_form.count(name, task_at(name, *height_width(res))) is None:
            raise options.UsageError(
                f"--counter closed-form: {name} has no formula; torch counts it; bench/closed_form.py "
                "says how a backbone gets one"
            )


def _explained(args: argparse.Namespace) -> int:
    """--explain: other tables than the counts alone, of the same records."""
    for flag, given in (("--model", args.model), ("--by", args.by), ("--weights", args.weights)):
        if given:
            raise options.UsageError(
                f"--explain: names its models itself and takes no {flag}; leave {flag} out"
            )
    if moot := [counter for counter in args.counter or () if counter not in ("torch", *explain.PACKAGES)]:
        raise options.UsageError(
            f"--explain: has {', '.join(moot)} anyway; --counter names the packages to run, "
            f"{' or '.join(explain.PACKAGES)}, or torch to run none"
        )
    sizes = args.res or EXPLAINED_SIZES
    models = options.meta_models(options.model_names(args.explain, [], "--explain"), sizes, None, "--explain")
    packages = explain.packages_asked(args.counter, len(models))
    of_pair = _pair(sizes, models)
    done: dict[tuple[str, Size], explain.Explained] = {}
    everything = {**models, **of_pair}
    most_macs = math.inf if args.counter else explain.MOST_MACS
    with options.store(args.out) as store, options.progress("explaining", len(everything)) as begin:
        for (name, res), model in everything.items():
            begin(f"{name} {size_text(res)}")
            asked = packages if (name, res) in models else {}  # the ratio alone is not worth them
            one = explain.explain(_blank(name, res, "torch", args.batch), model, asked, most_macs)
            done[name, res] = one
            for counted in one.counted.values():
                if store is not None and (args.force or store.held(counted) is None):
                    store.append(counted)
    wanted = [done[case] for case in models]
    rows = explain.rows(wanted, [one for (name, _), one in done.items() if name in explain.PAIR])
    text = explain.render(rows, args.format)
    tables.emit(text, explain.notes(wanted), None if options.keeps_records(args.out) else args.out)
    return 0 if all(one.agrees for one in wanted) else 1


def _pair(
    sizes: Sequence[Size], known: Mapping[tuple[str, Size], "nn.Module"]
) -> dict[tuple[str, Size], "nn.Module"]:
    """The two models of the ending ratio at the sizes that both take, where they are not asked for anyway."""
    from models.contract import build
    from models.registry import task_at

    found: dict[tuple[str, Size], nn.Module] = {}
    for res in sizes:
        try:
            both = {
                (name, res): known.get((name, res)) or build(name, task_at(name, *height_width(res)))
                for name in explain.PAIR
            }
        except ValueError as error:
            print(f"no ratio at {size_text(res)} px: {error}", file=sys.stderr)
            continue
        found |= both
    return found


def _body(args: argparse.Namespace) -> int:
    options.check_output(args.out, args.force)
    if args.explain:
        return _explained(args)
    plan = planned(args)
    counted: list[Counted] = []
    shares: list[Share] = []
    with options.store(args.out) as store, options.progress("counting", len(plan)) as begin:
        for blank, model in plan:
            begin(f"{blank.model} {size_text(blank.res)} {blank.counter}")
            one, parts = measure(blank, args.by, model)
            counted.append(one)
            shares += parts
            if store is not None and (args.force or store.held(one) is None):
                store.append(one)
    if args.by:
        text = tables.render([_share_row(share) for share in shares], _SHARE_COLUMNS, args.format)
    else:
        text = tables.render([_row(one) for one in counted], _columns(args.batch), args.format)
    tables.emit(text, _notes(counted), None if options.keeps_records(args.out) else args.out)
    return 0


def _notes(counted: Sequence[Counted]) -> list[str]:
    """What the table stands on, and each counter's blind spots in these models."""
    blind: dict[str, set[str]] = defaultdict(set)
    for one in counted:
        blind[one.counter].update(one.not_counted)
    first = counted[0].environment
    return [
        f"1 MAC = 2 FLOPs; batch {counted[0].batch}; train: forward + backward, optimizer not counted; "
        f"torch {first.torch}; {first.date}",
        *(
            f"not counted by {counter}: {', '.join(sorted(ops)) or 'nothing'}"
            for counter, ops in blind.items()
        ),
    ]


def parser() -> options.Parser:
    made = options.parser("bench.flops", __doc__)
    options.add_models(made, default="all of them")
    made.add_argument(
        "--explain",
        nargs="+",
        metavar="NAME",
        help="why the counters disagree on these models, named as for --model; at 256 px unless --res says",
    )
    options.add_res(made, default=SIZES)
    made.set_defaults(res=None)  # --explain has another default
    made.add_argument(
        "--counter",
        nargs="+",
        choices=COUNTERS,
        metavar="COUNTER",
        help=f"side by side, of {', '.join(COUNTERS)}; default: torch. With --explain, which has all others "
        "anyway: the packages to run, or torch to run none",
    )
    made.add_argument(
        "--by",
        choices=("module", "op"),
        help="break each model's forward MACs down; the operators of closed-form are its terms",
    )
    made.add_argument(
        "--batch", type=options.positive_int, default=1, help="images in the counted call (default: 1)"
    )
    options.add_output(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return options.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
