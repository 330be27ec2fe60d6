"""Writes the report's section on what passes ask of devices: floors, rooflines, shares of the operators."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from bench.analysis import roofline
from bench.analysis.roofline import KINDS, OTHER, Floor, Peaks
from bench.records import labels
from bench.records.record import Ceiling, Counted, Profiled, Record, Throughput, Work, height_width, size_text
from reports.figures.plots import STYLE, Drawing, colour_of, label_points, new_figure, saved, settle
from reports.naming import COLOURS, FAMILIES, SIZES, family, order, size, sizes_of
from reports.overview import BLANK, Columns, markdown, significant, stamp

GPUS = (
    "RTX 4090",
    "A100 SXM4 80GB",
    "H200 SXM5 141GB",
)  # whose floors are shown beside those of devices at hand
FEW = 6  # models that a caption names
MOST = 8  # models of one device in a table, and in one picture of the operators
PREFERRED = ("XL", "H", "L", "B", "M", "S")  # sizes, of one family
# convolutions in warm colours, products of tokens in blue, what has no MACs in grey
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
    OTHER: "#E6E6E6",
}

NAMED = 10  # families that are named in a panel; of more only those of the papers, the others by their look
SHAPES = ("o", "s", "^", "v", "P", "X", "p")  # of families that share a colour; diamonds are measurements
MORE_COLOURS = ("#56B4E9", "#882255", "#999933", "#332288", "#8C564B", "#666666")  # beside the papers'

Look = tuple[str, str]  # colour and shape
Group = tuple[str, int, str]  # pixels in words, batch, precision of the tensors


def section(records: Sequence[Record]) -> tuple[str, list[Drawing]]:
    """Write the section and draw its figures; "" and none without records of the work of denoising passes."""
    works = newest([record for record in records if isinstance(record, Work) and record.work == "inference"])
    if not works:
        return "", []
    profiles = _by_case([record for record in records if isinstance(record, Profiled)])
    roofs = [*at_hand(records), *map(roofline.of_gpu, GPUS)]
    points = {peaks.device: _under(peaks, records) for peaks in roofs}
    groups = _groups(works, profiles)

    parts = ["## Floors and rooflines", _reading(works)]
    drawings: list[Drawing] = []
    ceilings = [record for record in records if isinstance(record, Ceiling)]
    if ceilings:
        parts += ["### Ceilings", _of_ceilings(), markdown(_ceilings(ceilings))]
    if any(points.values()):
        parts += [
            "### Floors",
            _of_floors(roofs),
            markdown(_floors([p for of in points.values() for p in _listed(of)])),
        ]
    drawings += [
        _roofline(peaks, under, _left_out(under, records))
        for peaks in roofs
        if (under := points[peaks.device])
    ]
    parts += ["### Operators", _of_operators(), markdown(_operators(groups, profiles))]
    kinds = _kinds(groups, profiles, {peaks.device: peaks for peaks in reversed(roofs)})
    if kinds["model"]:
        parts += ["### Kinds of operators beside their floors", _of_kinds(), markdown(kinds)]
    drawings += [_bars(group, chosen, profiles) for group, chosen in groups.items()]
    parts += [
        f"![{d.picture.title}]({d.picture.name}.png)\n\n{d.picture.caption} ([SVG]({d.picture.name}.svg))"
        for d in drawings
    ]
    return "\n\n".join(parts), drawings


# what there is, and what of it is shown


def newest(works: Sequence[Work]) -> list[Work]:
    """The newest of every case, by model."""
    by_case = {
        (order(work.model), size_text(work.res), work.batch, work.precision): work
        for work in sorted(works, key=lambda work: work.environment.date)
    }
    return [by_case[case] for case in sorted(by_case)]


def _by_case(profiles: Sequence[Profiled]) -> dict[tuple[str, Group], Profiled]:
    """The newest profile by kind of a model at a resolution, batch and precision.

    All of one group are of one device, that of the most models and then of the newest: a picture sets them
    side by side.
    """
    of_group: dict[Group, dict[str, dict[str, Profiled]]] = {}
    for one in sorted(profiles, key=lambda one: (one.run.environment.date, one.run.environment.device)):
        if one.run.question == roofline.PROFILES["kind"]:
            group = size_text(one.run.res), one.run.batch, one.run.precision
            devices = of_group.setdefault(group, {})
            devices.setdefault(one.run.environment.device, {})[one.run.model] = one

    def weight(of: Mapping[str, Profiled]) -> tuple[int, str, str]:
        newest = max((one.run.environment for one in of.values()), key=lambda here: here.date)
        return len(of), newest.date, newest.device

    return {
        (model, group): one
        for group, devices in of_group.items()
        for model, one in max(devices.values(), key=weight).items()
    }


def _group(work: Work) -> Group:
    return size_text(work.res), work.batch, work.precision


def at_hand(records: Sequence[Record]) -> list[Peaks]:
    """The devices that ceilings were measured of."""
    names = sorted({record.environment.device for record in records if isinstance(record, Ceiling)})
    return [peaks for name in names if (peaks := roofline.measured_peaks(records, name)) is not None]


def _most(works: Sequence[Work], first: Collection[str] = ()) -> list[Work]:
    """At most MOST models: those named first, then one of each family, its XL if any, the papers' first."""

    def preferred(work: Work) -> tuple[int, str]:
        letters = size(work.model)
        return PREFERRED.index(letters) if letters in PREFERRED else len(PREFERRED), work.model

    seen: Counter[str] = Counter()
    ranked: list[tuple[tuple[bool, int, bool, str], Work]] = []
    for work in sorted(works, key=preferred):
        name = work.family
        ranked.append(((work.model not in first, seen[name], name not in FAMILIES, name), work))
        seen[name] += 1
    ranked.sort(key=lambda pair: pair[0])
    return sorted((work for _, work in ranked[:MOST]), key=lambda work: order(work.model))


