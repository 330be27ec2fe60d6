"""Every backbone by name. Names such as net.py:Net and my_pkg.my_mod:factory are a user's own.

Importing this module imports neither torch nor a backbone; a family is imported when it is first asked for.
"""

import difflib
import fnmatch
import functools
import importlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from models import users
from models.family import Factory, Family
from models.task import Task
from models.users import names as users_names

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Entry:
    """Where a family is defined, its colour in figures, and what its training runs besides `forward`."""

    module: str
    attribute: str = "FAMILY"
    color: str | None = None  # Okabe and Ito's for the papers' families, then Tol's; None: grey
    recomputes: bool = False  # the release recomputes every block in the backward pass
    masks: bool = False  # training has a second pass, over masked tokens
    compared: str = ""  # name in the papers' comparisons, with {} for the size; blank: in none of them
    # of networks on pixels, each of which is for one size: ends of names -> px
    pixels: Mapping[str, int] = field(default_factory=dict)


IMPLEMENTATIONS = ("reference", "fast")

# In the order of tables and legends. A new backbone is one line here and one file.
ENTRIES = {
    "FCDM": Entry("models.fcdm", color="#D55E00", recomputes=True, compared="FCDM-{}"),
    "DiT": Entry("models.dit", color="#0072B2", compared="DiT-{}/2"),
    "DiCo": Entry("models.dico", color="#009E73", compared="DiCo-{}"),
    "DiC": Entry("models.dic", color="#CC79A7", compared="DiC-{}"),
    "DiG": Entry("models.dig", color="#E69F00", compared="DiG-{}/2"),
    "SiT": Entry("models.dit", "SIT"),
    "FasterDiT": Entry("models.dit", "FASTERDIT"),
    "U-DiT": Entry("models.udit"),
    "MDT": Entry("models.mdt", masks=True),
    "MDTv2": Entry("models.mdt", "V2", masks=True),
    "U-ViT": Entry("models.uvit"),
    "U-ViT-img64": Entry("models.uvit", "PIXELS", pixels={"-img64": 64}),
    "DiS": Entry("models.dis"),
    "DiM": Entry("models.dim"),
    "DiMSUM": Entry("models.dimsum"),
    "ADM": Entry("models.adm", pixels={"-64": 64, "-128": 128, "-256": 256, "-512": 512}),
    "ADM-up": Entry("models.adm", "UPSAMPLERS", pixels={"-64-256": 256, "-128-512": 512}),
    "ADM-U": Entry("models.adm", "CASCADES", pixels={"-256": 256, "-512": 512}),
    "LDM": Entry("models.ldm"),
    "LightningDiT": Entry("models.lightningdit", color="#56B4E9"),
    "DDT": Entry("models.ddt", color="#332288"),
    "ImprovedDiT": Entry("models.ddt", "IMPROVED"),
    "MPDiT": Entry("models.mpdit", color="#882255"),
    "MPDiTv2": Entry("models.mpdit", "V2"),
    "JiT": Entry("models.jit", color="#999933", pixels={"/16": 256, "/32": 512}),
    "FlowDCN": Entry("models.flowdcn", color="#8C564B"),
    "EDM2": Entry("models.edm2", color="#117733", pixels={"-img64": 64}),
    "HDiT": Entry("models.hdit", color="#AA4499", pixels={"-oxford-flowers": 256}),
}


# letters of sizes, from small to large
SIZES = ("Ti", "XXS", "XS", "S", "M", "B", "L", "XL", "XXL", "H", "1p0B", "1p6B")
# the models that the papers compare others of their size with
REFERENCES = {size: f"DiT-{size}/2" for size in ("S", "B", "L", "XL")}


class _Families(Mapping[str, Family]):
    """The families by name; each is imported when it is looked up."""

    def __getitem__(self, name: str) -> Family:
        entry = ENTRIES[name]
        family: Family = getattr(importlib.import_module(entry.module), entry.attribute)
        return family

    def __iter__(self) -> Iterator[str]:
        return iter(ENTRIES)

    def __len__(self) -> int:
        return len(ENTRIES)


FAMILIES = _Families()


@functools.cache
def _family_names() -> dict[str, str]:
    """Every name of ours -> its family."""
    return {name: family for family, entry in FAMILIES.items() for name in entry.factories}


@functools.cache
def _listed() -> tuple[list[str], list[str], list[str], list[str]]:
    """Names that patterns can match: published, small, ablations, ablations with a fixed back end."""
    families = FAMILIES.values()
    ablations = [name for family in families for name in family.ablations]
    return (
        [name for family in families for name in family.variants],
        [name for family in families for name in family.small],
        [name for name in ablations if "-" not in name.partition("@")[2]],
        [name for name in ablations if "-" in name.partition("@")[2]],
    )


def names(pattern: str = "*") -> list[str]:
    """List the backbones whose name matches a shell pattern, in any case: names("fcdm-*").

    A pattern lists the published names that it matches, or else the small sizes of ours ("FCDM-T*"); with
    an @ it lists ablations ("FCDM-L@*"), or else those that fix a back end ("FCDM-L@na7-*").
    """
    published, small, ablations, fixed = _listed()
    for group in (ablations, fixed) if "@" in pattern else (published, small):
        if found := [name for name in group if fnmatch.fnmatchcase(name.lower(), pattern.lower())]:
            return found
    return []


def is_plugin(name: str) -> bool:
    """Whether a name is a user's: net.py:Net, my_pkg.my_mod:factory, diffusers:Class or a config.json."""
    return users_names.is_users(name)


