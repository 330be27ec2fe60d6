"""The backbones: how large they are, and where they come from.

    python -m models
    python -m models 'FCDM-L@*' 'DiG-*' --format json
    python -m models '*-Ti*'

GMACs are those of one image of 256 px under torchprofile's rules, as the papers print them, from the formula
of each network. Standing: pinned, every parameter equals the released checkpoint in name and shape, and
params are the release's; our reading, the paper leaves something open, and the grade says how well its
printed numbers support what is built here (baselines/README.md); ours, a size in no paper, small enough to
train on a CPU in minutes. Back end: the implementation of operators that have several, on this device.
"""

import argparse
import re
import sys
from collections.abc import Sequence

from bench.cli import options, tables


def row(name: str) -> tables.Row:
    """One object of the JSON output; a model without a release is built on the meta device."""
    from bench.counting import closed_form
    from models.contract import build
    from models.registry import FAMILIES, family_of, task_at

    family = family_of(name)
    module = sys.modules[FAMILIES[family].network.__module__]
    match = re.search(r"^Source: (.+?)(?:[;.](?=\s|$)|$)", module.__doc__ or "", flags=re.MULTILINE)
    source = match[1] if match else ""
    year = re.search(r"arXiv:(\d\d)\d\d|\b(20\d\d)\b", source)
    task = task_at(name, 256, 256)
    terms = closed_form.count(name, task)
    assert terms is not None  # tests/counting/test_closed_form.py: every network of the registry has one
    params, standing = _released_params(name), "pinned"
    if params is None:
        params, standing = sum(p.numel() for p in build(name, task).parameters()), _standing(name)
    return {
        "model": name,
        "family": family,
        "params": params,
        "macs": terms.torch.total() + terms.torchprofile.total(),
        "year": (int(f"20{year[1]}") if year[1] else int(year[2])) if year else None,
        "source": source,
        "back_end": _back_end(name),
        "standing": standing,
    }


def _back_end(name: str) -> str:
    """Implementation of the operators that have several; blank where all are torch's own."""
    import torch

    from bench.machine import device
    from models.registry import FAMILIES, family_of

    change = name.partition("@")[2]
    if change.startswith("na7"):
        return change.partition("-")[2] or "masked attention"
    package = FAMILIES[family_of(name)].package
    if package is None:
        return ""
    return (
        package.name if package.takes(change or "auto", torch.device(device.default())) else "torch (chunked)"
    )


def _released_params(name: str) -> int | None:
    from baselines import load

    try:
        return load.manifest(name).params_total
    except ValueError:
        return None


def _standing(name: str) -> str:
    from baselines import load
    from models.registry import FAMILIES, family_of

    if name in FAMILIES[family_of(name)].small:
        return "ours: a size in no paper"
    grades = sorted({entry.grade for entry in load.ablations() if entry.model == name})
    if not grades:
        return "our reading: in no table of the papers" if "@" in name else "our reading: sizes of its paper"
    return "sure by its printed numbers" if grades == ["sure"] else f"our reading: {', '.join(grades)}"


_COLUMNS: list[tables.Column] = [
    ("model", lambda row: row["model"]),
    ("family", lambda row: row["family"]),
    ("params M", lambda row: tables.fixed(2, row["params"] / 1e6)),
    ("GMACs", lambda row: tables.fixed(3, row["macs"] / 1e9)),
    ("year", lambda row: str(row["year"] or "-")),
    ("standing", lambda row: row["standing"]),
    ("back end", lambda row: row["back_end"] or "-"),
    ("source", lambda row: row["source"]),
]


def _body(args: argparse.Namespace) -> int:
    options.check_output(args.out, args.force)
    names = options.model_names(args.models or None, default=["*"], flag="MODEL")
    rows = [row(name) for name in names]
    notes = [
        f"{len(rows)} models, 256 px, one image; 1 MAC = 2 FLOPs; variants: python -m models '*@*'; "
        "small sizes of ours: python -m models '*-Ti*'"
    ]
    tables.emit(tables.render(rows, _COLUMNS, args.format), notes, args.out)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = options.parser("models", __doc__)
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="names or patterns (default: all published)"
    )
    options.add_output(parser)
    return options.run(parser, _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
