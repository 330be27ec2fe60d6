"""Networks of published families with so few channels, or blocks, that a test can run them many times."""

from dataclasses import replace
from functools import partial

from models.adm import ADM, Cascade, CascadeConfig
from models.adm import Config as ADMConfig
from models.dim import Config as DiMConfig
from models.dim import DiM
from models.dimsum import Config as DiMSUMConfig
from models.dimsum import DiMSUM
from models.dis import Config as DiSConfig
from models.dis import DiS
from models.dit import Config as DiTConfig
from models.dit import DiT
from models.fcdm import FCDM
from models.fcdm import Config as FCDMConfig
from models.hdit import Config as HDiTConfig
from models.hdit import HDiT
from models.ldm import LDM
from models.ldm import Config as LDMConfig
from models.mdt import MDT, MDTv2
from models.mdt import Config as MDTConfig
from models.mpdit import Config as MPDiTConfig
from models.mpdit import MPDiTv2
from models.registry import find
from models.udit import Config as UDiTConfig
from models.udit import UDiT
from models.users import UserFactory
from models.uvit import Config as UViTConfig
from models.uvit import UViT

# two channels or more in each of a norm's 32 groups: a group of one would take the condition away again
adm = partial(ADM, ADMConfig(width=64, multipliers=(1, 2, 2), depth=1, attended=(1,), heads=2, dropout=0.1))
_part = ADMConfig(width=64, multipliers=(1, 2), depth=1, attended=(1,), heads=2)
adm_u = partial(Cascade, CascadeConfig(base=_part, upsampler=_part))
ldm = partial(LDM, LDMConfig(width=64, multipliers=(1, 2, 3), depth=1, attended=(1,), context=32))
uvit = partial(UViT, UViTConfig(width=64, depth=4, heads=2, patch=2))
dis = partial(DiS, DiSConfig(width=64, depth=4))
dim = partial(DiM, DiMConfig(width=64, depth=11))
mpditv2 = partial(MPDiTv2, MPDiTConfig(width=48, depths=(1, 1, 1), heads=2))
udit = partial(UDiT, UDiTConfig(width=32, heads=2, depths=(1, 1, 1, 1, 1)))
dimsum = partial(DiMSUM, DiMSUMConfig(width=64, depth=4, heads=2))
fcdm = partial(FCDM, FCDMConfig(width=16, depths=(1, 1, 1, 1, 1)))
mdt = partial(MDT, MDTConfig(width=48, depth=4, decoder_depth=2, heads=2))
mdtv2 = partial(MDTv2, MDTConfig(width=48, depth=6, decoder_depth=2, heads=2))
_shape = HDiTConfig(
    widths=(16, 32), depths=(1, 1), patch=2, window=3, head=16, mapping_width=16, mapping_depth=1
)
hdit = partial(HDiT, _shape)
dit = partial(DiT, DiTConfig(width=48, depth=2, heads=2, patch=2))

_ONES = (1, 1, 1, 1, 1)
FEWEST = {  # blocks of a network that still has a block of every kind
    "FCDM": {"depths": _ONES},
    "DiT": {"depth": 1},
    "DiCo": {"depths": _ONES},
    "DiC": {"depths": _ONES},
    "MDT": {"depth": 2, "decoder_depth": 1},
    "MDTv2": {"depth": 3, "decoder_depth": 1},
    "UDiT": {"depths": _ONES},
    "UViT": {"depth": 2},
    "LDM": {"multipliers": (1, 2)},
    "LightningDiT": {"depth": 1},
    "DDT": {"encoder": 1, "decoder": 1},
    "MPDiT": {"depths": (1, 1)},
    "JiT": {"depth": 2, "label_start": 1},
    "FlowDCN": {"depth": 1},
    "EDM2": {"depth": 1, "multipliers": (1, 4)},
    "HDiT": {"depths": (1, 1)},
}


def shallow(name: str) -> partial:
    """The factory of a name, with as few blocks as FEWEST has of its network."""
    factory = find(name)
    if isinstance(factory, UserFactory):
        factory = factory.constructor
    network, config = factory.func, factory.args[0]
    return partial(network, replace(config, **FEWEST.get(network.__name__, {})))
