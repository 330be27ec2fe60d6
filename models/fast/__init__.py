"""The fast implementation of a backbone: its modules with the same parameters and another `forward`.

A fast module is a subclass of the module whose place it takes. `make_fast` changes the class of a built
network's modules, so that names, shapes and values of all parameters stay. Images keep their shapes
(N, C, H, W) between modules, with their channels last in memory, so that any module may stay as it is.
Measured times and what was tried: docs/fast.md
"""

import torch
from torch import nn

from models import dic as dic_reference
from models import dico as dico_reference
from models import fcdm as fcdm_reference
from models.fast import dic, dico, fcdm, packed, transformer, unet
from models.layers import transformer as transformer_reference
from models.layers import unet as unet_reference

FORMS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: packed.Linear,
    nn.Conv2d: packed.Conv2d,
    fcdm_reference.Block: fcdm.Block,
    dico_reference.Block: dico.Block,
    dic_reference.Block: dic.Block,
    transformer_reference.TransformerBlock: transformer.TransformerBlock,
    transformer_reference.SkipTransformerBlock: transformer.SkipTransformerBlock,
    unet_reference.UNet: unet.UNet,
    unet_reference.Head: unet.Head,
    unet_reference.ChannelAttention: unet.ChannelAttention,
}


def make_fast(model: nn.Module) -> nn.Module:
    """Change a network in place to its fast implementation, and return it.

    Raises:
        ValueError: no module of the network has a fast form.
    """
    found = [module for module in model.modules() if type(module) in FORMS]
    if not found:
        raise ValueError("has no fast implementation; reference would work")
    for module in found:
        module.__class__ = FORMS[type(module)]
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in its stub