def _prominence(works: Sequence[Work]) -> tuple[int, int]:
    """A key to choose among sizes of work: large batches before small, small images before large."""
    height, width = height_width(works[0].res)
    return works[0].batch, -height * width


def _groups(works: Sequence[Work], profiles: Mapping[tuple[str, Group], Profiled]) -> dict[Group, list[Work]]:
    """What is broken down: every group that was profiled, and the one of most models."""
    by_group: dict[Group, list[Work]] = {}
    for work in works:
        by_group.setdefault(_group(work), []).append(work)
    profiled = {group for model, group in profiles if any(w.model == model for w in by_group.get(group, ()))}
    fullest = max(sorted(by_group), key=lambda group: (len(by_group[group]), *_prominence(by_group[group])))
    return {
        group: _most(of, {model for model, where in profiles if where == group})
        for group, of in sorted(by_group.items())
        if group in profiled or group == fullest
    }


# floors


@dataclass(frozen=True, kw_only=True)
class Point:
    """One model under one roof, in one precision."""

    work: Work
    precision: str
    peaks: Peaks
    eager: Floor
    fused: Floor
    measured: Throughput | None

    def flops_per_s(self, seconds: float) -> float:
        return 2 * self.work.macs / seconds

    def floor(self, form: str) -> Floor:
        return self.eager if form == "eager" else self.fused

    def achieved(self, form: str) -> float | None:
        """The floor as a share of the measured median; None without a measurement."""
        return None if self.measured is None else self.floor(form).total_s / self.measured.median_s

    def achieved_interval(self, form: str) -> tuple[float, float] | None:
        """95 % interval of the share, from that of the median; None with too few samples."""
        interval = self.measured.interval_s if self.measured else None
        total_s = self.floor(form).total_s
        return interval and (total_s / interval[1], total_s / interval[0])


def every_point(peaks: Peaks, records: Sequence[Record]) -> list[Point]:
    """Every model whose work is known, at every resolution, batch and precision whose peaks are known."""
    works = newest([record for record in records if isinstance(record, Work) and record.work == "inference"])
    timings = [record for record in records if isinstance(record, Throughput)]
    found = []
    for work in works:
        for precision in ("fp32", "tf32") if work.precision == "fp32" else (work.precision,):
            eager, fused = (roofline.floor(work, peaks, precision, form) for form in roofline.FORMS)
            if eager is not None and fused is not None:
                point = Point(
                    work=work,
                    precision=precision,
                    peaks=peaks,
                    eager=eager,
                    fused=fused,
                    measured=roofline.fastest(timings, work, precision, peaks.device),
                )
                found.append(point)
    return found


