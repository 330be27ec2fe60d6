"""How many of its hidden channels does a trained network use?

    python -m bench.convergence --model FCDM-S FCDM-S@cca FCDM-S@nogrn --data cifar10 --dir runs
    python -m bench.channels --checkpoint runs/FCDM-S-seed0 runs/FCDM-S@cca-seed0 runs/FCDM-S@nogrn-seed0
    python -m bench.channels --checkpoint runs/DiT-S-2-seed0 --ema 0.9999 --by layer
    python -m bench.channels --checkpoint runs/DiC-S-seed0 --layer '.*conv2'
    python -m bench.channels --model FCDM-XL --weights FCDM-XL.pt --data path/to/latents --out channels.jsonl

A channel's score is the mean over images, places and levels of noise of max(0, value), taken where the layer
that contracts the hidden channels reads them: behind the activation and, in FCDM, behind response
normalisation or channel attention. --layer names other layers, by a regular expression that the whole name of
a convolution or linear layer must match; what it reads is scored.

near-dead: channels below 1 % of their layer's mean score. Gini: 0 where all channels score alike, towards 1
where one has it all. effective: channels that, used equally, would have the entropy of these scores. Of a
network each is the mean over its layers.

FCDM's Figure 7 shows such scores; no numbers of it are at hand to compare with.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

from bench.cli import options, probe_options, settings, tables
from bench.records.record import ChannelScores, Scores, Skipped

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.training.probe import Shown, Subject

LAYER = r"(.*\.)?contract"  # what our networks call the layer behind the hidden channels


def find_layers(model: "nn.Module", pattern: str) -> "dict[str, nn.Module]":
    """The layers whose whole name matches, in the network's order.

    Raises:
        ValueError: there are none, or one has no channels to read.
    """
    from torch import nn

    found = {name: module for name, module in model.named_modules() if re.fullmatch(pattern, name)}
    if not found:
        last = list(
            dict.fromkeys(
                name.rpartition(".")[2]
                for name, module in model.named_modules()
                if isinstance(module, nn.Linear | nn.Conv2d)
            )
        )
        raise ValueError(f"{pattern}: no layer of {type(model).__name__} is called so; {', '.join(last)} are")
    for name, module in found.items():
        if not isinstance(module, nn.Linear | nn.Conv2d):
            raise ValueError(f"{name}: a {type(module).__name__}, neither a convolution nor a linear layer")
    return found


class Tally:
    """Sums up max(0, value) of every channel that a layer reads."""

    def __init__(self, channels_last: bool) -> None:
        self.channels_last = channels_last
        self.total: Tensor | None = None
        self.count = 0

    def __call__(self, module: "nn.Module", inputs: "tuple[Tensor, ...]") -> None:
        """The hook before a forward pass."""
        values = inputs[0].relu()
        rows = values.flatten(0, -2) if self.channels_last else values.movedim(1, -1).flatten(0, -2)
        total = rows.double().sum(0)
        self.total = total if self.total is None else self.total + total
        self.count += len(rows)

    @property
    def scores(self) -> tuple[float, ...]:
        assert self.total is not None
        return tuple((self.total / self.count).tolist())


@contextmanager
def tallied(layers: "dict[str, nn.Module]") -> Iterator[dict[str, Tally]]:
    """Within it, what convolutions and linear layers read is summed up, layer by layer."""
    from torch import nn

    tallies = {name: Tally(isinstance(module, nn.Linear)) for name, module in layers.items()}
    with ExitStack() as hooks:
        for name, module in layers.items():
            hooks.enter_context(module.register_forward_pre_hook(tallies[name]))
        yield tallies


def measure(subject: "Subject", shown: "Shown", pattern: str) -> ChannelScores | Skipped:
    """Score the channels of one network."""
    from bench.training.probe import passes

    with tallied(find_layers(subject.model, pattern)) as tallies:
        finite = all(
            one.out.isfinite().all()
            for level in subject.probe.levels
            for one in passes(subject, shown, level)
        )
    if not finite:
        return Skipped(run=subject.run, status="not finite", reason="the network's output")
    # MDT has a block for its masked training alone: what no image reaches has no score
    layers = tuple(Scores(layer=name, scores=tally.scores) for name, tally in tallies.items() if tally.count)
    if not layers:
        return Skipped(run=subject.run, status="error", reason=f"never reached: {', '.join(tallies)}")
    return ChannelScores(run=subject.run, probe=subject.probe, pattern=pattern, layers=layers)


def _blank(subject: "Subject", pattern: str) -> ChannelScores:
    """What a store knows the scores by."""
    layers = tuple(Scores(layer=name, scores=(0.0,)) for name in find_layers(subject.model, pattern))
    return ChannelScores(run=subject.run, probe=subject.probe, pattern=pattern, layers=layers)


def _rows(result: ChannelScores | Skipped, by_layer: bool) -> list[tables.Row]:
    about = {"model": result.run.model, "weights": result.run.weights}
    if isinstance(result, Skipped):
        return [{**about, "trained": f"{result.status}: {result.reason}", **_row("-", ())}]
    about["trained"] = result.probe.trained
    if by_layer:
        return [{**about, **_row(layer.layer, (layer,))} for layer in result.layers]
    return [{**about, **_row(f"all {len(result.layers)}", result.layers)}]


def _row(name: str, layers: Sequence[Scores]) -> tables.Row:
    return {
        "layer": name,
        "channels": sum(len(layer.scores) for layer in layers),
        "mean_score": fmean(fmean(layer.scores) for layer in layers) if layers else None,
        "dead_share": fmean(layer.dead_share for layer in layers) if layers else None,
        "gini": fmean(layer.gini for layer in layers) if layers else None,
        "effective_share": fmean(layer.effective_share for layer in layers) if layers else None,
    }


def _percent(value: float | None) -> str:
    return tables.fixed(1, None if value is None else 100 * value)


_COLUMNS: list[tables.Column] = [
    ("model", lambda row: row["model"]),
    ("trained", lambda row: row["trained"]),
    ("layers", lambda row: row["layer"]),
    ("channels", lambda row: str(row["channels"])),
    ("mean score", lambda row: tables.fixed(4, row["mean_score"])),
    ("near-dead %", lambda row: _percent(row["dead_share"])),
    ("Gini", lambda row: tables.fixed(3, row["gini"])),
    ("effective %", lambda row: _percent(row["effective_share"])),
]


def _body(args: argparse.Namespace) -> int:
    options.check_output(args.out, args.force)
    probe_options.check(args)
    from bench.training import probe

    subjects, shown, notes = probe.subjects(args, "channels")
    try:
        blanks = {id(subject): _blank(subject, args.layer) for subject in subjects}
    except ValueError as error:
        raise options.UsageError(f"--layer {error}") from error
    results, found = settings.each(
        subjects,
        about=lambda subject: blanks[id(subject)],
        measure=lambda subject: probe.guarded(subject, partial(measure, subject, shown, args.layer)),
        label=lambda subject: f"{subject.run.model}, {subject.probe.trained}",
        args=args,
    )
    rows = [row for result in results for row in _rows(result, args.by == "layer")]
    notes += found + probe_options.notes(subjects[0].run, subjects[0].probe)
    text = tables.render(rows, _COLUMNS, args.format)
    tables.emit(text, notes, None if options.keeps_records(args.out) else args.out)
    return 0


def pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"must be a regular expression, got {text!r}: {error}") from error
    return text


def parser() -> options.Parser:
    made = options.parser("bench.channels", __doc__)
    probe_options.add_options(made)
    made.add_argument(
        "--layer",
        type=pattern,
        default=LAYER,
        metavar="REGEX",
        help="layers to look in front of (default: those called contract)",
    )
    made.add_argument("--by", choices=("layer",), help="a line for every layer")
    options.add_output(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return options.run(parser(), _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
