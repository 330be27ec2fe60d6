"""The head of the report: conventions, the table of all models, how to read it, plots, failed cases."""

from collections.abc import Iterable, Sequence

from bench.records.base import Environment, Record, Size, Skipped, height_width, size_text
from bench.records.counts import MacCount
from bench.store.store import REPORTED
from reports.markdown import BLANK, Columns, Picture, gmacs, images, markdown, significant
from reports.naming import family, order
from reports.selection import OUR_RULES, Evidence, Setting, Timing


def setting_marks(evidence: Evidence) -> dict[Setting, str]:
    """Short names for the columns of measured settings: M1, M2, ..."""
    return {setting: f"M{i}" for i, setting in enumerate(evidence.settings, start=1)}


def head(evidence: Evidence) -> str:
    """Title, conventions and the number of records."""
    lines = [
        "# Diffusion backbones: published, counted and measured",
        "Columns marked *published* hold what the papers print, digit for digit. Columns marked *counted "
        "here* or *measured here* hold this suite's records. Neither replaces the other; "
        f"{BLANK} is a missing number.",
        "**MACs and FLOPs.** One multiply-accumulate (MAC) is two FLOPs. What these papers print as FLOPs or "
        "Gflops is a count of MACs, so it is headed GMACs here; GFLOPs in this report are twice the GMACs.",
    ]
    timed = sum(timing.images_per_s is not None for timing in evidence.timings)
    skipped = len(evidence.timings) - timed
    if evidence.counted or evidence.timings:
        older = f"; {evidence.older} older of the same cases not shown" if evidence.older else ""
        lines.append(
            f"**Records.** {len(evidence.counted)} counted, {timed} measured, "
            f"{skipped} without a number{older}."
        )
    else:
        lines.append(f"**Records.** None: nothing is counted or measured here yet. {command(())}")
    return "\n\n".join(lines)


def overview(evidence: Evidence, marks: dict[Setting, str]) -> str:
    """Counts and speeds of every model, one table for each resolution."""
    sizes = sorted(
        {c.case.res for c in evidence.counted} | {t.case.res for t in evidence.timings},
        key=lambda res: (*height_width(res), size_text(res)),
    )
    parts = ["## Overview"]
    parts += [f"**{mark}**: {setting_line(setting, evidence)}" for setting, mark in marks.items()]
    parts += [_overview_at(res, evidence, marks) for res in sizes]
    if not sizes:
        parts.append("Nothing is counted or measured here yet.")
    return "\n\n".join(parts)


def _overview_at(res: Size, evidence: Evidence, marks: dict[Setting, str]) -> str:
    models = {c.case.model for c in evidence.counted if c.case.res == res}
    models |= {t.case.model for t in evidence.timings if t.case.res == res}
    names = sorted(models, key=order)
    counts = [evidence.count(name, res, OUR_RULES) for name in names]
    sources: list[list[Record]] = [[count] if count else [] for count in counts]
    columns: Columns = {
        "model": names,
        "params, M, counted": [significant(c.params / 1e6) if c else BLANK for c in counts],
        "GMACs, counted": [per_image(c, c.macs if c else None) for c in counts],
        "GFLOPs, counted": [per_image(c, c.flops if c else None) for c in counts],
        "training step GMACs, counted": [per_image(c, c.train_macs if c else None) for c in counts],
        "training step GMACs with checkpointing, counted": [
            per_image(c, c.train_macs_checkpointed if c else None) for c in counts
        ],
    }
    for setting, mark in marks.items():
        timings = [evidence.timing(setting, name, res) for name in names]
        if any(timings):
            columns[f"images/s, measured ({mark})"] = [images(t.record if t else None) for t in timings]
            for source, timing in zip(sources, timings, strict=True):
                source += [timing.record] if timing else []
    line = f"**Counted here**: {counted_line(counts, (), res)}"
    return f"### {size_text(res)} px, one image\n\n{line}\n\n{markdown(columns, sources)}"


def reading() -> str:
    return "\n".join(
        [
            "## How to read the numbers",
            "",
            "- images/s is batch / median pass of one denoising call, model(x, t, y), not of a sampler. "
            "The brackets are the 95 % interval of the median; † marks a case whose time budget ended before "
            "the interval was as narrow as requested.",
            "- Compare images/s within a column only: another device, precision or batch is another "
            "column. Across devices compare the ratio to the DiT of the same size (÷ DiT), and even that "
            "moves with precision, batch and attention kernel.",
            "- difference is counted / published - 1; (=) means equal once rounded to the printed digits. "
            "The published tables are compared with a count by torchprofile's rules where there is one; the "
            "overview uses torch's counter. For most models torch's count is a few thousandths lower, as it "
            "leaves elementwise products out; for recurrent models (DiG, DiM, DiMSUM, DiS) it is up to about "
            "2 % higher, as torchprofile's rules leave the recurrence out.",
            "- A training step is one forward and backward pass of one image, the input needing no gradient; "
            "with checkpointing every block is computed once more.",
            "- FID, IS, precision and recall in these tables are the papers'. The section on samples has the "
            "distances of samples drawn here, if there are any.",
            "- [r1], [r2], ... at a published number link to a remark under its table: the papers "
            "contradict each other, or the number was probably copied from another source.",
        ]
    )