def _under(peaks: Peaks, records: Sequence[Record]) -> list[Point]:
    """The models at one resolution and batch: that of most measurements on the device, or most models."""
    found: dict[tuple[str, int], list[Point]] = {}
    for point in every_point(peaks, records):
        found.setdefault(_group(point.work)[:2], []).append(point)
    if not found:
        return []

    def weight(setting: tuple[str, int]) -> tuple[int, ...]:
        of = found[setting]
        works = _distinct([point.work for point in of])
        return sum(point.measured is not None for point in of), len(works), *_prominence(works)

    return found[max(sorted(found), key=weight)]


def _listed(points: Sequence[Point]) -> list[Point]:
    """Those of at most MOST models, the measured first."""
    measured = {point.work.model for point in points if point.measured}
    names = {work.model for work in _most(_distinct([point.work for point in points]), measured)}
    return [point for point in points if point.work.model in names]


def _left_out(points: Sequence[Point], records: Sequence[Record]) -> str:
    """Which models that are known of lack from a picture or from some of its panels, and why."""
    text, batch, _ = _group(points[0].work)
    drawn = {point.work.model for point in points}
    uncounted = []
    for precision in dict.fromkeys(roofline.tensors_of(point.precision) for point in points):
        there = {point.work.model for point in points if point.work.precision == precision}
        if lacking := drawn - there:
            uncounted.append(
                f"at {precision} {_names(lacking)}, whose bytes are counted at another precision only"
            )
    known = {record.model for record in records if isinstance(record, Work | Counted)}
    without_peak: dict[str, set[str]] = {}  # by precision: what is counted here and yet has no floor
    for work in (record for record in records if isinstance(record, Work)):
        if work.work == "inference" and _group(work)[:2] == (text, batch) and work.model not in drawn:
            without_peak.setdefault(work.precision, set()).add(work.model)
    if lacking := known - drawn - set().union(*without_peak.values()):
        uncounted.append(f"{_names(lacking)}, whose bytes are not counted at {text} px, batch {batch}")
    parts = [f"Left out, until bench.operators counts them: {'; '.join(uncounted)}. "] if uncounted else []
    if without_peak:
        lacks = "; ".join(f"{_names(of)} (no peak for {at})" for at, of in sorted(without_peak.items()))
        parts.append(f"Left out, though their bytes are counted: {lacks}. ")
    return "".join(parts)


def _names(models: Collection[str]) -> str:
    """A few models by name, more by their number and families, in the order of the report."""
    ordered = sorted(models, key=order)
    if len(ordered) <= FEW:
        return ", ".join(ordered)
    return f"{len(ordered)} models of {', '.join(dict.fromkeys(map(family, ordered)))}"


def _distinct(works: Sequence[Work]) -> list[Work]:
    return list({work.model: work for work in works}.values())


# text and tables


def _reading(works: Sequence[Work]) -> str:
    made = sorted({stamp(work.environment) for work in works})
    return (
        "A floor is the least time of one denoising pass on a device, max(FLOPs / peak, bytes / bandwidth) "
        "of every operator, summed; it is **computed**, not measured. *Eager*: every kernel reads its inputs "
        "and writes its outputs. *Fused*: only convolutions, linear layers, attention and scans move "
        "anything, each once, and all else rides on them. One MAC is two FLOPs. MACs and bytes are from meta "
        f"tensors: {'; '.join(made)}."
    )


def _of_ceilings() -> str:
    return (
        "What a device was seen to do: the median of the fastest size of a square matrix product, on a CPU "
        "of a 3x3 convolution too, which another library may compute, and of a copy, whose bytes count "
        "twice, read and written; of several records the highest. The faster product is the roof. *As sold*: "
        "the dense peak in baselines/gpus.csv, where the device's name says which GPU it is."
    )


def _ceilings(ceilings: Sequence[Ceiling]) -> Columns:
    found = roofline.highest_ceilings(ceilings)
    return {
        "device": [one.environment.device for one in found],
        "what": [one.what for one in found],
        "precision": [BLANK if one.what == "copy" else one.precision for one in found],
        "side, channels or bytes": [str(one.size) for one in found],
        "measured": [_rate(one.per_s, one.what) for one in found],
        "as sold": [_sold(one) for one in found],
        "samples": [str(len(one.times_s)) for one in found],
        "torch": [one.environment.torch for one in found],
        "commit": [one.environment.commit or BLANK for one in found],
        "date": [one.environment.date[:10] for one in found],
    }


