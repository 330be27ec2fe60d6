"""Writes the report's section on counters: records in, markdown out."""

from collections.abc import Sequence

from bench.counting.explain import COUNTERS, PAIR
from bench.records.record import Counted, Record, Size, height_width, size_text
from reports import selection
from reports.figures.plots import Drawing
from reports.naming import order
from reports.overview import BLANK, Columns, markdown, stamp


def section(records: Sequence[Record]) -> tuple[str, list[Drawing]]:
    """Write the section; empty unless some model was counted under two counters at one size.

    The newest count of a case is shown, of the smallest batch, for one image.
    """
    cases = _cases(selection.gather(records).counted)
    if not cases:
        return "", []
    shown = [counter for counter in COUNTERS if any(counter in each for each in cases.values())]
    parts = ["## The same model under every counter", _reading(cases, shown), markdown(_counts(cases, shown))]
    ratios = _ratios(cases, shown)
    if ratios["px"]:
        parts += [f"### {' / '.join(PAIR)} under each counter", markdown(ratios)]
    return "\n\n".join(parts), []


Case = tuple[str, Size]


def _cases(counted: Sequence[Counted]) -> dict[Case, dict[str, Counted]]:
    """Counts by model and size, then by counter, where two counters or more saw the model."""
    by_case: dict[Case, dict[str, Counted]] = {}
    for one in sorted(counted, key=lambda one: -one.batch):
        by_case.setdefault((one.model, one.res), {})[one.counter] = one
    chosen = sorted(by_case, key=lambda case: (order(case[0]), height_width(case[1])))
    return {case: by_case[case] for case in chosen if len(by_case[case].keys() & COUNTERS.keys()) > 1}


def _reading(cases: dict[Case, dict[str, Counted]], shown: Sequence[str]) -> str:
    made = {stamp(one.environment) for each in cases.values() for one in each.values()}
    return (
        "GMACs of one forward pass and one image, counted here; 1 MAC = 2 FLOPs. `python -m bench.flops "
        "--explain` names every difference to torch's count. "
        + "; ".join(f"*{counter}*: {COUNTERS[counter]}" for counter in shown)
        + f". Counted with {'; '.join(sorted(made))}."
    )


def _counts(cases: dict[Case, dict[str, Counted]], shown: Sequence[str]) -> Columns:
    columns: Columns = {"model": [model for model, _ in cases], "px": [size_text(res) for _, res in cases]}
    for counter in shown:
        columns[counter] = [_gmacs(each.get(counter)) for each in cases.values()]
    return columns


def _gmacs(one: Counted | None) -> str:
    return BLANK if one is None else f"{one.macs / one.batch / 1e9:.4f}"


def _ratios(cases: dict[Case, dict[str, Counted]], shown: Sequence[str]) -> Columns:
    """The pair's ratio at every size at which both were counted."""
    sizes = [res for model, res in cases if model == PAIR[0] and (PAIR[1], res) in cases]
    columns: Columns = {"px": [size_text(res) for res in sizes]}
    for counter in shown:
        columns[counter] = [_ratio(*(cases[model, res].get(counter) for model in PAIR)) for res in sizes]
    return columns


def _ratio(above: Counted | None, below: Counted | None) -> str:
    if above is None or below is None:
        return BLANK
    return f"{above.macs / above.batch / (below.macs / below.batch):.4f}"
