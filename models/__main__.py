"""List the backbones: how large they are, and where they come from.

python -m models
python -m models 'FCDM-L@*' 'DiG-*' --format json
python -m models '*-Ti*'

GMACs are those of one image under torchprofile's rules, as the papers print them, from the formula of each
network, at the resolution that it was published for. Standing: pinned, every parameter equals the released
checkpoint in name and shape, and params are the release's; our reading, the paper leaves something open
(baselines/README.md grades it); ours, a size in no paper. Back end: the implementation, on this device, of
operators that have several.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from bench.cli import models, options, records
from bench.tables.numbers import giga, mega
from bench.tables.table import Column, Table, fields
from models.registry import is_plugin


@dataclass(frozen=True, kw_only=True)
class Row:
    """One backbone."""

    model: str
    family: str
    space: str  # pixels, or the latent
    res: int  # px it was published for
    params: int
    macs: int | None  # of one image of that resolution
    year: int | None
    source: str
    back_end: str
    standing: str


def row(name: str) -> Row:
    """Describe a backbone; a model without a release is built on the meta device."""
    from bench.counting import closed_form
    from models.registry import FAMILIES, family_of, published_task

    family = family_of(name)
    module = sys.modules[FAMILIES[family].network.__module__]
    source = source_of(module.__doc__ or "")
    year = re.search(r"arXiv:(\d\d)\d\d|\b(20\d\d)\b", source)
    task = published_task(name)
    assert isinstance(task.res, int)  # every one was published for squares
    terms = closed_form.count(name, task)
    params, standing = _released_params(name), "pinned"
    if params is None:
        params, standing = _params(name), _standing(name)
    return Row(
        model=name,
        family=family,
        space=task.space,
        res=task.res,
        params=params,
        macs=None if terms is None else terms.torch.total() + terms.torchprofile.total(),
        year=(int(f"20{year[1]}") if year[1] else int(year[2])) if year else None,
        source=source,
        back_end=_back_end(name),
        standing=standing,
    )


def source_of(doc: str) -> str:
    """The source that a backbone's docstring names: up to a semicolon, a full stop or the line's end.

    The full stop of an initial, as in A. Author, or of "al." ends nothing.
    """
    match = re.search(r"^Source: (.+?)(?:;|(?<!\b[A-Z])(?<!\bal)\.(?=\s|$)|$)", doc, flags=re.MULTILINE)
    return match[1] if match else ""


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

    return load.manifest(name).params_total if load.has_manifest(name) else None


def _params(name: str) -> int:
    """Parameters of a model without a release: of its parts, or built on the meta device."""
    from models.contract import build
    from models.registry import FAMILIES, family_of, published_task

    if parts := FAMILIES[family_of(name)].parts.get(name):
        return sum(_released_params(part) or _params(part) for part in parts)
    return sum(p.numel() for p in build(name, published_task(name)).parameters())


def _standing(name: str) -> str:
    from baselines import load
    from models.registry import FAMILIES, family_of

    family = FAMILIES[family_of(name)]
    if name in family.small:
        return "ours: a size in no paper"
    if name in family.parts:
        return f"sum of {' and '.join(family.parts[name])}"
    grades = sorted({entry.grade for entry in load.ablations() if entry.model == name})
    if not grades:
        return "our reading: in no table of the papers" if "@" in name else "our reading: sizes of its paper"
    return "sure by its printed numbers" if grades == ["sure"] else f"our reading: {', '.join(grades)}"


TABLE = Table[Row](
    title="Backbones",
    columns=(
        *fields("model", "family", "space"),
        Column("res", lambda r: r.res, str),
        Column("params M", lambda r: r.params, mega, key="params"),
        Column("GMACs", lambda r: r.macs, giga, key="macs"),
        Column("year", lambda r: r.year, lambda year: str(year or "-")),
        *fields("standing"),
        Column("back end", lambda r: r.back_end),
        *fields("source"),
    ),
)


def _body(args: argparse.Namespace) -> int:
    records.check_table_output(args.out, args.force)
    names = models.model_names(args.models or None, default=["*"], flag="MODEL")
    if own := [name for name in names if is_plugin(name)]:
        raise options.UsageError(f"MODEL {own[0]}: is not of this suite; bench.flops counts a model of yours")
    notes = [
        f"{len(names)} models; one image; 1 MAC = 2 FLOPs; variants: python -m models '*@*'; "
        "small sizes of ours: python -m models '*-Ti*'"
    ]
    records.show(TABLE, [row(name) for name in names], notes, args)
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
