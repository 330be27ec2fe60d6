"""Writes the report's section on GPUs that nobody measured here: work in, predictions and their plot out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.analysis import calibration, memory_fit, projection, roofline
from bench.analysis.calibration import Basis, Derived, Judged, MemoryBars
from bench.analysis.memory_fit import GIB
from bench.analysis.projection import Prediction
from bench.records.record import Memory, Record, Work
from reports.figures.plots import OTHER, PAPER_MARKS, STYLE, Drawing, colour_of, hollow, new_figure, saved
from reports.overview import BLANK, Columns, markdown, sentence, significant

GPUS = ("RTX 4090", "A100 SXM4 80GB", "H100 SXM5 80GB", "H200 SXM5 141GB")
MODELS = ("FCDM-XL", "DiT-XL/2", "DiCo-XL", "DiC-XL")
SIZES = (256, 512)
BATCH = 64
PRECISIONS = ("bf16", "torch-default")
_MARKS = {"bf16": "o", "torch-default": "v"}


@dataclass(frozen=True, kw_only=True)
class _Case:
    """One prediction for one GPU."""

    gpu: str
    precision: str
    work: Work
    memory: Memory | None
    peak: tuple[float, float] | None  # the interval of memory's
    prediction: Prediction

    @property
    def rate(self) -> float:
        return self.work.batch / self.prediction.seconds


def section(records: Sequence[Record]) -> tuple[str, list[Drawing]]:
    """Write the section; empty without the work of a model that it is about."""
    derived = calibration.derived_in(records)
    timed, unused = calibration.usable(records)
    seen, lacking = calibration.observations(timed, records, derived)
    basis = calibration.basis(seen)
    bars = MemoryBars(peaks=tuple(calibration.peaks_seen(records, derived)))
    cases = _cases(derived, basis, bars)
    if not cases:
        return "", []
    parts = [
        "## Predicted for GPUs",
        f"{_reading(basis, cases)} {sentence(bars.words('inference'))}",
        *(text for gpu in GPUS for text in (f"### Predicted: {gpu}", markdown(_of_gpu(cases, gpu)))),
        "### Shares of the peaks",
        markdown(_shares(basis)),
    ]
    if priors_held := basis.priors_held():
        parts.append(f"In brackets the nominal interval; {priors_held}.")
    if basis.held_out:
        parts += [
            "### Left out and predicted",
            LEFT_OUT,
            markdown(_coverage(basis)),
            markdown(_held_out(basis)),
        ]
    others = unused + lacking
    if others:
        reasons = "; ".join(f"{count} {reason}" for reason, count in others.most_common())
        parts.append(f"Measured passes that do not calibrate: {reasons}.")
    judged = calibration.judge(basis, derived, [calibration.PUBLISHED_ON])
    if judged:
        parts += [
            "### Published beside predicted",
            f"{calibration.LIMIT}. {calibration.CAVEAT}.",
            markdown(_judged(judged)),
        ]
    with matplotlib.rc_context(STYLE):
        drawing = saved("projection", *_plot(cases))
    picture = drawing.picture
    parts.append(f"![{picture.title}]({picture.name}.png)\n\n{picture.caption}")
    return "\n\n".join(parts), [drawing]


def _cases(derived: Derived, basis: Basis, bars: MemoryBars) -> list[_Case]:
    cases = []
    for precision in PRECISIONS:
        for res in SIZES:
            for model in MODELS:
                key = calibration.asked(model, res, BATCH, precision, "inference")
                work = derived.work(key)
                if work is None:
                    continue
                memory = derived.memories.get(key)
                use = memory.use if memory is not None else None
                for gpu in GPUS:
                    peaks = roofline.of_gpu(gpu)
                    if projection.why_not(peaks, [precision]) is None:
                        case = _Case(
                            gpu=gpu,
                            precision=precision,
                            work=work,
                            memory=memory,
                            peak=bars.interval(use.peak_bytes, work.work) if use is not None else None,
                            prediction=basis.predict(work, peaks, precision),
                        )
                        cases.append(case)
    return cases


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _reading(basis: Basis, cases: Sequence[_Case]) -> str:
    traced = sorted({(c.work.environment.torch, c.work.environment.commit) for c in cases})
    stamps = ", ".join(f"torch {torch}, commit {commit or BLANK}" for torch, commit in traced)
    dates = sorted({case.work.environment.date for case in cases})
    return (
        "**Speed and memory under the name of a GPU are predicted, not measured.** Eager passes of batch "
        f"{BATCH} with torch's own kernels: each operator takes the longer of FLOPs over a share of the "
        "peak and bytes over a share of the bandwidth (baselines/gpus.csv, dense). In brackets the "
        f"nominal {_percent(projection.COVERAGE)} interval. *At most* are the rates at the full peaks, of an "
        "eager pass, where the interval ends at the latest, and with ideal fusion. torch-default is fp32 "
        f"with TF32 in convolutions only. Basis: {basis.words()}. "
        f"{sentence(basis.level())} Work traced with {stamps}, {dates[-1]}."
    )


def _range(rate: float, low: float, high: float) -> str:
    return f"{significant(rate)} [{significant(low)}, {significant(high)}]"


def _predicted(batch: int, prediction: Prediction) -> str:
    return _range(batch / prediction.seconds, batch / prediction.high_s, batch / prediction.low_s)


def _of_gpu(cases: Sequence[_Case], gpu: str) -> Columns:
    shown = [case for case in cases if case.gpu == gpu]
    return {
        "model": [case.work.model for case in shown],
        "px": [str(case.work.res) for case in shown],
        "precision": [case.precision for case in shown],
        "predicted images/s": [_predicted(case.work.batch, case.prediction) for case in shown],
        "predicted ms": [significant(1e3 * case.prediction.seconds) for case in shown],
        "images/s at most, eager": [
            significant(case.work.batch / case.prediction.eager_floor_s) for case in shown
        ],
        "images/s at most, fused": [
            significant(case.work.batch / case.prediction.fused_floor_s) for case in shown
        ],
        "predicted GiB": [_gib(case) for case in shown],
        "fits": [_fits(case, gpu) for case in shown],
    }


def _gib(case: _Case) -> str:
    memory = case.memory
    if memory is None:
        return BLANK
    if memory.use is None:
        return memory.status
    text = f"{memory.use.peak_bytes / GIB:.1f}"
    return text if case.peak is None else f"{text} [{case.peak[0] / GIB:.1f}, {case.peak[1] / GIB:.1f}]"


def _fits(case: _Case, gpu: str) -> str:
    if case.memory is None or case.memory.use is None:
        return BLANK
    return calibration.fits(case.memory.use.peak_bytes, case.peak, memory_fit.device(gpu).usable_bytes)


def _shares(basis: Basis) -> Columns:
    shares = basis.calibrations["cuda"].described()

    def text(name: str, value: float) -> str:
        return f"{1e6 * value:.3g} µs" if name == "launch" else f"{value:.3g}"

    return {
        "of a GPU": [share.prior.name for share in shares],
        "prior": [text(share.prior.name, share.prior.median) for share in shares],
        "calibrated": [
            f"{text(s.prior.name, s.value)} [{text(s.prior.name, s.low)}, {text(s.prior.name, s.high)}]"
            for s in shares
        ],
        "prior from": [share.prior.why for share in shares],
    }


LEFT_OUT = (
    "Every size, model and device was left out of the calibration in turn and predicted, and then "
    "everything, so that the priors alone predict it, as they do a GPU until one is measured. An interval is "
    "made of the errors of the other groups, never of its own: sizes, models or devices, and models again "
    "where everything is left out. First how many passes lay in theirs, then every pass."
)


def _coverage(basis: Basis) -> Columns:
    of = {(one.left_out, one.model): one.text for one in basis.coverages}
    models = sorted({model for _, model in of})
    return {
        "model": models,
        **{
            f"in the interval with {projection.said_left_out(left_out)} left out": [
                of.get((left_out, model), BLANK) for model in models
            ]
            for left_out in dict.fromkeys(left_out for left_out, _ in of)
        },
    }


def _held_out(basis: Basis) -> Columns:
    held = basis.held_out
    return {
        "left out": [projection.said_left_out(one.left_out) for one in held],
        "device": [one.observation.device for one in held],
        "model": [one.observation.model for one in held],
        "work": [one.observation.work.work for one in held],
        "px": [str(one.observation.res) for one in held],
        "batch": [str(one.observation.batch) for one in held],
        "precision": [one.observation.precision for one in held],
        "measured images/s": [significant(one.observation.batch / one.observation.seconds) for one in held],
        "predicted images/s": [_predicted(one.observation.batch, one.prediction) for one in held],
        "error": [f"{100 * math.expm1(-one.error):+.0f} %" for one in held],
        "in it": ["yes" if one.covered else "no" for one in held],
    }


def _judged(judged: Sequence[Judged]) -> Columns:
    def reading(one: Judged, precision: str) -> str:
        found = [reading for reading in one.readings if reading.precision == precision]
        return _predicted(calibration.PUBLISHED_BATCH, found[0].prediction) if found else BLANK

    def at_most_fp32(one: Judged) -> str:
        floors_s = [r.prediction.fused_floor_s for r in one.readings if r.precision == "fp32"]
        return significant(calibration.PUBLISHED_BATCH / floors_s[0]) if floors_s else BLANK

    return {
        "source": [one.row.source for one in judged],
        "model": [one.row.model for one in judged],
        "px": [str(one.row.res) for one in judged],
        "published images/s": [one.row.as_printed for one in judged],
        "said": [", ".join(filter(None, (one.row.device, one.row.precision))) or BLANK for one in judged],
        **{
            f"predicted images/s {precision}, {calibration.PUBLISHED_ON}": [
                reading(one, precision) for one in judged
            ]
            for precision in calibration.READINGS
        },
        f"fp32 images/s at most, {calibration.PUBLISHED_ON}": [at_most_fp32(one) for one in judged],
        f"verdict, if on {calibration.PUBLISHED_ON}": [one.verdict for one in judged],
    }


# the plot


def _plot(cases: Sequence[_Case]) -> tuple[Figure, str, str]:
    """Predicted images/s with their intervals, by GPU and model; published ones in the A100's column."""
    sizes = [res for res in SIZES if any(case.work.res == res for case in cases)]
    figure = new_figure(9.2, 1.4 + 3.0 * len(sizes))
    for i, res in enumerate(sizes):
        axes = figure.add_subplot(len(sizes), 1, i + 1)
        _panel(axes, [case for case in cases if case.work.res == res], res)
    title = f"Predicted images/s of eager passes, batch {BATCH}"
    figure.suptitle(title, fontsize=10, weight="bold", x=0.01, ha="left")
    models = [model for model in MODELS if any(case.work.model == model for case in cases)]
    precisions = [precision for precision in PRECISIONS if any(case.precision == precision for case in cases)]
    figure.legend(
        handles=[
            *(Patch(color=colour_of(model), label=model) for model in models),
            *map(_predicted_mark, precisions),
            *(hollow(paper, OTHER) for paper in PAPER_MARKS),
        ],
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=8,
    )
    caption = (
        f"Filled: predicted, with nominal {_percent(projection.COVERAGE)} intervals, which end at the eager "
        "rate at full peaks at the latest; nothing here was measured. "
        "Hollow, in the A100's column: what the papers print. DiCo's tables name an A100, not "
        "which one, and fp32 at 256 px; FCDM's name no GPU and no precision."
    )
    return figure, title, caption


