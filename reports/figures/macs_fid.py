"""The figure of MACs against published FID."""

from dataclasses import dataclass

from baselines import load
from reports.figures.plots import (
    Drawing,
    colour_of,
    label_points,
    lay_out,
    log_axis,
    mark,
    new_figure,
    saved,
    styled,
)
from reports.naming import COLOURS, OTHER, family, order
from reports.selection import Evidence


@dataclass(frozen=True, kw_only=True)
class _Point:
    model: str
    gmacs: float
    counted: bool
    fid: float
    params: int | None


@styled
def draw(evidence: Evidence) -> Drawing:
    """Plot FCDM Table 3's rows at 400K steps: work on x, published FID on y, parameters as area."""
    points = _points(evidence)
    drawn = {family(point.model) for point in points}
    figure = new_figure(8.4, 6.0)
    axes = figure.add_subplot()
    for name in sorted(drawn):
        line = sorted((point.gmacs, point.fid) for point in points if family(point.model) == name)
        axes.plot(*zip(*line, strict=True), color=COLOURS.get(name, OTHER), linewidth=1, alpha=0.35, zorder=1)
    for point in points:
        colour = colour_of(point.model)
        axes.scatter(
            point.gmacs,
            point.fid,
            s=_area(point.params),
            facecolor=colour if point.counted else "white",
            edgecolor=colour,
            linewidth=1.5,
            alpha=0.85 if point.counted else 1.0,
            marker="o" if point.params else "D",
            zorder=2,
        )
    log_axis(axes, "x", 2, 330, places=[2, 5, 10, 20, 50, 100, 200])
    log_axis(axes, "y", 9, 80, places=[10, 15, 20, 30, 40, 50, 60, 70])
    axes.grid(color="#dddddd")
    axes.set_xlabel(
        "GMACs of one forward pass, 256 px, one image (log; filled: counted here, hollow: published)"
    )
    axes.set_ylabel("FID after 400K steps, published (log; lower is better)")
    title = "GMACs against published FID: 256 px, 400K steps, no guidance"
    axes.set_title(title, weight="bold", fontsize="large")
    handles = [
        mark(name, marker="o", color=colour, markersize=8.0)
        for name, colour in COLOURS.items()
        if name in drawn
    ]
    handles += [
        mark(f"{m} M params", marker="o", color="#bbbbbb", markersize=_area(m * 1_000_000) ** 0.5)
        for m in (30, 130, 700)
    ]
    if any(point.params is None for point in points):
        unknown = {"marker": "D", "markersize": 6, "markerfacecolor": "white", "markeredgecolor": OTHER}
        handles.append(mark("params not known", **unknown))
    axes.legend(
        handles=handles, loc="lower left", ncols=2, labelspacing=1.1, columnspacing=2.0, fontsize="medium"
    )
    lay_out(figure, left=0.62, top=0.32)
    label_points(figure, axes, [(p.model, p.gmacs, p.fid, _area(p.params)) for p in points])
    counted = sum(point.counted for point in points)
    caption = (
        f"FID as FCDM Table 3 prints it. {counted} of {len(points)} models are placed by GMACs counted here "
        "(filled), the others by the published number (hollow). "
        "Bubble area: parameters, counted here or on the released code; a diamond where neither has them. "
        "FCDM-XL's FID is with EQ-VAE, which the others do not use; with SD-VAE it is 11.57 (FCDM Table 11)."
    )
    return saved("macs_fid", figure, title, caption)


def _points(evidence: Evidence) -> list[_Point]:
    released = load.macs()
    points = []
    for row in load.table("fcdm_table03").rows:
        model, fid, published = row["model"].as_printed, row["fid"].value, row["gflops"].value
        if row["train_steps"].as_printed != "400K" or fid is None or published is None:
            continue
        count = evidence.count(model, 256)
        params = count.params if count else released[model, 32][0] if (model, 32) in released else None
        gmacs = count.macs / count.case.batch / 1e9 if count else published
        points.append(_Point(model=model, gmacs=gmacs, counted=count is not None, fid=fid, params=params))
    return sorted(points, key=lambda point: order(point.model))


def _area(params: int | None) -> float:
    """Area of a bubble in square points; small and fixed if the parameters are unknown."""
    return 36.0 if params is None else params / 1e6 * 0.9
