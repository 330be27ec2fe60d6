"""Every backbone by name; a name of the form my_pkg.my_mod:factory is a user's own."""

import difflib
import fnmatch
import importlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from torch import nn

from models import adm, dic, dico, dig, dim, dimsum, dis, dit, fcdm, ldm, mdt, udit, uvit
from models.task import Factory, Renames, Task


@dataclass(frozen=True, kw_only=True)
class Family:
    network: type[nn.Module]
    variants: dict[str, Factory]
    ablations: dict[str, Factory] = field(default_factory=dict)  # "FCDM-L@k3": what a paper changed
    small: dict[str, Factory] = field(default_factory=dict)  # "FCDM-Ti": sizes of ours, in no paper
    official: Renames  # from our names to those in released checkpoints
    task: Task  # as published, for images of 256 pixels
    aliases: dict[str, str] = field(default_factory=dict)  # other names in print -> names of variants
    backends: dict[str, Factory] = field(default_factory=dict)  # variants again, computed by a named one


LATENTS = Task()  # 4 channels of 32 x 32, 1000 classes, a learned variance
PLAIN = Task(learn_sigma=False)  # the same latents; noise or velocity alone comes out
PIXELS = Task(latent_size=256, in_channels=3)  # a latent is then a pixel
PIXELS_PLAIN = replace(PIXELS, learn_sigma=False)
PIXELS_TWICE = replace(PIXELS, in_channels=6, given_channels=3)  # the noisy image and a low-resolution one
QUARTERS = Task(latent_size=64, in_channels=3, learn_sigma=False)  # latents of a quarter of the side

FAMILIES = {
    "FCDM": Family(
        network=fcdm.FCDM,
        variants=fcdm.VARIANTS,
        ablations=fcdm.ABLATIONS,
        small=fcdm.SMALL,
        official=fcdm.OFFICIAL,
        task=LATENTS,
    ),
    "DiT": Family(
        network=dit.DiT,
        variants=dit.VARIANTS,
        ablations=dit.ABLATIONS,
        small=dit.SMALL,
        official=dit.OFFICIAL,
        task=LATENTS,
    ),
    "DiCo": Family(
        network=dico.DiCo,
        variants=dico.VARIANTS,
        ablations=dico.ABLATIONS,
        small=dico.SMALL,
        official=dico.OFFICIAL,
        task=LATENTS,
    ),
    "DiC": Family(
        network=dic.DiC, variants=dic.VARIANTS, small=dic.SMALL, official=dic.OFFICIAL, task=LATENTS
    ),
    "ADM": Family(network=adm.ADM, variants=adm.VARIANTS, official=adm.OFFICIAL, task=PIXELS),
    "ADM-up": Family(network=adm.ADM, variants=adm.UPSAMPLERS, official=adm.OFFICIAL, task=PIXELS_TWICE),
    "LDM": Family(network=ldm.LDM, variants=ldm.VARIANTS, official=ldm.OFFICIAL, task=QUARTERS),
    "DiS": Family(
        network=dis.DiS, variants=dis.VARIANTS, official=dis.OFFICIAL, task=LATENTS, backends=dis.BACKENDS
    ),
    "DiM": Family(
        network=dim.DiM,
        variants=dim.VARIANTS,
        official=dim.OFFICIAL,
        task=PLAIN,
        aliases=dim.ALIASES,
        backends=dim.BACKENDS,
    ),
    "DiMSUM": Family(
        network=dimsum.DiMSUM,
        variants=dimsum.VARIANTS,
        official=dimsum.OFFICIAL,
        task=PLAIN,
        backends=dimsum.BACKENDS,
    ),
    "DiG": Family(
        network=dig.DiG,
        variants=dig.VARIANTS,
        small=dig.SMALL,
        official=dig.OFFICIAL,
        task=LATENTS,
        backends=dig.BACKENDS,
    ),
    "U-DiT": Family(network=udit.UDiT, variants=udit.VARIANTS, official=udit.OFFICIAL, task=LATENTS),
    "MDT": Family(network=mdt.MDT, variants=mdt.VARIANTS, official=mdt.OFFICIAL, task=LATENTS),
    "MDTv2": Family(network=mdt.MDTv2, variants=mdt.V2_VARIANTS, official=mdt.OFFICIAL, task=LATENTS),
    "U-ViT": Family(network=uvit.UViT, variants=uvit.VARIANTS, official=uvit.OFFICIAL, task=PLAIN),
    "U-ViT-img64": Family(
        network=uvit.UViT, variants=uvit.PIXEL_VARIANTS, official=uvit.OFFICIAL, task=PIXELS_PLAIN
    ),
    # DiT's network under other objectives: models/dit.py says what differs
    "SiT": Family(network=dit.DiT, variants=dit.SIT_VARIANTS, official=dit.OFFICIAL, task=PLAIN),
    "FasterDiT": Family(network=dit.DiT, variants=dit.FASTERDIT_VARIANTS, official=dit.OFFICIAL, task=PLAIN),
}
BACKBONES: dict[str, Factory] = {
    name: factory for family in FAMILIES.values() for name, factory in family.variants.items()
}
ABLATIONS: dict[str, Factory] = {
    name: factory for family in FAMILIES.values() for name, factory in family.ablations.items()
}
# Sizes of ours, in no paper, to train on a CPU in minutes: at 8 x 8 x 1 and 10 classes each has about 0.43 M
# parameters and 4.3 M MACs, within a seventh in both among FCDM, DiT, DiCo and DiC; DiG, whose widths go in
# steps of 64, is within a fifth. They are listed by a pattern that says so: names("*-Ti*").
SMALL: dict[str, Factory] = {
    name: factory for family in FAMILIES.values() for name, factory in family.small.items()
}
# found by name, never listed: the same networks, of which one may be computed by what is not there
_BY_BACKEND: dict[str, Factory] = {
    name: factory for family in FAMILIES.values() for name, factory in family.backends.items()
}