def _predicted_mark(precision: str) -> Line2D:
    return Line2D(
        [], [], linestyle="", marker=_MARKS[precision], color=OTHER, markersize=5,
        label=f"predicted, {precision}",
    )  # fmt: skip


def _panel(axes: Axes, cases: Sequence[_Case], res: int) -> None:
    def at(gpu: str, model: str, beside: int) -> float:
        """Models stand beside each other; of each its precisions, and then what was published."""
        return GPUS.index(gpu) + 0.22 * (MODELS.index(model) - (len(MODELS) - 1) / 2) + 0.05 * (beside - 1)

    for case in cases:
        rate, batch, model = case.rate, case.work.batch, case.work.model
        axes.errorbar(
            at(case.gpu, model, PRECISIONS.index(case.precision)), rate,
            yerr=[[rate - batch / case.prediction.high_s], [batch / case.prediction.low_s - rate]],
            fmt=_MARKS[case.precision], color=colour_of(model), markersize=5, capsize=2, linewidth=1,
        )  # fmt: skip
    shown = {case.work.model for case in cases}
    for row in calibration.published_rows():
        if row.res == res and row.model in shown:
            mark = hollow(row.paper, colour_of(row.model))
            mark.set_data([at(calibration.PUBLISHED_ON, row.model, len(PRECISIONS))], [row.images_per_s])
            axes.add_line(mark)
    axes.set_yscale("log")
    axes.set_xticks(range(len(GPUS)), GPUS)
    axes.set_xlim(-0.5, len(GPUS) - 0.5)
    for edge in range(1, len(GPUS)):
        axes.axvline(edge - 0.5, color="#dddddd", linewidth=0.8)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("images/s, log scale", fontsize=8)
    axes.set_title(f"{res} px", loc="left", fontsize=9, weight="bold")
