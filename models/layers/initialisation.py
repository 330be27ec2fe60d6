"""Initial weights shared by the DiT line of networks."""

from torch import nn

from models.layers.conditions import Condition
from models.layers.modulation import Modulation


def initialise(model: nn.Module) -> None:
    """Fill a whole network as DiT's authors do; the caller then fills or zeroes its own layers.

    Xavier-uniform linears and convolutions, zero biases, N(0, 0.02) for label tables and timestep MLPs.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, Condition):
            initialise_small(module.time1, module.time2, module.labels)


def initialise_small(*layers: nn.Linear | nn.Embedding) -> None:
    """N(0, 0.02) for weights, as in conditions."""
    for layer in layers:
        nn.init.normal_(layer.weight, std=0.02)


def initialise_adaln_zero(model: nn.Module, stem: nn.Conv2d, last: nn.Linear | nn.Conv2d) -> None:
    """`initialise`, then the stem as a matrix, and zeros in the last layer and in every modulation.

    With zero gates every block starts as the identity ("adaLN-Zero", arXiv:2212.09748, Section 3.2).
    """
    initialise(model)
    initialise_flat(stem)
    zero(last, *(module.linear for module in model.modules() if isinstance(module, Modulation)))


def initialise_flat(conv: nn.Conv2d) -> None:
    """Xavier-uniform over the weight as a matrix (out, in * height * width), for stems and patches."""
    nn.init.xavier_uniform_(conv.weight.view(conv.out_channels, -1))


def zero_modulations(blocks: nn.ModuleList) -> None:
    """`zero` for the modulations of blocks that have them as plain layers."""
    for block in blocks:
        assert isinstance(block.modulation, nn.Linear)
        zero(block.modulation)


def zero(*layers: nn.Linear | nn.Conv1d | nn.Conv2d) -> None:
    """Set weights and biases to zero."""
    for layer in layers:
        nn.init.zeros_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