def _rate(per_s: float, what: str) -> str:
    if what == "copy":
        return f"{significant(per_s / 1e9)} GB/s"
    return f"{significant(per_s / 1e12)} TFLOP/s" if per_s >= 1e12 else f"{significant(per_s / 1e9)} GFLOP/s"


def _sold(ceiling: Ceiling) -> str:
    name = roofline.gpu_named(ceiling.environment.device)
    if name is None:
        return BLANK
    peaks = roofline.of_gpu(name)
    rate = peaks.bytes_per_s if ceiling.what == "copy" else peaks.flops_per_s(ceiling.precision, "linear")
    return BLANK if rate is None else _rate(rate, ceiling.what)


def _of_floors(roofs: Sequence[Peaks]) -> str:
    sources = "; ".join(
        f"{peaks.device}: {peaks.source}" for peaks in sorted(roofs, key=lambda peaks: not peaks.measured)
    )
    return (
        "Of every device one resolution and batch: that of most measurements on it, or else of most "
        f"models; of these {MOST} at most, the measured first, while the picture has all. *Achieved* is "
        "floor / measured median, of the fastest measurement of the same pass on that device, whatever its "
        "other settings; above 100 % are passes that fusion, caches or an algorithm of fewer FLOPs "
        "(Winograd's 3x3) make faster, or ceilings measured on a busy device. "
        f"Peaks: {sources}."
    )


def _floors(points: Sequence[Point]) -> Columns:
    def achieved(point: Point, form: str) -> str:
        share = point.achieved(form)
        return BLANK if share is None else f"{100 * share:.1f} %"

    def bound(floor: Floor) -> str:
        share = floor.compute_share
        return f"compute {100 * share:.0f} %" if share > 0.5 else f"memory {100 * (1 - share):.0f} %"

    return {
        "device": [p.peaks.device for p in points],
        "peaks": ["measured" if p.peaks.measured else "as sold" for p in points],
        "model": [p.work.model for p in points],
        "px": [size_text(p.work.res) for p in points],
        "batch": [str(p.work.batch) for p in points],
        "precision": [p.precision for p in points],
        "FLOP/byte, eager": [significant(roofline.intensity(p.work, "eager")) for p in points],
        "fused": [significant(roofline.intensity(p.work, "fused")) for p in points],
        "floor, ms, eager": [significant(1e3 * p.eager.total_s) for p in points],
        "fused ": [significant(1e3 * p.fused.total_s) for p in points],
        "images/s at it, eager": [significant(p.work.batch / p.eager.total_s) for p in points],
        "fused  ": [significant(p.work.batch / p.fused.total_s) for p in points],
        "bound by, eager": [bound(p.eager) for p in points],
        "fused   ": [bound(p.fused) for p in points],
        "images/s, measured": [significant(p.measured.images_per_s) if p.measured else BLANK for p in points],
        "measured on": [p.measured.run.environment.date[:10] if p.measured else BLANK for p in points],
        "achieved, eager": [achieved(p, "eager") for p in points],
        "fused    ": [achieved(p, "fused") for p in points],
    }


def _of_operators() -> str:
    return (
        "Shares in %, MACs / eager bytes / time: time is that of operators under torch.profiler on the "
        f"device named, of each size the one of most profiles, and {BLANK} where nothing was profiled. Of "
        f"each size at most {MOST} models, the profiled first; `python -m bench.operators` has any. "
        "*Other* is time in no operator, on a CPU that of Python. *Spread*: from the fastest pass to the "
        "slowest, as a share of the median; the shares of a pass that is called disturbed are not to be "
        "relied on."
    )