def printed(name: str) -> str:
    """The name as published, found in any case; a user's with its arguments in one form.

    ValueError: an unknown name, with the nearest known ones; an unknown variant, with all there are.
    """
    if is_plugin(name):
        return users_names.parse(name).name
    if name.endswith(".py"):
        raise ValueError(f"{name}: names a file; {name}:Net would work, with the class or function in it")
    base, at, change = name.partition("@")
    known = _known()
    if base.lower() not in known:
        close = difflib.get_close_matches(base.lower(), known, n=3, cutoff=0.5)
        hint = f"known families are {', '.join(FAMILIES)}"
        if close:
            hint = f"did you mean {' or '.join(known[other] for other in close)}?"
        raise ValueError(f"{name}: no such backbone; {hint}")
    base = known[base.lower()]
    if not at:
        return base
    changes = {other.lower(): other for other in _family_names() if other.startswith(f"{base}@")}
    if f"{base}@{change}".lower() not in changes:
        raise ValueError(
            f"{base}@{change}: no such variant; {_known_changes(base, change, changes.values())}"
        )
    return changes[f"{base}@{change}".lower()]


@functools.cache
def _known() -> dict[str, str]:
    """Names and aliases without variants, in lower case -> the name as published."""
    known = {other.lower(): other for other in _family_names() if "@" not in other}
    return known | {
        alias.lower(): other for family in FAMILIES.values() for alias, other in family.aliases.items()
    }


def _known_changes(base: str, change: str, known: Iterable[str]) -> str:
    ours = [name.partition("@")[2] for name in known]
    if not ours:
        have = dict.fromkeys(name.partition("@")[0] for name in names("*@*"))
        return f"{base} has none; those that have some are {', '.join(have)}"
    listed = f"the variants of {base} are {', '.join(ours)}"
    kernel = re.fullmatch(r"k(\d+)", change.lower())
    if kernel and int(kernel[1]) % 2 == 0:
        return f"kernels must be odd; {listed}"
    close = difflib.get_close_matches(change.lower(), ours, n=2, cutoff=0.6)
    return f"did you mean {' or '.join(f'{base}@{other}' for other in close)}? {listed}" if close else listed


@functools.cache
def pixel_size(name: str) -> int | None:
    """The one size in px that a network on pixels is for; None for other backbones. Imports no backbone."""
    name = name.partition("@")[0]
    fits = (
        (len(family), px)
        for family, entry in ENTRIES.items()
        for end, px in entry.pixels.items()
        if name.startswith(family.removesuffix(end)) and name.endswith(end)
    )
    return max(fits, default=(0, None))[1]


def family_place(family: str) -> int:
    """The place of a family in the order of the registry; unknown ones come last."""
    return [*ENTRIES].index(family) if family in ENTRIES else len(ENTRIES)


def size_place(size: str) -> int:
    """The place of a size in SIZES; unknown ones come last."""
    return SIZES.index(size) if size in SIZES else len(SIZES)


def compared(size: str) -> list[str]:
    """The names of the families of the papers' comparisons in one size, in the registry's order."""
    return [entry.compared.format(size) for entry in ENTRIES.values() if entry.compared]


def family_of(name: str) -> str:
    """The family of one of our backbones by its published name; a user's file or class is one of its own."""
    return _family_names().get(name) or name.partition("(")[0].partition(":")[0]


def find(name: str) -> Factory:
    """The factory of a name, ours in any case or a user's. ValueError: unknown, or it cannot be imported."""
    name = printed(name)
    if not is_plugin(name):
        return FAMILIES[family_of(name)].factories[name]
    return users.factory(name)


def published_task(name: str) -> Task:
    """The task that a backbone was published for, at its own resolution; a user's is sd-f8 by default."""
    name = printed(name)
    return users.published_task(name) if is_plugin(name) else FAMILIES[family_of(name)].task_of(name)


def task_at(name: str, height: int, width: int) -> Task:
    """The task of a backbone for images of a height and a width in px.

    ValueError: sides that are not a multiple of the pixels in a latent.
    """
    try:
        return published_task(name).at(height, width)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def create(
    name: str,
    task: Task | None = None,
    *,
    latent_size: int | tuple[int, int] | None = None,
    in_channels: int | None = None,
    num_classes: int | None = None,
    learn_sigma: bool | None = None,
    impl: str = "reference",
) -> "nn.Module":
    """Build a backbone with its authors' initial weights: create("FCDM-XL", latent_size=64).

    Args:
        name: as published, in any case, or a user's.
        task: what to build it for, instead of the fields that follow.
        latent_size: side of the latent, or (height, width). The default of each field is that of the
            published task; for latent_size that is 32 for most backbones on latents of an eighth of the side.
        in_channels: channels C of the latent.
        num_classes: classes without the null class.
        learn_sigma: whether the output has twice the channels.
        impl: reference, or fast: the same parameters, computed by models.fast.

    Returns:
        A module called as model(x, t, y): x latents (N, C, H, W), t timesteps (N,), y labels (N,) ->
        (N, 2C or C, H, W).

    Raises:
        ValueError: an unknown name, a task together with one of its fields, a task that the backbone
            cannot do, or an implementation that it does not have.
    """
    given: dict[str, Any] = {
        "latent_size": latent_size,
        "in_channels": in_channels,
        "num_classes": num_classes,
        "learn_sigma": learn_sigma,
    }
    changed = {field: value for field, value in given.items() if value is not None}
    if task is not None and changed:
        raise ValueError("create: give a task or its fields, not both")
    return implement(find(name)(task or replace(published_task(name), **changed)), impl)


def implement(model: "nn.Module", impl: str) -> "nn.Module":
    """A model of `find` in an implementation; its parameters stay. ValueError: unknown, or it has none."""
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl: must be {' or '.join(IMPLEMENTATIONS)}, got {impl!r}")
    if impl == "reference":
        return model
    from models.fast import make_fast

    return make_fast(model)
