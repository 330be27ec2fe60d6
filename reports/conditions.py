"""Conditions of counted and measured numbers in words, and the commands that fill gaps."""

from collections.abc import Iterable, Sequence

from bench.analysis.speed.settings import Setting
from bench.records.base import Environment, Size, size_text
from bench.records.counts import MacCount
from bench.store.store import REPORTED
from reports.markdown import BLANK, gmacs
from reports.naming import family, order
from reports.selection import Evidence, Timing


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
    return f"counter {by}; per image, counted at batch {batches}; {software}."


def setting_line(
    setting: Setting, evidence: Evidence, res: Size | None = None, names: Iterable[str] | None = None
) -> str:
    """Conditions of a setting's timings: of all, or of some models at one size."""
    wanted = None if names is None else set(names)

    def is_wanted(timing: Timing) -> bool:
        case = timing.case
        return (res is None or case.res == res) and (wanted is None or case.model in wanted)

    chosen = [timing for timing in evidence.by_setting[setting] if is_wanted(timing)]
    environments = [record.environment for timing in chosen for record in timing.records]
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
        listed = len(members) == 1 or any("@" in model for model in members)
        chosen += f" --model {' '.join(members)}" if listed else f" --model '{group}-*{patch}'"
    if name == "flops":
        chosen += " --counter torch torchprofile-meta"
    sizes = "256 512 1024" if res is None else size_text(res)
    return f"Run `python -m bench.{name}{chosen} --res {sizes} --out {REPORTED}`."
