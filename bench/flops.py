"""How many multiply-accumulates does an image cost?

    python -m bench.flops
    python -m bench.flops --model 'FCDM-*' --model DiT-XL/2 --res 256 512 --format json
    python -m bench.flops --model FCDM-XL --by op
    python -m bench.flops --model FCDM-S DiT-S/2 --counter torch torchprofile-meta torchprofile fvcore
    python -m bench.flops --model my_pkg.my_mod:factory

Counted: one denoising forward pass model(x, t, y), and forward plus backward pass of a training step,
without and with activation checkpointing (every block of the network computed twice). One MAC is two
FLOPs; papers on diffusion backbones print MACs under the name of FLOPs or Gflops.

Counters: torch, the default, counts convolutions, matrix products and attention, linear attention as the
recurrence that it is. torchprofile-meta also counts elementwise products, means and affine norms, but no
linear attention, as the package does that the papers used; it equals that package to the last digit. Both
run on the meta device: nothing is computed, nothing allocated.
torchprofile and fvcore are the packages themselves; they trace real weights, so the XL models take them
seconds and gigabytes. What each counter saw and gave nothing for is listed below the table.
"""

import argparse
import importlib.util
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from bench import cli, output
from bench.record import Counted, Size, height_width, size_text
from bench.unit import Unit

if TYPE_CHECKING:
    from torch import nn

COUNTERS = ("torch", "torchprofile-meta", "torchprofile", "fvcore")
TYPICAL_S = 0.5  # of one model at one size
META = COUNTERS[:2]  # these compute nothing; the packages trace real weights


@dataclass(frozen=True, kw_only=True)
class Share:
    """A line of --by: the part of one model's MACs that an operator or a module has."""

    counted: Counted
    part: str
    macs: int


def _blank(name: str, res: Size, counter: str, batch: int) -> Counted:
    """The record of a count before it is made."""
    from bench import environment
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
        environment=environment.gather("meta" if counter in META else "cpu", name),
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
    from bench import counters
    from models.contract import build
    from models.registry import task_at

    task = task_at(blank.model, *height_width(blank.res))
    model = built if built is not None and blank.counter in META else None
    if model is None:
        model = build(blank.model, task, device="meta" if blank.counter in META else "cpu")
    step = counters.count_step(model, task, blank.batch) if blank.counter == "torch" else None
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


def _row(counted: Counted) -> output.Row:
    return {
        "model": counted.model,
        "family": counted.family,
        "res": output.size(counted.res),
        "latent_size": output.size(counted.latent_size),
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
    return output.fixed(3, None if value is None else value / 1e9)


def _columns(batch: int) -> list[output.Column]:
    of = "" if batch == 1 else f" of {batch}"
    return [
        ("model", lambda row: row["model"]),
        ("res", lambda row: str(row["res"])),
        ("params M", lambda row: output.fixed(2, row["params"] / 1e6)),
        (f"GMACs{of}", lambda row: _giga(row["macs"])),
        (f"GFLOPs{of}", lambda row: _giga(row["flops"])),
        (f"train GMACs{of}", lambda row: _giga(row["train_macs"])),
        ("checkpointed", lambda row: _giga(row["train_macs_checkpointed"])),
        ("counter", lambda row: row["counter"]),
    ]


def _share_row(share: Share) -> output.Row:
    row = _row(share.counted)
    kept = {key: row[key] for key in ("model", "family", "res", "latent_size", "batch", "counter")}
    total = share.counted.macs
    return {**kept, "part": share.part, "macs": share.macs, "share": share.macs / total if total else 0.0}


_SHARE_COLUMNS: list[output.Column] = [
    ("model", lambda row: row["model"]),
    ("res", lambda row: str(row["res"])),
    ("counter", lambda row: row["counter"]),
    ("part", lambda row: row["part"]),
    ("GMACs", lambda row: output.fixed(4, row["macs"] / 1e9)),
    ("share %", lambda row: output.fixed(2, 100 * row["share"])),
]


def planned(args: argparse.Namespace) -> list[tuple[Counted, "nn.Module"]]:
    """Every count that is asked for, as a store knows it before it is made, and its model on meta.

    Raises:
        UsageError: names, sizes, weights or counters that cannot be.
    """
    if args.by == "module" and (tracing := [c for c in args.counter if c not in META]):
        raise cli.UsageError(
            f"--by module: not with --counter {' '.join(tracing)}; works with {' '.join(META)}"
        )
    for package in ("torchprofile", "fvcore"):
        if package in args.counter and importlib.util.find_spec(package) is None:
            raise cli.UsageError(f"--counter {package}: not installed here; pip install {package}")
    names = cli.model_names(args.model, default=["*"])
    models = cli.meta_models(names, args.res, args.weights)
    counters = dict.fromkeys(args.counter)
    return [
        (_blank(name, res, counter, args.batch), model)
        for (name, res), model in models.items()
        for counter in counters
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


def _body(args: argparse.Namespace) -> int:
    cli.check_output(args.out, args.force)
    plan = planned(args)
    counted: list[Counted] = []
    shares: list[Share] = []
    with cli.store(args.out) as store, cli.progress("counting", len(plan)) as begin:
        for blank, model in plan:
            begin(f"{blank.model} {size_text(blank.res)} {blank.counter}")
            one, parts = measure(blank, args.by, model)
            counted.append(one)
            shares += parts
            if store is not None and (args.force or store.held(one) is None):
                store.append(one)
    if args.by:
        text = output.render([_share_row(share) for share in shares], _SHARE_COLUMNS, args.format)
    else:
        text = output.render([_row(one) for one in counted], _columns(args.batch), args.format)
    output.emit(text, _notes(counted), None if cli.keeps_records(args.out) else args.out)
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


def parser() -> cli.Parser:
    made = cli.parser("bench.flops", __doc__)
    cli.add_models(made, default="all of them")
    cli.add_res(made, default=(256, 512, 1024))
    made.add_argument(
        "--counter", nargs="+", choices=COUNTERS, default=["torch"], help="side by side; default: torch"
    )
    made.add_argument("--by", choices=("module", "op"), help="break each model's forward MACs down")
    made.add_argument(
        "--batch", type=cli.positive_int, default=1, help="images in the counted call (default: 1)"
    )
    cli.add_output(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