def names(pattern: str = "*") -> list[str]:
    """List the backbones whose name matches a shell pattern, in any case: names("fcdm-*").

    A pattern with an @ is about ablations, which no other pattern matches: names("FCDM-L@*"). Those that fix
    a back end are the same network once more, and it may not be installed: they are listed by a pattern with
    a dash behind the @ only, names("FCDM-L@na7-*"). The sizes that are ours and in no paper are listed by a
    pattern with a -Ti in it only.
    """
    among = ABLATIONS if "@" in pattern else SMALL if "-ti" in pattern.lower() else BACKBONES
    if "-" not in pattern.partition("@")[2]:
        among = {name: factory for name, factory in among.items() if "-" not in name.partition("@")[2]}
    return [name for name in among if fnmatch.fnmatchcase(name.lower(), pattern.lower())]


def is_plugin(name: str) -> bool:
    """Tell a user's "my_pkg.my_mod:factory" from the name of one of ours."""
    return ":" in name


def printed(name: str) -> str:
    """The name as published, found in any case; a plug-in's name as it is.

    Raises:
        ValueError: an unknown name, with the nearest known ones; an unknown variant, with all there are.
    """
    if is_plugin(name):
        return name
    base, at, change = name.partition("@")
    known = {other.lower(): other for other in (*BACKBONES, *SMALL)}
    known |= {alias.lower(): other for family in FAMILIES.values() for alias, other in family.aliases.items()}
    if base.lower() not in known:
        close = difflib.get_close_matches(base.lower(), known, n=3, cutoff=0.5)
        hint = f"known families are {', '.join(FAMILIES)}"
        if close:
            hint = f"did you mean {' or '.join(known[other] for other in close)}?"
        raise ValueError(f"{name}: no such backbone; {hint}")
    base = known[base.lower()]
    if not at:
        return base
    changes = {other.lower(): other for other in (*ABLATIONS, *_BY_BACKEND) if other.startswith(f"{base}@")}
    if f"{base}@{change}".lower() not in changes:
        raise ValueError(f"{base}@{change}: no such variant; {_what_works(base, change, changes.values())}")
    return changes[f"{base}@{change}".lower()]


