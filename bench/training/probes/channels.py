"""Use of the hidden channels of a trained network.

The score of a channel is the mean of max(0, value) over images, positions and levels of noise, at the input
of the layer that contracts the hidden channels. Source: FCDM, Figure 7.
"""

import re

from torch import Tensor, nn

from bench.counting.hooks import hooked
from bench.records.base import Skipped
from bench.records.probes import ChannelCase, ChannelScores, Scores
from bench.training.probes.probe import Images, Subject, passes


def find_layers(model: nn.Module, pattern: str) -> dict[str, nn.Module]:
    """The layers whose whole name matches a pattern, in order. ValueError: none, or one without channels."""
    found = {name: module for name, module in model.named_modules() if re.fullmatch(pattern, name)}
    if not found:
        layers = (n for n, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d))
        last = dict.fromkeys(name.rpartition(".")[2] for name in layers)
        raise ValueError(
            f"{pattern}: matches no layer of {type(model).__name__}, which has {', '.join(last)}"
        )
    for name, module in found.items():
        if not isinstance(module, nn.Linear | nn.Conv2d):
            raise ValueError(f"{name}: a {type(module).__name__}, neither a convolution nor a linear layer")
    return found


class Tally:
    """Sums max(0, value) of every channel that a layer reads."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.count = 0

    def add(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].relu()
        rows = (values if isinstance(layer, nn.Linear) else values.movedim(1, -1)).flatten(0, -2)
        total = rows.double().sum(0)
        self.total = total if self.total is None else self.total + total
        self.count += len(rows)

    @property
    def scores(self) -> tuple[float, ...]:
        assert self.total is not None
        return tuple((self.total / self.count).tolist())


def case_of(subject: Subject, pattern: str) -> ChannelCase:
    return ChannelCase(**subject.fields, probe=subject.probe, pattern=pattern)


def measure(subject: Subject, images: Images, pattern: str) -> ChannelScores | Skipped:
    """Score the channels of one network."""
    case, environment = case_of(subject, pattern), subject.environment
    tallies = {module: (name, Tally()) for name, module in find_layers(subject.model, pattern).items()}
    with hooked(tallies, before=lambda layer, inputs: tallies[layer][1].add(layer, inputs)):
        finite = all(
            one.out.isfinite().all()
            for level in subject.probe.levels
            for one in passes(subject, images, level)
        )
    if not finite:
        reason = "the network's output"
        return Skipped(case=case, environment=environment, status="not finite", reason=reason)
    # a layer that no image reaches, as MDT's block for masked training, has no score
    named = tallies.values()
    layers = tuple(Scores(layer=name, scores=tally.scores) for name, tally in named if tally.count)
    if not layers:
        reason = f"never reached: {', '.join(name for name, _ in named)}"
        return Skipped(case=case, environment=environment, status="error", reason=reason)
    return ChannelScores(case=case, environment=environment, layers=layers)