def _operators(
    groups: Mapping[Group, Sequence[Work]], profiles: Mapping[tuple[str, Group], Profiled]
) -> Columns:
    rows = [(work, profiles.get((work.model, group))) for group, of in groups.items() for work in of]
    columns: Columns = {
        "model": [work.model for work, _ in rows],
        "px": [size_text(work.res) for work, _ in rows],
        "batch": [str(work.batch) for work, _ in rows],
        "precision": [work.precision for work, _ in rows],
        "profiled": [_where(one) if one else BLANK for _, one in rows],
    }
    for kind in (*KINDS, OTHER):
        cells = [_cell(work, one, kind) for work, one in rows]
        if any(cell != BLANK for cell in cells):
            columns[kind] = cells
    return columns


def _of_kinds() -> str:
    return (
        "Computed floor of all eager kernels of a kind / time under torch.profiler, in ms of one pass; in "
        "brackets the first as a share of the second. The profiler slows a pass, and kernels that caches "
        "feed may beat a floor of bytes. `python -m bench.roofline --by kind` has the rest."
    )


def _kinds(
    groups: Mapping[Group, Sequence[Work]],
    profiles: Mapping[tuple[str, Group], Profiled],
    roofs: Mapping[str, Peaks],
) -> Columns:
    """What was profiled on a device whose peaks are known, kind by kind."""
    rows: list[tuple[Work, Profiled, Peaks]] = []
    for group, of in groups.items():
        for work in of:
            one = profiles.get((work.model, group))
            where = one.run.environment.device if one else ""
            peaks = roofs.get(where) or roofs.get(roofline.gpu_named(where) or "")
            if one is not None and peaks is not None:
                rows.append((work, one, peaks))
    columns: Columns = {
        "model": [work.model for work, _, _ in rows],
        "px": [size_text(work.res) for work, _, _ in rows],
        "batch": [str(work.batch) for work, _, _ in rows],
        "precision": [work.precision for work, _, _ in rows],
        "profiled": [_where(one) for _, one, _ in rows],
        "peaks": ["measured" if peaks.measured else "as sold" for _, _, peaks in rows],
    }
    for kind in KINDS:
        cells = [_beside_floor(kind, *row) for row in rows]
        if any(cell != BLANK for cell in cells):
            columns[kind] = cells
    return columns


def _beside_floor(kind: str, work: Work, profiled: Profiled, peaks: Peaks) -> str:
    spent = profiled.medians.get(kind)
    of_kind = replace(work, parts=tuple(part for part in work.parts if part.kind == kind))
    floor = roofline.floor(of_kind, peaks, work.precision, "eager")
    if not spent or floor is None:
        return BLANK
    share = f"{100 * floor.total_s / spent:.0f} %"
    return f"{1e3 * floor.total_s:.2f} / {1e3 * spent:.2f} ({share})"


def _where(profiled: Profiled) -> str:
    here = profiled.run.environment
    return f"{here.device}, torch {here.torch}, {here.date[:10]}, {labels.passes(profiled)}"


def _cell(work: Work, profiled: Profiled | None, kind: str) -> str:
    macs, moved, spent = (shares.get(kind, 0.0) for shares in _shares(work, profiled))
    if not macs + moved + spent:
        return BLANK
    time = f"{100 * spent:.1f}" if profiled else BLANK
    return f"{100 * macs:.1f} / {100 * moved:.1f} / {time}"


def _shares(work: Work, profiled: Profiled | None) -> tuple[dict[str, float], ...]:
    """Shares of the kinds in a pass's MACs, eager bytes and time, the last empty without a profile."""
    sums = (
        roofline.by_kind(work, "macs"),
        roofline.by_kind(work, "eager_bytes"),
        profiled.medians if profiled else {},
    )
    return tuple({kind: value / sum(of.values()) for kind, value in of.items() if value} for of in sums)


# figures


def _slug(*words: object) -> str:
    return re.sub(r"[^a-z0-9]+", "-", " ".join(map(str, words)).lower()).strip("-")


