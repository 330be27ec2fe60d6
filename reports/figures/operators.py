"""The figure of operators: shares of the MACs, the bytes and the time of a pass, by kind."""

from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.patches import Patch

from bench.analysis.floors import WHOLE, PassFloor, part_floors
from bench.analysis.roofline import KINDS, NO_PEAKS
from bench.records.base import size_text
from bench.records.operators import OperatorCosts
from bench.records.profile import REST, Profile
from reports.figures.plots import STYLE, Drawing, colour_of, new_figure, saved
from reports.figures.roofline import slug

# convolutions in warm colours, products of tokens in blue, kinds without MACs in grey
KIND_COLOURS = {
    "depthwise": "#E69F00",
    "pointwise": "#D55E00",
    "convolution": "#882255",
    "linear": "#0072B2",
    "attention": "#56B4E9",
    "scan": "#009E73",
    "norm": "#404040",
    "elementwise": "#8C8C8C",
    "movement": "#BDBDBD",
    REST: "#E6E6E6",
}
DARK = ("norm", "linear", "convolution", "pointwise")  # kinds whose numbers are white
GAP = 0.7  # between models, in bars

Shares = Mapping[str, float]  # by kind


def draw(costs: Sequence[OperatorCosts], profiles: Mapping[str, Profile]) -> Drawing:
    """Draw the models of one size, batch and precision.

    Args:
        costs: operator costs of the models.
        profiles: profiles by model, all of one device.
    """
    case = costs[0].case
    seen = [profiles[one.case.model] for one in costs if one.case.model in profiles]
    bars: list[tuple[float, str, Shares]] = []  # place, what, shares
    middles: list[float] = []
    end = 0.0
    for one in costs:
        begin = end
        for what, shares in _shares(one, profiles.get(one.case.model)).items():
            bars.append((end, what, shares))
            end += 1
        middles.append((begin + end - 1) / 2)
        end += GAP
    used = [kind for kind in (*KINDS, REST) if any(shares.get(kind) for _, _, shares in bars)]
    with matplotlib.rc_context(STYLE):
        figure = new_figure(8.6, 1.5 + 0.235 * end)
        axes = figure.add_subplot()
        lefts = [0.0] * len(bars)
        places = [place for place, _, _ in bars]
        for kind in used:
            widths = [100 * shares.get(kind, 0.0) for _, _, shares in bars]
            axes.barh(
                places, widths, left=lefts, height=0.86, color=KIND_COLOURS[kind], edgecolor="white",
                linewidth=0.4,
            )  # fmt: skip
            for place, left, width in zip(places, lefts, widths, strict=True):
                if width >= 4:
                    axes.text(
                        left + width / 2, place, f"{width:.0f}", ha="center", va="center", fontsize=7,
                        color="white" if kind in DARK else "black",
                    )  # fmt: skip
            lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
        axes.set_yticks(places, [what for _, what, _ in bars], fontsize=7.5)
        for one, middle in zip(costs, middles, strict=True):
            model = one.case.model
            axes.text(
                -0.085, middle, model, transform=axes.get_yaxis_transform(), ha="right", va="center",
                weight="bold", fontsize=8.5, color=colour_of(model),
            )  # fmt: skip
            if (profile := profiles.get(model)) and profile.noise:
                last = max(place for place in places if place <= middle + 1)
                axes.text(101, last, "disturbed", va="center", fontsize=7.5, color="#B00000")
        axes.set_ylim(end - GAP - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("% of the pass")
        axes.spines["left"].set_visible(False)
        devices = ", ".join(sorted({one.environment.device for one in seen}))
        quantities = f"MACs, bytes and time on {devices}" if devices else "MACs and bytes"
        title = f"{quantities} by kind of operator: {case.size}, {case.precision}"
        figure.suptitle(title, fontsize=10, weight="bold", x=0.01, ha="left")
        figure.legend(
            handles=[Patch(color=KIND_COLOURS[kind], label=kind) for kind in used],
            loc="outside lower center",
            ncols=min(5, len(used)),
            frameon=False,
            fontsize=8,
        )
        name = f"operators_{slug(size_text(case.res), 'px', case.batch, case.precision)}"
        return saved(name, figure, title, _caption(seen, devices))


def _shares(costs: OperatorCosts, profile: Profile | None) -> dict[str, Shares]:
    """Shares of the kinds in the MACs, the eager bytes and the profiled time of a pass."""
    whole = PassFloor(costs=costs, precision=costs.case.precision, peaks=NO_PEAKS)
    parts = [part for part in part_floors(whole, "kind", profile) if part.part != WHOLE]
    shares: dict[str, Shares] = {
        "MACs": {part.part: part.macs_share() for part in parts},
        "bytes": {part.part: part.bytes_share("eager") for part in parts},
    }
    if profile:
        shares["time"] = {part.part: part.time_share or 0.0 for part in parts}
    return shares


def _caption(profiles: Sequence[Profile], devices: str) -> str:
    counted = "MACs and bytes of an eager pass are from the sizes of tensors"
    if not profiles:
        return f"{counted}; no time was measured."
    passes = " or ".join(map(str, sorted({one.passes for one in profiles})))
    spread = max((one.spread for one in profiles if one.spread is not None), default=None)
    differ = "" if spread is None else f", which differ by up to {100 * spread:.0f} %"
    caption = f"{counted}; times are medians of {passes} passes under torch.profiler on {devices}{differ}."
    disturbed = "; ".join(f"{one.case.model} ({', '.join(one.noise)})" for one in profiles if one.noise)
    return f"{caption} Disturbed, their shares of time unreliable: {disturbed}." if disturbed else caption
