"""Which backbones are there, how large are they, and where do they come from?

    python -m models
    python -m models 'FCDM-L@*' 'DiG-*' --format json
    python -m models '*-Ti*'

GMACs are those of one image of 256 pixels by the rules of torchprofile, as the papers print them. pinned:
every parameter is held to the released checkpoint by name and shape. our reading: the paper leaves
something open; the grade says how far its numbers carry what is built here (baselines/README.md). ours: a
size of no paper, small enough to be trained on a CPU in minutes. back end: what computes the operators that
have several, on the device at hand.
"""

import argparse
import re
import sys
from collections.abc import Sequence

from bench.cli import options, tables


def row(name: str) -> tables.Row:
    """One object of the JSON output; counted on the meta device."""
    from bench.counting import counters
    from models.contract import build
    from models.registry import FAMILIES, family_of, task_at

    family = family_of(name)
    module = sys.modules[FAMILIES[family].network.__module__]
    source = re.search(r"^Source: (.+?)(?:[;.](?=\s|$)|$)", module.__doc__ or "", flags=re.MULTILINE)
    told = source[1] if source else ""
    year = re.search(r"arXiv:(\d\d)\d\d|\b(20\d\d)\b", told)
    task = task_at(name, 256, 256)
    model = build(name, task)
    return {
        "model": name,
        "family": family,
        "params": sum(p.numel() for p in model.parameters()),
        "macs": counters.count_forward(model, task, counter="torchprofile-meta").macs,
        "year": (int(f"20{year[1]}") if year[1] else int(year[2])) if year else None,
        "source": told,
        "back_end": _back_end(name),
        "standing": _standing(name),
    }


def _back_end(name: str) -> str:
    """What computes the operators that have several back ends; blank where all are torch's own."""
    from bench.machine import device
    from models.kernels import gla, selective_scan
    from models.registry import family_of

    where = device.default()
    by_name = name.partition("@")[2].partition("-")[2]
    if family_of(name) == "DiG":
        return "fla" if where == "cuda" and not gla.why_not_fla() else "torch (chunked)"
    if family_of(name) in ("DiS", "DiM", "DiMSUM"):
        return (
            "mamba-ssm" if where == "cuda" and not selective_scan.why_not_mamba_ssm() else "torch (chunked)"
        )
    if "@na" in name:
        return by_name or "masked attention"
    return ""


def _standing(name: str) -> str:
    from baselines import load
    from models.registry import SMALL

    if name in SMALL:
        return "ours: a size of no paper"
    if "@" in name:
        grades = sorted({entry.grade for entry in load.ablations() if entry.model == name})
        if not grades:
            return "our reading: in no table of the papers"
        return "sure by its printed numbers" if grades == ["sure"] else f"our reading: {', '.join(grades)}"
    try:
        load.manifest(name)
    except ValueError:
        return "our reading: sizes of its paper, no released checkpoint held"
    return "pinned"


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
    with options.progress("counting", len(names)) as begin:
        rows = []
        for name in names:
            begin(name)
            rows.append(row(name))
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