def plots(pictures: Sequence[Picture]) -> str:
    return "\n\n".join(["## Plots", *(picture.markdown for picture in pictures)]) if pictures else ""


def without_number(evidence: Evidence, marks: dict[Setting, str]) -> str:
    """The cases that failed, with their reasons."""
    skipped = [(t, t.record) for t in evidence.timings if isinstance(t.record, Skipped)]
    if not skipped:
        return ""
    skipped.sort(key=lambda s: (order(s[0].case.model), height_width(s[0].case.res), s[1].reason))
    columns: Columns = {
        "model": [t.case.model for t, _ in skipped],
        "px": [size_text(t.case.res) for t, _ in skipped],
        "setting": [f"{marks[t.setting]}: {t.setting}" for t, _ in skipped],
        "status": [record.status for _, record in skipped],
        "reason": [record.reason for _, record in skipped],
        "date": [record.environment.date[:10] for _, record in skipped],
    }
    return f"## Cases without a number\n\n{markdown(columns, [[record] for _, record in skipped])}"


# conditions of the numbers


def per_image(count: MacCount | None, macs: int | None) -> str:
    return BLANK if count is None or macs is None else gmacs(macs / count.case.batch)


def counted_line(found: Sequence[MacCount | None], models: Sequence[str], res: Size) -> str:
    """Conditions of the counts; without counts, the command that makes them."""
    counts = [count for count in found if count]
    if not counts:
        return f"nothing at {size_text(res)} px. {command(models, res)}"
    counters: dict[str, set[str]] = {}
    for count in counts:
        counters.setdefault(count.case.counter, set()).add(count.case.model)
    ranked = sorted(counters.items(), key=lambda item: (-len(item[1]), item[0]))
    by = ranked[0][0]
    for counter, names in ranked[1:]:
        by += f"; {counter} for {', '.join(sorted(names, key=order))}"
    batches = ", ".join(str(batch) for batch in sorted({count.case.batch for count in counts}))
    software = _environments([count.environment for count in counts])
    return f"counter {by}; batch {batches}, given per image; precision: a count has none; {software}."


def setting_line(
    setting: Setting, evidence: Evidence, res: Size | None = None, names: Iterable[str] | None = None
) -> str:
    """Conditions of a setting's timings: of all, or of some models at one size."""
    wanted = None if names is None else set(names)

    def is_wanted(timing: Timing) -> bool:
        case = timing.case
        return (res is None or case.res == res) and (wanted is None or case.model in wanted)

    chosen = [t for t in evidence.timings if t.setting == setting and is_wanted(t)]
    environments = [timing.record.environment for timing in chosen]
    extra = []
    if any(environment.device_type == "cpu" for environment in environments):
        extra.append(f"threads {_listed(str(e.threads) for e in environments)}")
    for what, values in (
        ("driver", _listed(e.driver for e in environments)),
        ("CUDA", _listed(e.cuda for e in environments)),
        ("weights", _listed(timing.case.weights for timing in chosen)),
    ):
        if values:
            extra.append(f"{what} {values}")
    return f"{setting}; {'; '.join([*extra, _environments(environments, device=False)])}."


def _environments(environments: Sequence[Environment], *, device: bool = True) -> str:
    dates = sorted({environment.date[:10] for environment in environments})
    # a count on the meta device has no machine, as nothing is computed
    parts = [f"device {_listed(e.device or e.device_type for e in environments)}"] if device else []
    return "; ".join(
        [
            *parts,
            f"torch {_listed(e.torch for e in environments)}",
            f"commit {_listed(e.commit or 'unknown' for e in environments)}",
            f"date {' to '.join(dict.fromkeys((dates[0], dates[-1])))}",
        ]
    )


def _listed(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values) - {""}))


def command(models: Sequence[str], res: Size | None = None, name: str = "flops") -> str:
    """The command that fills a gap; several models of a family become a pattern."""
    chosen = ""
    for group in sorted({family(model) for model in models}, key=order):
        members = [model for model in models if family(model) == group]
        patch = "/2" if all(model.endswith("/2") for model in members) else ""
        chosen += f" --model {members[0]}" if len(members) == 1 else f" --model '{group}-*{patch}'"
    if name == "flops":
        chosen += " --counter torch torchprofile-meta"
    sizes = "256 512 1024" if res is None else size_text(res)
    return f"Run `python -m bench.{name}{chosen} --res {sizes} --out {REPORTED}`."