def _roofline(peaks: Peaks, points: Sequence[Point], without: str) -> Drawing:
    """Intensity against FLOP/s: a row for each form of the bytes, a column for each precision."""
    precisions = [
        p for p in ("fp32", "tf32", "bf16", "fp16") if any(point.precision == p for point in points)
    ]
    timed = any(point.measured for point in points)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(max(7.6, 0.6 + 4.4 * len(precisions)), 8.2)
        grid = figure.subplots(len(roofline.FORMS), len(precisions), squeeze=False)
        looks = _looks(_chains(points))
        panels = [
            _Panel(
                axes=grid[i][j],
                form=form,
                under=[p for p in points if p.precision == precision],
                looks=looks,
            )
            for i, form in enumerate(roofline.FORMS)
            for j, precision in enumerate(precisions)
        ]
        for panel in panels:
            panel.draw()
        text, batch, _ = _group(points[0].work)
        how = "measured ceilings" if peaks.measured else "peaks as sold"
        title = f"Roofline: {peaks.device}, {how}; {text} px, batch {batch}"
        figure.suptitle(title, fontsize=10, weight="bold", x=0.01, ha="left")
        figure.legend(
            handles=_legend(points, looks),
            loc="outside lower center",
            ncols=9,
            frameon=False,
            fontsize=8,
        )
        settle(figure)
        for panel in panels:
            panel.label(figure)
        caption = (
            "Computed: the FLOPs of a pass over its floor, at the bytes of an eager pass (above) and under "
            "ideal fusion (below), which lies below the roof where some operators are held up by memory and "
            "others by arithmetic. "
            + ("Diamonds are measured, at the eager pass's FLOP/byte. " if timed else "")
            + "A line joins the sizes of one family, named at its largest or by its look; every panel has "
            "its own axes. " + without + f"{peaks.device}: {peaks.source}."
        )
        return saved(f"roofline_{_slug(peaks.device, text, 'px', batch)}", figure, title, caption)


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """The roof of one precision, and under it every model at the bytes of one form."""

    axes: Axes
    form: str
    under: Sequence[Point]
    looks: Mapping[str, Look]  # of families

    @property
    def measured(self) -> list[tuple[Point, tuple[float, float]]]:
        """Measurements stand at the bytes of an eager pass, whatever they moved."""
        return [
            (point, (roofline.intensity(point.work, self.form), point.flops_per_s(point.measured.median_s)))
            for point in self.under
            if point.measured and self.form == "eager"
        ]

    def place(self, point: Point) -> tuple[float, float]:
        seconds = point.floor(self.form).total_s
        return roofline.intensity(point.work, self.form), point.flops_per_s(seconds)

    @property
    def peaks(self) -> tuple[float, float]:
        """FLOP/s and byte/s of the roof."""
        one = self.under[0]
        flops_per_s, bytes_per_s = one.peaks.flops_per_s(one.precision, "linear"), one.peaks.bytes_per_s
        assert flops_per_s is not None
        assert bytes_per_s is not None
        return flops_per_s, bytes_per_s

    @property
    def ridge(self) -> float:
        """The FLOPs a byte at which the roof turns."""
        flops_per_s, bytes_per_s = self.peaks
        return flops_per_s / bytes_per_s

    def roof(self) -> list[tuple[float, float]]:
        """Points on the roof over the whole panel, close enough together to keep names off it."""
        flops_per_s, bytes_per_s = self.peaks
        left, right = self.axes.get_xlim()
        xs = sorted([self.ridge, *(left * (right / left) ** (i / 120) for i in range(121))])
        return [(x, min(x * bytes_per_s, flops_per_s)) for x in xs]

    def draw(self) -> None:
        axes, places = self.axes, [self.place(point) for point in self.under]
        xs = [x for x, _ in places]
        ys = [y for _, y in (*places, *(place for _, place in self.measured))]
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(min(*xs, self.ridge) / 1.6, max(*xs, self.ridge) * 1.6)
        top = max(y for x, y in self.roof())
        low, high = min(*ys, top / 2), max(*ys, top)
        axes.set_ylim(low / (high / low) ** 0.08 / 1.03, high * (high / low) ** 0.12 * 1.03)
        axes.plot(*zip(*self.roof(), strict=True), color="black", linewidth=1.4, zorder=1)
        for name, chain in _chains(self.under).items():
            colour, shape = self.looks[name]
            places = [self.place(point) for point in chain]
            axes.plot(*zip(*places, strict=True), color=colour, linewidth=0.8, alpha=0.5, zorder=2)
            for point, place in zip(chain, places, strict=True):
                axes.plot(
                    *place, shape, color=colour, markersize=_width(size(point.work.model)),
                    markeredgecolor="white", markeredgewidth=0.4, zorder=3,
                )  # fmt: skip
        for point, place in self.measured:
            colour, _ = self.looks[sizes_of(point.work.model)]
            axes.plot(
                *zip(self.place(point), place, strict=True),
                color="#777777", linewidth=0.8, linestyle=":", zorder=2,
            )  # fmt: skip
            axes.plot(
                *place, "D", color=colour, markersize=_width(size(point.work.model)),
                markeredgecolor="black", markeredgewidth=0.6, zorder=4,
            )  # fmt: skip
        peak, bytes_per_s = self.peaks
        number = f"{len(self.under)} model{'s' if len(self.under) > 1 else ''}"
        axes.set_title(
            f"{self.under[0].precision}, {self.form}: {number}; {_rate(peak, 'matmul')}, "
            f"{_rate(bytes_per_s, 'copy')}",
            loc="left",
            fontsize=8.5,
        )
        unit, name = (1e12, "TFLOP/s") if peak >= 1e12 else (1e9, "GFLOP/s")
        _tick(axes.xaxis, *axes.get_xlim(), 1.0)
        _tick(axes.yaxis, *axes.get_ylim(), unit)
        axes.grid(color="#e2e2e2", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel(f"FLOP/byte of the whole pass, {self.form}")
        axes.set_ylabel(name)

    def label(self, figure: Figure) -> None:
        """Name families at their largest model, once the figure is laid out."""
        named: list[tuple[str, float, float, float]] = []
        marks = [*self.roof(), *(place for _, place in self.measured)]
        colours: dict[str, str] = {}
        for name, chain in _chains(self.under).items():
            marks += [self.place(point) for point in chain[:-1]]
            model = chain[-1].work.model
            if len(self.looks) <= NAMED or family(model) in FAMILIES:
                text = name if len(chain) > 1 else model
                named.append((text, *self.place(chain[-1]), _width(size(model)) ** 2))
                colours[text] = self.looks[name][0]
            else:
                marks.append(self.place(chain[-1]))
        label_points(figure, self.axes, named, marks, colours)


def _chains(points: Sequence[Point]) -> dict[str, list[Point]]:
    """The sizes of one family and patch, from small to large, by names such as DiT-*/2."""
    found: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: order(point.work.model)):
        found.setdefault(sizes_of(point.work.model), []).append(point)
    return found