def _what_works(base: str, change: str, known: Iterable[str]) -> str:
    ours = [name.partition("@")[2] for name in known]
    if not ours:
        have = dict.fromkeys(name.partition("@")[0] for name in ABLATIONS)
        return f"{base} has none; those that have some are {', '.join(have)}"
    listed = f"the variants of {base} are {', '.join(ours)}"
    kernel = re.fullmatch(r"k(\d+)", change.lower())
    if kernel and int(kernel[1]) % 2 == 0:
        return f"kernels must be odd; {listed}"
    close = difflib.get_close_matches(change.lower(), ours, n=2, cutoff=0.6)
    return f"did you mean {' or '.join(f'{base}@{other}' for other in close)}? {listed}" if close else listed


def family_of(name: str) -> str:
    """The family of one of our backbones by its printed name; a plug-in is a family of its own."""
    for family, entry in FAMILIES.items():
        if any(name in of for of in (entry.variants, entry.ablations, entry.small, entry.backends)):
            return family
    return name.partition(":")[0]


def find(name: str) -> Factory:
    """The factory of a name, ours in any case or a user's "my_pkg.my_mod:factory".

    Raises:
        ValueError: an unknown name, a module that cannot be imported, or no callable of that name in it.
    """
    name = printed(name)
    if not is_plugin(name):
        return {**BACKBONES, **ABLATIONS, **SMALL, **_BY_BACKEND}[name]
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError, SyntaxError) as error:
        raise ValueError(f"{name}: cannot import {module_name!r}: {error}") from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise ValueError(f"{name}: {module_name} has no callable {attribute!r} that takes a Task")
    made: Factory = factory
    return made


def published_task(name: str) -> Task:
    """What a backbone was published for at 256 pixels; a user's is taken to work on the same latents."""
    name = printed(name)
    return LATENTS if is_plugin(name) else FAMILIES[family_of(name)].task


def task_at(name: str, height: int, width: int) -> Task:
    """The task of a backbone for images of a height and a width in pixels.

    Raises:
        ValueError: sides that are no multiple of the pixels in a latent.
    """
    task = published_task(name)
    pixels = 256 // task.height
    if height % pixels or width % pixels:
        raise ValueError(f"{name}: an image's sides must be multiples of {pixels}, got {height}x{width}")
    latent = (height // pixels, width // pixels)
    return replace(task, latent_size=latent[0] if latent[0] == latent[1] else latent)


def create(
    name: str,
    task: Task | None = None,
    *,
    latent_size: int | tuple[int, int] | None = None,
    in_channels: int | None = None,
    num_classes: int | None = None,
    learn_sigma: bool | None = None,
) -> nn.Module:
    """Build a backbone, freshly initialised as its authors do: create("FCDM-XL", latent_size=64).

    Args:
        name: as published, in any case, or a user's "my_pkg.my_mod:factory".
        task: what to build it for, in place of the fields that follow.
        latent_size: side of the latent, or (height, width); like the rest, by default as published for
            256 pixels, which is 32 for all backbones on latents of an eighth.
        in_channels: channels C of the latent.
        num_classes: classes without the null class.
        learn_sigma: twice the channels come out.

    Returns:
        A module called as model(x, t, y): x latents (N, C, H, W), t timesteps (N,), y labels (N,) ->
        (N, 2C or C, H, W).

    Raises:
        ValueError: an unknown name, a task beside one of its fields, or one that the backbone cannot do.
    """
    if task is not None:
        if {latent_size, in_channels, num_classes, learn_sigma} != {None}:
            raise ValueError("create: give a task or its fields, not both")
        return find(name)(task)
    usual = published_task(name)
    return find(name)(
        replace(
            usual,
            latent_size=usual.latent_size if latent_size is None else latent_size,
            in_channels=usual.in_channels if in_channels is None else in_channels,
            num_classes=usual.num_classes if num_classes is None else num_classes,
            learn_sigma=usual.learn_sigma if learn_sigma is None else learn_sigma,
        )
    )