def _looks(families: Collection[str]) -> dict[str, Look]:
    """A colour and a shape for each, no two the same while they last; the papers' have their colours."""
    looks: dict[str, Look] = {}
    used: Counter[str] = Counter()
    further = itertools.cycle(MORE_COLOURS)
    for name in families:
        colour = COLOURS.get(name.partition("-*")[0]) or next(further)
        looks[name] = colour, SHAPES[used[colour] % len(SHAPES)]
        used[colour] += 1
    return looks


def _width(letters: str) -> float:
    """Points across the mark of a model of that size: the larger the wider, middling where it names none."""
    return 3.4 + 0.8 * (SIZES.index(letters) if letters in SIZES else 3)


def _tick(axis: Axis, low: float, high: float, unit: float) -> None:
    """Ticks at 1, 2 and 5 times the powers of ten; evenly where the axis is too short for these."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    if sum(low <= tick <= high for tick in ticks) < 3:
        ticks = list(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(low, high))
    axis.set_ticks([tick for tick in ticks if low <= tick <= high])
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / unit:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(NullLocator())


def _legend(points: Sequence[Point], looks: Mapping[str, Look]) -> list[Line2D]:
    def mark(label: str, **look: Any) -> Line2D:  # noqa: ANN401 - matplotlib's own options
        return Line2D([], [], linestyle="", label=label, **look)

    handles = [mark("floor (computed)", marker="o", color="#444444")]
    if any(point.measured for point in points):
        handles.append(mark("measured", marker="D", color="#444444", markeredgecolor="black"))
    there = {size(point.work.model) for point in points}
    handles += [
        mark(letters, marker="o", color="#999999", markersize=_width(letters))
        for letters in SIZES
        if letters in there
    ]
    shown = looks.items() if len(looks) > NAMED else ()
    return handles + [mark(name, marker=shape, color=colour) for name, (colour, shape) in shown]


def _sampling(profiles: Sequence[Profiled]) -> str:
    """Of what the times in a picture are, and how far the passes of any of its profiles lie apart."""
    kept = [one.spread for one in profiles if one.spread is not None]
    means = sorted(one.run.model for one in profiles if not one.has_samples)
    told = []
    if kept:
        passes = " or ".join(map(str, sorted({one.passes for one in profiles if one.has_samples})))
        told.append(f"medians of {passes} passes that differ by {100 * max(kept):.0f} % at most")
    if means:
        told.append(f"means of passes whose spread was not kept of {', '.join(means)}")
    return "; ".join(told)


def _bars(group: Group, works: Sequence[Work], profiles: Mapping[tuple[str, Group], Profiled]) -> Drawing:
    """Beside each other, for every model: who has its MACs, its eager bytes and its time."""
    text, batch, precision = group
    rows: list[tuple[str, dict[str, float]]] = []
    disturbed: list[tuple[float, Profiled]] = []  # and where its row stands
    places: list[float] = []
    middles: list[float] = []
    at = 0.0
    for work in works:
        begin = at
        profiled = profiles.get((work.model, group))
        for name, shares in zip(("MACs", "bytes", "time"), _shares(work, profiled), strict=True):
            if shares:
                rows.append((name, shares))
                places.append(at)
                if name == "time" and profiled and profiled.noise:
                    disturbed.append((at, profiled))
                at += 1
        middles.append((begin + at - 1) / 2)
        at += 0.7
    used = [kind for kind in (*KINDS, OTHER) if any(shares.get(kind) for _, shares in rows)]
    with matplotlib.rc_context(STYLE):
        figure = new_figure(8.6, 1.5 + 0.235 * at)
        axes = figure.add_subplot()
        lefts = [0.0] * len(rows)
        for kind in used:
            widths = [100 * shares.get(kind, 0.0) for _, shares in rows]
            axes.barh(
                places,
                widths,
                left=lefts,
                height=0.86,
                color=KIND_COLOURS[kind],
                edgecolor="white",
                linewidth=0.4,
            )
            for place, left, width in zip(places, lefts, widths, strict=True):
                if width >= 4:
                    dark = kind in ("norm", "linear", "convolution", "pointwise")
                    axes.text(
                        left + width / 2, place, f"{width:.0f}", ha="center", va="center", fontsize=7,
                        color="white" if dark else "black",
                    )  # fmt: skip
            lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
        for place, _ in disturbed:
            axes.text(101, place, "disturbed", va="center", fontsize=7.5, color="#B00000")
        axes.set_yticks(places, [name for name, _ in rows], fontsize=7.5)
        for work, middle in zip(works, middles, strict=True):
            axes.text(
                -0.085, middle, work.model, transform=axes.get_yaxis_transform(), ha="right", va="center",
                weight="bold", fontsize=8.5, color=colour_of(work.model),
            )  # fmt: skip
        axes.set_ylim(at - 0.7 - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("% of the pass")
        axes.spines["left"].set_visible(False)
        seen = [one for work in works if (one := profiles.get((work.model, group)))]
        devices = sorted({one.run.environment.device for one in seen})
        timed = f", the bytes and the time on {', '.join(devices)}" if devices else " and the bytes"
        title = f"Who has the MACs{timed}: {text} px, batch {batch}, {precision}"
        figure.suptitle(title, fontsize=10, weight="bold", x=0.01, ha="left")
        figure.legend(
            handles=[Patch(color=KIND_COLOURS[kind], label=kind) for kind in used],
            loc="outside lower center",
            ncols=min(5, len(used)),
            frameon=False,
            fontsize=8,
        )
        caption = (
            "MACs and bytes of an eager pass from the sizes of tensors; time measured under torch.profiler "
            f"on {', '.join(devices)}: {_sampling(seen)}."
            if devices
            else "MACs and bytes of an eager pass, from the sizes of tensors; no time was measured."
        )
        if disturbed:
            told = "; ".join(f"{one.run.model} ({', '.join(one.noise)})" for _, one in disturbed)
            caption += f" Disturbed, so that the shares of time are not to be relied on: {told}."
        return saved(f"operators_{_slug(text, 'px', batch, precision)}", figure, title, caption)
